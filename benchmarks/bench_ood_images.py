"""Which detector finds images of another kind: digits, MNIST and Fashion-MNIST, both ways.

Detectors are fitted to images of one kind (pixels in [0, 1], nothing else is done to them) and rank
new ones among images of another: classes that were held out, the other data set, uniform noise, and
constant images of any brightness. ``EnergyOutlierDetector()``, a detector composed for pixels, its
parts, other scores beyond likelihood, and a classifier's free energy, beside PyOD's detectors in
their default settings. ``--deep`` adds its three neural ones.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from _common import area_under_roc, save_results, set_threads
from bench_ood import neural_peers, peers
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from sklebm import (
    EnergyKMeans,
    EnergyOutlierDetector,
    InputComplexityScorer,
    LikelihoodRatioScorer,
    LogitEnergyScorer,
    PCAWhitener,
    TypicalityScorer,
)

PEERS = ("ECOD", "GMM", "IForest", "KNN", "LOF", "OCSVM", "PCA", "AutoEncoder", "DeepSVDD", "VAE")
N_TRAIN, N_TEST = 2000, 1000

Task = tuple[str, Any, Any, Any, dict[str, Any], tuple[int, int]]


def ours(seed: int, shape: tuple[int, int]) -> dict[str, Any]:
    """Detectors of this library: the default, one for pixels, and what its parts do alone."""
    gaussian = PCAWhitener(ridge=0.001)
    clusters = EnergyKMeans(100, random_state=seed)
    ratio = LikelihoodRatioScorer(clusters, background=EnergyKMeans(1))
    return {
        'EnergyOutlierDetector("auto")': EnergyOutlierDetector(),
        "EnergyOutlierDetector of ratio and Gaussian": EnergyOutlierDetector(
            [("ratio", ratio), ("gaussian", gaussian)]
        ),
        "k-means": clusters,
        "k-means, ratio to one cluster": ratio,
        "Gaussian": gaussian,
        "Gaussian, typicality": TypicalityScorer(gaussian, calibration=0.2, random_state=seed),
        "Gaussian, complexity": InputComplexityScorer(gaussian, image_shape=shape),
        "logistic regression, energy": LogitEnergyScorer(LogisticRegression(max_iter=200)),
    }


def draw(images: Any, count: int, generator: Any) -> Any:
    """Some of the images as rows in [0, 1]."""
    chosen = generator.permutation(len(images))[:count]
    return images[chosen].reshape(len(chosen), -1) / 255.0


def tasks(folder: Path, seed: int) -> Iterator[Task]:
    """Name, training rows, their classes, new rows, outliers by name, and the shape of images."""
    generator = np.random.default_rng(seed)
    digits, classes = load_digits(return_X_y=True)
    known = np.flatnonzero(classes < 7)
    order = generator.permutation(known)
    train, test = order[:800], order[800:]
    unknown = digits[classes >= 7] / 16
    others = {"digits 7 to 9": unknown, **synthetic(64, generator)}
    yield "digits 0 to 6", digits[train] / 16, classes[train], digits[test] / 16, others, (8, 8)

    with np.load(folder / "mnist.npz") as file:
        mnist = {key: file[key] for key in file.files}
    with np.load(folder / "fashion_mnist_test.npz") as file:
        fashion = {key: file[key] for key in file.files}
    seen = {part: mnist[f"y_{part}"] < 7 for part in ("train", "test")}
    held_out = draw(mnist["x_test"][~seen["test"]], N_TEST, generator)
    few = {f"{kind}_{part}": mnist[f"{kind}_{part}"][seen[part]] for kind in "xy" for part in seen}
    yield image_task("MNIST 0 to 6", few, {"MNIST 7 to 9": held_out}, generator)
    for name, inside, other, outside in (
        ("MNIST", mnist, "Fashion", fashion),
        ("Fashion", fashion, "MNIST", mnist),
    ):
        rows = {other: draw(outside["x_test"], N_TEST, generator), **synthetic(784, generator)}
        yield image_task(name, inside, rows, generator)


def image_task(name: str, images: dict[str, Any], others: dict[str, Any], generator: Any) -> Task:
    """Draw training and test rows from a data set of 28 x 28 pixels."""
    chosen = generator.permutation(len(images["x_train"]))[:N_TRAIN]
    train = images["x_train"][chosen].reshape(len(chosen), -1) / 255.0
    test = draw(images["x_test"], N_TEST, generator)
    return name, train, images["y_train"][chosen], test, others, (28, 28)


def synthetic(n_pixels: int, generator: Any) -> dict[str, Any]:
    """Noise without structure, and images without any content."""
    return {
        "noise": generator.random((N_TEST, n_pixels)),
        "constant": np.repeat(generator.random((N_TEST, 1)), n_pixels, axis=1),
    }


def scores_of(model: Any, train: Any, classes: Any) -> Callable[[Any], Any]:
    """Fit, and return a function whose values are higher for typical rows."""
    if type(model).__module__.startswith("pyod"):
        model.fit(train)
        return lambda rows: -model.decision_function(rows)
    model.fit(train, classes)
    score: Callable[[Any], Any] = model.score_samples
    return score


def measure(folder: Path, n_seeds: int, deep: bool) -> tuple[dict[str, Any], dict[str, float]]:
    """AUROC of each detector by case, a list over seeds, and its seconds."""
    auroc: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for seed in range(n_seeds):
        for name, train, classes, test, others, shape in tasks(folder, seed):
            models = ours(seed, shape)
            makers = {**peers(), **(neural_peers() if deep else {})}
            for peer in PEERS:
                if peer in makers:
                    models[f"PyOD {peer}"] = makers[peer](seed, train.shape[1])
            for label, model in models.items():
                start = time.perf_counter()
                score = scores_of(model, train, classes)
                normal = score(test)
                for other, rows in others.items():
                    values = np.concatenate([normal, score(rows)])
                    is_inlier = np.arange(len(values)) < len(normal)
                    case = f"{name} / {other}"
                    cells = auroc.setdefault(label, {}).setdefault(case, [])
                    cells.append(area_under_roc(is_inlier, values))
                seconds[label] = seconds.get(label, 0.0) + time.perf_counter() - start
            print(seed, name, flush=True)
    return auroc, seconds


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--deep", action="store_true", help="add AutoEncoder, DeepSVDD and VAE")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if "SKLEBM_DATA" not in os.environ:
        sys.exit("Set SKLEBM_DATA to the folder that holds mnist.npz and fashion_mnist_test.npz.")
    set_threads(arguments.threads)
    warnings.simplefilter("ignore")
    folder = Path(os.environ["SKLEBM_DATA"])
    auroc, seconds = measure(folder, arguments.seeds, arguments.deep)
    cases = list(next(iter(auroc.values())))
    rows = []
    for label, cells in auroc.items():
        means = [float(np.mean(cells[case])) for case in cases]
        rows.append([label, *(round(value, 3) for value in [*means, np.mean(means), min(means)])])
        rows[-1].append(round(seconds[label], 1))
        print(*rows[-1], sep="  ")
    save_results(
        "ood_images",
        "Images of another kind: training / outliers",
        ["detector", *cases, "mean", "lowest", "total time (s)"],
        rows,
        notes=f"AUROC, mean of {arguments.seeds} draws of {N_TRAIN} training, {N_TEST} new images "
        f"and {N_TEST} outliers (digits: 800 and the rest); pixels in [0, 1]; "
        f"{arguments.threads} thread(s); PyOD {version('pyod')}, default settings; "
        "infinite scores rank beyond all others, a NaN is a wrong answer. Only the classifier sees "
        "labels. The detector of ratio and Gaussian was composed on these cases.",
    )


if __name__ == "__main__":
    main()
