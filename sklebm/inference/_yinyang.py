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
from typing import Any, NamedTuple

import numpy as np

from sklebm.inference._compiled import REORDER, compiled
from sklebm.inference._distances import (
    down,
    exact_distance,
    fast_distance,
    four_distances,
    sixteen_distances,
)


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


@compiled(fastmath=REORDER | {"nnan"})
def _group_minima(values: Any, starts: Any, least: Any) -> None:
    """Smallest of the values of every group, for four rows side by side."""
    for g in range(len(starts) - 1):
        p = starts[g]
        a, b, c, d = values[p, 0], values[p, 1], values[p, 2], values[p, 3]
        for p in range(starts[g] + 1, starts[g + 1]):
            a, b = min(a, values[p, 0]), min(b, values[p, 1])
            c, d = min(c, values[p, 2]), min(d, values[p, 3])
        least[g, 0], least[g, 1], least[g, 2], least[g, 3] = a, b, c, d


@compiled()
def compare_with_all(rows: Any, margin: float, x: Any, centers: Any, bounds: Any) -> None:
    """Label the given rows by their distances to all centres."""
    n_centers = len(centers.points)
    values = np.empty((n_centers, 4), dtype=x.dtype)
    least = np.empty((len(centers.starts) - 1, 4), dtype=x.dtype)
    four = np.empty(4, dtype=np.int64)
    for first in range(0, len(rows), 4):
        for r in range(4):
            four[r] = rows[min(first + r, len(rows) - 1)]
        for c in range(0, n_centers, 4):
            sixteen_distances(x, four, centers.points, c, values)
        _group_minima(values, centers.starts, least)
        for r in range(min(4, len(rows) - first)):
            _scan(four[r], values[:, r], least[:, r], margin, x, centers, bounds)


@compiled()
def _scan(
    i: int, values: Any, minima: Any, margin: float, x: Any, centers: Any, bounds: Any
) -> None:
    """Label row i, whose squared distances to all centres are known up to rounding."""
    limit = np.float64(minima.min()) * (1.0 + 4.0 * margin) + np.finfo(x.dtype).tiny
    starts = centers.starts
    best, best_square = -1, np.inf
    nearest = np.inf
    for g in range(len(minima)):
        bounds.lower[i, g] = down(math.sqrt(minima[g] * (1.0 - margin)))
        if minima[g] > limit:
            nearest = min(nearest, bounds.lower[i, g])
            continue
        for c in range(starts[g], starts[g + 1]):
            if values[c] <= limit:
                square = exact_distance(x[i], centers.points[c])
                tie = square == best_square and centers.rank[c] < centers.rank[best]
                if square < best_square or tie:
                    best, best_square = c, square
    for g in range(len(minima)):
        if minima[g] <= limit:
            least = np.inf
            for c in range(starts[g], starts[g + 1]):
                if c != best:
                    least = min(least, values[c])
            bounds.lower[i, g] = down(math.sqrt(least * (1.0 - margin)))
            nearest = min(nearest, bounds.lower[i, g])
    bounds.labels[i], bounds.upper[i], bounds.nearest[i] = best, math.sqrt(best_square), nearest
    bounds.touched[i] = len(centers.paths) - 1


@compiled()
def measure_centers(
    first: int, last: int, margin: float, points: Any, starts: Any, between: Any
) -> None:
    """Distance of centres first..last to the closest other one of every group, from below."""
    values = np.empty((len(points), 4), dtype=points.dtype)
    least = np.empty((len(starts) - 1, 4), dtype=points.dtype)
    four = np.empty(4, dtype=np.int64)
    for start in range(first, last, 4):
        for r in range(4):
            four[r] = min(start + r, last - 1)
        for c in range(0, len(points), 4):
            sixteen_distances(points, four, points, c, values)
        for r in range(4):
            values[four[r], r] = np.inf
        _group_minima(values, starts, least)
        for r in range(4):
            for g in range(len(starts) - 1):
                bound = math.sqrt(np.float64(least[g, r]) * (1.0 - margin))
                between[four[r], g] = bound * (1.0 - 1e-9)


@compiled()
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
            square = np.float64(fast_distance(x[i], centers.points[own]))
            reach = math.sqrt(square * (1.0 + 2.0 * margin) + tiny)
        bounds.upper[i] = reach
        if reach < floor:
            continue
        failing = _update_bounds(i, own, reach, centers, bounds)
        if failing > most_failing:
            bounds.pending[i] = True
        elif failing > 0:
            _search(i, own, margin, x, centers, bounds, values)


@compiled()
def _update_bounds(i: int, own: int, reach: float, centers: Any, bounds: Any) -> Any:
    """Lower the bounds of row i by what the groups moved; how many centres may be closer."""
    starts, now, since = centers.starts, len(centers.paths) - 1, bounds.touched[i]
    floor, failing = np.inf, 0
    for g in range(len(starts) - 1):
        bound = bounds.lower[i, g] - (centers.paths[now, g] - centers.paths[since, g])
        bound = down(max(bound, centers.between[own, g] - reach, 0.0))
        bounds.lower[i, g] = bound
        floor = min(floor, bound)
        if bound <= reach:
            failing += starts[g + 1] - starts[g]
    bounds.touched[i] = now
    bounds.nearest[i] = floor
    return failing


@compiled()
def _search(
    i: int, own: int, margin: float, x: Any, centers: Any, bounds: Any, values: Any
) -> None:
    """Find the closest centre of row i among the groups whose bounds fail."""
    best, best_square = own, exact_distance(x[i], centers.points[own])
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


@compiled()
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
        values[p], values[p + 1], values[p + 2], values[p + 3] = four_distances(
            row, points[c], points[q], points[r], points[s]
        )
    held, least = best, np.inf
    for c in range(first, last):
        square = np.float64(values[c - first]) * (1.0 - margin)
        if c == held:
            continue
        if square <= best_square:
            square = exact_distance(row, points[c])
            tie = square == best_square and centers.rank[c] < centers.rank[best]
            if square < best_square or tie:
                h = centers.group_of[best]
                bounds.lower[i, h] = min(bounds.lower[i, h], down(math.sqrt(best_square)))
                # The bound of this group is set below, from what is beaten or too far.
                least = min(least, best_square) if h == g else least
                best, best_square = c, square
                continue
        least = min(least, square)
    bounds.lower[i, g] = down(math.sqrt(least))
    return best, best_square


@compiled()
def own_distances(first: int, last: int, x: Any, points: Any, labels: Any, own: Any) -> None:
    """Squared distances of rows first..last to the own centre."""
    for i in range(first, last):
        own[i] = exact_distance(x[i], points[labels[i]])


@compiled()
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
                square = np.float64(fast_distance(x[i], centers.points[c]))
                if c != home and square * (1.0 - margin) < nearest:
                    square = exact_distance(x[i], centers.points[c])
                    if square < nearest:
                        nearest = others[i] = square
