r"""(C D C)_ij at some entries (i, j) only, for a dense symmetric C and a sparse symmetric D.

The whole product costs 4 d^3 operations, of which 2 d per entry are asked for. C is taken in panels
of columns, whose products with D stay in the caches until their dot products with rows of C are
taken.

Quadratic forms u'Du of many rows u, and sums of w u_i u_j at the entries, take blocks of rows that
stay in the caches, turned feature by feature, so that every entry is a vectorised operation.

This module imports numba, so it is imported where it is used.
"""

from __future__ import annotations

import numpy as np

from sklebm.inference._compiled import REORDER, compiled

_PANEL = 64  # columns
_BLOCK = 64  # rows


@compiled(fastmath=REORDER)
def sandwich(c, starts, columns, values, rows, others):  # type: ignore[no-untyped-def]
    """The entries (rows, others) of C D C, with D in csr form; ``rows`` in ascending order.

    O(d (nnz(D) + n_entries)).
    """
    d, n_entries = len(c), len(rows)
    out = np.zeros(n_entries)
    y = np.empty((d, _PANEL))
    panel = np.zeros((d, _PANEL))
    turned = np.empty((_PANEL, d))
    e = 0
    for first in range(0, d, _PANEL):
        width = min(_PANEL, d - first)
        for i in range(d):
            for t in range(width):
                panel[i, t] = c[i, first + t]
            for t in range(_PANEL):
                y[i, t] = 0.0
        for i in range(d):
            for place in range(starts[i], starts[i + 1]):
                k, value = columns[place], values[place]
                for t in range(_PANEL):
                    y[i, t] += value * panel[k, t]
            for t in range(width):
                turned[t, i] = y[i, t]
        while e < n_entries and rows[e] < first + width:
            i, t, total = others[e], rows[e] - first, 0.0
            for k in range(d):
                total += c[i, k] * turned[t, k]
            out[e] = total
            e += 1
    return out


@compiled(fastmath=REORDER)
def sparse_product(  # type: ignore[no-untyped-def]
    starts_a, columns_a, values_a, starts_b, columns_b, values_b, rows, others
):
    """The entries (rows, others) of A B', both in csr form with sorted columns."""
    out = np.zeros(len(rows))
    for e in range(len(rows)):
        a, end_a = starts_a[rows[e]], starts_a[rows[e] + 1]
        b, end_b = starts_b[others[e]], starts_b[others[e] + 1]
        while a < end_a and b < end_b:
            if columns_a[a] == columns_b[b]:
                out[e] += values_a[a] * values_b[b]
                a += 1
                b += 1
            elif columns_a[a] < columns_b[b]:
                a += 1
            else:
                b += 1
    return out


@compiled()
def _load(u, first, width, block):  # type: ignore[no-untyped-def]
    """Put ``width`` rows into the block, feature by feature; zeros after them."""
    for j in range(u.shape[1]):
        for t in range(width):
            block[j, t] = u[first + t, j]
        for t in range(width, _BLOCK):
            block[j, t] = 0.0


@compiled(fastmath=REORDER)
def quadratic_forms(u, starts, columns, values, linear, out):  # type: ignore[no-untyped-def]
    """Write u'Du + b'u for every row u: D in csr form, b ``linear``. O(n nnz(D))."""
    n, d = u.shape
    block, inner, total = np.empty((d, _BLOCK)), np.empty(_BLOCK), np.empty(_BLOCK)
    for first in range(0, n, _BLOCK):
        width = min(_BLOCK, n - first)
        _load(u, first, width, block)
        total[:] = 0.0
        for i in range(d):
            inner[:] = linear[i]
            for place in range(starts[i], starts[i + 1]):
                j, value = columns[place], values[place]
                for t in range(_BLOCK):
                    inner[t] += value * block[j, t]
            for t in range(_BLOCK):
                total[t] += inner[t] * block[i, t]
        for t in range(width):
            out[first + t] = total[t]


@compiled(fastmath=REORDER)
def weighted_moments(u, weights, starts, columns):  # type: ignore[no-untyped-def]
    """Sums over the rows of w u_i u_j at the entries of a csr form, and of w u. O(n nnz)."""
    n, d = u.shape
    pairs, means = np.zeros(len(columns)), np.zeros(d)
    block, scaled, weight = np.empty((d, _BLOCK)), np.empty(_BLOCK), np.zeros(_BLOCK)
    for first in range(0, n, _BLOCK):
        width = min(_BLOCK, n - first)
        _load(u, first, width, block)
        for t in range(width):
            weight[t] = weights[first + t]
        for i in range(d):
            mean = 0.0
            for t in range(_BLOCK):
                scaled[t] = weight[t] * block[i, t]
                mean += scaled[t]
            means[i] += mean
            for place in range(starts[i], starts[i + 1]):
                j, total = columns[place], 0.0
                for t in range(_BLOCK):
                    total += scaled[t] * block[j, t]
                pairs[place] += total
    return pairs, means
