"""How long do a million rows take, and how much memory: the default detector, IForest and KNN.

Every detector is fitted to 10,000 rows of 30 features and scores 1,000,000 others (KNN a tenth of
them); PyOD's IForest and KNN in their default settings, in the same run. The default is also fitted
to the tables that are large for it: 1,000,000 x 30, 300,000 x 20, 10,000 x 1,500, and 50 x 10, and
to a file of 2,000,000 x 64 numbers (1 GB) that is mapped into memory. Memory is the growth of a
fresh process while the million rows are scored, or the file is fitted, under scikit-learn's
``working_memory`` of 64 MiB; the scores themselves are 8 of them.

A second table says what the caps cost: the default is fitted to at most 10,000 rows, of which it
stores 2,000 as neighbours. Two thirds of each large table are fitted, contaminated as they are, and
the last third is scored, with the caps and without. It needs the folder of ``SKLEBM_DATA`` with
``adbench_more``.

    python benchmarks/bench_ood_speed.py [--rows 100000]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import sklearn
from _common import peak_memory, save_results, set_threads
from bench_ood import pyod_class
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from sklebm import EnergyOutlierDetector
from sklebm.outliers import _default, energy_outlier_detector

WORKING_MEMORY = 64  # MiB
OURS = "EnergyOutlierDetector"
SETUP = f"""
import sys, warnings
sys.path.insert(0, "benchmarks")
warnings.simplefilter("ignore")
import sklearn
from bench_ood_speed import make_rows, make_detector, scoring_method
sklearn.set_config(working_memory={WORKING_MEMORY})
model = make_detector({{name!r}}).fit(make_rows(10_000, 30, 0))
score = scoring_method(model)
X = make_rows({{n_rows}}, 30, 1)
score(X[:100])
"""
FILE_SETUP = f"""
import warnings
warnings.simplefilter("ignore")
import numpy, sklearn
from sklebm import EnergyOutlierDetector
sklearn.set_config(working_memory={WORKING_MEMORY})
EnergyOutlierDetector().fit(numpy.random.default_rng(0).normal(size=(100, 64)))
X = numpy.load({{path!r}}, mmap_mode="r")
"""
CAPPED_TABLES = ("32_shuttle", "34_smtp")


def make_rows(n_rows: int, n_features: int, seed: int) -> Any:
    """Rows around three centres, with correlated features; one in a hundred is an outlier."""
    mixing = np.random.default_rng(7).normal(size=(n_features, n_features)) / np.sqrt(n_features)
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(n_rows, n_features)) @ mixing
    rows += 2 * np.eye(3, n_features)[generator.integers(3, size=n_rows)]
    rows[::100] *= 4
    return rows


def make_detector(name: str) -> Any:
    """The default detector, or one of PyOD's in its default settings."""
    if name == OURS:
        return EnergyOutlierDetector()
    cls = pyod_class(name.lower(), name)
    return cls(random_state=0) if name == "IForest" else cls()


def scoring_method(model: Any) -> Any:
    """What gives one number for each row."""
    return model.score_samples if hasattr(model, "score_samples") else model.decision_function


def seconds(call: Any) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(name: str, n_rows: int) -> list[Any]:
    """One row: seconds of the fit and of scoring, and the memory that scoring takes."""
    train, X = make_rows(10_000, 30, 0), make_rows(n_rows, 30, 1)
    model = make_detector(name)
    fitting = seconds(lambda: model.fit(train))
    score = scoring_method(model)
    with sklearn.config_context(working_memory=WORKING_MEMORY):
        scoring = seconds(lambda: score(X))
    memory = peak_memory("score(X)", setup=SETUP.format(name=name, n_rows=n_rows))
    return [
        f"{name}: 10,000 x 30, scoring {n_rows:,}",
        *(round(v, 1) for v in (fitting, scoring, memory)),
    ]


def measure_file(n_rows: int, n_features: int) -> list[Any]:
    """One row: seconds and memory of a fit to a file that is mapped into memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "rows.npy")
        np.save(path, make_rows(n_rows, n_features, 0))
        X = np.load(path, mmap_mode="r")
        with sklearn.config_context(working_memory=WORKING_MEMORY):
            fitting = seconds(lambda: EnergyOutlierDetector().fit(X))
        memory = peak_memory("EnergyOutlierDetector().fit(X)", setup=FILE_SETUP.format(path=path))
    label = f"{OURS}: file of {n_rows:,} x {n_features}"
    return [label, round(fitting, 2), "-", f"{memory:.0f} (of fitting)"]


def measure_caps(name: str) -> list[Any]:
    """One row: AUROC and seconds of a fit with the caps on rows and without."""
    with np.load(Path(os.environ["SKLEBM_DATA"]) / "adbench_more" / f"{name}.npz") as table:
        X, y = table["X"].astype(np.float64), table["y"]
    train, test, _, y_test = train_test_split(X, y, test_size=1 / 3, stratify=y, random_state=0)
    row: list[Any] = [f"{name}, {len(train):,} x {X.shape[1]}"]
    caps = (_default.FITTED_ROWS, _default._STORED_ROWS)
    for fitted, stored in (caps, (len(train), len(train))):
        with (
            mock.patch.object(_default, "FITTED_ROWS", fitted),
            mock.patch.object(_default, "_STORED_ROWS", stored),
            mock.patch.object(energy_outlier_detector, "FITTED_ROWS", fitted),
        ):
            model = EnergyOutlierDetector()
            fitting = seconds(lambda model=model: model.fit(train))
            auroc = roc_auc_score(y_test, -model.score_samples(test))
        row += [round(float(auroc), 4), round(fitting, 1)]
    return row


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    warnings.simplefilter("ignore")
    rows = []
    for name in (OURS, "IForest", "KNN"):
        rows.append(measure(name, arguments.rows // (10 if name == "KNN" else 1)))
        print(*rows[-1], sep="  ", flush=True)
    for n_rows, n_features in ((arguments.rows, 30), (300_000, 20), (10_000, 1500), (50, 10)):
        X = make_rows(n_rows, n_features, 0)
        model = EnergyOutlierDetector()
        fitting = seconds(lambda model=model, X=X: model.fit(X))
        scoring = seconds(lambda model=model, X=X: model.score_samples(X))
        label = f"{OURS}: {n_rows:,} x {n_features:,}, scoring the same"
        rows.append([label, round(fitting, 2), round(scoring, 2), "-"])
        print(*rows[-1], sep="  ", flush=True)
    rows.append(measure_file(2 * arguments.rows, 64))
    print(*rows[-1], sep="  ", flush=True)
    if "SKLEBM_DATA" in os.environ:
        caps = []
        for name in CAPPED_TABLES:
            caps.append(measure_caps(name))
            print(*caps[-1], sep="  ", flush=True)
        save_results(
            "ood_caps",
            "Outlier detection: what the caps on rows cost",
            ["table, rows fitted", "AUROC", "fit (s)", "AUROC, no caps", "fit (s), no caps"],
            caps,
            notes="A third of each table is held out, labels stratified; the rest is fitted "
            f"contaminated as it is. {arguments.threads} thread(s).",
        )
    save_results(
        "ood_speed",
        "Outlier detection: seconds and memory for many rows",
        ["detector: training table", "fit (s)", "score (s)", "memory of scoring (MiB)"],
        rows,
        notes=f"{arguments.threads} thread(s); PyOD {version('pyod')}, default settings; working "
        f"memory {WORKING_MEMORY} MiB; the time of a fit includes scoring the training rows, which "
        "PyOD does too.",
    )


if __name__ == "__main__":
    main()
