r"""A latent energy E(x, z) with a learnt posterior: q(z | x) from the outputs of an encoder.

The posterior p(z | x) of an energy with several layers of latents, or with real-valued latents in
general, is not available. An encoder with its own parameters replaces it by independent bits or a
Gaussian with diagonal covariance; an importance-weighted sum over its draws estimates the free
energy,

    F(x) = -log E_{z ~ q} exp(-E(x, z)) / q(z | x).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sklebm.energies.base import Reference
from sklebm.energies.posteriors import BernoulliPosterior, DiagonalGaussian


class AmortizedEnergy(nn.Module):
    """An energy of rows and latents, with an encoder that infers the latents.

    Parameters
    ----------
    model : Module
        Anything with ``energy(x, z)``, such as a ``LayeredEnergy``; its ``free_energy(x)`` is kept
        if it has one.
    encoder : Module
        From rows (n, d) to log odds of k bits, (n, k), or to means and log deviations of k real
        latents, (n, 2 k).
    reference : Reference
        A known density near the rows: the noise of noise-contrastive estimation.
    log_partition : Tensor of shape ()
        Initial value of log Z in nats, which is learnt.
    is_binary : bool, default=True
        Whether latents are bits.
    """

    def __init__(
        self,
        model: nn.Module,
        encoder: nn.Module,
        reference: Reference,
        log_partition: Tensor,
        is_binary: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.encoder = encoder
        self.reference = reference
        self.log_partition = nn.Parameter(log_partition)
        #: Whether draws of latents are differentiable functions of noise.
        self.is_reparametrized = not is_binary
        exact = getattr(model, "free_energy", None)
        if exact is not None:
            self.free_energy = exact

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z), (n_rows,)."""
        model: Any = self.model
        value: Tensor = model.energy(x, z)
        return value

    def posterior(self, x: Tensor) -> BernoulliPosterior | DiagonalGaussian:
        """q(z | x) of each row."""
        outputs = self.encoder(x)
        if self.is_reparametrized:
            return DiagonalGaussian.unpack(outputs)
        return BernoulliPosterior(outputs, torch.zeros_like(outputs[0]))

    def draw_noise(self, *shape: int, generator: torch.Generator, like: Tensor) -> Tensor:
        """Noise for draws of the latents: normal, or uniform for bits."""
        with torch.no_grad():
            outputs = self.encoder(like[:1]).shape[1]
        if self.is_reparametrized:
            return like.new_empty(*shape, outputs // 2).normal_(generator=generator)
        return like.new_empty(*shape, outputs).uniform_(generator=generator)

    def hidden_mean(self, x: Tensor) -> Tensor:
        """Mean of the latents under q, (n_rows, k)."""
        return self.posterior(x).mean
