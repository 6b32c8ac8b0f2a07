"""Adversarial models: modes covered, digits covered, and what the critics' energies tell apart.

- `modes`: a ring of 8 and a grid of 25 Gaussians in the plane, five seeds: modes that hold at least
  a tenth of their share, samples within 4 standard deviations, the energy distance of samples to
  new rows, and that to held-out rows by epoch. `--development` counts those of a ring of 6 and a
  lattice of 9 with other noise and another seed, for choosing settings.
- `mnist`: samples of convolutional models, sorted by a classifier: the smallest share of a digit.
- `energies`: AUROC of the energies of an EnergyGAN of MNIST against uniform noise and Fashion.
- `algebra`: mean latents of thick threes minus thin threes plus thin sevens, the class of what this
  decodes to, and its thickness: twice the ink over the total variation, which for a stroke with
  sharp edges is its width in pixels. `--figure FILE` draws what the four latents decode to.

The last three need the folder of data sets named by SKLEBM_DATA.

    python benchmarks/bench_adversarial.py modes [--quick] [--epochs 100] [--development]
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
import torch
from _common import save_results, set_threads
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

from sklebm import GAN, EnergyGAN
from sklebm.objectives.adversarial import energy_distance

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


def ring(n_modes: int, radius: float) -> Any:
    """Means on a circle."""
    angle = 2 * np.pi * np.arange(n_modes) / n_modes
    return radius * np.c_[np.cos(angle), np.sin(angle)]


def lattice(n_sides: int) -> Any:
    """Means on a square lattice of distance 2."""
    side = 2.0 * np.arange(n_sides) - (n_sides - 1)
    return np.stack([part.ravel() for part in np.meshgrid(side, side)], axis=1)


#: Means and standard deviations.
WORLDS = {"ring": (ring(8, 2.0), 0.05), "grid": (lattice(5), 0.1)}
DEVELOPMENT = {"ring of 6": (ring(6, 3.0), 0.1), "lattice of 9": (lattice(3), 0.08)}


def make(kind: str, seed: int, options: argparse.Namespace) -> Any:
    """The model of the plane; settings chosen with ``--development``."""
    common: dict[str, Any] = {"validation_fraction": 0.1, "random_state": seed}
    if options.quick:
        common["max_epochs"] = 3
    elif options.epochs is not None:
        common["max_epochs"] = options.epochs
    if kind == "EnergyGAN":
        return EnergyGAN(2, margin=0.5, hidden_sizes=(128, 128), batch_size=256, **common)
    return GAN(2, **common)


def count_modes(options: argparse.Namespace) -> None:
    """Modes of rings and grids."""
    rows: Rows = []
    worlds = DEVELOPMENT if options.development else WORLDS
    for kind in ("GAN", "EnergyGAN"):
        for shape, (centres, noise) in worlds.items():
            rng = np.random.default_rng(100 if options.development else 0)

            def draw(n: int, rng: Any = rng, centres: Any = centres, noise: float = noise) -> Any:
                return centres[rng.integers(len(centres), size=n)] + noise * rng.normal(size=(n, 2))

            X = draw(1000 if options.quick else 10_000)
            new = torch.from_numpy(draw(2000) / X.std(axis=0))
            found = []
            for seed in range(1 if options.quick or options.development else 5):
                model = make(kind, 1000 + seed if options.development else seed, options).fit(X)
                samples = model.sample(10_000, random_state=0)
                away = np.linalg.norm(samples[:, None] - centres, axis=2)
                near = away.min(axis=1) < 4 * noise
                counts = np.bincount(away.argmin(axis=1)[near], minlength=len(centres))
                modes = int((counts >= 0.1 * len(samples) / len(centres)).sum())
                distance = energy_distance(torch.from_numpy(samples[:2000] / X.std(axis=0)), new)
                found.append([modes, 100 * near.mean(), distance])
                curve = -model.validation_scores_[:: max(1, model.n_iter_ // 10)]
                print(kind, shape, seed, np.round(found[-1], 4), np.round(curve, 3), flush=True)
            middle = np.median(found, axis=0)
            rows.append([kind, shape, len(centres), *(round(float(v), 3) for v in middle)])
    columns = ["model", "modes of", "there are", "found", "near %", "energy distance"]
    epochs = (
        "As many epochs as by default" if options.epochs is None else f"{options.epochs} epochs"
    )
    notes = f"{epochs}, of 9,000 rows; two latents, all else of GAN as by default."
    show("adversarial_modes", "Modes in the plane, medians of seeds", columns, rows, notes)


def image_model(options: argparse.Namespace, kind: Any = EnergyGAN) -> Any:
    """Convolutional players for 28 x 28 images."""
    return kind(
        64,
        image_shape=(28, 28),
        hidden_sizes=(32, 64),
        max_epochs=1 if options.quick else 20,
        random_state=0,
        device=options.device,
    )


def digit_judge(X: Any, y: Any, options: argparse.Namespace) -> Any:
    """A classifier of digits, learnt from the training images."""
    n, epochs = (1000, 5) if options.quick else (len(X), 15)
    return MLPClassifier((256,), max_iter=epochs, random_state=0).fit(X[:n], y[:n])


def cover_digits(options: argparse.Namespace) -> None:
    """Shares of the digits among samples."""
    X, X_test, y, y_test = load("mnist.npz")
    n = 1000 if options.quick else len(X)
    judge = digit_judge(X, y, options)
    rows: Rows = []
    for kind in (GAN, EnergyGAN):
        begin = time.perf_counter()
        model = image_model(options, kind).fit(X[:n])
        minutes = (time.perf_counter() - begin) / 60
        labels = judge.predict(model.sample(5000, random_state=0))
        shares = np.bincount(labels, minlength=10) / 50
        found = [round(minutes, 1), int((shares >= 4).sum()), round(float(shares.min()), 2)]
        rows.append([kind.__name__, *found])
    notes = f"Accuracy of the classifier on test digits: {judge.score(X_test, y_test):.3f}."
    columns = ["model", "minutes", "digits above 4 %", "least %"]
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


def thickness(rows: Any) -> Any:
    """Mean width of the strokes of each image, in pixels."""
    images = np.pad(rows.reshape(-1, 28, 28), ((0, 0), (1, 1), (1, 1)))
    down, across = (np.diff(images, axis=axis) for axis in (1, 2))
    edges = np.hypot(down[:, :, :-1], across[:, :-1]).sum(axis=(1, 2))
    return 2.0 * images.sum(axis=(1, 2)) / edges


def add_latents(options: argparse.Namespace) -> None:
    """Thickness of thick threes - thin threes + thin sevens."""
    X, _, y, _ = load("mnist.npz")
    model = image_model(options, GAN).fit(X[: 1000 if options.quick else None])
    judge, width = digit_judge(X, y, options), thickness(X)
    n = 5 if options.quick else 50

    def ends(digit: int) -> tuple[Any, Any]:
        rows = np.flatnonzero(y == digit)
        order = rows[np.argsort(width[rows])]
        return X[order[:n]], X[order[-n:]]

    (thin3, thick3), (thin7, thick7) = ends(3), ends(7)
    a, b, c = (model.invert(rows).mean(axis=0) for rows in (thick3, thin3, thin7))
    latents = {"thick threes": a, "thin threes": b, "thin sevens": c, "the sum": a - b + c}
    decoded = model.generate(np.array(list(latents.values())))
    rows: Rows = [
        [f"{n} {name}", "-", round(float(thickness(images).mean()), 3)]
        for name, images in (("thin sevens", thin7), ("thick sevens", thick7))
    ]
    for name, image, digit in zip(latents, decoded, judge.predict(decoded), strict=True):
        rows.append([f"decoded: {name}", int(digit), round(float(thickness(image)[0]), 3)])
    if options.figure:
        draw(decoded, list(latents), options.figure)
    columns = ["images", "class", "thickness (pixels)"]
    show("adversarial_algebra", "Latents that are added", columns, rows)


def draw(images: Any, names: list[str], path: str) -> None:
    """What the latents of the sum decode to, with their signs."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(images), figsize=(9, 2.6), layout="constrained")
    for ax, image, name, sign in zip(axes, images, names, ("", "- ", "+ ", "= "), strict=True):
        ax.imshow(image.reshape(28, 28), cmap="gray_r", vmin=0, vmax=1)
        ax.set_title(sign + name)
        ax.set_axis_off()
    figure.savefig(path, dpi=80)


SECTIONS = {
    "modes": count_modes,
    "mnist": cover_digits,
    "energies": compare_energies,
    "algebra": add_latents,
}


def show(name: str, title: str, columns: list[str], rows: Rows, notes: str = "") -> None:
    """Print a table, and store it unless the run was quick."""
    print(title, columns, *rows, notes, sep="\n")
    if not (parsed.quick or parsed.development or parsed.print_only):
        save_results(name, title, columns, rows, notes=notes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sections", nargs="+", choices=sorted(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is stored")
    parser.add_argument("--epochs", type=int, help="of the plane; the models' own if left out")
    parser.add_argument("--development", action="store_true", help="worlds for choosing settings")
    parser.add_argument("--print-only", action="store_true", help="nothing is stored")
    parser.add_argument("--figure", help="file for the drawing of `algebra`")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parsed = parser.parse_args()
    set_threads(parsed.threads)
    warnings.simplefilter("ignore")
    for section in parsed.sections:
        SECTIONS[section](parsed)
