"""Convolutional predictive sparse decomposition: what its encoder costs, and what is learnt.

Natural images in [0, 1] without their smooth part (Tikhonov 5), kernels of 9 x 9, alpha 0.05.
Encoders: energy of held-out windows above that of the optimal codes of the same kernels, with the
learning rate and the weight chosen on other windows. Redundancy: share of the filters that
correlate with a shift of another by more than 0.9, beside atoms of a predictive sparse
decomposition of patches, for 4, 16 and 64 filters. Features: linear classification of CIFAR-10 by
soft-threshold encoders of equal size whose filters were learnt from patches or from whole images,
with as many updates from the same images, rate and alpha of each chosen on held-out images.
Each part has a result file of its own; ``--only encoder``, ``redundancy`` or ``features`` runs one.
Needs SKLEBM_DATA. ``--quick`` runs a small version, and ``--windows`` and ``--epochs`` set the size
of the first two parts; these save nothing. ``--figure FILE`` draws the filters whose redundancy is
measured.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from _common import save_results, set_threads
from _probes import Chosen, choose_penalty, classifier, of_penalties
from scipy.signal import correlate2d
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.preprocessing import StandardScaler

from sklebm import (
    ConvPredictiveSparseDecomposition,
    ConvSparseCoder,
    PredictiveSparseDecomposition,
)
from sklebm.energies.convolution import smooth_part
from sklebm.plotting import ComponentsDisplay

ALPHA, LOW_PASS = 0.05, 5.0
SIDE = 32


def windows(n, first, n_images, seed=0):
    """Random windows of some of the natural images, in [0, 1], as rows."""
    generator = np.random.default_rng(seed)
    found = []
    with np.load(Path(os.environ["SKLEBM_DATA"]) / "natural_images.npz") as images:
        photographs = [images[f"img_{i:03d}"] / 255 for i in range(first, first + n_images)]
    for _ in range(n):
        image = photographs[generator.integers(n_images)]
        i, j = (generator.integers(0, length - SIDE) for length in image.shape)
        found.append(image[i : i + SIDE, j : j + SIDE].ravel())
    return np.stack(found).astype(np.float32)


def sharp_images(rows, side, channels=1):
    """Images without their smooth part, (n, side, side, channels)."""
    images = torch.from_numpy(rows.reshape(-1, side, side, channels)).permute(0, 3, 1, 2)
    return (images - smooth_part(images, LOW_PASS)).permute(0, 2, 3, 1).numpy()


def excess_energy(model, rows, options):
    """Energy of predicted codes above that of optimal ones, as a share, and the latter's mean."""
    optimal = ConvSparseCoder(dictionary=model.components_, code_tol=1e-4, **options).fit(rows[:1])
    least = optimal.free_energy(rows)
    return float(model.free_energy(rows).sum() / least.sum() - 1), float(least.mean())


def encoder_table(quick, n_train, n_epochs):
    """For each encoder, the excess on windows that chose the settings, and on others."""
    n_held, k = (8, 4) if quick else (64, 16)
    train, chooser = windows(n_train, 0, 20), windows(n_held, 20, 5)
    test = windows(n_held, 25, 5)
    options = {"kernel_size": 9, "image_shape": (SIDE, SIDE), "alpha": ALPHA, "low_pass": LOW_PASS}
    rows, at_ends = [], []
    for name, settings in {
        "shrink": {"encoder": "shrink"},
        "linear_tanh": {"encoder": "linear_tanh"},
        "lista, 1 layer": {"n_layers": 1},
        "lista, 3 layers": {"n_layers": 3},
    }.items():
        tried = {}

        def look(place, settings=settings, tried=tried, name=name):
            rate, weight = 0.01 * 2.0 ** place[0], 10.0 ** (2 + place[1])
            start = time.perf_counter()
            model = ConvPredictiveSparseDecomposition(
                k, learning_rate=rate, prediction_weight=weight, max_epochs=n_epochs,
                random_state=0, **options, **settings,
            ).fit(train)  # fmt: skip
            seconds = time.perf_counter() - start
            excess, _ = excess_energy(model, chooser, options)
            print(name, rate, weight, f"{excess:.3f}", f"{seconds:.0f} s", flush=True)
            tried[place] = excess, rate, weight, model

        look((0, 0))
        for _ in range(0 if quick else 9):
            missing = missing_neighbours(tried)
            if not missing:
                break
            look(missing[0])
        at_ends += [name] if missing_neighbours(tried) else []
        _, rate, weight, model = min(tried.values(), key=lambda found: found[0])
        held_out, least = excess_energy(model, test, options)
        energy = float(model.free_energy(test).mean())
        row = [
            name,
            f"rate {rate:g}, weight {weight:g}",
            f"{held_out:.3f}",
            f"{energy:.4f}",
            f"{least:.4f}",
        ]
        print(*row, sep="\t", flush=True)
        rows.append(row)
    return rows, f" Searches that ended beside settings not tried: {', '.join(at_ends) or 'none'}."


def missing_neighbours(tried):
    """The neighbours of the best place on the grid that have not been tried."""
    first, second = min(tried, key=lambda place: tried[place][0])
    near = (first + 1, second), (first, second + 1), (first - 1, second), (first, second - 1)
    return [place for place in near if place not in tried]


def share_of_shifts(filters, side):
    """Share of the filters that correlate with a shift of another by more than 0.9."""
    planes = filters.reshape(len(filters), side, side)
    planes = planes / np.linalg.norm(planes, axis=(1, 2), keepdims=True)
    peaks = np.array([[np.abs(correlate2d(a, b)).max() for a in planes] for b in planes])
    np.fill_diagonal(peaks, 0.0)
    return float((peaks.max(axis=1) > 0.9).mean()), float(np.median(peaks.max(axis=1)))


def draw(filters, path):
    """Atoms of patches beside kernels of images, a row for each number of them."""
    import matplotlib.pyplot as plt

    numbers = sorted({number for _, number in filters})
    figure, axes = plt.subplots(
        len(numbers), 2, figsize=(8, 4 * len(numbers)), layout="constrained", squeeze=False
    )
    for (name, number), rows in filters.items():
        ax = axes[numbers.index(number), int(name == "kernels of images")]
        title = f"{number} {name}"
        ComponentsDisplay(rows, (9, 9)).plot(ax, n_columns=math.isqrt(number), title=title)
    figure.savefig(path, dpi=80)


def redundancy_table(quick, n_train, n_epochs, figure=None):
    """Kernels and atoms of patches, for several numbers of filters; drawn to a file if named."""
    train = windows(n_train, 0, 20)
    cuts = [
        extract_patches_2d(image[..., 0], (9, 9), max_patches=60, random_state=i)
        for i, image in enumerate(sharp_images(train, SIDE))
    ]
    patches = np.concatenate(cuts).reshape(-1, 81)
    rows, filters = [], {}
    for k in (4, 16) if quick else (4, 16, 64):
        atoms = PredictiveSparseDecomposition(
            k, alpha=ALPHA, learning_rate=0.01, max_epochs=n_epochs, random_state=0
        ).fit(patches)
        kernels = ConvPredictiveSparseDecomposition(
            k, kernel_size=9, image_shape=(SIDE, SIDE), alpha=ALPHA, low_pass=LOW_PASS,
            learning_rate=0.01, max_epochs=n_epochs, random_state=0,
        ).fit(train)  # fmt: skip
        for name, model in (("atoms of patches", atoms), ("kernels of images", kernels)):
            filters[name, k] = model.components_
            share, median = share_of_shifts(model.components_, 9)
            row = [name, k, f"{share:.2f} (median {median:.2f})"]
            print(*row, sep="\t", flush=True)
            rows.append(row)
    if figure:
        try:  # after an hour of learning, a figure must not cost the table
            draw(filters, figure)
        except (ImportError, OSError) as error:
            print("no figure:", error)
    return rows, ""


def accuracy(train, test, labels, C):
    """Of logistic regression with this C, in percent."""
    scaler = StandardScaler().fit(train)
    model = classifier(C=C).fit(scaler.transform(train), labels[0])
    return 100 * model.score(scaler.transform(test), labels[1])


def held_out(features, labels, n_train) -> Chosen:
    """What classifiers of the first rows reach on the last ones."""
    return choose_penalty(
        features[:n_train], features[n_train:], labels[:n_train], labels[n_train:]
    )


def filters_of_images(images, k, side, n_epochs, seed, alpha, rate, weight):
    """An encoder learnt from whole images: 16 of them an update."""
    return ConvPredictiveSparseDecomposition(
        k, alpha=alpha, learning_rate=rate, max_epochs=n_epochs, batch_size=_IMAGES,
        prediction_weight=weight,
        random_state=seed, **feature_options(side),
    ).fit(images)  # fmt: skip


def filters_of_patches(images, k, side, n_epochs, seed, alpha, rate, weight):
    """The same from patches: an update sees 60 of each of as many images, so they are as many."""
    cuts = [
        extract_patches_2d(
            image, (side, side), max_patches=_PATCHES, random_state=100_000 * seed + i
        )
        for i, image in enumerate(sharp_images(images, 32, 3))
    ]
    atoms = PredictiveSparseDecomposition(
        k, alpha=alpha, encoder="shrink", learning_rate=rate, max_epochs=n_epochs,
        batch_size=_IMAGES * _PATCHES, prediction_weight=weight, random_state=seed,
    ).fit(np.concatenate(cuts).reshape(-1, side * side * 3))  # fmt: skip
    # The same encoder at every place of the image: thresholds of W x are g t with g = 1.
    limits = np.abs(atoms.weights_["thresholds"]).clip(1e-6)
    return ConvPredictiveSparseDecomposition.from_parameters(
        components=atoms.components_,
        weights={
            "weights": atoms.weights_["weights"],
            "log_steps": np.zeros_like(limits),
            "log_thresholds": np.log(limits) / atoms.components_.shape[1] ** 0.5,
        },
        alpha=alpha,
        **feature_options(side),
    )


_IMAGES, _PATCHES = 16, 60


def feature_options(side):
    """What both encoders of colour images share."""
    return {"kernel_size": side, "image_shape": (32, 32, 3), "low_pass": LOW_PASS,
            "encoder": "shrink", "pool_size": 8}  # fmt: skip


def feature_table(quick, *sizes):
    """CIFAR-10: pooled codes of soft-threshold encoders, filters learnt in two ways."""
    n_all, n_test, n_seeds = (400, 200, 2) if quick else (8_000, 2_000, 5)
    n_train, (n_learn, n_epochs, k, side) = (
        n_all * 4 // 5,
        ((48, 2, 8, 7) if quick else (512, 4, 32, 7)),
    )
    with np.load(Path(os.environ["SKLEBM_DATA"]) / "cifar10_small.npz") as data:
        images, targets = data["x_train"][:n_all], data["y_train"].ravel()[:n_all]
        test, answers = data["x_test"][:n_test], data["y_test"].ravel()[:n_test]
    images, test = (part.reshape(len(part), -1).astype(np.float32) / 255 for part in (images, test))
    labels = targets, answers
    found, at_ends = [held_out(images, targets, n_train)], []
    rows = [["pixels", "-", f"C {found[0].C:g}",
             f"{accuracy(images, test, labels, found[0].C):.1f}", "-"]]  # fmt: skip
    print(*rows[-1], sep="\t", flush=True)
    scores = {}
    for name, learn in (
        ("atoms of patches", filters_of_patches),
        ("kernels of images", filters_of_images),
    ):
        start, choices, settings = time.perf_counter(), {}, MIDDLE
        for which, (what, grid) in enumerate(FEATURE_GRIDS.items()):
            for value in grid[:1] if quick else grid:
                tried = (*settings[:which], value, *settings[which + 1 :])
                if tried not in choices:
                    model = learn(images[:n_learn], k, side, n_epochs, 0, *tried)
                    choices[tried] = held_out(model.transform(images), targets, n_train)
                    print(name, *tried, f"{choices[tried].held_out:.1f} %", flush=True)
            settings = max(choices, key=lambda one, known=choices: known[one].held_out)
            if settings[which] in (grid[0], grid[-1]):
                at_ends.append(f"{what} of {name}")
        found.append(choices[settings])
        scores[name] = []
        for seed in range(1, n_seeds + 1):  # seed 0 made the choice
            model = learn(images[:n_learn], k, side, n_epochs, seed, *settings)
            features = model.transform(images), model.transform(test)
            scores[name].append(accuracy(*features, labels, found[-1].C))
        mean, error = _mean(scores[name])
        alpha, rate, weight = settings
        chosen = f"alpha {alpha}, rate {rate}, weight {weight:g}, C {found[-1].C:g}"
        rows.append([name, features[0].shape[1], chosen, f"{mean:.1f} ({error:.1f})",
                     round(time.perf_counter() - start)])  # fmt: skip
        print(*rows[-1], sep="\t", flush=True)
    mean, error = _mean(np.subtract(scores["kernels of images"], scores["atoms of patches"]))
    rows.append(["difference, seed by seed", "-", "-", f"{mean:.1f} ({error:.1f})", "-"])
    print(*rows[-1], sep="\t", flush=True)
    chosen_at = f"Chosen at an end of their grids: {', '.join(at_ends) or 'none'}."
    return rows, f" {chosen_at} {of_penalties(found)}"


#: What is chosen for features, one after the other, and where the search begins.
FEATURE_GRIDS = {
    "alpha": (0.05, 0.1, 0.2),
    "rate": (0.005, 0.02, 0.08),
    "weight of the prediction": (0.1, 1.0, 10.0),
}
MIDDLE = (0.1, 0.02, 1.0)


def _mean(values):
    return np.mean(values), np.std(values, ddof=1) / len(values) ** 0.5


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=("encoder", "redundancy", "features"))
    parser.add_argument("--windows", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--figure", help="file to draw the filters of the redundancy part to")
    arguments = parser.parse_args()
    quick, sizes = arguments.quick, (arguments.windows, arguments.epochs)
    full = not (quick or any(sizes))
    defaults = (32, 2) if quick else (512, 12)
    sizes = tuple(size or default for size, default in zip(sizes, defaults, strict=True))
    set_threads(1)
    tables = {
        "encoder": encoder_table,
        "redundancy": functools.partial(redundancy_table, figure=arguments.figure),
        "features": feature_table,
    }
    for name in [arguments.only] if arguments.only else tables:
        rows, found = tables[name](quick, *sizes)
        if full:
            title, columns, notes = RECORDS[name]
            save_results(f"conv_predictive_{name}", title, columns, rows, notes=notes + found)


# Part: title, columns and notes of its table.
RECORDS = {
    "encoder": (
        "Energy of predicted convolutional codes above the optimum",
        [
            "encoder",
            "settings",
            "energy above the optimum (share)",
            "mean energy of predicted codes",
            "of optimal codes",
        ],
        "16 kernels of 9 x 9, alpha 0.05. On 64 windows of 32 x 32 of five photographs, learnt "
        "from 512 windows of twenty others in 12 passes; rate (by factors of 2) and weight (of 10) "
        "are those of the smallest share on a third group, where no neighbour is better. Kernels "
        "are learnt with the encoder: easily predicted ones "
        "may fit worse, which the last column tells. One seed, one thread.",
    ),
    "redundancy": (
        "Filters that are shifts of another: kernels of images and atoms of patches",
        ["filters of", "number", "share of shifts"],
        "Share of filters whose correlation with a shift of another exceeds 0.9, and the median of "
        "the largest correlations. From the same 512 windows of 32 x 32 of twenty photographs in "
        "12 passes; 60 patches of each window. One seed, one thread.",
    ),
    "features": (
        "CIFAR-10 by encoders learnt from images and from patches, linear classification",
        ["features", "numbers", "settings", "test accuracy (%)", "seconds in all"],
        "Soft-threshold encoders of 32 filters of 7 x 7, codes pooled over blocks of 8 x 8; "
        "logistic regression trained on all 8,000 images of the file, tested on 2,000. Filters are "
        "learnt from 512 of the training images in 4 passes and 128 updates for either: 16 "
        "images, or 60 patches of each of 16 images on average. The settings and the classifier's "
        "C of each were chosen on 1,600 of the training images by filters of another seed: "
        f"{', then '.join(f'{what} of {grid}' for what, grid in FEATURE_GRIDS.items())}. Mean of "
        "five seeds and its standard error, which leaves out the choice of test images. One "
        "thread.",
    ),
}


if __name__ == "__main__":
    main()
