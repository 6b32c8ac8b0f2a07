"""A constrained Gaussian and two-layer energies of natural patches: filters, densities, modes.

The exercise of Hyvarinen and Gutmann's lectures, at its size: 50,000 patches of 28 x 28 pixels,
grey levels in [0, 1]. A Gaussian whose precision joins pixels at most two apart, by score matching;
then two-layer energies, 64 experts on 64 sigmoids, with sigma 1 and 0.1, on the patches as they are
and on their whitened components, by noise-contrastive estimation. For each:

- mean and standard deviation of log p, in nats a patch, of held-out patches, of draws from that
  Gaussian, and of MNIST's digits; and AUROC of log p for patches against the draws;
- whether the density check of the learnt normaliser is passed (see ``check_density``). Where it is
  not, log Z is annealed, and where the two directions of annealing are more than 20 nats apart the
  table says that there is none: order and AUROC do not depend on it;
- the share of first-layer filters that a Gabor function fits with R^2 of at least 0.6;
- the number of different patches at which descent from 200 held-out patches ends (modes).

A fifth setting asks what it takes for filters to be local: patches without their mean and of equal
contrast, of which the 64 components of the largest variance are whitened, so that neither contrast
nor the finest details are left to be explained, and ten times as many passes. It was chosen among
five by the filters of 20,000 patches of the training photographs; those held out took no part. The
share of Gabor filters is therefore that of the best of a few, and the AUROC is not.

Densities of whitened components are those of the components, so their nats compare with the first
Gaussian's only through AUROC. Patches of every fifth photograph are held out. Needs the folder of
``SKLEBM_DATA`` with ``natural_images.npz`` and MNIST; ``--figure FILE`` draws filters and modes.

    python benchmarks/bench_patch_energies.py [--quick] [--figure filters.png] [--validate]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _common import save_results, set_threads
from scipy.optimize import least_squares
from sklearn.metrics import roc_auc_score

from sklebm import DeepEnergyModel, GaussianEnergy, PCAWhitener

SIDE, RADIUS = 28, 2
COLUMNS = [
    "rows",
    "model",
    "log p of patches",
    "of the Gaussian's draws",
    "of digits",
    "AUROC",
    "log Z",
    "Gabor filters (%)",
    "modes",
    "fit (s)",
]


def load(n_rows: int, n_held_out: int, validate: bool) -> tuple[Any, Any, Any]:
    """Patches of four fifths of the photographs, of the last fifth, and MNIST's test digits."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("bench_patch_energies.py needs natural_images.npz: set SKLEBM_DATA to its folder")
    archive = np.load(Path(folder) / "natural_images.npz")
    images = [archive[key] for key in sorted(archive.files) if key.startswith("img_")]
    held_out = images[1::5] if validate else images[::5]
    train = [image for i, image in enumerate(images) if i % 5 > 1]
    digits = np.load(Path(folder) / "mnist.npz")["x_test"].reshape(-1, SIDE**2)[:n_held_out]
    generator = np.random.default_rng(0)
    parts = [cut(train, n_rows, generator), cut(held_out, n_held_out, generator)]
    return *parts, (digits / 255).astype(np.float32)


def cut(images: list[Any], n_rows: int, generator: np.random.Generator) -> Any:
    """Patches at random places inside the frames, as many from each image, in random order."""
    rows = np.empty((n_rows, SIDE, SIDE), np.float32)
    for row in range(n_rows):
        image = images[row * len(images) // n_rows]
        top, left = (generator.integers(3, size - 3 - SIDE) for size in image.shape)
        rows[row] = image[top : top + SIDE, left : left + SIDE] / 255
    return rows.reshape(n_rows, -1)[generator.permutation(n_rows)]


class View(NamedTuple):
    """What a model sees of patches, with which sigmas and how many times the passes it learns."""

    of: Callable[[Any], Any]
    whitens: Any = None
    sigmas: tuple[float, ...] = (1.0, 0.1)
    longer: int = 1


def of_equal_contrast(rows: Any) -> Any:
    """Patches without their mean, of standard deviation one unless they are nearly flat."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.sqrt(np.square(rows).mean(axis=1, keepdims=True) + 1e-4)


def gabor(p: Any, rows: Any, columns: Any) -> Any:
    """Envelope and wave: centre, widths, orientation, frequency, phase, amplitude."""
    top, left, along, across, angle, frequency, phase, amplitude = p
    u = (rows - top) * np.cos(angle) + (columns - left) * np.sin(angle)
    v = (columns - left) * np.cos(angle) - (rows - top) * np.sin(angle)
    envelope = np.exp(-0.5 * (u / along) ** 2 - 0.5 * (v / across) ** 2)
    return amplitude * envelope * np.cos(2 * np.pi * frequency * u + phase)


def gabor_fit(image: Any) -> float:
    """R^2 of the best of several fits, from the peak of the spectrum and that of the energy."""
    image = image / np.abs(image).max()
    rows, columns = np.mgrid[: len(image), : image.shape[1]]
    spectrum = np.abs(np.fft.fftshift(np.fft.fft2(image, (64, 64))))
    peak = np.unravel_index(spectrum.argmax(), spectrum.shape)
    by_row, by_column = ((place - 32) / 64 for place in peak)
    top, left = np.unravel_index(np.abs(image).argmax(), image.shape)
    centre_row, centre_column = (
        (image**2 * axis).sum() / (image**2).sum() for axis in (rows, columns)
    )
    lowest = np.array([-10, -10, 0.5, 0.5, -10, 0, -10, -10])
    best = 0.0
    for where in ((top, left), (centre_row, centre_column)):
        for width in (2.0, 5.0):
            for phase in (0.0, np.pi / 2):
                angle, frequency = np.arctan2(by_column, by_row), np.hypot(by_row, by_column)
                start = [*where, width, width, angle, frequency, phase, 1.0]
                highest = np.array([38, 38, 20, 20, 10, 0.5, 10, 10])
                fit = least_squares(
                    lambda p: (gabor(p, rows, columns) - image).ravel(),
                    np.clip(start, lowest + 1e-6, highest - 1e-6),
                    bounds=(lowest, highest),
                    max_nfev=60,
                )
                best = max(best, 1 - 2 * fit.cost / float((image**2).sum()))
    return best


def distinct(points: Any, scale: float) -> int:
    """How many points remain if those closer than a hundredth of the rows' spread are one."""
    kept: list[Any] = []
    for point in points:
        if all(np.linalg.norm(point - other) > 0.01 * scale for other in kept):
            kept.append(point)
    return len(kept)


def describe(model: Any, sets: dict[str, Any]) -> list[Any]:
    """log p of the sets, and AUROC of patches against draws of the Gaussian."""
    scores = {name: model.score_samples(rows) for name, rows in sets.items()}
    shown = [f"{values.mean():.0f} +- {values.std():.0f}" for values in scores.values()]
    both = np.concatenate([scores["patches"], scores["draws"]])
    labels = np.repeat([1, 0], [len(scores["patches"]), len(scores["draws"])])
    return [*shown, round(float(roc_auc_score(labels, both)), 3)]


def normaliser(model: Any) -> str:
    """What is known of log Z."""
    interval = model.log_partition_interval_
    if interval is None:
        return f"{model.log_partition_:.0f} (learnt)"
    low, high = interval
    return f"{low:.0f} to {high:.0f}" + (" (none)" if high - low > 20 else "")


def main() -> None:
    """Measure, print, and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few patches and passes, no record")
    parser.add_argument("--validate", action="store_true", help="other photographs; no record")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--figure", help="file to draw the filters and modes to")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    set_threads(options.threads)
    n_rows, n_held_out, epochs = (2000, 500, 2) if options.quick else (50_000, 5000, options.epochs)
    X, X_test, digits = load(n_rows, n_held_out, options.validate)
    started = time.perf_counter()
    gaussian = GaussianEnergy(
        "banded", objective="score_matching", image_shape=(SIDE, SIDE), radius=RADIUS
    ).fit(X)
    seconds = round(time.perf_counter() - started)
    draws = gaussian.sample(n_held_out, random_state=0).astype(np.float32)
    sets = {"patches": X_test, "draws": draws, "digits": digits}
    found = [["pixels", "Gaussian", *describe(gaussian, sets), "exact", "–", 1, seconds]]
    print(*found[-1], sep="  ", flush=True)
    whitener = PCAWhitener(n_components=0.99).fit(X)
    normalised = PCAWhitener(n_components=64).fit(of_equal_contrast(X))
    views: dict[str, View] = {
        "pixels": View(lambda x: x),
        "whitened": View(whitener.transform, whitener),
        "equal contrast, 64 components": View(
            lambda x: normalised.transform(of_equal_contrast(x)), normalised, (1.0,), 10
        ),
    }
    drawn = []
    for name, (view, whitens, sigmas, longer) in views.items():
        rows, seen = view(X), {key: view(value) for key, value in sets.items()}
        for sigma in sigmas:
            started = time.perf_counter()
            model = DeepEnergyModel(
                64,
                hidden_sizes=(64,),
                activation="sigmoid",
                sigma=sigma,
                max_epochs=longer * epochs,
                random_state=0,
                device="cpu",
            ).fit(rows)
            seconds = round(time.perf_counter() - started)
            filters = model.weights_["network.0.weight"]
            if whitens is not None:
                filters = filters @ whitens.components_
            filters = filters.reshape(-1, SIDE, SIDE)
            share = 100 * np.mean([gabor_fit(image) >= 0.6 for image in filters])
            modes = model.modes(seen["patches"][:200])
            spread = float(np.sqrt(np.square(rows - rows.mean(axis=0)).sum(axis=1).mean()))
            n_modes = distinct(modes, spread)
            row = [name, f"sigma {sigma:g}", *describe(model, seen), normaliser(model)]
            found.append([*row, round(float(share)), n_modes, seconds])
            print(*found[-1], sep="  ", flush=True)
            if whitens is not None:
                modes = whitens.inverse_transform(modes)
            drawn.append((f"{name}, sigma {sigma:g}", filters, modes[:64].reshape(-1, SIDE, SIDE)))
    if options.figure:
        draw(drawn, options.figure)
    if options.quick or options.validate:
        return
    save_results(
        "patch_energies",
        "A constrained Gaussian and two-layer energies of natural patches",
        COLUMNS,
        found,
        notes=f"{n_rows:,} patches of {SIDE} x {SIDE} pixels for training, {n_held_out:,} of other "
        f"photographs, as many draws of the Gaussian, as many MNIST digits; {epochs} epochs, "
        f"{10 * epochs} of equal contrast. log p as mean and standard deviation, in nats; of "
        f"whitened components, those of {whitener.n_components_} components. "
        f"{options.threads} threads; seconds on a machine with other work.",
    )


def draw(drawn: list[tuple[str, Any, Any]], path: str) -> None:
    """Filters above, modes below."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(drawn), figsize=(4 * len(drawn), 8), layout="constrained")
    for column, (title, *images) in enumerate(drawn):
        for axis, tiles in zip(axes[:, column], images, strict=True):
            tiles = tiles / np.abs(tiles).max(axis=(1, 2), keepdims=True)
            tiles = np.pad(tiles, ((0, 0), (1, 1), (1, 1)), constant_values=1)
            sheet = tiles[:64].reshape(8, 8, SIDE + 2, SIDE + 2).swapaxes(1, 2)
            axis.imshow(sheet.reshape(8 * (SIDE + 2), -1), cmap="gray")
            axis.axis("off")
        axes[0, column].set_title(f"filters: {title}")
        axes[1, column].set_title("modes")
    figure.savefig(path)


if __name__ == "__main__":
    main()
