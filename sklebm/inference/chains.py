r"""Markov chains on R^d that leave exp(-F) / Z invariant: what every sampler shares.

A sampler is a frozen record of settings with two pure functions, ``init`` and ``step``. Many chains
move at once, one a row; nothing is read from the device, so a GPU never waits for the host. A
proposal that is not finite is a rejection.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor


class ChainState(NamedTuple):
    """All chains: positions (n, d), F there (n,), its gradient (n, d), log of the step size.

    There is one step size for all chains, or one for each, (n,).
    """

    position: Tensor
    energy: Tensor
    gradient: Tensor
    log_step: Tensor


class StepInfo(NamedTuple):
    """What happened to each chain: the probability of acceptance, and whether it moved, (n,)."""

    acceptance: Tensor
    moved: Tensor


def energy_and_gradient(energy: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """F (n,) and its gradient (n, d) by one backward pass; no graph is kept."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = energy.free_energy(x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


@dataclass(frozen=True)
class Sampler(ABC):
    """A Markov kernel for any energy with ``free_energy``."""

    step_size: float = 0.1

    #: Mean probability of acceptance that ``adapt`` steers to; None: the step size is kept.
    target_acceptance: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        good = isinstance(self.step_size, Real) and 0.0 < self.step_size < math.inf
        if not good:
            raise ValueError(
                f"{type(self).__name__}: step_size={self.step_size!r} must be a positive number."
            )

    def init(self, generator: torch.Generator, position: Tensor, energy: Any) -> ChainState:
        """Start chains at ``position``, (n, d)."""
        log_step = position.new_tensor(math.log(self.step_size))
        return self.resume(position, log_step, energy)

    def resume(self, position: Tensor, log_step: Tensor, energy: Any) -> ChainState:
        """Chains at ``position`` with a step size that was adapted before."""
        return ChainState(position, *energy_and_gradient(energy, position), log_step)

    @abstractmethod
    def step(
        self, generator: torch.Generator, state: ChainState, energy: Any
    ) -> tuple[ChainState, StepInfo]:
        """Move every chain once."""

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


def run(
    sampler: Sampler,
    generator: torch.Generator,
    state: ChainState,
    energy: Any,
    n_steps: int,
    adaptation_rate: float = 0.0,
) -> ChainState:
    """Take ``n_steps`` steps, adapting the step size after each if the rate is positive."""
    for _ in range(n_steps):
        state, info = sampler.step(generator, state, energy)
        if adaptation_rate:
            state = sampler.adapt(state, info, adaptation_rate)
    return state


def choose(state: ChainState, proposal: ChainState, take: Tensor) -> ChainState:
    """The proposal in the rows where ``take`` is true; what is refused leaves no trace."""
    rows = take[:, None]
    return ChainState(
        torch.where(rows, proposal.position, state.position),
        torch.where(take, proposal.energy, state.energy),
        torch.where(rows, proposal.gradient, state.gradient),
        state.log_step,
    )


def is_finite(state: ChainState) -> Tensor:
    """True for chains whose position, energy and gradient are all numbers."""
    # A sum is finite only if all of its terms are, and costs one kernel less than asking each.
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


def standard_normal(generator: torch.Generator, like: Tensor) -> Tensor:
    """Independent standard normal numbers in the shape of ``like``."""
    return torch.empty_like(like).normal_(generator=generator)


def check_steps(part: Any, name: str) -> None:
    """Refuse a number of steps that is no positive integer."""
    value = getattr(part, name)
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{type(part).__name__}: {name}={value!r} must be a positive integer.")
