r"""Lower bounds on the evidence log p(x), maximised at the data: ELBO, IWAE and its DReG gradient.

    ELBO   E_q log p(x | z) - beta KL(q(z | x) || p(z))
    IWAE   E_q log (1/K) sum_k w_k,   w_k = p(x, z_k) / q(z_k | x),   z_k ~ q(z | x)

D. P. Kingma and M. Welling, "Auto-encoding variational Bayes", ICLR 2014; I. Higgins et al.,
"beta-VAE", ICLR 2017; D. P. Kingma et al., "Improved variational inference with inverse
autoregressive flow", NeurIPS 2016 (free bits); Y. Burda, R. Grosse and R. Salakhutdinov,
"Importance weighted autoencoders", ICLR 2016; G. Tucker et al., "Doubly reparameterized gradient
estimators for Monte Carlo objectives", ICLR 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sklebm._checks import check_count, check_counts, check_number
from sklebm.energies.units import draw_bits
from sklebm.objectives.base import Batch, Objective, ObjectiveState

_NEEDS = ("posterior", "reparametrize", "log_likelihood")


def row_mean(batch: Batch, values: Tensor) -> Tensor:
    """The mean over rows of values (n_rows,), or of their mean over draws, (n_draws, n_rows)."""
    if batch.weight is None:
        return values.mean()
    return batch.mean(values if values.dim() == 1 else values.mean(dim=0))


@dataclass(frozen=True)
class WeightedBound(Objective):
    """Shared part of bounds with a separate weight on the divergence.

    Parameters
    ----------
    n_samples : int, default=1
        Draws of z per row.
    beta : float, default=1.0
        Weight of the divergence; above 1 it prunes latents, below 1 it sharpens reconstructions.
    beta_warmup : int, default=0
        Number of updates over which the weight rises from 0 to ``beta``.
    free_bits : float, default=0.0
        Nats per latent, averaged over the batch, below which the divergence is not penalised.
    binarize : bool, default=False
        Whether rows are probabilities from which binary rows are drawn at every update.
    """

    n_samples: int = 1
    beta: float = 1.0
    beta_warmup: int = 0
    free_bits: float = 0.0
    binarize: bool = False

    def __post_init__(self) -> None:
        check_counts(self, "n_samples")
        check_number(self.beta, "beta", self)
        check_number(self.free_bits, "free_bits", self, positive=False)
        check_count(self.beta_warmup, "beta_warmup", self, least=0)

    def init_state(
        self, energy: Any, batch_size: int, generator: torch.Generator
    ) -> ObjectiveState:
        """Count updates from 0, if the weight depends on them."""
        if not self.beta_warmup:
            return {}
        return {"n_updates": torch.zeros(1, device=generator.device)}

    def weighted(
        self, divergence: Tensor, batch: Batch, state: ObjectiveState
    ) -> tuple[Tensor, ObjectiveState]:
        """The divergence term of the loss, from the divergence of each row and latent."""
        if self.free_bits:
            part = batch.mean(divergence).clamp(min=self.free_bits).sum()
        elif batch.weight is None:
            part = divergence.sum() / len(divergence)
        else:
            part = batch.mean(divergence.sum(dim=1))
        if not self.beta_warmup:
            return self.beta * part, state
        n_updates = state["n_updates"] + 1
        share = (n_updates / self.beta_warmup).clamp(max=1.0)
        return (self.beta * share * part).squeeze(), {"n_updates": n_updates}


@dataclass(frozen=True)
class EvidenceLowerBound(WeightedBound):
    """ELBO with the divergence in closed form and reparametrised draws.

    Parameters
    ----------
    n_samples : int, default=1
        Draws of z per row.
    beta : float, default=1.0
        Weight of the divergence; above 1 it prunes latents, below 1 it sharpens reconstructions.
    beta_warmup : int, default=0
        Number of updates over which the weight rises from 0 to ``beta``.
    free_bits : float, default=0.0
        Nats per latent, averaged over the batch, below which the divergence is not penalised.
        With a full covariance the divergence is split by rows of the factor.
    binarize : bool, default=False
        Whether rows are probabilities from which binary rows are drawn at every update.
    """

    needs: ClassVar[tuple[str, ...]] = _NEEDS

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean over rows of beta KL - E_q log p(x | z)."""
        x = batch.x
        if self.binarize:
            x = draw_bits(x, generator)
        q = energy.posterior(x)
        shape = (len(x),) if self.n_samples == 1 else (self.n_samples, len(x))
        z = energy.reparametrize(q, energy.draw_noise(*shape, generator=generator, like=x))
        divergence, state = self.weighted(q.divergence(), batch, state)
        return divergence - row_mean(batch, energy.log_likelihood(x, z)), state


@dataclass(frozen=True)
class ImportanceWeightedBound(Objective):
    """The importance-weighted bound, which gets tighter with more draws.

    Parameters
    ----------
    n_samples : int, default=10
        Draws of z per row.
    doubly_reparametrized : bool, default=False
        Whether the encoder follows the doubly reparametrised gradient, whose noise falls with the
        number of draws instead of drowning it.
    binarize : bool, default=False
        Whether rows are probabilities from which binary rows are drawn at every update.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import VAE
    >>> from sklebm.objectives import ImportanceWeightedBound
    >>> X = load_digits().data[:200] / 16
    >>> objective = ImportanceWeightedBound(n_samples=5)
    >>> VAE(2, objective=objective, max_epochs=2, random_state=0).fit_transform(X).shape
    (200, 2)
    """

    n_samples: int = 10
    doubly_reparametrized: bool = False
    binarize: bool = False

    needs: ClassVar[tuple[str, ...]] = _NEEDS

    def __post_init__(self) -> None:
        check_counts(self, "n_samples")

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean over rows of -log (1/K) sum_k w_k."""
        x = batch.x
        if self.binarize:
            x = draw_bits(x, generator)
        q = energy.posterior(x)
        noise = energy.draw_noise(self.n_samples, len(x), generator=generator, like=x)
        z = energy.reparametrize(q, noise)
        if not self.doubly_reparametrized:
            weights = energy.log_weights(x, q, z)
            return math.log(self.n_samples) - batch.mean(torch.logsumexp(weights, dim=0)), state
        # With q's own parameters held fixed the encoder is reached through z alone, where its
        # gradient has the weight w^2 instead of the decoder's w (w normalised over the draws).
        weights = energy.log_weights(x, q.detach(), z)
        shares = torch.softmax(weights.detach(), dim=0)
        if z.requires_grad:
            z.register_hook(lambda gradient: shares[..., None] * gradient)
        surrogate = batch.mean((shares * weights).sum(dim=0))
        bound = batch.mean(torch.logsumexp(weights.detach(), dim=0)) - math.log(self.n_samples)
        return surrogate.detach() - surrogate - bound, state


@dataclass(frozen=True)
class DoublyReparametrizedBound(ImportanceWeightedBound):
    """The importance-weighted bound with ``doubly_reparametrized=True``.

    Parameters
    ----------
    n_samples : int, default=10
        Draws of z per row.
    doubly_reparametrized : bool, default=True
        See ``ImportanceWeightedBound``.
    binarize : bool, default=False
        Whether rows are probabilities from which binary rows are drawn at every update.
    """

    doubly_reparametrized: bool = True
