"""Products of small matrices on one thread.

The compiled steps call SciPy's BLAS, whose threads go on looking for work after a product, as those
of torch do. Where the two take turns every fraction of a millisecond, each keeps the cores from the
other: ten times slower on an idle machine, and more on one with other work.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_limit: Any = None  # of the call that set it, while that is inside


def _begin_in_child() -> None:
    """A forked process has none of the threads that may have been inside."""
    global _lock, _limit
    if _limit is not None:
        _limit.restore_original_limits()
    _lock, _limit = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


@cache
def _blas() -> Any:
    import scipy.linalg.cython_blas  # noqa: F401 (a library that is not loaded yet is not limited)

    return ThreadpoolController().select(user_api="blas")


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread inside; it costs about 10 us.

    The limit is that of the process: the call that finds none sets it, and ends it. Others inside
    at the same time leave it alone, so that none of them takes it for what the program had set.
    """
    global _limit
    own = None
    with _lock:
        if _limit is None:
            own = _limit = _blas().limit(limits=1)
    try:
        yield
    finally:
        with _lock:
            if own is not None and own is _limit:  # a forked process has ended it already
                own.restore_original_limits()
                _limit = None
