"""Contrastive embeddings: what they add to pixels, which objective and view does it, and the cost.

Each question is one section, named on the command line:

- `digits`: scikit-learn's digits, no labels in the encoder: nearest neighbours, and ten labels a
  class, on pixels, principal components and embeddings.
- `objectives`: the five objectives on digits, each for the seconds that InfoNCE takes.
- `views`: InfoNCE on digits with each part of the augmentation left out.
- `mnist`: a convolutional encoder on the 60,000 images, and a linear probe; at most 15 minutes.
- `cifar`: the same on the 8,000 images of `cifar10_small.npz`, beside pixels, principal components
  and triangle codes of the same size; at most 20 minutes.
- `drlim`: fours and nines of MNIST in two dimensions, by neighbours; one nearest neighbour.
- `tables`: the development tables of ADBench: embeddings of corrupted features as a detector,
  beside the default one.
- `speed`: seconds an epoch beside a bare torch loop with the same encoder and views.

All but the first three and the last need the folder of data sets named by SKLEBM_DATA. With
`--device cuda` the large sections run on a GPU.

    python benchmarks/bench_embedding.py digits objectives views speed [--quick]
    python benchmarks/bench_embedding.py mnist cifar drlim tables [--device cuda]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import save_results, set_threads, timed_ratio
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklebm import ContrastiveEmbedding, EnergyKMeans, EnergyOutlierDetector
from sklebm.inference.image_views import ImageAugmentation
from sklebm.inference.views import Neighbours, Source
from sklebm.objectives.embedding import InfoNCE, MarginContrast

DIGIT_VIEWS = ImageAugmentation(shift=0.12, crop=0.15, rotate=12.0, blur=0.0, erase=0.25)
DIGITS = {
    "n_components": 64,
    "image_shape": (8, 8),
    "hidden_sizes": (32, 64),
    "views": DIGIT_VIEWS,
    "max_epochs": 300,
}
OBJECTIVES = ("info_nce", "margin", "triplet", "nce_memory_bank", "momentum_queue")
PARTS = ("shift", "crop", "rotate", "erase", "brightness", "contrast")
Rows = list[list[object]]


def load(name: str) -> dict[str, Any]:
    """The arrays of one file of the folder of data sets."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("SKLEBM_DATA is not set: this section needs the folder of data sets.")
    with np.load(Path(folder) / name, allow_pickle=False) as data:
        return {key: data[key] for key in data.files}


def digits() -> tuple[Any, ...]:
    """Training and test digits in [0, 1] with their labels."""
    X, y = load_digits(return_X_y=True)
    return tuple(train_test_split(X / 16, y, test_size=0.3, random_state=0, stratify=y))


def five_nearest(train: Any, test: Any, y_train: Any, y_test: Any) -> float:
    """Accuracy of five nearest neighbours, per cent."""
    return 100 * KNeighborsClassifier(5).fit(train, y_train).score(test, y_test)


def ten_labels(train: Any, test: Any, y_train: Any, y_test: Any) -> float:
    """Accuracy of a linear classifier of ten labels a class, per cent; the mean of 20 draws."""
    rng, found = np.random.default_rng(0), []
    for _ in range(20):
        picked = [rng.permutation(np.flatnonzero(y_train == k))[:10] for k in np.unique(y_train)]
        rows = np.concatenate(picked)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        found.append(100 * model.fit(train[rows], y_train[rows]).score(test, y_test))
    return float(np.mean(found))


def probe(train: Any, test: Any, y_train: Any, y_test: Any) -> float:
    """Accuracy of a linear classifier of all labels, per cent."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    return 100 * float(model.fit(train, y_train).score(test, y_test))


def compare_digits(options: argparse.Namespace) -> None:
    """Pixels, principal components and embeddings of digits."""
    train, test, y_train, y_test = digits()
    seeds = range(1 if options.quick else 5)
    pca = PCA(20, random_state=0).fit(train)
    sets = {"pixels": [(train, test)], "PCA": [(pca.transform(train), pca.transform(test))]}
    models = [ContrastiveEmbedding(**sized(DIGITS, options), random_state=s) for s in seeds]
    fits = [model.fit(train) for model in models]
    sets["embedding"] = [(model.transform(train), model.transform(test)) for model in fits]
    rows: Rows = []
    for name, pairs in sets.items():
        near = [five_nearest(*pair, y_train, y_test) for pair in pairs]
        few = [ten_labels(*pair, y_train, y_test) for pair in pairs]
        rows.append([name, round(np.median(near), 2), round(np.median(few), 2)])
    show("embedding_digits", "Digits without labels", ["features", "5-NN %", "10 labels %"], rows)


def compare_objectives(options: argparse.Namespace) -> None:
    """The five objectives, each for as long as InfoNCE takes."""
    train, test, y_train, y_test = digits()
    rows: Rows = []
    budget = None
    for objective in OBJECTIVES:
        settings = {**sized(DIGITS, options), "objective": objective, "random_state": 0}
        if budget is not None:
            few = {**settings, "max_epochs": 10}
            begin = time.perf_counter()
            ContrastiveEmbedding(**few).fit(train)
            each = (time.perf_counter() - begin) / 10
            settings["max_epochs"] = max(1, round(budget / each))
        begin = time.perf_counter()
        model = ContrastiveEmbedding(**settings).fit(train)
        seconds = time.perf_counter() - begin
        budget = seconds if budget is None else budget
        pair = model.transform(train), model.transform(test)
        scores = five_nearest(*pair, y_train, y_test), ten_labels(*pair, y_train, y_test)
        rows.append([objective, model.n_iter_, round(seconds, 1), *(round(s, 2) for s in scores)])
    columns = ["objective", "epochs", "s", "5-NN %", "10 labels %"]
    show("embedding_objectives", "Objectives at equal time", columns, rows)


def compare_views(options: argparse.Namespace) -> None:
    """The augmentation with each part left out."""
    train, test, y_train, y_test = digits()
    rows: Rows = []
    for left_out in (None, *PARTS):
        views = replace(DIGIT_VIEWS, **{left_out: 0.0}) if left_out else DIGIT_VIEWS
        scores = []
        for seed in range(1 if options.quick else 3):
            settings = {**sized(DIGITS, options), "views": views, "random_state": seed}
            model = ContrastiveEmbedding(**settings).fit(train)
            scores.append(ten_labels(*map(model.transform, (train, test)), y_train, y_test))
        rows.append([left_out or "nothing", round(np.median(scores), 2)])
    show("embedding_views", "Views left out one at a time", ["left out", "10 labels %"], rows)


def images_of(name: str) -> tuple[Any, ...]:
    """Images as flat float32 rows, channels first, and their labels."""
    data = load(name)
    parts = []
    for part in ("train", "test"):
        x = data[f"x_{part}"].astype(np.float32) / 255
        x = x if x.ndim == 3 else x.transpose(0, 3, 1, 2)
        parts += [x.reshape(len(x), -1), data[f"y_{part}"]]
    return parts[0], parts[2], parts[1], parts[3]


def probe_mnist(options: argparse.Namespace) -> None:
    """A linear probe on embeddings of MNIST."""
    train, test, y_train, y_test = images_of("mnist.npz")
    n = 2000 if options.quick else len(train)
    views = ImageAugmentation(shift=0.1, crop=0.25, rotate=15.0, blur=0.5, erase=0.3)
    model = ContrastiveEmbedding(
        128,
        image_shape=(28, 28),
        hidden_sizes=(32, 64, 128),
        head_sizes=(128, 64),
        views=views,
        batch_size=512,
        max_epochs=1 if options.quick else 20,
        random_state=0,
        device=options.device,
    )
    begin = time.perf_counter()
    model.fit(train[:n])
    minutes = (time.perf_counter() - begin) / 60
    score = probe(model.transform(train[:n]), model.transform(test), y_train[:n], y_test)
    rows: Rows = [[n, round(minutes, 1), round(score, 2)]]
    show("embedding_mnist", "MNIST, linear probe", ["images", "minutes", "probe %"], rows)


def probe_cifar(options: argparse.Namespace) -> None:
    """Linear probes on pixels, principal components, triangle codes and embeddings of CIFAR."""
    train, test, y_train, y_test = images_of("cifar10_small.npz")
    n, width = (500, 64) if options.quick else (len(train), 256)
    train, y_train = train[:n], y_train[:n]
    views = ImageAugmentation(
        shift=0.0, crop=0.6, flip=0.5, rotate=0.0, brightness=0.4, contrast=0.4, colour=0.4
    )
    begin = time.perf_counter()
    model = ContrastiveEmbedding(
        width,
        image_shape=(3, 32, 32),
        hidden_sizes=(64, 128, 256),
        head_sizes=(256, 64),
        views=views,
        objective=InfoNCE(0.2),
        batch_size=512,
        max_epochs=1 if options.quick else 100,
        random_state=0,
        device=options.device,
    ).fit(train)
    minutes = (time.perf_counter() - begin) / 60
    pca = PCA(width, random_state=0).fit(train)
    codes = EnergyKMeans(width, output="triangle", random_state=0).fit(train)
    features = {
        "pixels": (train, test),
        "PCA": (pca.transform(train), pca.transform(test)),
        "triangle codes": (codes.transform(train), codes.transform(test)),
        "embedding": (model.transform(train), model.transform(test)),
    }
    rows: Rows = [
        [name, pair[0].shape[1], round(probe(*pair, y_train, y_test), 2)]
        for name, pair in features.items()
    ]
    notes = f"The embedding took {minutes:.1f} minutes. Centres of whole images, not of patches."
    columns = ["features", "number", "probe %"]
    show("embedding_cifar", "CIFAR-10, 8,000 images", columns, rows, notes)


def map_drlim(options: argparse.Namespace) -> None:
    """Fours and nines in the plane: pairs are neighbours in pixels, no label is used."""
    train, test, y_train, y_test = images_of("mnist.npz")
    chosen, held = np.isin(y_train, (4, 9)), np.isin(y_test, (4, 9))
    train, y_train, test, y_test = train[chosen], y_train[chosen], test[held], y_test[held]
    n = 1000 if options.quick else len(train)
    model = ContrastiveEmbedding(
        2,
        objective=MarginContrast(1.0),
        views=Neighbours(5),
        unit_length=False,
        image_shape=(28, 28),
        hidden_sizes=(16, 32, 64),
        head_sizes=(),
        max_epochs=2 if options.quick else 60,
        random_state=0,
        device=options.device,
    ).fit(train[:n])
    nearest = KNeighborsClassifier(1).fit(model.transform(train[:n]), y_train[:n])
    score = 100 * nearest.score(model.transform(test), y_test)
    rows: Rows = [[n, round(score, 2)]]
    show("embedding_drlim", "MNIST 4 and 9 in the plane", ["images", "1-NN %"], rows)


def detect_tables(options: argparse.Namespace) -> None:
    """AUROC of a detector of embeddings, and of the default detector."""
    folder = os.environ.get("SKLEBM_DATA") or sys.exit("SKLEBM_DATA is not set.")
    paths = sorted((Path(folder) / "adbench_dev").glob("*.npz"))
    rows: Rows = []
    found = []
    for path in paths[: 2 if options.quick else None]:
        with np.load(path, allow_pickle=False) as data:
            X, y = data["X"].astype(np.float64), data["y"]
        train, test, _, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
        train = train[: 500 if options.quick else 4000]
        epochs = {"max_epochs": 3} if options.quick else {}
        embedding = ContrastiveEmbedding(random_state=0, **epochs).fit(train)
        default = EnergyOutlierDetector().fit(train)
        scores = [-embedding.score_samples(test), -default.score_samples(test)]
        found.append([float(roc_auc_score(y_test, s)) for s in scores])
        rows.append([path.stem, *(round(area, 3) for area in found[-1])])
    means = [round(float(mean), 3) for mean in np.mean(found, axis=0)]
    columns = ["table", "embedding", "EnergyOutlierDetector"]
    show("embedding_tables", "Outliers in tables", columns, [*rows, ["mean", *means]])


def compare_speed(options: argparse.Namespace) -> None:
    """Seconds an epoch beside a bare loop with the same encoder, views and loss."""
    generator = torch.Generator().manual_seed(0)
    n_rows, epochs = (512, 2) if options.quick else (8192, 5)
    X = torch.randn(n_rows, 784, generator=generator)
    views, loss = ImageAugmentation(), InfoNCE()

    def ours() -> None:
        ContrastiveEmbedding(
            image_shape=(28, 28), hidden_sizes=(16, 32), max_epochs=epochs, random_state=0
        ).fit(X)

    def bare() -> None:
        encoder = torch.nn.Sequential(
            torch.nn.Unflatten(1, (1, 28, 28)),
            torch.nn.Conv2d(1, 16, 3, 2, 1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 3, 2, 1),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(32 * 49, 32),
            torch.nn.Linear(32, 64),
            torch.nn.ReLU(),
            torch.nn.Linear(64, 32),
        )
        optimizer = torch.optim.Adam(encoder.parameters(), lr=0.002, fused=True)
        source, draws = Source(X, None, (1, 28, 28)), torch.Generator().manual_seed(0)
        for _ in range(epochs):
            for rows in torch.randperm(n_rows, generator=draws).split(256):
                pair = [views.draw(X[rows], rows, source, {}, draws) for _ in range(2)]
                both = torch.nn.functional.normalize(encoder(torch.cat(pair)), dim=1)
                optimizer.zero_grad()
                loss.of_views(*both.chunk(2)).backward()
                optimizer.step()

    timings = timed_ratio(
        {"bare torch": bare, "ContrastiveEmbedding": ours},
        reference="bare torch",
        repeats=2 if options.quick else 7,
    )
    rows: Rows = [[k, round(t.median / epochs, 3), round(t.ratio, 3)] for k, t in timings.items()]
    notes = f"{n_rows} images; the fit also scales rows and finds prototypes."
    columns = ["loop", "s an epoch", "ratio"]
    show("embedding_speed", "Epochs beside a bare loop", columns, rows, notes)


SECTIONS = {
    "digits": compare_digits,
    "objectives": compare_objectives,
    "views": compare_views,
    "mnist": probe_mnist,
    "cifar": probe_cifar,
    "drlim": map_drlim,
    "tables": detect_tables,
    "speed": compare_speed,
}


def sized(settings: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """The settings, or those of a quick run."""
    return {**settings, "max_epochs": 3} if options.quick else settings


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
