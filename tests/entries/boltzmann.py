"""Boltzmann machines: hidden units summed out."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import scipy.special
from scipy.special import logsumexp
from scipy.stats import norm

import sklebm
from tests.entries import Entry
from tests.entries.topics import make_documents


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


def semi_restricted_free_energy(model: Any, X: Any) -> Any:
    """1/2 (x - a)'L(x - a) - sum_k log(1 + exp(c_k + w_k'L x))."""
    x, L = np.asarray(X, np.float64), model.precision_.astype(np.float64)
    inputs = model.intercept_hidden_ + x @ L @ model.components_.T.astype(np.float64)
    gap = x - model.intercept_visible_
    return 0.5 * ((gap @ L) * gap).sum(axis=1) - np.logaddexp(0.0, inputs).sum(axis=1)


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


def hopfield_energy(model: Any, X: Any) -> Any:
    """-1/2 s'Ws with s = -1 for the lower state of X and +1 for the upper."""
    low, high = model.state_values_
    s = (2 * np.asarray(X, np.float64) - low - high) / (high - low)
    return -0.5 * np.einsum("ni,ij,nj->n", s, model.couplings_, s)


def deep_free_energy(machine: Any, X: Any) -> Any:
    """E(x, m) minus the entropy of m at the mean field of two hidden layers, iterated to rest."""
    first, second = (w.astype(float) for w in machine.weights_.values())
    b, c, d = (bias.astype(float) for bias in machine.intercepts_.values())
    x = np.asarray(X, float)
    m = 1.0 / (1.0 + np.exp(-(x @ first.T + c)))
    n = 1.0 / (1.0 + np.exp(-(m @ second.T + d)))
    for _ in range(2000):
        m = 1.0 / (1.0 + np.exp(-(x @ first.T + c + n @ second)))
        n = 1.0 / (1.0 + np.exp(-(m @ second.T + d)))
    energy = -(x @ b) - m @ c - n @ d - ((m @ first) * x).sum(axis=1)
    energy = energy - ((n @ second) * m).sum(axis=1)
    return energy - sum((scipy.special.entr(p) + scipy.special.entr(1 - p)).sum(1) for p in (m, n))


def belief_free_energy(network: Any, X: Any) -> Any:
    """Minus the variational bound of a network of two machines, as a sum over all hidden states."""
    first, top = network.named_estimators_.values()
    h = np.array(list(itertools.product([0.0, 1.0], repeat=len(first.components_))))
    weights, b = first.components_.astype(float), first.intercept_visible_.astype(float)
    c = first.intercept_hidden_.astype(float)
    if network.generative_ is not None:
        down = [network.generative_[f"layer1.{name}"].astype(float) for name in ("weights", "bias")]
    else:
        down = [weights, b]
    mean = 1.0 / (1.0 + np.exp(-(X @ weights.T + c)))
    log_q = np.log(mean) @ h.T + np.log1p(-mean) @ (1.0 - h).T
    field = h @ down[0] + down[1]
    log_p = X @ field.T - np.logaddexp(0.0, field).sum(axis=1)
    log_p = log_p - bernoulli_free_energy(top, h)
    return -(np.exp(log_q) * (log_p - log_q)).sum(axis=1)


def gated_free_energy(model: Any, X: Any) -> Any:
    """-log p(y | x): each hidden state is a Gaussian around c + sum_k z_k W_k'x, with its mass."""
    u = (np.asarray(X, np.float64) - model.offset_) / model.scale_
    x, y = u[:, : model.n_left_], u[:, model.n_left_ :]
    tensor, c, d = (
        np.asarray(values, np.float64)
        for values in (model.components_, model.intercept_right_, model.intercept_hidden_)
    )
    log_masses, log_densities = [], []
    for z in itertools.product((0.0, 1.0), repeat=len(d)):
        means = c + np.einsum("k,kij,ni->nj", z, tensor, x)
        log_masses.append(d @ z + 0.5 * ((means**2).sum(axis=1) - c @ c))
        log_densities.append(norm.logpdf(y, means).sum(axis=1))
    log_weights = np.array(log_masses) - logsumexp(log_masses, axis=0)
    log_volume = np.log(model.scale_[model.n_left_ :]).sum()
    return log_volume - logsumexp(log_weights + log_densities, axis=0)


def mean_covariance_free_energy(model: Any, X: Any) -> Any:
    """|u|^2 / 2 s^2 - a'u minus both sums of log(1 + exp), u = (x - offset) / scale."""
    u = (np.asarray(X, np.float64) - model.offset_) / model.scale_
    names = ("components_", "filters_", "pooling_", "intercept_visible_", "log_variance_")
    weights, filters, pooling, a, log_variance = (
        getattr(model, name).astype(np.float64) for name in names
    )
    means = model.intercept_hidden_ + u @ weights.T
    covariances = model.intercept_covariance_ + 0.5 * (u @ filters.T) ** 2 @ pooling
    quadratic = 0.5 * np.exp(-log_variance) * (u**2).sum(axis=1) - u @ a
    softplus = np.logaddexp(0.0, means).sum(axis=1) + np.logaddexp(0.0, covariances).sum(axis=1)
    return np.log(model.scale_).sum() + quadratic - softplus


def replicated_softmax_free_energy(model: Any, X: Any) -> Any:
    """-b'v - sum_k log(1 + exp(D c_k + w_k'v)), D the length of the document."""
    v = np.asarray(X, np.float64)
    W, b = np.float64(model.components_), np.float64(model.intercept_visible_)
    inputs = v.sum(axis=1, keepdims=True) * np.float64(model.intercept_hidden_) + v @ W.T
    return -(v @ b) - np.logaddexp(0.0, inputs).sum(axis=1)


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
    "DeepBeliefNetwork": Entry(
        quick={
            "hidden_sizes": (5, 4),
            "learning_rate": 0.5,
            "batch_size": 10,
            "max_epochs": 10,
            "random_state": 0,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"hidden_sizes": (5,), "objective": "cd"},
            {"fine_tuning_epochs": 2, "hidden_sizes": (4, 3, 3), "max_epochs": 2},
            {
                "bottom": sklebm.GaussianRBM(objective="pcd", max_epochs=3),
                "hidden_sizes": (6, 3),
                "max_epochs": 2,
            },
        ),
        free_energy=belief_free_energy,
    ),
    "DeepBoltzmannMachine": Entry(
        quick={
            "hidden_sizes": (8, 4),
            "learning_rate": 0.5,
            "batch_size": 10,
            "max_epochs": 20,
            "random_state": 0,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"hidden_sizes": (5,), "centering": False, "max_epochs": 3},
            {
                "hidden_sizes": (4, 3, 3),
                "pretraining_epochs": 1,
                "max_epochs": 2,
                "optimizer": "adam",
            },
            {"objective": "maximum_likelihood", "hidden_sizes": (3, 2), "max_epochs": 2},
        ),
        free_energy=deep_free_energy,
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
        quick={
            "n_components": 8,
            "batch_size": 20,
            "max_epochs": 3,
            "learning_rate": 1.0,  # one start; "auto" tries eight, as a variant does
            "random_state": 0,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"learning_rate": "auto", "n_components": 2, "max_epochs": 1},
            # Few hidden units: the default estimator anneals after each fit, and once is enough.
            {
                "variance": "diagonal",
                "objective": "cd",
                "learning_rate": "auto",
                "n_components": 6,
            },
            {
                "learning_rate": "auto",
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
    "SemiRestrictedBM": Entry(
        quick={
            "n_components": 4,
            "objective": "maximum_likelihood",
            "batch_size": 20,
            "max_epochs": 10,
            "random_state": 0,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"objective": "auto", "max_epochs": 1},
            {"structure": "neighbours", "objective": "pcd"},
            {"structure": "diagonal", "objective": "score_matching", "centering": False},
            {"visible": "bernoulli", "objective": "auto", "n_components": 3},
        ),
        free_energy=semi_restricted_free_energy,
    ),
    "HopfieldNetwork": Entry(
        quick={"random_state": 0},
        variants=(
            {"rule": "storkey", "update": "synchronous"},
            {"rule": "dense", "interaction": "exponential", "states": "continuous"},
        ),
        free_energy=hopfield_energy,
    ),
    "MeanCovarianceRBM": Entry(
        quick={
            "n_components": 3,
            "n_covariance_components": 4,
            "objective": "maximum_likelihood",
            "learning_rate": 0.05,
            "batch_size": 60,
            "max_epochs": 10,
            "random_state": 0,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"objective": "pcd", "n_components": 0, "n_leapfrog": 3, "max_epochs": 3},
            {"objective": "cd", "sampler": "gibbs", "n_factors": 6, "max_epochs": 3},
            {"objective": "score_matching", "factor_structure": "topographic", "variance": 0.5},
        ),
        free_energy=mean_covariance_free_energy,
    ),
    "ReplicatedSoftmax": Entry(
        quick={
            "n_components": 4,
            "n_gibbs_steps": 1,
            "learning_rate": 0.02,
            "batch_size": 20,
            "max_epochs": 10,
            "random_state": 0,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"objective": "maximum_likelihood", "n_components": 3, "n_gibbs_steps": 5},
            {"n_components": 12, "max_epochs": 3, "optimizer": "sgd"},
        ),
        free_energy=replicated_softmax_free_energy,
        normalised={"normalised": True},
        learnable=make_documents,
    ),
}
