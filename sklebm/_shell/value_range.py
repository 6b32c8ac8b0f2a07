"""Handling of values outside the range for which an energy is meant, such as [0, 1] for bits."""

from __future__ import annotations

from typing import Any

import scipy.sparse
import torch

from sklebm._shell.rows import Rows
from sklebm._shell.warning import warn

#: Rounding errors by which values may exceed their limits: scaling to [0, 1] can overshoot.
ROUNDING = 8


def values_outside(rows: Rows, low: float, high: float) -> tuple[float, float] | None:
    """The least and the largest value of the rows if one is outside the limits, else None."""
    parts = rows.chunks(rows.shape[1])
    least = min(float(rows[part].min()) for part in parts)
    largest = max(float(rows[part].max()) for part in parts)
    slack = ROUNDING * torch.finfo(rows.dtype).eps
    return None if least >= low - slack and largest <= high + slack else (least, largest)


def apply_value_range(
    rows: Rows,
    value_range: str,
    *,
    owner: str,
    learning: bool,
    remedy: str = 'set value_range="clip"',
    limits: tuple[float, float] = (0.0, 1.0),
    meaning: str = "treats them as probabilities",
    outcome: str = "They are used unchanged.",
) -> None:
    """Clip, reject or (when learning) warn about values outside the limits.

    Parameters
    ----------
    rows : Rows
        The rows; "clip" sets their limits.
    value_range : {"warn", "raise", "clip"}
        What to do.
    owner : str
        Name of the estimator, for messages.
    learning : bool
        Whether the rows are learnt from; "warn" says nothing of others.
    remedy : str
        What the message suggests beside scaling.
    limits : (float, float), default=(0.0, 1.0)
        Smallest and largest allowed value.
    meaning : str
        What the estimator does with values within the limits.
    outcome : str
        What becomes of the others; ends the warning.

    Raises
    ------
    ValueError
        If there are any and ``value_range`` is "raise".
    """
    if value_range == "clip":
        rows.limits = limits
        return
    if value_range == "warn" and not learning:
        return
    found = values_outside(rows, *limits)
    if found is None:
        return
    interval = f"{limits[0]:g}, {limits[1]:g}"
    scaler = "MinMaxScaler" if limits == (0.0, 1.0) else f"MinMaxScaler(({interval}))"
    message = (
        f"X contains values outside [{interval}] (min={found[0]:.4g}, max={found[1]:.4g}), but "
        f"{owner} {meaning}. Scale with {scaler}, or {remedy}."
    )
    if value_range == "raise":
        raise ValueError(message)
    warn(f"{message} {outcome}")


def check_bits(model: Any, rows: Rows, choice: str, *, learning: bool) -> None:
    """Handle values that are no probabilities of bits as ``model.value_range`` says.

    ``choice`` is the parameter that makes rows real-valued if it is "gaussian".
    """
    owner, remedy = type(model).__name__, f'set value_range="clip" or {choice}="gaussian"'
    apply_value_range(rows, model.value_range, owner=owner, learning=learning, remedy=remedy)


def need_counts(rows: Rows, what: str) -> None:
    """Refuse negative numbers."""
    least = 0.0
    if scipy.sparse.issparse(rows.source):
        least = float(rows.source.data.min(initial=0.0))
    elif len(rows):
        if rows.is_lazy:
            least = min(float(rows[part].min()) for part in rows.chunks(rows.shape[1]))
        else:
            least = float(rows.source.min())
    if least < 0:
        raise ValueError(
            f"Negative values in data passed to {what} (min={least:.3g}): a document is a "
            "row of counts or weights of words, which must be at least 0."
        )
