"""The protocol of Markov chain samplers: a frozen dataclass of settings with two pure functions.

    init(generator, position, energy) -> state          chains that start at given positions
    step(generator, state, energy) -> state, info       one transition of every chain

A step leaves exp(-F) / Z of the energy invariant (or says by how much it does not). Many chains
move at once, one per row; nothing is read from the device, so a GPU never waits for the CPU.
``state.position`` holds the positions of the chains, (n_chains, d). Non-finite proposals are
rejected.

Between two updates of an energy, chains are stored as a dictionary of tensors: ``keep`` extracts
from a state what survives a change of the parameters, and ``restore`` continues from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

#: The state of all chains of a sampler; a NamedTuple with a ``position``.
State = Any


class StepInfo(NamedTuple):
    """What happened to each chain: the probability of acceptance, and whether it moved, (n,)."""

    acceptance: Tensor
    moved: Tensor


@dataclass(frozen=True)
class Sampler(ABC):
    """A Markov kernel for energies that provide what it ``needs``."""

    needs: ClassVar[tuple[str, ...]] = ("free_energy",)
    #: "binary" or "real", if it moves such rows only; and why.
    domain: ClassVar[str | None] = None
    domain_reason: ClassVar[str] = ""
    #: True if visible and hidden units take turns, each given the other: see ``BlockGibbs``.
    alternates: ClassVar[bool] = False
    #: Mean probability of acceptance that ``adapt`` steers to; None: there is nothing to adapt.
    target_acceptance: ClassVar[float | None] = None

    @abstractmethod
    def init(self, generator: torch.Generator, position: Tensor, energy: Any) -> State:
        """Start chains at ``position``, (n_chains, d)."""

    @abstractmethod
    def step(self, generator: torch.Generator, state: State, energy: Any) -> tuple[State, StepInfo]:
        """Move every chain once."""

    def start(self, generator: torch.Generator, n_chains: int, energy: Any) -> State:
        """Start chains at draws of ``energy.reference``."""
        return self.init(generator, energy.reference.draw(n_chains, generator), energy)

    def adapt(self, state: State, info: StepInfo, rate: float) -> State:
        """Change the step size, if there is one, towards ``target_acceptance``."""
        return state

    @abstractmethod
    def keep(self, state: State) -> dict[str, Tensor]:
        """The part of the chains that survives a change of the energy, by name."""

    @abstractmethod
    def restore(self, kept: dict[str, Tensor], energy: Any) -> State:
        """Chains that continue from a stored state."""


def run(
    sampler: Sampler,
    generator: torch.Generator,
    state: State,
    energy: Any,
    n_steps: int,
    adaptation_rate: float = 0.0,
) -> State:
    """Take ``n_steps`` steps, adapting the step size after each if the rate is positive."""
    for _ in range(n_steps):
        state, info = sampler.step(generator, state, energy)
        if adaptation_rate:
            state = sampler.adapt(state, info, adaptation_rate)
    return state


def visible_chains(
    kept: dict[str, Tensor], energy: Any, generator: torch.Generator | None
) -> Tensor | None:
    """Visible states of stored chains, drawn given the hidden ones if only these are stored."""
    visible = kept.get("position", kept.get("visible"))
    if visible is None and "hidden" in kept and energy is not None:
        drawn: Tensor = energy.draw_visible(kept["hidden"], generator)
        return drawn
    return visible[0] if visible is not None and visible.dim() == 3 else visible


def standard_normal(generator: torch.Generator, like: Tensor) -> Tensor:
    """Independent standard normal numbers in the shape of ``like``."""
    return torch.empty_like(like).normal_(generator=generator)
