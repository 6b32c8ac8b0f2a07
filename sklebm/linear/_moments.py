r"""Streaming mean and covariance: exact for any chunking.

With n rows of mean m and scatter S = sum (x - m)(x - m)', and a chunk (n', m', S'):
m <- m + n'/(n + n') (m' - m),  S <- S + S' + n n'/(n + n') (m' - m)(m' - m)'
(Chan, Golub & LeVeque, 1983, "Algorithms for computing the sample variance").
With fewer rows than features, the scatter is kept as a factor, S = R'R, with one row of R for each
row of X: a d x d matrix is formed only once it is the smaller one. A weight of w counts as w copies
of a row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg.blas import dsyrk
from torch import Tensor

from sklebm._shell.ranks import Ranks
from sklebm._shell.rows import Rows, chunk_size

# Chunks of this size are still in the cache when their product is formed, yet long enough for it.
_CHUNK_FLOATS = 800_000


class Moments(NamedTuple):
    """Sufficient statistics of a Gaussian: sum of weights, mean (d,), scatter (d, d)."""

    n_rows: float
    mean: Tensor
    scatter: Tensor


class RowMoments(NamedTuple):
    """The same, with the scatter R'R given by its factor R, (fewer than d, d)."""

    n_rows: float
    mean: Tensor
    factor: Tensor


def empty_moments(n_features: int, device: torch.device) -> Moments:
    """Statistics of no rows, in the double precision that whitening needs."""
    return Moments(
        0,
        torch.zeros(n_features, dtype=torch.float64, device=device),
        torch.zeros(n_features, n_features, dtype=torch.float64, device=device),
    )


def empty_row_moments(n_features: int, device: torch.device) -> RowMoments:
    """Statistics of no rows, without a d x d matrix."""
    zeros = torch.zeros(1, n_features, dtype=torch.float64, device=device)
    return RowMoments(0, zeros[0], zeros[:0])


def stream_moments(rows: Rows, moments: Moments, weights: Tensor | None = None) -> Moments:
    """Add the rows of all ranks to the statistics; returns new statistics. O(n d^2)."""
    add = _moments_on_host if rows.device.type == "cpu" else _moments_on_device
    return _joined(moments, _over_ranks(rows.ranks, add(rows, weights)))


def add_rows(
    rows: Rows, before: Moments | RowMoments, weights: Tensor | None = None
) -> Moments | RowMoments:
    """Add rows; the scatter stays factored while it has fewer rows than X has columns."""
    n_features = rows.shape[1]
    if isinstance(before, RowMoments):
        n_new = len(rows) if weights is None else int((weights > 0).sum())
        if len(before.factor) + int(rows.ranks.total(n_new)) < n_features:
            return _joined_rows(before, _own_rows(rows, weights))
        before = Moments(before.n_rows, before.mean, before.factor.T @ before.factor)
    return stream_moments(rows, before, weights)


def _own_rows(rows: Rows, weights: Tensor | None) -> RowMoments:
    """The centred rows of all ranks as a factor."""
    x = rows.all().double()
    if weights is not None:
        x, weights = x[weights > 0], weights[weights > 0]
    mass = torch.ones(len(x), dtype=x.dtype, device=x.device) if weights is None else weights
    n_rows = float(mass.sum())
    mean = mass @ x / max(n_rows, 1e-300)
    x = x - mean
    # The mean of numbers far from zero is rounded: average again, around the first result.
    shift = mass @ x / max(n_rows, 1e-300)
    factor = (x - shift) * mass.sqrt()[:, None]
    own = RowMoments(n_rows, mean + shift, factor)
    if rows.ranks.size == 1:
        return own
    total = rows.ranks.total(n_rows)
    mean = rows.ranks.sum(n_rows * own.mean) / total
    gap = n_rows**0.5 * (own.mean - mean)
    return RowMoments(total, mean, rows.ranks.concat(torch.cat([factor, gap[None]])))


def _joined_rows(one: RowMoments, other: RowMoments) -> RowMoments:
    """Statistics of both sets of rows."""
    if not one.n_rows:
        return other
    n_rows = one.n_rows + other.n_rows
    gap = other.mean - one.mean
    between = (one.n_rows * other.n_rows / n_rows) ** 0.5 * gap
    factor = torch.cat([one.factor, other.factor, between[None]])
    return RowMoments(n_rows, one.mean + gap * (other.n_rows / n_rows), factor)


def _over_ranks(ranks: Ranks, own: Moments) -> Moments:
    """Statistics of the rows of all ranks, from those of each rank."""
    if ranks.size == 1:
        return own
    n_rows = ranks.total(own.n_rows)
    mean = ranks.sum(own.n_rows * own.mean) / max(n_rows, 1e-300)
    gap = own.mean - mean
    return Moments(n_rows, mean, ranks.sum(own.scatter + own.n_rows * torch.outer(gap, gap)))


def _joined(one: Moments, other: Moments) -> Moments:
    """Statistics of both sets of rows."""
    n_rows = one.n_rows + other.n_rows
    if not n_rows:
        return other
    gap = other.mean - one.mean
    scatter = one.scatter + other.scatter
    scatter.addr_(gap, gap, alpha=one.n_rows * other.n_rows / n_rows)
    return Moments(n_rows, one.mean + gap * (other.n_rows / n_rows), scatter)


def _moments_on_device(rows: Rows, weights: Tensor | None) -> Moments:
    moments = empty_moments(rows.shape[1], rows.device)
    step = chunk_size(len(rows), floats_per_row=3 * rows.shape[1])
    for start in range(0, len(rows), step):
        x = rows[start : start + step]
        if weights is None:
            mean = x.mean(dim=0, dtype=torch.float64)
            x = x - mean  # in double precision
            moments = _joined(moments, Moments(len(x), mean, x.T @ x))
            continue
        mass = weights[start : start + step]
        n_rows = float(mass.sum())
        mean = mass @ x.double() / max(n_rows, 1e-300)
        x = x - mean
        moments = _joined(moments, Moments(n_rows, mean, (x * mass[:, None]).T @ x))
    return moments


def _moments_on_host(rows: Rows, weights: Tensor | None) -> Moments:
    """Sums around a point close to the mean, in a triangle that BLAS accumulates into.

    Torch is avoided here: its threads spin for a while after every call, and BLAS would wait for
    the cores. ``syrk`` computes only one triangle, half the work of a full product.
    """
    n_rows, n_features = rows.shape
    # Evenly spaced rows, because sorted rows begin far from their mean.
    origin = _central_point(rows, weights).numpy()
    step = min(n_rows, max(256, _CHUNK_FLOATS // n_features))
    buffer = np.empty((step, n_features))
    total, scatter = np.zeros(n_features), np.zeros((n_features, n_features), order="F")
    for start in range(0, n_rows, step):
        x = rows[start : start + step].numpy()
        centred = np.subtract(x, origin, out=buffer[: len(x)])
        if weights is None:
            total += centred.sum(axis=0)
        else:
            mass = weights[start : start + step].numpy()
            total += mass @ centred
            centred *= np.sqrt(mass)[:, None]
        scatter = dsyrk(1.0, centred.T, beta=1.0, c=scatter, lower=True, overwrite_c=True)
    mass_of_all = n_rows if weights is None else float(weights.sum())
    gap = total / max(mass_of_all, 1e-300)
    scatter -= mass_of_all * np.outer(gap, gap)
    scatter = np.tril(scatter) + np.tril(scatter, -1).T
    return Moments(mass_of_all, torch.from_numpy(origin + gap), torch.from_numpy(scatter))


def _central_point(rows: Rows, weights: Tensor | None) -> Tensor:
    """The mean of some rows, in which rows of no weight, which may be anywhere, do not count."""
    step = max(len(rows) // 1000, 1)
    some = rows[::step].double()
    if weights is None:
        return some.mean(dim=0)
    mass = weights[::step]
    if not bool(mass.any()):
        heaviest = int(weights.argmax())
        return rows[heaviest : heaviest + 1].double()[0]
    counts = mass > 0
    return mass[counts] @ some[counts] / mass.sum()


def freedom(n_rows: float) -> float:
    """The divisor of a covariance: n - 1, or for little weight one row, or all that there is."""
    return max(n_rows - 1.0, min(n_rows, 1.0)) or 1.0


def covariance_of(moments: Moments) -> Tensor:
    """Covariance (divisor n - 1). Features that vary only by rounding get variance zero."""
    covariance = moments.scatter / freedom(moments.n_rows)
    still = stands_still(covariance.diagonal(), moments.mean)
    return covariance.masked_fill(still | still[:, None], 0.0)


def covariance_factor_of(moments: RowMoments) -> tuple[Tensor, Tensor]:
    """F with covariance F'F, and its diagonal. Features that vary only by rounding get zero."""
    factor = moments.factor / freedom(moments.n_rows) ** 0.5
    variances = torch.einsum("nd,nd->d", factor, factor)
    still = stands_still(variances, moments.mean)
    if bool(still.any()):
        factor, variances = factor.masked_fill(still, 0.0), variances.masked_fill(still, 0.0)
    return factor, variances


def stands_still(variances: Tensor, mean: Tensor) -> Tensor:
    """Which features vary by no more than the rounding of their mean."""
    rounding = 4 * torch.finfo(torch.float64).eps * mean.abs()
    return variances <= rounding.square()
