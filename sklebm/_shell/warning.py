"""Warnings that point at the caller's line, however deep in the library they are raised."""

from __future__ import annotations

import sys
import warnings

# Packages whose frames lie between the caller and the warning.
_INNER = {"sklebm", "sklearn", "skorch", "torch", "joblib", "contextlib", "functools", "threading"}


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning at the innermost line outside this library and those that it builds on."""
    level, frame = 2, sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _INNER:
        if frame.f_back is None:
            break
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
