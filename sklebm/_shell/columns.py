"""Columns beside the rows of X, one entry per row: targets, weights, groups, positions."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.arrays import to_numpy
from sklebm._shell.groups import number_groups, read_groups
from sklebm._shell.rows import Rows


def add_columns(rows: Rows, owner: str, **columns: Any) -> None:
    """Check ``target``, ``weight``, ``groups``, ``positions``; attach those given to the rows.

    Raises
    ------
    ValueError
        If the length of one differs from that of X, or its values are invalid.
    """
    checks = {"target": _target, "weight": _weight, "groups": _groups, "positions": _positions}
    for name, values in columns.items():
        if values is not None:
            rows.columns[name] = checks[name](values, rows, owner)


def weighted_mean(scores: Any, sample_weight: Any, owner: str) -> float:
    """The mean of the scores of rows, an array or a tensor, in double precision.

    Raises
    ------
    ValueError
        If the weights are not one finite number of at least 0 for each row, or are all zero.
    """
    values = to_numpy(scores).astype(np.float64)
    if sample_weight is None:
        return float(values.mean())
    rows = Rows(values[:, None], torch.device("cpu"))
    add_columns(rows, owner, weight=sample_weight)
    return float(np.average(values, weights=rows.columns["weight"].numpy()))


def _need_length(values: Any, rows: Rows, name: str) -> None:
    if len(values) != len(rows):
        raise ValueError(
            f"{name} has {len(values)} entries, but X has {len(rows)} rows: pass one for each row."
        )


def _target(values: Any, rows: Rows, owner: str) -> Tensor:
    """Numbers, one or several per row, in the precision of X; integers remain integers."""
    array = to_numpy(values)
    if array.ndim == 0 or array.dtype.kind not in "fiub":
        raise ValueError(
            f"{owner} needs numbers as targets, one for each row of X, and got an array of dtype "
            f"{array.dtype} and shape {array.shape}."
        )
    _need_length(array, rows, "y")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ValueError("Input y contains NaN or infinity: drop such rows from X and y.")
        return torch.from_numpy(np.array(array)).to(rows.device, rows.dtype)
    return torch.from_numpy(array.astype(np.int64)).to(rows.device)


def _weight(values: Any, rows: Rows, owner: str) -> Tensor:
    """Nonnegative weights, not all zero."""
    array = to_numpy(values)
    if array.ndim == 0:
        array = np.full(len(rows), array)
    if array.ndim != 1 or array.dtype.kind not in "fiub":
        raise ValueError(
            f"Sample weights must be 1D array or scalar of numbers, got shape {array.shape} and "
            f"dtype {array.dtype}."
        )
    if len(array) != len(rows):
        raise ValueError(f"sample_weight.shape == {array.shape}, expected ({len(rows)},)!")
    array = array.astype(np.float64)
    if not np.isfinite(array).all() or (array < 0).any() or not array.any():
        raise ValueError(
            f"{owner} needs finite sample weights of at least 0, not all of them zero."
        )
    return torch.from_numpy(array).to(rows.device)


def _groups(values: Any, rows: Rows, owner: str) -> Tensor:
    """Sequence of each row, as numbers from 0 in the order in which the sequences begin."""
    return torch.from_numpy(number_groups(read_groups(values, len(rows)))).to(rows.device)


def _positions(values: Any, rows: Rows, owner: str) -> Tensor:
    """Row and column of each pixel, as integers."""
    array = to_numpy(values)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "fiu":
        raise ValueError(
            f"positions has shape {array.shape} and dtype {array.dtype}, but must hold row and "
            f"column of each pixel: integers of shape ({len(rows)}, 2)."
        )
    _need_length(array, rows, "positions")
    if array.dtype.kind == "f" and not (np.isfinite(array) & (array == np.round(array))).all():
        raise ValueError("positions must be whole numbers: row and column of each pixel.")
    if len(array) and max(abs(float(array.max())), abs(float(array.min()))) >= 2**62:
        raise ValueError("positions are too large: count rows and columns from 0.")
    return torch.from_numpy(array.astype(np.int64)).to(rows.device)


def replace_targets(rows: Rows, targets: Tensor) -> Rows:
    """A view of the same rows with other targets; they are unchanged."""
    found = copy.copy(rows)
    found.columns = {**rows.columns, "target": targets}
    return found
