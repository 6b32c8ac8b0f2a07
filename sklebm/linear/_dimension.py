r"""How many principal components the rows support, by evidence or by held-out density.

Evidence: log p(X | k) by Laplace's approximation over the orthonormal frames of k directions
(Minka, 2000, "Automatic choice of dimensionality for PCA", eq. 77).
Held-out: the log density under probabilistic PCA of rows that the directions were not fitted to,
for every k at once, since sum_(i > k) z_i^2 are cumulative sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.special import gammaln
from torch import Tensor

_N_FOLDS = 5
_RELATIVE_FLOOR = 1e-6


def by_evidence(variances: Any, n_features: int, n_rows: float) -> int:
    """The k < d with the largest approximate evidence, given descending variances. O(d^2)."""
    leading = variances[variances > 0]
    most = len(leading) - 1  # something must be left for the noise
    if most < 1:
        return 1
    every = np.zeros(n_features)
    every[: len(leading)] = leading
    k = np.arange(1, most + 1)
    n_free = n_features * k - k * (k + 1) / 2
    halves = (n_features - k + 1) / 2
    log_frames = np.cumsum(gammaln(halves) - halves * np.log(np.pi)) - k * np.log(2.0)
    logs, left = np.log(leading).cumsum()[:most], leading.sum() - leading.cumsum()[:most]
    noise = np.maximum(left, 0.0) / (n_features - k)
    with np.errstate(divide="ignore", invalid="ignore"):
        # |A| is a product over pairs i < j of (1/v_j - 1/v_i) (l_i - l_j) n, where v_j is l_j up to
        # k and the noise beyond it.
        gaps = np.log(every[:most, None] - every)
        gaps[np.tril_indices(most, 0, n_features)] = 0.0
        inside = gaps[:, :most].sum(axis=0).cumsum() - (k - 1) * logs
        across = np.log(1 / noise[:, None] - 1 / leading[:most])
        across = (n_features - k) * np.where(k > k[:, None], 0.0, across).sum(axis=1)
        log_curvature = gaps.sum(axis=1).cumsum() + inside + across + n_free * np.log(n_rows)
        evidence = log_frames - 0.5 * n_rows * (logs + (n_features - k) * np.log(noise))
        evidence += 0.5 * (n_free + k) * np.log(2 * np.pi) - 0.5 * log_curvature
        evidence -= 0.5 * k * np.log(n_rows)
    # If nothing is left over, or equal variances would have to be told apart, there is no evidence.
    return int(k[np.argmax(np.where(np.isfinite(evidence), evidence, -np.inf))])


def by_held_out_density(x: Tensor, weights: Tensor | None, most: int) -> int:
    """The k with the highest density of held-out rows, over five interleaved folds."""
    mass = torch.ones(len(x), dtype=x.dtype) if weights is None else weights.cpu()
    x, mass = x[mass > 0], mass[mass > 0]
    n_folds = min(_N_FOLDS, len(x) // 2)
    if n_folds < 2:
        return 1
    fold = torch.arange(len(x)) % n_folds
    total = sum(
        _held_out(x[fold != f], mass[fold != f], x[fold == f], mass[fold == f], most)
        for f in range(n_folds)
    )
    return 1 + int(np.argmax(total))


def _held_out(x: Tensor, mass: Tensor, test: Tensor, test_mass: Tensor, most: int) -> Any:
    """Sum of the held-out log densities for k = 1 ... most, (most,)."""
    n_features = x.shape[1]
    whole = float(mass.sum())
    mean = mass @ x / whole
    centred = (x - mean) * mass.sqrt()[:, None]
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    variances = singular.square() / max(whole - 1, 1)
    gaps = test - mean
    squares = test_mass @ (gaps @ directions.T).square()
    everything = float(test_mass @ gaps.square().sum(dim=1))
    k = torch.arange(1, most + 1)
    floor = _RELATIVE_FLOOR * float(variances.sum()) / n_features or 1e-12
    padded = torch.zeros(max(most, len(variances)), dtype=x.dtype)
    padded[: len(variances)] = variances
    seen = torch.zeros_like(padded)
    seen[: len(squares)] = squares
    left = (variances.sum() - padded.cumsum(0)[:most]).clamp(min=0.0)
    n_left = (n_features - k).to(x)
    noise = (left / n_left.clamp(min=1)).clamp(min=floor)
    outside = (everything - seen.cumsum(0)[:most]).clamp(min=0.0)
    modelled = padded[:most].clamp(min=floor)
    held = float(test_mass.sum())
    energy = (seen[:most] / modelled).cumsum(0) + torch.where(n_left > 0, outside / noise, 0.0)
    volume = modelled.log().cumsum(0) + n_left * noise.log()
    return (-0.5 * (energy + held * volume)).numpy()
