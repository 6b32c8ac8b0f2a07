"""Common parts of all displays: axes, colours safe for colour blindness, scores as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# M. Okabe and K. Ito, "Color universal design", 2008; black comes last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")


def import_pyplot() -> Any:
    """matplotlib's pyplot, or an ImportError that says how to install it."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "Displays need matplotlib, which is not installed here: pip install sklebm[plot]"
        ) from error
    return pyplot


def need_names(values: Any, name: str, what: str) -> None:
    """Refuse what is no mapping, such as one table without a name; data frames name columns."""
    named_columns = hasattr(values, "columns") and hasattr(values, "items")  # as pandas has them
    if not isinstance(values, Mapping) and (what == "rows" or not named_columns):
        raise TypeError(
            f'{name} must be a dictionary of name to {what}, such as {{"train": {what}}}; got an '
            f"object of type {type(values).__name__}."
        )


def new_axes(ax: Any, width: float, height: float) -> Any:
    """The axes given, or those of a new figure of this size in inches."""
    if ax is not None:
        return ax
    _, ax = import_pyplot().subplots(figsize=(width, height), layout="constrained")
    return ax
