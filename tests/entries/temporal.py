"""Registry entries of the models of sequences, and their equations in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.entries import Entry
from tests.entries.autoencoders import (
    AUTOENCODER,
    reconstruction_free_energy,
    run_network,
    standardized,
)


def next_step_free_energy(model: Any, X: Any) -> Any:
    """-log p(x_t | h_{t-1}) of one sequence: a tanh network, then independent Gaussians."""
    w = {name: array.astype(np.float64) for name, array in model.weights_.items()}
    Y = (np.asarray(X, np.float64) - model.offset_) / model.scale_
    h, energies = w["cell.start"], []
    for y in Y:
        mean, log_scale = np.split(w["readout.weight"] @ h + w["readout.bias"], 2)
        log_scale = 7.0 * np.tanh(log_scale / 7.0)
        gaps = 0.5 * ((y - mean) / np.exp(log_scale)) ** 2
        energies.append((gaps + log_scale + 0.5 * np.log(2 * np.pi) + np.log(model.scale_)).sum())
        drive = w["cell.net.weight_ih_l0"] @ y + w["cell.net.bias_ih_l0"]
        h = np.tanh(drive + w["cell.net.weight_hh_l0"] @ h + w["cell.net.bias_hh_l0"])
    return np.array(energies)


def make_wave(n_rows: int, seed: int) -> Any:
    """One sequence that goes around in a circle: every step follows from the ones before it.

    Shuffled columns keep their marginals; their steps follow from nothing.
    """
    random = np.random.default_rng(seed)
    angles = 0.5 * np.arange(n_rows)[:, None] + np.arange(6) + random.uniform(0, 2 * np.pi)
    return 0.5 + 0.4 * np.sin(angles) + 0.03 * random.standard_normal((n_rows, 6))


def extrapolated_free_energy(model: Any, X: Any) -> Any:
    """|x_t - g(z')|^2 of one sequence, with soft maxima and places of groups of two units."""
    Y, unit = standardized(model, X)
    cells = run_network(model, "encoder", Y).reshape(len(Y), -1, 2)
    weights = np.exp(model.beta * (cells - cells.max(axis=2, keepdims=True)))
    weights /= weights.sum(axis=2, keepdims=True)
    m, p = (weights * cells).sum(axis=2), weights @ [-0.5, 0.5]
    before = np.maximum(np.arange(len(Y)) - 1, 0), np.maximum(np.arange(len(Y)) - 2, 0)
    ahead = (m[before[0]] + m[before[1]]) / 2, 2 * p[before[0]] - p[before[1]]
    hats = np.maximum(0.0, 1.0 - np.abs(ahead[1][:, :, None] - [-0.5, 0.5]))
    decoded = run_network(model, "decoder", (ahead[0][:, :, None] * hats).reshape(len(Y), -1))
    return unit * ((Y - decoded) ** 2).sum(axis=1)


ENTRIES: dict[str, Entry] = {
    "LinearizingAutoencoder": Entry(
        quick={
            "n_components": 8,
            "pool_size": 2,
            "hidden_sizes": (),
            "learning_rate": 0.03,
            "batch_size": 40,
            "max_epochs": 20,
            "random_state": 0,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"pooling": "none", "prediction": "learned", "n_components": 4, "max_epochs": 3},
            {"n_deltas": 2, "n_inner_steps": 2, "hidden_sizes": (8,), "max_epochs": 3},
        ),
        free_energy=extrapolated_free_energy,
        learnable=make_wave,
    ),
    "SequenceEnergy": Entry(
        quick={
            "n_components": 8,
            "cell": "rnn",
            "learning_rate": 0.02,
            "batch_size": 40,
            "truncation": 20,
            "max_epochs": 25,
            "random_state": 0,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"cell": "lstm", "output": "latent", "n_latents": 2, "max_epochs": 3},
            {"cell": "conv", "output": "rbm", "n_latents": 4, "window": 4, "max_epochs": 3},
            {"cell": "gru", "output": "bernoulli", "dropout": 0.3, "max_epochs": 3},
            {"cell": "linear", "output": "categorical", "max_epochs": 3, "truncation": 7},
        ),
        free_energy=next_step_free_energy,
        learnable=make_wave,
    ),
    "SlowFeatureAutoencoder": Entry(
        quick={
            **AUTOENCODER,
            "code_activation": "identity",
            "tied": False,
            "alpha": 0.01,
            "slowness": 0.01,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"method": "linear"},
            {"method": "linear", "degree": 2, "n_components": 3},
            {
                "n_components": 4,
                "pool_size": 2,
                "penalty": "squared",
                "code_activation": "relu",
                "tied": True,
            },
        ),
        free_energy=reconstruction_free_energy,
    ),
}
