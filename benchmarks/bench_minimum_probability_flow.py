"""Couplings of fully coupled spins from samples: minimum probability flow and pseudo-likelihood.

100 spins with J ~ N(0, 1 / 100), 100,000 rows of Gibbs chains (Sohl-Dickstein et al., ICML 2011,
with more spins). Error |J' - J| / |J| over pairs against seconds, for several numbers of passes of
L-BFGS, beside sqrt(4950 / n) / |J|, the error if every coupling had the variance 1 / n of spins
without couplings, and the bound of Cramer and Rao, below which no unbiased estimate can be.

    python benchmarks/bench_minimum_probability_flow.py [--quick]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from _common import save_results, set_threads

from sklebm import BoltzmannMachine

OBJECTIVES = ("minimum_probability_flow", "pseudo_likelihood")


def make_spins(n, seed=0):
    """Couplings of spins, symmetric, and the machine of bits."""
    J = np.triu(np.random.default_rng(seed).standard_normal((n, n)) / np.sqrt(n), 1)
    J = J + J.T
    return J, BoltzmannMachine.from_parameters(
        couplings=4 * J, intercept_visible=-2 * J.sum(axis=0)
    )


def least_error(rows):
    """The expected squared error of all couplings at the bound of Cramer and Rao."""
    spins = 2.0 * rows.astype(np.float64) - 1.0
    i, j = np.triu_indices(spins.shape[1], 1)
    n_statistics = len(i) + spins.shape[1]
    moments, mean = np.zeros((n_statistics, n_statistics)), np.zeros(n_statistics)
    for part in np.array_split(spins, max(1, len(spins) // 2000)):
        statistics = np.hstack([part[:, i] * part[:, j], part])
        moments += statistics.T @ statistics / len(spins)
        mean += statistics.sum(axis=0) / len(spins)
    information = moments - np.outer(mean, mean)
    return np.trace(np.linalg.inv(information)[: len(i), : len(i)]) / len(spins)


def main() -> None:
    """Fit with more and more passes, and write errors against seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 spins, 5000 rows, nothing saved")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    set_threads(options.threads)
    n, n_rows, n_sweeps = (20, 5000, 50) if options.quick else (100, 100_000, 300)
    J, source = make_spins(n)
    X = source.sample(n_rows, n_steps=n_sweeps, random_state=0)
    length = np.linalg.norm(np.triu(J))
    independent = np.sqrt(n * (n - 1) / 2 / n_rows) / length
    bound = np.sqrt(least_error(X)) / length
    print(f"independent spins {independent:.4f}, Cramer-Rao {bound:.4f}", flush=True)
    rows = []
    for n_passes in (1, 2, 3, 5):
        for objective in OBJECTIVES:
            model = BoltzmannMachine(
                objective=objective,
                optimizer="lbfgs",
                learning_rate=1.0,
                learning_rate_schedule="constant",
                max_epochs=n_passes,
                log_partition=None,
            )
            start = time.perf_counter()
            model.fit(X)
            seconds = time.perf_counter() - start
            error = np.linalg.norm(np.triu(model.couplings_ / 4 - J)) / length
            rows.append([objective, n_passes, round(seconds, 2), round(float(error), 4)])
            print(rows[-1], flush=True)
    if not options.quick:
        save_results(
            "minimum_probability_flow",
            title="Couplings of 100 spins from 100,000 rows",
            columns=["objective", "passes of 20 iterations", "seconds", "relative error"],
            rows=rows,
            notes=f"sqrt(4950 / 1e5) / |J| = {independent:.4f}; Cramer and Rao: {bound:.4f}. "
            f"Rows are the ends of {n_sweeps} Gibbs sweeps.",
        )


if __name__ == "__main__":
    main()
