"""How kernels are compiled by numba; imported where they are used, for numba takes a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

# Sums may be reordered, so that they vectorise; infinities and NaN keep their meaning.
REORDER = {"reassoc", "contract", "nsz", "arcp"}


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile on first use, without the interpreter lock; kept on disk where that is possible."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # a read-only installation without a cache folder
            return njit(nogil=True, **options)(function)

    return decorate
