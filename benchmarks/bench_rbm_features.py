"""Hidden units of a BernoulliRBM as features of MNIST: error of a logistic regression on them.

1,024 hidden units learnt without labels from 60,000 digits, then scikit-learn's LogisticRegression
on the probabilities that they are on, beside the same classifier on the pixels and on the units of
the machine before its training. The penalty is chosen on the last 10,000 training digits. Needs the
folder of ``SKLEBM_DATA`` with ``mnist.npz``.

    python benchmarks/bench_rbm_features.py [--rows 2000 --hidden 100 --epochs 2]
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import numpy as np
from _common import save_results, set_threads
from bench_autoencoders import load
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from sklebm import BernoulliRBM

PENALTIES = (0.03, 0.3, 3.0)
N_CHOICE = 10_000  # training digits on which the penalty is chosen
UNTRAINED = {"learning_rate": 1e-12, "max_epochs": 1}


def classifier(penalty: float) -> LogisticRegression:
    """Multinomial; ``C`` is the inverse of the penalty."""
    return LogisticRegression(C=penalty, max_iter=200, tol=1e-3)


def error(z: Any, y: Any, z_test: Any, y_test: Any) -> tuple[float, float]:
    """Test error in percent, and the inverse penalty that was chosen."""
    n_choice = min(N_CHOICE, len(z) // 5)
    first, last = slice(0, -n_choice), slice(-n_choice, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        chosen = max(
            PENALTIES, key=lambda c: classifier(c).fit(z[first], y[first]).score(z[last], y[last])
        )
        final = classifier(chosen).fit(z, y)
    return 100 * (1 - float(final.score(z_test, y_test))), chosen


def main() -> None:
    """Learn, classify, and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    set_threads(options.threads)
    train, test, y, y_test = load("mnist.npz")
    train, y = train[: options.rows], y[: options.rows]
    shared = {"n_components": options.hidden, "log_partition": None, "device": "cpu"}
    machines: dict[str, BernoulliRBM | None] = {
        "pixels": None,
        "untrained": BernoulliRBM(**shared, **UNTRAINED, random_state=0),
        "CD-1": BernoulliRBM(objective="cd", max_epochs=options.epochs, random_state=0, **shared),
        "PCD-1": BernoulliRBM(objective="pcd", max_epochs=options.epochs, random_state=0, **shared),
    }
    rows: list[list[Any]] = []
    for name, machine in machines.items():
        start = time.perf_counter()
        z, z_test = train, test
        if machine is not None:
            machine.fit(train)
            z, z_test = machine.transform(train), machine.transform(test)
        learnt = time.perf_counter() - start
        wrong, chosen = error(np.asarray(z), y, np.asarray(z_test), y_test)
        rows.append(
            [name, round(wrong, 2), chosen, round(learnt), round(time.perf_counter() - start)]
        )
        print(*rows[-1], sep="  ", flush=True)
    if options.rows < 60_000:
        return
    save_results(
        "rbm_features",
        f"{options.hidden} hidden units of BernoulliRBM as features of MNIST",
        ["features", "test error (%)", "C", "machine (s)", "with the classifier (s)"],
        rows,
        notes=f"60,000 grey digits in [0, 1], {options.epochs} epochs, other settings as they are "
        "by default; one seed. scikit-learn's LogisticRegression, 200 iterations at most, its C "
        f"from {', '.join(map(str, PENALTIES))} by the last {N_CHOICE:,} training digits. "
        f"{options.threads} threads; seconds on a machine with other work.",
    )


if __name__ == "__main__":
    main()
