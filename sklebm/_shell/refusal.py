"""What in a table is not a finite number: which columns, how many values, and what to do about it.

scikit-learn's messages say that something is wrong, but not where. Nothing here runs for a table
that is accepted, apart from a look at the types of its columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: How many columns a message names.
_NAMED = 5
_TIMES = ("datetime", "timedelta", "duration", "date", "time", "period")
_ADVICE = (
    "Encode categories, such as with OneHotEncoder in a ColumnTransformer, and turn times into "
    "numbers, such as seconds since the first."
)


def refuse_times(X: Any, name: str) -> None:
    """Raise TypeError if columns are points or spans of time.

    NumPy would count their nanoseconds, and read a missing one as a number far away.
    """
    if hasattr(X, "columns") and hasattr(X, "dtypes"):
        dtypes = list(X.dtypes)
    else:
        dtypes = [X.dtype] if isinstance(X, np.ndarray) else []
    if any(map(_is_time, dtypes)):
        reason = explain(X, name)
        if reason is not None:
            raise TypeError(reason)


def _is_time(dtype: Any) -> bool:
    return str(dtype).lower().startswith(_TIMES)


def explain(X: Any, name: str) -> str | None:
    """Say which columns are not numbers, or not finite; None if that is not what is wrong."""
    no_numbers, missing, infinite = [], [], []
    for label, values in _columns(X):
        example, n_missing, n_infinite = _look(values)
        if example is not None:
            no_numbers.append(f"{label} ({example})")
        elif n_missing:
            missing.append(f"{label} ({n_missing} of {len(values)} rows)")
        elif n_infinite:
            infinite.append(f"{label} ({n_infinite} of {len(values)} rows)")
    if no_numbers:
        return f"{name} needs numbers, but X holds something else in {_list(no_numbers)}. {_ADVICE}"
    if missing:
        return (
            f"Input X contains NaN in {_list(missing)}. {name} needs finite values: impute them, "
            "such as with SimpleImputer in a pipeline, or drop such rows."
        )
    if infinite:
        return (
            f"Input X contains infinity or a value too large in {_list(infinite)}. {name} needs "
            "finite values: clip them, or drop such rows."
        )
    return None


def _columns(X: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    """Each column with what it is called; none of what is no table."""
    if hasattr(X, "columns"):
        for number, label in enumerate(X.columns):
            column = X.iloc[:, number] if hasattr(X, "iloc") else X[label]
            if not hasattr(X, "iloc") and _is_time(column.dtype):
                # polars 1.0 ends the process if NumPy 2 asks for an array of dates.
                column = _times(column.to_list())
            yield repr(label), np.asarray(column)
        return
    if not isinstance(X, np.ndarray):
        try:
            X = np.array(X, dtype=object)
        except ValueError:  # lists of different lengths
            return
    if X.ndim == 2 and X.dtype.kind != "c":
        for number in range(X.shape[1]):
            yield f"column {number}", X[:, number]


def _times(items: list[Any]) -> NDArray[Any]:
    """Dates and moments as an array of them; times of day and spans as text."""
    texts = ["NaT" if item is None else str(item) for item in items]
    try:
        return np.array(texts, dtype="datetime64")
    except ValueError:
        return np.array(texts)


def _look(values: NDArray[Any]) -> tuple[str | None, int, int]:
    """Something that is no number, if there is one; how many are missing; how many are infinite."""
    if not len(values):
        return None, 0, 0
    if values.dtype.kind in "mM":
        return f"such as {values[0]}, of type {values.dtype.name}", 0, 0
    if values.dtype.kind in "fiub":
        n_missing = int(np.isnan(values).sum()) if values.dtype.kind == "f" else 0
        return None, n_missing, int((~np.isfinite(values)).sum()) - n_missing
    n_missing = n_infinite = 0
    for value in values.tolist():
        if value is None or type(value).__name__ in ("NAType", "NaTType"):
            n_missing += 1
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            return f"such as {value!r}", 0, 0
        n_missing += np.isnan(number)
        n_infinite += np.isinf(number)
    return None, int(n_missing), int(n_infinite)


def _list(columns: list[str]) -> str:
    """The first columns, and how many more there are."""
    more = len(columns) - _NAMED
    text = ", ".join(columns[:_NAMED])
    return f"{text} and {more} more column{'s' * (more > 1)}" if more > 0 else text


def refusal_as(error: Exception, reason: str) -> Exception:
    """The reason as the kind of error that it explains, with its words if it is a TypeError."""
    return TypeError(f"{reason} ({error})") if isinstance(error, TypeError) else ValueError(reason)
