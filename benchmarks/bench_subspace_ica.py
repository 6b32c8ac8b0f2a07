"""Independent components beside scikit-learn's FastICA, and python-picard where it is installed.

Mixed Laplace sources of several numbers. Every contestant iterates to a small tolerance of its own.
How near it came is computed afterwards for all, by the same lines: the largest derivative of one
objective, and Amari's index. Times compare only between contestants that are about as near.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
from _common import save_results, set_threads, timed_ratio
from sklearn.decomposition import FastICA

from sklebm import SubspaceICA

SHAPES = ((50_000, 2), (20_000, 20), (20_000, 60))


def rows_of(n_rows: int, n_sources: int) -> tuple[Any, Any]:
    """Laplace sources of variance 1 in a random mixing."""
    generator = np.random.default_rng(0)
    mixing = generator.standard_normal((n_sources, n_sources))
    sources = generator.laplace(scale=0.5**0.5, size=(n_rows, n_sources))
    return sources @ mixing.T, mixing


def amari(gains: Any) -> float:
    """0 for a scaled permutation, at most 1."""
    gains, n = np.abs(gains), len(gains)
    rows = (gains / gains.max(axis=1, keepdims=True)).sum() - n
    return float(rows + (gains / gains.max(axis=0)).sum() - n) / (2 * n * (n - 1))


def slope(X: Any, filters: Any) -> float:
    """Largest derivative of the mean of log cosh s for a rotation of two white sources.

    It is 0 at the optimum of FastICA and Picard. SubspaceICA learns a scale for each source, and
    its optimum lies elsewhere by design: its own derivative is at most ``tol``.
    """
    s = (X - X.mean(axis=0)) @ filters.T
    s /= s.std(axis=0)
    moment = np.tanh(s).T @ s / len(s)
    return float(np.abs(moment - moment.T).max())


def contestants(X: Any) -> dict[str, Any]:
    """Functions that fit and return the filters."""

    def fast_ica() -> Any:
        model = FastICA(whiten="unit-variance", tol=1e-8, max_iter=2000, random_state=0)
        return model.fit(X).components_

    def ours(**settings: Any) -> Any:
        return SubspaceICA(random_state=0, tol=1e-7, **settings).fit(X).components_

    found: dict[str, Any] = {
        "sklearn FastICA, log cosh": fast_ica,
        "sklebm SubspaceICA, log cosh": lambda: ours(density="log_cosh"),
        "sklebm SubspaceICA, laplace": ours,
    }
    if importlib.util.find_spec("picard") is not None:
        import picard

        def picard_o() -> Any:
            whitening, rotation, _ = picard.picard(
                X.T, ortho=True, extended=False, tol=1e-7, max_iter=2000, random_state=0
            )
            return rotation @ whitening

        found["python-picard, Picard-O, tanh"] = picard_o
    return found


def compare(n_rows: int, n_sources: int) -> list[Any]:
    """One row of the table for each contestant."""
    X, mixing = rows_of(n_rows, n_sources)
    calls = contestants(X)
    timings = timed_ratio(calls, reference="sklearn FastICA, log cosh", repeats=5)
    rows = []
    for name, timing in timings.items():
        filters = calls[name]()
        row = [f"{n_rows:,} x {n_sources}", name, round(timing.median, 4), round(timing.spread, 2)]
        error = round(amari(filters @ mixing), 5)
        rows.append([*row, round(timing.ratio, 2), error, f"{slope(X, filters):.0e}"])
    return rows


def main() -> None:
    """Measure and record."""
    set_threads(2)
    rows = [row for shape in SHAPES for row in compare(*shape)]
    for row in rows:
        print(*row, sep="\t")
    save_results(
        "subspace_ica",
        "Independent components of mixed Laplace sources",
        ["rows x sources", "contestant", "fit (s)", "spread", "ratio", "Amari", "slope"],
        rows,
        notes="Ratios are to FastICA. Slope: largest derivative of the mean of log cosh for a "
        "rotation of two sources of variance 1, which is 0 at the optimum of FastICA and Picard; "
        "SubspaceICA learns a scale for each source, and its optimum is another. 2 threads.",
    )


if __name__ == "__main__":
    main()
