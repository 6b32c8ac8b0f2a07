r"""E[x_u | x_o] under a Gaussian mixture: the unknown features given the observed ones.

Each component's energy, minimised over x_u, gives m_u + S_uo S_oo^-1 (x_o - m_o); the conditional
mean weighs these minimisers with the posteriors p(k | x_o) of the observed features alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sklebm.energies import GaussianMixture


def conditional_mean(mixture: GaussianMixture, x: Tensor, missing: Tensor) -> Tensor:
    """Rows of ``x`` with the entries where ``missing`` holds replaced; the others untouched.

    What ``x`` holds at the missing entries is not used. O(K d^3) for each different pattern of
    missing entries, plus O(n K d^2).
    """
    completed = x.clone()
    patterns, which = torch.unique(missing, dim=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        if bool(pattern.any()):
            rows = (which == index).nonzero()
            known, unknown = (~pattern).nonzero().flatten(), pattern.nonzero().flatten()
            fill = _complete(mixture, x[rows, known], known, unknown)
            completed[rows, unknown] = fill
    return completed


def _complete(mixture: GaussianMixture, x: Tensor, known: Tensor, unknown: Tensor) -> Tensor:
    """The unknown features of rows that share one pattern, (n_rows, n_unknown)."""
    gaps = x[None] - mixture.means[:, None, known]
    if mixture.covariance_type in ("full", "tied"):
        energies, minimisers = _correlated(mixture, gaps, known, unknown)
    else:
        variances = mixture.covariances
        if mixture.covariance_type == "spherical":
            variances = variances[:, None].expand_as(mixture.means)
        kept = variances[:, known]
        energies = 0.5 * (gaps.square() / kept[:, None]).sum(dim=2)
        energies = energies + 0.5 * kept.log().sum(dim=1, keepdim=True)
        minimisers = mixture.means[:, None, unknown].expand(-1, len(x), -1)
    # The number of known features is the same for all components: 2 pi cancels.
    posterior = torch.softmax(mixture.weights.log()[:, None] - energies, dim=0)
    return (posterior[:, :, None] * minimisers).sum(dim=0)


def _correlated(
    mixture: GaussianMixture, gaps: Tensor, known: Tensor, unknown: Tensor
) -> tuple[Tensor, Tensor]:
    """Energies (K, n_rows) of the known features and minimisers (K, n_rows, n_unknown)."""
    covariances = mixture.covariances
    if mixture.covariance_type == "tied":
        covariances = covariances[None]
    rows = covariances[:, known]
    lower = torch.linalg.cholesky(rows[:, :, known])
    white = torch.linalg.solve_triangular(lower, gaps.mT, upper=False)
    loads = torch.linalg.solve_triangular(lower, rows[:, :, unknown], upper=False)
    log_determinant = lower.diagonal(dim1=1, dim2=2).log().sum(dim=1, keepdim=True)
    energies = 0.5 * white.square().sum(dim=1) + log_determinant
    return energies, mixture.means[:, None, unknown] + white.mT @ loads
