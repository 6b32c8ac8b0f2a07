"""Held-out log density of natural 8 x 8 patches: how far mixtures get beyond one Gaussian.

The ladder of Zoran and Weiss, "From learning models of natural image patches to whole image
restoration", ICCV 2011: independent pixels, a Gaussian, mixtures of Gaussians. Preprocessing is
that of the density-estimation literature for 63 features: uniform noise of one grey level, grey
levels in [0, 1], each patch minus its own mean, last pixel left out. Patches of every fifth
photograph are held out. Needs ``natural_images.npz`` in the folder of ``SKLEBM_DATA``.

    python benchmarks/bench_patches.py [--rows 100000] [--threads 1]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
from _common import save_results, set_threads
from sklearn.mixture import GaussianMixture

from sklebm import EnergyGaussianMixture, GaussianEnergy, PCAWhitener

SIZE, MARGIN = 8, 3  # some photographs have a dark frame


def cut(images, n_rows, generator):
    """Patches at random places, as many from each image, 63 features each."""
    rows = np.empty((n_rows, SIZE, SIZE))
    for row in range(n_rows):
        image = images[row * len(images) // n_rows]
        top, left = (generator.integers(MARGIN, side - MARGIN - SIZE) for side in image.shape)
        rows[row] = image[top : top + SIZE, left : left + SIZE]
    rows = (rows + generator.uniform(size=rows.shape)) / 256
    rows -= rows.mean(axis=(1, 2), keepdims=True)
    return rows.reshape(n_rows, -1)[generator.permutation(n_rows), :-1]


def load(n_rows):
    """Training and held-out patches, from different photographs."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("This benchmark needs natural_images.npz in the folder named by SKLEBM_DATA.")
    archive = np.load(Path(folder) / "natural_images.npz")
    images = [archive[name] for name in sorted(archive.files) if name.startswith("img_")]
    generator = np.random.default_rng(0)
    held_out = cut(images[::5], 50_000, generator)
    return cut([image for i, image in enumerate(images) if i % 5], n_rows, generator), held_out


def main():
    """Fit the ladder, score what was held out, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    set_threads(options.threads)
    train, held_out = load(options.rows)
    settings = {"max_iter": 40, "random_state": 0}
    ladder = {
        "GaussianEnergy, diagonal": GaussianEnergy(structure="diagonal"),
        "PCAWhitener (a Gaussian)": PCAWhitener(),
        "EnergyGaussianMixture, K = 10": EnergyGaussianMixture(10, **settings),
        "scikit-learn GaussianMixture, K = 10": GaussianMixture(10, **settings),
        "EnergyGaussianMixture, K = 50": EnergyGaussianMixture(50, **settings),
        "EnergyGaussianMixture, K = 200": EnergyGaussianMixture(200, **settings),
    }
    rows = []
    for name, model in ladder.items():
        start = time.perf_counter()
        model.fit(train)
        seconds = time.perf_counter() - start
        scores = model.score_samples(held_out)
        error = scores.std() / np.sqrt(len(scores))
        in_training = float(model.score_samples(train[:20_000]).mean())
        figures = [float(scores.mean()), float(error), in_training]
        rows.append([name, *(round(figure, 2) for figure in figures), round(seconds, 1)])
        print(*rows[-1], sep="\t", flush=True)
    save_results(
        "patches",
        "Held-out log density of natural 8 x 8 patches",
        ["model", "held out (nats a patch)", "standard error", "training rows", "fit (s)"],
        rows,
        notes=f"{options.rows:,} patches of 48 photographs, 50,000 of 12 others. Uniform noise of "
        "one grey level, grey levels divided by 256, each patch minus its mean, last pixel left "
        "out: 63 features. Mixtures: full covariances, at most 40 EM steps. The standard error "
        "takes patches as independent. On BSDS300, with more photographs and steps, 96.7 for the "
        "Gaussian and about 152.8 for 200 Gaussians are published; the photographs here are 60 of "
        f"that collection. float64, {options.threads} thread(s); seconds on a machine with other "
        "work.",
    )


if __name__ == "__main__":
    main()
