"""What the tests add to the one registry, ``sklebm.ESTIMATORS``: one entry per estimator.

An entry holds constructor arguments and ground truths only. Which tests an estimator has to pass
follows from what it can do (``has(estimator, "transform")``), never from its name.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import digamma, gammaln, logsumexp
from scipy.stats import multivariate_normal, norm
from sklearn.base import BaseEstimator
from sklearn.linear_model import LassoLars

import sklebm
from sklebm.inference.quasi_monte_carlo import row_keys, row_points, uniform_points
from tests.entries import Entry

N_FEATURES = 6


def gaussian_free_energy(model: Any, X: Any) -> Any:
    """Half the squared Mahalanobis distance, by a solve with the whole covariance."""
    centred = np.asarray(X, np.float64) - model.mean_
    covariance = (1 - model.shrinkage_) * model.covariance_ + model.ridge_ * np.eye(
        len(model.mean_)
    )
    return 0.5 * np.einsum("nd,dn->n", centred, np.linalg.solve(covariance, centred.T))


def projection_free_energy(model: Any, X: Any) -> Any:
    """Half the squared distance to the plane, by least squares."""
    centred = np.asarray(X, np.float64) - model.mean_
    codes = np.linalg.lstsq(model.components_.T, centred.T, rcond=None)[0]
    return 0.5 * np.square(centred - codes.T @ model.components_).sum(axis=1)


def subspace_free_energy(model: Any, X: Any) -> Any:
    """Softened norms of the groups in units of their scales, and what no filter sees as noise."""
    centred = np.asarray(X, np.float64) - model.mean_
    sources = np.linalg.lstsq(model.mixing_ / model.scale_[:, None], (centred / model.scale_).T)[0]
    starts = np.arange(0, len(sources), model.group_size)
    squares = np.add.reduceat(sources**2, starts) / model.group_scales_[:, None] ** 2
    missed = (centred - (model.mixing_ @ sources).T) / model.scale_
    noise = 0.5 * (missed**2).sum(axis=1) / model.noise_variance_ if model.noise_variance_ else 0.0
    return np.sqrt(model.eps + squares).sum(axis=0) + noise


def precision_free_energy(model: Any, X: Any) -> Any:
    """Half the squared Mahalanobis distance, by the covariance instead of the precision."""
    centred = np.asarray(X, np.float64) - model.location_
    return 0.5 * np.einsum("nd,dn->n", centred, np.linalg.solve(model.covariance_, centred.T))


def prototype_free_energy(model: Any, X: Any) -> Any:
    """-1/beta log sum_k exp(-beta |x - w_k|^2), from the differences."""
    gaps = np.asarray(X, np.float64)[:, None] - model.cluster_centers_.astype(np.float64)
    return -logsumexp(-model.beta_ * (gaps**2).sum(axis=2), axis=1) / model.beta_


def neighbour_free_energy(model: Any, X: Any) -> Any:
    """d log r_k, from all distances."""
    gaps = np.asarray(X, np.float64)[:, None] - model.samples_
    reach = np.sort(np.sqrt((gaps**2).sum(axis=2)), axis=1)[:, model.n_neighbors_ - 1]
    return X.shape[1] * np.log(np.maximum(reach, model.floor_))


def mixture_free_energy(model: Any, X: Any) -> Any:
    """-log sum_k w_k N(x; m_k, diag v_k), from scipy's densities."""
    components = zip(model.weights_, model.means_, model.covariances_, strict=True)
    terms = [
        np.log(weight) + multivariate_normal(mean, np.diag(variances)).logpdf(X)
        for weight, mean, variances in components
    ]
    return -logsumexp(terms, axis=0)


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


def logit_free_energy(model: Any, X: Any) -> Any:
    """-log(1 + exp(f)) of a binary decision f."""
    return -np.logaddexp(0.0, model.estimator_.decision_function(X))


# What meta-estimators are tested with.
SMALL_VAE = sklebm.VAE(
    2,
    hidden_sizes=(8,),
    likelihood="bernoulli",
    learning_rate=0.03,
    batch_size=40,
    max_epochs=10,
    n_importance_samples=2,
    random_state=0,
)
MIXTURE = sklebm.EnergyGaussianMixture(4, covariance_type="diag", random_state=0)


def sparse_free_energy(model: Any, X: Any) -> Any:
    """min_z 1/2 |x - b - z D|^2 + alpha |z|_1, by least-angle regression, row by row."""
    atoms = model.components_.T.astype(np.float64)
    peer = LassoLars(model.alpha_ / len(atoms), fit_intercept=False, eps=1e-16, max_iter=10_000)
    energies = []
    for row in np.asarray(X, np.float64) - model.intercept_:
        code = peer.fit(atoms, row).coef_
        residual = row - atoms @ code
        energies.append(0.5 * residual @ residual + model.alpha_ * np.abs(code).sum())
    return np.array(energies)


def unfolded_free_energy(model: Any, X: Any) -> Any:
    """1/2 |x - z D|^2 + alpha |z|_1 with z of unfolded ISTA, from its fitted weights."""
    X = np.asarray(X, np.float64)
    weights = {name: np.float64(array) for name, array in model.weights_.items()}
    drive = X @ weights["weights"][0].T
    z = np.zeros_like(drive)
    for threshold in weights["thresholds"]:
        v = drive + z @ weights["lateral"][0].T
        z = np.sign(v) * np.maximum(np.abs(v) - np.abs(threshold), 0.0)
    residual = X - z @ np.float64(model.components_)
    return 0.5 * (residual**2).sum(axis=1) + model.alpha_ * np.abs(z).sum(axis=1)


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


def make_documents(n_rows: int, seed: int) -> Any:
    """Counts of 30 words in documents of 60 tokens, each about one of three sets of ten words.

    In ``make_rows``, half of the rows have all words alike. That is what independence gives too,
    and a score per token does not see how many there are. Of so many words, shuffled documents
    have about as many tokens: a score of whole documents compares them.
    """
    generator = np.random.default_rng(seed)
    topics = np.kron(np.eye(3), np.full(10, 0.09)) + 0.1 / 30
    return generator.multinomial(60, topics[generator.integers(3, size=n_rows)]).astype(np.float64)


def topic_free_energy(model: Any, X: Any) -> Any:
    """min_theta -1/n sum_w x_w log sum_k theta_k p(w | k), by EM of one document at a time."""
    energies = []
    for x in np.asarray(X, np.float64):
        theta = np.full(len(model.components_), 1 / len(model.components_))
        for _ in range(model.fold_in_iter):
            slope = model.components_ @ (x / (theta @ model.components_)) / x.sum()
            theta = theta * slope
            if slope.max() - 1 <= model.fold_in_tol:
                break
        energies.append(-(x @ np.log(theta @ model.components_)) / x.sum())
    return np.array(energies)


def dirichlet_free_energy(model: Any, X: Any) -> Any:
    """Minus the evidence lower bound, its terms one after the other, one document at a time."""
    alpha, components = model.doc_topic_prior_, model.components_
    log_topics = digamma(components) - digamma(components.sum(axis=1, keepdims=True))
    energies = []
    for x in np.asarray(X, np.float64):
        gamma, change = np.ones(len(alpha)), np.inf
        for _ in range(model.max_doc_update_iter):
            scores = (digamma(gamma) - digamma(gamma.sum()))[:, None] + log_topics
            posterior = np.exp(scores - logsumexp(scores, axis=0))
            new = alpha + posterior @ x
            change, gamma = np.abs(new - gamma).mean(), new
            if change < model.mean_change_tol:
                break
        log_shares = digamma(gamma) - digamma(gamma.sum())
        scores = log_shares[:, None] + log_topics
        posterior = np.exp(scores - logsumexp(scores, axis=0))
        tokens = (posterior * (scores - np.log(posterior))).sum(axis=0) @ x
        prior = gammaln(alpha.sum()) - gammaln(alpha).sum() + (alpha - 1) @ log_shares
        entropy = gammaln(gamma).sum() - gammaln(gamma.sum()) - (gamma - 1) @ log_shares
        energies.append(-(tokens + prior + entropy))
    return np.array(energies)


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
    "EnergyGaussianMixture": Entry(
        quick={"n_components": 4, "covariance_type": "diag", "random_state": 0},
        # From k-means, EM gains less than held-out rows can tell: what it has to beat is not its
        # own start but the random one.
        untrained={"max_iter": 1, "init": "random"},
        variants=(
            {"n_components": 3, "covariance_type": "full", "n_init": 2},
            {"n_components": 3, "covariance_type": "tied", "batch_size": 16},
            {"n_components": 3, "covariance_type": "spherical", "init": "random"},
        ),
        free_energy=mixture_free_energy,
        # (x - m)^2 / v is expanded, as in scikit-learn: terms of 1e6 / reg_covar = 1e12 cancel.
        rounding=1e-4,
    ),
    "EnergyKMeans": Entry(
        quick={"n_clusters": 4, "random_state": 0},
        untrained={"max_iter": 1},
        variants=(
            {"output": "onehot"},
            {"output": "responsibility"},
            {"output": "triangle"},
            {"n_init": 3, "tol": 0.0},
            {"batch_size": 40},
        ),
        free_energy=prototype_free_energy,
    ),
    "EnergyOutlierDetector": Entry(
        seeded={"calibration": 0.25},
        rounding=1e-6,  # a mixture is among its members
        variants=(
            {"calibration": 0.25, "trim": 0.1, "random_state": 0},
            {"contamination": 0.1},
            {"estimator": sklebm.EnergyKMeans(4, random_state=0)},
            {"estimator": [("a", sklebm.PCAWhitener()), ("b", sklebm.ZCAWhitener(1))]},
        ),
    ),
    "EnergyPCA": Entry(
        quick={"n_components": 0.9},  # of the variance, which tables of any width have
        variants=(
            {"n_components": 2, "shrinkage": 0.1},
            {"n_components": None, "shrinkage": "ledoit_wolf"},
            {"n_components": "mle"},
        ),
        free_energy=projection_free_energy,
        normalised={"form": "probabilistic"},
    ),
    "GaussianEnergy": Entry(
        variants=(
            {"structure": "diagonal"},
            {"structure": "banded"},
            {"structure": "banded", "objective": "score_matching", "ridge": 0.1},
            {"structure": "diagonal", "objective": "noise_contrastive", "random_state": 0},
        ),
        seeded={"objective": "conditional_noise_contrastive"},
        free_energy=precision_free_energy,
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
    "InputComplexityScorer": Entry(
        quick={"estimator": MIXTURE},
        rounding=1e-4,  # that of the mixture
        variants=(
            {"compressor": "bz2", "n_levels": 16},
            {"compressor": "lzma", "estimator": sklebm.PCAWhitener()},
        ),
    ),
    "LatentDirichletAllocation": Entry(
        quick={"n_components": 3, "random_state": 0},
        untrained={"max_iter": 1},
        variants=(
            {"n_components": 2, "doc_topic_prior": "auto", "topic_word_prior": 0.5},
            {"n_components": 3, "learning_method": "online", "batch_size": 32, "max_iter": 5},
        ),
        free_energy=dirichlet_free_energy,
        learnable=make_documents,
    ),
    "LikelihoodRatioScorer": Entry(
        quick={"estimator": MIXTURE, "random_state": 0},
        rounding=1e-4,
        variants=({"background": sklebm.PCAWhitener()}, {"mutation_rate": 1.0}),
    ),
    "LikelihoodRegretScorer": Entry(
        quick={
            "estimator": SMALL_VAE,
            "n_steps": 20,
        },
        rounding=1e-4,
        variants=({"estimator": SMALL_VAE, "learning_rate": 0.01, "n_steps": 3},),
    ),
    "LogitEnergyScorer": Entry(
        # Whatever has a decision_function has binary logits, and a detector needs no labels.
        quick={"estimator": sklebm.EnergyOutlierDetector(MIXTURE, contamination=0.5)},
        variants=(
            {"temperature": 0.5},
            {"estimator": sklebm.EnergyOutlierDetector(sklebm.PCAWhitener())},
        ),
        free_energy=logit_free_energy,
        rounding=1e-4,
    ),
    "LISTAEncoder": Entry(
        quick={
            "n_components": 4,
            "n_layers": 2,
            "learning_rate": 0.02,
            "batch_size": 30,
            "max_epochs": 10,
            "random_state": 0,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"variant": "lcod", "shared_weights": False, "inhibition_mask": 0.5},
            {"variant": "coupled", "init": "analytic", "selection_rate": 0.2, "max_selection": 0.5},
            {"n_layers": 0, "supervised_layers": "all", "learn_weights": False},
        ),
        free_energy=unfolded_free_energy,
    ),
    "MaskedAutoencoder": Entry(
        quick={**AUTOENCODER, "activation": "relu"},
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=({"masked_fraction": 0.5, "patch_size": 2},),
        free_energy=masked_free_energy,
    ),
    "PCAWhitener": Entry(
        variants=(
            {"n_components": 1},
            {"n_components": 0.8, "ridge": 0.1},
            {"shrinkage": "ledoit_wolf"},
            {"n_components": "mle", "shrinkage": "oas"},
        ),
        free_energy=gaussian_free_energy,
    ),
    "PLSA": Entry(
        quick={"n_components": 3, "random_state": 0},
        untrained={"max_iter": 1},
        variants=({"n_components": 2, "beta": 0.8}, {"n_components": 3, "beta": "auto"}),
        free_energy=topic_free_energy,
        learnable=make_documents,
    ),
    "PredictiveSparseDecomposition": Entry(
        quick={
            "n_components": 4,
            "n_layers": 2,
            "learning_rate": 0.02,
            "batch_size": 30,
            "max_epochs": 10,
            "random_state": 0,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"encoder": "linear_tanh"},
            {"encoder": "shrink", "penalty": "elastic_net", "prediction_weight": 0.3},
        ),
        free_energy=unfolded_free_energy,
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
    "NeighbourEnergy": Entry(
        variants=({"n_neighbors": 1}, {"max_samples": 60, "random_state": 0}),
        seeded={"max_samples": 60},
        free_energy=neighbour_free_energy,
        # A squared distance to rows of up to 1000 is chosen by its expansion.
        rounding=1e-6,
    ),
    "TypicalityScorer": Entry(
        quick={"estimator": MIXTURE},
        seeded={"calibration": 0.25},
        variants=({"calibration": 0.25, "random_state": 0}, {"estimator": sklebm.PCAWhitener()}),
        rounding=1e-4,
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
    "SubspaceICA": Entry(
        quick={"group_size": 2, "random_state": 0},
        variants=(
            # scikit-learn's checks have tables of one column, which bounds filters and maps
            {"n_components": 1, "density": "log_cosh"},
            {"group_size": 4, "density": "student_t"},
            {"group_size": 1, "density": "logistic", "n_init": 2},
            {"topography": (1, 1)},
        ),
        free_energy=subspace_free_energy,
    ),
    "SparseCoder": Entry(
        quick={"n_components": 3, "alpha": 0.1, "batch_size": 32, "random_state": 0},
        untrained={"max_iter": 1, "batch_size": 10**6},
        variants=(
            {"penalty": "nonnegative", "fit_intercept": True, "algorithm": "batch"},
            {"algorithm": "gradient", "fit_intercept": True},
            {"penalty": "elastic_net", "unit_norm": True, "init": "random"},
            {"penalty": "top_k", "n_components": 8},
        ),
        free_energy=sparse_free_energy,
    ),
    "ZCAWhitener": Entry(
        variants=(
            {"n_components": 1},
            {"n_components": 0.8, "ridge": 0.1},
            {"shrinkage": "ledoit_wolf"},
            {"ridge": 0.0},
        ),
        free_energy=gaussian_free_energy,
    ),
}

# Families with a file of entries of their own.
for _family in sorted(Path(__file__).parent.joinpath("entries").glob("[a-z]*.py")):
    ENTRIES.update(importlib.import_module(f"tests.entries.{_family.stem}").ENTRIES)

NAMES = sorted(sklebm.ESTIMATORS)


def make(name: str, **changes: Any) -> Any:
    """A quick estimator; ``changes`` override its arguments."""
    return getattr(sklebm, name)(**{**entry(name).quick, **changes})


def make_seeded(name: str, random_state: Any) -> Any:
    """A quick estimator whose fit draws random numbers."""
    return make(name, **{**entry(name).seeded, "random_state": random_state})


def make_brief(name: str, **changes: Any) -> Any:
    """An estimator that fits at once, for tests in which it need not have learnt much."""
    model = make(name)
    brief = {"max_epochs": 2} if is_gradient_trained(model) else {}
    return model.set_params(**{**brief, **changes})


def entry(name: str) -> Entry:
    """The entry of an estimator; an empty one until it has its own."""
    return ENTRIES.get(name, Entry())


def make_variants(name: str) -> list[Any]:
    """The quick estimator and its variants."""
    return [make(name), *(make(name, **variant) for variant in entry(name).variants)]


def names_with(*methods: str) -> list[str]:
    """Names of the estimators that have all of these methods."""
    return [name for name in NAMES if all(hasattr(make(name), method) for method in methods)]


def make_rows(
    n_rows: int = 120, seed: int = 0, dtype: Any = np.float64, noise: float = 0.08
) -> Any:
    """Rows that every model can learn: four prototypes in [0, 1] with Gaussian noise.

    The prototypes span all pairs of signs of two hidden factors, so that every feature alone
    says nothing and their dependence says everything.
    """
    generator = np.random.default_rng(seed)
    signs = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [0] * 6])
    prototypes = 0.1 + 0.8 * signs
    rows = prototypes[generator.integers(4, size=n_rows)]
    rows = rows + noise * generator.standard_normal(rows.shape)
    return np.clip(rows, 0.0, 1.0).astype(dtype)


def shuffle_columns(X: Any, seed: int = 0) -> Any:
    """Rows with the same marginals and no dependence between the features."""
    return np.random.default_rng(seed).permuted(X, axis=0)


ROW_METHODS = ("transform", "score_samples", "free_energy", "predict", "decision_function")


def row_methods(estimator: Any) -> list[str]:
    """Names of the methods that answer row by row."""
    return [name for name in ROW_METHODS if hasattr(estimator, name)]


def draw_rows(model: Any, n_rows: int, seed: int) -> Any:
    """Rows from ``sample``; mixtures return the component of each row beside them."""
    drawn = model.sample(n_rows, random_state=seed)
    return drawn[0] if isinstance(drawn, tuple) else drawn


def is_gradient_trained(estimator: Any) -> bool:
    """True for models that follow stochastic gradients."""
    return "max_epochs" in estimator.get_params(deep=False)


def takes(estimator: Any, parameter: str) -> bool:
    """True if the constructor has this parameter."""
    return parameter in estimator.get_params(deep=False)


def fit_takes(estimator: Any, argument: str) -> bool:
    """True if ``fit`` has this argument."""
    return argument in inspect.signature(estimator.fit).parameters


def fitted_state(estimator: Any) -> dict[str, Any]:
    """The public fitted attributes."""
    return {
        name: value
        for name, value in vars(estimator).items()
        if name.endswith("_") and not name.startswith("_")
    }


def freeze(value: Any) -> Any:
    """A comparable image of a value, exact to the last bit."""
    if isinstance(value, np.ndarray):
        content = repr(value.tolist()) if value.dtype == object else value.tobytes()
        return (value.dtype.str, value.shape, content)
    if isinstance(value, BaseEstimator):
        return (type(value).__name__, freeze(vars(value)))
    if isinstance(value, Mapping):
        return {key: freeze(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [freeze(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value).hex()
    return repr(value)
