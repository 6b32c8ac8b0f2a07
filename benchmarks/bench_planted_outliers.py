"""Does training find outliers that an untrained model cannot? Every gradient-trained estimator.

The planted set: twelve features in [0, 1], on which two hidden signs act in blocks. Outliers are
rows whose features were shuffled independently of each other: right marginals, wrong correlations.
Each estimator in its default settings beside itself after an epoch at a learning rate of 1e-12, on
new rows, and one closed form (a Gaussian) for comparison. Models of targets, images, counts and
sequences have no place here: `tests/test_planted_outliers.py` gives each of them rows of its kind.

    python benchmarks/bench_planted_outliers.py [--seeds 5] [--quick]
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _common import save_results, set_threads
from sklearn.metrics import roc_auc_score

import sklebm

# What an estimator takes is written once, in the registry of the tests.
sys.path.append(str(Path(__file__).resolve().parents[1]))
from tests.registry import NAMES, entry, is_gradient_trained

UNTRAINED: dict[str, Any] = {"learning_rate": 1e-12, "max_epochs": 1}
N_FEATURES = 12


def planted_rows(n_rows: int, seed: int) -> Any:
    """Inliers: every combination of two signs, each seen by half of the features, with noise."""
    generator = np.random.default_rng(seed)
    signs = np.repeat(generator.integers(2, size=(n_rows, 2)), N_FEATURES // 2, axis=1)
    rows = 0.2 + 0.6 * signs + 0.15 * generator.standard_normal(signs.shape)
    return rows.clip(0.0, 1.0)


def auroc(model: Any, seed: int) -> float:
    """Of new inliers against the same rows with every feature shuffled."""
    inliers = planted_rows(2000, 1000 + seed)
    outliers = np.random.default_rng(seed).permuted(inliers, axis=0)
    scores = model.score_samples(np.vstack([inliers, outliers]))
    return float(roc_auc_score(np.repeat([1, 0], len(inliers)), scores))


def contestants() -> list[str]:
    """Names of the estimators that learn these rows by gradient, without targets."""
    return [
        name
        for name in NAMES
        if is_gradient_trained(getattr(sklebm, name)())
        and entry(name).learnable is None
        and not entry(name).independent
    ]


def measure(name: str, n_seeds: int, n_rows: int = 2000, **changes: Any) -> list[Any]:
    """One row: AUROC untrained and trained, medians and the lowest."""
    cls = getattr(sklebm, name)
    untrained, trained = [], []
    for seed in range(n_seeds):
        X = planted_rows(n_rows, seed)
        untrained.append(auroc(cls(random_state=seed, **UNTRAINED).fit(X), seed))
        trained.append(auroc(cls(random_state=seed, **changes).fit(X), seed))
    before, after = float(np.median(untrained)), float(np.median(trained))
    row = [name, before, after, after - before, min(trained)]
    return [item if isinstance(item, str) else round(item, 3) for item in row]


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one short fit each, nothing saved")
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    warnings.simplefilter("ignore")
    if arguments.quick:
        for name in contestants():
            print(*measure(name, 1, n_rows=100, max_epochs=1), sep="  ", flush=True)
        return
    rows = [measure(name, arguments.seeds) for name in contestants()]
    closed = [
        auroc(sklebm.PCAWhitener().fit(planted_rows(2000, seed)), seed)
        for seed in range(arguments.seeds)
    ]
    value = round(float(np.median(closed)), 3)
    rows.append(["PCAWhitener (closed form)", "-", value, "-", round(min(closed), 3)])
    for row in rows:
        print(*row, sep="  ")
    save_results(
        "planted_outliers",
        "Outliers with right marginals and wrong correlations: trained against untrained",
        ["estimator", "untrained", "trained", "gain", "lowest trained"],
        rows,
        notes=f"AUROC of score_samples, median of {arguments.seeds} seeds; 2,000 training rows of "
        f"{N_FEATURES} features, 4,000 test rows, half of them outliers; default settings; "
        "untrained: one epoch at a learning rate of 1e-12.",
    )


if __name__ == "__main__":
    main()
