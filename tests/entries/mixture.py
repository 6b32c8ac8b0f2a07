"""Mixtures: sums over the components."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from tests.entries import Entry


def prototype_free_energy(model: Any, X: Any) -> Any:
    """-1/beta log sum_k exp(-beta |x - w_k|^2), from the differences."""
    gaps = np.asarray(X, np.float64)[:, None] - model.cluster_centers_.astype(np.float64)
    return -logsumexp(-model.beta_ * (gaps**2).sum(axis=2), axis=1) / model.beta_


def mixture_free_energy(model: Any, X: Any) -> Any:
    """-log sum_k w_k N(x; m_k, diag v_k), from scipy's densities."""
    components = zip(model.weights_, model.means_, model.covariances_, strict=True)
    terms = [
        np.log(weight) + multivariate_normal(mean, np.diag(variances)).logpdf(X)
        for weight, mean, variances in components
    ]
    return -logsumexp(terms, axis=0)


ENTRIES: dict[str, Entry] = {
    "EnergyGaussianMixture": Entry(
        quick={"n_components": 4, "covariance_type": "diag", "random_state": 0},
        untrained={"max_iter": 1, "init": "random"},
        variants=(
            {"n_components": 3, "covariance_type": "full", "n_init": 2},
            {"n_components": 3, "covariance_type": "tied", "batch_size": 16},
            {"n_components": 3, "covariance_type": "spherical", "init": "random"},
        ),
        free_energy=mixture_free_energy,
        # (x - m)^2 / v is expanded, as in scikit-learn: terms of 1e6 / reg_covar = 1e12 cancel.
        rounding=1e-4,
    ),
    "EnergyKMeans": Entry(
        quick={"n_clusters": 4, "random_state": 0},
        untrained={"max_iter": 1},
        variants=(
            {"output": "onehot"},
            {"output": "responsibility"},
            {"output": "triangle"},
            {"n_init": 3, "tol": 0.0},
            {"batch_size": 40},
        ),
        free_energy=prototype_free_energy,
    ),
}
