"""The free energy of targets, with their latents minimised or summed out, as a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from sklebm.objectives.base import Batch, Objective, ObjectiveState
from sklebm.objectives.label_losses import weighted_mean


@dataclass(frozen=True)
class FreeEnergyLoss(Objective):
    """F(x, y), which needs no negatives: finitely many latents have low energy at few targets only.

    At finite beta it is minus the log density over beta, up to a constant.
    """

    needs: ClassVar[tuple[str, ...]] = ("target_free_energy",)
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: Any
    ) -> tuple[Tensor, ObjectiveState]:
        """Weighted mean of F; rows without targets are their own."""
        g = batch.x if batch.target is None else batch.target
        return weighted_mean(batch, energy.target_free_energy(batch.x, g)), state
