"""Scales of the columns of X: which vary at all, and which are too small for a Euclidean energy."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

#: Ratio of the largest to the smallest standard deviation from which on a warning is due.
_LARGEST_RATIO = 1e3
_ROUNDING = 4096 * torch.finfo(torch.float64).eps  # also of the mean of many rows


def column_deviations(mean: Tensor, variance: Tensor) -> Tensor:
    """Standard deviations of the columns; zero for those that vary by rounding alone."""
    return torch.where(variance.sqrt() > _ROUNDING * mean.abs(), variance.sqrt(), 0.0)


def warn_of_unequal_scales(name: str, deviations: Tensor, *, stacklevel: int) -> None:
    """Warn, with the numbers, if standard deviations of columns differ by more than 1e3.

    Constant columns do not count: no scale would make them matter.
    """
    varying = torch.where(deviations > 0, deviations, torch.nan)
    if bool(varying.isnan().all()):
        return
    least, most = int(varying.nan_to_num(torch.inf).argmin()), int(varying.nan_to_num(0.0).argmax())
    ratio = float(varying[most] / varying[least])
    if ratio > _LARGEST_RATIO:
        warnings.warn(
            f"Columns of X differ in scale by a factor of {ratio:.2g} (standard deviations "
            f"{varying[least]:.3g} of column {least}, {varying[most]:.3g} of column {most}): "
            f"{name} measures squared differences, so columns of small scale hardly count. Scale "
            "X, for example with StandardScaler.",
            UserWarning,
            stacklevel=stacklevel + 1,
        )
