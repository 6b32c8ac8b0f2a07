"""GaussianEnergy at the size of images: seconds and residuals with 28 x 28 pixels, radius 2.

Patches of natural photographs (``SKLEBM_DATA``). The residual is that of the optimality conditions
at the free entries, in units of standard deviations: model and sample covariance for maximum
likelihood, (P S + S P) / 2 and the identity for score matching. The contrastive objectives take
minutes: they are run if they are named.

    python benchmarks/bench_gaussian_image.py [--objectives noise_contrastive]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import save_results, set_threads

from sklebm import GaussianEnergy

OBJECTIVES = ("score_matching", "maximum_likelihood")
CONTRASTIVE = ("noise_contrastive", "conditional_noise_contrastive")


def patches(n_patches: int, side: int) -> Any:
    """Patches at random places of the photographs, as many from each, values in [0, 1]."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("bench_gaussian_image.py needs natural_images.npz: set SKLEBM_DATA to its folder")
    archive = np.load(Path(folder) / "natural_images.npz")
    images = [archive[key] for key in sorted(archive.files) if key.startswith("img_")]
    generator = np.random.default_rng(0)
    rows = np.empty((n_patches, side * side))
    for row in range(n_patches):
        image = images[row * len(images) // n_patches]
        top, left = (generator.integers(3, size - 3 - side) for size in image.shape)
        rows[row] = image[top : top + side, left : left + side].ravel() / 255.0
    return rows


def residual(model: Any, objective: str) -> str:
    """Largest violation of the optimality conditions; those of random noise are not known."""
    if objective in CONTRASTIVE:
        return "–"
    P, S = model.precision_, model.sample_covariance_ + model.ridge_ * np.eye(len(model.location_))
    scale = np.sqrt(np.diag(S))
    if objective == "maximum_likelihood":
        gap = (np.linalg.inv(P) - S) / np.outer(scale, scale)
    else:
        gap = (P @ S + S @ P) / 2 - np.eye(len(P))
    return f"{np.abs(gap[P != 0]).max():.0e}"


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--patches", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=28)
    parser.add_argument("--objectives", nargs="+", default=OBJECTIVES)
    parser.add_argument("--max-iter", type=int, default=100)
    parser.add_argument("--tol", type=float, default=1e-8)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    X = patches(arguments.patches, arguments.side)
    shape, rows = (arguments.side, arguments.side), []
    for objective in arguments.objectives:
        settings = {"tol": arguments.tol, "max_iter": arguments.max_iter, "random_state": 0}
        model = GaussianEnergy(
            "banded", objective=objective, image_shape=shape, radius=2, **settings
        )
        started = time.perf_counter()
        model.fit(X)
        seconds = time.perf_counter() - started
        row = [objective, round(seconds, 1), model.n_iter_, residual(model, objective)]
        rows.append([*row, f"{model.ridge_:.1e}", round(model.score(X), 1)])
        print(*rows[-1], sep="\t", flush=True)
    suffix = "" if arguments.objectives == OBJECTIVES else "_" + "_".join(arguments.objectives)
    save_results(
        f"gaussian_image{suffix}",
        f"GaussianEnergy on {len(X):,} patches of {shape[0]} x {shape[1]}, radius 2",
        ["objective", "fit (s)", "Newton steps", "residual", "ridge", "score (nats)"],
        rows,
        notes=f"{arguments.threads} threads. The first fit of an installation compiles for some "
        "seconds.",
    )


if __name__ == "__main__":
    main()
