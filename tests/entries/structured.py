"""Structured prediction: labels of rows that depend on those of their neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp

from tests.entries import Entry


def chain_free_energy(model: Any, X: Any) -> Any:
    """log Z of the steps before a step, minus that with it, when all rows are one sequence."""
    scores = np.asarray(X, np.float64) @ model.coef_.T + model.intercept_
    alpha, totals = scores[0], [0.0, logsumexp(scores[0])]
    for row in scores[1:]:
        alpha = row + logsumexp(alpha[:, None] + model.transitions_, axis=0)
        totals.append(logsumexp(alpha))
    return -np.diff(totals)


def pixel_free_energy(model: Any, X: Any) -> Any:
    """-log sum_k exp(s_k) of pixels without neighbours."""
    return -logsumexp(np.asarray(X, np.float64) @ model.coef_.T + model.intercept_, axis=1)


ENTRIES: dict[str, Entry] = {
    "ChainCRF": Entry(
        quick={"solver": "sgd", "learning_rate": 0.3, "max_iter": 40, "random_state": 0},
        untrained={"learning_rate": 1e-12, "max_iter": 1},
        variants=(
            {"solver": "lbfgs", "tol": 1e-9},
            {"solver": "lbfgs", "l1_ratio": 0.5, "class_weight": "balanced", "C": 10.0},
            {"loss": "perceptron"},
            {"loss": "hinge", "feature_weights": "observed"},
        ),
        free_energy=chain_free_energy,
    ),
    "GridMRF": Entry(
        quick={"tol": 1e-9, "max_iter": 100},
        untrained={"C": 1e-12},
        variants=(
            {"learning": "piecewise", "inference": "icm", "directed": True, "C": 10.0},
            {
                "pairwise_features": "contrast",
                "interaction": "potts",
                "inference": "mean_field",
                "class_weight": "balanced",
                "C": 10.0,
            },
            {
                "pairwise_features": "features",
                "inference": "gibbs",
                "n_gibbs_steps": 3,
                "n_neighbours": 8,
                "C": 10.0,
            },
        ),
        free_energy=pixel_free_energy,
    ),
}
