r"""Compiled kernels of exact k-means: skip centres that must be farther than the own one.

Distances to k centres are bounded from below for groups of centres (Ding et al., "Yinyang k-means",
ICML 2015) and for all of them at once (Hamerly, SDM 2010). Every kernel treats its rows one by one
and releases the interpreter lock: blocks of rows run in any number of threads with the same result.

Decisions are those of double precision. Distances in the precision of x only exclude centres that
are farther by more than their rounding error ``margin``; whatever is closer is measured again, and
ties go to the lowest index.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit

# Sums may be reordered, so that they vectorise; infinities and NaN keep their meaning.
_REORDER = {"reassoc", "contract", "nsz", "arcp"}


class Centers(NamedTuple):
    """The centres, group by group.

    ``starts``: where each group begins; ``group_of`` each centre; ``rank``: its original index;
    ``between[c, g]``: distance of centre c to the closest other one of group g, from below;
    ``half[c]``: half the distance to the closest other centre; ``drift``: how far each has just
    moved; ``paths[step, g]``: the length of the way that group g has gone until then.
    """

    points: Any
    starts: Any
    group_of: Any
    rank: Any
    between: Any
    half: Any
    drift: Any
    paths: Any


class Bounds(NamedTuple):
    """What is known of each row.

    ``labels``: the own centre; ``upper``: bound on its distance; ``nearest`` and ``lower[:, g]``:
    bounds from below on the distance of all others, and of those of group g as it was at step
    ``touched``; ``pending``: rows that fail too many bounds.
    """

    labels: Any
    upper: Any
    nearest: Any
    touched: Any
    lower: Any
    pending: Any


def _compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile on first use, and keep the machine code where some folder can be written."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # a read-only installation without a cache folder
            return njit(nogil=True, **options)(function)

    return decorate


@_compiled(fastmath=_REORDER)
def _exact_distance(x: Any, c: Any) -> Any:
    """|x - c|^2 in double precision."""
    total = 0.0
    for j in range(len(x)):
        step = np.float64(x[j]) - np.float64(c[j])
        total += step * step
    return total


@_compiled(fastmath=_REORDER)
def _fast_distance(x: Any, c: Any) -> Any:
    """|x - c|^2 in the precision of x."""
    total = x.dtype.type(0)
    for j in range(len(x)):
        step = x[j] - c[j]
        total += step * step
    return total


@_compiled(fastmath=_REORDER)
def _four_distances(x: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
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


@_compiled()
def _down(value: float) -> Any:
    """The value in single precision, not above it."""
    return np.float32(value * (1.0 - 1.2e-7))


@_compiled(fastmath=_REORDER)
def _sixteen_distances(x: Any, rows: Any, points: Any, c: int, values: Any) -> None:
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
    values[0, c] = s00
    values[1, c] = s10
    values[2, c] = s20
    values[3, c] = s30
    values[0, d] = s01
    values[1, d] = s11
    values[2, d] = s21
    values[3, d] = s31
    values[0, e] = s02
    values[1, e] = s12
    values[2, e] = s22
    values[3, e] = s32
    values[0, f] = s03
    values[1, f] = s13
    values[2, f] = s23
    values[3, f] = s33


@_compiled()
def compare_with_all(rows: Any, margin: float, x: Any, centers: Any, bounds: Any) -> None:
    """Label the given rows by their distances to all centres."""
    n_centers = len(centers.points)
    values = np.empty((4, n_centers), dtype=x.dtype)
    four = np.empty(4, dtype=np.int64)
    for first in range(0, len(rows), 4):
        for r in range(4):
            four[r] = rows[min(first + r, len(rows) - 1)]
        for c in range(0, n_centers, 4):
            _sixteen_distances(x, four, centers.points, c, values)
        for r in range(min(4, len(rows) - first)):
            _scan(four[r], values[r], margin, x, centers, bounds)


@_compiled()
def _scan(i: int, values: Any, margin: float, x: Any, centers: Any, bounds: Any) -> None:
    """Label row i, whose squared distances to all centres are known up to rounding."""
    least = np.float64(values.min()) * (1.0 + 4.0 * margin) + np.finfo(x.dtype).tiny
    best, best_square = -1, np.inf
    for c in range(len(values)):
        if values[c] <= least:
            square = _exact_distance(x[i], centers.points[c])
            tie = square == best_square and centers.rank[c] < centers.rank[best]
            if square < best_square or tie:
                best, best_square = c, square
    bounds.labels[i], bounds.upper[i] = best, math.sqrt(best_square)
    bounds.nearest[i] = np.inf
    bounds.touched[i] = len(centers.paths) - 1
    for g in range(len(centers.starts) - 1):
        least = np.inf
        for c in range(centers.starts[g], centers.starts[g + 1]):
            if c != best:
                least = min(least, values[c])
        bounds.lower[i, g] = _down(math.sqrt(least * (1.0 - margin)))
        bounds.nearest[i] = min(bounds.nearest[i], bounds.lower[i, g])


@_compiled()
def measure_centers(
    first: int, last: int, margin: float, points: Any, starts: Any, between: Any
) -> None:
    """Distance of centres first..last to the closest other one of every group, from below."""
    values = np.empty((4, len(points)), dtype=points.dtype)
    four = np.empty(4, dtype=np.int64)
    for start in range(first, last, 4):
        for r in range(4):
            four[r] = min(start + r, last - 1)
        for c in range(0, len(points), 4):
            _sixteen_distances(points, four, points, c, values)
        for r in range(4):
            values[r, four[r]] = np.inf
            for g in range(len(starts) - 1):
                least = np.float64(values[r, starts[g] : starts[g + 1]].min())
                between[four[r], g] = math.sqrt(least * (1.0 - margin)) * (1.0 - 1e-9)


@_compiled()
def prune(
    first: int, last: int, most_failing: int, margin: float, x: Any, centers: Any, bounds: Any
) -> None:
    """Relabel rows first..last after the centres moved; mark those that fail too many bounds."""
    values = np.empty(len(centers.points) + 3, dtype=x.dtype)
    largest = centers.drift.max()
    tiny = len(centers.points[0]) * np.finfo(x.dtype).tiny
    for i in range(first, last):
        own = bounds.labels[i]
        reach = bounds.upper[i] + centers.drift[own]
        floor = max(bounds.nearest[i] - largest, 0.0)
        bounds.nearest[i] = floor
        floor = max(floor, centers.half[own])
        if reach >= floor:
            square = np.float64(_fast_distance(x[i], centers.points[own]))
            reach = math.sqrt(square * (1.0 + 2.0 * margin) + tiny)
        bounds.upper[i] = reach
        if reach < floor:
            continue
        failing = _update_bounds(i, own, reach, centers, bounds)
        if failing > most_failing:
            bounds.pending[i] = True
        elif failing > 0:
            _search(i, own, margin, x, centers, bounds, values)


@_compiled()
def _update_bounds(i: int, own: int, reach: float, centers: Any, bounds: Any) -> Any:
    """Lower the bounds of row i by what the groups moved; how many centres may be closer."""
    starts, now, since = centers.starts, len(centers.paths) - 1, bounds.touched[i]
    floor, failing = np.inf, 0
    for g in range(len(starts) - 1):
        bound = bounds.lower[i, g] - (centers.paths[now, g] - centers.paths[since, g])
        bound = _down(max(bound, centers.between[own, g] - reach, 0.0))
        bounds.lower[i, g] = bound
        floor = min(floor, bound)
        if bound <= reach:
            failing += starts[g + 1] - starts[g]
    bounds.touched[i] = now
    bounds.nearest[i] = floor
    return failing


@_compiled()
def _search(
    i: int, own: int, margin: float, x: Any, centers: Any, bounds: Any, values: Any
) -> None:
    """Find the closest centre of row i among the groups whose bounds fail."""
    best, best_square = own, _exact_distance(x[i], centers.points[own])
    # The own group first: the closest centre is most likely there.
    home = centers.group_of[own]
    for turn in range(-1, len(centers.starts) - 1):
        g = home if turn < 0 else turn
        if turn != home and bounds.lower[i, g] <= math.sqrt(best_square):
            best, best_square = _measure_group(
                i, g, best, best_square, margin, x, centers, bounds, values
            )
    bounds.labels[i], bounds.upper[i] = best, math.sqrt(best_square)
    bounds.nearest[i] = bounds.lower[i].min()


@_compiled()
def _measure_group(
    i: int,
    g: int,
    best: int,
    best_square: float,
    margin: float,
    x: Any,
    centers: Any,
    bounds: Any,
    values: Any,
) -> Any:
    """Compare row i with all centres of group g; returns the best centre and its distance."""
    row, points = x[i], centers.points
    first, last = centers.starts[g], centers.starts[g + 1]
    for c in range(first, last, 4):
        p = c - first
        q, r, s = min(c + 1, last - 1), min(c + 2, last - 1), min(c + 3, last - 1)
        values[p], values[p + 1], values[p + 2], values[p + 3] = _four_distances(
            row, points[c], points[q], points[r], points[s]
        )
    held, least = best, np.inf
    for c in range(first, last):
        square = np.float64(values[c - first]) * (1.0 - margin)
        if c == held:
            continue
        if square <= best_square:
            square = _exact_distance(row, points[c])
            tie = square == best_square and centers.rank[c] < centers.rank[best]
            if square < best_square or tie:
                h = centers.group_of[best]
                bounds.lower[i, h] = min(bounds.lower[i, h], _down(math.sqrt(best_square)))
                # The bound of this group is set below, from what is beaten or too far.
                least = min(least, best_square) if h == g else least
                best, best_square = c, square
                continue
        least = min(least, square)
    bounds.lower[i, g] = _down(math.sqrt(least))
    return best, best_square


@_compiled()
def own_distances(first: int, last: int, x: Any, points: Any, labels: Any, own: Any) -> None:
    """Squared distances of rows first..last to the own centre."""
    for i in range(first, last):
        own[i] = _exact_distance(x[i], points[labels[i]])


@_compiled()
def other_distances(
    first: int,
    last: int,
    margin: float,
    x: Any,
    stretch: Any,
    centers: Any,
    bounds: Any,
    own: Any,
    others: Any,
) -> None:
    """Squared distances of rows first..last to the closest other centre, where they matter.

    ``others`` stays as it is where no other centre is closer than ``own``, the squared distance to
    the own one, multiplied by that centre's ``stretch``.
    """
    now, starts = len(centers.paths) - 1, centers.starts
    for i in range(first, last):
        home, since = bounds.labels[i], bounds.touched[i]
        nearest = own[i] * stretch[home] if np.isfinite(stretch[home]) else np.inf
        for g in range(len(starts) - 1):
            bound = bounds.lower[i, g] - (centers.paths[now, g] - centers.paths[since, g])
            if bound > 0.0 and bound * bound > nearest:
                continue
            for c in range(starts[g], starts[g + 1]):
                square = np.float64(_fast_distance(x[i], centers.points[c]))
                if c != home and square * (1.0 - margin) < nearest:
                    square = _exact_distance(x[i], centers.points[c])
                    if square < nearest:
                        nearest = others[i] = square


@_compiled()
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

    ``residues`` keep what rounding took from the sums (Neumaier), so that rows which come and go
    leave nothing behind.
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


@_compiled()
def add_moments(first: int, last: int, x: Any, weights: Any, origin: Any, sums: Any) -> None:
    """Add the weighted sums of x - origin and of its squares over rows first..last."""
    for i in range(first, last):
        weight = weights[i]
        for j in range(x.shape[1]):
            value = np.float64(x[i, j]) - origin[j]
            sums[0, j] += weight * value
            sums[1, j] += weight * value * value
