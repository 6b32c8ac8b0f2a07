"""Warnings that point at the caller's line, however deep in the library they are raised."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar

# Packages whose frames lie between the caller and the warning.
_INNER = {"sklebm", "sklearn", "skorch", "torch", "joblib", "contextlib", "functools", "threading"}


_Silent = tuple[tuple[str, type[Warning]], ...]
_silent: ContextVar[_Silent] = ContextVar("_silent", default=())


@contextlib.contextmanager
def silenced(beginning: str = "", category: type[Warning] = UserWarning) -> Iterator[None]:
    """Leave out this library's warnings of a kind that begin so, in this thread only.

    Filters of ``warnings.catch_warnings`` hold for all threads, and threads that leave them in
    another order than they entered leave the filters changed.
    """
    token = _silent.set((*_silent.get(), (beginning, category)))
    try:
        yield
    finally:
        _silent.reset(token)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning at the innermost line outside this library and those that it builds on."""
    for beginning, kind in _silent.get():
        if issubclass(category, kind) and message.startswith(beginning):
            return
    level, frame = 2, sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _INNER:
        if frame.f_back is None:
            break
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
