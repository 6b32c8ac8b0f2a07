"""Linear energies: quadratic forms by direct solves."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.entries import Entry


def gaussian_free_energy(model: Any, X: Any) -> Any:
    """Half the squared Mahalanobis distance, by a solve with the whole covariance."""
    centred = np.asarray(X, np.float64) - model.mean_
    covariance = (1 - model.shrinkage_) * model.covariance_ + model.ridge_ * np.eye(
        len(model.mean_)
    )
    return 0.5 * np.einsum("nd,dn->n", centred, np.linalg.solve(covariance, centred.T))


def projection_free_energy(model: Any, X: Any) -> Any:
    """Half the squared distance to the plane, by least squares."""
    centred = np.asarray(X, np.float64) - model.mean_
    codes = np.linalg.lstsq(model.components_.T, centred.T, rcond=None)[0]
    return 0.5 * np.square(centred - codes.T @ model.components_).sum(axis=1)


def subspace_free_energy(model: Any, X: Any) -> Any:
    """Softened norms of the groups in units of their scales, and what no filter sees as noise."""
    centred = np.asarray(X, np.float64) - model.mean_
    sources = np.linalg.lstsq(model.mixing_ / model.scale_[:, None], (centred / model.scale_).T)[0]
    starts = np.arange(0, len(sources), model.group_size)
    squares = np.add.reduceat(sources**2, starts) / model.group_scales_[:, None] ** 2
    missed = (centred - (model.mixing_ @ sources).T) / model.scale_
    noise = 0.5 * (missed**2).sum(axis=1) / model.noise_variance_ if model.noise_variance_ else 0.0
    return np.sqrt(model.eps + squares).sum(axis=0) + noise


def precision_free_energy(model: Any, X: Any) -> Any:
    """Half the squared Mahalanobis distance, by the covariance instead of the precision."""
    centred = np.asarray(X, np.float64) - model.location_
    return 0.5 * np.einsum("nd,dn->n", centred, np.linalg.solve(model.covariance_, centred.T))


ENTRIES: dict[str, Entry] = {
    "EnergyPCA": Entry(
        quick={"n_components": 0.9},  # of the variance, which tables of any width have
        variants=(
            {"n_components": 2, "shrinkage": 0.1},
            {"n_components": None, "shrinkage": "ledoit_wolf"},
            {"n_components": "mle"},
        ),
        free_energy=projection_free_energy,
        normalised={"form": "probabilistic"},
    ),
    "GaussianEnergy": Entry(
        variants=(
            {"structure": "diagonal"},
            {"structure": "banded"},
            {"structure": "banded", "objective": "score_matching", "ridge": 0.1},
            {"structure": "diagonal", "objective": "noise_contrastive", "random_state": 0},
        ),
        seeded={"objective": "conditional_noise_contrastive"},
        free_energy=precision_free_energy,
    ),
    "PCAWhitener": Entry(
        variants=(
            {"n_components": 1},
            {"n_components": 0.8, "ridge": 0.1},
            {"shrinkage": "ledoit_wolf"},
            {"n_components": "mle", "shrinkage": "oas"},
        ),
        free_energy=gaussian_free_energy,
    ),
    "SubspaceICA": Entry(
        # Sums in other chunks round otherwise; where a solver stops must not show it.
        quick={"group_size": 2, "tol": 1e-9, "random_state": 0},
        variants=(
            # scikit-learn's checks have tables of one column, which bounds filters and maps
            {"n_components": 1, "density": "log_cosh"},
            {"group_size": 4, "density": "student_t", "orthogonal": False},
            {"group_size": 1, "density": "logistic", "n_init": 2, "batch_size": 40},
            {"topography": (1, 1)},
        ),
        free_energy=subspace_free_energy,
    ),
    "ZCAWhitener": Entry(
        variants=(
            {"n_components": 1},
            {"n_components": 0.8, "ridge": 0.1},
            {"shrinkage": "ledoit_wolf"},
            {"ridge": 0.0},
        ),
        free_energy=gaussian_free_energy,
    ),
}
