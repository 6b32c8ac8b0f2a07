r"""Inference in linear chains of labels: partition sums, marginals, best labels.

.. math:: -E(y \mid x) = \sum_t s_t(y_t) + \sum_{t > 1} T(y_{t-1}, y_t), \qquad
          \log Z(x) = \log \sum_y e^{-E(y \mid x)}.

``scores`` holds s, one row per step, for all sequences one after the other; sequence i begins at
row ``starts[i]`` and ends before ``starts[i + 1]``. Forbidden transitions have the score -inf. The
recursions are compiled and run on the CPU, in double precision and O(n K^2) for n steps and K
labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def sequence_order(groups: Any, n_rows: int) -> tuple[Integers, Integers]:
    """Rows sorted by sequence, each in its own order, and where the sequences start among them.

    Parameters
    ----------
    groups : ndarray of shape (n_rows,) or None
        Sequence of each row, as numbers; None: all rows are one sequence.
    n_rows : int
        Number of rows.

    Returns
    -------
    order : ndarray of shape (n_rows,)
        Row at each place.
    starts : ndarray of shape (n_sequences + 1,)
        First place of each sequence, and ``n_rows``.
    """
    if groups is None:
        return np.arange(n_rows), np.array([0, n_rows])
    order = np.argsort(groups, kind="stable")
    changes = np.flatnonzero(np.diff(groups[order])) + 1
    return order, np.concatenate([[0], changes, [n_rows]]).astype(np.int64)


def log_forward(scores: Floats, transitions: Floats, starts: Integers) -> Floats:
    """alpha_t(k) = log of the sum over all labels before t that lead to k, shape (n, K)."""
    from sklebm.inference._chain_kernels import log_forward as run

    alpha = np.empty_like(scores)
    run(scores, transitions, starts, alpha)
    return alpha


def log_backward(scores: Floats, transitions: Floats, starts: Integers) -> Floats:
    """beta_t(k) = log of the sum over all labels after t, given k at t, shape (n, K)."""
    from sklebm.inference._chain_kernels import log_backward as run

    beta = np.empty_like(scores)
    run(scores, transitions, starts, beta)
    return beta


def log_marginals(scores: Floats, transitions: Floats, starts: Integers) -> Floats:
    """log p(y_t = k | x) of shape (n, K)."""
    joint = log_forward(scores, transitions, starts) + log_backward(scores, transitions, starts)
    return joint - log_sum_exp(joint)[:, None]


def log_partition_steps(scores: Floats, transitions: Floats, starts: Integers) -> Floats:
    """log Z_t - log Z_{t-1}, (n,), with Z_t of the steps up to t: adds up to log Z."""
    steps = log_sum_exp(log_forward(scores, transitions, starts))
    steps[1:] -= np.where(_is_first(starts)[1:], 0.0, steps[:-1])
    return steps


def log_conditionals(
    scores: Floats, transitions: Floats, starts: Integers, labels: Integers
) -> Floats:
    """log p(y_t | y_1..y_{t-1}, x), (n,), at the given labels: adds up to log p(y | x)."""
    beta = log_backward(scores, transitions, starts)
    rows, first = np.arange(len(scores)), _is_first(starts)
    at_label = scores[rows, labels] + beta[rows, labels]
    before = log_sum_exp(scores + beta)
    moved = np.zeros(len(scores))
    moved[1:] = transitions[labels[:-1], labels[1:]]
    before[1:] = np.where(first[1:], before[1:], beta[rows[:-1], labels[:-1]])
    with np.errstate(invalid="ignore"):
        answer = at_label + np.where(first, 0.0, moved) - before
    # After a forbidden transition nothing is possible, and nothing is made impossible again.
    return np.where(np.isnan(answer), -np.inf, answer)


def path_energies(
    scores: Floats, transitions: Floats, starts: Integers, labels: Integers
) -> Floats:
    """-s_t(y_t) - T(y_{t-1}, y_t), (n,): adds up to the energy of the labels."""
    energies: Floats = -scores[np.arange(len(scores)), labels]
    moved = -transitions[labels[:-1], labels[1:]]
    energies[1:] += np.where(_is_first(starts)[1:], 0.0, moved)
    return energies


def best_labels(scores: Floats, transitions: Floats, starts: Integers) -> Integers:
    """Labels of lowest energy, (n,), by the Viterbi algorithm; ties go to the lower label."""
    from sklebm.inference._chain_kernels import best_paths

    path = np.empty(len(scores), np.int64)
    best_paths(scores, transitions, starts, path)
    return path


def likely_labels(scores: Floats, transitions: Floats, starts: Integers) -> Integers:
    """The most probable label of each step, (n,); ties go to the lower label."""
    marginals = np.exp(log_marginals(scores, transitions, starts))
    labels: Integers = np.argmax(marginals, axis=1)
    return labels


def log_sum_exp(values: Floats) -> Floats:
    """log sum_k exp(v_k) of each row, where at least one value is finite."""
    top = values.max(axis=1)
    total: Floats = top + np.log(np.exp(values - top[:, None]).sum(axis=1))
    return total


def longest_possible(allowed: NDArray[np.bool_], length: int) -> int:
    """The most steps, up to ``length``, that labels can follow each other; O(length K^2)."""
    if allowed.any(axis=1).all():
        return length  # every label has a next one
    reached = set(range(len(allowed)))
    for n_steps in range(1, length):
        onward = {int(label) for last in reached for label in np.flatnonzero(allowed[last])}
        if not onward:
            return n_steps
        if onward == reached:
            return length
        reached = onward
    return length


def _is_first(starts: Integers) -> NDArray[np.bool_]:
    first = np.zeros(starts[-1], np.bool_)
    first[starts[:-1]] = True
    return first
