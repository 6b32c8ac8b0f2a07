r"""log u(s), u(s) the share of training rows that score s or less: one scale for any scores.

Inside the range of the training scores, u is interpolated between stored quantiles. Beyond it, u
below and 1 - u above fall exponentially with the mean excess over the last decile ("peaks over
threshold", Pickands, 1975), so that rows far outside keep their order. In nats.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MAX_QUANTILES = 1000
# Rounding of scores in units of their eps. Most are summed in double precision, so in single
# precision only the final rounding shows.
_ROUNDING = {np.float64: 100.0, np.float32: 8.0}
_TAIL = 0.1  # share of the training scores used to estimate the slope of a tail

Floats = NDArray[np.float64]


def training_quantiles(scores: Floats, weights: Floats | None = None) -> Floats:
    """At most 1,000 quantiles of the scores, ascending; all of them if there are fewer rows.

    A weight of m is the same as m copies of the row.
    """
    ascending, upto = _in_order(scores, weights)
    total = float(upto[-1])
    count = min(max(int(total), len(ascending)), _MAX_QUANTILES)
    # Values that occur rather than interpolated ones, so that tied scores stay tied.
    places = (np.arange(count) + 0.5) * total / count
    return _merge_ties(ascending[np.searchsorted(upto, places, side="right")])


def percentile(scores: Floats, share: float, weights: Floats | None = None) -> float:
    """The linearly interpolated quantile at ``share``; a weight of m means m copies.

    Weights that sum to less than the number of rows are no counts: they are scaled up to it.
    """
    if weights is None:
        return float(np.percentile(scores.astype(np.float64), 100 * share))
    ascending, upto = _in_order(scores, weights)
    upto = upto * max(1.0, len(ascending) / float(upto[-1]))
    place = share * max(float(upto[-1]) - 1, 0.0)
    below, last = np.floor(place), len(ascending) - 1
    # Scaled sums may fall short of a whole number by rounding.
    upto = np.where(np.abs(upto - np.round(upto)) < 1e-9 * upto, np.round(upto), upto)
    at = np.minimum(np.searchsorted(upto, [below, below + 1], side="right"), last)
    low, high = ascending[at]
    return float(low + (place - below) * (high - low))


def after_lowest(
    scores: Floats, share: float, weights: Floats | None = None
) -> tuple[NDArray[np.int64], Floats | None]:
    """Rows, ascending, that remain without the lowest ``share`` of all copies, and their weights.

    At least two rows. A weight of m means m copies, of which some may remain.
    """
    order = np.argsort(scores, kind="stable")
    if weights is None:
        n_left_out = max(min(int(share * len(scores)), len(scores) - 2), 0)
        return np.sort(order[n_left_out:]), None
    order = order[weights[order] > 0]
    copies = weights[order] * max(1.0, len(order) / float(weights.sum()))
    upto = np.cumsum(copies)
    # Rounded down to whole copies, but for rounding of the sum.
    limit = np.floor(share * upto[-1] * (1 + 1e-12))
    left = np.clip(upto - limit, 0.0, copies)
    left[left < 1e-9 * copies] = 0.0
    left[-2:] = np.where(left[-2:] > 0, left[-2:], copies[-2:])
    remaining = np.zeros(len(weights))
    remaining[order] = weights[order] * (left / copies)
    kept = np.flatnonzero(remaining)
    return kept, remaining[kept]


def _in_order(scores: Floats, weights: Floats | None) -> tuple[Floats, Floats]:
    """Sorted scores of the rows that count, and the cumulative weight at each."""
    values = np.asarray(scores, dtype=np.float64)
    if weights is None:
        return np.sort(values), np.arange(1.0, len(values) + 1)
    counts = weights > 0
    values, weights = values[counts], weights[counts]
    order = np.argsort(values, kind="stable")
    return values[order], np.cumsum(weights[order])


def log_rank(scores: Floats, quantiles: Floats) -> Floats:
    """log u(scores): 0 for the most typical, falling without bound; strictly increasing.

    O(n log q) for n scores and q quantiles.
    """
    levels = (np.arange(len(quantiles)) + 0.5) / len(quantiles)
    # Equal quantiles share the mean of their levels, so that the curve has a single value there.
    knots, first, counts = np.unique(quantiles, return_index=True, return_counts=True)
    heights = (levels[first] + levels[first + counts - 1]) / 2
    lowest, highest = knots[0], knots[-1]
    ranks = np.log(np.interp(scores, knots, heights))
    below, above = scores < lowest, scores > highest
    ranks[below] -= (lowest - scores[below]) / _mean_excess(-quantiles[::-1])
    gap = (scores[above] - highest) / _mean_excess(quantiles)
    ranks[above] = np.log1p(-(1 - heights[-1]) * np.exp(-gap))
    return np.asarray(ranks)


def _merge_ties(quantiles: Floats) -> Floats:
    """Merge quantiles that differ only by rounding, which ranks would otherwise magnify.

    Rounding is relative to the size of a score; meaningful differences are larger.
    """
    with np.errstate(over="ignore"):
        single = np.array_equal(quantiles, quantiles.astype(np.float32))
    dtype = np.float32 if single else np.float64
    step = _ROUNDING[dtype] * float(np.finfo(dtype).eps)
    typical = float(np.median(np.abs(quantiles)))
    merged = quantiles.copy()
    start = 0
    while start < len(merged):
        width = step * (typical + abs(merged[start]))
        stop = max(start + 1, int(np.searchsorted(merged, merged[start] + width, side="right")))
        merged[start:stop] = merged[start:stop].mean()
        start = stop
    return merged


def _mean_excess(ascending: Floats) -> float:
    """Mean excess of the largest tenth over its lowest score; positive."""
    size = max(1, int(_TAIL * len(ascending)))
    begin = ascending[-size - 1] if size < len(ascending) else ascending[0]
    excess = float((ascending[-size:] - begin).mean())
    # A tail without spread uses the spread of all scores; if there is none either, use 1.
    return excess or float(ascending.std()) or 1.0
