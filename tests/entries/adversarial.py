"""Adversarial models: the critic's error, from stored weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from sklebm.objectives.adversarial import NonSaturating
from tests.entries import Entry

QUICK = {
    "n_components": 4,
    "hidden_sizes": (16,),
    "activation": "silu",
    # The first steps of "rmsprop" are ten times as long: most of the way in fits this short.
    "optimizer": "adam",
    "learning_rate": 0.01,
    "batch_size": 40,
    "max_epochs": 10,
    "random_state": 0,
}


def critic_error(model: Any, X: Any) -> Any:
    """|x - c(x)|^2 / d of one hidden layer with silu units, in standardised features."""
    Y = (np.asarray(X, np.float64) - model.offset_) / model.scale_
    h = Y
    for network in ("encoder", "decoder"):
        for layer in (0, 2):
            name = f"critic.{network}.{layer}"
            h = h @ model.weights_[f"{name}.weight"].T.astype(np.float64)
            h = h + model.weights_[f"{name}.bias"]
            h = h / (1.0 + np.exp(-h)) if layer == 0 else h
    return ((Y - h) ** 2).mean(axis=1)


ENTRIES = {
    "EnergyGAN": Entry(
        quick={**QUICK, "n_codes": 2},
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"n_codes": 3, "margin": 0.5, "margin_decay": 0.9, "pull_away": 0.0},
            {"spectral_norm": True, "critic_steps": 2, "average_decay": 0.0},
            {"r1": 0.5},
        ),
        free_energy=critic_error,
    ),
    "GAN": Entry(
        # A critic that learns faster than the generator knows how data differ from other rows.
        quick={
            **QUICK,
            "n_components": 2,
            "objective": NonSaturating(0.1),
            "learning_rate": 0.003,
            "critic_learning_rate": 0.05,
            "max_epochs": 15,
        },
        variants=(
            {"objective": "least_squares", "spectral_norm": True},
            {"objective": "wasserstein_gp", "critic_steps": 2, "critic_optimizer": "rmsprop"},
        ),
    ),
}
