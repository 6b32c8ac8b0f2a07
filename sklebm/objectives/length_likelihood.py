r"""-log p(v) = F(v) + log Z_D, with log Z of the length of each row: exact for counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sklebm.energies.replicated_softmax import MAX_SUMMED_UNITS, ReplicatedSoftmaxEnergy
from sklebm.objectives.base import Batch, Objective, ObjectiveState


@dataclass(frozen=True)
class LengthLikelihood(Objective):
    """Exact likelihood of rows whose normaliser depends on their sum; at most 14 hidden units.

    A step costs O((2^k + n) d k + n 2^k); the loss is the mean of -log p in nats.
    """

    needs: ClassVar[tuple[str, ...]] = ("free_energy", "state_weights")
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def loss(
        self,
        energy: ReplicatedSoftmaxEnergy,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean negative log-likelihood of the batch.

        Raises
        ------
        ValueError
            If there are more than ``MAX_SUMMED_UNITS`` hidden units.
        """
        n_units = len(energy.hidden_bias)
        if n_units > MAX_SUMMED_UNITS:
            raise ValueError(
                f"The exact likelihood sums over 2^{n_units} states at every step, more than "
                f'2^{MAX_SUMMED_UNITS}: use fewer hidden units, or objective="cd".'
            )
        log_z = energy.exact_log_partition(batch.x.sum(dim=1))
        return batch.mean(energy.free_energy(batch.x) + log_z), state
