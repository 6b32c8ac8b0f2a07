"""Products of small matrices on one thread.

The compiled steps call SciPy's BLAS, whose threads go on looking for work after a product, as those
of torch do. Where the two take turns every fraction of a millisecond, each keeps the cores from the
other: ten times slower on an idle machine, and more on one with other work.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


@cache
def _blas() -> Any:
    import scipy.linalg.cython_blas  # noqa: F401 (a library that is not loaded yet is not limited)

    return ThreadpoolController().select(user_api="blas")


def one_blas_thread() -> AbstractContextManager[Any]:
    """Limit BLAS to one thread inside. The limit is that of the process; it costs about 10 us."""
    return _blas().limit(limits=1)  # type: ignore[no-any-return]
