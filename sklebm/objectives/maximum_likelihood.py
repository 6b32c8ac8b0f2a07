r"""-log p(v) = F(v) + log Z with log Z summed over all states: the exact objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sklebm.energies.base import TwoLayerEnergy
from sklebm.inference import enumeration
from sklebm.objectives.base import Batch, Objective, ObjectiveState


@dataclass(frozen=True)
class MaximumLikelihood(Objective):
    """Exact likelihood by enumeration; for machines whose smaller layer has at most 25 units.

    A step costs O(2^min(d, k) d k); the loss is the mean of -log p in nats.
    """

    needs: ClassVar[tuple[str, ...]] = ("free_energy", "visible_field", "weights")
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def loss(
        self,
        energy: TwoLayerEnergy,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean negative log-likelihood of the batch."""
        return batch.mean(energy.free_energy(batch.x)) + enumeration.log_partition(energy), state
