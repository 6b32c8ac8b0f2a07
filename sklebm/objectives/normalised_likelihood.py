r"""-log p = F + log Z where the energy itself knows log Z: of both views, or of y for every x."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sklebm.objectives.base import Batch, Objective, ObjectiveState


@dataclass(frozen=True)
class NormalisedLikelihood(Objective):
    """Exact likelihood of energies that sum over their own latents.

    The loss is the mean of F + log Z in nats. ``exact_log_partition()`` is the log Z of whole
    rows; an energy that ``is_conditional`` gives ``log_normaliser(x)``, of p(y | x), for each row.
    """

    needs: ClassVar[tuple[str, ...]] = ("free_energy", "exact_log_partition")
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean negative log-likelihood of the batch."""
        value = energy.free_energy(batch.x)
        if getattr(energy, "is_conditional", False):
            return batch.mean(value + energy.log_normaliser(energy.split(batch.x)[0])), state
        return batch.mean(value) + energy.exact_log_partition(), state
