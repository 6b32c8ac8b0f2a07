"""MNIST through triangle codes of 6 x 6 patches and a linear classifier.

The recipe of Coates, Lee and Ng, "An analysis of single-layer networks in unsupervised feature
learning", AISTATS 2011: patches normalised for brightness and contrast, whitened, coded by their
distances to k-means centroids (``output="triangle"``), summed over four quadrants, standardised,
and classified by a linear machine with the squared hinge loss. Needs ``mnist.npz`` in the folder of
``SKLEBM_DATA``.

    python benchmarks/bench_triangle_features.py [--centroids 400] [--threads 2]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from _common import save_results, set_threads

from sklebm import EnergyKMeans, ZCAWhitener

SIZE = 6


def patches_of(images):
    """Every patch of every image, brightness and contrast removed: (n, places, 36)."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (SIZE, SIZE), axis=(1, 2))
    rows = windows.reshape(len(images), -1, SIZE * SIZE).astype(np.float32)
    rows -= rows.mean(axis=-1, keepdims=True)
    # 10 grey levels of 255: blank patches stay blank.
    return rows / np.sqrt(rows.var(axis=-1, keepdims=True) + (10 / 255) ** 2)


def pooled(images, whitener, centroids):
    """Codes of all patches, summed over the four quadrants of each image."""
    side = images.shape[1] - SIZE + 1
    half, features = (side + 1) // 2, []
    for start in range(0, len(images), 50):
        rows = patches_of(images[start : start + 50])
        codes = centroids.transform(whitener.transform(rows.reshape(-1, SIZE * SIZE)))
        codes = codes.reshape(len(rows), side, side, -1)
        quadrants = [
            codes[:, part, :][:, :, other].sum(axis=(1, 2))
            for part in (slice(0, half), slice(half, None))
            for other in (slice(0, half), slice(half, None))
        ]
        features.append(np.concatenate(quadrants, axis=1).astype(np.float32))
    return np.concatenate(features)


def outputs(X, weights):
    """What the ten machines say of each row."""
    return torch.nn.functional.linear(X, weights[:, :-1], weights[:, -1])


def linear_machine(X, y, ridge, n_steps=150):
    """Weights that minimise the squared hinge loss of ten one-against-all machines, by L-BFGS.

    One row for each machine, the last column its offset: with machines in rows both products of a
    step run along the features, five times as fast as with machines in columns.
    """
    X = torch.from_numpy(X)
    signs = 2.0 * torch.nn.functional.one_hot(torch.from_numpy(y).long(), 10).float() - 1.0
    weights = torch.zeros(10, X.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=n_steps, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss():
        optimizer.zero_grad()
        margins = torch.relu(1.0 - signs * outputs(X, weights))
        value = margins.square().sum(dim=1).mean() + ridge * weights[:, :-1].square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weights.detach()


def predictions(X, weights):
    """The class of the largest output."""
    return outputs(torch.from_numpy(X), weights).argmax(dim=1).numpy()


def run(images, labels, n_centroids):
    """One row of the table: the ridge is chosen on the last 10,000 training images."""
    begin = time.perf_counter()
    generator = np.random.default_rng(0)
    places = (images[0].shape[1] - SIZE + 1) ** 2
    some = patches_of(images[0][generator.choice(60_000, 4000, replace=False)])
    rows = some.reshape(-1, SIZE * SIZE)[generator.choice(4000 * places, 400_000, replace=False)]
    rows = rows[np.abs(rows).max(axis=1) > 0]  # most patches are blank and need no centroid
    whitener = ZCAWhitener(ridge=0.1).fit(rows)
    white = whitener.transform(rows)
    centroids = EnergyKMeans(
        n_centroids, output="triangle", max_iter=50, batch_size=4096, random_state=0
    ).fit(white)
    learnt = time.perf_counter() - begin
    train, test = (pooled(part, whitener, centroids) for part in images)
    mean, scale = train.mean(axis=0), np.sqrt(train.var(axis=0) + 0.01)
    train, test = (train - mean) / scale, (test - mean) / scale
    errors = {}
    for ridge in (1e-4, 3e-4, 1e-3):
        weights = linear_machine(train[:50_000], labels[0][:50_000], ridge)
        errors[ridge] = float((predictions(train[50_000:], weights) != labels[0][50_000:]).mean())
        print("validation", ridge, errors[ridge], flush=True)
    best = min(errors, key=errors.get)
    weights = linear_machine(train, labels[0], best)
    error = float((predictions(test, weights) != labels[1]).mean())
    total = time.perf_counter() - begin
    row = [n_centroids, round(100 * error, 2), best, round(learnt), round(total)]
    print(*row, sep="\t", flush=True)
    return row


def main():
    """Run for each number of centroids and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--centroids", type=int, nargs="+", default=[400])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("This benchmark needs mnist.npz in the folder named by SKLEBM_DATA.")
    set_threads(options.threads)
    mnist = np.load(Path(folder) / "mnist.npz")
    images = [(mnist[key] / 255.0).astype(np.float32) for key in ("x_train", "x_test")]
    labels = [mnist[key] for key in ("y_train", "y_test")]
    rows = [run(images, labels, n_centroids) for n_centroids in options.centroids]
    save_results(
        "triangle_features",
        "MNIST through triangle codes of patches",
        ["centroids", "test error (%)", "ridge", "learning codes (s)", "in all (s)"],
        rows,
        notes="6 x 6 patches at stride 1, ZCA with a ridge of 0.1, mini-batch k-means on 400,000 "
        "patches less the blank ones, sums over 2 x 2 quadrants, squared hinge loss (at most "
        "150 steps of L-BFGS that keep ten pairs, from zero), the ridge chosen on the last 10,000 "
        "training images and the machine trained again on all 60,000. float32 features, "
        f"{options.threads} thread(s); seconds beside other work.",
    )


if __name__ == "__main__":
    main()
