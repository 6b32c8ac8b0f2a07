"""How the time of each method grows with rows, features and units.

One size varies at a time around n = 20,000 rows, d = 64 features and k = 64 units. Numbers of steps
are fixed, so that what grows is the cost of a step. No peers: how a curve rises is the question.

    python benchmarks/bench_growth.py [--threads 2] [--repeats 5]
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
from _common import save_results, set_threads, timed_ratio
from sklearn.exceptions import ConvergenceWarning

from sklebm import (
    BernoulliRBM,
    EnergyGaussianMixture,
    EnergyKMeans,
    PCAWhitener,
    SparseCoder,
)

AXES = {
    "rows n": [5_000, 20_000, 80_000, 320_000],
    "features d": [16, 64, 256, 1024],
    "units k": [16, 64, 256, 1024],
}
LIMIT = 1.2e11  # n d k beyond which a point is left out
START = {"rows n": 20_000, "features d": 64, "units k": 64}


def rows_of(n, d):
    """Rows around 50 centres, single precision, values within [0, 1] but for a few."""
    generator = np.random.default_rng(0)
    centers = generator.uniform(0.2, 0.8, size=(50, d))
    X = centers[generator.integers(50, size=n)] + 0.1 * generator.normal(size=(n, d))
    return X.astype(np.float32).clip(0, 1)


def fits(X, k, axis):
    """A call for each method that the size matters to, on the same rows."""
    generator = np.random.default_rng(1)
    n, d = X.shape
    init = X[generator.choice(n, k, replace=False)]
    dictionary = generator.normal(size=(k, d))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    coder = SparseCoder(k, dictionary=dictionary, alpha=0.3).fit(X[:k])
    kmeans = EnergyKMeans(k, init=init, max_iter=10, tol=0.0)
    mixture = EnergyGaussianMixture(k, init="random", max_iter=3, tol=0.0, random_state=0)
    calls = {
        "EnergyKMeans, 10 steps": lambda: kmeans.fit(X),
        "BernoulliRBM, 1 epoch": lambda: BernoulliRBM(
            k, max_epochs=1, batch_size=100, log_partition=None, random_state=0
        ).fit(X),
        "SparseCoder.transform": lambda: coder.transform(X),
    }
    if n * d * d * k <= LIMIT:
        calls["EnergyGaussianMixture full, 3 steps"] = lambda: mixture.fit(X)
    if axis != "units k":
        calls["PCAWhitener"] = lambda: PCAWhitener().fit(X)
    return calls


def main():
    """Time every size and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    set_threads(options.threads)
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows = []
    for axis, values in AXES.items():
        for value in values:
            n, d, k = {**START, axis: value}.values()
            calls = fits(rows_of(n, d), k, axis)
            timings = timed_ratio(calls, reference=next(iter(calls)), repeats=options.repeats)
            for name, timing in timings.items():
                rows.append([name, axis, value, round(timing.median, 4)])
                print(*rows[-1], sep="\t", flush=True)
    rows.sort(key=lambda row: (list(AXES).index(row[1]), row[0], row[2]))
    columns = ["method", "what varies", "size", "seconds"]
    save_results(
        "growth",
        "How time grows with rows, features and units",
        columns,
        rows,
        figure=("what varies", "method", "size", "seconds"),
        notes="One size at a time around n = 20,000, d = 64, k = 64; float32 rows, "
        f"{options.threads} threads, median of {options.repeats} rounds. SparseCoder codes a "
        "random dictionary with alpha = 0.3, whose number of non-zeros grows with k and d too. "
        "k-means on few rows is plain Lloyd; beyond n d k = 10^9 it skips distances.",
    )


if __name__ == "__main__":
    main()
