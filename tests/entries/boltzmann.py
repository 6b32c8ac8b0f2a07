"""Boltzmann machines: hidden units summed out."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.entries import Entry


def bernoulli_free_energy(model: Any, X: Any) -> Any:
    """-b'v - sum_j log(1 + exp(c_j + w_j'v))."""
    v = np.asarray(X, np.float64)
    inputs = model.intercept_hidden_ + v @ model.components_.T.astype(np.float64)
    return -(v @ model.intercept_visible_) - np.logaddexp(0.0, inputs).sum(axis=1)


def gaussian_rbm_free_energy(model: Any, X: Any) -> Any:
    """|x - a|^2 / 2 s^2 - sum_k log(1 + exp(c_k + w_k'x / s^2))."""
    x, variance = np.asarray(X, np.float64), np.exp(model.log_variance_.astype(np.float64))
    inputs = model.intercept_hidden_ + (x / variance) @ model.components_.T.astype(np.float64)
    quadratic = 0.5 * ((x - model.intercept_visible_) ** 2 / variance).sum(axis=1)
    return quadratic - np.logaddexp(0.0, inputs).sum(axis=1)


ENTRIES: dict[str, Entry] = {
    "BernoulliRBM": Entry(
        quick={
            "n_components": 8,
            "learning_rate": 0.5,
            "batch_size": 10,
            "max_epochs": 40,
            "random_state": 0,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {
                "objective": "pseudo_likelihood",
                "centering": False,
                "n_components": 6,
                "max_epochs": 5,
            },
            {"objective": "tempered_pcd", "n_components": 4, "max_epochs": 3},
        ),
        free_energy=bernoulli_free_energy,
    ),
    "GaussianRBM": Entry(
        quick={"n_components": 8, "batch_size": 20, "max_epochs": 30, "random_state": 0},
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            # Few hidden units: the default estimator anneals after each fit, and once is enough.
            {"variance": "diagonal", "objective": "cd", "n_components": 6},
            {
                "variance": 0.05,
                "objective": "tempered_pcd",
                "centering": False,
                "n_components": 6,
            },
            {"objective": "score_matching", "learning_rate": 0.01, "n_components": 6},
            {"objective": "maximum_likelihood", "n_components": 4},
        ),
        free_energy=gaussian_rbm_free_energy,
    ),
}
