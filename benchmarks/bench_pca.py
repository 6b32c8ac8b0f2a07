"""Speed of principal components beside scikit-learn's PCA, and how exact both are.

Three shapes: fewer rows than features, few of many components, all components of many rows. Every
solver of scikit-learn that serves the shape takes its turn; those that are approximate count with
their error. The error is the largest relative one of a variance, against a full SVD.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _common import save_results, set_threads, timed_ratio
from sklearn.decomposition import PCA

from sklebm import EnergyPCA, PCAWhitener

SHAPES = {
    (60, 5000, 5): ("full", "arpack", "randomized"),
    (5000, 2000, 20): ("covariance_eigh", "arpack", "randomized"),
    (50_000, 784, None): ("covariance_eigh",),
}


def rows_of(n_rows: int, n_features: int) -> Any:
    """Rows whose variances fall as those of photographs do, in a random basis."""
    generator = np.random.default_rng(0)
    X = generator.standard_normal((n_rows, n_features))
    X *= 1.0 / np.arange(1, n_features + 1)
    for _ in range(2):  # two reflections mix all columns, at the cost of two products with a vector
        v = generator.standard_normal(n_features)
        v /= np.linalg.norm(v)
        X -= 2.0 * np.outer(X @ v, v)
    return X


def compare(n_rows: int, n_features: int, k: int | None, solvers: tuple[str, ...]) -> list[Any]:
    """One row of the table for each contestant."""
    X = rows_of(n_rows, n_features)
    models: dict[str, Any] = {
        f"sklearn PCA {solver}": PCA(k, svd_solver=solver, random_state=0) for solver in solvers
    }
    models |= {"sklebm EnergyPCA": EnergyPCA(k), "sklebm PCAWhitener": PCAWhitener(k)}
    calls = {name: (lambda model=model: model.fit(X)) for name, model in models.items()}
    timings = timed_ratio(calls, reference=f"sklearn PCA {solvers[0]}", repeats=5)
    exact = np.linalg.svd(X - X.mean(axis=0), compute_uv=False) ** 2 / (n_rows - 1)
    rows = []
    for name, timing in timings.items():
        found = models[name].explained_variance_
        found = found[: min(n_rows - 1, len(found))]
        error = np.abs(found / exact[: len(found)] - 1).max()
        shape = f"{n_rows:,} x {n_features:,}, {'all' if k is None else k}"
        row = [shape, name, round(timing.median, 4), round(timing.spread, 2)]
        rows.append([*row, round(timing.ratio, 2), f"{error:.0e}"])
    return rows


def main() -> None:
    """Measure and record."""
    set_threads(2)
    rows = [row for shape, solvers in SHAPES.items() for row in compare(*shape, solvers)]
    for row in rows:
        print(*row, sep="\t")
    save_results(
        "pca",
        "Principal components of three shapes of table",
        ["rows x features, components", "contestant", "fit (s)", "spread", "ratio", "error"],
        rows,
        notes="Ratios are to the first solver of scikit-learn in each shape. Error: the largest "
        "relative error of a variance, against the singular values of all centred rows. 2 threads.",
    )


if __name__ == "__main__":
    main()
