"""Conditional energies: networks of rows and targets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import logsumexp

from sklebm.inference.langevin import Langevin
from sklebm.objectives import PersistentContrastiveDivergence
from tests.entries import Entry


def silu_network(model: Any, X: Any) -> Any:
    """The outputs of affine maps with x / (1 + e^-x) between them, on standardised rows."""
    h = np.asarray(X, np.float64)
    if model.scale_ is not None:
        h = (h - model.offset_) / model.scale_
    numbers = sorted(int(name.split(".")[1]) for name in model.weights_ if name.endswith(".bias"))
    for number in numbers:
        h = h / (1.0 + np.exp(-h)) if number != numbers[0] else h
        h = h @ model.weights_[f"network.{number}.weight"].T.astype(np.float64)
        h = h + model.weights_[f"network.{number}.bias"]
    return h


def label_free_energy(model: Any, X: Any) -> Any:
    """-1/beta log sum_y exp(beta f_y(x))."""
    return -logsumexp(model.beta_ * silu_network(model, X), axis=1) / model.beta_


def target_free_energy(model: Any, X: Any) -> Any:
    """-log int exp(-|g|^2 / 2 - f(x, g)) dy, by a sum over 4,001 points."""
    X = np.asarray(X, np.float64)
    g = np.linspace(-model.reach_, model.reach_, 4001)
    first = model.weights_["network.0.weight"].astype(np.float64)
    u = (X - model.offset_) / model.scale_
    found = []
    for row in u:
        h = row @ first[:, :-1].T + g[:, None] * first[:, -1] + model.weights_["network.0.bias"]
        h = h / (1.0 + np.exp(-h))
        f = h @ model.weights_["network.2.weight"][0] + model.weights_["network.2.bias"][0]
        found.append(-logsumexp(-0.5 * g**2 - f))
    return np.array(found) - np.log((g[1] - g[0]) * model.residual_scale_[0])


def branch_free_energy(model: Any, X: Any) -> Any:
    """-1/beta log of the mean of exp(-beta |g - m_k|^2 / 2) over branches with answers m_k."""
    g = (np.asarray(X, np.float64) - model.intercept_) / model.residual_scale_
    answers = model.weights_["network.0.weight"][:, 0].astype(np.float64)
    answers = (answers + model.weights_["network.0.bias"]).reshape(-1, g.shape[1])
    distance = 0.5 * np.square(g[:, None] - answers).sum(axis=2)
    return (np.log(len(answers)) - logsumexp(-model.beta_ * distance, axis=1)) / model.beta_


ENTRIES: dict[str, Entry] = {
    "EnergyClassifier": Entry(
        quick={
            "hidden_sizes": (16,),
            "learning_rate": 0.02,
            "batch_size": 40,
            "max_epochs": 15,
            "beta": 0.8,
            "random_state": 0,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"objective": "hinge", "hidden_sizes": (), "max_epochs": 60, "learning_rate": 0.1},
            {
                "joint": True,
                "beta": 1.0,
                "max_epochs": 40,
                "learning_rate": 0.05,
                "validation_fraction": 0.2,
            },
            {
                "joint": PersistentContrastiveDivergence(1, sampler=Langevin(0.3), n_chains=50),
                "beta": 1.0,
                "max_epochs": 30,
                "validation_fraction": 0.2,
                "learning_rate": 0.05,
            },
        ),
        free_energy=label_free_energy,
    ),
    "EnergyRegressor": Entry(
        quick={
            "hidden_sizes": (12,),
            "learning_rate": 0.02,
            "batch_size": 40,
            "max_epochs": 15,
            "random_state": 0,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=({"objective": "nce"}, {"objective": "score_matching", "activation": "tanh"}),
        free_energy=target_free_energy,
    ),
    "LatentVariableRegressor": Entry(
        quick={
            "n_components": 2,  # more branches, which start at rows, would leave nothing to learn
            "hidden_sizes": (),
            "learning_rate": 0.05,
            "batch_size": 40,
            "max_epochs": 15,
            "random_state": 0,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"beta": math.inf},
            {
                "latent": "grid",
                "n_components": 2,
                "n_points": 5,
                "regularizer": "l2",
                "hidden_sizes": (8,),
                "activation": "tanh",
            },
            {
                "latent": "continuous",
                "encoder": True,
                "latent_noise": 0.1,
                "regularizer": "l2",
                "hidden_sizes": (8,),
            },
        ),
        free_energy=branch_free_energy,
    ),
}
