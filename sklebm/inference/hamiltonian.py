r"""Hamiltonian Monte Carlo on H(x, p) = F(x) + |p|^2 / 2 with momenta p of standard normal noise.

A leapfrog step p -= eps/2 dF(x), x += eps p, p -= eps/2 dF(x) is reversible and preserves volume,
so that a trajectory is accepted with probability min(1, exp(H(x, p) - H(x', p'))).

S. Duane, A. D. Kennedy, B. J. Pendleton and D. Roweth, "Hybrid Monte Carlo", Physics Letters B
195(2), 1987; R. M. Neal, "MCMC using Hamiltonian dynamics", Handbook of Markov Chain Monte Carlo,
2011.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sklebm._checks import check_counts, check_share
from sklebm.energies.base import FreeEnergy
from sklebm.inference.chains import (
    ChainState,
    GradientSampler,
    StepInfo,
    energy_and_gradient,
    metropolis,
    standard_normal,
)

# A trajectory of fixed length could return to its start for ever; a random length cannot.
_JITTER = 0.2
# Close to the most efficient share for trajectories in many dimensions.
_ACCEPTANCE = 0.65


def leapfrog(
    energy: FreeEnergy, state: ChainState, momentum: Tensor, step: Tensor, n_steps: int
) -> tuple[ChainState, Tensor]:
    """Follow the dynamics for ``n_steps`` steps of length ``step``, (n, 1) or a scalar.

    Running it again from the end with the momentum reversed leads back.
    """
    position, value, gradient = state.position, state.energy, state.gradient
    momentum = momentum - 0.5 * step * gradient
    for index in range(n_steps):
        position = position + step * momentum
        value, gradient = energy_and_gradient(energy, position)
        # Two half kicks in a row are a whole one, but for the last.
        kick = step if index < n_steps - 1 else 0.5 * step
        momentum = momentum - kick * gradient
    return ChainState(position, value, gradient, state.log_step), momentum


@dataclass(frozen=True)
class HMC(GradientSampler):
    """Hamiltonian Monte Carlo with a step size that can be adapted.

    Each trajectory multiplies the step size by its own number between 0.8 and 1.2.

    Parameters
    ----------
    step_size : float, default=0.1
        Length of a leapfrog step, in the units of x; where it is adapted, the start.
    n_leapfrog : int, default=10
        Leapfrog steps of a trajectory, a gradient each.
    target_acceptance : float, default=0.65
        Share of the trajectories that an adapted step size accepts, between 0 and 1.
    """

    n_leapfrog: int = 10
    # A constant of other samplers, declared there before the settings: hence a keyword.
    target_acceptance: float = field(default=_ACCEPTANCE, kw_only=True)  # type: ignore[misc]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "n_leapfrog")
        check_share(self.target_acceptance, "target_acceptance", self)
        if self.target_acceptance in (0.0, 1.0):
            raise ValueError(
                f"HMC: target_acceptance={self.target_acceptance!r} must lie between 0 and 1: all "
                "steps are accepted only as their size goes to 0, and none only as it grows for "
                "ever."
            )

    def __repr__(self) -> str:
        # Files of earlier versions name their sampler without a share.
        settings = f"step_size={self.step_size!r}, n_leapfrog={self.n_leapfrog!r}"
        if self.target_acceptance != _ACCEPTANCE:
            settings += f", target_acceptance={self.target_acceptance!r}"
        return f"HMC({settings})"

    def step(
        self, generator: torch.Generator, state: ChainState, energy: FreeEnergy
    ) -> tuple[ChainState, StepInfo]:
        """Follow a trajectory from every chain. ``n_leapfrog`` gradients."""
        momentum = standard_normal(generator, state.position)
        jitter = torch.empty_like(state.energy).uniform_(
            1.0 - _JITTER, 1.0 + _JITTER, generator=generator
        )
        step = (state.log_step.exp() * jitter)[:, None]
        proposal, last = leapfrog(energy, state, momentum, step, self.n_leapfrog)
        log_ratio = state.energy - proposal.energy
        log_ratio = log_ratio + 0.5 * (momentum.square() - last.square()).sum(dim=1)
        return metropolis(generator, state, proposal, log_ratio)
