"""Test log-likelihood of BernoulliRBM on the fixed binarisation of MNIST, over training.

The protocol of R. Salakhutdinov and I. Murray, "On the quantitative analysis of deep belief
networks", ICML 2008: 60,000 training rows (their training and validation rows together), 500 hidden
units, 10,000 test rows, log Z by annealed importance sampling. Everything else is the default of
the estimator but the number of epochs. Needs the folder of ``SKLEBM_DATA`` with
``mnist_binarized.npz``.

    python benchmarks/bench_binarized_mnist.py [--epochs 10 --every 5 --rows 5000]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _common import save_results, set_threads

import sklebm
from sklebm import BernoulliRBM
from sklebm.callbacks import EnergyMonitor

COLUMNS = [
    "epoch",
    "training (s)",
    "annealing temperatures",
    "test log-likelihood (nats, forward estimate)",
    "at the lower and upper end of the interval of log Z",
    "width (nats)",
]


def load_rows() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Training with validation rows, and test rows, as float32 zeros and ones."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("SKLEBM_DATA is not set: this needs the folder that holds mnist_binarized.npz.")
    with np.load(Path(folder) / "mnist_binarized.npz") as archive:
        bits = [np.unpackbits(archive[n], axis=1, count=784) for n in ("train", "valid", "test")]
    return np.vstack(bits[:2]).astype(np.float32), bits[2].astype(np.float32)


@dataclass
class Recorder:
    """Judges the machine every so many epochs and writes what is known so far."""

    test: np.ndarray[Any, Any]
    every: int
    temperatures: int
    notes: str
    keep: bool
    checkpoint: str = ""
    epoch: int = 0
    seconds: float = 0.0
    rows: list[list[Any]] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)

    def after_epoch(self, model: Any, _: Any) -> float:
        """Scoring function of a monitor; the time that judging takes does not count."""
        self.seconds += time.perf_counter() - self.began
        self.epoch += 1
        if self.epoch % self.every == 0:
            self.judge(model, 1000)
        self.began = time.perf_counter()
        return 0.0

    def judge(self, model: Any, temperatures: int) -> None:
        """Anneal forwards and backwards, and add a row."""
        model.estimate_log_partition("ais", n_temperatures=temperatures, random_state=0)
        value = float(model.score_samples(self.test).mean())
        ends = [value + model.log_partition_ - float(end) for end in model.log_partition_interval_]
        row = [self.epoch, round(self.seconds), temperatures, round(value, 2)]
        self.rows.append([*row, f"{ends[0]:.2f}, {ends[1]:.2f}", round(ends[0] - ends[1], 2)])
        if self.checkpoint:
            sklebm.save(model, self.checkpoint)
        print(self.rows[-1], flush=True)
        if self.keep:
            save_results(
                "binarized_mnist",
                "BernoulliRBM with its defaults on binarised MNIST: likelihood over training",
                COLUMNS,
                self.rows,
                notes=self.notes,
            )


def main() -> None:
    """Train once, judging on the way, and judge the end with more temperatures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--hidden", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--temperatures", type=int, default=10_000, help="at the end")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--load", default="", help="what else the machine did, for the notes")
    parser.add_argument("--checkpoint", default="", help="file for the machine as judged last")
    options = parser.parse_args()
    set_threads(options.threads)
    x, test = load_rows()
    x = x[: options.rows]
    recorder = Recorder(
        test,
        options.every,
        options.temperatures,
        f"One fit of {options.hidden} hidden units with random_state=0 on {len(x):,} rows; the "
        f"learning rate falls to zero over {options.epochs} epochs, so that earlier rows are not "
        "what a shorter fit gives. log Z with 100 chains; the interval spans three standard errors "
        "on either side of the forward and of the reverse estimate. Published with CD-25: -86.34, "
        f"CD-3: -105.50, CD-1: -125.53. Threads: {options.threads}{options.load}.",
        (options.rows, options.hidden, options.epochs) == (60_000, 500, 200),
        options.checkpoint,
    )
    monitor = EnergyMonitor(test[:1], scoring=recorder.after_epoch)
    model = BernoulliRBM(
        options.hidden,
        max_epochs=options.epochs,
        log_partition=None,
        random_state=0,
        device="cpu",
    ).set_callbacks(monitor)
    recorder.judge(model.fit(x), options.temperatures)


if __name__ == "__main__":
    main()
