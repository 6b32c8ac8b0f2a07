r"""Learning of labels on grids.

.. math:: \text{likelihood}\quad E(y \mid x) + \log Z(x), \qquad
          \text{pseudo-likelihood}\quad -\sum_i \log p(y_i \mid y_{N(i)}, x), \qquad
          \text{piecewise}\quad -\sum_i \log \frac{e^{s_i(y_i)}}{\sum_k e^{s_i(k)}}
          - \sum_{(i, j)} \log \frac{e^{T_{ij}(y_i, y_j)}}{\sum_{k, l} e^{T_{ij}(k, l)}}.

In the first, log Z is the upper bound of reweighted trees, exact where pairs form no loop; its
gradient are its own marginals. All three are convex in the weights of s and T, which are linear in
the features of pixels and pairs. Features count in units of their range in the training rows.

M. Wainwright, "Estimating the wrong graphical model: benefits in the computation-limited setting",
JMLR 7, 2006; J. Besag, "Statistical analysis of non-lattice data", The Statistician 24, 1975;
C. Sutton and A. McCallum, "Piecewise training for undirected models", UAI 2005.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse

from sklebm.inference.grid_graph import Floats, Grid, Integers
from sklebm.inference.grid_labels import (
    GridScores,
    conditional_scores,
    label_energies,
    pair_beliefs,
)
from sklebm.inference.linear_chain import log_sum_exp

LOSSES = ("likelihood", "pseudo_likelihood", "piecewise")
# Likelihood and gradient are as good as the messages: better than steps of L-BFGS need.
_SETTLED, _MOST_SWEEPS = 1e-5, 200

_BLOCK = 2**22  # numbers in the scores of a block of pairs


@dataclass(frozen=True)
class GridProblem:
    """Pixels with their labels, and what their loss costs.

    Parameters
    ----------
    features : csr matrix of shape (n_pixels, n_features)
        Scaled features, sorted by place.
    pair_features : csr matrix of shape (n_pairs, n_pair_features) or None
        Features of pairs, the first of which is 1; None: T is given.
    halves : tuple of int
        Where the features of the first pixel and of the second begin and end in ``pair_features``;
        three equal numbers if there are none.
    grid : Grid
        The pairs.
    labels : ndarray of shape (n_pixels,)
        Labels, from 0.
    weights : ndarray of shape (n_pixels,)
        Weight of each pixel in the loss.
    n_labels : int
        Number of labels.
    n_tables : int
        Number of tables: one for each direction, or one for all.
    is_potts : bool
        Whether T is a number for equal labels and zero for others.
    given : ndarray of shape (n_given, n_labels, n_labels) or None
        T if they are not learnt: one for each pair, or one for all.
    loss : str
        One of ``LOSSES``.
    strength : float
        1 / C, of the l2 penalty.
    neighbours : csr matrix or None
        ``neighbour_features``, for the pseudo-likelihood of learnt T.
    shares : ndarray of shape (n_pairs,) or None
        ``tree_shares`` of the grid, for the likelihood.
    messages : ndarray of shape (n_pairs, 2, n_labels) or None
        Those of the last evaluation of the likelihood, from which the next one starts: where
        messages settle does not depend on it.
    """

    features: Any
    pair_features: Any
    halves: tuple[int, int, int]
    grid: Grid
    labels: Integers
    weights: Floats
    n_labels: int
    n_tables: int
    is_potts: bool
    given: Floats | None
    loss: str
    strength: float
    neighbours: Any = None
    shares: Any = None
    messages: Any = None

    l1_ratio = 0.0

    @property
    def n_parameters(self) -> int:
        """Number of weights, intercepts and weights of pairs."""
        shape = self._pair_shape()
        return self._n_own + math.prod(shape)

    @property
    def _n_own(self) -> int:
        n_features: int = self.features.shape[1]
        return self.n_labels * (n_features + 1)

    @property
    def penalised(self) -> Floats:
        """1 for parameters that the penalty counts, 0 for intercepts."""
        mask = np.ones(self.n_parameters)
        mask[self._n_own - self.n_labels : self._n_own] = 0.0
        return mask

    def _pair_shape(self) -> tuple[int, ...]:
        if self.pair_features is None:
            return (0,)
        n_features = self.pair_features.shape[1]
        if self.is_potts:
            return (self.n_tables, n_features)
        return (self.n_tables, self.n_labels, self.n_labels, n_features)

    # ------------------------------------------------------------------ weights of pairs

    def tables(self, theta: Floats) -> Floats:
        """Weights A of pairs, (n_tables, K, K, n_pair_features)."""
        part = theta[self._n_own :].reshape(self._pair_shape())
        if self.is_potts:
            return self._symmetric(part[:, None, None, :] * np.eye(self.n_labels)[:, :, None])
        return self._symmetric(self._interaction(part))

    def _to_theta(self, gradient: Floats) -> Floats:
        """The transpose of ``tables``."""
        gradient = self._symmetric(gradient)
        if self.is_potts:
            of_equal: Floats = np.einsum("tkkm->tm", gradient)
            return of_equal.ravel()
        return self._interaction(gradient).ravel()

    def _interaction(self, tables: Floats) -> Floats:
        """Without what one label of a pair does alone, which would only double the intercepts.

        Features of pixels keep theirs: what a neighbour looks like says something about a label.
        """
        found = tables.copy()
        part = found[..., : self.halves[0]]
        for axis in (1, 2):
            part -= part.mean(axis=axis, keepdims=True)
        return found

    def _symmetric(self, tables: Floats) -> Floats:
        """Without directions it does not matter which pixel of a pair is the first."""
        if self.n_tables > 1:
            return tables
        low, middle, high = self.halves
        swapped = np.arange(tables.shape[-1])
        swapped[low:middle], swapped[middle:high] = np.arange(middle, high), np.arange(low, middle)
        return 0.5 * (tables + tables[..., swapped].swapaxes(1, 2))

    # ------------------------------------------------------------------ the losses

    def objective(self, theta: Floats) -> tuple[float, Floats]:
        """Loss and penalty, and their gradient."""
        n_features = self.features.shape[1]
        coef = theta[: self.n_labels * n_features].reshape(self.n_labels, n_features)
        intercept = theta[self._n_own - self.n_labels : self._n_own]
        scores = self.features @ coef.T + intercept
        learns_pairs = self.pair_features is not None
        tables = self.tables(theta) if learns_pairs else np.empty(0)
        if self.loss == "likelihood":
            loss, residual, of_pairs = self._likelihood(scores, tables)
        elif self.loss == "piecewise":
            loss, residual = _logistic(scores, self.labels, self.weights)
            more, of_pairs = self._pieces(tables) if learns_pairs else (0.0, tables)
            loss += more
        else:
            loss, residual, of_pairs = self._pseudo_likelihood(scores, tables)
        parts = [(self.features.T @ residual).T.ravel(), residual.sum(axis=0)]
        if learns_pairs:
            parts.append(self._to_theta(of_pairs))
        ridge = self.strength * self.penalised
        return loss + 0.5 * float(ridge @ theta**2), np.concatenate(parts) + ridge * theta

    # Each loss returns its value, its gradient by the scores of pixels, and that by A.

    def _likelihood(self, scores: Floats, tables: Floats) -> tuple[float, Floats, Floats]:
        grid, labels, k = self.grid, self.labels, self.n_labels
        if not len(grid.first):
            loss, residual = _logistic(scores, labels, self.weights)
            return loss, residual, np.zeros_like(tables)
        scored = GridScores(scores, *self._pair_scores(tables), grid)
        found, log_p = pair_beliefs(scored, self.shares, _SETTLED, _MOST_SWEEPS, self.messages)
        loss = float(np.sum(found.log_z + label_energies(scored, labels)))
        residual = np.exp(found.log_p)
        residual[np.arange(len(labels)), labels] -= 1.0
        of_pairs = np.exp(log_p).reshape(-1, k * k)
        of_pairs[np.arange(len(of_pairs)), labels[grid.first] * k + labels[grid.second]] -= 1.0
        gradient = np.zeros((len(tables), k * k, *tables.shape[3:]))
        for number, chosen in self._pairs_of_tables(len(gradient)):
            gradient[number] = (self.pair_features[chosen].T @ of_pairs[chosen]).T
        return loss, residual, gradient.reshape(tables.shape)

    def _pair_scores(self, tables: Floats) -> tuple[Floats, Integers]:
        """T of the pairs, and which of them each pair has."""
        n_pairs, k = len(self.grid.first), self.n_labels
        if self.given is not None:
            own = len(self.given) > 1
            return self.given, np.arange(n_pairs) if own else np.zeros(n_pairs, np.int64)
        found = np.empty((n_pairs, k * k))
        for number, chosen in self._pairs_of_tables(len(tables)):
            found[chosen] = self.pair_features[chosen] @ tables[number].reshape(k * k, -1).T
        return found.reshape(n_pairs, k, k), np.arange(n_pairs)

    def _pairs_of_tables(self, n_tables: int) -> Iterator[tuple[int, Integers]]:
        """The pairs of each of the learnt tables."""
        for number in range(n_tables):
            is_one = self.grid.direction == number if n_tables > 1 else self.grid.direction >= 0
            yield number, np.flatnonzero(is_one)

    def _pseudo_likelihood(self, scores: Floats, tables: Floats) -> tuple[float, Floats, Floats]:
        if self.given is not None:
            given = GridScores(scores, *self._pair_scores(tables), self.grid)
            return *_logistic(
                conditional_scores(given, self.labels), self.labels, self.weights
            ), tables
        scores = scores + self.neighbours @ self._by_neighbour(tables).T
        loss, residual = _logistic(scores, self.labels, self.weights)
        return loss, residual, self._from_neighbour((self.neighbours.T @ residual).T)

    def _by_neighbour(self, tables: Floats) -> Floats:
        """A as weights of the table of ``neighbour_features``, (K, n_tables * 2 * K * m)."""
        both = np.stack([tables, tables.swapaxes(1, 2)], axis=1)  # (t, side, own, other, m)
        return both.transpose(2, 0, 1, 3, 4).reshape(self.n_labels, -1)

    def _from_neighbour(self, weights: Floats) -> Floats:
        """The transpose of ``_by_neighbour``."""
        k = self.n_labels
        both = weights.reshape(k, self.n_tables, 2, k, -1).transpose(1, 2, 0, 3, 4)
        return both[:, 0] + both[:, 1].swapaxes(1, 2)

    def _pieces(self, tables: Floats) -> tuple[float, Floats]:
        """Loss of the pairs, each normalised by itself, and its gradient by A."""
        grid, k = self.grid, self.n_labels
        loss, gradient = 0.0, np.zeros((self.n_tables, k * k, tables.shape[-1]))
        labels = self.labels[grid.first] * k + self.labels[grid.second]
        weights = 0.5 * (self.weights[grid.first] + self.weights[grid.second])
        step = max(1, _BLOCK // (k * k))
        for number, chosen in self._pairs_of_tables(self.n_tables):
            table = tables[number].reshape(k * k, -1)
            for start in range(0, len(chosen), step):
                part = chosen[start : start + step]
                features = self.pair_features[part]
                value, residual = _logistic(features @ table.T, labels[part], weights[part])
                loss += value
                gradient[number] += (features.T @ residual).T
        return loss, gradient.reshape(tables.shape)


def _logistic(scores: Floats, labels: Integers, weights: Floats) -> tuple[float, Floats]:
    """Weighted sum of -log p(label), and its gradient by the scores."""
    rows = np.arange(len(labels))
    log_z = log_sum_exp(scores)
    loss = float(weights @ (log_z - scores[rows, labels]))
    residual = np.exp(scores - log_z[:, None])
    residual[rows, labels] -= 1.0
    return loss, residual * weights[:, None]


def neighbour_features(
    pair_features: Any, grid: Grid, labels: Integers, n_labels: int, n_tables: int
) -> Any:
    """What the labels of neighbours and the features of pairs say about a pixel, as a csr matrix.

    Column ((t * 2 + side) * K + k) * m + f: the sum of feature f over the pairs of table t whose
    other pixel has label k, with the pixel itself on this side.
    """
    m = pair_features.shape[1]
    entries = pair_features.tocoo()
    e = entries.row
    table = grid.direction[e] if n_tables > 1 else np.zeros(len(e), np.int64)

    def column(side: int, other: Integers) -> Any:
        return ((table * 2 + side) * n_labels + labels[other[e]]) * m + entries.col

    rows = np.concatenate([grid.first[e], grid.second[e]])
    columns = np.concatenate([column(0, grid.second), column(1, grid.first)])
    shape = (len(labels), n_tables * 2 * n_labels * m)
    return scipy.sparse.csr_matrix((np.tile(entries.data, 2), (rows, columns)), shape=shape)
