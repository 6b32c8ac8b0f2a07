r"""Inference on grids of labels: partition sums, marginals, labels of low energy.

.. math:: -E(y \mid x) = \sum_i s_i(y_i) + \sum_{(i, j)} T_{ij}(y_i, y_j), \qquad
          \log Z(x) = \log \sum_y e^{-E(y \mid x)}.

Each function answers pixel by pixel, in the order of the places of a ``Grid``; what it says of
log Z or of an energy adds up over the pixels of an image.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from sklebm.inference.grid_graph import Floats, Grid, Integers, some_images, tree_shares
from sklebm.inference.linear_chain import log_sum_exp

_SETTLED = 1e-6  # probability that still moves
MOST_SWEEPS, _FREE_SWEEPS = 500, 50
_MOST_NUMBERS = 2**25  # numbers that exact sums keep for an image
_QUICK_NUMBERS = 2**14  # with which they take no longer than messages
_CAPACITY = 2**29  # largest capacity: sums of two fit into the integers of the maximum flow


class GridScores(NamedTuple):
    """Scores of labels (n, K), tables T (n_tables, K, K), the table of each pair, and the grid."""

    scores: Floats
    pair: Floats
    table: Integers
    grid: Grid

    def arrays(self) -> tuple[Any, ...]:
        """What the compiled sweeps take."""
        grid = self.grid
        return (
            self.scores, self.pair, self.table, grid.first, grid.second, grid.offsets,
            grid.incident, grid.starts,
        )  # fmt: skip


class Marginals(NamedTuple):
    """log p(y_i = k | x) (n, K), what each pixel adds to log Z (n,), images that did not settle."""

    log_p: Floats
    log_z: Floats
    n_open: int


# ---------------------------------------------------------------------- given labels


def conditional_scores(given: GridScores, labels: Integers) -> Floats:
    """s_i(k) + sum_j T_ij(k, y_j) of each label k, (n, K), with the neighbours' labels given."""
    grid, found = given.grid, given.scores.copy()
    np.add.at(found, grid.first, given.pair[given.table, :, labels[grid.second]])
    np.add.at(found, grid.second, given.pair[given.table, labels[grid.first], :])
    return found


def log_conditionals(given: GridScores, labels: Integers) -> Floats:
    """log p(y_i = k | labels of the neighbours, x), (n, K)."""
    found = conditional_scores(given, labels)
    return found - log_sum_exp(found)[:, None]


def label_energies(given: GridScores, labels: Integers) -> Floats:
    """-s_i(y_i) - sum_j T_ij(y_i, y_j) / 2, (n,): adds up to the energy of the labels."""
    grid = given.grid
    energies: Floats = -given.scores[np.arange(len(labels)), labels].astype(np.float64)
    of_pair = -0.5 * given.pair[given.table, labels[grid.first], labels[grid.second]]
    total: Floats = energies + _to_both_ends(grid, of_pair)
    return total


def _to_both_ends(grid: Grid, values: Floats) -> Floats:
    """Sum of the values of the pairs of each pixel, (n,)."""
    n = len(grid.order)
    found: Floats = np.zeros(n)
    for ends in (grid.first, grid.second):
        found += np.bincount(ends, values, n)
    return found


# ---------------------------------------------------------------------- labels of low energy


def conditional_modes(given: GridScores) -> Integers:
    """Labels that no change of a single pixel improves, (n,): from the best label of each alone."""
    from sklebm.inference._grid_kernels import settle

    labels: Integers = np.empty(len(given.scores), np.int64)
    labels[:] = np.argmax(given.scores, axis=1)
    settle(*given.arrays(), labels, MOST_SWEEPS)
    return labels


def minimum_cut(given: GridScores) -> Integers:
    """The labels 0 and 1 of lowest energy, (n,), by a maximum flow for each image.

    Capacities are rounded to 2^-29 of the largest of the image.

    Raises
    ------
    ValueError
        If there are more labels than two, or a pair prefers that its labels differ.
    """
    if given.scores.shape[1] == 1:
        return np.zeros(len(given.scores), np.int64)
    if given.scores.shape[1] != 2:
        raise ValueError(
            f'inference="cut" is for two labels, and there are {given.scores.shape[1]}: choose '
            '"belief_propagation".'
        )
    grid, t = given.grid, given.pair[given.table]
    link = t[:, 0, 0] + t[:, 1, 1] - t[:, 0, 1] - t[:, 1, 0]
    size = np.abs(t).sum(axis=(1, 2))
    if (link < -1e-12 * size).any():
        raise ValueError(
            f"{int((link < -1e-12 * size).sum())} of {len(link)} pairs of pixels prefer different "
            "labels, for which no cut gives the lowest energy: fit with a positive number as "
            'interaction, or choose inference="belief_propagation".'
        )
    link = np.maximum(link, 0.0)
    n = len(grid.order)
    cost = given.scores[:, 0] - given.scores[:, 1]  # of label 1, more than of label 0
    cost = cost + np.bincount(grid.first, t[:, 0, 0] - t[:, 1, 0], n)
    cost = cost + np.bincount(grid.second, t[:, 1, 0] - t[:, 1, 1], n)
    bound = 1.0 + 2.0 * _to_both_ends(grid, link)  # a pixel that costs more decides for itself
    cost = np.clip(cost, -bound, bound)
    labels = np.empty(n, np.int64)
    edges = np.searchsorted(grid.first, grid.starts)
    for (start, stop), (low, high) in zip(pairwise(grid.starts), pairwise(edges), strict=True):
        part = slice(low, high)
        ends = grid.first[part] - start, grid.second[part] - start
        labels[start:stop] = _cut(cost[start:stop], *ends, link[part])
    return labels


def _cut(cost: Floats, first: Integers, second: Integers, link: Floats) -> Integers:
    """Labels of one image that minimise sum cost y + sum link (1 - y_first) y_second."""
    n = len(cost)
    source, sink = n, n + 1
    pixel = np.arange(n)
    largest = max(link.max(initial=0.0), np.abs(cost).max())
    scale = _CAPACITY / largest if largest else 0.0  # without a preference every labelling is best
    tails = np.concatenate([first, np.where(cost > 0, source, pixel)])
    heads = np.concatenate([second, np.where(cost > 0, pixel, sink)])
    capacity = np.round(scale * np.concatenate([link, np.abs(cost)])).astype(np.int32)
    ends = tails.astype(np.int32), heads.astype(np.int32)  # all that SciPy 1.14 takes
    graph = scipy.sparse.csr_array((capacity, ends), shape=(n + 2, n + 2))
    rest = graph - maximum_flow(graph, source, sink).flow
    rest.eliminate_zeros()
    reached = breadth_first_order(rest, source, return_predecessors=False)
    labels = np.ones(n + 2, np.int64)
    labels[reached] = 0
    return labels[:n]


# ---------------------------------------------------------------------- sums over labels


def gibbs_marginals(given: GridScores, n_sweeps: int) -> Floats:
    """log of the mean of p(y_i | neighbours) over Gibbs sweeps, (n, K), after half as many more."""
    from sklebm.inference._grid_kernels import gibbs

    labels = np.argmax(given.scores, axis=1)
    mean = np.zeros_like(given.scores)
    gibbs(*given.arrays(), labels, -(-n_sweeps // 2), n_sweeps, mean)
    with np.errstate(divide="ignore"):  # of labels that underflow
        log_mean: Floats = np.log(mean)
    return log_mean - log_sum_exp(log_mean)[:, None]


def mean_field(given: GridScores) -> tuple[Floats, int]:
    """The product of distributions of single pixels with the largest lower bound of log Z.

    Coordinate ascent from the distributions without neighbours: a local maximum. Returns log p
    (n, K) and the number of images that did not settle.
    """
    from sklebm.inference._grid_kernels import mean_field as ascend

    grid = given.grid
    q = np.exp(given.scores - log_sum_exp(given.scores)[:, None])
    n_open = ascend(*given.arrays(), q, _SETTLED / 1000, MOST_SWEEPS)
    # From the scores again, which keep the digits of labels whose probability underflows.
    found, t = given.scores.copy(), given.pair[given.table]
    np.add.at(found, grid.first, np.einsum("ekl,el->ek", t, q[grid.second]))
    np.add.at(found, grid.second, np.einsum("ekl,ek->el", t, q[grid.first]))
    return found - log_sum_exp(found)[:, None], int(n_open)


def belief_propagation(given: GridScores) -> Marginals:
    """Sum-product messages until they settle: exact where pairs form no loop.

    log Z is Bethe's approximation at the messages found,
    sum_i log Z_i + sum_(i, j) (log Z_ij - log Z_i - log Z_j), half of a pair for each of its ends.
    """
    return pair_beliefs(given, np.ones(len(given.grid.first)))[0]


def reweighted_trees(given: GridScores) -> Marginals:
    """Messages with a single fixed point, whose log Z is an upper bound: exact without loops."""
    return pair_beliefs(given, tree_shares(given.grid))[0]


def pair_beliefs(
    given: GridScores,
    shares: Floats,
    tol: float = _SETTLED,
    max_sweeps: int = MOST_SWEEPS,
    messages: Floats | None = None,
) -> tuple[Marginals, Floats]:
    """What messages say, and log p of the labels of each pair, (n_pairs, K, K).

    With ``tree_shares`` r, log Z is the least average of those of trees whose T add up to the
    given ones, sum_i log Z_i + sum_(i, j) r_ij (log Z_ij - log Z_i - log Z_j), which is convex in
    all scores [1]_. ``messages`` (n_pairs, 2, K) are where to start, and change.

    .. [1] M. Wainwright, T. Jaakkola and A. Willsky, "A new class of upper bounds on the log
       partition function", IEEE Transactions on Information Theory 51, 2005.
    """
    from sklebm.inference._grid_kernels import propagate

    grid, (_, n_labels) = given.grid, given.scores.shape
    if messages is None:
        messages = np.full((len(grid.first), 2, n_labels), -np.log(n_labels))
    of_pair = given.pair[given.table] / shares[:, None, None]
    factors = np.exp(of_pair - of_pair.max(axis=(1, 2), keepdims=True))
    n_open = propagate(*given.arrays(), factors, shares, messages, tol, _FREE_SWEEPS, max_sweeps)
    belief = given.scores.copy()
    np.add.at(belief, grid.first, shares[:, None] * messages[:, 0])
    np.add.at(belief, grid.second, shares[:, None] * messages[:, 1])
    log_zi = log_sum_exp(belief)
    left = belief[grid.first] - messages[:, 0]
    right = belief[grid.second] - messages[:, 1]
    joint = left[:, :, None] + of_pair + right[:, None, :]
    log_zij = log_sum_exp(joint.reshape(len(joint), -1)) if len(joint) else np.empty(0)
    excess = shares * (log_zij - log_zi[grid.first] - log_zi[grid.second])
    log_z = log_zi + _to_both_ends(grid, 0.5 * excess)
    found = Marginals(belief - log_zi[:, None], log_z, int(n_open))
    return found, joint - log_zij[:, None, None]


def log_partition_terms(given: GridScores) -> Marginals:
    """An upper bound of log Z: exact without loops, and where images are small enough for sums."""
    found, large = _sums(given, _QUICK_NUMBERS)
    n_open = 0
    if large:
        chosen = np.zeros(len(given.grid.starts) - 1, np.bool_)
        chosen[[image for image, *_ in large]] = True
        grid, places, pairs = some_images(given.grid, chosen)
        bounds = reweighted_trees(
            GridScores(given.scores[places], given.pair, given.table[pairs], grid)
        )
        found.log_p[places], found.log_z[places], n_open = bounds
    return Marginals(found.log_p, found.log_z, n_open)


def exact(given: GridScores) -> Marginals:
    """Marginals and log Z by elimination of one pixel after the other, for narrow images.

    What a pixel adds to log Z is log Z of the pixels up to it minus that of those before. Time and
    memory are O(n K^(w + 2)) for images w pixels high or wide.

    Raises
    ------
    ValueError
        If an image needs more than 2^25 numbers.
    """
    found, large = _sums(given, _MOST_NUMBERS)
    if large:
        (_, width, n_pixels), n_labels = large[0], given.scores.shape[1]
        raise ValueError(
            f'inference="exact" sums over the labels of {width} pixels at a time, and '
            f"{n_pixels} pixels with {n_labels}^{width} sums each are more than "
            f'{_MOST_NUMBERS} numbers: choose "belief_propagation".'
        )
    return found


def _sums(given: GridScores, limit: int) -> tuple[Marginals, list[tuple[int, int, int]]]:
    """Exact answers for images that need at most ``limit`` numbers, and the others.

    Of each of those: its number, the pixels that sums go over at a time, and its joined pixels,
    whose answers are those of pixels alone.
    """
    log_z = log_sum_exp(given.scores)
    found, large = Marginals(given.scores - log_z[:, None], log_z, 0), []
    grid, (_, n_labels) = given.grid, given.scores.shape
    edges = np.searchsorted(grid.first, grid.starts)
    for image, (low, high) in enumerate(pairwise(edges)):
        if high == low:
            continue
        joined = np.unique(np.r_[grid.first[low:high], grid.second[low:high]])
        ends = np.searchsorted(joined, np.stack([grid.first[low:high], grid.second[low:high]]))
        row, column = grid.coordinates[joined].T
        orders = [np.arange(len(joined)), np.lexsort((row, column))]
        width, order = min(((_frontier(ends, o), o) for o in orders), key=lambda pair: pair[0])
        if len(joined) * float(n_labels) ** width > limit:
            large.append((image, width, len(joined)))
            continue
        answer = _eliminated(given, joined[order], np.argsort(order)[ends], slice(low, high))
        found.log_p[joined[order]], found.log_z[joined[order]] = answer
    return found, large


def _eliminated(
    given: GridScores, places: Integers, ends: Integers, part: slice
) -> tuple[Floats, Floats]:
    """Log marginals and terms of log Z of the joined pixels of one image, in this order."""
    with torch.enable_grad():
        scores = torch.from_numpy(given.scores[places]).requires_grad_()
        tables = torch.from_numpy(given.pair[given.table[part]])
        totals = _partition_terms(scores, tables, *ends)
        (marginals,) = torch.autograd.grad(totals[-1], scores)
    terms = torch.stack(totals).detach().diff(prepend=scores.new_zeros(1)).numpy()
    with np.errstate(divide="ignore"):
        return np.log(marginals.numpy()), terms


def _frontier(ends: Integers, order: Integers) -> int:
    """Largest number of pixels whose labels are summed over at a time in this order."""
    first, second = np.sort(np.argsort(order)[ends], axis=0)
    last = np.arange(len(order))  # until when each pixel is needed
    np.maximum.at(last, first, second)
    size = np.zeros(len(order) + 1, np.int64)
    np.add.at(size, np.arange(len(order)), 1)
    np.add.at(size, last + 1, -1)
    return int(np.cumsum(size).max())


def _partition_terms(
    scores: torch.Tensor, tables: torch.Tensor, first: Integers, second: Integers
) -> list[torch.Tensor]:
    """log Z of the first pixel, of the first two, and so on."""
    n, n_labels = scores.shape
    last = np.arange(n)
    np.maximum.at(last, np.minimum(first, second), np.maximum(first, second))
    earlier: list[list[int]] = [[] for _ in range(n)]
    for e, later in enumerate(np.maximum(first, second)):
        earlier[later].append(e)
    alive: list[int] = []
    state = scores.new_zeros(())
    totals = []
    for i in range(n):
        state = state[..., None] + scores[i]
        alive.append(i)
        for e in earlier[i]:
            other = int(min(first[e], second[e]))
            table = tables[e] if first[e] == other else tables[e].T
            shape = [n_labels if pixel in (other, i) else 1 for pixel in alive]
            state = state + table.reshape(shape)
        totals.append(torch.logsumexp(state.flatten(), dim=0))
        for axis in reversed(range(len(alive))):
            if last[alive[axis]] == i:
                state = torch.logsumexp(state, dim=axis)
                del alive[axis]
    return totals
