"""Grids among the rows: pairs of neighbours, their features and scores, given interactions."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from sklebm._shell.rows import Rows
from sklebm._shell.warning import warn
from sklebm.energies.linear_scores import PairScores
from sklebm.inference import grid_labels
from sklebm.inference.feature_ranges import features_in_ranges
from sklebm.inference.grid_graph import (
    DIRECTIONS,
    Grid,
    contrast_scale,
    make_grid,
    squared_differences,
    tree_shares,
)
from sklebm.inference.grid_labels import MOST_SWEEPS, GridScores
from sklebm.inference.grid_learning import GridProblem, neighbour_features

Floats = NDArray[np.float64]
_LOWEST = {"icm": grid_labels.conditional_modes, "cut": grid_labels.minimum_cut}
_MESSAGES = {
    "belief_propagation": grid_labels.belief_propagation,
    "reweighted_trees": grid_labels.reweighted_trees,
}
INFERENCE = (*_MESSAGES, "mean_field", "gibbs", "exact", *_LOWEST)
_BLOCK = 2**22  # numbers in the features of a block of pairs


def grid_of(rows: Rows, n_neighbours: int) -> Grid:
    """The grid of the rows, by their columns ``groups`` and ``positions``."""
    columns = {
        name: None if column is None else column.cpu().numpy()
        for name in ("positions", "groups")
        for column in [rows.columns.get(name)]
    }
    return make_grid(columns["positions"], columns["groups"], len(rows), n_neighbours)


def sorted_rows(rows: Rows, grid: Grid) -> Any:
    """The rows in the order of their places, as an array or a csr matrix."""
    source = rows.source if scipy.sparse.issparse(rows.source) else rows.to_numpy()
    return source[grid.order]


def read_interaction(given: Any, classes: NDArray[Any], kind: str) -> Floats | None:
    """A given T (K, K) for all pairs; None if it is learnt."""
    if isinstance(given, str):
        return None
    if isinstance(given, Real):
        table = float(given) * np.eye(len(classes))
    else:
        table = np.asarray(given, dtype=np.float64)
    n = len(classes)
    if table.shape != (n, n) or not np.isfinite(table).all():
        raise ValueError(
            f"interaction has shape {table.shape}, but must be a number, or finite numbers for "
            f"each pair of the {n} labels {classes.tolist()}."
        )
    if kind == "features":
        raise ValueError(
            'pairwise_features="features" learns what features say about pairs, but interaction is '
            'given: choose "constant" or "contrast", or interaction="full".'
        )
    return table.copy()


def pair_features(x: Any, grid: Grid, scale: Floats | None, part: slice) -> Any:
    """Features of some pairs: their contrast if it has a scale, otherwise those of both pixels."""
    first, second = grid.first[part], grid.second[part]
    if scale is not None:
        some = replace(grid, first=first, second=second)
        return np.exp(-0.5 * squared_differences(x, some, scale))[:, None]
    if scipy.sparse.issparse(x):
        return scipy.sparse.hstack([x[first], x[second]], format="csr")
    return np.hstack([x[first], x[second]])


def grid_scores(rows: Rows, scores: Floats, energy: PairScores, n_neighbours: int) -> GridScores:
    """What inference needs to know of the rows."""
    grid = grid_of(rows, n_neighbours)
    transitions = energy.transitions.cpu()
    direction = grid.direction if transitions.shape[2] > 1 else np.zeros_like(grid.direction)
    scores = np.ascontiguousarray(scores[grid.order])
    if energy.transition_coef is None:
        tables = np.ascontiguousarray(transitions.permute(2, 0, 1).numpy())
        return GridScores(scores, tables, direction, grid)
    scale = None if energy.contrast_scale is None else energy.contrast_scale.cpu().numpy()
    x, n_pairs = sorted_rows(rows, grid), len(grid.first)
    pair = np.empty((n_pairs, *transitions.shape[:2]))
    step = max(1, _BLOCK // max(2 * x.shape[1], transitions.shape[0] ** 2))
    for start in range(0, n_pairs, step):
        part = slice(start, start + step)
        features = pair_features(x, grid, scale, part)
        if scipy.sparse.issparse(features):
            features = features.toarray()
        device = energy.transitions.device
        where = torch.from_numpy(direction[part]).to(device)
        f = torch.from_numpy(features.astype(np.float64)).to(device)
        pair[part] = energy.pair_scores(where, f).cpu().numpy()
    return GridScores(scores, pair, np.arange(n_pairs), grid)


def log_marginals(model: Any, given: GridScores) -> Floats:
    """log p of each label of each pixel, as the ``inference`` of a GridMRF finds it."""
    choice = model.inference
    if choice in _LOWEST:
        return grid_labels.log_conditionals(given, _LOWEST[choice](given))
    if choice == "exact":
        return grid_labels.exact(given).log_p
    if choice == "gibbs":
        return grid_labels.gibbs_marginals(given, int(model.n_gibbs_steps))
    if choice == "mean_field":
        log_p, n_open = grid_labels.mean_field(given)
    else:
        log_p, _, n_open = _MESSAGES[choice](given)
    _warn_open(given, n_open)
    return log_p


def best_labels(model: Any, given: GridScores) -> Any:
    """Labels of pixels, as the ``inference`` of a GridMRF finds them."""
    if model.inference in _LOWEST:
        return _LOWEST[model.inference](given)
    return np.argmax(log_marginals(model, given), axis=1)


def log_partition(given: GridScores) -> Floats:
    """What each pixel adds to log Z."""
    found = grid_labels.log_partition_terms(given)
    _warn_open(given, found.n_open, "log Z, whatever inference is, may then be no bound")
    return found.log_z


def _warn_open(
    given: GridScores, n_open: int, advice: str = 'inference="gibbs" does not depend on this'
) -> None:
    if n_open:
        warn(
            f"GridMRF: {n_open} of {len(given.grid.starts) - 1} images did not settle in "
            f"{MOST_SWEEPS} sweeps, and their answers are approximate: {advice}.",
            ConvergenceWarning,
        )


class Learning:
    """A learning problem on the rows of a fit, and the way from its solution to fitted attributes.

    Parameters
    ----------
    model : GridMRF
        The estimator, for its parameters.
    rows : Rows
        Rows with the columns "target", "groups", "positions" and "weight".
    classes : ndarray of shape (n_classes,)
        The labels.
    """

    def __init__(self, model: Any, rows: Rows, classes: NDArray[Any]) -> None:
        self.n_neighbours = int(model.n_neighbours)
        self.grid = grid = grid_of(rows, self.n_neighbours)
        self.given = read_interaction(model.interaction, classes, model.pairwise_features)
        self.kind, self.n_labels = model.pairwise_features, len(classes)
        self.n_tables = 1
        if model.directed and self.given is None:
            self.n_tables = len(DIRECTIONS[self.n_neighbours])
        x = sorted_rows(rows, grid)
        features, self.offset, self.scale = features_in_ranges(x)
        labels = rows.columns["target"].cpu().numpy()[grid.order]
        weight = rows.columns.get("weight")
        weights = np.ones(len(labels)) if weight is None else weight.cpu().numpy()[grid.order]
        self.contrast_scale = contrast_scale(x, grid) if self.kind == "contrast" else None
        of_pairs, halves = self._pair_features(x, features)
        neighbours = None
        if of_pairs is not None and model.learning == "pseudo_likelihood":
            neighbours = neighbour_features(of_pairs, grid, labels, self.n_labels, self.n_tables)
        if weight is not None and model.learning == "likelihood" and len(grid.first):
            raise ValueError(
                f"class_weight={model.class_weight!r} weighs pixels, but "
                'learning="likelihood" counts images as wholes: choose "pseudo_likelihood" or '
                '"piecewise".'
            )
        self.problem = GridProblem(
            features,
            of_pairs,
            halves,
            grid,
            labels,
            weights,
            self.n_labels,
            self.n_tables,
            is_potts=isinstance(model.interaction, str) and model.interaction == "potts",
            given=self._given_tables(x),
            loss=model.learning,
            strength=1.0 / model.C,
            neighbours=neighbours,
            **self._workspace(model.learning),
        )

    def _pair_features(self, x: Any, features: Any) -> tuple[Any, tuple[int, int, int]]:
        """1, and contrast or the scaled features of both pixels, as a csr matrix."""
        if self.given is not None:
            return None, (0, 0, 0)
        grid, everything = self.grid, slice(None)
        parts = [scipy.sparse.csr_matrix(np.ones((len(grid.first), 1)))]
        if self.kind == "contrast":
            found = pair_features(x, grid, self.contrast_scale, everything)
            parts.append(scipy.sparse.csr_matrix(found))
        elif self.kind == "features":
            both = pair_features(features, grid, None, everything)
            both.eliminate_zeros()
            parts.append(both)
        width = x.shape[1] if self.kind == "features" else 0
        first = 1 + (self.kind == "contrast")
        return scipy.sparse.hstack(parts, format="csr"), (first, first + width, first + 2 * width)

    def _workspace(self, learning: str) -> dict[str, Floats]:
        """What the likelihood needs beside the data."""
        if learning != "likelihood":
            return {}
        k = self.n_labels
        messages = np.full((len(self.grid.first), 2, k), -np.log(k))
        return {"shares": tree_shares(self.grid), "messages": messages}

    def _given_tables(self, x: Any) -> Floats | None:
        """T that are given, of all pairs, or one for all."""
        if self.given is None:
            return None
        if self.kind != "contrast":
            return self.given[None]
        contrast = pair_features(x, self.grid, self.contrast_scale, slice(None))
        tables: Floats = self.given * contrast[:, :, None]
        return tables

    def attributes(self, theta: Floats) -> dict[str, Any]:
        """Fitted attributes at the parameters of the problem, in the units of X."""
        k, n_features = self.n_labels, len(self.scale)
        coef = theta[: k * n_features].reshape(k, n_features) / self.scale
        intercept = theta[k * n_features : k * (n_features + 1)] - coef @ self.offset
        transitions, of_features = np.zeros((k, k, self.n_tables)), None
        if self.given is None:
            tables = self.problem.tables(theta).transpose(1, 2, 0, 3)
            transitions, of_features = tables[..., 0].copy(), tables[..., 1:].copy()
            if self.kind == "features":
                of_features /= np.tile(self.scale, 2)
                transitions -= of_features @ np.tile(self.offset, 2)
        elif self.kind == "contrast":
            of_features = self.given[:, :, None, None].copy()
        else:
            transitions = self.given[:, :, None].copy()
        return {
            "coef_": coef,
            "intercept_": intercept,
            "transitions_": transitions,
            "transition_coef_": None if self.kind == "constant" else of_features,
            "contrast_scale_": self.contrast_scale,
            "n_neighbours_": self.n_neighbours,
        }
