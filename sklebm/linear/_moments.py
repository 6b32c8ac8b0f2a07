r"""Streaming mean and covariance: exact for any chunking.

With n rows of mean m and scatter S = sum (x - m)(x - m)', and a chunk (n', m', S'):
m <- m + n'/(n + n') (m' - m),  S <- S + S' + n n'/(n + n') (m' - m)(m' - m)'
(Chan, Golub & LeVeque, 1983, "Algorithms for computing the sample variance").
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


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


def update_moments(moments: Moments, x: Tensor) -> Moments:
    """Add the rows of ``x``; returns new statistics and leaves the old ones as they were."""
    x = x.double()
    n_new = len(x)
    n_rows = moments.n_rows + n_new
    mean_new = x.mean(dim=0)
    centred = x - mean_new
    gap = mean_new - moments.mean
    scatter = torch.addmm(moments.scatter, centred.T, centred)
    scatter.addr_(gap, gap, alpha=moments.n_rows * n_new / n_rows)
    return Moments(n_rows, moments.mean + gap * (n_new / n_rows), scatter)
