"""
======================================================
The main job on real data: select, detect, transform
======================================================

``make demo`` runs it, in one to two minutes on two cores. Nothing is downloaded: the data are
scikit-learn's 8 x 8 images of digits and its two photographs.

1. Select. ``GridSearchCV`` chooses the number of clusters by the ``score`` of ``EnergyKMeans``
   on held-out images: their mean log density, in nats. No outlier is seen.
2. Detect. Each of the ten digits is left out in turn. A model of the other nine has to tell, by
   ``score_samples``, new images of these nine from the digit it never saw, from patches of
   photographs, from noise, and from images that exchanged pixels with each other.
3. Transform. Triangle codes, max(0, mean distance - distance), feed a linear classifier.

Two more models of sklebm, a Gaussian mixture and a Boltzmann machine, are compared in the same
tables.

Every detector has up to eight candidates and the same training rows. The starred ones have no
score to choose a candidate by, or none that is comparable between preprocessings: each is shown
with the candidate that did best on the test itself, so its results are optimistic.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.progress import track
from sklearn.base import clone
from sklearn.callback import ProgressBar
from sklearn.datasets import load_digits, load_sample_images
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import (
    GridSearchCV,
    ParameterGrid,
    RepeatedStratifiedKFold,
    cross_val_score,
    train_test_split,
)
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Binarizer, StandardScaler
from sklearn.svm import OneClassSVM

from sklebm import BernoulliRBM, EnergyGaussianMixture, EnergyKMeans
from sklebm.metrics import fpr_at_tpr
from sklebm.plotting import ComponentsDisplay

GROUPS = ["left-out digit", "photo patches", "noise", "mixed pixels"]
FIGURE_DIGIT = 3  # the figure shows the split without this digit
# Okabe and Ito's colours, which people with any kind of colour vision can tell apart.
COLOURS = ["black", "#D55E00", "#0072B2", "#009E73", "#CC79A7"]

REDUCED = PCA(48, random_state=0)  # 99.9 % of the variance of the 64 pixels
PREPROCESSING = ["passthrough", PCA(48, whiten=True, random_state=0)]


# ---- methods: to add a row to the tables, add an entry ----------------------


class Method(NamedTuple):
    """A row of the tables: a pipeline and its candidates."""

    name: str
    pipeline: Pipeline
    grid: dict[str, list[Any]]
    has_score: bool  # chosen by its held-out score; else by the test, which flatters it


def starred(model: Any, **grid: list[Any]) -> Method:
    """A method that the test itself chooses for, behind either preprocessing."""
    steps = {"model__" + name: values for name, values in grid.items()}
    pipeline = Pipeline([("preprocessing", "passthrough"), ("model", model)])
    grid = {"preprocessing": PREPROCESSING, **steps}
    return Method(type(model).__name__ + "*", pipeline, grid, has_score=False)


OURS = Method(
    "EnergyKMeans",
    Pipeline([("reduce", REDUCED), ("model", EnergyKMeans(output="triangle", random_state=0))]),
    {"model__n_clusters": [10, 20, 50, 100, 200, 300, 400, 500]},
    has_score=True,
)
# Other models of sklebm, chosen like ours by their held-out log density. The machine sees black
# and white: its units are binary.
MIXTURE = Method(
    "EnergyGaussianMixture",
    Pipeline([("reduce", REDUCED), ("model", EnergyGaussianMixture(random_state=0))]),
    {"model__n_components": [5, 10, 20, 40], "model__reg_covar": [0.01, 0.03]},
    has_score=True,
)
MACHINE = Method(
    "BernoulliRBM",
    Pipeline([("binarize", Binarizer(threshold=0.5)), ("model", BernoulliRBM(random_state=0))]),
    {
        "model__n_components": [64],
        "model__learning_rate": [0.3],
        "model__max_epochs": [20, 40],
        "model__batch_size": [25],
    },
    has_score=True,
)
METHODS = [
    OURS,
    MIXTURE,
    MACHINE,
    starred(GaussianMixture(random_state=0), n_components=[20, 40], reg_covar=[0.01, 0.03]),
    starred(OneClassSVM(nu=0.05), gamma=[0.1, 0.5, 2.0, 4.0]),
    starred(LocalOutlierFactor(novelty=True), n_neighbors=[3, 5, 10, 20]),
    starred(IsolationForest(random_state=0), max_samples=[256, 1.0], max_features=[0.3, 1.0]),
]


# ---- data -------------------------------------------------------------------


class Split(NamedTuple):
    """Without one digit: row numbers to train and validate on, new images, and outliers."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    outliers: dict[str, np.ndarray]


def photo_patches(seed: int) -> np.ndarray:
    """300 grey 8 x 8 patches of two photographs, in [0, 1] like the digits."""
    greys = [photo @ [0.299, 0.587, 0.114] / 255 for photo in load_sample_images().images]
    patches = [extract_patches_2d(g, (8, 8), max_patches=150, random_state=seed) for g in greys]
    return np.concatenate(patches).reshape(-1, 64)


def leave_digits_out(images: np.ndarray, labels: np.ndarray) -> list[Split]:
    """Ten splits: 60 % of nine digits to train, 15 % to validate, 25 % to test."""
    rows = np.arange(len(labels))
    rest, test = train_test_split(rows, test_size=0.25, stratify=labels, random_state=0)
    train, validation = train_test_split(rest, test_size=0.2, stratify=labels[rest], random_state=0)
    splits = []
    for digit in range(10):
        known = [part[labels[part] != digit] for part in (train, validation, test)]
        rng = np.random.default_rng(digit)
        noise = rng.uniform(size=(300, 64))
        mixed = rng.permuted(images[known[2]], axis=0)  # each pixel alone keeps its distribution
        outliers = [images[labels == digit], photo_patches(digit), noise, mixed]
        named = dict(zip(GROUPS, outliers, strict=True))
        splits.append(Split(known[0], known[1], images[known[2]], named))
    return splits


# ---- the three steps --------------------------------------------------------


def describe(candidate: dict[str, Any]) -> str:
    return ", ".join(f"{key.split('__')[-1]}={value}" for key, value in candidate.items())


def select(method: Method, images: np.ndarray, splits: list[Split]) -> list[dict[str, Any]]:
    """The one candidate with the best held-out score, or all for the test to choose from."""
    if not method.has_score:
        return list(ParameterGrid(method.grid))
    cv = [(split.train, split.validation) for split in splits]
    search = GridSearchCV(method.pipeline, method.grid, cv=cv, refit=False, n_jobs=2)
    search.set_callbacks(ProgressBar(max_propagation_depth=0))
    results = search.fit(images).cv_results_
    for candidate, score in zip(results["params"], results["mean_test_score"], strict=True):
        print(f"  {describe(candidate):40}{score:9.2f}")
    print(f"{method.name}: {describe(search.best_params_)}")
    return [search.best_params_]


class Detection(NamedTuple):
    """What one candidate reached on the splits."""

    candidate: dict[str, Any]
    rates: np.ndarray  # AUROC and FPR at 95 % TPR, of shape (n_splits, n_groups, 2)
    seconds: float  # to fit and to score one split


def detect_in(split: Split, model: Pipeline, images: np.ndarray) -> tuple[np.ndarray, float]:
    """AUROC and FPR at 95 % TPR for every group of outliers, and the seconds it took."""
    start = time.perf_counter()
    model.fit(images[np.concatenate([split.train, split.validation])])
    inliers = model.score_samples(split.test)
    rates = []
    for outliers in split.outliers.values():
        scores = np.concatenate([inliers, model.score_samples(outliers)])
        truth = np.repeat([1, 0], [len(inliers), len(outliers)])
        rates.append([roc_auc_score(truth, scores), fpr_at_tpr(truth, scores)])
    return np.array(rates), time.perf_counter() - start


def detect(
    method: Method, candidates: list[dict[str, Any]], images: np.ndarray, splits: list[Split]
) -> Detection:
    """Test the candidates on all splits; return the one with the highest mean AUROC."""
    models = [clone(method.pipeline).set_params(**candidate) for candidate in candidates]
    jobs = [delayed(detect_in)(split, model, images) for model in models for split in splits]
    runs = Parallel(n_jobs=2, return_as="generator")(jobs)
    rates, seconds = zip(*track(runs, f"{method.name:22}", total=len(jobs)), strict=True)
    rates = np.reshape(rates, (len(models), len(splits), len(GROUPS), 2))
    best = int(rates[..., 0].mean(axis=(1, 2)).argmax())
    seconds = float(np.reshape(seconds, (len(models), -1))[best].mean())
    return Detection(candidates[best], rates[best], seconds)


def classify(images: np.ndarray, labels: np.ndarray, codes: Pipeline) -> dict[str, np.ndarray]:
    """Accuracy of logistic regression on three kinds of features, in ten held-out folds."""
    directions = min(codes["model"].n_clusters, 64)
    features = {
        "triangle codes": [codes, StandardScaler()],
        "raw pixels": [StandardScaler()],
        f"PCA, {directions} directions": [StandardScaler(), PCA(directions, random_state=0)],
    }
    folds = RepeatedStratifiedKFold(n_splits=5, n_repeats=2, random_state=0)
    strengths = {"C": [0.01, 0.1, 1.0]}
    accuracy = {}
    for name, steps in track(features.items(), f"{'LogisticRegression':22}"):
        classifier = GridSearchCV(LogisticRegression(max_iter=2000), strengths, cv=3)
        model = make_pipeline(*steps, classifier)
        accuracy[name] = cross_val_score(model, images, labels, cv=folds, n_jobs=2)
    return accuracy


# ---- report -----------------------------------------------------------------


def standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def show(values: np.ndarray) -> str:
    return f"{values.mean():.3f} ± {standard_error(values):.3f}"


def print_detections(detections: dict[str, Detection]) -> None:
    """Two tables, AUROC and false positives; the candidate of each row; who wins."""
    rates = ["AUROC", "FPR at 95 % TPR"]
    for which, rate in enumerate(rates):
        print(f"\n{rate:22}" + "".join(f"{group:>16}" for group in GROUPS) + "  seconds")
        for name, (_, values, seconds) in detections.items():
            cells = "".join(f"{show(values[:, i, which]):>16}" for i in range(len(GROUPS)))
            print(f"{name:22}{cells}{seconds:9.2f}")
    print("Mean ± standard error over the ten splits; seconds to fit and score one split.")
    print("* the best of its candidates on the test itself")
    print("A tie below: a difference of at most the larger standard error, or of 0.0005.\n")
    for name, (candidate, _, _) in detections.items():
        print(f"  {name:22}{describe(candidate)}")
    for which, rate in enumerate(rates):
        print(f"\n{rate}:")
        for i, group in enumerate(GROUPS):
            rivals = (name for name in detections if name == OURS.name or name.endswith("*"))
            rows = {name: detections[name].rates[:, i, which] for name in rivals}
            print_verdict(group, rows, sign=-1 if which else 1)


def print_verdict(what: str, rows: dict[str, np.ndarray], sign: int = 1) -> None:
    """Compare the first row with the best other one; sign is -1 where low values are good."""
    (_, ours), *others = rows.items()
    name, best = max(others, key=lambda row: sign * row[1].mean())
    lead = sign * (ours - best).mean()
    # Less than the printed digits can show counts as equal.
    tie = abs(lead) <= max(standard_error(ours), standard_error(best), 0.0005)
    outcome = "ties with" if tie else "wins against" if lead > 0 else "loses to"
    print(f"  {what:24}{outcome:13}{name:20}paired difference {show(ours - best)}")


def draw(model: Pipeline, split: Split, path: Path) -> None:
    """Centres, what was flagged, and the energies of all groups, in one figure."""
    groups = {"the other nine digits": split.test, **split.outliers}
    energies = {name: -model.score_samples(rows) for name, rows in groups.items()}
    ranked = {name: groups[name][np.argsort(energies[name])] for name in groups}
    figure = Figure(figsize=(12, 7.4), layout="constrained")
    axes = figure.subplot_mosaic(
        [["centres", "flagged"], ["energies", "energies"]], width_ratios=[9, 14]
    )
    draw_centres(axes["centres"], model)
    draw_flagged(axes["flagged"], ranked)
    draw_energies(axes["energies"], energies)
    figure.savefig(path, dpi=120)


def draw_centres(ax: Axes, model: Pipeline) -> None:
    """The centres of the largest clusters, as images."""
    kmeans = model["model"]
    largest = np.argsort(-kmeans.cluster_counts_, kind="stable")[:48]
    centres = model["reduce"].inverse_transform(kmeans.cluster_centers_[largest]).clip(0, 1)
    title = f"Centres of the 48 largest of {kmeans.n_clusters} clusters"
    ComponentsDisplay(centres, (8, 8)).plot(ax=ax, n_columns=8, title=title)


def draw_flagged(ax: Axes, ranked: dict[str, np.ndarray]) -> None:
    """The last images of each group ranked by energy, and both kinds of errors."""
    inliers, left_out, *_ = ranked.values()
    rows = {name: ranked[name][:-13:-1] for name in GROUPS}
    rows["false alarms\n(the other nine)"] = inliers[:-13:-1]
    rows["missed: left-out digit,\nlowest energy"] = left_out[:12]
    tiles = ComponentsDisplay(np.concatenate(list(rows.values())), (8, 8))
    tiles.plot(ax=ax, n_columns=12, title="Flagged: the highest energy of each group; the errors")
    for index, name in enumerate(rows):
        ax.text(-2, 9 * index + 3.5, name, ha="right", va="center")


def draw_energies(ax: Axes, energies: dict[str, np.ndarray]) -> None:
    """Histograms of -log p(x), and the threshold that 95 % of the inliers stay below."""
    inliers, *_ = energies.values()
    low, high = np.quantile(np.concatenate(list(energies.values())), [0, 0.99])
    bins = np.linspace(low, high, 100)
    for (name, values), colour in zip(energies.items(), COLOURS, strict=True):
        ax.hist(values, bins, density=True, histtype="stepfilled", alpha=0.35, color=colour)
        ax.hist(values, bins, density=True, histtype="step", color=colour, label=name)
    label = "95 % of the other nine are below"
    ax.axvline(np.quantile(inliers, 0.95), color="black", linestyle="--", label=label)
    title = f"Energy of new images, in a model that never saw a {FIGURE_DIGIT}"
    ax.set_title(title, fontsize="medium")
    ax.set(xlabel="energy, -log p(x), in nats", ylabel="density")
    ax.legend(frameon=False)


def main() -> None:
    start = time.perf_counter()
    digits = load_digits()
    images, labels = digits.data / 16, digits.target
    splits = leave_digits_out(images, labels)

    print("1. Select: the log density of held-out images chooses\n", flush=True)
    candidates = {method.name: select(method, images, splits) for method in METHODS}
    chosen = candidates[OURS.name][0]

    print("\n2. Detect: each digit left out in turn\n", flush=True)
    detections = {m.name: detect(m, candidates[m.name], images, splits) for m in METHODS}
    print_detections(detections)

    print("\n3. Transform: features for a linear classifier\n", flush=True)
    model = clone(OURS.pipeline).set_params(**chosen)
    accuracy = classify(images, labels, clone(model))
    for name, values in accuracy.items():
        print(f"  {name:24}accuracy {show(values)}")
    print_verdict("triangle codes", accuracy)

    split, path = splits[FIGURE_DIGIT], Path("demo.png").resolve()
    draw(model.fit(images[np.concatenate([split.train, split.validation])]), split, path)
    print(f"\nFigure: {path}\nTook {time.perf_counter() - start:.0f} seconds.")


if __name__ == "__main__":
    main()
