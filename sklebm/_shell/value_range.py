"""Handling of values outside [0, 1] in models that interpret them as probabilities."""

from __future__ import annotations

import scipy.sparse
import torch

from sklebm._shell.rows import Rows
from sklebm._shell.warning import warn

_ULPS = 8


def apply_value_range(
    rows: Rows,
    value_range: str,
    *,
    owner: str,
    learning: bool,
    remedy: str = 'set value_range="clip"',
) -> None:
    """Clip, reject or (when learning) warn about values outside [0, 1].

    ``remedy`` is what the message suggests beside scaling.

    Raises
    ------
    ValueError
        If there are any and ``value_range`` is "raise".
    """
    if value_range == "clip":
        rows.limits = (0.0, 1.0)
        return
    if value_range == "warn" and not learning:
        return
    parts = rows.chunks(rows.shape[1])
    low = min(float(rows[part].min()) for part in parts)
    high = max(float(rows[part].max()) for part in parts)
    # Scaling to [0, 1] can overshoot by a few rounding errors.
    slack = _ULPS * torch.finfo(rows.dtype).eps
    if low >= -slack and high <= 1.0 + slack:
        return
    message = (
        f"X contains values outside [0, 1] (min={low:.4g}, max={high:.4g}), but {owner} treats "
        f"them as probabilities. Scale with MinMaxScaler, or {remedy}."
    )
    if value_range == "raise":
        raise ValueError(message)
    warn(message + " They are used unchanged.")


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
