"""Learner by problem: how far, in nats of exact likelihood, each ends from the exact optimum.

Every machine is small enough for its partition function to be summed, so that no number is an
estimate. Problems: 10,000 rows of a Boltzmann machine of 9 visible and 8 hidden units and of one of
10 visible units without hidden ones; bars and stripes on 3 x 3 and 4 x 4 pixels; MNIST above one
half with 16 hidden units (needs the folder of ``SKLEBM_DATA`` with ``mnist.npz``). The optimum is
the best of all runs, among them restarts of exact maximum likelihood by L-BFGS.

    python benchmarks/bench_boltzmann_learners.py [--problems rbm --seeds 3]

Runs are appended to a file one by one, so that an interrupted table goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _common import save_results, set_threads
from bench_bernoulli_rbm import load_digits
from scipy.special import logsumexp

from sklebm import BernoulliRBM
from sklebm.objectives import ContrastiveDivergence, TemperedPersistentContrastiveDivergence

Rows = np.ndarray[Any, Any]
LINE_SEARCH = {"optimizer": "lbfgs", "learning_rate": 1.0, "learning_rate_schedule": "constant"}


def main() -> None:
    """Run what is missing of the table, one seed after the other, and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", nargs="+", choices=[*PROBLEMS], default=[*PROBLEMS])
    parser.add_argument("--learners", nargs="+", choices=[*LEARNERS], default=[*LEARNERS])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--mnist-seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("boltzmann_learners.jsonl"))
    options = parser.parse_args()
    set_threads(options.threads)
    end = time.monotonic() + 60 * options.minutes
    problems = {name: PROBLEMS[name]() for name in options.problems}
    for seed in range(options.seeds):
        for name, problem in problems.items():
            if name == "mnist" and seed >= options.mnist_seeds:
                continue
            for learner in options.learners:
                if time.monotonic() < end and (name, learner, seed) not in read(options.runs):
                    run(options.runs, problem, learner, seed)
    save(read(options.runs))


# ---------------------------------------------------------------- problems


@dataclass(frozen=True)
class Problem:
    """Rows to learn from, and for learners that sample, how long and at which rate."""

    name: str
    rows: Rows
    n_hidden: int
    epochs: int
    rate: float


def machine_rows(weights: Rows, bias: Rows, n_hidden_summed: int) -> Rows:
    """10,000 exact draws of the first units of a Boltzmann machine whose others are summed out."""
    n = len(bias)
    states = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.float64)
    log_p = states @ bias + 0.5 * ((states @ weights) * states).sum(axis=1)
    p = np.exp(log_p - logsumexp(log_p))
    picked = np.random.default_rng(1).choice(len(p), size=10_000, p=p)
    return states[picked, : n - n_hidden_summed].astype(np.float32)


def restricted_rows() -> Rows:
    """Of 9 visible and 8 hidden units that are on half of the time."""
    coupling = 2.0 * np.random.default_rng(0).normal(size=(9, 8))
    weights = np.zeros((17, 17))
    weights[:9, 9:], weights[9:, :9] = coupling, coupling.T
    return machine_rows(weights, -0.5 * weights.sum(axis=0), 8)


def full_rows() -> Rows:
    """Of 10 visible units, each connected with all others."""
    weights = np.triu(np.random.default_rng(0).normal(size=(10, 10)), 1)
    weights = weights + weights.T
    return machine_rows(weights, -0.5 * weights.sum(axis=0), 0)


def bars_and_stripes(side: int, n_copies: int) -> Rows:
    """All 2^side bars and 2^side stripes, each equally often."""
    lines = ((np.arange(2**side)[:, None] >> np.arange(side)) & 1).astype(np.float32)
    stripes = np.repeat(lines[:, :, None], side, axis=2).reshape(len(lines), -1)
    bars = np.repeat(lines[:, None, :], side, axis=1).reshape(len(lines), -1)
    return np.tile(np.vstack([stripes, bars]), (n_copies, 1))


PROBLEMS = {
    "rbm": lambda: Problem("rbm", restricted_rows(), 8, 100, 0.5),
    "boltzmann": lambda: Problem("boltzmann", full_rows(), 10, 100, 0.5),
    "bars 3x3": lambda: Problem("bars 3x3", bars_and_stripes(3, 100), 8, 600, 0.1),
    "bars 4x4": lambda: Problem("bars 4x4", bars_and_stripes(4, 50), 16, 600, 0.1),
    "mnist": lambda: Problem("mnist", load_digits()[0], 16, 20, 0.1),
}
HEADINGS = {
    "rbm": "RBM 9 x 8",
    "boltzmann": "Boltzmann machine, 10 units",
    "bars 3x3": "bars and stripes 3 x 3",
    "bars 4x4": "bars and stripes 4 x 4",
    "mnist": "MNIST, 16 hidden",
}

# ---------------------------------------------------------------- learners


def stock(objective: Any, problem: Problem) -> dict[str, Any]:
    """Plain steps whose rate falls linearly, the default."""
    rate, epochs = problem.rate, problem.epochs
    return {"objective": objective, "learning_rate": rate, "max_epochs": epochs}


def line_search(objective: str, problem: Problem) -> dict[str, Any]:
    """The minimum by L-BFGS; where a pass over all rows is too dear, Adam on batches of them."""
    if problem.name != "mnist":
        return {"objective": objective, "max_epochs": 20, **LINE_SEARCH}
    if objective == "maximum_likelihood":
        return {"objective": objective, "max_epochs": 8, **LINE_SEARCH}
    return {"objective": objective, "optimizer": "adam", "learning_rate": 0.005, "max_epochs": 3}


def contrast(objective: Any, problem: Problem) -> dict[str, Any]:
    """Adam for a fifth of the epochs: a step holds several rows of noise for each row."""
    epochs = problem.epochs // 5
    return {
        "objective": objective,
        "optimizer": "adam",
        "learning_rate": 0.02,
        "max_epochs": epochs,
    }


LEARNERS = {
    "maximum likelihood, L-BFGS": partial(line_search, "maximum_likelihood"),
    "PCD-1": partial(stock, "pcd"),
    "fast PCD": partial(stock, "fast_pcd"),
    "tempered PCD": partial(stock, TemperedPersistentContrastiveDivergence(5)),
    "CD-1": partial(stock, "cd"),
    "CD-10": partial(stock, ContrastiveDivergence(10)),
    "pseudo-likelihood": partial(line_search, "pseudo_likelihood"),
    "ratio matching": partial(line_search, "ratio_matching"),
    "minimum probability flow": partial(line_search, "minimum_probability_flow"),
    "noise-contrastive": partial(contrast, "noise_contrastive"),
    "variational noise-contrastive": partial(contrast, "variational_noise_contrastive"),
}


def run(path: Path, problem: Problem, learner: str, seed: int) -> None:
    """Train one machine, take its exact likelihood, and append both to the file."""
    settings = LEARNERS[learner](problem)
    start = time.perf_counter()
    machine = BernoulliRBM(
        problem.n_hidden, log_partition=None, random_state=seed, device="cpu", **settings
    ).fit(problem.rows)
    seconds = time.perf_counter() - start
    score = machine.estimate_log_partition("exact").score(problem.rows)
    record = [problem.name, learner, seed, score, seconds]
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    print(f"{problem.name}, {learner}, seed {seed}: {score:.4f} nats, {seconds:.1f} s", flush=True)


# ---------------------------------------------------------------- the table

Runs = dict[tuple[str, str, int], tuple[float, float]]


def read(path: Path) -> Runs:
    """Log-likelihood and seconds by problem, learner and seed."""
    if not path.exists():
        return {}
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {(name, learner, seed): (score, time) for name, learner, seed, score, time in records}


def save(runs: Runs) -> None:
    """The distances of each learner from the best run on a problem."""
    names = [name for name in PROBLEMS if any(key[0] == name for key in runs)]
    best = {name: max(v[0] for key, v in runs.items() if key[0] == name) for name in names}
    rows: list[list[Any]] = []
    for learner in LEARNERS:
        cells = [cell(runs, name, learner, best[name]) for name in names]
        if any(cells):
            rows.append([learner, *cells])
    columns = ["learner", *(HEADINGS[name] for name in names)]
    optima = "; ".join(f"{HEADINGS[name]}: {best[name]:.4f}" for name in names)
    for row in [columns, *rows]:
        print("  ".join(f"{text!s:>32}" for text in row))
    save_results(
        "boltzmann_learners",
        "Every learner of BernoulliRBM: nats of exact likelihood below the optimum",
        columns,
        rows,
        notes=NOTES + f" Best log-likelihood (nats a row): {optima}.",
    )


NOTES = (
    "Mean distance of the mean log-likelihood of the training rows from the best run on the "
    "problem, its standard deviation, the least distance, and the number of seeds. Everything is "
    "summed exactly. 10,000 rows of each machine (9 visible, 8 hidden; 10 visible, pairwise "
    "weights); bars and stripes with 8 and 16 hidden units, each of the 2^(side + 1) draws "
    "equally often; MNIST 60,000 x 784 above one half. Maximum likelihood, pseudo-likelihood, "
    "ratio matching and flow: 400 iterations of L-BFGS; on MNIST 160 for the first, which had not"
    " converged, and 3 epochs of Adam at 0.005 for the others. Sampling learners: batches of 100,"
    " rate falling linearly from 0.5 over 100 epochs (rows of machines), 0.1 over 600 (3 x 3: "
    "9,600 updates, 4 x 4: 9,600) and 0.1 over 20 (MNIST); tempered PCD with 5 temperatures. "
    "Contrast with noise: Adam at 0.02, a fifth of the epochs. Only where a machine of this kind "
    "is the truth do the learners that are no likelihood answer the same question; on bars and "
    "stripes they drive weights to infinity."
)


def cell(runs: Runs, name: str, learner: str, best: float) -> str:
    """Mean and spread of the distances, the least of them, and the number of seeds."""
    found = [value for key, value in runs.items() if key[:2] == (name, learner)]
    if not found:
        return ""
    gaps = best - np.array([score for score, _ in found])
    if len(gaps) == 1:
        return f"{gaps[0]:.3g} (1)"
    spread = gaps.std(ddof=1)
    return f"{gaps.mean():.3g} ± {spread:.2g}, least {gaps.min():.2g} ({len(gaps)})"


if __name__ == "__main__":
    main()
