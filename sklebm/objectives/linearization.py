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

# Shorter changes have no direction.
_LEAST_CHANGE = 1e-3  # relative to the root mean square of all changes
_LEAST_ROUNDED = 100.0  # rounding errors, relative to the root mean square of the codes


@dataclass(frozen=True)
class LinearPrediction(Objective):
    """Squared error of the next row, minus the weighted cosine between changes of the code.

    Parameters
    ----------
    curvature : float, default=1.0
        Weight of the cosine.
    unroll : bool, default=False
        Whether the gradient goes through the steps that infer latents, which count as given
        otherwise.
    """

    curvature: float = 1.0
    unroll: bool = False

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
            errors = errors + energy.surprises(now, before, y[third], self.unroll).sum()
            n_errors += len(third)
            if self.curvature:
                bend = bends(before, now, z[third]).mean()
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


def bends(before: Tensor, now: Tensor, then: Tensor) -> Tensor:
    """Cosine between the changes of three successive codes, (n_rows,).

    The gradient of a cosine is the inverse of the lengths. Where a row is shown twice, its parts
    would cancel except for rounding errors that outweigh all other rows. Changes much shorter than
    those of the batch are therefore divided by a least length instead of their own: the cosine goes
    to 0 with them. The unit of the codes does not matter.
    """
    changes = now - before, then - now
    lengths = [torch.linalg.vector_norm(change, dim=1) for change in changes]
    typical = 0.5 * sum(length.square().mean() for length in lengths)
    rounded = _LEAST_ROUNDED * torch.finfo(now.dtype).eps
    least = _LEAST_CHANGE**2 * typical + rounded**2 * now.square().sum(dim=1).mean()
    # Codes may all be zero.
    least = least.clamp(min=torch.finfo(now.dtype).tiny).sqrt()
    first, second = (
        change / length.clamp(min=least)[:, None]
        for change, length in zip(changes, lengths, strict=True)
    )
    found: Tensor = (first * second).sum(dim=1)
    return found
