"""Warnings that point at the caller's line, however deep in the library they are raised."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar

# Packages whose frames lie between the caller and the warning.
_INNER = {"sklebm", "sklearn", "skorch", "torch", "joblib", "contextlib", "functools", "threading"}


_silent: ContextVar[tuple[str, ...]] = ContextVar("_silent", default=())


@contextlib.contextmanager
def silenced(beginning: str = "") -> Iterator[None]:
    """Leave out this library's warnings that begin so, in this thread only.

    Filters of ``warnings.catch_warnings`` hold for all threads, and threads that leave them in
    another order than they entered leave the filters changed.
    """
    token = _silent.set((*_silent.get(), beginning))
    try:
        yield
    finally:
        _silent.reset(token)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning at the innermost line outside this library and those that it builds on."""
    if message.startswith(_silent.get()):
        return
    level, frame = 2, sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _INNER:
        if frame.f_back is None:
            break
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
