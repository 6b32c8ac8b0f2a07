r"""C = U L U': eigenvalues of a covariance, the small ones as exact as the large ones.

The rounding of ``eigh`` is relative to the largest eigenvalue: a variance of 1e-9 times the
largest keeps seven digits. In the subspace B of small variances the covariance B' C B is small
itself, and ``eigh`` is exact relative to that. B first loses its rounding along the other
directions A, to first order in it: B <- B - A L_A^-1 (A' C B).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Variances below such a fraction of the largest are computed again among themselves, if some are
# so much smaller still that their last digits are at stake.
_LEVELS = (1e-3, 1e-6)
_AT_STAKE = 1e-3


def principal_axes(covariance: Tensor, resolution: float) -> tuple[Tensor, Tensor]:
    """Return variances (d,), descending, and orthonormal directions (d, d), one a row.

    Variances below ``resolution`` times the largest are rounding and returned as exactly 0.
    """
    variances, vectors = _eigh(covariance)
    largest = float(variances[-1])
    tolerance = resolution * largest
    for level in _LEVELS:
        kept = variances[variances > tolerance]
        if len(kept) and float(kept[0]) < _AT_STAKE * level * largest:
            n_small = int((variances < level * largest).sum())
            variances, vectors = _refine(covariance, variances, vectors, n_small)
    variances = torch.where(variances > tolerance, variances, 0.0)
    return variances.flip(0), vectors.flip(1).T


def _eigh(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors. NumPy's LAPACK takes half the time of torch's."""
    if symmetric.device.type != "cpu":
        values, vectors = torch.linalg.eigh(symmetric)
        return values, vectors
    arrays = np.linalg.eigh(symmetric.numpy())
    return torch.from_numpy(arrays[0]), torch.from_numpy(arrays[1])


def _refine(
    covariance: Tensor, variances: Tensor, vectors: Tensor, n_small: int
) -> tuple[Tensor, Tensor]:
    """Solve again within the first ``n_small`` columns of ``vectors``, those of least variance."""
    small, large = vectors[:, :n_small], vectors[:, n_small:]
    leak = (large.T @ (covariance @ small)) / variances[n_small:, None]
    small, _ = torch.linalg.qr(small - large @ leak)
    projected = small.T @ (covariance @ small)
    exact, rotation = _eigh((projected + projected.T) / 2)
    return torch.cat([exact, variances[n_small:]]), torch.cat([small @ rotation, large], dim=1)
