"""Which energies make the default detector: a choice that is measured on tables it never saw.

For each of the ADBench tables in ``$SKLEBM_DATA/adbench_dev`` and ``adbench_more`` the whole
choice is made on the others: units of the features (standard deviations, or interquartile ranges),
members (up to four of those below, at textbook settings), and how their scores are combined (mean
of all or of the two lowest, of log shares or of standardised scores). The AUROC that is printed is
that of the table left out, on average over all tables. The protocol is that of ``bench_ood.py``; at
most 2,000 normal test rows are scored. Scores of the members are kept in ``--cache``, so that a run
that was stopped goes on.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import save_results, set_threads
from bench_ood import MODES, find_tables, read_split
from scipy.stats import rankdata
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor

from sklebm import EnergyGaussianMixture, EnergyKMeans, NeighbourEnergy, PCAWhitener
from sklebm.outliers._surprise import log_rank, training_quantiles
from sklebm.outliers._views import make_view

UNITS = ("deviations", "quartiles")
UNITLESS = ("marginals", "forest")
MEMBERS = (*UNITLESS, "core", "gaussian", "mixture", "neighbours", "trimmed", "clusters", "lof")
RULES = ("mean of log shares", "two lowest log shares", "mean of standard scores")
_TEST_NORMALS = 2000

Choice = tuple[str, tuple[str, ...], str]


def core_rows(x: Any) -> Any:
    """The three quarters of the rows on which a Gaussian is narrow, by concentration steps."""
    size = max(int(0.75 * len(x)), min(len(x), x.shape[1] + 2))
    kept = np.sort(
        np.argsort(np.square(x - np.median(x, axis=0)).sum(axis=1), kind="stable")[:size]
    )
    for _ in range(10):
        scores = PCAWhitener(ridge=0.01).fit(x[kept]).score_samples(x)
        closer = np.sort(np.argsort(-scores, kind="stable")[:size])
        if np.array_equal(closer, kept):
            break
        kept = closer
    return x[kept]


def fitted(name: str, x: Any) -> Any:
    """A member fitted to rows in its units."""
    n, d = x.shape
    if name == "forest":
        return IsolationForest(random_state=0).fit(x)
    if name == "marginals":
        return EnergyKMeans(1, random_state=0).fit(x)
    if name == "core":
        return PCAWhitener(ridge=0.01).fit(core_rows(x))
    if name == "gaussian":
        return PCAWhitener(ridge=0.1).fit(x)
    if name == "mixture":
        k = max(1, min(8, n // (2 * d)))
        return EnergyGaussianMixture(k, reg_covar=0.01, max_iter=50, random_state=0).fit(x)
    if name == "clusters":
        return EnergyKMeans(max(1, min(16, n // 20)), random_state=0).fit(x)
    if name == "lof":
        return LocalOutlierFactor(min(20, n - 1), novelty=True).fit(x)
    if name == "trimmed":  # neighbours among the four fifths that are densest
        first = NeighbourEnergy(10, random_state=0).fit(x).score_samples(x)
        x = x[np.sort(np.argsort(-first, kind="stable")[: int(0.8 * n)])]
    return NeighbourEnergy(10, random_state=0).fit(x)


def member_scores(train: Any, test: Any) -> dict[str, Any]:
    """Scores of training and test rows by units and member."""
    view = make_view(train)
    robust = [view.see("together", torch.from_numpy(x)).numpy() for x in (train, test)]
    alone = [view.see("alone", torch.from_numpy(x)).numpy() for x in (train, test)]
    found = {}
    for units, rows in (("deviations", (train, test)), ("quartiles", robust)):
        for name in MEMBERS:
            if name in UNITLESS and units != UNITS[0]:
                continue
            seen = alone if name == "marginals" else rows
            model = fitted(name, seen[0])
            for part, x in zip(("train", "test"), seen, strict=True):
                found[f"{units} {name} {part}"] = np.float32(model.score_samples(x))
    return found


def load(path: Path, seed: int, mode: str, cache: Path) -> dict[str, Any]:
    """The scores of one table, split and mode, from the cache if they are there."""
    stored = cache / f"{path.stem}.{seed}.{mode.replace(' ', '_')}.npz"
    if not stored.exists():
        train, test, y = read_split(path, seed, mode)
        normal = np.flatnonzero(y == 0)
        if len(normal) > _TEST_NORMALS:
            normal = np.random.default_rng(seed).choice(normal, _TEST_NORMALS, replace=False)
        kept = np.sort(np.concatenate([np.flatnonzero(y == 1), normal]))
        np.savez(stored, y=y[kept], **member_scores(train, test[kept]))
    with np.load(stored) as scores:
        return dict(scores)


def scaled(scores: dict[str, Any]) -> dict[str, Any]:
    """Log shares and standard scores of the test rows by kind, units and member."""
    found: dict[str, Any] = {}
    for key in scores:
        if not key.endswith(" train"):
            continue
        name, training = key.removesuffix(" train"), scores[key].astype(np.float64)
        test = scores[f"{name} test"].astype(np.float64)
        found[f"log {name}"] = log_rank(test, training_quantiles(training))
        found[f"standard {name}"] = (test - training.mean()) / (training.std() or 1.0)
    return found


def auroc(y: Any, scores: Any) -> float:
    """Probability that an anomaly scores below a normal row."""
    n = int(y.sum())
    above = rankdata(scores)[y == 1].sum() - n * (n + 1) / 2
    return float(1 - above / (n * (len(y) - n)))


def combined(values: dict[str, Any], choice: Choice) -> Any:
    """Scores of the test rows under one choice."""
    units, names, rule = choice
    kind = "standard" if rule == RULES[2] else "log"
    homes = [UNITS[0] if name in UNITLESS else units for name in names]
    table = np.stack([values[f"{kind} {u} {m}"] for u, m in zip(homes, names, strict=True)])
    return np.sort(table, axis=0)[:2].mean(axis=0) if rule == RULES[1] else table.mean(axis=0)


def choices() -> list[Choice]:
    """All that is compared; for two members or one, some rules are the same."""
    found = []
    for size in (1, 2, 3, 4):
        for units, names in itertools.product(UNITS, itertools.combinations(MEMBERS, size)):
            if units != UNITS[0] and set(names) <= set(UNITLESS):
                continue
            rules = RULES if size > 2 else RULES[::2] if size == 2 else RULES[:1]
            found += [(units, names, rule) for rule in rules]
    return found


def plainest(values: Any, found: list[Choice]) -> int:
    """Of the choices within one standard error of the best, the best with the fewest members."""
    means = values.mean(axis=1)
    gaps = values[means.argmax()] - values
    errors = gaps.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
    sizes = np.array([len(names) for _, names, _ in found])
    near = gaps.mean(axis=1) <= errors + 1e-12
    near &= sizes == sizes[near].min()
    return int(np.where(near, means, -1.0).argmax())


def measure(paths: list[Path], seeds: int, cache: Path, found: list[Choice]) -> Any:
    """AUROC over seeds, shape (n_choices, n_modes, n_tables)."""
    table = np.zeros((len(found), len(MODES), len(paths)))
    for (j, path), (m, mode) in itertools.product(enumerate(paths), enumerate(MODES)):
        for seed in range(seeds):
            scores = load(path, seed, mode, cache)
            values = scaled(scores)
            for i, choice in enumerate(found):
                table[i, m, j] += auroc(scores["y"], combined(values, choice)) / seeds
        print(path.stem, mode, flush=True)
    return table


def main() -> None:
    """Measure, choose, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, required=True, help="folder for members' scores")
    arguments = parser.parse_args()
    if "SKLEBM_DATA" not in os.environ:
        sys.exit("Set SKLEBM_DATA to the folder that holds the tables.")
    set_threads(arguments.threads)
    warnings.simplefilter("ignore")
    arguments.cache.mkdir(parents=True, exist_ok=True)
    paths, found = find_tables(), choices()
    table = measure(paths, arguments.seeds, arguments.cache, found)
    both = table.mean(axis=1)
    rows: list[list[Any]] = []
    for title, rule in (
        ("the best of the other tables", lambda values: int(values.mean(axis=1).argmax())),
        ("the plainest within a standard error", lambda values: plainest(values, found)),
    ):
        chosen = [rule(np.delete(both, j, axis=1)) for j in range(len(paths))]
        left_out = np.array([table[i, :, j] for j, i in enumerate(chosen)])
        agreed = max(set(chosen), key=chosen.count)
        rows.append(_row(f"nested: {title}", left_out.mean(axis=0), describe(found[agreed])))
    for name in MEMBERS:
        units = UNITS[0] if name in UNITLESS else UNITS[1]
        rows.append(_row(f"alone: {name}", table[found.index((units, (name,), RULES[0]))].mean(-1)))
    for i in np.argsort(-both.mean(axis=1))[:10]:
        rows.append(_row("not nested: one of the ten best", table[i].mean(-1), describe(found[i])))
    save_results(
        "ood_choice",
        "The default detector, chosen on other tables than it is measured on",
        ["choice", *(f"AUROC, {mode}" for mode in MODES), "most often"],
        rows,
        notes=f"{len(paths)} tables, {arguments.seeds} seeds, {len(found)} choices. Rows that are "
        "not nested flatter: they were best on the tables that they are measured on.",
    )


def describe(choice: Choice) -> str:
    """A choice in words."""
    units, names, rule = choice
    return f"{', '.join(names)}; {rule}; {units}"


def _row(title: str, values: Any, choice: str = "") -> list[Any]:
    return [title, *(round(float(value), 4) for value in values), choice]


if __name__ == "__main__":
    main()
