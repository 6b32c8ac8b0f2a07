r"""Compiled squared distances \|x - c\|^2, and sums of rows, for kernels of k-means.

All of them release the interpreter lock.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sklebm.inference._compiled import REORDER, compiled


@compiled(fastmath=REORDER)
def exact_distance(x: Any, c: Any) -> Any:
    """|x - c|^2 in double precision."""
    total = 0.0
    for j in range(len(x)):
        step = np.float64(x[j]) - np.float64(c[j])
        total += step * step
    return total


@compiled(fastmath=REORDER)
def fast_distance(x: Any, c: Any) -> Any:
    """|x - c|^2 in the precision of x."""
    total = x.dtype.type(0)
    for j in range(len(x)):
        step = x[j] - c[j]
        total += step * step
    return total


@compiled(fastmath=REORDER)
def four_distances(x: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Squared distances of x to four centres in its own precision: one load of x serves all."""
    e = f = g = h = x.dtype.type(0)
    for j in range(len(x)):
        value = x[j]
        p, q, r, s = value - a[j], value - b[j], value - c[j], value - d[j]
        e += p * p
        f += q * q
        g += r * r
        h += s * s
    return e, f, g, h


@compiled()
def down(value: float) -> Any:
    """The value in single precision, not above it."""
    return np.float32(value * (1.0 - 1.2e-7))


@compiled(fastmath=REORDER)
def sixteen_distances(x: Any, rows: Any, points: Any, c: int, values: Any) -> None:
    """Squared distances of four rows to the centres c..c+3: as fast as a matrix product.

    Sixteen sums stay in registers, and nothing cancels as it does in |x|^2 - 2 x'c + |c|^2.
    """
    last = len(points) - 1
    x0, x1, x2, x3 = x[rows[0]], x[rows[1]], x[rows[2]], x[rows[3]]
    d, e, f = min(c + 1, last), min(c + 2, last), min(c + 3, last)
    p0, p1, p2, p3 = points[c], points[d], points[e], points[f]
    s00 = s10 = s20 = s30 = x.dtype.type(0)
    s01 = s11 = s21 = s31 = x.dtype.type(0)
    s02 = s12 = s22 = s32 = x.dtype.type(0)
    s03 = s13 = s23 = s33 = x.dtype.type(0)
    for j in range(x.shape[1]):
        u0, u1, u2, u3 = x0[j], x1[j], x2[j], x3[j]
        v = p0[j]
        s00 += (u0 - v) * (u0 - v)
        s10 += (u1 - v) * (u1 - v)
        s20 += (u2 - v) * (u2 - v)
        s30 += (u3 - v) * (u3 - v)
        v = p1[j]
        s01 += (u0 - v) * (u0 - v)
        s11 += (u1 - v) * (u1 - v)
        s21 += (u2 - v) * (u2 - v)
        s31 += (u3 - v) * (u3 - v)
        v = p2[j]
        s02 += (u0 - v) * (u0 - v)
        s12 += (u1 - v) * (u1 - v)
        s22 += (u2 - v) * (u2 - v)
        s32 += (u3 - v) * (u3 - v)
        v = p3[j]
        s03 += (u0 - v) * (u0 - v)
        s13 += (u1 - v) * (u1 - v)
        s23 += (u2 - v) * (u2 - v)
        s33 += (u3 - v) * (u3 - v)
    values[c, 0] = s00
    values[c, 1] = s10
    values[c, 2] = s20
    values[c, 3] = s30
    values[d, 0] = s01
    values[d, 1] = s11
    values[d, 2] = s21
    values[d, 3] = s31
    values[e, 0] = s02
    values[e, 1] = s12
    values[e, 2] = s22
    values[e, 3] = s32
    values[f, 0] = s03
    values[f, 1] = s13
    values[f, 2] = s23
    values[f, 3] = s33


@compiled()
def add_moved(
    rows: Any,
    start: int,
    stop: int,
    x: Any,
    weights: Any,
    origin: Any,
    before: Any,
    after: Any,
    sums: Any,
    residues: Any,
) -> None:
    """Move weighted rows from the sum of one cluster to that of another, features start..stop.

    ``residues`` hold the rounding errors of the sums (Neumaier), so that rows that are added and
    removed again leave no trace.
    """
    for i in rows:
        for sign in range(2):
            c = after[i] if sign else before[i]
            if c < 0 or weights[i] == 0.0:
                continue
            factor = weights[i] if sign else -weights[i]
            total, residue = sums[c], residues[c]
            for j in range(start, stop):
                old, term = total[j], factor * (np.float64(x[i, j]) - origin[j])
                new = old + term
                part = new - old
                residue[j] += (old - (new - part)) + (term - part)
                total[j] = new


@compiled()
def add_moments(first: int, last: int, x: Any, weights: Any, origin: Any, sums: Any) -> None:
    """Add the weighted sums of x - origin and of its squares over rows first..last."""
    for i in range(first, last):
        weight = weights[i]
        for j in range(x.shape[1]):
            value = np.float64(x[i, j]) - origin[j]
            sums[0, j] += weight * value
            sums[1, j] += weight * value * value
