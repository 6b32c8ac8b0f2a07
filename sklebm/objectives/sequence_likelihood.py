r"""Shape the energy of each step given its past: by likelihood, or by contrast with Gibbs draws.

Maximum likelihood lowers -log p(x_t | x_1 ... x_{t-1}), row by row. Where log p needs a sum over
many states, contrastive divergence lowers F(x_t) - F(v_t) instead, with v_t drawn by a few Gibbs
steps that start at x_t.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sklebm.energies.next_step import lengths_of
from sklebm.objectives.base import Batch, Objective, ObjectiveState


@dataclass(frozen=True)
class SequenceLikelihood(Objective):
    """Mean of -log p(x_t | past) over the rows."""

    needs: ClassVar[tuple[str, ...]] = ("log_density",)
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Rows of weight 0 only prepare the state."""
        return -batch.mean(energy.log_density(batch.x, batch.groups)), state


@dataclass(frozen=True)
class SequenceContrast(Objective):
    """Mean of F(x_t) - F(v_t), with v_t by ``n_steps`` Gibbs steps from x_t.

    Rows between 0 and 1 are drawn as bits for the machine; the past is seen as it is.
    """

    n_steps: int = 10

    needs: ClassVar[tuple[str, ...]] = ("walk", "readout", "output")

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """The difference of free energies; its value measures nothing."""
        past = energy.walk(batch.x, lengths_of(batch.groups, len(batch))).past
        parameters = energy.readout(past)
        machine = energy.output
        with torch.no_grad():
            v = torch.empty_like(batch.x).uniform_(generator=generator).lt_(batch.x)
            given = parameters.detach()
            for _ in range(self.n_steps):
                v = machine.sweep(v, given, generator)
        gaps = machine.free_energy(batch.x, parameters) - machine.free_energy(v, parameters)
        return batch.mean(gaps), state
