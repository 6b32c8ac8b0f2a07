"""Warnings that point at the caller's line, however deep in the library they arise."""

from __future__ import annotations

import sys
import warnings

# Whose frames stand between the caller and the place that warns.
_INNER = {"sklebm", "sklearn", "skorch", "torch", "joblib", "contextlib", "functools", "threading"}


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn of ``message`` at the innermost line that is not this library's, nor one below it."""
    level, frame = 2, sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _INNER:
        if frame.f_back is None:
            break
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
