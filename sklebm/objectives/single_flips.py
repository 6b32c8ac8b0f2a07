"""min E sum_i c(F(v, bit i flipped) - F(v)): shared by costs on the states next to a row.

The normaliser cancels from the difference of two free energies.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sklebm.energies.base import FlippableEnergy
from sklebm.objectives.base import Batch, Objective, ObjectiveState


@dataclass(frozen=True)
class SingleFlips(Objective):
    """A cost of the differences in free energy to the states in which one bit is flipped.

    A step costs O(n d k) logarithms for n rows. Rows between 0 and 1 are drawn as bits at every
    step.
    """

    needs: ClassVar[tuple[str, ...]] = ("flip_differences",)
    domain: ClassVar[str | None] = "binary"
    domain_reason: ClassVar[str] = "compares each unit with its flipped state"
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    @abstractmethod
    def cost(self, differences: Tensor) -> Tensor:
        """Cost of each difference, elementwise, shape (n_rows, n_features)."""

    def loss(
        self,
        energy: FlippableEnergy,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean over the rows of the summed costs of their neighbours."""
        x = batch.x
        differences = energy.flip_differences(energy.visible.draw(x, generator))
        return batch.mean(self.cost(differences).sum(dim=1)), state

    def varies_on(self, x: Tensor) -> bool:
        """True if rows have to be drawn as bits, that is, if some values are neither 0 nor 1."""
        return bool(((x != 0.0) & (x != 1.0)).any())
