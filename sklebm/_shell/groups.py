"""The group of each row, such as the sequence that it is a step of, as the caller names it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklebm._shell.arrays import to_numpy


def read_groups(
    groups: Any, n_rows: int, *, found: str = "X has", row: str = "row", column: bool = False
) -> NDArray[Any]:
    """The name of each row's group, as an array of one dimension; ``column`` allows shape (n, 1).

    Raises
    ------
    ValueError
        If there is not one for each row, or some are missing: neighbouring rows without a name
        would become one group.
    """
    names = to_numpy(groups)
    if isinstance(groups, (list, tuple)) and names.dtype.kind == "U":
        own = np.asarray(groups, dtype=object)  # beside strings, 1 has become "1", and NaN "nan"
        if not all(isinstance(name, str) for name in own.flat):
            names = own
    if column and names.ndim == 2 and names.shape[1] == 1:
        names = names[:, 0]
    if names.ndim != 1:
        raise ValueError(
            f"groups must have one entry per {row}, shape ({n_rows},); got shape {names.shape}."
        )
    if len(names) != n_rows:
        raise ValueError(
            f"groups has {len(names)} entries, but {found} {n_rows} {row}s: pass one for each "
            f"{row}."
        )
    masked = isinstance(groups, np.ma.MaskedArray)
    n_missing = int(np.ma.getmaskarray(groups).sum()) if masked else _n_missing(names)
    if n_missing:
        raise ValueError(
            f"groups contains missing values in {n_missing} of {n_rows} {row}s: name the group of "
            f"every {row}."
        )
    return names


def number_groups(names: NDArray[Any]) -> NDArray[np.int64]:
    """The group of each row as a number from 0, in the order in which the groups begin.

    Raises
    ------
    ValueError
        If names cannot be told apart.
    """
    if names.dtype.kind != "O":
        _, first, inverse = np.unique(names, return_index=True, return_inverse=True)
        order = np.empty(len(first), dtype=np.int64)
        order[np.argsort(first)] = np.arange(len(first))
        return order[inverse]
    numbers: dict[Any, int] = {}  # names of several types cannot be sorted
    try:
        found = [numbers.setdefault(name, len(numbers)) for name in names.tolist()]
    except TypeError as error:
        kinds = ", ".join(sorted({type(name).__name__ for name in names.tolist()}))
        raise ValueError(
            f"groups holds names of the types {kinds}, which cannot all be told apart: name each "
            "group by a number or a string."
        ) from error
    return np.array(found, dtype=np.int64)


def need_side_by_side(numbers: NDArray[np.int64], *, table: str = "X") -> None:
    """Raise ValueError if a group begins again after another one.

    Groups are numbered in the order in which they begin, so a number can only fall where one comes
    back.
    """
    falls = np.flatnonzero(numbers[1:] < numbers[:-1])
    if len(falls):
        place = int(falls[0]) + 1
        raise ValueError(
            f"groups are not contiguous: the sequence of row {place} began before the one of "
            f"row {place - 1}, and the steps of a sequence must lie side by side. Sort the rows: "
            f'order = np.argsort(groups, kind="stable"), then {table}[order] and groups[order].'
        )


def _n_missing(names: NDArray[Any]) -> int:
    """How many names are NaN, NaT, None or pandas.NA."""
    if names.dtype.kind in "fc":
        return int(np.isnan(names).sum())
    if names.dtype.kind in "mM":
        return int(np.isnat(names).sum())
    if names.dtype.kind != "O":
        return 0
    try:
        missing = np.not_equal(names, names) | np.equal(names, np.array(None))
    except (TypeError, ValueError):  # comparisons with pandas.NA are neither true nor false
        return sum(map(is_missing, names.tolist()))
    return int(missing.sum())


def is_missing(value: Any) -> bool:
    """Whether a name is NaN, NaT, None or pandas.NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    # NaN and NumPy's NaT differ from themselves.
    return isinstance(value, (float, np.floating, np.datetime64, np.timedelta64)) and bool(
        value != value
    )
