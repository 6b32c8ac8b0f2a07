"""Auto-encoders: reconstructions and bounds from their stored weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import norm

from sklebm.inference.quasi_monte_carlo import row_keys, row_points, uniform_points
from tests.entries import Entry


def run_network(model: Any, network: str, X: Any) -> Any:
    """An encoder or decoder of affine maps with ReLUs between them."""
    layers = sorted(
        (name.rpartition(".")[0] for name in model.weights_ if name.endswith(".bias")),
        key=lambda name: int(name.rpartition(".")[2]),
    )
    layers = [name for name in layers if name.startswith(f"{network}.")]
    h = np.asarray(X, np.float64)
    for name in layers:
        h = np.maximum(h, 0.0) if name != layers[0] else h
        h = h @ model.weights_[f"{name}.weight"].T.astype(np.float64)
        h = h + model.weights_[f"{name}.bias"]
    return h


def standardized(model: Any, X: Any) -> tuple[Any, Any]:
    """What the networks of an auto-encoder see, and the unit of its squared errors."""
    X = np.asarray(X, np.float64)
    if model.scale_ is None:
        return X, 1.0
    return (X - model.offset_) / model.scale_, model.scale_[0] ** 2


def reconstruction_free_energy(model: Any, X: Any) -> Any:
    """|x - g(f(x))|^2."""
    Y, unit = standardized(model, X)
    decoded = run_network(model, "decoder", run_network(model, "encoder", Y))
    return unit * ((Y - decoded) ** 2).sum(axis=1)


def weighted_free_energy(model: Any, X: Any) -> Any:
    """-log mean_k p(x|z_k) p(z_k) / q(z_k|x) with bits as rows and the draws of each row."""
    X = np.asarray(X, np.float64)
    mean, log_scale = np.split(run_network(model, "encoder", X), 2, axis=1)
    points = uniform_points(model.n_importance_samples, mean.shape[1])
    draws = norm.ppf(row_points(points, row_keys(torch.from_numpy(X))).numpy())
    terms = []
    for draw in draws:
        z = mean + np.exp(log_scale) * draw
        logits = run_network(model, "decoder", z)
        log_likelihood = (X * logits - np.logaddexp(0.0, logits)).sum(axis=1)
        log_prior = norm.logpdf(z).sum(axis=1)
        terms.append(
            log_likelihood + log_prior - norm.logpdf(z, mean, np.exp(log_scale)).sum(axis=1)
        )
    return np.log(len(draws)) - logsumexp(terms, axis=0)


def masked_free_energy(model: Any, X: Any) -> Any:
    """Squared errors of hidden entries, each averaged over the masks that hide it."""
    X, unit = standardized(model, X)
    order = torch.randperm(X.shape[1], generator=torch.Generator().manual_seed(0)).numpy()
    n_visible = X.shape[1] - round(0.75 * X.shape[1])
    groups = [order[i : i + n_visible] for i in range(0, len(order), n_visible)]
    total, times = np.zeros_like(X), np.zeros(X.shape[1])
    for visible in groups:
        hidden = np.setdiff1d(order, visible)
        filling = model.weights_["filling"].astype(np.float64)
        seen = filling + (X - filling) * X.shape[1] / n_visible
        seen[:, hidden] = filling[hidden]
        decoded = run_network(model, "decoder", run_network(model, "encoder", seen))
        total[:, hidden] += (X - decoded)[:, hidden] ** 2
        times[hidden] += 1
    return unit * (total / times).sum(axis=1)


def saturated_free_energy(model: Any, X: Any) -> Any:
    """|x - g(h(a))|^2 with h(a) = min(max(a, 0), 1)."""
    Y, unit = standardized(model, X)
    code = np.clip(run_network(model, "encoder", Y), 0.0, 1.0)
    return unit * ((Y - run_network(model, "decoder", code)) ** 2).sum(axis=1)


AUTOENCODER = {
    "n_components": 2,
    "hidden_sizes": (8,),
    "learning_rate": 0.05,
    "batch_size": 60,
    "max_epochs": 15,
    "random_state": 0,
}


ENTRIES: dict[str, Entry] = {
    "Autoencoder": Entry(
        quick=AUTOENCODER,
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"tied": True, "hidden_sizes": (), "code_activation": "sigmoid"},
            {"hidden_sizes": (8, 4), "activation": "tanh"},
        ),
        free_energy=reconstruction_free_energy,
    ),
    "ContractiveAutoencoder": Entry(
        quick={**AUTOENCODER, "code_activation": "identity", "tied": False, "alpha": 0.01},
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=({"hidden_sizes": (), "code_activation": "sigmoid", "tied": True},),
        free_energy=reconstruction_free_energy,
    ),
    "DenoisingAutoencoder": Entry(
        quick={**AUTOENCODER, "corruption_level": 0.1},
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=({"corruption": "salt_pepper"},),
        free_energy=reconstruction_free_energy,
    ),
    "MaskedAutoencoder": Entry(
        quick={**AUTOENCODER, "activation": "relu"},
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=({"masked_fraction": 0.5, "patch_size": 2},),
        free_energy=masked_free_energy,
    ),
    "SaturatingAutoencoder": Entry(
        quick={**AUTOENCODER, "hidden_sizes": (), "n_components": 8, "alpha": 0.01},
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=({"code_activation": "shrink"},),
        free_energy=saturated_free_energy,
    ),
    "SparseAutoencoder": Entry(
        quick={**AUTOENCODER, "code_activation": "identity", "tied": False, "alpha": 0.01},
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=({"penalty": "kl", "code_activation": "sigmoid", "hidden_sizes": ()},),
        free_energy=reconstruction_free_energy,
    ),
    "VAE": Entry(
        quick={
            **AUTOENCODER,
            "learning_rate": 0.03,
            "batch_size": 40,
            "max_epochs": 20,
            "likelihood": "bernoulli",
            "n_importance_samples": 8,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"likelihood": "gaussian", "posterior": "full", "objective": "dreg"},
            {"likelihood": "gaussian", "noise_scale": "learned", "posterior": "bernoulli"},
        ),
        free_energy=weighted_free_energy,
    ),
}
