"""Adversarial models: modes covered, digits covered, and what the critics' energies tell apart.

- `modes`: a ring of 8 and a grid of 25 Gaussians in the plane, five seeds: modes that hold at least
  a tenth of their share, samples within 4 standard deviations, and the energy distance to held-out
  rows by epoch.
- `mnist`: samples of a convolutional model, sorted by a classifier: the smallest share of a digit.
- `energies`: AUROC of the energies of an EnergyGAN of MNIST against uniform noise and Fashion.
- `algebra`: thick threes minus thin threes plus thin sevens, and the ink of what this decodes to.

The last three need the folder of data sets named by SKLEBM_DATA.

    python benchmarks/bench_adversarial.py modes [--quick]
    python benchmarks/bench_adversarial.py mnist energies algebra [--device cuda]
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
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from sklebm import EnergyGAN

Rows = list[list[object]]


def load(name: str) -> tuple[Any, ...]:
    """Images of a set as rows in [0, 1], training and test, with labels."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("SKLEBM_DATA is not set: this section needs the folder of data sets.")
    with np.load(Path(folder) / name, allow_pickle=False) as data:
        x = [data[f"x_{part}"].reshape(-1, 784).astype(np.float32) / 255 for part in PARTS]
        return *x, *(data[f"y_{part}"] for part in PARTS)


PARTS = ("train", "test")


def centres_of(kind: str) -> tuple[Any, float]:
    """Means and standard deviation of a ring of 8 or a grid of 25."""
    if kind == "ring":
        angle = 2 * np.pi * np.arange(8) / 8
        return 2.0 * np.c_[np.cos(angle), np.sin(angle)], 0.05
    side = np.linspace(-4, 4, 5)
    return np.stack([part.ravel() for part in np.meshgrid(side, side)], axis=1), 0.1


def make(seed: int, options: argparse.Namespace) -> Any:
    """The model of the plane."""
    common = {
        "n_components": 2,
        "hidden_sizes": (128, 128),
        "batch_size": 256,
        "max_epochs": 3 if options.quick else 400,
        "validation_fraction": 0.1,
        "random_state": seed,
    }
    return EnergyGAN(margin=0.5, **common)


def count_modes(options: argparse.Namespace) -> None:
    """Modes of rings and grids."""
    rows: Rows = []
    for shape in ("ring", "grid"):
        centres, noise = centres_of(shape)
        rng = np.random.default_rng(0)
        n = 1000 if options.quick else 10_000
        X = centres[rng.integers(len(centres), size=n)] + noise * rng.normal(size=(n, 2))
        found = []
        for seed in range(1 if options.quick else 5):
            begin = time.perf_counter()
            model = make(seed, options).fit(X)
            seconds = time.perf_counter() - begin
            samples = model.sample(10_000, random_state=0)
            away = np.linalg.norm(samples[:, None] - centres, axis=2)
            near = away.min(axis=1) < 4 * noise
            counts = np.bincount(away.argmin(axis=1)[near], minlength=len(centres))
            modes = int((counts >= 0.1 * len(samples) / len(centres)).sum())
            distance = -model.validation_scores_[-1]
            found.append([modes, 100 * near.mean(), distance, seconds])
            print(shape, seed, -model.validation_scores_[::20])
        middle = np.median(found, axis=0)
        rows.append([shape, len(centres), *(round(float(v), 3) for v in middle)])
    columns = ["modes of", "there are", "found", "near %", "energy distance", "s"]
    show("adversarial_modes", "Modes in the plane, medians of seeds", columns, rows)


def image_model(options: argparse.Namespace) -> Any:
    """Convolutional players for 28 x 28 images."""
    return EnergyGAN(
        64,
        image_shape=(28, 28),
        hidden_sizes=(32, 64),
        max_epochs=1 if options.quick else 20,
        random_state=0,
        device=options.device,
    )


def cover_digits(options: argparse.Namespace) -> None:
    """Shares of the digits among samples."""
    X, X_test, y, y_test = load("mnist.npz")
    n = 1000 if options.quick else len(X)
    judge = LogisticRegression(max_iter=200).fit(X[:10_000], y[:10_000])
    begin = time.perf_counter()
    model = image_model(options).fit(X[:n])
    minutes = (time.perf_counter() - begin) / 60
    shares = np.bincount(judge.predict(model.sample(5000, random_state=0)), minlength=10) / 50
    rows: Rows = [[round(minutes, 1), int((shares >= 4).sum()), round(shares.min(), 2)]]
    notes = f"Accuracy of the classifier on test digits: {judge.score(X_test, y_test):.3f}."
    columns = ["minutes", "digits above 4 %", "least %"]
    show("adversarial_mnist", "Digits among 5,000 samples", columns, rows, notes)


def compare_energies(options: argparse.Namespace) -> None:
    """AUROC of energies."""
    X, X_test, _, _ = load("mnist.npz")
    fashion = load("fashion_mnist_test.npz")[1]
    noise = np.random.default_rng(0).uniform(size=(2000, 784)).astype(np.float32)
    model = image_model(options).fit(X[: 1000 if options.quick else None])
    rows: Rows = []
    for name, others in (("uniform noise", noise), ("Fashion", fashion[:2000])):
        scores = model.free_energy(np.vstack([X_test[:2000], others]))
        rows.append([name, round(roc_auc_score(np.repeat([0, 1], 2000), scores), 4)])
    columns = ["MNIST against", "AUROC"]
    show("adversarial_energies", "Energies of an EnergyGAN", columns, rows)


def add_latents(options: argparse.Namespace) -> None:
    """Thickness, as mean ink, of thick threes - thin threes + thin sevens."""
    X, _, y, _ = load("mnist.npz")
    model = image_model(options).fit(X[: 1000 if options.quick else None])
    ink = X.mean(axis=1)

    def ends(digit: int) -> tuple[Any, Any]:
        rows = np.flatnonzero(y == digit)
        order = rows[np.argsort(ink[rows])]
        n = 5 if options.quick else 50
        return X[order[:n]], X[order[-n:]]

    (thin3, thick3), (thin7, thick7) = ends(3), ends(7)
    a, b, c = (model.invert(rows).mean(axis=0) for rows in (thick3, thin3, thin7))
    before, after = model.generate(c[None]).mean(), model.generate((a - b + c)[None]).mean()
    rows: Rows = [
        ["thin sevens", round(float(thin7.mean()), 4)],
        ["thick sevens", round(float(thick7.mean()), 4)],
        ["decoded from the mean latent of thin sevens", round(float(before), 4)],
        ["decoded from the sum", round(float(after), 4)],
    ]
    show("adversarial_algebra", "Latents that are added", ["images", "mean ink"], rows)


SECTIONS = {
    "modes": count_modes,
    "mnist": cover_digits,
    "energies": compare_energies,
    "algebra": add_latents,
}


def show(name: str, title: str, columns: list[str], rows: Rows, notes: str = "") -> None:
    """Print a table, and store it unless the run was quick."""
    print(title, columns, *rows, notes, sep="\n")
    if not parsed.quick:
        save_results(name, title, columns, rows, notes=notes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sections", nargs="+", choices=sorted(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is stored")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parsed = parser.parse_args()
    set_threads(parsed.threads)
    warnings.simplefilter("ignore")
    for section in parsed.sections:
        SECTIONS[section](parsed)
