r"""The evidence lower bound with latents in {0, 1}, through which no gradient passes.

    sum_z q(z | x) log p(x | z) - beta KL(q(z | x) || p(z)),     q(z_j = 1 | x) = s(l_j)

The sum is enumerated where there are few latents. Otherwise its gradient in l is estimated: by the
score function of an antithetic pair of draws z, z' (DisARM),

    dl_j:  1/2 (f(z) - f(z')) (-1)^z'_j [z_j != z'_j] s(|l_j|),       f(z) = log p(x | z),

which is unbiased, or by relaxed draws s((l + logistic noise) / T), which is not.

Z. Dong, A. Mnih and G. Tucker, "DisARM: an antithetic gradient estimator for binary latent
variables", NeurIPS 2020; C. J. Maddison, A. Mnih and Y. W. Teh, "The concrete distribution", ICLR
2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from sklebm._checks import check_choice, check_number
from sklebm.energies.units import draw_bits
from sklebm.objectives.base import Batch, ObjectiveState
from sklebm.objectives.evidence import WeightedBound, row_mean

DiscreteGradient = Literal["auto", "enumeration", "score_function", "relaxed"]
#: Maximum number of latents that "auto" enumerates, and that can be enumerated at all.
AUTO_LATENTS, MAX_LATENTS = 8, 12


@dataclass(frozen=True)
class DiscreteEvidenceLowerBound(WeightedBound):
    """ELBO of Bernoulli latents, with the divergence in closed form.

    Parameters
    ----------
    n_samples : int, default=1
        Draws of z, or antithetic pairs of them, per row.
    beta : float, default=1.0
        Weight of the divergence.
    beta_warmup : int, default=0
        Number of updates over which the weight rises from 0 to ``beta``.
    free_bits : float, default=0.0
        Nats per latent, averaged over the batch, below which the divergence is not penalised.
    binarize : bool, default=False
        Whether rows are probabilities from which binary rows are drawn at every update.
    discrete_gradient : {"auto", "enumeration", "score_function", "relaxed"}, default="auto"
        How the encoder learns. "auto" enumerates up to 8 latents and uses the score function
        beyond; "enumeration" takes up to 12.
    temperature : float, default=0.5
        Temperature of the relaxed draws; lower values give less bias and more noise.
    """

    discrete_gradient: DiscreteGradient = "auto"
    temperature: float = 0.5

    needs: ClassVar[tuple[str, ...]] = ("posterior", "states", "log_likelihood")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.temperature, "temperature", self)
        choices = get_args(DiscreteGradient)
        check_choice(self.discrete_gradient, "discrete_gradient", choices, self)

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean over rows of beta KL - E_q log p(x | z)."""
        x = batch.x
        if self.binarize:
            x = draw_bits(x, generator)
        q = energy.posterior(x)
        divergence, state = self.weighted(q.divergence(), batch, state)
        how = self.discrete_gradient
        if how == "auto":
            how = "enumeration" if energy.n_components <= AUTO_LATENTS else "score_function"
        if how == "enumeration":
            return divergence - _enumerated(energy, x, q, batch), state
        noise = energy.draw_noise(self.n_samples, len(x), generator=generator, like=x)
        if how == "relaxed":
            z = torch.sigmoid((q.logits + torch.logit(noise, eps=1e-6)) / self.temperature)
            return divergence - row_mean(batch, energy.log_likelihood(x, z)), state
        return divergence - _antithetic(energy, x, q, noise, batch), state


def _enumerated(energy: Any, x: Tensor, q: Any, batch: Batch) -> Tensor:
    """Mean over rows of sum_z q(z | x) log p(x | z)."""
    if energy.n_components > MAX_LATENTS:
        raise ValueError(
            f"n_components={energy.n_components} latents have 2^{energy.n_components} states, too "
            f'many to enumerate: use discrete_gradient="score_function" beyond {MAX_LATENTS}.'
        )
    states = energy.states(x)
    shares = q.log_density(states[:, None]).exp()
    table: Tensor = energy.log_likelihood_table(x, states)
    return batch.mean((shares * table).sum(dim=0))


def _antithetic(energy: Any, x: Tensor, q: Any, noise: Tensor, batch: Batch) -> Tensor:
    """A scalar with the pair's mean as value and DisARM's gradient."""
    logits = q.logits.detach()
    probabilities = torch.sigmoid(logits)
    z, mirrored = ((u < probabilities).to(x.dtype) for u in (noise, 1.0 - noise))
    pair: Tensor = energy.log_likelihood(x, torch.stack([z, mirrored]))
    gap = 0.5 * (pair[0] - pair[1]).detach()[..., None]
    # +1 where only z is on, -1 where only its mirror image is.
    gradient = (gap * (z - mirrored) * torch.sigmoid(logits.abs())).mean(dim=0)
    surrogate = batch.mean((gradient * q.logits).sum(dim=1))
    value: Tensor = row_mean(batch, pair.flatten(0, -2)) + surrogate - surrogate.detach()
    return value
