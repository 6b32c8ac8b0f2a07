"""EnergyClassifier beside MLPClassifier and a plain torch loop: accuracy, calibration, detection.

The same network and number of updates for all, on digits and on small colour images (8,000 for
training), in equal splits. Then three classes are left out of training, and the AUROC says how well
a score tells their test images from those of known classes: the maximum softmax probability of the
plain classifier, its free energy, and the free energy of classifiers with ``joint``. The distance
to the nearest training row says how much of this the rows tell without labels or a network. Needs
the folder of ``SKLEBM_DATA`` with ``cifar10_small.npz``.

    python benchmarks/bench_energy_classifier.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import save_results, set_threads
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklebm import EnergyClassifier

LEFT_OUT = (7, 8, 9)
COLUMNS = (
    "data",
    "model",
    "accuracy (%)",
    "calibration error (%)",
    "AUROC, largest p(y | x)",
    "AUROC, -F(x)",
    "fit (s)",
)
HIDDEN, BATCH, RATE, DECAY = 128, 128, 0.003, 1e-4
UPDATES = 2000


def load(quick: bool) -> dict[str, Any]:
    """Training and test rows with their labels, standardised, by the name of the data."""
    X, y = load_digits(return_X_y=True)
    sets = {"digits": train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)}
    folder = os.environ.get("SKLEBM_DATA")
    if folder is None:
        raise SystemExit("Set SKLEBM_DATA to the folder of cifar10_small.npz.")
    with np.load(Path(folder) / "cifar10_small.npz") as images:
        n_rows = 500 if quick else 8000
        x_train, x_test = (images[f"x_{part}"].reshape(-1, 3072) for part in ("train", "test"))
        labels = images["y_train"][:n_rows].astype(int), images["y_test"].astype(int)
        sets["cifar10_small"] = (x_train[:n_rows] / 255.0, x_test / 255.0, *labels)
    found = {}
    for name, (train, test, y_train, y_test) in sets.items():
        scaler = StandardScaler().fit(train)
        rows = (scaler.transform(part).astype(np.float32) for part in (train, test))
        found[name] = (*rows, y_train, y_test)
    return found


class TorchLoop:
    """The same network, loss and schedule, without anything around them."""

    def __init__(self, epochs: int, seed: int) -> None:
        self.epochs, self.seed = epochs, seed

    def fit(self, X: Any, y: Any) -> TorchLoop:
        """Train."""
        self.classes_, codes = np.unique(y, return_inverse=True)
        torch.manual_seed(self.seed)
        self.net = nn.Sequential(
            nn.Linear(X.shape[1], HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, len(self.classes_))
        )
        optimizer = torch.optim.Adam(self.net.parameters(), lr=RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs)
        rows, target = torch.from_numpy(X), torch.from_numpy(codes)
        for _ in range(self.epochs):
            for part in torch.split(torch.randperm(len(rows)), BATCH):
                loss = nn.functional.cross_entropy(self.net(rows[part]), target[part])
                weights = (p for p in self.net.parameters() if p.dim() > 1)
                loss = loss + 0.5 * DECAY * sum(p.square().sum() for p in weights)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            schedule.step()
        return self

    def predict_proba(self, X: Any) -> Any:
        """Softmax of the outputs."""
        with torch.no_grad():
            return torch.softmax(self.net(torch.from_numpy(X)), dim=1).numpy()


def calibration_error(p: Any, right: Any, n_bins: int = 15) -> float:
    """Mean gap between certainty and accuracy over bins of certainty, in percent."""
    certainty = p.max(axis=1)
    place = np.minimum((certainty * n_bins).astype(int), n_bins - 1)
    gaps = [
        (place == k).mean() * abs(certainty[place == k].mean() - right[place == k].mean())
        for k in np.unique(place)
    ]
    return 100 * float(np.sum(gaps))


def models(epochs: int, seed: int) -> dict[str, Any]:
    """The contestants by name."""
    shared = {
        "hidden_sizes": (HIDDEN,),
        "batch_size": BATCH,
        "learning_rate": RATE,
        "max_epochs": epochs,
        "random_state": seed,
        "device": "cpu",
    }
    mlp = MLPClassifier(
        (HIDDEN,),
        batch_size=BATCH,
        learning_rate_init=RATE,
        max_iter=epochs,
        n_iter_no_change=epochs,
        random_state=seed,
    )
    return {
        "EnergyClassifier": EnergyClassifier(**shared),
        "EnergyClassifier, hinge": EnergyClassifier(objective="hinge", **shared),
        "EnergyClassifier, joint": EnergyClassifier(joint=True, **shared),
        "EnergyClassifier, joint pcd": EnergyClassifier(joint="pcd", **shared),
        "MLPClassifier": mlp,
        "torch loop": TorchLoop(epochs, seed),
    }


def measure(model: Any, data: Any) -> tuple[float, float, float, float]:
    """Accuracy and calibration error (percent), AUROC of both scores for left-out classes."""
    X, X_test, y, y_test = data
    model.fit(X, y)
    p = model.predict_proba(X_test)
    right = model.classes_[p.argmax(axis=1)] == y_test
    known, known_test = (~np.isin(labels, LEFT_OUT) for labels in (y, y_test))
    model.fit(X[known], y[known])
    certainty = roc_auc_score(known_test, model.predict_proba(X_test).max(axis=1))
    density = np.nan
    if hasattr(model, "score_samples"):
        density = roc_auc_score(known_test, model.score_samples(X_test))
    return 100 * right.mean(), calibration_error(p, right), certainty, density


def nearest(data: Any) -> float:
    """AUROC of the distance to the nearest training row for left-out classes."""
    X, X_test, y, y_test = data
    known, known_test = (~np.isin(labels, LEFT_OUT) for labels in (y, y_test))
    distance, _ = NearestNeighbors(n_neighbors=1).fit(X[known]).kneighbors(X_test)
    return float(roc_auc_score(known_test, -distance[:, 0]))


def main() -> None:
    """Measure, print, and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rows, epochs and seeds")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    set_threads(options.threads)
    warnings.simplefilter("ignore", ConvergenceWarning)
    updates, n_seeds = (20, 1) if options.quick else (UPDATES, 5)
    rows: list[list[Any]] = []
    for data_name, data in load(options.quick).items():
        epochs = max(1, round(updates * BATCH / len(data[0])))
        for name in models(epochs, 0):
            start = time.perf_counter()
            found = [measure(models(epochs, seed)[name], data) for seed in range(n_seeds)]
            seconds = (time.perf_counter() - start) / (2 * n_seeds)
            accuracy, gap, certainty, density = np.mean(found, axis=0)
            shown = "–" if np.isnan(density) else round(float(density), 3)
            percent = [round(float(value), 2) for value in (accuracy, gap)]
            rows.append(
                [data_name, name, *percent, round(float(certainty), 3), shown, round(seconds, 2)]
            )
            print(*rows[-1], sep="  ", flush=True)
        start = time.perf_counter()
        auroc, seconds = round(nearest(data), 3), time.perf_counter() - start
        rows.append([data_name, "nearest training row", "–", "–", "–", auroc, round(seconds, 2)])
        print(*rows[-1], sep="  ", flush=True)
    if options.quick:
        return
    save_results(
        "energy_classifier",
        "EnergyClassifier: accuracy, calibration, and classes that were left out",
        COLUMNS,
        rows,
        notes=f"One hidden layer of {HIDDEN} units, Adam at {RATE}, batches of {BATCH}, {UPDATES} "
        f"updates, standardised rows, mean of {n_seeds} seeds. The last three labels are left out "
        f"for the AUROC. {options.threads} threads; seconds on a machine with other work.",
    )


if __name__ == "__main__":
    main()
