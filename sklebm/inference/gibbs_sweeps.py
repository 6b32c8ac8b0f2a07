r"""Gibbs sweeps over bits on any graph: each unit in turn from p(s_i = 1 | the rest).

With E(s) = -1/2 s' W s - b' s, p(s_i = 1 | the rest) = sigma(b_i + sum_j W_ij s_j). Units of one
class, without couplings among each other, are drawn at once; a sweep leaves exp(-E) / Z invariant.

S. Geman and D. Geman, "Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of
images", IEEE Transactions on Pattern Analysis and Machine Intelligence 6(6), 1984.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sklebm.inference.samplers import Sampler, StepInfo


def sweep(
    states: Tensor,
    couplings: Tensor,
    biases: Tensor,
    classes: Sequence[Tensor],
    generator: torch.Generator | None,
    held: Tensor | None = None,
    strength: Tensor | None = None,
) -> Tensor:
    """Every unit drawn once, class by class, given the current states of the others.

    Parameters
    ----------
    states : Tensor of shape (n_rows, n_units)
        Bits, or means.
    couplings : Tensor of shape (n_units, n_units)
        W, symmetric with a zero diagonal.
    biases : Tensor of shape (n_units,) or (n_rows, n_units)
        b of all rows or of each.
    classes : sequence of Tensor
        Indices of units that are not coupled to each other.
    generator : torch.Generator or None
        None sets each unit to its mean given the means of the others instead: a step of coordinate
        ascent on the mean-field bound.
    held : Tensor of bool, (n_rows, n_units), or None, default=None
        Units that keep their states.
    strength : Tensor of shape (n_rows,) or None, default=None
        A factor on the couplings in each row.
    """
    # One row a unit: units are read and written one class at a time.
    s = states.T.clone(memory_format=torch.contiguous_format)
    b = biases.unsqueeze(1) if biases.dim() == 1 else biases.T
    noise = None if generator is None else torch.empty_like(s).uniform_(generator=generator)
    for units in classes:
        received = couplings[units] @ s
        mean = torch.sigmoid(b[units] + (received if strength is None else strength * received))
        new = mean if noise is None else (noise[units] < mean).to(s.dtype)
        s[units] = new if held is None else torch.where(held.T[units], s[units], new)
    return s.T.contiguous()


class SweepState(NamedTuple):
    """All units of every chain, (n_chains, n_units), the visible ones first."""

    position: Tensor


@dataclass(frozen=True)
class GibbsSweeps(Sampler):
    """Draw every unit of a Boltzmann machine in turn given the others; every draw is accepted.

    Examples
    --------
    >>> import torch
    >>> from sklebm.energies import Bernoulli, PairwiseEnergy
    >>> from sklebm.inference.gibbs_sweeps import GibbsSweeps
    >>> weights = torch.tensor([[0.0, 80.0], [80.0, 0.0]])  # both on or both off
    >>> biases = torch.full((2,), -40.0)
    >>> machine = PairwiseEnergy(Bernoulli(biases), Bernoulli(torch.zeros(0)), weights)
    >>> generator = torch.Generator().manual_seed(0)
    >>> sampler = GibbsSweeps()
    >>> with torch.no_grad():
    ...     state = sampler.init(generator, torch.ones(1, 2), machine)
    ...     state, info = sampler.step(generator, state, machine)
    >>> state.position
    tensor([[1., 1.]])
    """

    needs: ClassVar[tuple[str, ...]] = ("couplings", "biases", "classes")
    domain: ClassVar[str | None] = "binary"
    domain_reason: ClassVar[str] = "draws one bit after the other"

    def init(self, generator: torch.Generator, position: Tensor, energy: Any) -> SweepState:
        """Chains at rows of visible units, or of all; hidden ones are drawn given the visible.

        Values between 0 and 1 are drawn as bits.
        """
        biases = energy.biases()
        states = energy.visible.draw(position, generator)
        n_missing = len(biases) - position.shape[1]
        if n_missing == 0:
            return SweepState(states)
        halves = states.new_full((len(states), n_missing), 0.5)
        states = torch.cat([states, energy.hidden.draw(halves, generator)], dim=1)
        held = torch.ones_like(states, dtype=torch.bool)
        held[:, position.shape[1] :] = False
        return SweepState(
            sweep(states, energy.couplings(), biases, energy.classes, generator, held)
        )

    def step(
        self, generator: torch.Generator, state: SweepState, energy: Any
    ) -> tuple[SweepState, StepInfo]:
        """One sweep of every chain. O(n_chains n_units^2)."""
        states = self.moved(generator, state, energy, 1)
        certain = states.position.new_ones(()).expand(len(states.position))
        return states, StepInfo(certain, certain.bool())

    def moved(
        self,
        generator: torch.Generator,
        state: SweepState,
        energy: Any,
        n_steps: int,
        held: Tensor | None = None,
    ) -> SweepState:
        """The chains after ``n_steps`` sweeps; units that are ``held`` stay."""
        couplings, biases, classes = energy.couplings(), energy.biases(), energy.classes
        states = state.position
        for _ in range(n_steps):
            states = sweep(states, couplings, biases, classes, generator, held)
        return SweepState(states)

    def keep(self, state: SweepState) -> dict[str, Tensor]:
        """All units, the visible ones first."""
        return {"visible": state.position}

    def restore(self, kept: dict[str, Tensor], energy: Any) -> SweepState:
        """Chains with the states that were kept."""
        return SweepState(kept["visible"])
