"""Boltzmann machines: hidden units summed out."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm

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


def gated_free_energy(model: Any, X: Any) -> Any:
    """-log p(y | x): each hidden state is a Gaussian around c + sum_k z_k W_k'x, with its mass."""
    u = (np.asarray(X, np.float64) - model.offset_) / model.scale_
    x, y = u[:, : model.n_left_], u[:, model.n_left_ :]
    tensor, c, d = (
        np.asarray(values, np.float64)
        for values in (model.components_, model.intercept_right_, model.intercept_hidden_)
    )
    log_masses, log_densities = [], []
    for z in product((0.0, 1.0), repeat=len(d)):
        means = c + np.einsum("k,kij,ni->nj", z, tensor, x)
        log_masses.append(d @ z + 0.5 * ((means**2).sum(axis=1) - c @ c))
        log_densities.append(norm.logpdf(y, means).sum(axis=1))
    log_weights = np.array(log_masses) - logsumexp(log_masses, axis=0)
    log_volume = np.log(model.scale_[model.n_left_ :]).sum()
    return log_volume - logsumexp(log_weights + log_densities, axis=0)


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
    "GatedBM": Entry(
        quick={
            "n_components": 4,
            "learning_rate": 0.1,
            "batch_size": 60,
            "max_epochs": 10,
            "random_state": 0,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"n_components": 18, "n_factors": 5, "n_annealing_steps": 5, "max_epochs": 5},
            {
                "conditional": False,
                "n_components": 3,
                "objective": "pcd",
                "n_factors": 4,
                "max_epochs": 5,
            },
            {"conditional": False, "likelihood": "bernoulli", "max_epochs": 5},
            {"likelihood": "bernoulli", "split": 1, "objective": "cd", "max_epochs": 5},
        ),
        free_energy=gated_free_energy,
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
