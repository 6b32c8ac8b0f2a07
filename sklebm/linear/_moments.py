r"""Streaming mean and covariance: exact for any chunking.

With n rows of mean m and scatter S = sum (x - m)(x - m)', and a chunk (n', m', S'):
m <- m + n'/(n + n') (m' - m),  S <- S + S' + n n'/(n + n') (m' - m)(m' - m)'
(Chan, Golub & LeVeque, 1983, "Algorithms for computing the sample variance").
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg.blas import dsyrk
from torch import Tensor

from sklebm._shell.ranks import Ranks
from sklebm._shell.rows import Rows, chunk_size

# A chunk of this size is still in the caches when its product is formed, and long enough for it.
_CHUNK_FLOATS = 800_000


class Moments(NamedTuple):
    """Sufficient statistics of a Gaussian: number of rows, mean (d,), scatter (d, d)."""

    n_rows: int
    mean: Tensor
    scatter: Tensor


def empty_moments(n_features: int, device: torch.device) -> Moments:
    """Statistics of no rows, in the double precision that whitening needs."""
    return Moments(
        0,
        torch.zeros(n_features, dtype=torch.float64, device=device),
        torch.zeros(n_features, n_features, dtype=torch.float64, device=device),
    )


def stream_moments(rows: Rows, moments: Moments) -> Moments:
    """Add the rows of all ranks to the statistics; returns new ones. O(n d^2)."""
    add = _moments_on_host if rows.device.type == "cpu" else _moments_on_device
    return _joined(moments, _over_ranks(rows.ranks, add(rows)))


def _over_ranks(ranks: Ranks, own: Moments) -> Moments:
    """Statistics of the rows of all ranks, from those of each."""
    if ranks.size == 1:
        return own
    n_rows = int(ranks.total(own.n_rows))
    mean = ranks.sum(own.n_rows * own.mean) / n_rows
    gap = own.mean - mean
    return Moments(n_rows, mean, ranks.sum(own.scatter + own.n_rows * torch.outer(gap, gap)))


def _joined(one: Moments, other: Moments) -> Moments:
    """Statistics of both sets of rows."""
    n_rows = one.n_rows + other.n_rows
    gap = other.mean - one.mean
    scatter = one.scatter + other.scatter
    scatter.addr_(gap, gap, alpha=one.n_rows * other.n_rows / n_rows)
    return Moments(n_rows, one.mean + gap * (other.n_rows / n_rows), scatter)


def _moments_on_device(rows: Rows) -> Moments:
    moments = empty_moments(rows.shape[1], rows.device)
    step = chunk_size(len(rows), floats_per_row=3 * rows.shape[1])
    for start in range(0, len(rows), step):
        x = rows[start : start + step]
        mean = x.mean(dim=0, dtype=torch.float64)
        x = x - mean  # in double precision
        moments = _joined(moments, Moments(len(x), mean, x.T @ x))
    return moments


def _moments_on_host(rows: Rows) -> Moments:
    """Sums around a point close to the mean, in a triangle that BLAS adds to.

    Without torch: its threads spin for a while after every call, and BLAS would wait for the
    cores. ``syrk`` computes one triangle only, half of the work of a product.
    """
    n_rows, n_features = rows.shape
    # Evenly spaced rows, for sorted ones begin far from their mean.
    origin = rows[:: max(n_rows // 1000, 1)].double().mean(dim=0).numpy()
    step = min(n_rows, max(256, _CHUNK_FLOATS // n_features))
    buffer = np.empty((step, n_features))
    total, scatter = np.zeros(n_features), np.zeros((n_features, n_features), order="F")
    for start in range(0, n_rows, step):
        x = rows[start : start + step].numpy()
        centred = np.subtract(x, origin, out=buffer[: len(x)])
        total += centred.sum(axis=0)
        scatter = dsyrk(1.0, centred.T, beta=1.0, c=scatter, lower=True, overwrite_c=True)
    gap = total / n_rows
    scatter -= n_rows * np.outer(gap, gap)
    scatter = np.tril(scatter) + np.tril(scatter, -1).T
    return Moments(n_rows, torch.from_numpy(origin + gap), torch.from_numpy(scatter))


def covariance_of(moments: Moments) -> Tensor:
    """Covariance (divisor n - 1). Features that moved by no more than rounding did not move."""
    covariance = moments.scatter / max(moments.n_rows - 1, 1)
    rounding = 4 * torch.finfo(torch.float64).eps * moments.mean.abs()
    still = covariance.diagonal() <= rounding.square()
    return covariance.masked_fill(still | still[:, None], 0.0)
