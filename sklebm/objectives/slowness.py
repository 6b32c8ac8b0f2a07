r"""Sparse reconstruction with codes that change slowly from each row to the next of its sequence.

    |x_t - g(z_t)|^2 + alpha |z_t|_1 + slowness sum_k d(p_k(z_t), p_k(z_{t-1}))

with d(a, b) = |a - b| or (a - b)^2, and p_k the units themselves or the lengths of groups of them.

R. Goroshin, J. Bruna, J. Tompson, D. Eigen and Y. LeCun, "Unsupervised learning of spatiotemporally
coherent metrics", ICCV 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sklebm.energies.base import Reconstructing
from sklebm.objectives.base import Batch, Objective, ObjectiveState
from sklebm.objectives.penalties import l1_penalty
from sklebm.objectives.reconstruction import squared_error

_LEAST_VARIANCE = 1e-12


@dataclass(frozen=True)
class SlowReconstruction(Objective):
    """Squared error, plus prices for active units and for changes.

    Parameters
    ----------
    alpha : float, default=0.1
        Weight of the sum of magnitudes.
    slowness : float, default=1.0
        Weight of the changes, their mean over pairs of successive rows.
    penalty : {"l1", "squared"}, default="l1"
        Price of a change.
    pool_size : int, default=1
        Units whose common length must be slow; 1: every unit itself.
    unit_variance : bool, default=False
        Whether changes are those of units or lengths divided by their standard deviation over the
        batch. For decoders that can scale up small, hence slow, codes.
    """

    alpha: float = 0.1
    slowness: float = 1.0
    penalty: Literal["l1", "squared"] = "l1"
    pool_size: int = 1
    unit_variance: bool = False

    needs: ClassVar[tuple[str, ...]] = ("encode", "decode")
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def loss(
        self,
        energy: Reconstructing,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, ObjectiveState]:
        """Rows of weight 0 only serve as those that others follow."""
        z = energy.encode(batch.x)
        loss = squared_error(batch, energy.decode(z)) + self.alpha * batch.mean(l1_penalty(z))
        p = pool_lengths(z, self.pool_size)
        if self.unit_variance:
            p = _over_deviation(p)
        changes = (p[1:] - p[:-1])[following(batch)]
        if len(changes):
            prices = changes.abs() if self.penalty == "l1" else changes.square()
            loss = loss + self.slowness * prices.sum() / len(changes)
        return loss, state


def _over_deviation(values: Tensor) -> Tensor:
    """Each column divided by its standard deviation over the batch.

    The deviation is part of the gradient, which is therefore orthogonal to a change of scale. Rows
    of weight 0 count in it: a change could be any number of deviations of the other rows.
    """
    variance = values.var(dim=0, correction=0)
    # Columns that are constant, such as dead units, have changes of zero and finite gradients.
    return values / variance.clamp(min=_LEAST_VARIANCE).sqrt()


def following(batch: Batch, n_before: int = 1) -> Tensor:
    """Which rows from ``n_before`` on count, and continue the sequence of that many before them."""
    n_rows = len(batch)
    counts = torch.ones(max(n_rows - n_before, 0), dtype=torch.bool, device=batch.x.device)
    if batch.groups is not None:
        counts = counts & (batch.groups[n_before:] == batch.groups[: n_rows - n_before])
    if batch.weight is not None:
        counts = counts & (batch.weight[n_before:] > 0.0)
    return counts


def pool_lengths(z: Tensor, pool_size: int) -> Tensor:
    """Euclidean length of each group of units, (n_rows, n_pools); of size 1: the units.

    The last group is smaller if ``pool_size`` does not divide the number of units.
    """
    if pool_size == 1:
        return z
    padded = torch.nn.functional.pad(z, (0, -z.shape[1] % pool_size))
    pools = padded.reshape(len(z), -1, pool_size)
    lengths: Tensor = torch.linalg.vector_norm(pools, dim=2)
    return lengths
