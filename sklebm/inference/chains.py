r"""Markov chains on R^d that follow the gradient of F and leave exp(-F) / Z invariant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sklebm._checks import check_number
from sklebm.energies.base import FreeEnergy, ReferencedEnergy
from sklebm.inference.samplers import Sampler, StepInfo, run, standard_normal

__all__ = [
    "ChainState",
    "GradientSampler",
    "Sampler",
    "StepInfo",
    "choose",
    "energy_and_gradient",
    "is_finite",
    "metropolis",
    "run",
    "standard_normal",
]


class ChainState(NamedTuple):
    """All chains: positions (n, d), F there (n,), its gradient (n, d), log of the step size.

    There is one step size for all chains, or one for each, (n,).
    """

    position: Tensor
    energy: Tensor
    gradient: Tensor
    log_step: Tensor


def energy_and_gradient(energy: FreeEnergy, x: Tensor) -> tuple[Tensor, Tensor]:
    """F (n,) and its gradient (n, d) by one backward pass; no graph is kept."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = energy.free_energy(x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


@dataclass(frozen=True)
class GradientSampler(Sampler):
    """A Markov kernel that follows the gradient of ``free_energy``."""

    step_size: float = 0.1

    domain: ClassVar[str | None] = "real"
    domain_reason: ClassVar[str] = "moves them along the gradient of the energy"

    def __post_init__(self) -> None:
        check_number(self.step_size, "step_size", self)

    def init(self, generator: torch.Generator, position: Tensor, energy: FreeEnergy) -> ChainState:
        """Start chains at ``position``, (n, d)."""
        return self.resume(position, position.new_tensor(math.log(self.step_size)), energy)

    def start(
        self, generator: torch.Generator, n_chains: int, energy: ReferencedEnergy
    ) -> ChainState:
        """Start chains at draws of ``energy.reference``, each with a step size of its own.

        ``step_size`` is in units of the root mean variance of the reference.
        """
        position = energy.reference.draw(n_chains, generator)
        # One step size per chain: a chain stuck on a slope must be able to escape by itself, or
        # training keeps raising the energy at its position.
        log_step = self.log_step_for(energy).expand(n_chains).clone()
        return self.resume(position, log_step, energy)

    def log_step_for(self, energy: ReferencedEnergy) -> Tensor:
        """Logarithm of ``step_size`` in units of the root mean variance of the reference."""
        log_step: Tensor = energy.reference.scale().log() + math.log(self.step_size)
        return log_step

    def resume(self, position: Tensor, log_step: Tensor, energy: FreeEnergy) -> ChainState:
        """Chains at ``position`` with a step size that was adapted before."""
        return ChainState(position, *energy_and_gradient(energy, position), log_step)

    def keep(self, state: ChainState) -> dict[str, Tensor]:
        """Positions of the chains, and the logarithm of the step size."""
        return {"position": state.position, "log_step": state.log_step}

    def restore(self, kept: dict[str, Tensor], energy: FreeEnergy) -> ChainState:
        """Chains at the positions and with the step sizes that were kept. One gradient."""
        return self.resume(kept["position"], kept["log_step"], energy)

    def adapt(self, state: ChainState, info: StepInfo, rate: float) -> ChainState:
        """Change the step size towards ``target_acceptance``.

        A stochastic approximation: log step += rate (acceptance - target), with the mean acceptance
        where all chains share one step size. Draws are exact only once it is held.
        """
        if self.target_acceptance is None:
            return state
        shared = state.log_step.dim() == 0
        acceptance = info.acceptance.mean() if shared else info.acceptance
        gap = acceptance - self.target_acceptance
        return state._replace(log_step=state.log_step + rate * gap)


def choose(state: ChainState, proposal: ChainState, take: Tensor) -> ChainState:
    """The proposal in the rows where ``take`` is true; rejected proposals leave no trace."""
    rows = take[:, None]
    return ChainState(
        torch.where(rows, proposal.position, state.position),
        torch.where(take, proposal.energy, state.energy),
        torch.where(rows, proposal.gradient, state.gradient),
        state.log_step,
    )


def is_finite(state: ChainState) -> Tensor:
    """True for chains whose position, energy and gradient are all numbers."""
    # A sum is finite only if all of its terms are, and needs one kernel fewer than testing each.
    return torch.isfinite(state.energy + state.gradient.sum(dim=1) + state.position.sum(dim=1))


def metropolis(
    generator: torch.Generator, state: ChainState, proposal: ChainState, log_ratio: Tensor
) -> tuple[ChainState, StepInfo]:
    """Accept with probability min(1, exp(log_ratio)); what is not finite is refused."""
    log_ratio = torch.where(is_finite(proposal), log_ratio, -math.inf).nan_to_num(nan=-math.inf)
    acceptance = log_ratio.clamp(max=0.0).exp()
    uniform = torch.empty_like(acceptance).uniform_(generator=generator)
    moved = uniform < acceptance
    return choose(state, proposal, moved), StepInfo(acceptance, moved)
