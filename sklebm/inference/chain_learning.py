r"""Learning of linear chains: losses of sequences, L-BFGS with l1 and l2, stochastic steps.

.. math:: \min_\theta \; \sum_i \ell_i(\theta)
          + \frac{1}{C} \Big( \rho |\theta|_1 + \frac{1 - \rho}{2} |\theta|^2 \Big)

over the weights of pairs (feature, label) and of transitions; intercepts are not penalised. A
feature counts in units of its range in the training rows. Inside, dense features that are never
near zero are moved there: this changes the intercepts alone, and makes the problem easier.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from scipy.optimize import Bounds, minimize

from sklebm.inference.feature_ranges import features_in_ranges
from sklebm.inference.linear_chain import Floats, Integers

LOSSES = ("nll", "perceptron", "hinge")
_LIMITS = np.finfo(np.float64)
_MOST_BLOCKS = 8
_ROOM = 2**25  # numbers in the gradients of all blocks together
_STEPS_BETWEEN = 10  # iterations over which progress is measured
_PATIENCE = 5, 50  # passes, and steps, without a better loss
#: ``begin()`` before each iteration (it may be called again within one), and
#: ``report(theta, objective)`` after it; True asks to stop.
Begin = Callable[[], None]
Report = Callable[[Floats, float], bool]
#: Parameters, objective, number of iterations, and whether the objective stopped falling.
Found = tuple[Floats, float, int, bool]


class BatchProblem(Protocol):
    """What ``minimize_batch`` needs to know: a smooth objective and its penalties."""

    @property
    def strength(self) -> float:
        """1 / C."""

    @property
    def l1_ratio(self) -> float:
        """Share of l1 in the penalty."""

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""

    @property
    def penalised(self) -> Floats:
        """1 for parameters that the penalty counts, otherwise 0."""

    def objective(self, theta: Floats) -> tuple[float, Floats]:
        """The smooth part and its gradient."""


@dataclass(frozen=True)
class ChainProblem:
    """Sequences with their labels, and what their loss costs.

    Parameters
    ----------
    features : csr matrix of shape (n_rows, n_features)
        Scaled features, sorted by sequence.
    offset, scale : ndarray of shape (n_features,)
        What was subtracted from each feature, and then divided by.
    pair_starts : ndarray of shape (n_features + 1,)
        Where the pairs of each feature begin in ``pair_labels``.
    pair_labels : ndarray of shape (n_pairs,)
        Label of each pair (feature, label) that has a weight.
    starts : ndarray of shape (n_sequences + 1,)
        First row of each sequence, and the number of rows.
    labels : ndarray of shape (n_rows,)
        Labels, from 0.
    weights : ndarray of shape (n_rows,)
        Weight of each row in the loss.
    allowed : ndarray of shape (n_labels, n_labels)
        Transitions that may occur.
    kind : int
        Place of the loss in ``LOSSES``.
    strength : float
        1 / C.
    l1_ratio : float
        Share of l1 in the penalty.
    """

    features: Any
    offset: Floats
    scale: Floats
    pair_starts: Integers
    pair_labels: NDArray[np.int32]
    starts: Integers
    labels: Integers
    weights: Floats
    allowed: NDArray[np.bool_]
    kind: int

    strength: float
    l1_ratio: float

    @property
    def n_parameters(self) -> int:
        """Number of weights, intercepts and transitions."""
        n_labels = len(self.allowed)
        return len(self.pair_labels) + n_labels + n_labels**2

    @property
    def penalised(self) -> Floats:
        """1 for parameters that the penalty counts, 0 for intercepts."""
        mask = np.ones(self.n_parameters)
        mask[len(self.pair_labels) :][: len(self.allowed)] = 0.0
        return mask

    def blocks(self) -> list[Integers]:
        """Sequences in a fixed division, whatever the number of threads: sums are reproducible."""
        n_blocks = max(1, min(_MOST_BLOCKS, _ROOM // self.n_parameters))
        sequences = np.arange(len(self.starts) - 1)
        bounds = np.linspace(0, self.starts[-1], n_blocks + 1)[1:-1]
        parts = np.split(sequences, np.searchsorted(self.starts[1:], bounds))
        return [part for part in parts if len(part)]

    def loss(self, theta: Floats, chosen: Integers, total: Floats) -> float:
        """Loss of the chosen sequences; its gradient is added to ``total``."""
        from sklebm.inference._chain_kernels import loss_and_gradient

        n_labels = len(self.allowed)
        transitions = theta[-(n_labels**2) :].reshape(n_labels, n_labels)
        transitions = np.where(self.allowed, transitions, -np.inf)
        table = self.features
        loss: float = loss_and_gradient(
            table.indptr, table.indices, table.data, self.pair_starts, self.pair_labels,
            self.starts, self.labels, self.weights, transitions, theta, chosen, self.kind, total,
        )  # fmt: skip
        return loss

    def objective(self, theta: Floats) -> tuple[float, Floats]:
        """Loss and l2 penalty of all sequences, and their gradient."""
        blocks = self.blocks()
        totals = [np.zeros_like(theta) for _ in blocks]
        n_workers = min(torch.get_num_threads(), len(blocks))
        if n_workers > 1:
            with ThreadPoolExecutor(n_workers) as workers:
                losses = list(workers.map(self.loss, [theta] * len(blocks), blocks, totals))
        else:
            losses = [self.loss(theta, *pair) for pair in zip(blocks, totals, strict=True)]
        ridge = self.strength * (1.0 - self.l1_ratio) * self.penalised
        value = sum(losses) + 0.5 * float(ridge @ theta**2)
        gradient = totals[0]
        for other in totals[1:]:
            gradient += other
        gradient += ridge * theta
        return value, gradient

    def lasso(self, theta: Floats) -> float:
        """The l1 penalty."""
        return self.strength * self.l1_ratio * float(self.penalised @ np.abs(theta))

    def parameters(self, theta: Floats) -> tuple[Floats, Floats, Floats]:
        """Weights (n_labels, n_features) and intercepts in the units of X, and transitions."""
        n_labels, n_pairs = len(self.allowed), len(self.pair_labels)
        coef = np.zeros((n_labels, len(self.scale)))
        features = np.repeat(np.arange(len(self.scale)), np.diff(self.pair_starts))
        coef[self.pair_labels, features] = theta[:n_pairs] / self.scale[features]
        intercept = theta[n_pairs : n_pairs + n_labels] - coef @ self.offset
        transitions = theta[n_pairs + n_labels :].reshape(n_labels, n_labels)
        return coef, intercept, np.where(self.allowed, transitions, 0.0)


def chain_problem(
    x: Any,
    labels: Integers,
    starts: Integers,
    allowed: NDArray[np.bool_],
    *,
    weights: Floats,
    loss: str,
    strength: float,
    l1_ratio: float,
    observed: bool,
) -> ChainProblem:
    """Scale the rows of x, sorted by sequence, and list the pairs that get a weight.

    ``observed``: only pairs (feature, label) that occur together in a row.
    """
    features, offset, scale = features_in_ranges(x)
    n_features, n_labels = features.shape[1], len(allowed)
    if observed:
        one = (np.arange(len(labels)), labels)
        chosen = scipy.sparse.csr_matrix((np.ones(len(labels)), one), (len(labels), n_labels))
        together = (abs(features).T @ chosen).tocsr()
        together.sort_indices()
        pair_starts, pair_labels = together.indptr, together.indices
    else:
        pair_starts = np.arange(n_features + 1) * n_labels
        pair_labels = np.tile(np.arange(n_labels), n_features)
    return ChainProblem(
        features, offset, scale, pair_starts.astype(np.int64), pair_labels.astype(np.int32),
        starts, labels, weights, allowed, LOSSES.index(loss), strength, l1_ratio,
    )  # fmt: skip


# ---------------------------------------------------------------------- all sequences at once


def minimize_batch(
    problem: BatchProblem,
    *,
    max_iter: int,
    tol: float,
    begin: Begin,
    report: Report,
) -> Found:
    """L-BFGS; with l1, by the positive and the negative part of each parameter, which are bounded.

    It ends when the objective fell by less than ``tol`` of itself over ten iterations.
    """
    size, lasso = problem.n_parameters, problem.strength * problem.l1_ratio
    split = lasso > 0.0
    bounds = None
    if split:
        paid = problem.penalised > 0.0
        floor = np.concatenate([np.where(paid, 0.0, -np.inf), np.zeros(size)])
        bounds = Bounds(floor, np.concatenate([np.full(size, np.inf), np.where(paid, np.inf, 0.0)]))

    def joined(parts: Floats) -> Floats:
        return parts[:size] - parts[size:] if split else parts

    def objective(parts: Floats) -> tuple[float, Floats]:
        begin()
        theta = joined(parts)
        value, gradient = problem.objective(theta)
        if not split:
            return value, gradient
        price = lasso * problem.penalised
        value += float(price @ (parts[:size] + parts[size:]))
        return value, np.concatenate([gradient + price, price - gradient])

    history: list[float] = []
    flat = False

    def after(intermediate_result: Any) -> None:
        nonlocal flat
        history.append(float(intermediate_result.fun))
        stop = report(joined(intermediate_result.x), history[-1])
        if len(history) > _STEPS_BETWEEN:
            fall = history[-1 - _STEPS_BETWEEN] - history[-1]
            flat = fall <= tol * max(abs(history[-1]), _LIMITS.tiny)
        if stop or flat:
            raise StopIteration

    found = minimize(
        objective,
        np.zeros(2 * size if split else size),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        callback=after,
        options={"maxiter": max_iter, "maxfun": 20 * max_iter, "ftol": 0.0, "gtol": 1e-10},
    )
    return joined(found.x), float(found.fun), len(history), flat or len(history) < max_iter


# ---------------------------------------------------------------------- some sequences at a time


def minimize_stochastic(
    problem: ChainProblem,
    *,
    max_iter: int,
    tol: float,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
    begin: Begin,
    report: Report,
) -> Found:
    """Averaged proximal AdaGrad; for the perceptron, averaged plain steps of size one.

    The average weighs later iterates more, except that of the perceptron, which counts them all
    alike; with l1 the last iterate is returned, because averages are not sparse. What is reported
    after a pass is its loss, whose parameters change on the way. It ends when that did not fall by
    ``tol`` of itself in five passes and fifty steps.
    """
    from sklebm.inference._chain_kernels import proximal_step

    size, n_sequences = problem.n_parameters, len(problem.starts) - 1
    theta, squares, gradient, mean = (np.zeros(size) for _ in range(4))
    adaptive = LOSSES[problem.kind] != "perceptron"
    ridge = problem.strength * (1.0 - problem.l1_ratio) * problem.penalised
    lasso = problem.strength * problem.l1_ratio * problem.penalised
    averaged = not lasso.any()
    patience = max(_PATIENCE[0], -(-_PATIENCE[1] // -(-n_sequences // batch_size)))
    count, best, waited, n_passes, settled = 0, np.inf, 0, 0, False
    for n_passes in range(1, max_iter + 1):
        begin()
        order = torch.randperm(n_sequences, generator=generator).numpy()
        loss = 0.0
        for first in range(0, n_sequences, batch_size):
            chosen = order[first : first + batch_size]
            loss += problem.loss(theta, chosen, gradient)
            share = len(chosen) / n_sequences
            average = (2.0 if adaptive else 1.0) / (count + (2.0 if adaptive else 1.0))
            proximal_step(
                theta, squares, gradient, mean, learning_rate if adaptive else 1.0, adaptive,
                ridge, lasso, share, average,
            )  # fmt: skip
            count += 1
        value = loss + 0.5 * float(ridge @ theta**2) + problem.lasso(theta)
        stop = report(mean if averaged else theta, value)
        if n_passes > 1:  # at weights of zero the perceptron pays nothing for its mistakes
            fell = value < best - tol * abs(best) or not np.isfinite(best)
            best, waited = min(best, value), 0 if fell else waited + 1
            settled = loss == 0.0 or waited >= patience
        if stop or settled:
            break
    found = mean if averaged else theta
    return found, problem.objective(found)[0] + problem.lasso(found), n_passes, settled
