"""Compiled kernels of k-means that measure a row against all centres, sixty-four rows at a time.

Rows that need measuring are gathered into a block that is stored feature by feature, so that the
innermost loop runs over rows: it vectorises for any number of features and centres, however small.
Distances are sums of squared differences in double precision; nothing cancels. Every row is treated
by itself, so blocks of rows run in any number of threads with the same result.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sklebm.inference._compiled import REORDER, compiled

_WIDTH = 64


@compiled(fastmath=REORDER)
def _measure(block: Any, centers: Any, labels: Any, best: Any, second: Any, square: Any) -> None:
    """Closest centre of the rows in ``block``, and squared distances to it and to the next one."""
    n_features = len(block)
    whole = n_features - n_features % 4
    for r in range(_WIDTH):
        labels[r], best[r], second[r] = 0, np.inf, np.inf
    for k in range(len(centers)):
        for r in range(_WIDTH):
            square[r] = 0.0
        for j in range(0, whole, 4):
            a, b, c, d = centers[k, j], centers[k, j + 1], centers[k, j + 2], centers[k, j + 3]
            for r in range(_WIDTH):
                e, f = block[j, r] - a, block[j + 1, r] - b
                g, h = block[j + 2, r] - c, block[j + 3, r] - d
                square[r] += (e * e + f * f) + (g * g + h * h)
        for j in range(whole, n_features):
            a = centers[k, j]
            for r in range(_WIDTH):
                e = block[j, r] - a
                square[r] += e * e
        for r in range(_WIDTH):
            # A tie stays with the lowest index.
            closer = square[r] < best[r]
            second[r] = min(second[r], best[r] if closer else square[r])
            labels[r] = k if closer else labels[r]
            best[r] = square[r] if closer else best[r]


@compiled()
def _gather(block: Any, x: Any, rows: Any) -> None:
    """Store the given rows of ``x`` feature by feature."""
    for r in range(len(rows)):
        row = x[rows[r]]
        for j in range(len(row)):
            block[j, r] = row[j]


@compiled()
def relabel(
    first: int, x: Any, centers: Any, margin: float, fall: Any, labels: Any, slack: Any
) -> Any:
    """Label the rows ``x``, whose labels begin at ``first``, unless their slack excludes a change.

    ``slack`` bounds from below how much farther any other centre is than the own one; ``fall`` is
    what it loses, by label, because centres have moved. It is -1 for rows never measured. Returns
    the number of rows whose distances overflow.
    """
    doubtful = np.empty(len(x), dtype=np.int64)
    count = 0
    for i in range(len(x)):
        left = slack[first + i] - fall[labels[first + i]]
        slack[first + i] = left
        doubtful[count] = i
        count += not left > 0.0
    block = np.zeros((x.shape[1], _WIDTH))
    closest = np.empty(_WIDTH, dtype=np.int64)
    best, second, square = np.empty(_WIDTH), np.empty(_WIDTH), np.empty(_WIDTH)
    n_broken = 0
    for start in range(0, count, _WIDTH):
        rows = doubtful[start : min(start + _WIDTH, count)]
        _gather(block, x, rows)
        _measure(block, centers, closest, best, second, square)
        for r in range(_WIDTH):
            near, far = math.sqrt(best[r]), math.sqrt(second[r])
            # The last term outweighs the rounding of thousands of later subtractions.
            square[r] = far * (1.0 - margin) - near * (1.0 + margin) - 1e-12 * far
        for r in range(len(rows)):
            labels[first + rows[r]] = closest[r]
            slack[first + rows[r]] = square[r] if np.isfinite(second[r]) else np.inf
            n_broken += not np.isfinite(best[r])
    return n_broken


@compiled()
def nearest_two(first: int, x: Any, centers: Any, labels: Any, best: Any, second: Any) -> None:
    """Labels of the rows ``x`` and squared distances to the two closest centres, from ``first``."""
    block = np.zeros((x.shape[1], _WIDTH))
    closest = np.empty(_WIDTH, dtype=np.int64)
    near, far, square = np.empty(_WIDTH), np.empty(_WIDTH), np.empty(_WIDTH)
    for start in range(0, len(x), _WIDTH):
        rows = np.arange(start, min(start + _WIDTH, len(x)))
        _gather(block, x, rows)
        _measure(block, centers, closest, near, far, square)
        for r in range(len(rows)):
            place = first + rows[r]
            labels[place], best[place], second[place] = closest[r], near[r], far[r]
