r"""Langevin steps x' = x - eps^2/2 dF(x) + eps xi, xi standard normal: as they are, or corrected.

J. Besag, discussion of "Representations of knowledge in complex systems", Journal of the Royal
Statistical Society B 56(4), 1994; G. O. Roberts and R. L. Tweedie, "Exponential convergence of
Langevin distributions and their discrete approximations", Bernoulli 2(4), 1996.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sklebm.energies.base import FreeEnergy
from sklebm.inference.chains import (
    ChainState,
    GradientSampler,
    StepInfo,
    choose,
    is_finite,
    metropolis,
    standard_normal,
)


def _propose(
    sampler: GradientSampler, generator: torch.Generator, state: ChainState, energy: FreeEnergy
) -> tuple[ChainState, Tensor, Tensor]:
    """The next positions, with the noise and the step size that led there."""
    step = state.log_step.exp().unsqueeze(-1)
    noise = standard_normal(generator, state.position)
    position = state.position - 0.5 * step.square() * state.gradient + step * noise
    return sampler.resume(position, state.log_step, energy), noise, step


@dataclass(frozen=True)
class Langevin(GradientSampler):
    """Unadjusted Langevin dynamics: every finite step is taken.

    What it leaves invariant differs from exp(-F) / Z by O(step_size^2), and it mixes slowly when
    the step is small against the width of the density; but a step costs one gradient and chains
    never get stuck.

    Parameters
    ----------
    step_size : float, default=0.1
        Standard deviation of the noise of a step, in the units of x.
    """

    def step(
        self, generator: torch.Generator, state: ChainState, energy: FreeEnergy
    ) -> tuple[ChainState, StepInfo]:
        """Move every chain once. One gradient."""
        proposal, _, _ = _propose(self, generator, state, energy)
        moved = is_finite(proposal)
        return choose(state, proposal, moved), StepInfo(moved.to(state.energy.dtype), moved)


@dataclass(frozen=True)
class MALA(GradientSampler):
    """Metropolis-adjusted Langevin algorithm: exact for any step size.

    Parameters
    ----------
    step_size : float, default=0.1
        Standard deviation of the noise of a step, in the units of x; where it is adapted, the
        start. The adapted one accepts 57 % of the proposals.
    """

    target_acceptance: ClassVar[float | None] = 0.574

    def step(
        self, generator: torch.Generator, state: ChainState, energy: FreeEnergy
    ) -> tuple[ChainState, StepInfo]:
        """Move every chain once, or leave it. One gradient."""
        proposal, noise, step = _propose(self, generator, state, energy)
        # The noise that would lead back, from x = x' - eps^2/2 dF(x') + eps back.
        back = 0.5 * step * (state.gradient + proposal.gradient) - noise
        log_ratio = state.energy - proposal.energy
        log_ratio = log_ratio + 0.5 * (noise.square() - back.square()).sum(dim=1)
        return metropolis(generator, state, proposal, log_ratio)
