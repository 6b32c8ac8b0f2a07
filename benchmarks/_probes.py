"""Linear classifiers of features, tuned alike for every kind of features, on training rows alone.

Features of different kinds need different regularisation, and the principal components of a set
lose their order if each is divided by its own deviation. So C of a logistic regression and the
units of the features are chosen together, for every set of features by itself.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.preprocessing import StandardScaler

GRID = tuple(10.0**power for power in range(-5, 4))
#: Features are centred, then divided by their root mean variance, or each by its own deviation.
UNITS = ("one scale", "own scales")
MAX_ITER = 5000
#: Of few labels, whose folds take five fits for each.
SHORT_GRID = GRID[1::2]
PROTOCOL = (
    "Logistic regression; C ({grid}) and one scale for all features or one for each are chosen for "
    "every set of features on {where}."
)
#: Of a search on held-out rows; with folds the whole grid is tried.
ENDS = "The search ends when three weaker penalties in a row gain less than a tenth of a point."

Folds = Sequence[tuple[Any, Any]]


@dataclass(frozen=True)
class Probe:
    """What a linear classifier reached, in per cent, and how it was chosen."""

    accuracy: float
    C: float
    units: str
    held_out: float  # accuracy on the rows that C was chosen on
    unconverged: int  # fits that reached MAX_ITER

    @property
    def chosen(self) -> str:
        """The choice in words."""
        return f"C={self.C:g}, {self.units}"


def most_chosen(probes: Sequence[Probe]) -> str:
    """The most frequent choice of several probes, and how frequent it is."""
    choice, count = Counter(probe.chosen for probe in probes).most_common(1)[0]
    return choice if len(probes) == 1 else f"{choice} ({count} of {len(probes)})"


def convergence(probes: Sequence[Probe]) -> str:
    """A sentence for the notes."""
    count = sum(probe.unconverged for probe in probes)
    return f"Fits that reached the limit of {MAX_ITER:,} iterations: {count or 'none'}."


def probe(train: Any, test: Any, y_train: Any, y_test: Any, folds: Folds | None = None) -> Probe:
    """Accuracy on test rows of a classifier that is chosen within the training rows.

    Parameters
    ----------
    train, test : ndarray of shape (n_rows, n_features)
        Features.
    y_train, y_test : ndarray of shape (n_rows,)
        Classes.
    folds : sequence of pairs of ndarray or None, default=None
        Places of rows to fit and to choose on. None: a stratified fifth of the rows is held out.
    """
    # In single precision rounding can stop the search before it has converged.
    train, test = np.asarray(train, np.float64), np.asarray(test, np.float64)
    given = folds is not None
    if folds is None:
        places = np.arange(len(train))
        folds = [train_test_split(places, test_size=0.2, random_state=0, stratify=y_train)]
    held_out: dict[tuple[float, str], float] = {}
    unconverged = 0
    for units in UNITS:
        parts = []
        for fitted, held in folds:
            offset, scale = units_of(train[fitted], units)
            pair = [(train[rows] - offset) / scale for rows in (fitted, held)]
            parts.append((*pair, y_train[fitted], y_train[held], classifier(warm_start=True)))
        best, idle = -1.0, 0
        # Each C starts from the solution of the stronger one before. Once they no longer help,
        # weaker ones would take the most iterations; of few rows they are quick, and single rows
        # make the accuracy jump.
        for C in SHORT_GRID if given else GRID:
            scores = []
            for inner, outer, y_inner, y_outer, model in parts:
                model.set_params(C=C).fit(inner, y_inner)
                unconverged += int(model.n_iter_.max() >= MAX_ITER)
                scores.append(model.score(outer, y_outer))
            held_out[C, units] = float(np.mean(scores))
            idle = idle + 1 if held_out[C, units] < best + 0.001 else 0
            best = max(best, held_out[C, units])
            if idle == 3 and not given:
                break
    C, units = max(held_out, key=held_out.__getitem__)
    offset, scale = units_of(train, units)
    model = classifier(C=C).fit((train - offset) / scale, y_train)
    unconverged += int(model.n_iter_.max() >= MAX_ITER)
    accuracy = 100 * float(model.score((test - offset) / scale, y_test))
    return Probe(accuracy, C, units, 100 * held_out[C, units], unconverged)


def probe_few(
    train: Any, test: Any, y_train: Any, y_test: Any, *, n_labels: int = 10, n_draws: int = 10
) -> list[Probe]:
    """Probes of a few labels a class, one for each draw; chosen by cross-validation within them."""
    rng, found = np.random.default_rng(0), []
    for _ in range(n_draws):
        picked = [rng.permutation(np.flatnonzero(y_train == k)) for k in np.unique(y_train)]
        rows = np.concatenate([places[:n_labels] for places in picked])
        y = y_train[rows]
        folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(y[:, None], y))
        found.append(probe(train[rows], test, y, y_test, folds))
    return found


#: Of ``choose_penalty``, for features so many that ``probe`` would take hours.
PENALTIES, FEWER_ITERATIONS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0), 300


@dataclass(frozen=True)
class Chosen:
    """A linear classifier whose C was chosen on held-out rows, and how it was chosen."""

    scaler: StandardScaler
    model: LogisticRegression
    held_out: float  # accuracy in per cent
    unconverged: int  # fits that reached FEWER_ITERATIONS

    @property
    def C(self) -> float:
        """Its inverse penalty."""
        return float(self.model.C)

    def accuracy(self, rows: Any, classes: Any) -> float:
        """On other rows, in per cent."""
        return 100 * float(self.model.score(self.scaler.transform(rows), classes))


def choose_penalty(train: Any, held: Any, y_train: Any, y_held: Any) -> Chosen:
    """The classifier of the training rows, every feature in its own units, best on those held out.

    Each C starts from the solution of the one before; the search ends once the accuracy has been
    below the best one twice in a row.
    """
    scaler = StandardScaler().fit(train)
    train, held = scaler.transform(train), scaler.transform(held)
    model = LogisticRegression(max_iter=FEWER_ITERATIONS, warm_start=True)
    best, unconverged, worse, kept = -1.0, 0, 0, model
    for C in PENALTIES:
        model.set_params(C=C).fit(train, y_train)
        unconverged += int(model.n_iter_.max() >= FEWER_ITERATIONS)
        score = 100 * float(model.score(held, y_held))
        worse = worse + 1 if score < best else 0
        if score > best:
            best, kept = score, copy.deepcopy(model)
        if worse == 2:
            break
    return Chosen(scaler, kept, best, unconverged)


def of_penalties(chosen: Sequence[Chosen]) -> str:
    """A sentence for the notes on the choices that ``choose_penalty`` made."""
    ends = sum(one.C in (PENALTIES[0], PENALTIES[-1]) for one in chosen)
    count = sum(one.unconverged for one in chosen)
    return (
        f"C of the classifiers is one of {', '.join(f'{C:g}' for C in PENALTIES)}, at an end of "
        f"these in {ends} of {len(chosen)}; fits that reached {FEWER_ITERATIONS} iterations: "
        f"{count or 'none'}."
    )


def classifier(**settings: Any) -> LogisticRegression:
    """A logistic regression that has time to converge."""
    return LogisticRegression(max_iter=MAX_ITER, **settings)


def units_of(rows: Any, units: str) -> tuple[Any, Any]:
    """Offset and scale of features; those that are constant keep their units."""
    deviation = rows.std(axis=0)
    if units == UNITS[0]:
        return rows.mean(axis=0), max(float(np.sqrt(np.mean(deviation**2))), 1e-12)
    return rows.mean(axis=0), np.where(deviation > 1e-12, deviation, 1.0)
