"""Boltzmann machines: hidden units summed out."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp

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


def pairwise_free_energy(model: Any, X: Any) -> Any:
    """-log sum_h exp(1/2 s'Ws + b's) with s = (x, h), state by state of the hidden units."""
    v, n_hidden = np.asarray(X, np.float64), len(model.intercept_hidden_)
    W, b = np.float64(model.couplings_), [model.intercept_visible_, model.intercept_hidden_]
    terms = []
    for number in range(2**n_hidden):
        h = [number >> k & 1 for k in range(n_hidden)]
        s = np.hstack([v, np.tile(np.float64(h), (len(v), 1))])
        terms.append(0.5 * np.einsum("ni,ij,nj->n", s, W, s) + s @ np.concatenate(b))
    return -logsumexp(terms, axis=0)


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
    "BoltzmannMachine": Entry(
        quick={"learning_rate": 0.3, "batch_size": 20, "max_epochs": 20, "random_state": 0},
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"n_components": 3, "structure": "grid", "objective": "pcd"},
            {"n_components": 2, "objective": "minimum_probability_flow", "centering": False},
        ),
        free_energy=pairwise_free_energy,
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
