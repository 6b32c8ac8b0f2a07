r"""-log p(v) = F(v) + log Z with log Z summed over all states: the exact objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

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

    def missing_from(self, energy: Any) -> list[str]:
        """What an energy of two layers lacks; deeper ones sum over their own states."""
        if hasattr(energy, "exact_log_partition") and not hasattr(energy, "visible_field"):
            return []
        return super().missing_from(energy)

    def loss(
        self,
        energy: Any,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean negative log-likelihood of the batch."""
        if hasattr(energy, "visible_field"):
            log_z = enumeration.log_partition(energy)
        else:
            log_z = energy.exact_log_partition()
        return batch.mean(energy.free_energy(batch.x)) + log_z, state
