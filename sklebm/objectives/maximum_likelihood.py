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

    A step costs O(2^min(d, k) d k); the loss is the mean of -log p in nats. Energies of more than
    two layers, of units on any graph or of third order sum their own ``exact_log_partition()``. An
    energy that ``is_conditional`` gives ``log_normaliser(x)``, that of p(y | x), row by row.
    """

    needs: ClassVar[tuple[str, ...]] = ("free_energy", "visible_field", "weights")
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def missing_from(self, energy: Any) -> list[str]:
        """Its requirements; an energy that sums log Z itself needs no layers for it."""
        needs = ("free_energy", "exact_log_partition") if _sums_itself(energy) else self.needs
        if getattr(energy, "is_conditional", False):
            needs = ("free_energy", "log_normaliser")
        return [name for name in needs if not hasattr(energy, name)]

    def loss(
        self,
        energy: Any,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean negative log-likelihood of the batch."""
        if getattr(energy, "is_conditional", False):
            log_z = energy.log_normaliser(energy.split(batch.x)[0])
            return batch.mean(energy.free_energy(batch.x) + log_z), state
        own = _sums_itself(energy)
        log_z = energy.exact_log_partition() if own else enumeration.log_partition(energy)
        return batch.mean(energy.free_energy(batch.x)) + log_z, state


def _sums_itself(energy: Any) -> bool:
    """Whether log Z is that of ``exact_log_partition``; two layers are summed faster."""
    no_layers = hasattr(energy, "exact_log_partition") and not hasattr(energy, "visible_field")
    return no_layers or hasattr(energy, "summed_units")
