"""Exact likelihood of BernoulliRBM with 16 hidden units on MNIST and on its negative.

The protocol of PyDeep's tutorial: digits thresholded at one half, persistent contrastive divergence
with one step of 100 chains, batches of 100, rate 0.01, 50 epochs. Beside it the defaults, and
longer training. All states of the hidden units are summed over, so that log Z is exact. A machine
that is learnt centred does not care whether ink is called 1 or 0. Needs the folder of
``SKLEBM_DATA`` with ``mnist.npz``.

    python benchmarks/bench_exact_mnist.py [--rows 2000 --seeds 1 --epochs 2]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from _common import save_results, set_threads
from bench_bernoulli_rbm import load_digits

from sklebm import BernoulliRBM

HIDDEN = 16
PUBLISHED = {"learning_rate": 0.01, "learning_rate_schedule": "constant", "max_epochs": 50}
# Name of a setting, its parameters, and whether the negative digits are learnt as well.
SETTINGS: list[tuple[str, dict[str, Any], bool]] = [
    ("published protocol", PUBLISHED, True),
    ("defaults, 200 epochs", {"max_epochs": 200}, False),
    ("published protocol, plain gradients", {**PUBLISHED, "centering": False}, False),
    ("defaults, 50 epochs", {"max_epochs": 50}, True),
]
COLUMNS = [
    "learnt by",
    "rows",
    "test log-likelihood by seed (nats, exact)",
    "mean",
    "train, mean",
    "seconds a fit",
]


def measure(
    settings: dict[str, Any], x: np.ndarray[Any, Any], test: np.ndarray[Any, Any], seeds: int
) -> list[Any]:
    """Test likelihoods, their mean, that of the training rows, and seconds."""
    scores, train, seconds = [], [], []
    for seed in range(seeds):
        model = BernoulliRBM(HIDDEN, log_partition=None, random_state=seed, device="cpu")
        start = time.perf_counter()
        model.set_params(**settings).fit(x)
        seconds.append(time.perf_counter() - start)
        model.estimate_log_partition("exact")
        scores.append(model.score(test))
        train.append(model.score(x))
    each = ", ".join(f"{score:.2f}" for score in scores)
    means = [round(float(np.mean(values)), 2) for values in (scores, train)]
    return [each, *means, round(float(np.median(seconds)), 1)]


def main() -> None:
    """Fit every setting with every seed; the file is written anew after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=0, help="instead of those of the settings")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--load", default="", help="what else the machine did, for the notes")
    options = parser.parse_args()
    set_threads(options.threads)
    x, test = load_digits()
    x = x[: options.rows]
    rows: list[list[Any]] = []
    for name, chosen, negative in SETTINGS:
        settings = {**chosen, "max_epochs": options.epochs or chosen["max_epochs"]}
        for kind in ("digits", "negative")[: 1 + negative]:
            data = (x, test) if kind == "digits" else (1.0 - x, 1.0 - test)
            rows.append([name, kind, *measure(settings, *data, options.seeds)])
            print(rows[-1], flush=True)
            if (options.rows, options.seeds, options.epochs) == (60_000, 3, 0):
                save_results(
                    "exact_mnist",
                    f"BernoulliRBM with {HIDDEN} hidden units on MNIST: exact likelihood",
                    COLUMNS,
                    rows,
                    notes=(
                        "60,000 x 784, thresholded at one half; PCD-1, 100 chains, batches of 100; "
                        "seeds 0, 1, 2. PyDeep, one seed: centred -142.56 (negative -142.09), "
                        "plain -149.05 (negative -183.36). "
                        f"Threads: {options.threads}{options.load}."
                    ),
                )


if __name__ == "__main__":
    main()
