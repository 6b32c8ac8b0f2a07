"""Compilation of kernels by numba; imported where needed, because numba takes a second to load.

Machine code is cached for the next process. By default numba caches it next to the source and only
checks the time stamp of that file, so a kernel would be stale after a change in another module
that it uses. Here the cache folder is named after the text of all modules with kernels, and is
private to the user because its contents are executed. ``NUMBA_CACHE_DIR`` overrides it.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

# Sums may be reordered, so that they vectorise; infinities and NaN keep their meaning.
REORDER = {"reassoc", "contract", "nsz", "arcp"}


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile on first use, without the interpreter lock; cached on disk if possible."""

    def decorate(function: Callable[..., Any]) -> Any:
        config: Any = numba.config
        chosen = config.CACHE_DIR  # the user's, if there is one
        folder = chosen or _folder()
        if not folder:
            return numba.njit(nogil=True, **options)(function)
        try:
            # The place is fixed here, function by function: those of others keep theirs.
            config.CACHE_DIR = folder
            return numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # it cannot be written to
            return numba.njit(nogil=True, **options)(function)
        finally:
            config.CACHE_DIR = chosen

    return decorate


@cache
def _folder() -> str:
    """Cache folder of this user for these sources; empty if there is no safe place."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        text = path.read_bytes()
        if b"_compiled" in text or path.name == Path(__file__).name:
            digest.update(path.name.encode() + text)
    try:
        folder = _user_caches() / "sklebm" / f"kernels-{digest.hexdigest()[:16]}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return str(folder) if _is_private(folder) else ""
    except (OSError, RuntimeError):  # no home, or a read-only one
        return ""


def _user_caches() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _is_private(folder: Path) -> bool:
    """Whether no other user can put code there that this process would run."""
    if sys.platform == "win32":
        return True  # the profile of a user is private there
    status = folder.stat()
    others = stat.S_IWGRP | stat.S_IWOTH
    return (
        status.st_uid == os.getuid() and not status.st_mode & others and os.access(folder, os.W_OK)
    )
