"""Means, covariances, or both: log densities of natural patches, and features of photographs.

**Log densities.** Whitened patches of 8 x 8 and 16 x 16 pixels. GaussianRBM, the covariance RBM and
the machine with both kinds have the same number of hidden units in all; each learns in whole epochs
for the same time. log p of held-out patches is bracketed by annealing in both
directions: machines whose brackets overlap are not ranked.

**Features.** ``cifar10_small.npz``: patches of 8 x 8 x 3, normalised and whitened; the means of the
hidden units at every place, pooled over four quadrants, into a linear classifier with the squared
hinge loss. The same number of units for all machines; the ridge is chosen on a fifth of the
training images. Whitening and number of passes were chosen with 128 units on training images
alone, for means and for both kinds: PCA that keeps 95 % of the variance was best for both (of 90,
95 and 99 %, ZCA with a ridge of 0.1 and 0.01, and ZCA of patches of their own contrast), then, of
5, 10 and 20 passes, 20 for means and 10 for both kinds.

Needs ``natural_images.npz`` and ``cifar10_small.npz`` in the folder of ``SKLEBM_DATA``.

    python benchmarks/bench_mean_covariance_rbm.py [--quick] [--only densities]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _common import save_results, set_threads
from _patches import plain_patches
from bench_triangle_features import linear_machine, predictions

from sklebm import GaussianRBM, MeanCovarianceRBM, PCAWhitener

FIELD = 8  # pixels of a patch of CIFAR-10
# Share of the variance of these patches that is kept: best for means and for both kinds together;
# covariances alone were tried with 99 % only.
KEPT = 0.95


def machines(n_hidden: int, seed: int) -> dict[str, Any]:
    """Three machines of equal numbers of hidden units."""
    shared = {"random_state": seed, "log_partition": None}
    half = n_hidden // 2
    return {
        "means": GaussianRBM(n_hidden, **shared),
        "covariances": MeanCovarianceRBM(0, n_hidden, **shared),
        "means and covariances": MeanCovarianceRBM(half, n_hidden - half, **shared),
    }


def trained_for(model: Any, X: Any, seconds: float, chunk: int) -> tuple[Any, float]:
    """Learn in whole passes until the time is over; the pace of one pass sets their number."""
    model.set_params(max_epochs=1).fit(X[:chunk])  # what is slow but once, such as imports
    start = time.perf_counter()
    model.fit(X)
    pace = time.perf_counter() - start
    n_epochs = max(1, round(seconds / pace))
    start = time.perf_counter()
    model.set_params(max_epochs=n_epochs).fit(X)
    return model, time.perf_counter() - start


def densities(quick: bool) -> list[list[Any]]:
    """Held-out log density of each machine, between the ends of its bracket."""
    found = []
    for size in (8,) if quick else (8, 16):
        n_hidden, n_rows = (32, 4000) if quick else (size * size * 4, 100_000)
        seconds = 5.0 if quick else (300.0 if size == 8 else 900.0)
        patches = plain_patches(n_rows + 5000, size)
        whitener = PCAWhitener(0.99).fit(patches[5000:])
        rows = np.asarray(whitener.transform(patches), np.float32)
        test, train = rows[:5000], rows[5000:]
        d = rows.shape[1]
        normal = -0.5 * float((test**2).sum(axis=1).mean()) - 0.5 * d * np.log(2 * np.pi)
        found.append([f"{size} x {size}", d, "Gaussian", 0, round(normal, 2), round(normal, 2), 0])
        for name, model in machines(n_hidden, 0).items():
            model, spent = trained_for(model, train, seconds, 2000)
            effort = {"n_temperatures": 100} if quick else {}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the bracket says how uncertain log Z is
                model.estimate_log_partition("ais", random_state=0, **effort)
            low, high = model.log_partition_interval_
            mean = -float(model.free_energy(test).mean())
            bracket = [round(mean - high, 2), round(mean - low, 2)]
            found.append([f"{size} x {size}", d, name, n_hidden, *bracket, round(spent)])
            print(*found[-1], sep="\t", flush=True)
    return found


def windows(images: Any) -> Any:
    """Normalised patches at every other place: (n, places, FIELD * FIELD * 3)."""
    views = np.lib.stride_tricks.sliding_window_view(images, (FIELD, FIELD), axis=(1, 2))
    views = views[:, ::2, ::2].transpose(0, 1, 2, 4, 5, 3)
    rows = views.reshape(len(images), -1, FIELD * FIELD * 3).astype(np.float32)
    rows = rows - rows.mean(axis=-1, keepdims=True)
    return rows / np.sqrt(rows.var(axis=-1, keepdims=True) + (10 / 255) ** 2)


def pooled(images: Any, whitener: Any, model: Any) -> Any:
    """Codes of all patches, summed over the four quadrants of each image."""
    side = (images.shape[1] - FIELD) // 2 + 1
    half, features = (side + 1) // 2, []
    parts = (slice(0, half), slice(half, None))
    for start in range(0, len(images), 50):
        rows = windows(images[start : start + 50])
        codes = model.transform(whitener.transform(rows.reshape(-1, rows.shape[2])))
        codes = codes.reshape(len(rows), side, side, -1)
        quadrants = [codes[:, i][:, :, j].sum(axis=(1, 2)) for i in parts for j in parts]
        features.append(np.concatenate(quadrants, axis=1).astype(np.float32))
    return np.concatenate(features)


def accuracy(model: Any, whitener: Any, data: Any) -> float:
    """Test accuracy in percent, the ridge chosen on a fifth of the training images."""
    images, labels, test_images, test_labels = data
    train, test = (pooled(part, whitener, model) for part in (images, test_images))
    mean, scale = train.mean(axis=0), np.sqrt(train.var(axis=0) + 0.01)
    train, test = (train - mean) / scale, (test - mean) / scale
    cut = len(train) * 4 // 5
    errors = {}
    for ridge in (1e-3, 3e-3, 1e-2, 3e-2):
        weights = linear_machine(train[:cut], labels[:cut], ridge)
        errors[ridge] = float((predictions(train[cut:], weights) != labels[cut:]).mean())
    weights = linear_machine(train, labels, min(errors, key=errors.__getitem__))
    return 100 * float((predictions(test, weights) == test_labels).mean())


def features(quick: bool, n_hidden: int, n_rows: int, epochs: dict[str, int]) -> list[list[Any]]:
    """Accuracy of a linear classifier on the hidden units of each machine."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("This benchmark needs cifar10_small.npz in the folder named by SKLEBM_DATA.")
    with np.load(Path(folder) / "cifar10_small.npz", allow_pickle=False) as file:
        names = ("x_train", "y_train", "x_test", "y_test")
        data = [file[name] for name in names]
    n_images = 200 if quick else len(data[0])
    data = [part[:n_images] for part in data]
    data[0], data[2] = ((part / 255.0).astype(np.float32) for part in (data[0], data[2]))
    data[1], data[3] = (np.asarray(part).ravel() for part in (data[1], data[3]))
    generator = np.random.default_rng(0)
    some = data[0][generator.permutation(len(data[0]))[:2000]]
    rows = windows(some).reshape(-1, FIELD * FIELD * 3)
    rows = rows[generator.permutation(len(rows))[:n_rows]]
    whitener = PCAWhitener(KEPT).fit(rows)
    white = np.asarray(whitener.transform(rows), np.float32)
    found = []
    for name, model in machines(n_hidden, 0).items():
        start = time.perf_counter()
        model.set_params(max_epochs=1 if quick else epochs.get(name, 10)).fit(white)
        spent = time.perf_counter() - start
        found.append([name, n_hidden, round(accuracy(model, whitener, data), 2), round(spent)])
        print(*found[-1], sep="\t", flush=True)
    return found


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small machines, no record")
    parser.add_argument("--only", choices=("densities", "features"))
    parser.add_argument("--units", type=int, default=256, help="hidden units of the features")
    parser.add_argument("--patches", type=int, default=40_000, help="that they learn from")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    set_threads(options.threads)
    if options.only != "features":
        rows = densities(options.quick)
        if not options.quick:
            save_results(
                "mean_covariance_densities",
                "Natural patches: means, covariances, or both",
                ["pixels", "dimensions", "hidden units", "units", "least nats", "most nats", "s"],
                rows,
                notes="100,000 patches without their mean, of length one, whitened to 99 % of the "
                "variance; 5,000 others are scored. Least and most: mean log p at both ends of the "
                "interval of log Z, annealed in both directions by 100 chains and at least 1000 "
                "temperatures. Training of equal length for all machines. "
                f"{options.threads} thread(s).",
            )
    if options.only != "densities":
        sizes = (32, 5000) if options.quick else (options.units, options.patches)
        rows = features(options.quick, *sizes, {"means": 20})
        if not options.quick:
            save_results(
                "mean_covariance_features",
                "CIFAR-10 (small): hidden units of means, covariances, or both as features",
                ["hidden units", "units", "test accuracy (%)", "learning (s)"],
                rows,
                notes="Patches of 8 x 8 x 3 at every other place, normalised, whitened by PCA that "
                f"keeps {KEPT:.0%} of the variance; {options.patches:,} patches, 20 passes for "
                "means, 10 for the others. This whitening and these passes were best on training "
                "images alone, with 128 units (see the script). Sums over 2 x 2 quadrants; squared "
                "hinge loss, the ridge chosen on a fifth of the training images. "
                f"{options.threads} thread(s).",
            )


if __name__ == "__main__":
    main()
