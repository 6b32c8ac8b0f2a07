"""How wide is the interval of an annealed log Z after so many seconds? Beside a NumPy loop.

A machine of 500 hidden units on the fixed binarisation of MNIST. 100 chains are annealed from the
base rate of the pixels: by a NumPy loop, in single precision and batched over the chains; by
sklebm on the same ladder of evenly spaced temperatures; and by sklebm on the ladder that it paces
itself, whose pilot runs are in its time. Width is that of three standard errors on either side,
the median over runs with seeds of their own, because few chains carry most of the weight. As it
falls with the square root of the number of chains, seconds times squared width is the time that a
width of one nat costs. Needs the folder of ``SKLEBM_DATA`` with ``mnist_binarized.npz``.

    python benchmarks/bench_log_partition.py [--epochs 1 --temperatures 50 100]
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from _common import save_results, set_threads, timed_ratio
from bench_binarized_mnist import load_rows

from sklebm import BernoulliRBM
from sklebm.inference import ais
from sklebm.inference.pace import paced
from sklebm.inference.tempered_path import TemperedPath

CHAINS = 100
FULL = {"epochs": 20, "temperatures": [300, 1000]}


def interval(log_weights: Any, log_z0: float) -> tuple[float, float]:
    """log Z, and the width of three jackknife standard errors on either side."""
    found = ais.summarise(torch.as_tensor(log_weights), log_z0, torch.empty(0))
    return found.value, found.high - found.low


def anneal_in_numpy(model: Any, base: Any, n_temperatures: int, seed: int) -> tuple[float, float]:
    """The textbook loop: float32 products on buffers, log weights in float64."""
    rng = np.random.default_rng(seed)
    w, b, c = model.components_, model.intercept_visible_, model.intercept_hidden_
    base, transposed = base.astype(np.float32), np.ascontiguousarray(w.T)
    k, d = w.shape
    field, pull = np.empty((CHAINS, k), np.float32), np.empty((CHAINS, d), np.float32)
    of_hidden, of_visible = np.empty_like(field), np.empty_like(pull)
    v = (rng.random((CHAINS, d), dtype=np.float32) < 1 / (1 + np.exp(-base))).astype(np.float32)
    log_weights = np.zeros(CHAINS)
    zero = np.float32(0.0)
    for index in range(n_temperatures):
        start, stop = np.float32(index / n_temperatures), np.float32((index + 1) / n_temperatures)
        np.dot(v, transposed, out=field)
        field += c
        gain = np.logaddexp(zero, stop * field) - np.logaddexp(zero, start * field)
        log_weights += gain.sum(axis=1, dtype=np.float64) + (stop - start) * (v @ (b - base))
        rng.random(dtype=np.float32, out=of_hidden)
        h = (of_hidden < 1 / (1 + np.exp(-stop * field))).astype(np.float32)
        np.dot(h, w, out=pull)
        pull *= stop
        pull += base + stop * (b - base)
        rng.random(dtype=np.float32, out=of_visible)
        v = (of_visible < 1 / (1 + np.exp(-pull))).astype(np.float32)
    log_z0 = float(np.logaddexp(0.0, base.astype(np.float64)).sum()) + k * np.log(2.0)
    return interval(log_weights, log_z0)


def anneal(
    energy: Any, base: Any, n_temperatures: int, seed: int, *, pace: bool
) -> tuple[float, float]:
    """Ours, on an even ladder or on one of its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        path: Any = TemperedPath(energy, base)
        if pace:
            path = paced(path, generator, CHAINS, n_temperatures)
        found = ais.forward(path, generator, n_chains=CHAINS, n_temperatures=n_temperatures)
    return found.value, found.high - found.low


class Runs:
    """Estimates of one method, each with the next seed."""

    def __init__(self, estimate: Callable[..., tuple[float, float]]) -> None:
        self.estimate, self.found = estimate, list[tuple[float, float]]()

    def __call__(self) -> None:
        """Estimate once."""
        self.found.append(self.estimate(seed=len(self.found)))


def main() -> None:
    """Train one machine; estimate its log Z in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=FULL["epochs"])
    parser.add_argument("--temperatures", type=int, nargs="+", default=FULL["temperatures"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    set_threads(options.threads)
    x, _ = load_rows()
    model = BernoulliRBM(
        500, max_epochs=options.epochs, log_partition=None, random_state=0, device="cpu"
    ).fit(x)
    energy = copy.deepcopy(model._energy(torch.device("cpu"))).double()
    base = ais.base_rate_bias(torch.as_tensor(model.feature_means_).double())
    rows: list[list[Any]] = []
    for n_temperatures in options.temperatures:
        calls = {
            "NumPy, even ladder": Runs(
                partial(anneal_in_numpy, model, base.numpy(), n_temperatures)
            ),
            "sklebm, even ladder": Runs(partial(anneal, energy, base, n_temperatures, pace=False)),
            "sklebm, own ladder": Runs(partial(anneal, energy, base, n_temperatures, pace=True)),
        }
        timings = timed_ratio(calls, reference="NumPy, even ladder", repeats=options.repeats)
        for name, timing in timings.items():
            value, width = np.median(calls[name].found, axis=0)
            cost = timing.median * width**2
            numbers = [round(timing.median, 2), round(timing.spread, 2), round(timing.ratio, 2)]
            rows.append([n_temperatures, name, *numbers, round(value, 2), round(width, 2)])
            rows[-1].append(round(cost, 2))
            print(*rows[-1], sep="\t", flush=True)
    if {"epochs": options.epochs, "temperatures": options.temperatures} == FULL:
        save_results(
            "log_partition",
            "log Z of a machine of 784 and 500 units by annealing",
            [
                "temperatures",
                "method",
                "seconds",
                "spread",
                "ratio",
                "log Z (nats, median)",
                "width (nats, median)",
                "seconds for a width of 1 nat",
            ],
            rows,
            notes=f"{CHAINS} chains, {options.threads} thread(s), {FULL['epochs']} epochs of "
            "training on 60,000 rows; forward estimates only; the last column is seconds times "
            f"squared width. NumPy {np.__version__}.",
        )


if __name__ == "__main__":
    main()
