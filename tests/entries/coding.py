"""Sparse codes: energies at codes found by other solvers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from sklearn.linear_model import LassoLars

from tests.entries import Entry


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


def make_waves(n_rows: int = 300, seed: int = 0) -> Any:
    """Six steps of a signal: one short wave, of either sign, where it fits."""
    rng = np.random.default_rng(seed)
    rows = 0.1 * rng.standard_normal((n_rows, 6))
    for row, place in zip(rows, rng.integers(0, 5, n_rows), strict=True):
        row[place : place + 2] += rng.choice([-1.0, 1.0]) * rng.uniform(1, 2) * np.array([2, -1.5])
    return rows


def convolutional_free_energy(model: Any, X: Any) -> Any:
    """The energy of the lasso whose dictionary holds every shift of every kernel."""
    grid = model.grid_
    atoms, shift = [], np.zeros((1, grid["width"]))
    for kernel in np.asarray(model.components_, np.float64):
        for place in range(grid["width"] - (0 if grid["circular"] else len(kernel) - 1)):
            shift[:] = 0.0
            shift[0, (place + np.arange(len(kernel))) % grid["width"]] = kernel
            atoms.append(shift[0].copy())
    whole = SimpleNamespace(components_=np.array(atoms), intercept_=0.0, alpha_=model.alpha_)
    return sparse_free_energy(whole, X)


def predicted_convolutional_free_energy(model: Any, X: Any) -> Any:
    """The energy at the codes of unfolded ISTA on the dictionary of all shifts, in plain loops."""
    width, n_maps = model.grid_["width"], model.grid_["width"]
    n_maps -= 0 if model.grid_["circular"] else model.components_.shape[1] - 1

    def shifts(kernels: Any) -> Any:
        rows = np.zeros((len(kernels), n_maps, width))
        for kernel, part in zip(np.asarray(kernels, np.float64), rows, strict=True):
            for place, row in enumerate(part):
                row[(place + np.arange(len(kernel))) % width] = kernel
        return rows.reshape(-1, width)

    X = np.asarray(X, np.float64)
    weights = {name: np.float64(array) for name, array in model.weights_.items()}
    unit = model.components_.shape[1] ** 0.5
    steps = np.exp(unit * weights["log_steps"])
    limits = np.repeat(steps * np.exp(unit * weights["log_thresholds"]), n_maps, axis=1)
    z = np.zeros((len(X), limits.shape[1]))
    for t, kernels in enumerate(weights["weights"]):
        residual = X - z @ shifts(weights["feedback"][t - 1]) if t else X
        v = z + np.repeat(steps[t], n_maps) * (residual @ shifts(kernels).T)
        z = np.sign(v) * np.maximum(np.abs(v) - limits[t], 0.0)
    error = X - z @ shifts(model.components_)
    return 0.5 * (error**2).sum(axis=1) + model.alpha_ * np.abs(z).sum(axis=1)


def layered_free_energy(model: Any, X: Any) -> Any:
    """Each layer's lasso, given the code below; every term of the energy by itself."""
    below, total = np.asarray(X, np.float64), 0.0
    layers = [model.components_, *model.upper_components_.values()]
    for components, alpha in zip(layers, model.alpha_, strict=True):
        atoms = components.T.astype(np.float64)
        peer = LassoLars(alpha / len(atoms), fit_intercept=False, eps=1e-16, max_iter=10_000)
        codes = np.array([peer.fit(atoms, row).coef_ for row in below])
        total = total + 0.5 * ((below - codes @ atoms.T) ** 2).sum(axis=1)
        total = total + alpha * np.abs(codes).sum(axis=1)
        below = codes
    return total


def deconvolutional_free_energy(model: Any, X: Any) -> Any:
    """The lasso of the second layer, whose dictionary holds the shifts seen through switches."""
    sizes = model.architecture_
    atoms, below = model.components_, np.asarray(X, np.float64)

    def shifts(kernels: Any, depth: int, width: int) -> Any:
        """A row for each kernel and place: what it looks like on maps of this depth and width."""
        length = kernels.shape[1] // depth
        rows = np.zeros((len(kernels), width, depth, width))
        for kernel, part in zip(np.asarray(kernels, np.float64), rows, strict=True):
            for place, row in enumerate(part):
                row[:, (place + np.arange(length)) % width] = kernel.reshape(depth, length)
        return rows.reshape(len(kernels) * width, depth * width)

    width, k = below.shape[1], len(atoms)
    first = shifts(atoms, 1, width)
    peer = LassoLars(model.alpha_[0] / width, fit_intercept=False, eps=1e-16, max_iter=10_000)
    n_maps, side = sizes["pool_maps"], sizes["pool_width"]
    depth, short = -(-k // n_maps), -(-width // side)
    second = shifts(model.upper_components_["layer2"], depth, short)
    energies = []
    for row in below:
        maps = peer.fit(first.T, row).coef_.reshape(k, width)
        seen = np.zeros((depth, short, width))
        for group, place in np.ndindex(depth, short):
            units = range(group * n_maps, min(k, (group + 1) * n_maps))
            places = range(place * side, min(width, (place + 1) * side))
            # Least-angle regression may leave rounding where a code is zero.
            unit, at = max(
                ((u, p) for u in units for p in places), key=lambda pair: round(abs(maps[pair]), 12)
            )
            seen[group, place] = first[unit * width + at]
        whole = SimpleNamespace(
            components_=second @ seen.reshape(-1, width), intercept_=0.0, alpha_=model.alpha_[1]
        )
        energies.append(sparse_free_energy(whole, row[None])[0])
    return np.array(energies)


ENTRIES: dict[str, Entry] = {
    "ConvPredictiveSparseDecomposition": Entry(
        quick={
            "n_components": 2,
            "n_layers": 2,
            "alpha": 0.2,
            "boundary": "zero",
            "learning_rate": 0.02,
            "batch_size": 30,
            "max_epochs": 10,
            "pool": None,
            "random_state": 0,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"encoder": "linear_tanh", "boundary": "circular", "low_pass": 1.0},
            {"encoder": "shrink", "prediction_weight": 0.3},
        ),
        free_energy=predicted_convolutional_free_energy,
        learnable=make_waves,
    ),
    "ConvSparseCoder": Entry(
        quick={
            "n_components": 2,
            "alpha": 0.2,
            "boundary": "zero",
            "batch_size": 32,
            "max_iter": 5,
            "code_tol": 1e-11,
            "pool": None,
            "random_state": 0,
        },
        untrained={"max_iter": 1, "batch_size": 10**6},
        variants=(
            {"penalty": "nonnegative", "boundary": "circular", "algorithm": "consensus"},
            {"low_pass": 1.0, "solver": "greedy"},
        ),
        free_energy=convolutional_free_energy,
        learnable=make_waves,
    ),
    "DeconvolutionalNetwork": Entry(
        quick={
            "hidden_sizes": (3, 2),
            "alpha": (0.2, 0.1),
            "batch_size": 40,
            "max_iter": 2,
            "code_tol": 1e-11,
            "random_state": 0,
        },
        untrained={"max_iter": 1, "batch_size": 10**6},
        variants=(
            {"adaptive": False, "penalty": "nonnegative", "boundary": "zero"},
            {"hidden_sizes": (3, 3, 2), "alpha": 0.1},
            {"adaptive": False, "pool_maps": 1, "pool_size": 1},  # has an inverse_transform
            {"hidden_sizes": (3,), "alpha": 0.3, "pool_maps": 1},
        ),
        free_energy=deconvolutional_free_energy,
        learnable=make_waves,
    ),
    "DeepSparseCoder": Entry(
        quick={"hidden_sizes": (4, 3), "alpha": 0.1, "batch_size": 32, "random_state": 0},
        untrained={"max_iter": 1, "batch_size": 10**6},
        variants=(
            {"inference": "multilayer_fista", "learning": "joint", "penalty": "nonnegative"},
            {"inference": "layered_thresholding", "penalty": "nonnegative", "init": "random"},
            {"hidden_sizes": (4, 3, 2), "output": "last", "alpha": (0.1, 0.05, 0.02)},
            {
                "kernel_sizes": (None, None),
                "hidden_sizes": (3, 2),
                "alpha": (0.2, 0.05),
                "pool": None,  # ``energy`` takes codes in full
            },
        ),
        free_energy=layered_free_energy,
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
}
