"""Contrastive embeddings: what they add to pixels, which objective and view does it, and the cost.

Each question is one section, named on the command line:

- `digits`: scikit-learn's digits, no labels in the encoder: nearest neighbours, and ten labels a
  class, on pixels, principal components and embeddings.
- `objectives`: the five objectives on digits, each for the seconds that InfoNCE takes.
- `views`: InfoNCE on digits with each part of the augmentation left out, or another one added.
- `mnist`: a convolutional encoder on the 60,000 images, and a linear probe; at most 15 minutes on
  two cores.
- `cifar`: the same on the 8,000 images of `cifar10_small.npz`, beside pixels, principal components
  and as many triangle codes of patches (A. Coates, H. Lee and A. Ng, "An analysis of single-layer
  networks in unsupervised feature learning", AISTATS 2011); at most 20 minutes on two cores.
- `drlim`: fours and nines of MNIST in two dimensions, by neighbours; one nearest neighbour, also in
  pixels and principal components. `--figure FILE` draws the test images in the plane.
- `cylinder`: images of a spot that moves around a ring and changes its light, in three dimensions,
  by neighbours: trustworthiness against the two numbers that made them.
- `tables`: the development tables of ADBench: embeddings of corrupted features as a detector,
  beside the default one.
- `speed`: seconds an epoch beside a bare torch loop with the same encoder and views, and what a
  linear classifier makes of the embeddings of both.

`--development` is for choosing settings of the sections of images: nothing is recorded, and models
are judged on a part of the training rows. For digits these are rows of split 0, on which settings
were found; splits 1 to 5 are reported. `--channels` and `--epochs` are the candidates: several
channels, such as `--channels 16,32,64 32,64,128`, make several rows.

All sections but `digits`, `objectives`, `views` and `cylinder` need the folder of data sets named
by SKLEBM_DATA. With `--device cuda` the large ones run on a GPU.

    python benchmarks/bench_embedding.py digits objectives views cylinder [--quick]
    python benchmarks/bench_embedding.py mnist cifar drlim tables speed [--device cuda]
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import bench_mean_covariance_rbm as patches
import numpy as np
import torch
from _common import area_under_roc, save_results, set_threads, timed_ratio
from _probes import ENDS, PROTOCOL, SHORT_GRID, Probe, convergence, most_chosen, probe, probe_few
from bench_ood import MODES, OURS, read_split
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from sklebm import ContrastiveEmbedding, EnergyKMeans, EnergyOutlierDetector, ZCAWhitener
from sklebm.energies.networks import initialize
from sklebm.inference.image_views import ImageAugmentation
from sklebm.inference.views import Neighbours, Source
from sklebm.objectives.embedding import InfoNCE, MarginContrast

DIGIT_VIEWS = ImageAugmentation(shift=0.12, crop=0.15, rotate=12.0, blur=0.0, erase=0.25)
DIGITS = {"n_components": 64, "image_shape": (8, 8), "views": DIGIT_VIEWS}
DIGIT_CHANNELS = (32, 64)
#: Passes: as many as help for the first question, fewer where many fits are compared.
DIGIT_EPOCHS, COMPARED_EPOCHS = 300, 100
#: Of the division into training and test rows; settings were found on split 0.
SPLITS = (1, 2, 3, 4, 5)
OBJECTIVES = ("info_nce", "margin", "triplet", "nce_memory_bank", "momentum_queue")
#: Parts of the augmentation that are left out, and others that are switched on.
PARTS = ("shift", "crop", "rotate", "erase", "brightness", "contrast")
ADDED = {"blur": 0.5, "flip": 0.5, "colour": 0.4}
MNIST_CHANNELS = (16, 32, 64)
CIFAR_CHANNELS = (32, 64, 128)
Rows = list[list[object]]
#: How probes of all labels and of few ones are chosen.
HELD_FIFTH = PROTOCOL.format(
    grid="of powers of ten from 1e-5 to 1000", where="a fifth of the training rows"
)
HELD_FIFTH += f" {ENDS}"
WITHIN_LABELS = PROTOCOL.format(
    grid=", ".join(f"{C:g}" for C in SHORT_GRID), where="five folds of the labelled rows"
)
FOUND_ON = (
    "Channels and views were found on split 0, which is not reported, but whose rows are also "
    "among those of the others."
)


# ---------------------------------------------------------------------- data


def load(name: str) -> dict[str, Any]:
    """The arrays of one file of the folder of data sets."""
    with np.load(data_folder() / name, allow_pickle=False) as data:
        return {key: data[key] for key in data.files}


def data_folder() -> Path:
    """The folder of data sets."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("SKLEBM_DATA is not set: this section needs the folder of data sets.")
    return Path(folder)


def digits(split: int, options: argparse.Namespace) -> tuple[Any, ...]:
    """Training and test digits in [0, 1] with their labels; for development, parts of split 0."""
    X, y = load_digits(return_X_y=True)
    X = X / 16
    if options.development:
        X, _, y, _ = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
    return tuple(train_test_split(X, y, test_size=0.3, random_state=split, stratify=y))


def images_of(name: str, options: argparse.Namespace) -> tuple[Any, ...]:
    """Images as flat float32 rows, channels first, and their labels.

    For development the last sixth of the training images takes the place of the test images.
    """
    data = load(name)
    parts = []
    for part in ("train", "test"):
        x = data[f"x_{part}"].astype(np.float32) / 255
        x = x if x.ndim == 3 else x.transpose(0, 3, 1, 2)
        parts += [x.reshape(len(x), -1), data[f"y_{part}"]]
    train, y_train, test, y_test = parts
    if options.development:
        cut = len(train) * 5 // 6
        train, test, y_train, y_test = train[:cut], train[cut:], y_train[:cut], y_train[cut:]
    return train, test, y_train, y_test


# ---------------------------------------------------------------------- sections


def five_nearest(train: Any, test: Any, y_train: Any, y_test: Any) -> float:
    """Accuracy of five nearest neighbours, per cent."""
    return 100 * KNeighborsClassifier(5).fit(train, y_train).score(test, y_test)


def digit_model(options: argparse.Namespace, epochs: int, seed: int, **settings: Any) -> Any:
    """An embedding of digits."""
    channels = settings.pop("hidden_sizes", None) or one_width(options, DIGIT_CHANNELS)
    shared = {**DIGITS, "hidden_sizes": channels, "random_state": seed, "device": "cpu"}
    epochs = 3 if options.quick else options.epochs or epochs
    return ContrastiveEmbedding(**{**shared, "max_epochs": epochs, **settings})


def compare_digits(options: argparse.Namespace) -> None:
    """Pixels, principal components and embeddings of digits."""
    near: dict[str, list[float]] = {}
    few: dict[str, list[Probe]] = {}
    for split in SPLITS[: 1 if options.quick else None]:
        train, test, y_train, y_test = digits(split, options)
        pca = chosen_components(train, y_train)
        sets = {"pixels": (train, test), "PCA": (pca.transform(train), pca.transform(test))}
        plain = digit_model(options, DIGIT_EPOCHS, split, views=ImageAugmentation()).fit(train)
        sets["embedding, default views"] = plain.transform(train), plain.transform(test)
        for channels in widths(options, DIGIT_CHANNELS):
            model = digit_model(options, DIGIT_EPOCHS, split, hidden_sizes=channels).fit(train)
            name = f"embedding, channels {words(channels)}" if options.channels else "embedding"
            sets[name] = (model.transform(train), model.transform(test))
        for name, pair in sets.items():
            near.setdefault(name, []).append(five_nearest(*pair, y_train, y_test))
            draws = 2 if options.quick else 10
            few.setdefault(name, []).extend(probe_few(*pair, y_train, y_test, n_draws=draws))
    rows: Rows = []
    means = {
        name: np.reshape([p.accuracy for p in few[name]], (len(found), -1)).mean(axis=1)
        for name, found in near.items()
    }
    rival = np.maximum(means["pixels"], means["PCA"])
    for name, found in near.items():
        gains = means[name] - rival
        cells = [found, means[name], gains]
        numbers = [round(float(f(v)), 2) for v in cells for f in (np.median, np.ptp)]
        rows.append([name, *numbers, most_chosen(few[name])])
    columns = [
        "features",
        *("5-NN %", "spread"),
        *("10 labels %", "spread of these"),
        *("above pixels and PCA", "spread of that"),
        "mostly chosen",
    ]
    notes = (
        "Medians of splits 1 to 5, 1,257 training and 540 test digits each, and the largest minus "
        "the smallest value. 5-NN: all labels. 10 labels: ten a class, the mean of ten draws, the "
        "same for all features, and how far it is above the better of pixels and PCA; "
        f"{WITHIN_LABELS} {convergence([p for found in few.values() for p in found])} "
        "PCA: of 10, 20, 30 and 40 components the best for 5-NN in five folds of the training "
        f"rows, by all of their labels, for both columns. {FOUND_ON} Default views: those of "
        "ImageAugmentation() instead. "
        f"{describe(options, DIGIT_CHANNELS, DIGIT_EPOCHS)}"
    )
    show(options, "embedding_digits", "Digits without labels", columns, rows, notes)


def chosen_components(train: Any, y_train: Any) -> Any:
    """Principal components, as many as suit nearest neighbours within the training rows."""
    models = {n: make_pipeline(PCA(n, random_state=0), KNeighborsClassifier(5)) for n in COMPONENTS}
    scores = {n: cross_val_score(model, train, y_train, cv=5).mean() for n, model in models.items()}
    return PCA(max(scores, key=scores.__getitem__), random_state=0).fit(train)


COMPONENTS = (10, 20, 30, 40)


def few_labels(model: Any, parts: tuple[Any, ...], options: argparse.Namespace) -> list[Probe]:
    """Probes of ten labels a class of embeddings of digits."""
    train, test, y_train, y_test = parts
    draws = 2 if options.quick else 10
    return probe_few(*map(model.transform, (train, test)), y_train, y_test, n_draws=draws)


def compare_objectives(options: argparse.Namespace) -> None:
    """The five objectives, each for as long as InfoNCE takes.

    What an epoch takes is the slope between a short and a longer fit, so that neither fixed costs
    nor the first call count; all are warmed up, and take turns.
    """
    train = digits(SPLITS[0], options)[0]
    short, long = 10, 40

    def seconds(objective: str, epochs: int) -> float:
        model = digit_model(options, 1, 0, objective=objective, max_epochs=epochs)
        begin = time.perf_counter()
        model.fit(train)
        return time.perf_counter() - begin

    for objective in () if options.quick else OBJECTIVES:
        seconds(objective, 1)
    slopes: dict[str, list[float]] = {objective: [] for objective in OBJECTIVES}
    for turn in range(0 if options.quick else 5):
        for objective in OBJECTIVES[turn:] + OBJECTIVES[:turn]:
            # Which of the two comes first alternates as well.
            sizes = (short, long) if turn % 2 == 0 else (long, short)
            spent = {epochs: seconds(objective, epochs) for epochs in sizes}
            slopes[objective].append((spent[long] - spent[short]) / (long - short))
    pace = dict.fromkeys(OBJECTIVES, 1.0)
    if not options.quick:  # whose epochs are too few to be timed
        pace = {objective: float(np.median(found)) for objective, found in slopes.items()}
    if min(pace.values()) <= 0:
        sys.exit(f"an epoch is too short to be timed: {pace}")
    n_epochs = 3 if options.quick else options.epochs or COMPARED_EPOCHS
    rows: Rows = []
    probes: list[Probe] = []
    for objective in OBJECTIVES:
        epochs = max(1, round(n_epochs * pace["info_nce"] / pace[objective]))
        near, few, took = [], [], []
        for split in SPLITS[: 1 if options.quick else None]:
            parts = digits(split, options)
            model = digit_model(options, 1, split, objective=objective, max_epochs=epochs)
            begin = time.perf_counter()
            model.fit(parts[0])
            took.append(time.perf_counter() - begin)
            near.append(five_nearest(*map(model.transform, parts[:2]), *parts[2:]))
            found = few_labels(model, parts, options)
            few.append(float(np.mean([p.accuracy for p in found])))
            probes += found
        cells = [round(float(f(v)), 2) for v in (near, few) for f in (np.median, np.ptp)]
        rows.append([objective, epochs, round(float(np.median(took)), 1), *cells])
    columns = ["objective", "epochs", "s", "5-NN %", "spread", "10 labels %", "spread of these"]
    notes = (
        "Digits; medians of splits 1 to 5, and the largest minus the smallest value. Ten labels a "
        "class: the mean of ten draws. "
        f"InfoNCE has {n_epochs} epochs, the others as many as its time allows: what an epoch "
        "takes is the slope between fits of 10 and 40 epochs, after a first fit of each, the "
        "median of five turns. Every objective with its default settings; channels and views "
        f"were found with InfoNCE. {WITHIN_LABELS} {convergence(probes)} {FOUND_ON} "
        f"{describe(options, DIGIT_CHANNELS, n_epochs)}"
    )
    turns = "Contestants took turns when an epoch was timed; the fits that are judged did not."
    title = "Objectives at equal time"
    show(options, "embedding_objectives", title, columns, rows, notes, turns)


def compare_views(options: argparse.Namespace) -> None:
    """The augmentation with each part left out, or with another one added."""
    candidates = {"all six parts": DIGIT_VIEWS}
    candidates |= {f"without {part}": replace(DIGIT_VIEWS, **{part: 0.0}) for part in PARTS}
    candidates |= {
        f"with {part} {size:g}": replace(DIGIT_VIEWS, **{part: size})
        for part, size in ADDED.items()
    }
    rows: Rows = []
    probes: list[Probe] = []
    reference: Any = None
    for name, views in candidates.items():
        scores = []
        for split in SPLITS[: 1 if options.quick else None]:
            parts = digits(split, options)
            model = digit_model(options, COMPARED_EPOCHS, split, views=views).fit(parts[0])
            found = few_labels(model, parts, options)
            scores.append(float(np.mean([p.accuracy for p in found])))
            probes += found
        reference = scores if reference is None else reference
        gains = np.subtract(scores, reference)
        cells = [np.median(scores), np.ptp(scores), np.median(gains), gains.min(), gains.max()]
        rows.append([name, *(round(float(cell), 2) for cell in cells)])
        print(*rows[-1], sep="\t", flush=True)
    columns = ["views", "10 labels %", "spread", "against all", "least", "most"]
    notes = (
        "InfoNCE on digits; medians of splits 1 to 5, the largest minus the smallest value, and "
        "the differences from all six parts on the same splits. Ten labels a class: the mean of "
        "ten draws. All six parts: "
        f"{', '.join(f'{part} {getattr(DIGIT_VIEWS, part):g}' for part in PARTS)}. With one "
        f"channel, colour is more contrast. {WITHIN_LABELS} {convergence(probes)} {FOUND_ON} "
        f"{describe(options, DIGIT_CHANNELS, COMPARED_EPOCHS)}"
    )
    show(
        options, "embedding_views", "Views left out, or added, one at a time", columns, rows, notes
    )


def probe_mnist(options: argparse.Namespace) -> None:
    """A linear probe on embeddings of MNIST."""
    train, test, y_train, y_test = images_of("mnist.npz", options)
    n = 2000 if options.quick else len(train)
    train, y_train = train[:n], y_train[:n]
    views = ImageAugmentation(shift=0.1, crop=0.25, rotate=15.0, blur=0.5, erase=0.3)
    rows: Rows = []
    probes = []
    for channels in widths(options, MNIST_CHANNELS):
        model = ContrastiveEmbedding(
            128,
            image_shape=(28, 28),
            hidden_sizes=channels,
            head_sizes=(128, 64),
            views=views,
            batch_size=512,
            max_epochs=1 if options.quick else options.epochs or 20,
            random_state=0,
            device=options.device,
        )
        begin = time.perf_counter()
        model.fit(train)
        minutes = (time.perf_counter() - begin) / 60
        found = probe(model.transform(train), model.transform(test), y_train, y_test)
        probes.append(found)
        name = f"embedding, channels {words(channels)}"
        rows.append([name, n, round(minutes, 2), round(found.accuracy, 2), found.chosen])
        print(*rows[-1], sep="\t", flush=True)
    begin = time.perf_counter()
    pca = PCA(128, random_state=0).fit(train)
    minutes = (time.perf_counter() - begin) / 60
    found = probe(pca.transform(train), pca.transform(test), y_train, y_test)
    probes.append(found)
    rows.append(["PCA", n, round(minutes, 2), round(found.accuracy, 2), found.chosen])
    notes = (
        f"128 components, one seed. Views: {parts_of(views)}; all else as by default, but for "
        "batches of 512 and a head of 128 and 64 units. Settings were chosen, if at all, on "
        "the last sixth of the training images. "
        f"{HELD_FIFTH} {convergence(probes)} {describe(options, MNIST_CHANNELS, 20)}"
    )
    columns = ["features", "images", "minutes of learning", "probe %", "chosen"]
    show(options, "embedding_mnist", "MNIST, linear probe", columns, rows, notes)


def patch_codes(train: Any, test: Any, n_centres: int, ridge: float) -> tuple[Any, Any, float]:
    """Triangle codes of whitened patches, summed over the four quadrants: 4 n_centres features.

    Also the seconds that learning takes.
    """
    begin = time.perf_counter()
    images = [x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for x in (train, test)]
    patches.FIELD = 6  # of Coates, Lee and Ng; the functions read it when they are called
    rng = np.random.default_rng(0)
    rows = patches.windows(images[0][rng.permutation(len(train))[:2000]])
    rows = rows.reshape(-1, rows.shape[2])
    rows = rows[rng.permutation(len(rows))[:100_000]]
    whitener = ZCAWhitener(ridge=ridge).fit(rows)
    white = np.asarray(whitener.transform(rows), np.float32)
    codes = EnergyKMeans(n_centres, output="triangle", max_iter=50, random_state=0).fit(white)
    seconds = time.perf_counter() - begin
    coded, coded_test = (patches.pooled(part, whitener, codes) for part in images)
    return coded, coded_test, seconds


def probe_cifar(options: argparse.Namespace) -> None:
    """Linear probes on pixels, principal components, triangle codes and embeddings of CIFAR."""
    train, test, y_train, y_test = images_of("cifar10_small.npz", options)
    n, width = (500, 64) if options.quick else (len(train), 256)
    train, y_train = train[:n], y_train[:n]
    test, y_test = (test[:200], y_test[:200]) if options.quick else (test, y_test)
    views = ImageAugmentation(
        shift=0.0, crop=0.6, flip=0.5, rotate=0.0, blur=0.5, brightness=0.4, contrast=0.4,
        erase=0.3, colour=0.4,
    )  # fmt: skip
    rows: Rows = []
    probes: list[Probe] = []

    def add(name: str, pair: tuple[Any, Any], found: Probe, minutes: Any = "-") -> None:
        if found not in probes:
            probes.append(found)
        rows.append([name, pair[0].shape[1], minutes, round(found.accuracy, 2), found.chosen])
        print(*rows[-1], sep="\t", flush=True)

    for channels in widths(options, CIFAR_CHANNELS):
        begin = time.perf_counter()
        model = ContrastiveEmbedding(
            width,
            image_shape=(3, 32, 32),
            hidden_sizes=channels,
            head_sizes=(256, 64),
            views=views,
            objective=InfoNCE(0.2),
            batch_size=512,
            max_epochs=1 if options.quick else options.epochs or 100,
            random_state=0,
            device=options.device,
        ).fit(train)
        minutes = round((time.perf_counter() - begin) / 60, 2)
        pair = model.transform(train), model.transform(test)
        name = f"embedding, channels {words(channels)}"
        add(name, pair, probe(*pair, y_train, y_test), minutes)
    begin = time.perf_counter()
    pca = PCA(width, random_state=0).fit(train)
    minutes = round((time.perf_counter() - begin) / 60, 2)
    pair = pca.transform(train), pca.transform(test)
    add("PCA", pair, probe(*pair, y_train, y_test), minutes)
    # The ridge of the whitening is chosen as C is, on held-out training rows.
    tried = []
    for ridge in (0.1,) if options.quick else (0.01, 0.1, 1.0):
        *pair, seconds = patch_codes(train, test, width // 4, ridge)
        tried.append((probe(*pair, y_train, y_test), ridge, pair, round(seconds / 60, 2)))
        probes.append(tried[-1][0])
    found, ridge, pair, minutes = max(tried, key=lambda one: one[0].held_out)
    add(f"triangle codes, ridge {ridge:g}", pair, found, minutes)
    add("pixels", (train, test), probe(train, test, y_train, y_test))
    notes = (
        f"{n:,} training images; {width} components, one seed. Triangle codes: {width // 4} "
        "centres of whitened 6 x 6 x 3 patches at every other place, sums over 2 x 2 quadrants; "
        "the ridge of the ZCA is the best of 0.01, 0.1 and 1 on the rows that C is chosen on. "
        f"Views: {parts_of(views)}; temperature 0.2, batches of 512, a head of 256 and 64 units. "
        "Settings were chosen, if at all, on the last sixth of the training images. Minutes: of "
        f"learning, without transforming and classifying; of one ridge. {HELD_FIFTH} "
        f"{convergence(probes)} {describe(options, CIFAR_CHANNELS, 100)}"
    )
    columns = ["features", "number", "minutes of learning", "probe %", "chosen"]
    show(options, "embedding_cifar", "CIFAR-10, 8,000 images", columns, rows, notes)


def map_drlim(options: argparse.Namespace) -> None:
    """Fours and nines in the plane: pairs are neighbours in pixels, no label is used."""
    train, test, y_train, y_test = images_of("mnist.npz", options)
    chosen, held = np.isin(y_train, (4, 9)), np.isin(y_test, (4, 9))
    train, y_train, test, y_test = train[chosen], y_train[chosen], test[held], y_test[held]
    n = 1000 if options.quick else len(train)
    train, y_train = train[:n], y_train[:n]
    pca = PCA(2, random_state=0).fit(train)
    sets: dict[str, list[Any]] = {
        "pixels": [(train, test)],
        "PCA": [(pca.transform(train), pca.transform(test))],
    }
    n_seeds = 1 if options.quick or options.development else 3
    for channels in widths(options, (16, 32, 64)):
        for seed in range(n_seeds):
            model = ContrastiveEmbedding(
                2,
                objective=MarginContrast(1.0),
                views=Neighbours(5),
                unit_length=False,
                image_shape=(28, 28),
                hidden_sizes=channels,
                head_sizes=(),
                max_epochs=2 if options.quick else options.epochs or 60,
                random_state=seed,
                device=options.device,
            ).fit(train)
            pair = model.transform(train), model.transform(test)
            sets.setdefault(f"embedding, channels {words(channels)}", []).append(pair)
    rows: Rows = []
    for name, pairs in sets.items():
        found = [
            100 * KNeighborsClassifier(1).fit(one, y_train).score(other, y_test)
            for one, other in pairs
        ]
        cells = [round(float(f(found)), 2) for f in (np.median, np.min, np.max)]
        rows.append([name, pairs[0][0].shape[1], *cells])
    notes = (
        f"{n:,} training and {len(test):,} test images of fours and nines; median, least and most "
        f"of {n_seeds} seed(s); neighbours: five in pixels. Settings were not searched for. "
        f"{describe(options, (16, 32, 64), 60)}"
    )
    columns = ["features", "number", "1-NN %", "least", "most"]
    show(options, "embedding_drlim", "MNIST 4 and 9 in the plane", columns, rows, notes)
    if options.figure:  # the first seed
        draw_plane(sets[name][0][1], y_test, options.figure)


def map_cylinder(options: argparse.Namespace) -> None:
    """Images of a moving spot in three dimensions: pairs are neighbours in pixels."""
    n, n_seeds = (200, 1) if options.quick else (500, 5)
    trusted: dict[str, list[float]] = {"PCA": [], "embedding": []}
    pixels = 2 * np.pi * np.arange(40) / 40
    for seed in range(1, 1 + n_seeds):
        rng = np.random.default_rng(seed)
        place, light = rng.uniform(0, 2 * np.pi, n), rng.uniform(0.5, 1.5, n)
        images = light[:, None] * np.exp(3.0 * np.cos(pixels - place[:, None]) - 3.0)
        model = ContrastiveEmbedding(
            3,
            objective=MarginContrast(1.5),
            views=Neighbours(10),
            unit_length=False,
            head_sizes=(),
            hidden_sizes=(64, 64),
            batch_size=128,
            learning_rate=0.005,
            max_epochs=2 if options.quick else options.epochs or 60,
            random_state=seed,
            device="cpu",
        ).fit(images)
        truth = np.c_[np.cos(place), np.sin(place), light]
        pca = PCA(3, random_state=0).fit(images)
        for name, points in (
            ("PCA", pca.transform(images)),
            ("embedding", model.transform(images)),
        ):
            trusted[name].append(trustworthiness(truth, points, n_neighbors=10))
    rows: Rows = [
        [name, *(round(float(f(found)), 4) for f in (np.median, np.min, np.max))]
        for name, found in trusted.items()
    ]
    notes = (
        f"{n} images of 40 pixels, three dimensions; trustworthiness of ten neighbours, of the "
        "images that the maps were fitted to, against cosine, sine and light; median, least and "
        "most of seeds 1 to 5, of data and model. The settings are those of the example, whose "
        f"seed is 0. {options.epochs or 60} epochs; {options.threads} thread(s)."
    )
    columns = ["map", "trustworthiness", "least", "most"]
    show(options, "embedding_cylinder", "A cylinder of images", columns, rows, notes)


def draw_plane(points: Any, labels: Any, path: str) -> None:
    """Test images at their places in the plane, coloured by labels that the encoder never saw."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6, 5), layout="constrained")
    for digit, colour in ((4, "tab:blue"), (9, "tab:orange")):
        ax.plot(*points[labels == digit].T, ".", markersize=3, color=colour, label=f"{digit}")
    ax.set(title="test images; no label was used", aspect="equal")
    ax.legend(markerscale=4)
    figure.savefig(path, dpi=80)


def detect_tables(options: argparse.Namespace) -> None:
    """AUROC of a detector of embeddings, and of the default detector, as bench_ood.py splits."""
    paths = sorted(
        (data_folder() / "adbench_dev").glob("*.npz"), key=lambda p: int(p.stem.split("_")[0])
    )
    if not paths:
        sys.exit("no tables in adbench_dev")
    paths = paths[: 2 if options.quick else None]
    splits = range(1 if options.quick else 5)
    rows: Rows = []
    areas = np.zeros((len(paths), len(splits), len(MODES), 2))
    for i, path in enumerate(paths):
        for j, split in enumerate(splits):
            for k, mode in enumerate(MODES):
                train, test, y_test = read_split(path, split, mode)
                epochs = {"max_epochs": 3} if options.quick else {}
                embedding = ContrastiveEmbedding(
                    random_state=split, device=options.device, **epochs
                ).fit(train)
                for m, model in enumerate((embedding, EnergyOutlierDetector().fit(train))):
                    areas[i, j, k, m] = area_under_roc(y_test, -model.score_samples(test))
        rows.append([path.stem, *spread_cells(areas[i])])
        print(*rows[-1], sep="\t", flush=True)
    rows.append(["mean", *spread_cells(areas.mean(axis=0))])
    names = ("embedding", OURS)
    columns = [
        "table",
        *(f"{what}{name}, {mode}" for mode in MODES for name in names for what in ("", "± ")),
    ]
    notes = (
        f"AUROC, means of {len(splits)} splits 70/30 of bench_ood.py (at most 4,000 training rows, "
        "standardised); ±: their standard deviation over splits, in the last row that of the mean "
        "over tables. Corrupted features, all settings as by default: nothing of the embedding was "
        "chosen on these tables. EnergyOutlierDetector was: its default was chosen with all of "
        "them in view, so that it is at an advantage; bench_ood_choice.py has nested figures."
    )
    show(options, "embedding_tables", "Outliers in tables", columns, rows, notes)


def spread_cells(areas: Any) -> list[float]:
    """Mean and standard deviation over splits, from (splits, modes, detectors)."""
    pairs = np.stack([areas.mean(axis=0), areas.std(axis=0, ddof=int(len(areas) > 1))], axis=-1)
    return [round(float(value), 3) for value in pairs.ravel()]


def compare_speed(options: argparse.Namespace) -> None:
    """Seconds an epoch beside a bare loop with the same encoder, views, loss and schedule.

    An epoch is the slope between a short and a long fit, so that what a fit does once does not
    count: checks of the rows, and prototypes. Every long fit has the seed of its round; a probe
    afterwards tells whether both loops have learnt the same.
    """
    train, test, y_train, y_test = images_of("mnist.npz", options)
    n_rows, short, long, repeats = (512, 1, 2, 2) if options.quick else (8192, 2, 7, 7)
    X, y = torch.from_numpy(train[:n_rows].copy()), y_train[:n_rows]
    held = torch.from_numpy(test[: 500 if options.quick else None].copy())
    views, loss = ImageAugmentation(), InfoNCE()
    learnt: dict[str, list[Any]] = {"bare torch": [], "ContrastiveEmbedding": []}

    def ours(epochs: int) -> None:
        model = ContrastiveEmbedding(
            image_shape=(28, 28),
            hidden_sizes=(16, 32),
            max_epochs=epochs,
            random_state=len(learnt["ContrastiveEmbedding"]),
            device="cpu",
        ).fit(X)
        if epochs == long:
            learnt["ContrastiveEmbedding"].append(model.transform)

    def bare(epochs: int) -> None:
        draws = torch.Generator().manual_seed(len(learnt["bare torch"]))
        encoder = torch.nn.Sequential(
            torch.nn.Unflatten(1, (1, 28, 28)),
            torch.nn.Conv2d(1, 16, 3, 2, 1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 3, 2, 1),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(32 * 49, 32),
        )
        head = torch.nn.Sequential(
            torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 32)
        )
        for network in (encoder, head):  # as ours begins: the loops are compared, not the starts
            initialize(network, draws)
        mean, scale = X.mean(), X.std()
        rows_in_units = (X - mean) / scale
        parameters = [*encoder.parameters(), *head.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=0.002, fused=True)
        source = Source(rows_in_units, None, (1, 28, 28))
        unit = torch.nn.functional.normalize
        for epoch in range(epochs):
            factor = 0.5 * (1.0 + math.cos(math.pi * (epoch + 0.5) / epochs))
            optimizer.param_groups[0]["lr"] = 0.002 * factor
            for rows in torch.randperm(n_rows, generator=draws).split(256):
                x = rows_in_units[rows]
                pair = [views.draw(x, rows, source, {}, draws) for _ in range(2)]
                both = unit(head(encoder(torch.cat(pair))), dim=1)
                optimizer.zero_grad()
                loss.of_views(*both.chunk(2)).backward()
                optimizer.step()

        def embed(x: Any) -> Any:
            with torch.no_grad():
                return unit(encoder((x - mean) / scale), dim=1)

        if epochs == long:
            learnt["bare torch"].append(embed)

    loops = {"bare torch": bare, "ContrastiveEmbedding": ours}
    timings = timed_ratio(
        {f"{name}, {n}": partial(loop, n) for name, loop in loops.items() for n in (short, long)},
        reference=f"bare torch, {long}",
        repeats=repeats,
    )
    # Of each round, so that a slow spell of the machine meets both loops. A quick one is noise.
    slopes = {
        name: np.subtract(timings[f"{name}, {long}"].seconds, timings[f"{name}, {short}"].seconds)
        / (long - short)
        for name in loops
    }
    if not options.quick and min(map(np.min, slopes.values())) <= 0:
        sys.exit(f"an epoch is too short to be timed: {slopes}")
    rows: Rows = []
    probes: list[Probe] = []
    for name, slope in slopes.items():
        found = [
            probe(*(np.asarray(embed(x)) for x in (X, held)), y, y_test[: len(held)])
            for embed in learnt[name][:3]
        ]
        probes += found
        accuracies = [p.accuracy for p in found]
        ratio = np.median(slope / slopes["bare torch"])
        cells = [np.median(slope), ratio, timings[f"{name}, {long}"].ratio]
        cells += [np.median(accuracies), np.ptp(accuracies)]
        rows.append([name, *(round(float(cell), 3) for cell in cells)])
    notes = (
        f"{n_rows:,} training images of MNIST. An epoch: the difference between fits of {long} and "
        f"of {short} epochs of a round, divided by that of the epochs, the median of {repeats} "
        "rounds; its ratio likewise. The whole fit also finds prototypes. "
        "The probe judges three fits of each loop, of different seeds, on "
        f"{len(held):,} test images: median, and largest minus smallest. {HELD_FIFTH} "
        f"{convergence(probes)} {options.threads} thread(s)."
    )
    columns = ["loop", "s an epoch", "ratio", "ratio of whole fits", "probe %", "spread of probes"]
    show(options, "embedding_speed", "Epochs beside a bare loop", columns, rows, notes)


# ---------------------------------------------------------------------- options


SECTIONS = {
    "digits": compare_digits,
    "objectives": compare_objectives,
    "views": compare_views,
    "mnist": probe_mnist,
    "cifar": probe_cifar,
    "drlim": map_drlim,
    "cylinder": map_cylinder,
    "tables": detect_tables,
    "speed": compare_speed,
}


def widths(options: argparse.Namespace, usual: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The channels to compare."""
    return options.channels or [usual]


def one_width(options: argparse.Namespace, usual: tuple[int, ...]) -> tuple[int, ...]:
    """The channels of sections that compare something else."""
    return widths(options, usual)[0]


def parts_of(views: ImageAugmentation) -> str:
    """The parts of an augmentation that are switched on, as text."""
    parts = {field.name: getattr(views, field.name) for field in fields(views)}
    return ", ".join(f"{name} {size:g}" for name, size in parts.items() if size)


def words(channels: tuple[int, ...]) -> str:
    """Channels as text."""
    return ", ".join(map(str, channels))


def describe(options: argparse.Namespace, usual: tuple[int, ...], epochs: int) -> str:
    """Channels, passes and threads in one sentence."""
    channels = "; ".join(words(one) for one in widths(options, usual))
    return f"Channels {channels}; {options.epochs or epochs} epochs; {options.threads} thread(s)."


def show(
    options: argparse.Namespace,
    name: str,
    title: str,
    columns: list[str],
    rows: Rows,
    notes: str = "",
    turns: str | None = None,
) -> None:
    """Print a table, and store it unless the run was quick or for development."""
    print(title, columns, *rows, notes, sep="\n", flush=True)
    if not (options.quick or options.development):
        save_results(name, title, columns, rows, notes=notes, turns=turns)


def channels_of(text: str) -> tuple[int, ...]:
    """An option such as 16,32,64."""
    return tuple(int(part) for part in text.split(","))


def main() -> None:
    """Run the sections."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sections", nargs="+", choices=sorted(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is stored")
    parser.add_argument("--development", action="store_true", help="judge on training rows")
    parser.add_argument("--channels", nargs="+", type=channels_of, help="such as 16,32,64")
    parser.add_argument("--epochs", type=int, help="of every encoder; those of the section if not")
    parser.add_argument("--figure", help="file for the drawing of `drlim`")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.channels and len(options.channels) > 1:
        if not options.development:
            parser.error("several --channels are compared with --development only")
        if {"objectives", "views"} & set(options.sections):
            parser.error("objectives and views are compared for one set of channels")
    if options.development and {"cylinder", "tables", "speed"} & set(options.sections):
        parser.error("cylinder, tables and speed have nothing to choose: leave --development out")
    fixed = {"tables", "speed"} & set(options.sections)
    if fixed and (options.channels or options.epochs):
        parser.error(f"{', '.join(fixed)} would ignore --channels and --epochs")
    set_threads(options.threads)
    for section in options.sections:
        SECTIONS[section](options)


if __name__ == "__main__":
    main()
