"""Offset and scale of the features, computed by a model from its training rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sklebm._shell.warning import warn

if TYPE_CHECKING:
    from sklebm._shell.rows import Rows

# A nearly constant feature, such as a pixel at the border, has a tiny standard deviation, but a new
# row may deviate by its whole range. Gaussian columns are not affected: their range is at most ten
# standard deviations.
_LEAST_SHARE_OF_RANGE = 0.1
# Rounding of a mean of float64 values.
_ROUNDING = 8 * np.finfo(np.float64).eps
_LEAST_REACH = float(np.sqrt(np.finfo(np.float64).tiny))
_MOST_UNEQUAL = 1e3
_ROUNDING_OF_MEANS = 4096 * torch.finfo(torch.float64).eps  # of many rows


@dataclass(frozen=True)
class Scaling:
    """x -> (x - offset) / scale, in double precision.

    Parameters
    ----------
    offset : ndarray of shape (n_features,)
        Mean of each feature.
    scale : ndarray of shape (n_features,)
        Divisor of each feature; the same number for all if only one scale was requested.
    """

    offset: NDArray[np.float64]
    scale: NDArray[np.float64]

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Standardised rows, in the dtype of ``x``."""
        return ((x.double() - self._on(x, self.offset)) / self._on(x, self.scale)).to(x.dtype)

    def restore(self, x: torch.Tensor) -> torch.Tensor:
        """Rows in the units of X from standardised ones."""
        return (x.double() * self._on(x, self.scale) + self._on(x, self.offset)).to(x.dtype)

    @staticmethod
    def _on(x: torch.Tensor, values: NDArray[np.float64]) -> torch.Tensor:
        return torch.from_numpy(values).to(x.device)


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation and largest distance from the mean of each feature.

    Parameters
    ----------
    mean, deviation, reach : ndarray of shape (n_features,)
        In units of X; ``reach`` and ``deviation`` are 0 for a constant feature.
    names : ndarray of shape (n_features,), optional
        Names of the features, if X has any.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    reach: NDArray[np.float64]
    names: NDArray[Any] | None = None

    def scaling(self, *, common: bool) -> Scaling:
        """One scale for all features (root mean variance), or one for each.

        The scale of a feature is its standard deviation, but at least a tenth of its reach.
        Constant features take the median of the others; if all are constant the scale is 1.
        """
        varies = self.reach > 0.0
        if not varies.any():
            scale = np.ones_like(self.mean)
        elif common:
            scale = np.full_like(self.mean, np.sqrt(np.mean(self.deviation**2)))
        else:
            scale = np.maximum(self.deviation, _LEAST_SHARE_OF_RANGE * self.reach)
            scale[~varies] = np.median(scale[varies])
        return Scaling(self.mean, scale)

    def warn_if_unequal(self, owner: str) -> None:
        """Warn if features differ so much in scale that errors in a few mask all others."""
        measure = "largest distance from the mean"
        warn_of_unequal_scales(owner, torch.from_numpy(self.reach), measure, self.names)


def column_deviations(mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Standard deviations of the columns; zero for columns that vary only by rounding."""
    deviations = variance.sqrt()
    return torch.where(deviations > _ROUNDING_OF_MEANS * mean.abs(), deviations, 0.0)


def column_spans(rows: Rows) -> torch.Tensor:
    """Range (maximum minus minimum) of each column over the rows of this process. O(n d).

    Unlike a standard deviation, it does not confuse a pixel that is mostly off with a faint one.
    """
    low = torch.full((rows.shape[1],), torch.inf, dtype=torch.float64, device=rows.device)
    high = -low
    for part in rows.chunks(3 * rows.shape[1]):
        x = rows[part].double()
        low, high = torch.minimum(low, x.amin(dim=0)), torch.maximum(high, x.amax(dim=0))
    return high - low


def warn_of_unequal_spans(owner: str, rows: Rows) -> None:
    """Warn if the ranges of two columns differ by more than 1e3."""
    warn_of_unequal_scales(owner, column_spans(rows), "range", rows.feature_names)


def warn_of_unequal_scales(
    owner: str, scales: torch.Tensor, measure: str, names: NDArray[Any] | None
) -> None:
    """Warn, with the numbers, if the scales of two columns differ by more than 1e3.

    ``measure`` says what the scales are. Constant columns, of scale 0, are ignored: no change of
    units would make them matter.
    """
    used = (scales > 0).nonzero()[:, 0]
    if len(used) < 2:
        return
    least, most = (int(used[place(scales[used])]) for place in (torch.argmin, torch.argmax))
    ratio = float(scales[most] / scales[least])
    if ratio > _MOST_UNEQUAL:
        warn(
            f"The columns of X differ in scale by a factor of {ratio:.2g}: the {measure} of column "
            f"{column_name(least, names)} is {float(scales[least]):.3g}, that of column "
            f"{column_name(most, names)} {float(scales[most]):.3g}. {owner} adds up squared "
            "differences, so columns of small scale hardly count. Scale X, for example with "
            "StandardScaler."
        )


def column_name(index: int, names: NDArray[Any] | None) -> str:
    """A column as a message calls it: by its name, or by its position without one."""
    return str(index) if names is None else repr(str(names[index]))


def measure_spread(rows: Rows) -> Spread:
    """Mean and spread of every feature over the rows of all processes. Two passes, O(n d)."""
    d, ranks, n_rows = rows.shape[1], rows.ranks, rows.total()
    total = torch.zeros(d, dtype=torch.float64)
    for part in rows.chunks(2 * d):
        total += rows[part].double().sum(dim=0).cpu()
    mean = ranks.sum(total) / n_rows
    squares, reach = torch.zeros_like(mean), torch.zeros_like(mean)
    for part in rows.chunks(3 * d):
        gaps = rows[part].double().cpu() - mean
        reach = torch.maximum(reach, gaps.abs().amax(dim=0))
        squares += gaps.square_().sum(dim=0)
    reach = ranks.concat(reach[None]).amax(dim=0)
    deviation = (ranks.sum(squares) / n_rows).sqrt()
    # A spread whose square underflows counts as zero.
    constant = reach <= torch.clamp(_ROUNDING * mean.abs(), min=_LEAST_REACH)
    deviation, reach = (x.masked_fill(constant, 0.0) for x in (deviation, reach))
    return Spread(mean.numpy(), deviation.numpy(), reach.numpy(), rows.feature_names)


def recall_scaling(estimator: Any) -> Scaling | None:
    """The fitted scaling; None if rows are used unscaled, as in files of earlier versions."""
    offset, scale = (getattr(estimator, name, None) for name in ("offset_", "scale_"))
    return None if offset is None or scale is None else Scaling(offset, scale)
