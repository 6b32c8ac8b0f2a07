r"""Compiled sweeps over the labels of pixels: one image at a time, in the order of its pixels.

.. math:: -E(y \mid x) = \sum_i s_i(y_i) + \sum_{(i, j)} T_{ij}(y_i, y_j).

``scores`` holds s; T of pair e is ``pair[table[e]]``, from the label of its first pixel to that of
its second. ``incident[offsets[i]:offsets[i + 1]]`` are the pairs of pixel i. Images do not touch
each other: each stops by itself, so that its answer does not depend on the others.

This module imports numba, so it is imported where it is used.
"""

from __future__ import annotations

import numpy as np

from sklebm.inference._compiled import compiled

# Sums of products below this may have lost terms: they are done again by logarithms.
_FAINT = 1e-250


@compiled()
def _local(i, scores, pair, table, first, second, offsets, incident, labels, values):  # type: ignore[no-untyped-def]
    """Scores of the labels of pixel i, given those of its neighbours, written to ``values``."""
    n_labels = scores.shape[1]
    for k in range(n_labels):
        values[k] = scores[i, k]
    for place in range(offsets[i], offsets[i + 1]):
        e = incident[place]
        if first[e] == i:
            other = labels[second[e]]
            for k in range(n_labels):
                values[k] += pair[table[e], k, other]
        else:
            other = labels[first[e]]
            for k in range(n_labels):
                values[k] += pair[table[e], other, k]


@compiled()
def _to_probabilities(values):  # type: ignore[no-untyped-def]
    """exp(v) / sum exp(v), in place."""
    top, total = values.max(), 0.0
    for k in range(len(values)):
        values[k] = np.exp(values[k] - top)
        total += values[k]
    for k in range(len(values)):
        values[k] /= total


@compiled()
def settle(  # type: ignore[no-untyped-def]
    scores, pair, table, first, second, offsets, incident, starts, labels, max_sweeps
):  # fmt: skip
    """Iterated conditional modes, in place; the number of images that did not settle."""
    values, open_ = np.empty(scores.shape[1]), 0
    for image in range(len(starts) - 1):
        changed = True
        sweep = 0
        while changed and sweep < max_sweeps:
            changed = False
            for i in range(starts[image], starts[image + 1]):
                _local(i, scores, pair, table, first, second, offsets, incident, labels, values)
                best = np.argmax(values)
                if values[best] > values[labels[i]]:
                    labels[i] = best
                    changed = True
            sweep += 1
        open_ += changed
    return open_


@compiled()
def _uniform(state):  # type: ignore[no-untyped-def]
    """A number between 0 and 1 that is a function of the state alone (splitmix64)."""
    z = np.uint64(state) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@compiled()
def gibbs(  # type: ignore[no-untyped-def]
    scores, pair, table, first, second, offsets, incident, starts, labels, n_burn_in, n_sweeps, mean
):  # fmt: skip
    """Gibbs sweeps, in place; ``mean`` becomes that of p(y_i | neighbours) after the burn-in.

    The draws of a pixel depend on its place in its image and on the sweep only.
    """
    values, n_labels = np.empty(scores.shape[1]), scores.shape[1]
    for image in range(len(starts) - 1):
        state = 1
        for sweep in range(n_burn_in + n_sweeps):
            for i in range(starts[image], starts[image + 1]):
                _local(i, scores, pair, table, first, second, offsets, incident, labels, values)
                _to_probabilities(values)
                if sweep >= n_burn_in:
                    for k in range(n_labels):
                        mean[i, k] += values[k] / n_sweeps
                uniform, below, label = _uniform(state), 0.0, 0
                while label < n_labels - 1:
                    below += values[label]
                    if uniform < below:
                        break
                    label += 1
                labels[i] = label
                state += 1


@compiled()
def mean_field(  # type: ignore[no-untyped-def]
    scores, pair, table, first, second, offsets, incident, starts, q, tol, max_sweeps
):  # fmt: skip
    """Coordinate ascent of the mean-field bound, in place; the number of images left open."""
    n_labels, open_ = scores.shape[1], 0
    values = np.empty(n_labels)
    for image in range(len(starts) - 1):
        moved, sweep = np.inf, 0
        while moved > tol and sweep < max_sweeps:
            moved = 0.0
            for i in range(starts[image], starts[image + 1]):
                for k in range(n_labels):
                    values[k] = scores[i, k]
                for place in range(offsets[i], offsets[i + 1]):
                    e = incident[place]
                    t = pair[table[e]]
                    if first[e] == i:
                        j = second[e]
                        for k in range(n_labels):
                            for label in range(n_labels):
                                values[k] += t[k, label] * q[j, label]
                    else:
                        j = first[e]
                        for k in range(n_labels):
                            for label in range(n_labels):
                                values[k] += t[label, k] * q[j, label]
                _to_probabilities(values)
                for k in range(n_labels):
                    moved = max(moved, abs(values[k] - q[i, k]))
                    q[i, k] = values[k]
            sweep += 1
        open_ += moved > tol
    return open_


@compiled()
def _send(e, forwards, t, factors, share, messages, belief, damping, weights, sent):  # type: ignore[no-untyped-def]
    """The message from a pixel along pair e, in place; how far it moved.

    ``belief``: scores of the pixel with all messages to it. Messages are logarithms of
    probabilities. ``factors``: exp(T / share), the largest of which is 1.
    """
    n_labels = len(belief)
    back = messages[e, 0] if forwards else messages[e, 1]
    target = messages[e, 1] if forwards else messages[e, 0]
    top = -np.inf
    for k in range(n_labels):
        weights[k] = belief[k] - back[k]
        top = max(top, weights[k])
    for k in range(n_labels):
        weights[k] = np.exp(weights[k] - top)
    total, faint = 0.0, False
    for label in range(n_labels):
        value = 0.0
        for k in range(n_labels):
            value += weights[k] * (factors[k, label] if forwards else factors[label, k])
        sent[label] = value
        total += value
        faint = faint or value < _FAINT
    if faint:  # again, by logarithms
        for label in range(n_labels):
            highest, value = -np.inf, 0.0
            for k in range(n_labels):
                step = belief[k] - back[k] + (t[k, label] if forwards else t[label, k]) / share
                highest = max(highest, step)
            for k in range(n_labels):
                step = belief[k] - back[k] + (t[k, label] if forwards else t[label, k]) / share
                value += np.exp(step - highest)
            sent[label] = highest + np.log(value)
        top, total = sent.max(), 0.0
        for label in range(n_labels):
            total += np.exp(sent[label] - top)
        level = top + np.log(total)
        for label in range(n_labels):
            sent[label] -= level
    else:
        for label in range(n_labels):
            sent[label] = np.log(sent[label] / total)
    moved = 0.0
    for label in range(n_labels):
        # Faint labels do not count: what moves is probability.
        moved = max(moved, abs(np.exp(sent[label]) - np.exp(target[label])))
        target[label] = damping * target[label] + (1.0 - damping) * sent[label]
    return moved


@compiled()
def propagate(  # type: ignore[no-untyped-def]
    scores, pair, table, first, second, offsets, incident, starts, factors, shares, messages, tol,
    n_free, max_sweeps
):  # fmt: skip
    """Sum-product belief propagation, in place; the number of images left open.

    ``messages[e, 1]`` goes to the second pixel of pair e, ``messages[e, 0]`` to the first.
    ``shares`` of 1 are plain messages, smaller ones those of reweighted trees; ``factors[e]`` is
    exp(T / share), the largest of which is 1. A sweep sends forwards from every pixel to later
    ones, then backwards. After ``n_free`` sweeps messages move half of the way only, which calms
    oscillations.
    """
    n_labels, open_ = scores.shape[1], 0
    belief, weights, sent = np.empty(n_labels), np.empty(n_labels), np.empty(n_labels)
    for image in range(len(starts) - 1):
        start, stop = starts[image], starts[image + 1]
        moved, sweep = np.inf, 0
        while moved > tol and sweep < max_sweeps:
            moved = 0.0
            damping = 0.0 if sweep < n_free else 0.5
            for step in range(2 * (stop - start)):
                forwards = step < stop - start
                i = start + step if forwards else 2 * stop - start - 1 - step
                for k in range(n_labels):
                    belief[k] = scores[i, k]
                for place in range(offsets[i], offsets[i + 1]):
                    e = incident[place]
                    to_i = messages[e, 0] if first[e] == i else messages[e, 1]
                    for k in range(n_labels):
                        belief[k] += shares[e] * to_i[k]
                for place in range(offsets[i], offsets[i + 1]):
                    e = incident[place]
                    if (first[e] == i) == forwards:
                        change = _send(
                            e, forwards, pair[table[e]], factors[e], shares[e], messages, belief,
                            damping, weights, sent,
                        )  # fmt: skip
                        moved = max(moved, change)
            sweep += 1
        open_ += moved > tol
    return open_
