"""Which energies make the default detector: a choice that is measured on tables it never saw.

The default has one energy of each of four kinds: of single features, of the core of the rows, of
groups, of neighbourhoods. For each of the ADBench tables in ``$SKLEBM_DATA/adbench_dev`` and
``adbench_more`` the whole choice is made on the others: which kinds, the setting of each, the units
of the features, and how the scores are combined. The AUROC that is printed is that of the table
left out, on average over all tables, with the standard error of its difference from the plain
choice. Three rules choose: the best of all; each setting by its mean over all choices of the rest;
and the plain choice, unless another is better by more than two standard errors on the other tables.

The protocol is that of ``bench_ood.py``; at most 2,000 normal test rows are scored. Scores of the
members are kept in ``--cache``, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import save_results, set_threads
from bench_ood import MODES, find_tables, read_split
from scipy.special import gammaln
from scipy.stats import rankdata
from sklearn.ensemble import IsolationForest

from sklebm import EnergyGaussianMixture, NeighbourEnergy, PCAWhitener
from sklebm.outliers._surprise import log_rank, training_quantiles
from sklebm.outliers._views import make_view

UNITS = ("quartiles", "deviations")
ALONE = ("squares", "marginals", "forest")  # need no units
# One of each kind, or none of it (an empty name).
KINDS = {
    "features": (*ALONE, ""),
    "core": ("core", "gaussian", ""),
    "groups": ("mixture 5", "mixture 2", "mixture 10", "trimmed mixture", "three mixtures", ""),
    "neighbourhoods": ("neighbours 10", "neighbours 5", "samples", ""),
}
RULES = ("two lowest log shares", "mean of log shares", "mean of standard scores")
PLAIN = ("marginals", "core", "mixture 5", "neighbours 10", "quartiles", RULES[0])
_TEST_NORMALS = 2000
_STORED_ROWS = 2000
_SAMPLE = 32

Choice = tuple[str, ...]  # one name per kind, units, rule


def core_rows(x: Any) -> Any:
    """The three quarters of the rows on which a Gaussian is narrow, by concentration steps."""
    size = min(len(x), max(int(0.75 * len(x)), x.shape[1] + 2))
    kept = np.sort(
        np.argsort(np.square(x - np.median(x, axis=0)).sum(axis=1), kind="stable")[:size]
    )
    for _ in range(5):
        scores = PCAWhitener(ridge=0.01).fit(x[kept]).score_samples(x)
        closer = np.sort(np.argsort(-scores, kind="stable")[:size])
        if np.array_equal(closer, kept):
            break
        kept = closer
    return x[kept]


def mixture(x: Any, rows_per_feature: int, seed: int = 0) -> Any:
    """At most eight Gaussians with so many rows each, per feature."""
    k = max(1, min(8, len(x) // (rows_per_feature * x.shape[1])))
    return EnergyGaussianMixture(k, reg_covar=0.01, max_iter=50, random_state=seed).fit(x)


class MeanOfMixtures:
    """The mean log density of mixtures that started from different rows."""

    def __init__(self, members: list[Any]) -> None:
        self.members = members

    def score_samples(self, x: Any) -> Any:
        """Mean of the members' scores."""
        return np.mean([member.score_samples(x) for member in self.members], axis=0)


class SampledNeighbours:
    """Minus the mean of log r over all samples of 32 rows, r the distance to the nearest in it.

    The nearest of all rows is left out, which for a training row is the row itself.
    """

    def __init__(self, x: Any) -> None:
        self.all = NeighbourEnergy(1, max_samples=_STORED_ROWS, random_state=0).fit(x)
        n = len(self.all.samples_) - 1
        size = max(1, min(_SAMPLE, n // 2))
        left = np.arange(n - 1, size - 2, -1)  # rows that are farther, for each rank
        weights = np.exp(log_choose(left, size - 1) - log_choose(n, size))
        ranks = max(1, int((np.cumsum(weights) < 0.99).sum()))
        self.weights = np.append(weights[: ranks - 1], 1 - weights[: ranks - 1].sum())
        self.all.n_neighbors_ = ranks + 1

    def score_samples(self, x: Any) -> Any:
        """Minus the weighted mean of the logarithms of the distances."""
        parts = np.array_split(x, max(1, len(x) * x.shape[1] * len(self.weights) // 10**7))
        distances = np.concatenate([self.all.transform(part)[:, 1:] for part in parts])
        return -np.log(np.maximum(distances, self.all.floor_)) @ self.weights


def log_choose(n: Any, k: int) -> Any:
    """Logarithm of the number of samples of k of n rows."""
    return gammaln(np.asarray(n) + 1.0) - gammaln(k + 1.0) - gammaln(np.asarray(n) - k + 1.0)


def fitted(x: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The members that see all features together, fitted to rows in their units."""
    n = len(x)
    five = mixture(x, 5)
    likely = np.sort(np.argsort(-five.score_samples(x), kind="stable")[: int(0.9 * n)])

    def neighbours(k: int) -> Any:
        k = min(k, max(2, n // 2))
        return NeighbourEnergy(k, max_samples=_STORED_ROWS, random_state=0).fit(x)

    makers: dict[str, Callable[[], Any]] = {
        "core": lambda: PCAWhitener(ridge=0.01).fit(core_rows(x)),
        "gaussian": lambda: PCAWhitener(ridge=0.01).fit(x),
        "mixture 2": lambda: mixture(x, 2),
        "mixture 5": lambda: five,
        "mixture 10": lambda: mixture(x, 10),
        "trimmed mixture": lambda: mixture(x[likely], 5),
        "three mixtures": lambda: MeanOfMixtures([five, mixture(x, 5, 1), mixture(x, 5, 2)]),
        "neighbours 5": lambda: neighbours(5),
        "neighbours 10": lambda: neighbours(10),
        "samples": lambda: SampledNeighbours(x),
    }
    return {name: makers[name]() for name in names}


def member_scores(train: Any, test: Any) -> dict[str, Any]:
    """Scores of training and test rows by units and member."""
    view = make_view(train)
    found: dict[str, Any] = {}

    def keep(name: str, score: Callable[[Any], Any], seen: Any) -> None:
        for part, x in zip(("train", "test"), seen, strict=True):
            found[f"{name} {part}"] = np.float32(score(x))

    rows = (train, test)
    robust, alone = (
        [view.see(kind, torch.from_numpy(x)).numpy() for x in rows]
        for kind in ("together", "alone")
    )
    keep("squares", lambda x: -(x**4).sum(axis=1), alone)
    keep("marginals", lambda x: -np.square(x).sum(axis=1), alone)
    keep("forest", IsolationForest(random_state=0).fit(train).score_samples, rows)
    together = [name for names in KINDS.values() for name in names if name not in (*ALONE, "")]
    for units, seen in zip(UNITS, (robust, rows), strict=True):
        wanted = tuple(name for name in together if units == UNITS[0] or name in PLAIN)
        for name, model in fitted(seen[0], wanted).items():
            keep(f"{units} {name}", model.score_samples, seen)
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
        found[f"log {name}"] = log_rank(test, training_quantiles(training)).astype(np.float32)
        standard = (test - training.mean()) / (training.std() or 1.0)
        found[f"standard {name}"] = standard.astype(np.float32)
    return found


def auroc(y: Any, scores: Any) -> float:
    """Probability that an anomaly scores below a normal row."""
    n = int(y.sum())
    above = rankdata(scores)[y == 1].sum() - n * (n + 1) / 2
    return float(1 - above / (n * (len(y) - n)))


def members(choice: Choice) -> tuple[str, ...]:
    """The members of a choice."""
    return tuple(name for name in choice[: len(KINDS)] if name)


def combined(values: dict[str, Any], choice: Choice) -> Any:
    """Scores of the test rows under one choice."""
    units, rule = choice[-2:]
    kind = "standard" if rule == RULES[2] else "log"
    names = [name if name in ALONE else f"{units} {name}" for name in members(choice)]
    table = np.stack([values[f"{kind} {name}"] for name in names])
    if rule == RULES[0] and len(table) > 2:
        return np.partition(table, 1, axis=0)[:2].mean(axis=0)
    return table.mean(axis=0)


def choices() -> list[Choice]:
    """All that is compared; with few members, some rules are the same."""
    found = []
    for *kinds, units, rule in itertools.product(*KINDS.values(), UNITS, RULES):
        choice = (*kinds, units, rule)
        names = members(choice)
        if not names:
            continue
        others = set(names) - set(ALONE)
        if units != UNITS[0] and (not others or not others <= set(PLAIN)):
            continue  # deviations only for the plain members
        if (len(names) == 1 and rule != RULES[1]) or (len(names) == 2 and rule == RULES[0]):
            continue
        found.append(choice)
    return found


def aurocs(path: Path, seed: int, mode: str, cache: Path, found: list[Choice]) -> Any:
    """AUROC of all choices on one split, kept beside the scores."""
    stored = cache / f"{path.stem}.{seed}.{mode.replace(' ', '_')}.auroc.npy"
    if not stored.exists():
        scores = load(path, seed, mode, cache)
        values, y = scaled(scores), scores["y"]
        np.save(stored, [auroc(y, combined(values, choice)) for choice in found])
    return np.load(stored)


def measure(paths: list[Path], seeds: int, cache: Path, found: list[Choice]) -> Any:
    """AUROC over seeds, shape (n_choices, n_modes, n_tables)."""
    table = np.zeros((len(found), len(MODES), len(paths)))
    for seed in range(seeds):
        for (j, path), (m, mode) in itertools.product(enumerate(paths), enumerate(MODES)):
            table[:, m, j] += aurocs(path, seed, mode, cache, found) / seeds
            print(seed, path.stem, mode, flush=True)
    return table


def the_best(values: Any, found: list[Choice]) -> int:
    """The choice with the highest mean over tables."""
    return int(values.mean(axis=1).argmax())


def by_setting(values: Any, found: list[Choice]) -> int:
    """The choice whose settings have the highest means, each over all choices that share it."""
    means, total = values.mean(axis=1), np.zeros(len(found))
    for part in range(len(found[0])):
        levels = [choice[part] for choice in found]
        effects = {
            level: np.mean([mean for mean, own in zip(means, levels, strict=True) if own == level])
            for level in set(levels)
        }
        total += [effects[level] for level in levels]
    return int(total.argmax())


def plain_unless_beaten(values: Any, found: list[Choice]) -> int:
    """The plain choice, or the best of those that are better by two standard errors."""
    plain = found.index(PLAIN)
    gains = values - values[plain]
    errors = gains.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
    better = gains.mean(axis=1) > 2 * errors
    return int(np.where(better, values.mean(axis=1), -1.0).argmax()) if better.any() else plain


def row(title: str, values: Any, plain: Any, choice: str = "") -> list[Any]:
    """AUROC in each mode and its distance from the plain choice, with a standard error."""
    cells: list[Any] = [title]
    for own, reference in zip(values, plain, strict=True):
        gaps = own - reference
        error = gaps.std(ddof=1) / np.sqrt(len(gaps))
        cells += [round(float(own.mean()), 4), f"{gaps.mean():+.4f} +- {error:.4f}"]
    return [*cells, choice]


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
    both, plain = table.mean(axis=1), table[found.index(PLAIN)]
    rows = []
    for title, rule in (
        ("the best of the other tables", the_best),
        ("each setting by its mean over the other tables", by_setting),
        ("the plain choice unless beaten by two standard errors", plain_unless_beaten),
    ):
        chosen = [rule(np.delete(both, j, axis=1), found) for j in range(len(paths))]
        left_out = np.stack([table[i, :, j] for j, i in enumerate(chosen)], axis=1)
        most, times = Counter(chosen).most_common(1)[0]
        agreed = f"{describe(found[most])} ({times} of {len(paths)})"
        rows.append(row(f"nested: {title}", left_out, plain, agreed))
    for part, name in enumerate((*KINDS, "units", "rule")):
        for level in dict.fromkeys(choice[part] for choice in found):
            changed = (*PLAIN[:part], level, *PLAIN[part + 1 :])
            if changed in found:
                title = f"{name}: {level or 'none'}" + (" (plain)" if changed == PLAIN else "")
                rows.append(row(title, table[found.index(changed)], plain))
    for part in range(len(KINDS)):
        for level in (name for name in KINDS[tuple(KINDS)[part]] if name):
            single = tuple(level if i == part else "" for i in range(len(KINDS)))
            alone = (*single, UNITS[0], RULES[1])
            rows.append(row(f"alone: {level}", table[found.index(alone)], plain))
    for i in np.argsort(-both.mean(axis=1))[:5]:
        rows.append(row("not nested: one of the five best", table[i], plain, describe(found[i])))
    headings = [f"{what}, {mode}" for mode in MODES for what in ("AUROC", "minus the plain choice")]
    save_results(
        "ood_choice",
        "The default detector, chosen on other tables than it is measured on",
        ["choice", *headings, "most often"],
        rows,
        notes=f"{len(paths)} tables, {arguments.seeds} seeds, {len(found)} choices; differences "
        "with their standard errors over tables. Rows that are not nested flatter: they were best "
        "on the tables that they are measured on. The plain choice is the default; what may vary "
        "was itself thought of with these tables in view.",
    )


def describe(choice: Choice) -> str:
    """A choice in words."""
    return f"{', '.join(members(choice))}; {choice[-1]}; {choice[-2]}"


if __name__ == "__main__":
    main()
