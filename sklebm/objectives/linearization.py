r"""Predict the next frame along straight paths of codes.

    |x_{t+1} - g(z')|^2 - curvature cos(z_{t+1} - z_t, z_t - z_{t-1})

for all three successive rows of a sequence; its first row is reconstructed instead.

R. Goroshin, M. Mathieu and Y. LeCun, "Learning to linearize under uncertainty", NIPS 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sklebm.objectives.base import Batch, Objective, ObjectiveState
from sklebm.objectives.slowness import following

_LEAST_LENGTH = 1e-6  # a shorter change has no direction


@dataclass(frozen=True)
class LinearPrediction(Objective):
    """Squared error of the next row, minus the weighted cosine between changes of the code.

    Parameters
    ----------
    curvature : float, default=1.0
        Weight of the cosine.
    """

    curvature: float = 1.0

    needs: ClassVar[tuple[str, ...]] = ("encoder", "decoder", "surprises")
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Rows of weight 0 only serve as the past of others."""
        y = batch.x
        z = energy.encoder(y)
        first = first_rows(batch)
        errors = (y[first] - energy.decoder(z[first])).square().sum()
        n_errors = len(first)
        third = following(batch, 2).nonzero()[:, 0] + 2
        bend = z.new_zeros(())
        if len(third):
            before, now = z[third - 2], z[third - 1]
            errors = errors + energy.surprises(now, before, y[third]).sum()
            n_errors += len(third)
            if self.curvature:
                bend = cosines(z[third] - now, now - before).mean()
        return errors / max(n_errors, 1) - self.curvature * bend, state


def first_rows(batch: Batch) -> Tensor:
    """Indices of the rows that begin a sequence and count."""
    begins = torch.ones(len(batch), dtype=torch.bool, device=batch.x.device)
    if batch.groups is None:
        begins[1:] = False
    else:
        begins[1:] = batch.groups[1:] != batch.groups[:-1]
    if batch.weight is not None:
        begins = begins & (batch.weight > 0.0)
    return begins.nonzero()[:, 0]


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosine between each pair of rows, (n_rows,); 0 where one has no length."""
    return torch.nn.functional.cosine_similarity(a, b, dim=1, eps=_LEAST_LENGTH**2)
