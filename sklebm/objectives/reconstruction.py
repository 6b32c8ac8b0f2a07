r"""Push the energy of reconstruction down at the data: mean over rows of |x - g(f(x))|^2.

Nothing pushes it up elsewhere; that is left to a narrow code or to additional penalties.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from sklebm.energies.base import Reconstructing
from sklebm.objectives.base import Batch, Objective, ObjectiveState

_NEEDS = ("encode", "decode")


def squared_error(batch: Batch, reconstruction: Tensor) -> Tensor:
    """Mean over rows of the squared distance; one fused kernel if rows are weighted equally."""
    if batch.weight is None:
        return functional.mse_loss(reconstruction, batch.x, reduction="sum") / len(batch)
    return batch.mean((batch.x - reconstruction).square().sum(dim=1))


@dataclass(frozen=True)
class ReconstructionError(Objective):
    """The mean squared distance between rows and their reconstructions."""

    needs: ClassVar[tuple[str, ...]] = _NEEDS
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def loss(
        self,
        energy: Reconstructing,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean of |x - g(f(x))|^2."""
        return squared_error(batch, energy.decode(energy.encode(batch.x))), state
