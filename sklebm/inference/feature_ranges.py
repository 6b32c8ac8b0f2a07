"""Features in units of their range, as a sparse table: penalties count all of them alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

_LIMITS = np.finfo(np.float64)
Floats = NDArray[np.float64]


def features_in_ranges(x: Any) -> tuple[Any, Floats, Floats]:
    """Features in units of their range as a csr matrix, and what was subtracted and divided by.

    A dense feature that is never near zero is moved there. With others, dense and sparse rows walk
    the same path.
    """
    is_sparse = scipy.sparse.issparse(x)
    low, high = x.min(axis=0), x.max(axis=0)
    low, high = (part.toarray().ravel() if is_sparse else part for part in (low, high))
    low, high = low.astype(np.float64), high.astype(np.float64)
    with np.errstate(over="ignore"):
        span = np.minimum(high - low, _LIMITS.max)
    rounding = 8 * _LIMITS.eps * np.maximum(np.abs(low), np.abs(high))
    # A range whose square underflows counts as none.
    constant = span <= np.maximum(rounding, np.sqrt(_LIMITS.tiny))
    scale = np.where(constant, 1.0, span)
    factor = np.where(constant, 0.0, 1.0 / scale)
    if is_sparse:
        offset = np.zeros(x.shape[1])
        data = x.data.astype(np.float64) * factor[x.indices]
        indices, indptr = x.indices.astype(np.int32), x.indptr.astype(np.int64)
    else:
        far = (low > 0.0) | (high < 0.0)
        offset = np.zeros(x.shape[1])
        offset[far] = low[far] / 2 + high[far] / 2
        data = ((x.astype(np.float64) - offset) * factor).ravel()
        indices = np.tile(np.arange(x.shape[1], dtype=np.int32), len(x))
        indptr = np.arange(len(x) + 1, dtype=np.int64) * x.shape[1]
    table = scipy.sparse.csr_matrix(x.shape)
    table.data, table.indices, table.indptr = data, indices, indptr
    return table, offset, scale
