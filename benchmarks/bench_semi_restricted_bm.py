"""Log densities of natural 8 x 8 patches with and without lateral couplings.

SemiRestrictedBM and GaussianRBM with equally many hidden units, and GaussianEnergy with a full
covariance, on the same rows. Held-out means are given at both ends of the interval of log Z, which
is annealed; that of GaussianEnergy is exact. Defaults, but for the number of epochs. The 60
photographs are divided: 40 to learn from, 10 to test, and 10 for ``--validate``, where choices are
made.

    python benchmarks/bench_semi_restricted_bm.py [--quick] [--validate]
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

from sklebm import GaussianEnergy, GaussianRBM, SemiRestrictedBM

COLUMNS = ["model", "fit (s)", "held-out log density (nats)", "at the ends of log Z"]
SIZE = 8


PHOTOGRAPHS = {"train": slice(40), "validation": slice(40, 50), "test": slice(50, 60)}


def patches(n_rows: int, part: str) -> np.ndarray:
    """Patches with their mean, from random places of some of the photographs."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("This benchmark needs natural_images.npz in the folder named by SKLEBM_DATA.")
    images = np.load(Path(folder) / "natural_images.npz")
    names = sorted(name for name in images.files if name.startswith("img_"))
    names = np.random.default_rng(0).permutation(names)[PHOTOGRAPHS[part]].tolist()
    generator = np.random.default_rng([1, PHOTOGRAPHS[part].stop])
    rows = []
    for name in names:
        image = images[name].astype(float) / 255
        for _ in range(n_rows // len(names) + 1):
            top, left = (int(generator.integers(side - SIZE)) for side in image.shape)
            rows.append(image[top : top + SIZE, left : left + SIZE].ravel())
    return np.array(rows)[generator.permutation(len(rows))[:n_rows]]


def judged(model: Any, test: np.ndarray, temperatures: int) -> list[str]:
    """Held-out mean, and its ends if log Z is annealed."""
    if isinstance(model, GaussianEnergy):
        return [f"{model.score_samples(test).mean():.2f}", "exact"]
    model.estimate_log_partition("ais", n_temperatures=temperatures, random_state=0)
    value = float(model.score_samples(test).mean())
    low, high = (value + model.log_partition_ - end for end in model.log_partition_interval_)
    return [f"{value:.2f}", f"{high:.2f} to {low:.2f}"]


def main() -> None:
    """Fit and judge in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-components", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--validate", action="store_true", help="score rows kept for choices")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="tiny sizes; nothing is saved")
    options = parser.parse_args()
    set_threads(options.threads)
    n, n_test, temperatures = options.rows, 5000, 5000
    k, epochs = options.n_components, options.epochs
    if options.quick:
        n, n_test, temperatures, k, epochs = 1000, 500, 100, 18, 2
    train = patches(n, "train")
    test = patches(n_test, "validation" if options.validate else "test")
    settings = {"max_epochs": epochs, "log_partition": None, "random_state": 0, "device": "cpu"}
    models = {
        "GaussianEnergy": GaussianEnergy(),
        "GaussianRBM": GaussianRBM(k, **settings),
        "SemiRestrictedBM": SemiRestrictedBM(k, **settings),
    }
    table: list[list[Any]] = []
    for name, model in models.items():
        began = time.perf_counter()
        model.fit(train)
        seconds = round(time.perf_counter() - began, 1)
        table.append([name, seconds, *judged(model, test, temperatures)])
        print(*table[-1], sep="\t", flush=True)
    if not options.quick and not options.validate:
        save_results(
            "semi_restricted_bm",
            f"Log density of {n_test:,} natural patches of 8 x 8 pixels",
            COLUMNS,
            table,
            notes=f"{k} hidden units, {epochs} epochs, {n:,} rows, {options.threads} threads. "
            f"Pixels in [0, 1], means kept. Annealing: 100 chains, {temperatures:,} temperatures.",
        )


if __name__ == "__main__":
    main()
