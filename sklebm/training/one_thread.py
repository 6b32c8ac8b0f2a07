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
_limit: Any = None  # while at least one call is inside
_n_inside = 0


def _begin_in_child() -> None:
    """A forked process has none of the threads that may have been inside."""
    global _lock, _limit, _n_inside
    if _limit is not None:
        _limit.restore_original_limits()
    _lock, _limit, _n_inside = threading.Lock(), None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


@cache
def _blas() -> Any:
    import scipy.linalg.cython_blas  # noqa: F401 (a library that is not loaded yet is not limited)

    return ThreadpoolController().select(user_api="blas")


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread inside.

    The limit is that of the process, so the first call to enter sets it, and the last to leave
    restores it; it costs about 10 us.
    """
    global _limit, _n_inside
    with (lock := _lock):
        if _n_inside == 0:
            _limit = _blas().limit(limits=1)
        _n_inside += 1
    try:
        yield
    finally:
        with _lock:
            if lock is _lock:  # otherwise a forked process, which has begun anew
                _n_inside -= 1
                if _n_inside == 0:
                    _limit.restore_original_limits()
                    _limit = None
