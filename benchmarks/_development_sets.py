"""Development sets, on which defaults are chosen; no result is reported on them elsewhere.

scikit-learn's digits, wine and breast cancer; MNIST and Fashion-MNIST, every other pixel of 300 and
3,000 training images; tables of `adbench_dev` without their labels.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

TABLES = ("14_glass", "29_Pima", "6_cardio", "30_satellite")


def labelled_sets(quick: bool) -> dict[str, tuple[Any, ...]]:
    """Rows and labels to train on and to test with."""
    found = {}
    for name, load in (
        ("digits", load_digits), ("wine", load_wine), ("cancer", load_breast_cancer)
    ):  # fmt: skip
        X, y = load(return_X_y=True)
        parts = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
        scaler = StandardScaler().fit(parts[0]) if name != "digits" else None
        rows = [scaler.transform(x) if scaler else x / 16 for x in parts[:2]]
        found[name] = (rows[0], parts[2], rows[1], parts[3])
    folder = Path(os.environ["SKLEBM_DATA"])
    for name, file in (("mnist", "mnist.npz"), ("fashion", "fashion_mnist_test.npz")):
        with np.load(folder / file, allow_pickle=False) as data:
            x, y = data["x_train"][:5000], data["y_train"][:5000]
        x = x[:, ::2, ::2].reshape(len(x), -1) / 255
        for n_rows in (300, 1500) if quick else (300, 3000):
            found[f"{name} {n_rows}"] = (x[:n_rows], y[:n_rows], x[3000:4000], y[3000:4000])
    return found


def tables() -> dict[str, tuple[Any, Any]]:
    """Standardised rows to train on and to test with."""
    found = {}
    for name in TABLES:
        path = Path(os.environ["SKLEBM_DATA"]) / "adbench_dev" / f"{name}.npz"
        with np.load(path, allow_pickle=False) as data:
            parts = train_test_split(data["X"].astype(float), test_size=0.3, random_state=0)
        scaler = StandardScaler().fit(parts[0])
        found[name.partition("_")[2]] = tuple(map(scaler.transform, parts))
    return found


def accuracy(codes: Any, labels: Any, test_codes: Any, test_labels: Any) -> float:
    """Of a linear classifier."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    return float(classifier.fit(codes, labels).score(test_codes, test_labels))


def leave_one_out(names: list[str], measured: list[list[Any]]) -> list[list[Any]]:
    """For each set the candidate with the best mean rank on the others, and its score here."""
    titles = list(dict.fromkeys(row[0] for row in measured))
    score = {(row[0], row[1]): row[2] for row in measured}
    table = np.array([[score[title, candidate] for candidate in names] for title in titles])
    ranks = (-table).argsort(axis=1).argsort(axis=1)
    rows = []
    for index, title in enumerate(titles):
        best = names[int(np.delete(ranks, index, axis=0).mean(axis=0).argmin())]
        rows.append([title, best, score[title, best], score[title, "before"]])
    best = names[int(ranks.mean(axis=0).argmin())]
    return [*rows, ["all", best, float("nan"), float("nan")]]
