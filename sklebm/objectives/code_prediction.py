r"""L = 1/2 |z* - f(x)|^2: an encoder f learns to predict the codes that a solver would find.

Or over all layers: the mean of log(|z* - f_t(x)|^2 / |z*|^2), which credits each layer with the
fraction of the error that it removes rather than the error that remains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from sklebm.objectives.base import Batch, Objective, ObjectiveState

_EPSILON = 1e-12


@dataclass(frozen=True)
class CodePrediction(Objective):
    """Squared error of predicted codes; the true codes are the targets of the batch.

    Parameters
    ----------
    supervised : {"last", "all"}, default="last"
        Half the squared error of the last layer, or the mean over the layers of the logarithm of
        their relative squared errors.
    """

    supervised: Literal["last", "all"] = "last"

    needs: ClassVar[tuple[str, ...]] = ("encoder",)
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean loss over rows (x, z*)."""
        rows, targets = batch.x, batch.target
        if targets is None:
            raise ValueError("CodePrediction needs a target code for each row.")
        if self.supervised == "last":
            return 0.5 * batch.mean((energy.encoder(rows) - targets).square().sum(dim=1)), state
        scale = batch.mean(targets.square().sum(dim=1)) + _EPSILON
        layers = energy.encoder.layers(rows)
        errors = [batch.mean((z - targets).square().sum(dim=1)) / scale for z in layers]
        return (torch.stack(errors) + _EPSILON).log().mean(), state
