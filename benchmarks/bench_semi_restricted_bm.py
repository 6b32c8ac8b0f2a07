"""Log densities of natural 8 x 8 patches with and without lateral couplings.

SemiRestrictedBM and GaussianRBM with equally many hidden units, and GaussianEnergy with a full
covariance, on the same rows. Held-out means are given at both ends of the interval of log Z, which
is annealed; that of GaussianEnergy is exact. Defaults, but for the number of epochs. The 60
photographs are divided into six groups, each left out once: photographs differ by tens of nats, and
one group would say little. When chains are reset (``reset_above``) was chosen with GaussianRBM, on
groups 2 and 4 among others. ``--validate`` scores other places of the photographs learnt from.

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

COLUMNS = [
    "photographs left out",
    "model",
    "fit (s)",
    "held-out log density (nats)",
    "at the ends of log Z",
    "beyond GaussianEnergy (nats)",
]
SIZE, N_FOLDS, N_PHOTOGRAPHS = 8, 6, 60


def patches(n_rows: int, fold: int, *, left_out: bool, seed: int) -> np.ndarray:
    """Patches with their mean, from random places of the photographs of a fold or all others."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("This benchmark needs natural_images.npz in the folder named by SKLEBM_DATA.")
    images = np.load(Path(folder) / "natural_images.npz")
    names = sorted(name for name in images.files if name.startswith("img_"))
    places = np.arange(N_PHOTOGRAPHS) // (N_PHOTOGRAPHS // N_FOLDS)
    names = np.random.default_rng(0).permutation(names)[(places == fold) == left_out].tolist()
    generator = np.random.default_rng([seed, fold])
    rows = []
    for name in names:
        image = images[name].astype(float) / 255
        for _ in range(n_rows // len(names) + 1):
            top, left = (int(generator.integers(side - SIZE)) for side in image.shape)
            rows.append(image[top : top + SIZE, left : left + SIZE].ravel())
    return np.array(rows)[generator.permutation(len(rows))[:n_rows]]


def judged(model: Any, test: np.ndarray, temperatures: int) -> tuple[float, float, float]:
    """Held-out mean, and its ends if log Z is annealed."""
    if isinstance(model, GaussianEnergy):
        value = float(model.score_samples(test).mean())
        return value, value, value
    model.estimate_log_partition("ais", n_temperatures=temperatures, random_state=0)
    value = float(model.score_samples(test).mean())
    low, high = (float(value + model.log_partition_ - z) for z in model.log_partition_interval_)
    return value, high, low


def measured(fold: int, options: argparse.Namespace, sizes: tuple[int, int, int]) -> list[Any]:
    """Fit the models to all other photographs, one after the other, and judge them."""
    n_rows, n_test, temperatures = sizes
    train = patches(n_rows, fold, left_out=False, seed=1)
    test = patches(n_test, fold, left_out=not options.validate, seed=2)
    shared = {"max_epochs": options.epochs, "log_partition": None, "random_state": 0}
    models = {
        "GaussianEnergy": GaussianEnergy(),
        "GaussianRBM": GaussianRBM(options.n_components, device="cpu", **shared),
        "SemiRestrictedBM": SemiRestrictedBM(options.n_components, device="cpu", **shared),
    }
    table, plain = [], 0.0
    for name, model in models.items():
        began = time.perf_counter()
        model.fit(train)
        seconds = round(time.perf_counter() - began, 1)
        value, low, high = judged(model, test, temperatures)
        if name == "GaussianEnergy":
            plain = value
        ends = "exact" if low == high else f"{low:.2f} to {high:.2f}"
        table.append([fold + 1, name, seconds, round(value, 2), ends, round(value - plain, 2)])
        print(*table[-1], sep="\t", flush=True)
    return table


def means(table: list[Any]) -> list[Any]:
    """The mean over folds of each model."""
    rows = []
    for name in dict.fromkeys(row[1] for row in table):
        own = [row for row in table if row[1] == name]
        seconds, value, beyond = (float(np.mean([row[i] for row in own])) for i in (2, 3, 5))
        rows.append(["mean", name, round(seconds, 1), round(value, 2), "", round(beyond, 2)])
        print(*rows[-1], sep="\t", flush=True)
    return rows


def main() -> None:
    """Fit and judge in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-components", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument(
        "--validate", action="store_true", help="score rows of photographs learnt from"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="tiny sizes; nothing is saved")
    options = parser.parse_args()
    set_threads(options.threads)
    sizes, folds = (options.rows, 5000, 5000), range(N_FOLDS)
    if options.quick:
        sizes, folds = (1000, 500, 100), range(2)
        options.n_components, options.epochs = 18, 2
    table = [row for fold in folds for row in measured(fold, options, sizes)]
    table += means(table)
    if not options.quick and not options.validate:
        save_results(
            "semi_restricted_bm",
            f"Log density of natural patches of {SIZE} x {SIZE} pixels, by photographs left out",
            COLUMNS,
            table,
            notes=f"{options.n_components} hidden units, {options.epochs} epochs, "
            f"{sizes[0]:,} rows of 50 photographs, {sizes[1]:,} rows of the 10 others; "
            f"{options.threads} threads. Pixels in [0, 1], means kept. Annealing: 100 chains, "
            f"{sizes[2]:,} temperatures.",
        )


if __name__ == "__main__":
    main()
