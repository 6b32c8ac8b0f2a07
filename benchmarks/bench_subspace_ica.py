"""Independent components, subspaces and maps beside FastICA, python-picard and a Gaussian RBM.

``times``: mixed Laplace sources of several numbers. Every contestant iterates to a small tolerance
of its own. How near it came is computed afterwards for all, by the same lines: the largest
derivative of one objective, and Amari's index. Times compare only between contestants that are
about as near.

``sources``: two Laplace sources and subspaces of four, from several draws: errors and log density.

``patches``: held-out nats of whitened natural 14 x 14 patches, of photographs that were not trained
on. ``map``: neighbours in a topographic map of 16 x 16 filters differ less in orientation and
position than in shuffled maps. ``invariance``: how much pools and single filters change when a
patch moves, and when it turns by 25 degrees as well. These need ``natural_images.npz`` in the
folder of SKLEBM_DATA. python-picard takes part where it is installed.

    python benchmarks/bench_subspace_ica.py [times sources patches map invariance] [--quick]
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from _common import save_results, set_threads, timed_ratio
from _image_filters import change, moved_patches, smoothness, windows
from sklearn.decomposition import FastICA

from sklebm import GaussianRBM, PCAWhitener, SubspaceICA
from sklebm.inference.grouping import grouped_order, square_correlations

SHAPES = ((50_000, 2), (20_000, 20), (20_000, 60))
SHIFTS = range(9)


class Found(NamedTuple):
    """Filters, and the log density of rows that they were not fitted to."""

    filters: Any
    score: Callable[[Any], float]


def rows_of(n_rows: int, n_sources: int, seed: int = 0) -> tuple[Any, Any]:
    """Laplace sources of variance 1 in a random mixing."""
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((n_sources, n_sources))
    sources = generator.laplace(scale=0.5**0.5, size=(n_rows, n_sources))
    return sources @ mixing.T, mixing


def subspace_rows(n_rows: int, n_groups: int, size: int, seed: int) -> tuple[Any, Any]:
    """Groups with the density exp(-norm), in a random mixing."""
    generator = np.random.default_rng(seed)
    loudness = generator.gamma((size + 1) / 2, 2.0, size=(n_rows, n_groups, 1))
    sources = generator.standard_normal((n_rows, n_groups, size)) * np.sqrt(loudness)
    mixing = generator.standard_normal((n_groups * size, n_groups * size))
    return sources.reshape(n_rows, -1) @ mixing.T, mixing


def amari(gains: Any, size: int = 1) -> float:
    """0 for a scaled permutation of groups of ``size``, at most 1."""
    n = len(gains) // size
    gains = np.sqrt(np.square(gains).reshape(n, size, n, size).sum(axis=(1, 3)))
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


def with_laplace(X: Any, filters: Any) -> Found:
    """Filters with Laplace sources whose scales are those of the training rows X."""
    mean, mixing = X.mean(axis=0), np.linalg.inv(filters)
    scales = np.abs((X - mean) @ filters.T).mean(axis=0)
    model = SubspaceICA.from_parameters(
        mean=mean,
        components=filters,
        mixing=mixing,
        scale=np.ones(len(mean)),
        group_scales=scales,
    )
    return Found(filters, model.score)


def fast_ica(X: Any, tol: float = 1e-8, max_iter: int = 2000) -> Found:
    """The filters of scikit-learn."""
    model = FastICA(whiten="unit-variance", tol=tol, max_iter=max_iter, random_state=0)
    return with_laplace(X, model.fit(X).components_)


def ours(X: Any, **settings: Any) -> Found:
    """Filters and density of this library."""
    model = SubspaceICA(**{"random_state": 0, "tol": 1e-7, **settings}).fit(X)
    return Found(model.components_, model.score)


def picard_ica(X: Any, *, ortho: bool) -> Found:
    """The filters of python-picard."""
    import picard

    whitening, rotation, _ = picard.picard(
        X.T, ortho=ortho, extended=False, tol=1e-7, max_iter=2000, random_state=0
    )
    return with_laplace(X, rotation @ whitening)


def contestants(X: Any, batch_size: int | None = None) -> dict[str, Callable[[], Found]]:
    """Functions that fit."""
    found: dict[str, Callable[[], Found]] = {
        "sklearn FastICA, log cosh": lambda: fast_ica(X),
        "sklebm SubspaceICA, log cosh": lambda: ours(X, density="log_cosh"),
        "sklebm, log cosh, orthogonal=False": lambda: ours(X, density="log_cosh", orthogonal=False),
        "sklebm SubspaceICA, laplace": lambda: ours(X),
        f"sklebm, laplace, batch_size={batch_size}": lambda: ours(X, batch_size=batch_size),
    }
    if batch_size is None:
        found.popitem()
    if importlib.util.find_spec("picard") is not None:
        found["python-picard, Picard-O, tanh"] = lambda: picard_ica(X, ortho=True)
        found["python-picard, ortho=False, tanh"] = lambda: picard_ica(X, ortho=False)
    return found


def times(quick: bool) -> None:
    """Seconds, errors and derivatives of contestants that take turns."""
    rows = []
    for n_rows, n_sources in ((2_000, 2), (1_000, 5)) if quick else SHAPES:
        X, mixing = rows_of(n_rows, n_sources)
        calls = contestants(X, batch_size=1000)
        reference = "sklearn FastICA, log cosh"
        timings = timed_ratio(calls, reference=reference, repeats=2 if quick else 5)
        for name, timing in timings.items():
            filters = calls[name]().filters
            row = [f"{n_rows:,} x {n_sources}", name, round(timing.median, 4)]
            row += [round(timing.spread, 2), round(timing.ratio, 2)]
            rows.append([*row, round(amari(filters @ mixing), 5), f"{slope(X, filters):.0e}"])
    report(
        quick,
        "subspace_ica",
        "Independent components of mixed Laplace sources",
        ["rows x sources", "contestant", "fit (s)", "spread", "ratio", "Amari", "slope"],
        rows,
        "Ratios are to FastICA. Slope: largest derivative of the mean of log cosh for a rotation "
        "of two sources of variance 1, 0 at the optimum of FastICA and Picard-O. SubspaceICA "
        "learns a scale for each source, orthogonal=False leaves out the constraint, and their "
        f"optima are others. {torch.get_num_threads()} thread(s).",
    )


def sources(quick: bool) -> None:
    """Errors and log densities over several draws of two sources, and of subspaces of four."""
    seeds, rows = range(2 if quick else 5), []
    n_rows, n_groups = (5_000, 3) if quick else (50_000, 10)
    figures: dict[tuple[str, str], list[Any]] = {}
    for seed in seeds:
        X, mixing = rows_of(2 * n_rows, 2, seed)
        train, test = X[:n_rows], X[n_rows:]
        volume = np.linalg.slogdet(mixing)[1]
        for name, fit in contestants(train, batch_size=1000).items():
            found = fit()
            figures.setdefault(("two Laplace sources", name), []).append(
                (amari(found.filters @ mixing), found.score(test) + volume)
            )
        X, mixing = subspace_rows(2 * n_rows, n_groups, 4, seed)
        train, test = X[:n_rows], X[n_rows:]
        volume = np.linalg.slogdet(mixing)[1]
        calls = {
            "sklearn FastICA, grouped": lambda X=train: grouped(X),
            # Within a true group no filter is better than another: a small tolerance is idle.
            "sklebm, group_size=1": lambda X=train: ours(X, tol=1e-4),
            "sklebm, group_size=4": lambda X=train: ours(X, tol=1e-4, group_size=4),
            "sklebm, group_size=4, orthogonal=False": lambda X=train: ours(
                X, tol=1e-4, group_size=4, orthogonal=False
            ),
        }
        for name, fit in calls.items():
            found = fit()
            figures.setdefault((f"{n_groups} subspaces of 4", name), []).append(
                (amari(found.filters @ mixing, 4), found.score(test) + volume)
            )
    for (what, name), values in figures.items():
        errors, scores = np.array(values).T
        row = [what, name, round(float(errors.mean()), 5), round(float(errors.max()), 5)]
        rows.append([*row, round(float(scores.mean()), 4)])
    report(
        quick,
        "subspace_ica_sources",
        "Errors of unmixing, and held-out log density",
        ["sources", "contestant", "error, mean", "error, largest", "log density (nats)"],
        rows,
        f"{len(seeds)} draws of {n_rows:,} training rows, and as many held out. Error: Amari's "
        "index, of groups for subspaces. Log density of the sources, that of the rows with the log "
        "determinant of the true mixing; -2.6931 is that of two Laplace sources of variance 1. "
        "FastICA and Picard are scored with Laplace sources of their mean absolute values, "
        "SubspaceICA with its own density. FastICA is grouped by the correlations of squares.",
    )


def grouped(X: Any) -> Found:
    """Filters of FastICA, those together whose squares go together."""
    import torch

    found = fast_ica(X, tol=1e-4, max_iter=200)
    s = torch.from_numpy((X - X.mean(axis=0)) @ found.filters.T)
    order = grouped_order(square_correlations([s]), 4).numpy()
    return Found(found.filters[order], found.score)


# ---------------------------------------------------------------- photographs


def patches(quick: bool) -> None:
    """Held-out nats of white patches."""
    size, n_train, n_test = (6, 2_000, 1_000) if quick else (14, 40_000, 30_000)
    train, test = windows(n_train, size, held_out=False), windows(n_test, size, held_out=True)
    train, test = (x - x.mean(axis=(1, 2), keepdims=True) for x in (train, test))
    train, test = (x.reshape(len(x), -1)[:, :-1] for x in (train, test))
    whitener = PCAWhitener().fit(train)
    train, test = whitener.transform(train), whitener.transform(test)
    shapes = [{}, {"orthogonal": False}, {"group_size": 2}, {"group_size": 4}]
    shapes += [{**shape, "density": "student_t"} for shape in shapes]
    fits: dict[str, Callable[[], Any]] = {
        "Gaussian (PCAWhitener)": lambda: PCAWhitener().fit(train).score,
        "sklearn FastICA, Laplace sources": lambda: fast_ica(train, 1e-4, 1000).score,
        f"GaussianRBM, {size**2} hidden units": lambda: machine(train, size**2, quick),
    }
    for shape in shapes:
        words = ", ".join(f"{key}={value}" for key, value in shape.items())
        fits[f"SubspaceICA, {words or 'laplace'}"] = lambda shape=shape: (
            ours(train, tol=1e-4, **shape).score
        )
    rows = []
    for name, fit in fits.items():
        start = time.perf_counter()
        score = fit()
        seconds = time.perf_counter() - start
        rows.append([name, round(score(test), 2), round(score(train), 2), round(seconds, 1)])
        print(*rows[-1], sep="\t", flush=True)
    report(
        quick,
        "subspace_ica_patches",
        f"Held-out log density of whitened natural {size} x {size} patches",
        ["model", "held out (nats)", "training rows (nats)", "fit (s)"],
        rows,
        f"{n_train:,} patches of 48 photographs, {n_test:,} of 12 others; noise of one grey level, "
        f"each patch minus its mean, last pixel left out, then white: {size**2 - 1} features. "
        "FastICA with Laplace sources of their mean absolute values. The machine: defaults, log Z "
        "annealed. Seconds of contestants that did not take turns.",
    )


def machine(train: Any, n_components: int, quick: bool) -> Callable[[Any], float]:
    """A Gaussian RBM with log Z by annealing."""
    epochs = {"max_epochs": 2} if quick else {}
    return GaussianRBM(n_components, random_state=0, **epochs).fit(train).score


@cache
def learnt_map(quick: bool) -> tuple[SubspaceICA, int, tuple[int, int]]:
    """A map with as many filters as a patch has pixels.

    Density and tolerance are those of examples/linear/plot_map_of_filters.py, chosen on two other
    photographs.
    """
    size, n_rows = (8, 4_000) if quick else (16, 50_000)
    X = windows(n_rows, size, held_out=False).reshape(n_rows, -1)
    settings = {"density": "student_t", "tol": 0.03, "random_state": 0}
    model = SubspaceICA(topography=(size, size), max_iter=150 if quick else 500, **settings)
    return model.fit(X), size, (size, size)


def map_of_filters(quick: bool) -> None:
    """Differences between neighbours, and in shuffled maps."""
    model, size, shape = learnt_map(quick)
    found = smoothness(model.mixing_.T.reshape(-1, size, size), shape, 100 if quick else 1000)
    rows = [
        [
            what,
            *(round(float(found[key][i]), 2) for key in ("map", "shuffled", "z")),
            f"{found['p'][i]:.3f}",
        ]
        for i, what in enumerate(("orientation (degrees)", "centre (pixels)"))
    ]
    report(
        quick,
        "subspace_ica_map",
        f"Neighbours in a map of {size} x {size} filters of natural patches",
        ["mean difference of", "neighbours", "in shuffled maps", "z", "p"],
        rows,
        "Differences between the rows of the mixing matrix at neighbouring cells of the torus. "
        "Orientation: of the power spectrum; centre: of the squared pixels. z: standard deviations "
        "of shuffled maps below their mean; p: share of maps at least as smooth. 50,000 "
        "patches of 48 photographs.",
    )


def invariance(quick: bool) -> None:
    """Change of the answers against shift, and against shift at 25 degrees of rotation."""
    model, size, shape = learnt_map(quick)
    shifts = range(4) if quick else SHIFTS
    large = windows(300 if quick else 5_000, 2 * (size + max(shifts)), held_out=True)
    before = moved_patches(large, size, 0)
    order = np.random.default_rng(0).permutation(model.n_components_)
    shuffled = SubspaceICA.from_parameters(
        mean=model.mean_,
        components=model.components_[order],
        mixing=model.mixing_[:, order],
        scale=model.scale_,
        group_scales=model.group_scales_,
        topography=shape,
        density="student_t",
    )
    answers = {
        "pools": model.pool,
        "pools of a shuffled map": shuffled.pool,
        "single filters": lambda x: np.abs(model.transform(x)),
    }
    rows = []
    for degrees in (0, 25):
        for shift in shifts:
            after = moved_patches(large, size, shift, degrees)
            changes = [change(of(before), of(after)) for of in answers.values()]
            rows.append([degrees, shift, *(round(value, 3) for value in changes)])
    report(
        quick,
        "subspace_ica_invariance",
        "How much the answers to a patch change when it moves",
        ["rotation (degrees)", "shift (pixels)", *answers],
        rows,
        "Mean squared distance between answers of length one, as a share of that between different "
        "patches. Pools: their energies; single filters: absolute sources, so that both forget the "
        "sign. "
        f"The map of {size} x {size} filters; patches of 12 photographs that it has not seen.",
    )


def report(
    quick: bool, name: str, title: str, columns: list[str], rows: list[list[Any]], notes: str
) -> None:
    """Print a table, and record it unless the run was quick."""
    print(title, *([columns, *rows]), sep="\n")
    if not quick:
        save_results(name, title, columns, rows, notes=notes)


def main() -> None:
    """Measure and record."""
    tables = {
        "times": times,
        "sources": sources,
        "patches": patches,
        "map": map_of_filters,
        "invariance": invariance,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", help=f"some of {', '.join(tables)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing recorded")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    unknown = set(options.tables) - set(tables)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    set_threads(options.threads)
    if importlib.util.find_spec("picard") is None:
        print("python-picard is not installed: it takes no part.")
    for name in options.tables or tables:
        tables[name](options.quick)


if __name__ == "__main__":
    main()
