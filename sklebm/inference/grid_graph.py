"""Pixels on grids: which are neighbours, in which direction, and what a pair of them looks like.

Pixels are sorted by image, row and column; their *places* in this order are what all arrays here
and in ``sklebm.inference.grid_labels`` refer to. The first pixel of a pair is the earlier one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import minimum_spanning_tree

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Rows and columns from the first pixel of a pair to the second, for 4 and for 8 neighbours.
DIRECTIONS = {4: ((0, 1), (1, 0)), 8: ((0, 1), (1, 0), (1, 1), (1, -1))}


_N_TREES = 12


@dataclass(frozen=True)
class Grid:
    """Pixels of images and their pairs of neighbours.

    Parameters
    ----------
    order : ndarray of shape (n_pixels,)
        Row of X at each place.
    starts : ndarray of shape (n_images + 1,)
        First place of each image, and the number of pixels.
    coordinates : ndarray of shape (n_pixels, 2)
        Row and column of each place; differences up to 1 are those of the positions.
    first, second : ndarray of shape (n_pairs,)
        Places of the two pixels of each pair, sorted by ``first``.
    direction : ndarray of shape (n_pairs,)
        Place of the direction in ``DIRECTIONS``.
    offsets : ndarray of shape (n_pixels + 1,)
        Where the pairs of each pixel begin in ``incident``.
    incident : ndarray of shape (2 * n_pairs,)
        Pairs of each pixel, those with earlier pixels first.
    """

    order: Integers
    starts: Integers
    coordinates: Integers
    first: Integers
    second: Integers
    direction: Integers
    offsets: Integers
    incident: Integers


def make_grid(positions: Any, groups: Any, n_pixels: int, n_neighbours: int) -> Grid:
    """The grid of pixels at given positions in given images. O(n log n).

    Parameters
    ----------
    positions : ndarray of int of shape (n_pixels, 2) or None
        Row and column; None: no pixel has neighbours.
    groups : ndarray of int of shape (n_pixels,) or None
        Image of each pixel, from 0; None: all are of one image.
    n_pixels : int
        Number of pixels.
    n_neighbours : {4, 8}
        Neighbours of a pixel inside an image.

    Raises
    ------
    ValueError
        If two pixels of an image have the same position, or positions are too far apart to number.
    """
    image = np.zeros(n_pixels, np.int64) if groups is None else np.asarray(groups, np.int64)
    if positions is None:
        order = np.argsort(image, kind="stable")
        pairs = np.empty((3, 0), np.int64)
        return _grid(order, image[order], np.zeros((n_pixels, 2), np.int64), pairs)
    row, column = (_compressed(axis) for axis in np.asarray(positions, np.int64).T)
    height, width = int(row.max()) + 2, int(column.max()) + 3
    if (int(image.max()) + 1) * height * width >= 2**62:
        raise ValueError(
            f"positions of {n_pixels} pixels are scattered over {height} x {width} places: pass "
            "rows and columns of images, whose pixels lie side by side."
        )
    key = (image * height + row) * width + column + 1
    order = np.argsort(key, kind="stable")
    key = key[order]
    twice = np.flatnonzero(key[1:] == key[:-1])
    if len(twice):
        one, other = order[twice[0] : twice[0] + 2]
        raise ValueError(
            f"Rows {one} and {other} of X are the same pixel: positions {positions[one].tolist()} "
            "of one image. Name the image of each row in groups."
        )
    found = []
    for number, (down, right) in enumerate(DIRECTIONS[n_neighbours]):
        wanted = key + down * width + right
        place = np.minimum(np.searchsorted(key, wanted), n_pixels - 1)
        # The empty columns at both sides keep the end of a line from the start of the next.
        there = np.flatnonzero(key[place] == wanted)
        found.append(np.stack([there, place[there], np.full(len(there), number)]))
    pairs = np.concatenate(found, axis=1)
    pairs = pairs[:, np.argsort(pairs[0], kind="stable")]
    return _grid(order, image[order], np.stack([row, column], axis=1)[order], pairs)


def _compressed(axis: Integers) -> Integers:
    """Coordinates from 0 on in which gaps count as one empty line."""
    values, inverse = np.unique(axis, return_inverse=True)
    # Differences of far coordinates would overflow as integers of 64 bits.
    gaps = np.minimum(np.diff(values.astype(np.float64)), 2.0).astype(np.int64)
    compressed: Integers = np.concatenate([[0], np.cumsum(gaps)])[inverse]
    return compressed


def _grid(order: Integers, image: Integers, coordinates: Integers, pairs: Integers) -> Grid:
    n_pixels = len(order)
    first, second, direction = pairs
    starts = np.concatenate([[0], np.flatnonzero(np.diff(image)) + 1, [n_pixels]])
    ends = np.concatenate([second, first])  # as its second pixel: pairs with earlier ones first
    incident = np.argsort(ends, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=n_pixels))])
    n_pairs = max(len(first), 1)
    return Grid(
        order, starts.astype(np.int64), coordinates, first, second, direction,
        offsets.astype(np.int64), incident % n_pairs,
    )  # fmt: skip


def some_images(grid: Grid, chosen: NDArray[np.bool_]) -> tuple[Grid, Integers, Integers]:
    """The grid of the chosen images, and their places and pairs in the whole grid."""
    image = np.repeat(np.arange(len(chosen)), np.diff(grid.starts))
    places = np.flatnonzero(chosen[image])
    kept = np.flatnonzero(chosen[image[grid.first]])
    ends = np.searchsorted(places, np.stack([grid.first[kept], grid.second[kept]]))
    pairs = np.concatenate([ends, grid.direction[None, kept]])
    found = _grid(grid.order[places], image[places], grid.coordinates[places], pairs)
    return found, places, kept


def tree_shares(grid: Grid) -> Floats:
    """Share of some spanning trees of each image that contain a pair, above 0, (n_pairs,).

    A pair without which an image falls apart is in all of them. Each tree prefers the pairs that
    earlier ones left out.
    """
    n, n_pairs = len(grid.order), len(grid.first)
    counts = np.zeros(n_pairs)
    ends = grid.first.astype(np.int32), grid.second.astype(np.int32)  # all that SciPy 1.14 takes
    n_trees = 0
    # Few pairs of a grid are in fewer than a quarter of the trees: in most, all are in by then.
    while n_trees < _N_TREES or (counts == 0).any():
        costs = 1.0 + counts  # those of zero would be no pair
        graph = scipy.sparse.csr_array((costs, ends), shape=(n, n))
        tree = minimum_spanning_tree(graph).tocoo()
        keys = grid.first * n + grid.second
        order = np.argsort(keys)
        found = order[np.searchsorted(keys, tree.row.astype(np.int64) * n + tree.col, sorter=order)]
        counts[found] += 1.0
        n_trees += 1
    return counts / n_trees


def squared_differences(x: Any, grid: Grid, scale: Floats) -> Floats:
    """sum_f ((x_if - x_jf) / scale_f)^2 of each pair (i, j), (n_pairs,); x sorted by place."""
    found = np.empty(len(grid.first))
    step = max(1, 2**22 // x.shape[1])
    for start in range(0, len(found), step):
        part = slice(start, start + step)
        difference = x[grid.first[part]].astype(np.float64) - x[grid.second[part]]
        if scipy.sparse.issparse(difference):
            difference = difference.multiply(1.0 / scale).tocsr()
            found[part] = np.asarray(difference.multiply(difference).sum(axis=1)).ravel()
        else:
            found[part] = np.square(difference / scale).sum(axis=1)
    return found


def contrast_scale(x: Any, grid: Grid) -> Floats:
    """Units in which the mean squared difference of neighbours is 1, in features of equal spread.

    Features count in units of the root mean squared difference of neighbours; those that never
    differ do not count.
    """
    n_pairs, n_features = len(grid.first), x.shape[1]
    total = np.zeros(n_features)
    step = max(1, 2**22 // n_features)
    for start in range(0, n_pairs, step):
        part = slice(start, start + step)
        difference = x[grid.first[part]].astype(np.float64) - x[grid.second[part]]
        if scipy.sparse.issparse(difference):
            total += np.asarray(difference.multiply(difference).sum(axis=0)).ravel()
        else:
            total += np.square(difference).sum(axis=0)
    spread = np.sqrt(total / max(n_pairs, 1))
    largest = abs(x).max(axis=0)
    largest = largest.toarray().ravel() if scipy.sparse.issparse(x) else largest
    moves = spread > 8 * np.finfo(x.dtype).eps * largest.astype(np.float64)
    n_moving = max(int(moves.sum()), 1)
    # A feature that never differs between neighbours stays without effect if it does later.
    return np.where(moves, spread * np.sqrt(n_moving), np.finfo(np.float64).max ** 0.25)
