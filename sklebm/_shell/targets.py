"""Real targets: as many numbers for each row."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_array

from sklebm._shell.arrays import to_numpy
from sklebm._shell.labels import plain_label


def read_targets(y: Any, owner: str) -> NDArray[np.float64]:
    """The targets as a float64 array of shape (n,) or (n, m).

    Raises
    ------
    ValueError
        If y is missing, is no table of numbers, or holds NaN or infinity.
    """
    if y is None:
        raise ValueError(f"{owner} requires y to be passed, but the target y is None.")
    if isinstance(y, torch.Tensor):
        y = to_numpy(y)
    try:
        checked = check_array(
            y, dtype=np.float64, ensure_2d=False, input_name="y", ensure_min_samples=0
        )  # without any rows the check of X says what is wrong
    except ValueError as error:
        if "could not convert" not in str(error):
            raise
        label = _first_label(y)
        if label is None:
            raise
        raise ValueError(
            f"{owner} needs numeric targets, but y contains {label}. For labels, use a classifier."
        ) from error
    return np.atleast_1d(np.asarray(checked))


def _first_label(y: Any) -> str | None:
    """The first value that is text and no number, as Python writes it."""
    for value in np.asarray(y, dtype=object).flat:
        if isinstance(value, (str, bytes)):
            try:
                float(value)
            except ValueError:
                return repr(plain_label(value))
    return None


def as_table(targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Targets of shape (n,) or (n, m) as (n, m)."""
    return targets[:, None] if targets.ndim == 1 else targets


def matching_targets(y: Any, n_outputs: int, owner: str) -> NDArray[np.float64]:
    """Targets of shape (n, m), as many numbers for each row as in ``fit``."""
    targets = as_table(read_targets(y, owner))
    if targets.shape[1] != n_outputs:
        raise ValueError(
            f"y has {targets.shape[1]} numbers for each row, but {owner} was fitted with "
            f"{n_outputs}: pass as many."
        )
    return targets
