"""How long do a million rows take, and how much memory: the default detector, IForest and KNN.

Every detector is fitted to 10,000 rows of 30 features and scores 1,000,000 others (KNN a tenth of
them); PyOD's IForest and KNN in their default settings, in the same run. The default is also fitted
to the tables that are large for it: 1,000,000 x 30, 10,000 x 1,500, and 50 x 10. Memory is the
growth of a fresh process while the million rows are scored under scikit-learn's ``working_memory``
of 64 MiB; the scores themselves are 8 of them.
"""

from __future__ import annotations

import argparse
import time
import warnings
from importlib.metadata import version
from typing import Any

import numpy as np
import sklearn
from _common import peak_memory, save_results, set_threads
from bench_ood import pyod_class

from sklebm import EnergyOutlierDetector

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


def main() -> None:
    """Measure, and write the table."""
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
    for n_rows, n_features in ((arguments.rows, 30), (10_000, 1500), (50, 10)):
        X = make_rows(n_rows, n_features, 0)
        model = EnergyOutlierDetector()
        fitting = seconds(lambda model=model, X=X: model.fit(X))
        scoring = seconds(lambda model=model, X=X: model.score_samples(X))
        label = f"{OURS}: {n_rows:,} x {n_features:,}, scoring the same"
        rows.append([label, round(fitting, 2), round(scoring, 2), "-"])
        print(*rows[-1], sep="  ", flush=True)
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
