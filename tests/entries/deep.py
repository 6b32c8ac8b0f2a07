"""Deep energies: layers one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.entries import Entry


def deep_free_energy(model: Any, X: Any) -> Any:
    """|u|^2 / 2 s^2 - b'u - sum_k log(1 + exp(f_k(u))), f by affine maps and tanh, u = x - m."""
    h = x = np.asarray(X, np.float64) - model.offset_
    numbers = sorted(int(name.split(".")[1]) for name in model.weights_ if name.endswith(".bias"))
    for number in numbers:
        h = np.tanh(h) if number != numbers[0] else h
        h = h @ model.weights_[f"network.{number}.weight"].T.astype(np.float64)
        h = h + model.weights_[f"network.{number}.bias"]
    precision = np.exp(-2 * np.float64(model.weights_["log_sigma"]))
    linear = x @ model.weights_["visible_bias"].astype(np.float64)
    return 0.5 * precision * (x**2).sum(axis=1) - linear - np.logaddexp(0.0, h).sum(axis=1)


ENTRIES: dict[str, Entry] = {
    "DeepEnergyModel": Entry(
        quick={
            "n_components": 8,
            "hidden_sizes": (16,),
            "optimizer": "adam",
            "learning_rate": 0.01,
            "batch_size": 20,
            "max_epochs": 20,
            "random_state": 0,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"objective": "pcd", "log_partition": None, "max_epochs": 3, "hidden_sizes": ()},
            {"objective": "cd", "log_partition": None, "max_epochs": 3, "activation": "silu"},
            {"objective": "score_matching", "log_partition": None, "activation": "sigmoid"},
            {"objective": "denoising_score_matching", "log_partition": None, "learn_sigma": True},
        ),
        free_energy=deep_free_energy,
    ),
}
