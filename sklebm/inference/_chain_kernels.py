r"""Compiled recursions over labels that form chains: one sequence at a time, of any length.

.. math:: -E(y \mid x) = \sum_t s_t(y_t) + \sum_{t > 1} T(y_{t-1}, y_t).

Scores of labels are rows of ``scores``; sequence i is made of the rows ``starts[i]`` up to
``starts[i + 1]``. A forbidden transition has the score -inf. Sequences do not touch each other, so
that any number of threads may share them with the same result.

This module imports numba, so it is imported where it is used.
"""

from __future__ import annotations

import numpy as np

from sklebm.inference._compiled import REORDER, compiled

# Scaled messages below this have lost digits; a sequence that needs one is done by logarithms.
_FAINT = 1e-250
# Mass that may be lost: far below the rounding of a sum of probabilities.
_NOTHING = 1e-40

LIKELIHOOD, PERCEPTRON, HINGE = 0, 1, 2


@compiled()
def _log_sum(values):  # type: ignore[no-untyped-def]
    """log sum exp of a vector, which may hold -inf."""
    top = values.max()
    if top == -np.inf:
        return top
    total = 0.0
    for value in values:
        total += np.exp(value - top)
    return top + np.log(total)


@compiled()
def log_forward(scores, transitions, starts, alpha):  # type: ignore[no-untyped-def]
    """alpha_t(l) = s_t(l) + log sum_k exp(alpha_{t-1}(k) + T(k, l)), written in place."""
    n_labels = scores.shape[1]
    terms = np.empty(n_labels)
    for i in range(len(starts) - 1):
        for t in range(starts[i], starts[i + 1]):
            for label in range(n_labels):
                alpha[t, label] = scores[t, label]
                if t > starts[i]:
                    for k in range(n_labels):
                        terms[k] = alpha[t - 1, k] + transitions[k, label]
                    alpha[t, label] += _log_sum(terms)


@compiled()
def log_backward(scores, transitions, starts, beta):  # type: ignore[no-untyped-def]
    """beta_t(k) = log sum_l exp(T(k, l) + s_{t+1}(l) + beta_{t+1}(l)), written in place."""
    n_labels = scores.shape[1]
    terms = np.empty(n_labels)
    for i in range(len(starts) - 1):
        for t in range(starts[i + 1] - 1, starts[i] - 1, -1):
            for k in range(n_labels):
                if t == starts[i + 1] - 1:
                    beta[t, k] = 0.0
                else:
                    for label in range(n_labels):
                        terms[label] = (
                            transitions[k, label] + scores[t + 1, label] + beta[t + 1, label]
                        )
                    beta[t, k] = _log_sum(terms)


@compiled()
def best_path(scores, transitions, weights, start, stop, best, origin, path):  # type: ignore[no-untyped-def]
    """Labels of rows start to stop with the largest sum of scores (Viterbi); returns that sum.

    The transition into row t counts ``weights[t]`` times. Ties go to the lower label. ``best`` and
    ``origin`` are workspace of at least stop - start rows.
    """
    n_labels = scores.shape[1]
    for t in range(start, stop):
        r = t - start
        for label in range(n_labels):
            best[r, label] = scores[t, label]
            if r > 0:
                top, place = -np.inf, 0
                for k in range(n_labels):
                    # A weight of zero frees even a forbidden transition: 0 * inf is no number.
                    step = weights[t] * transitions[k, label] if weights[t] > 0.0 else 0.0
                    value = best[r - 1, k] + step
                    if value > top:
                        top, place = value, k
                best[r, label] += top
                origin[r, label] = place
    last = stop - 1 - start
    path[stop - 1] = np.argmax(best[last])
    for t in range(stop - 1, start, -1):
        path[t - 1] = origin[t - start, path[t]]
    return best[last, path[stop - 1]]


@compiled()
def best_paths(scores, transitions, starts, path):  # type: ignore[no-untyped-def]
    """The labels of lowest energy of every sequence, written in place."""
    n_labels, longest = scores.shape[1], 1
    for i in range(len(starts) - 1):
        longest = max(longest, starts[i + 1] - starts[i])
    best, origin = np.empty((longest, n_labels)), np.empty((longest, n_labels), np.int32)
    weights = np.ones(len(scores))
    for i in range(len(starts) - 1):
        best_path(scores, transitions, weights, starts[i], starts[i + 1], best, origin, path)


# ---------------------------------------------------------------------- learning


@compiled(fastmath=REORDER)
def _scaled_likelihood(  # type: ignore[no-untyped-def]
    scores, factors, shift, labels, weights, transitions, gradient, spread, beta, exponents, scale
):  # fmt: skip
    """Weighted negative log likelihood of one sequence and its gradient, by scaled messages.

    With gamma_t = w_t - w_{t+1}, the sum of w_t log p(y_t | y_1..y_{t-1}, x) is

        sum_t w_t (s_t(y_t) + T(y_{t-1}, y_t)) + sum_t gamma_t log beta_t(y_t) - w_1 log Z,

    and its derivative flows forwards: mass -w_1 p(y_1) enters at the first row, gamma_t at the
    label of row t, and moves by p(y_{t+1} | y_t, x). The gradient of the scores is written to
    ``gradient``. ``spread`` collects what, times ``factors`` = exp(T - shift), is the gradient of
    T apart from the observed transitions. Returns NaN, with nothing collected yet, if messages are
    too faint.
    """
    n, n_labels = scores.shape
    for t in range(n):
        top = scores[t].max()
        scale[t, 1] = top
        for k in range(n_labels):
            exponents[t, k] = np.exp(scores[t, k] - top)
    for k in range(n_labels):
        beta[n - 1, k] = 1.0
    loss, log_scale = 0.0, 0.0
    for t in range(n - 1, -1, -1):
        if t < n - 1:
            # From here on the workspace of row t + 1 holds exp(s) beta.
            for k in range(n_labels):
                exponents[t + 1, k] *= beta[t + 1, k]
            top = 0.0
            for k in range(n_labels):
                total = 0.0
                for label in range(n_labels):
                    total += factors[k, label] * exponents[t + 1, label]
                beta[t, k] = total
                top = max(top, total)
            if not top > _FAINT:
                return np.nan
            scale[t, 0] = top
            log_scale += np.log(top) + shift + scale[t + 1, 1]
            for k in range(n_labels):
                beta[t, k] /= top
            jump = weights[t] - weights[t + 1]
        else:
            jump = weights[t]
        if jump != 0.0:
            if not beta[t, labels[t]] > _FAINT:
                return np.nan
            loss -= jump * (np.log(beta[t, labels[t]]) + log_scale)
        loss -= weights[t] * scores[t, labels[t]]
        if t > 0:
            loss -= weights[t] * transitions[labels[t - 1], labels[t]]
    total = 0.0
    for k in range(n_labels):
        exponents[0, k] *= beta[0, k]
        total += exponents[0, k]
    if not total > _FAINT:
        return np.nan
    loss += weights[0] * (np.log(total) + log_scale + scale[0, 1])
    for k in range(n_labels):
        gradient[0, k] = weights[0] * exponents[0, k] / total
    # Mass moves on; it is kept with the sign of the loss. The second pass cannot fail halfway
    # after adding to ``spread``, because what it divides by is checked first.
    for t in range(n - 1):
        gradient[t, labels[t]] -= weights[t] - weights[t + 1]
        for label in range(n_labels):
            gradient[t + 1, label] = 0.0
        for k in range(n_labels):
            mass, faint = gradient[t, k], beta[t, k] * scale[t, 0]
            if faint > _FAINT:
                share = mass / faint
            elif abs(mass) < _NOTHING:
                share = 0.0
            else:
                return np.nan
            beta[t, k] = share
            for label in range(n_labels):
                gradient[t + 1, label] += share * factors[k, label]
        for label in range(n_labels):
            gradient[t + 1, label] *= exponents[t + 1, label]
    for t in range(n - 1):
        for k in range(n_labels):
            share = beta[t, k]
            for label in range(n_labels):
                spread[k, label] += share * exponents[t + 1, label]
    for t in range(n - 1):
        gradient[t, labels[t]] -= weights[t + 1]
    gradient[n - 1, labels[n - 1]] -= weights[n - 1]
    return loss


@compiled()
def _log_likelihood(  # type: ignore[no-untyped-def]
    scores, labels, weights, transitions, gradient, pairs, beta
):  # fmt: skip
    """As ``_scaled_likelihood``, by logarithms; the gradient of T is added to ``pairs``."""
    n, n_labels = scores.shape
    log_backward(scores, transitions, np.array([0, n]), beta)
    first = scores[0] + beta[0]
    log_partition = _log_sum(first)
    loss = weights[0] * log_partition
    for k in range(n_labels):
        gradient[0, k] = weights[0] * np.exp(first[k] - log_partition)
    for t in range(n):
        loss -= weights[t] * scores[t, labels[t]]
        if t > 0:
            loss -= weights[t] * transitions[labels[t - 1], labels[t]]
        if t < n - 1:
            jump = weights[t] - weights[t + 1]
            loss -= jump * beta[t, labels[t]]
            gradient[t, labels[t]] -= jump
            gradient[t + 1] = 0.0
            for k in range(n_labels):
                if gradient[t, k] == 0.0 or beta[t, k] == -np.inf:
                    continue
                for label in range(n_labels):
                    moved = gradient[t, k] * np.exp(
                        transitions[k, label]
                        + scores[t + 1, label]
                        + beta[t + 1, label]
                        - beta[t, k]
                    )
                    gradient[t + 1, label] += moved
                    pairs[k, label] += moved
            gradient[t, labels[t]] += jump
    for t in range(n):
        gradient[t, labels[t]] -= weights[t]
    return loss


@compiled()
def _offence(  # type: ignore[no-untyped-def]
    scores, labels, weights, transitions, cost, gradient, pairs, best, origin, path
):  # fmt: skip
    """max_y' sum_t w_t (cost [y'_t != y_t] + s_t(y') - s_t(y)) with transitions, and gradient."""
    n, n_labels = scores.shape
    loss = 0.0
    for t in range(n):
        loss -= weights[t] * scores[t, labels[t]]
        if t > 0 and weights[t] > 0.0:
            loss -= weights[t] * transitions[labels[t - 1], labels[t]]
        for k in range(n_labels):
            gradient[t, k] = weights[t] * (scores[t, k] + (cost if k != labels[t] else 0.0))
    loss += best_path(gradient, transitions, weights, 0, n, best, origin, path)
    gradient[:] = 0.0
    for t in range(n):
        gradient[t, path[t]] += weights[t]
        gradient[t, labels[t]] -= weights[t]
        if t > 0:
            pairs[path[t - 1], path[t]] += weights[t]
            pairs[labels[t - 1], labels[t]] -= weights[t]
    return max(loss, 0.0)


@compiled()
def _score_rows(  # type: ignore[no-untyped-def]
    indptr, indices, data, pair_starts, pair_labels, theta, intercepts, start, stop, scores
):  # fmt: skip
    """Scores of the labels of rows start to stop, from the weights of pairs (feature, label)."""
    for t in range(start, stop):
        row = scores[t - start]
        row[:] = intercepts
        for place in range(indptr[t], indptr[t + 1]):
            feature, value = indices[place], data[place]
            for pair in range(pair_starts[feature], pair_starts[feature + 1]):
                row[pair_labels[pair]] += value * theta[pair]


@compiled()
def _collect_rows(  # type: ignore[no-untyped-def]
    indptr, indices, data, pair_starts, pair_labels, start, stop, gradient, total
):  # fmt: skip
    """Add the gradient of the weights of pairs that follows from that of the scores."""
    for t in range(start, stop):
        row = gradient[t - start]
        for place in range(indptr[t], indptr[t + 1]):
            feature, value = indices[place], data[place]
            for pair in range(pair_starts[feature], pair_starts[feature + 1]):
                total[pair] += value * row[pair_labels[pair]]


@compiled()
def loss_and_gradient(  # type: ignore[no-untyped-def]
    indptr, indices, data, pair_starts, pair_labels, starts, labels, weights, transitions, theta,
    chosen, kind, total,
):  # fmt: skip
    """Loss of the chosen sequences; its gradient is added to ``total``.

    ``theta`` and ``total`` hold the weights of pairs (feature, label), one intercept per label and
    the transitions, row by row. ``transitions`` are the same with -inf where they are forbidden.
    """
    n_pairs, n_labels = len(pair_labels), len(transitions)
    longest = 1
    for i in chosen:
        longest = max(longest, starts[i + 1] - starts[i])
    scores, gradient = np.empty((longest, n_labels)), np.empty((longest, n_labels))
    beta, exponents = np.empty((longest, n_labels)), np.empty((longest, n_labels))
    scale, origin = np.empty((longest, 2)), np.empty((longest, n_labels), np.int32)
    path = np.empty(longest, np.int64)
    spread, pairs = np.zeros((n_labels, n_labels)), np.zeros((n_labels, n_labels))
    intercepts = theta[n_pairs : n_pairs + n_labels]
    shift = transitions.max()
    factors = np.exp(transitions - shift)
    loss = 0.0
    for i in chosen:
        start, stop = starts[i], starts[i + 1]
        n = stop - start
        _score_rows(
            indptr, indices, data, pair_starts, pair_labels, theta, intercepts, start, stop, scores
        )
        own, own_weights = labels[start:stop], weights[start:stop]
        if kind == LIKELIHOOD:
            value = _scaled_likelihood(
                scores[:n], factors, shift, own, own_weights, transitions, gradient[:n], spread,
                beta, exponents, scale,
            )  # fmt: skip
            if np.isnan(value):
                value = _log_likelihood(
                    scores[:n], own, own_weights, transitions, gradient[:n], pairs, beta[:n]
                )
            for t in range(1, n):
                pairs[own[t - 1], own[t]] -= own_weights[t]
        else:
            value = _offence(
                scores[:n], own, own_weights, transitions, 1.0 if kind == HINGE else 0.0,
                gradient[:n], pairs, beta, origin, path,
            )  # fmt: skip
        loss += value
        _collect_rows(indptr, indices, data, pair_starts, pair_labels, start, stop, gradient, total)
        for t in range(n):
            for k in range(n_labels):
                total[n_pairs + k] += gradient[t, k]
    for k in range(n_labels):
        for label in range(n_labels):
            place = n_pairs + n_labels + k * n_labels + label
            if transitions[k, label] > -np.inf:
                total[place] += pairs[k, label] + spread[k, label] * factors[k, label]
    return loss


@compiled(fastmath=REORDER)
def proximal_step(  # type: ignore[no-untyped-def]
    theta, squares, gradient, mean, rate, adaptive, ridge, lasso, share, average
):  # fmt: skip
    """One step of proximal AdaGrad (plain descent if not ``adaptive``), and the running average.

    ``share`` of the penalty belongs to this step; ``average`` is the weight of the new iterate in
    ``mean``. The gradient is set to zero for the next step.
    """
    for j in range(len(theta)):
        slope = gradient[j]
        if adaptive:
            squares[j] += slope * slope
            step = rate / np.sqrt(squares[j]) if squares[j] > 0.0 else 0.0
        else:
            step = rate
        value = theta[j] - step * slope
        bound = step * share * lasso[j]
        if value > bound:
            value -= bound
        elif value < -bound:
            value += bound
        else:
            value = 0.0
        theta[j] = value / (1.0 + step * share * ridge[j])
        mean[j] += average * (theta[j] - mean[j])
        gradient[j] = 0.0
