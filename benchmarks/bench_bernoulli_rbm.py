"""Seconds per epoch and likelihood of BernoulliRBM on MNIST, next to scikit-learn and a bare loop.

60,000 x 784 binarised digits in float32, 500 hidden units, batches of 100, one Gibbs step of
persistent chains per update. Contestants: sklebm; scikit-learn; a bare torch loop that updates the
parameters in place; and the five matrix products of a step alone, the floor of all of them.
Needs the folder of ``SKLEBM_DATA`` with ``mnist.npz``.

    python benchmarks/bench_bernoulli_rbm.py [--rows 2000 --hidden 50 --epochs 1 --repeats 2]
    python benchmarks/bench_bernoulli_rbm.py --small

`--small`: ten epochs of scikit-learn's digits, 1,797 x 64, by batch size and hidden units, on one
thread: the fits that searches are made of.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.datasets
import sklearn.neural_network
import torch
from _common import save_results, set_threads, timed_ratio

from sklebm import BernoulliRBM

BATCH = 100
RATE = 0.05


def load_digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Training and test digits as float32 zeros and ones (pixels above one half)."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("SKLEBM_DATA is not set: this benchmark needs the folder that holds mnist.npz.")
    with np.load(Path(folder) / "mnist.npz") as archive:
        train, test = (archive[name].reshape(-1, 784) > 127 for name in ("x_train", "x_test"))
    return train.astype(np.float32), test.astype(np.float32)


# ---------------------------------------------------------------- contestants, one epoch a call


def fit_sklebm(
    x: np.ndarray[Any, Any], n_hidden: int, n_epochs: int, schedule: str = "constant"
) -> Any:
    """`fit`, with validation, set-up and fitted attributes."""
    return BernoulliRBM(
        n_hidden,
        learning_rate=RATE,
        learning_rate_schedule=schedule,
        batch_size=BATCH,
        max_epochs=n_epochs,
        log_partition=None,
        random_state=0,
        device="cpu",
    ).fit(x)


def fit_sklearn(x: np.ndarray[Any, Any], n_hidden: int, n_epochs: int) -> Any:
    """scikit-learn's `fit`."""
    return sklearn.neural_network.BernoulliRBM(
        n_hidden, learning_rate=RATE, batch_size=BATCH, n_iter=n_epochs, random_state=0
    ).fit(x)


def fit_bare(x: np.ndarray[Any, Any], n_hidden: int, n_epochs: int) -> Any:
    """The loop below."""
    loop = BareLoop(x, n_hidden)
    for _ in range(n_epochs):
        loop.epoch()
    return loop


#: Trained for its likelihood alone; an epoch costs the same.
DECAYED = "sklebm, rate falling linearly"

FITS: dict[str, Callable[..., Any]] = {
    "bare in-place loop": fit_bare,
    "sklebm": fit_sklebm,
    "scikit-learn": fit_sklearn,
}


class BareLoop:
    """Persistent contrastive divergence by hand, with in-place updates."""

    def __init__(self, x: np.ndarray[Any, Any], n_hidden: int) -> None:
        self.x = torch.from_numpy(x)
        self.generator = torch.Generator().manual_seed(0)
        n_visible = x.shape[1]
        self.components_ = 0.01 * torch.randn(n_hidden, n_visible, generator=self.generator)
        mean = self.x.mean(dim=0)
        self.intercept_visible_ = torch.logit((mean * 1000 + 0.5) / 1001)
        self.intercept_hidden_ = torch.zeros(n_hidden)
        self.chains = self.draw(torch.full((BATCH, n_hidden), 0.5))

    def draw(self, mean: torch.Tensor) -> torch.Tensor:
        """States with these means."""
        return torch.empty_like(mean).uniform_(generator=self.generator).lt_(mean)

    def batches(self) -> Iterator[torch.Tensor]:
        """One pass over the rows."""
        order = torch.randperm(len(self.x), generator=self.generator)
        return (self.x[index] for index in order.split(BATCH))

    def epoch(self) -> None:
        """Five products per step, two of them in place."""
        w, b, c, rate = (
            self.components_,
            self.intercept_visible_,
            self.intercept_hidden_,
            RATE / BATCH,
        )
        for v in self.batches():
            model_v = self.draw(torch.addmm(b, self.chains, w).sigmoid_())
            mean = torch.addmm(c, v, w.T).sigmoid_()
            model_mean = torch.addmm(c, model_v, w.T).sigmoid_()
            self.chains = self.draw(model_mean)
            w.addmm_(mean.T, v, alpha=rate).addmm_(model_mean.T, model_v, alpha=-rate)
            b.add_(v.sum(dim=0) - model_v.sum(dim=0), alpha=rate)
            c.add_(mean.sum(dim=0) - model_mean.sum(dim=0), alpha=rate)

    def products(self) -> None:
        """The five products of each step, and nothing else."""
        w, b, c = self.components_.clone(), self.intercept_visible_, self.intercept_hidden_
        v, h = self.x[:BATCH], self.chains
        for _ in range(-(-len(self.x) // BATCH)):
            torch.addmm(b, h, w)
            torch.addmm(c, v, w.T)
            torch.addmm(c, v, w.T)
            w.addmm_(h.T, v, alpha=1e-9).addmm_(h.T, v, alpha=-1e-9)


# ---------------------------------------------------------------- quality


def log_likelihood(trained: Any, x: Any, test: Any, n_temperatures: int) -> tuple[float, float]:
    """Mean test log-likelihood by annealing, and half the width of its interval."""
    n_hidden = len(trained.components_)
    judge = BernoulliRBM(n_hidden, max_epochs=1, log_partition=None, device="cpu").fit(x[:BATCH])
    judge.feature_means_ = x.mean(axis=0, dtype=np.float64)
    for name in ("components_", "intercept_hidden_", "intercept_visible_"):
        setattr(judge, name, np.asarray(getattr(trained, name), dtype=np.float32))
    judge.estimate_log_partition("ais", n_temperatures=n_temperatures, random_state=0)
    low, high = judge.log_partition_interval_
    return float(judge.score_samples(test).mean()), float(high - low) / 2


def small(repeats: int) -> None:
    """Ten epochs of digits, sklebm and scikit-learn in turns; compiled before the clock starts."""
    set_threads(1)
    x = (sklearn.datasets.load_digits().data / 16).astype(np.float32)
    rows: list[list[Any]] = []
    for n_hidden in (64, 256):
        for batch_size in (10, 50, 100, 500):
            ours = BernoulliRBM(
                n_hidden, batch_size=batch_size, max_epochs=10, log_partition=None, random_state=0
            )
            peer = sklearn.neural_network.BernoulliRBM(
                n_hidden, batch_size=batch_size, n_iter=10, random_state=0
            )
            timings = timed_ratio(
                {"sklebm": partial(ours.fit, x), "scikit-learn": partial(peer.fit, x)},
                reference="scikit-learn",
                repeats=repeats,
            )
            for name, timing in timings.items():
                numbers = round(timing.median, 3), round(timing.spread, 2), round(timing.ratio, 2)
                rows.append([n_hidden, batch_size, name, *numbers])
                print(*rows[-1], sep="\t", flush=True)
    save_results(
        "bernoulli_rbm_small",
        "BernoulliRBM on digits: ten epochs",
        ["hidden units", "batch", "library", "fit (s)", "spread", "ratio"],
        rows,
        notes=(
            "1,797 x 64 float32, PCD-1, our gradients centred, whole fits, one thread, compiled "
            f"before; scikit-learn {sklearn.__version__}."
        ),
    )


def main() -> None:
    """Time single epochs in turns; then train each anew and judge it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--hidden", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=5, help="before the likelihood is taken")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--temperatures", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="digits, by batch and hidden units")
    parser.add_argument("--save", action="store_true", help="save at any size")
    options = parser.parse_args()
    if options.small:
        small(options.repeats)
        return
    set_threads(options.threads)
    x, test = load_digits()
    x = x[: options.rows]

    epochs = {name: lambda fit=fit: fit(x, options.hidden, 1) for name, fit in FITS.items()}
    timings = timed_ratio(
        {**epochs, "five products alone": BareLoop(x, options.hidden).products},
        reference="bare in-place loop",
        repeats=options.repeats,
    )
    quality = {}
    for name, fit in {**FITS, DECAYED: partial(fit_sklebm, schedule="linear")}.items():
        trained = fit(x, options.hidden, options.epochs)
        quality[name] = log_likelihood(trained, x, test, options.temperatures)
    rows: list[list[Any]] = []
    for name in [*timings, DECAYED]:
        timing = timings.get(name)
        value, error = quality.get(name, (None, None))
        judged = "" if value is None else f"{value:.1f} ± {error:.1f}"
        numbers: list[Any] = ["", "", ""]
        if timing is not None:
            numbers = [round(timing.median, 3), round(timing.spread, 2), round(timing.ratio, 2)]
        rows.append([name, *numbers, judged])
    columns = [
        "contestant",
        "epoch (s)",
        "spread",
        "ratio to bare loop",
        f"test log-likelihood after {options.epochs} epochs (nats, annealed)",
    ]
    for row in [columns, *rows]:
        print("  ".join(f"{cell!s:>20}" for cell in row))
    if options.save or (options.rows, options.hidden) == (60_000, 500):
        save_results(
            "bernoulli_rbm",
            "BernoulliRBM on binarised MNIST: seconds per epoch and likelihood",
            columns,
            rows,
            notes=(
                f"{options.rows} x 784 float32, {options.hidden} hidden units, PCD-1, batch "
                f"{BATCH}, learning rate {RATE}, constant unless said, {options.threads} threads. "
                "An epoch is a whole fit of one epoch, with set-up. The likelihood is that of "
                f"10,000 test digits, log Z by annealing over {options.temperatures} temperatures "
                f"with 100 chains. scikit-learn {sklearn.__version__} starts from biases of zero, "
                "the others from the base rate."
            ),
        )


if __name__ == "__main__":
    main()
