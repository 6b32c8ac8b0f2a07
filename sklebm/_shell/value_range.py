"""What to do with values outside [0, 1] where a model takes them for probabilities."""

from __future__ import annotations

import warnings

from sklebm._shell.rows import Rows


def apply_value_range(
    rows: Rows, value_range: str, *, owner: str, learning: bool, stacklevel: int
) -> None:
    """Clip, refuse, or when learning warn of values outside [0, 1].

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
    if low >= 0.0 and high <= 1.0:
        return
    message = (
        f"X contains values outside [0, 1] (min={low:.4g}, max={high:.4g}): {owner} takes them for "
        'probabilities. Scale with MinMaxScaler, or set value_range="clip".'
    )
    if value_range == "raise":
        raise ValueError(message)
    warnings.warn(message + " They are used as they are.", UserWarning, stacklevel=stacklevel)
