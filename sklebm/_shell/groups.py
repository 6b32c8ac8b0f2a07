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
    n_missing = _count_missing(groups, names)
    if n_missing:
        raise ValueError(
            f"groups contains missing values in {n_missing} of {n_rows} {row}s: name the group of "
            f"every {row}."
        )
    return names


def _count_missing(groups: Any, names: NDArray[Any]) -> int:
    """How many names are NaN, NaT, None or pandas.NA, or masked."""
    if isinstance(groups, np.ma.MaskedArray):
        return int(np.ma.getmaskarray(groups).sum())
    if isinstance(groups, (list, tuple)) and names.dtype.kind == "U":
        names = np.asarray(groups, dtype=object).ravel()  # beside strings, NaN has become "nan"
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
