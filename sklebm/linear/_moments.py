r"""Streaming mean and covariance: exact for any chunking.

With n rows of mean m and scatter S = sum (x - m)(x - m)', and a chunk (n', m', S'):
m <- m + n'/(n + n') (m' - m),  S <- S + S' + n n'/(n + n') (m' - m)(m' - m)'
(Chan, Golub & LeVeque, 1983, "Algorithms for computing the sample variance").
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sklebm._rows import Rows, chunk_size

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
    """Add all rows, chunk by chunk."""
    n_features = rows.shape[1]
    step = chunk_size(len(rows), floats_per_row=3 * n_features)
    if rows.device.type == "cpu":
        step = min(step, max(256, _CHUNK_FLOATS // n_features))
    for start in range(0, len(rows), step):
        moments = update_moments(moments, rows[start : start + step])
    return moments


def update_moments(moments: Moments, x: Tensor) -> Moments:
    """Add the rows of ``x``; returns new statistics and leaves the old ones as they were."""
    n_new = len(x)
    n_rows = moments.n_rows + n_new
    mean_new = x.mean(dim=0, dtype=torch.float64)
    gap = mean_new - moments.mean
    scatter = _gram(x - mean_new).add_(moments.scatter)  # the difference is in double precision
    scatter.addr_(gap, gap, alpha=moments.n_rows * n_new / n_rows)
    return Moments(n_rows, moments.mean + gap * (n_new / n_rows), scatter)


def covariance_of(moments: Moments) -> Tensor:
    """Covariance (divisor n - 1). Features that moved by no more than rounding did not move."""
    covariance = moments.scatter / max(moments.n_rows - 1, 1)
    rounding = 4 * torch.finfo(torch.float64).eps * moments.mean.abs()
    still = covariance.diagonal() <= rounding.square()
    return covariance.masked_fill(still | still[:, None], 0.0)


def _gram(x: Tensor) -> Tensor:
    """X'X. NumPy computes one triangle only, half of the work, where torch computes both."""
    if x.device.type != "cpu":
        return x.T @ x
    array = x.numpy()
    return torch.from_numpy(array.T @ array)
