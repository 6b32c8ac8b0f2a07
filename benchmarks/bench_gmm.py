"""Seconds of an EM step of a Gaussian mixture, against scikit-learn.

MNIST's first 50,000 digits on their 50 principal components, K = 32, the same start and the same
number of steps for both, float64. The quality is the mean log likelihood that the steps reach.
Needs the folder of ``SKLEBM_DATA`` with ``mnist.npz``.

    python benchmarks/bench_gmm.py [--threads 2] [--steps 5] [--repeats 3]
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from _common import save_results, set_threads, timed_ratio
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from sklebm import EnergyGaussianMixture

N_ROWS, N_FEATURES, N_COMPONENTS = 50_000, 50, 32
PEERS = {"scikit-learn": GaussianMixture, "sklebm": EnergyGaussianMixture}


def load_rows():
    """MNIST on its principal components; stops where the data folder is not configured."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("SKLEBM_DATA is not set: this benchmark needs the folder that holds mnist.npz.")
    images = np.load(Path(folder) / "mnist.npz")["x_train"][:N_ROWS]
    pixels = images.reshape(N_ROWS, -1) / 255.0
    return PCA(N_FEATURES, svd_solver="covariance_eigh").fit_transform(pixels)


def start(X, kind):
    """Weights, means and precisions that both begin with."""
    identity = np.eye(N_FEATURES)
    precisions = {
        "full": np.repeat(identity[None], N_COMPONENTS, axis=0),
        "tied": identity,
        "diag": np.ones((N_COMPONENTS, N_FEATURES)),
        "spherical": np.ones(N_COMPONENTS),
    }
    chosen = np.random.default_rng(0).choice(len(X), N_COMPONENTS, replace=False)
    return {
        "n_components": N_COMPONENTS,
        "covariance_type": kind,
        "weights_init": np.full(N_COMPONENTS, 1 / N_COMPONENTS),
        "means_init": X[chosen],
        "precisions_init": precisions[kind],
        "tol": 0.0,
    }


def main():
    """Time both, check that they reach the same likelihood, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--types", nargs="+", default=["full", "tied", "diag", "spherical"])
    options = parser.parse_args()
    set_threads(options.threads)
    warnings.simplefilter("ignore", ConvergenceWarning)
    X = load_rows()
    rows = []
    for kind in options.types:
        settings = {**start(X, kind), "max_iter": options.steps}
        models = {name: peer(**settings) for name, peer in PEERS.items()}
        contestants = {name: partial(model.fit, X) for name, model in models.items()}
        timings = timed_ratio(contestants, reference="scikit-learn", repeats=options.repeats)
        scores = {name: model.score(X) for name, model in models.items()}
        if abs(scores["sklebm"] - scores["scikit-learn"]) > 1e-6:
            sys.exit(f"{kind}: the likelihoods differ: {scores}")
        for name, timing in timings.items():
            seconds = timing.median / options.steps
            rows.append(
                [kind, name, round(seconds, 3), round(timing.ratio, 3), round(scores[name], 6)]
            )
            print(*rows[-1], flush=True)
    save_results(
        "gmm",
        "EM for mixtures of Gaussians",
        ["covariance", "library", "seconds a step", "ratio", "log likelihood (nats a row)"],
        rows,
        notes=f"MNIST, {N_ROWS} rows, {N_FEATURES} principal components, K = {N_COMPONENTS}, "
        f"{options.steps} steps from the same start, {options.threads} threads, float64. A fit "
        "includes what both do around the steps.",
    )


if __name__ == "__main__":
    main()
