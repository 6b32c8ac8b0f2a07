r"""Minimise sum_i w_i min_k \|x_i - c_k\|^2 over the centres: Lloyd steps and online steps.

Weights and repetition are equivalent everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sklebm._shell.ranks import ALONE, Ranks
from sklebm.energies import PrototypeEnergy

Slices = Sequence[slice]

_ONLINE_ROWS = 4096  # copied at a time


class RowSource(Protocol):
    """Rows in a tensor, or rows that are read from disk part by part."""

    @property
    def shape(self) -> Any:
        """Number of rows and of features."""

    @property
    def device(self) -> torch.device:
        """Device of the rows."""

    @property
    def dtype(self) -> torch.dtype:
        """Single or double precision."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Tensor:
        """Rows at a slice or an integer tensor."""


def lloyd_step(
    x: RowSource,
    weights: Tensor,
    centers: Tensor,
    parts: Slices,
    ranks: Ranks = ALONE,
    known: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Assign every row, then move every centre to the weighted mean of its rows. O(n d k).

    Returns the labels under ``centers``, which may be ``known``, the new centres and the clusters'
    weights. A cluster without rows moves onto the row that is farthest from its centre. The means
    are those of the rows of all ranks.
    """
    # Single-precision sums of rows that lie far from zero would lose their differences.
    origin = centers.mean(dim=0)
    labels, sums, counts = assign_and_add(x, weights, centers, origin, parts, known)
    sums, counts = ranks.sum(sums), ranks.sum(counts)
    means = sums / counts.clamp(min=torch.finfo(torch.float64).tiny)[:, None]
    new = (means + origin).to(centers.dtype)
    empty = (counts <= 0).nonzero().flatten()
    if len(empty):
        new, _ = relocate(x, weights, new, empty, parts, ranks)
    return labels, new, counts


def assign_and_add(
    x: RowSource,
    weights: Tensor,
    centers: Tensor,
    origin: Tensor,
    parts: Slices,
    known: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Labels of the rows, their weighted sums around ``origin``, and the weights, by centre."""
    energy = PrototypeEnergy(centers)
    labels = torch.empty(len(x), dtype=torch.int64, device=x.device)
    sums = torch.zeros(centers.shape, dtype=torch.float64, device=x.device)
    counts = torch.zeros(len(centers), dtype=torch.float64, device=x.device)
    for part in parts:
        chunk = x[part]
        label = energy.assign(chunk) if known is None else known[part]
        labels[part] = label
        counts.index_add_(0, label, weights[part])
        sums += _grouped_sums(chunk - origin, label, weights[part], len(centers))
    return labels, sums, counts


class Fit(NamedTuple):
    """Rows under given centres: labels, weight of each cluster, and two sums of squares."""

    labels: Tensor
    counts: Tensor
    inertia: float
    leave_one_out: float


class Search(Protocol):
    """Lloyd's algorithm on rows that it holds."""

    @property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Weighted mean and variance of each feature, double precision."""

    def step(self, centers: Tensor) -> tuple[Tensor, Tensor]:
        """Labels under ``centers``, and the centres that they lead to."""

    def measure(self, centers: Tensor, copies: Tensor) -> Fit:
        """Evaluate the rows under these centres; ``copies`` are weights for leaving one out."""


class Lloyd:
    """Lloyd's algorithm with all distances of every step, on any device. O(n d k) a step.

    The rows may be one rank's of several. ``assign`` is a faster way to label them, if there is
    one.
    """

    def __init__(
        self,
        x: RowSource,
        weights: Tensor,
        parts: Slices,
        ranks: Ranks = ALONE,
        assign: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._x, self._weights, self._parts = x, weights, parts
        self._ranks, self._assign = ranks, assign

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Weighted mean and variance of each feature, double precision."""
        return column_moments(self._x, self._weights, self._parts, self._ranks)

    def step(self, centers: Tensor) -> tuple[Tensor, Tensor]:
        """Labels under ``centers``, and the centres that they lead to."""
        known = None if self._assign is None else self._assign(centers)
        labels, moved, _ = lloyd_step(
            self._x, self._weights, centers, self._parts, self._ranks, known
        )
        return labels, moved

    def measure(self, centers: Tensor, copies: Tensor) -> Fit:
        """Evaluate the rows under these centres; labels are those of the energy in float64."""
        x, parts = self._x, self._parts
        energy = PrototypeEnergy(centers.double())
        labels = torch.cat([energy.assign(x[part].double()) for part in parts])
        counts = torch.zeros(len(centers), dtype=torch.float64, device=x.device)
        counts.index_add_(0, labels, self._weights)
        return Fit(
            labels,
            self._ranks.sum(counts),
            self._ranks.total(inertia(x, self._weights, labels, centers, parts)),
            leave_one_out_inertia(x, copies, labels, centers, parts, ranks=self._ranks),
        )


def lloyd_steps(
    search: Search, centers: Tensor, tol: float, ranks: Ranks = ALONE
) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """Lloyd's algorithm from ``centers``: yields labels, the centres they led to, and "settled".

    It has settled when the squared shift of all centres falls to ``tol`` times the mean variance of
    the features, or when no label changes.
    """
    limit = tol * float(search.moments[1].mean())
    previous: Tensor | None = None
    while True:
        labels, moved = search.step(centers)
        shift = float((moved - centers).double().square().sum())
        same = previous is not None and not ranks.any(not torch.equal(labels, previous))
        yield labels, moved, shift <= limit or same
        centers, previous = moved, labels


def column_moments(
    x: RowSource, weights: Tensor, parts: Slices, ranks: Ranks = ALONE
) -> tuple[Tensor, Tensor]:
    """Weighted mean and variance of each feature, double precision."""
    total = ranks.sum(weights.sum())
    zero = weights.new_zeros(x.shape[1])
    mean = ranks.sum(sum((weights[part] @ x[part].double() for part in parts), zero)) / total
    squares = sum((weights[part] @ (x[part].double() - mean).square() for part in parts), zero)
    return mean, ranks.sum(squares) / total


def _grouped_sums(x: Tensor, labels: Tensor, weights: Tensor, n_groups: int) -> Tensor:
    """Weighted sums of the rows of each group, float64."""
    weighted = x * weights[:, None].to(x.dtype)
    if x.device.type == "cpu":
        return torch.zeros(n_groups, x.shape[1], dtype=x.dtype).index_add_(0, labels, weighted)
    # index_add_ adds in no fixed order on a GPU; a product with the one-hot codes does.
    codes = torch.nn.functional.one_hot(labels, n_groups).to(x.dtype)
    return (codes.T @ weighted).double()


def relocate(
    x: RowSource,
    weights: Tensor,
    centers: Tensor,
    empty: Tensor,
    parts: Slices,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, float]:
    """Move each empty centre onto the row farthest from all centres; the inertia never rises.

    Returns the centres, and the squared distance that the last of these rows had.
    """
    centers = centers.clone()
    occupied = torch.ones(len(centers), dtype=torch.bool, device=x.device)
    occupied[empty] = False
    energy = PrototypeEnergy(centers[occupied])
    distance = torch.cat([energy.free_energy(x[part]) for part in parts])
    distance = torch.where(weights > 0, distance, -1.0)
    last = 0.0
    for index in empty.tolist():
        row, last = _farthest(x, distance, ranks)
        centers[index] = row
        for part in parts:
            distance[part] = torch.minimum(distance[part], (x[part] - row).square().sum(dim=1))
    return centers, last


def _farthest(x: RowSource, distance: Tensor, ranks: Ranks) -> tuple[Tensor, float]:
    """The row of largest distance among those of all ranks, and this distance."""
    place = distance.argmax(keepdim=True)
    reaches = ranks.concat(distance[place])
    return ranks.take(x[place], reaches.argmax(keepdim=True))[0], float(reaches.max())


def inertia(x: RowSource, weights: Tensor, labels: Tensor, centers: Tensor, parts: Slices) -> float:
    """Weighted sum of squared distances to the own centre, without cancellation, in float64."""
    centers = centers.double()
    total = sum(
        (weights[part] * (x[part].double() - centers[labels[part]]).square().sum(dim=1)).sum()
        for part in parts
    )
    return float(total)


def leave_one_out_inertia(
    x: RowSource,
    weights: Tensor,
    labels: Tensor,
    centers: Tensor,
    parts: Slices,
    *,
    others: Tensor | None = None,
    ranks: Ranks = ALONE,
) -> float:
    r"""Inertia if no row had a part in its own centre.

    Without the row, the mean of its cluster of weight m lies m / (m - 1) times as far away, and
    the closest of the other centres may be closer still:

        sum_i w_i min((m / (m - 1))^2 \|x_i - c_{z_i}\|^2, min_{k != z_i} \|x_i - c_k\|^2).

    In closed form, O(n d k). The plain inertia is too small by far when clusters have few rows,
    because a row both pulls its centre and chooses it. ``others``, if known, bounds the distance of
    every row to all centres but its own from below: rows that it settles cost O(d).
    """
    centers = centers.double()
    energy = PrototypeEnergy(centers)
    counts = torch.zeros(len(centers), dtype=torch.float64, device=x.device)
    counts = ranks.sum(counts.index_add_(0, labels, weights))
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for part in parts:
        chunk, label = x[part].double(), labels[part]
        size = counts[label]
        without = torch.where(size > 1, size / (size - 1), torch.inf).square()
        own = (chunk - centers[label]).square().sum(dim=1)
        # 0 * inf: a row alone in its cluster has no cluster left without itself.
        own = torch.where(size > 1, own * without, torch.inf)
        if others is None:
            matters = torch.arange(len(chunk), device=x.device)
        else:
            matters = (others[part].double().square() < own).nonzero()[:, 0]
        distances = energy.squared_distances(chunk[matters])
        closest = distances.scatter_(1, label[matters, None], torch.inf).amin(dim=1)
        own[matters] = torch.minimum(own[matters], closest)
        total += weights[part] @ own
    return float(ranks.sum(total))


def group_centers(centers: Tensor, n_groups: int) -> Tensor:
    """Group of every centre, by a few Lloyd steps on the centres themselves. O(k n_groups d)."""
    centers = centers.double()
    heads = centers[torch.linspace(0, len(centers) - 1, n_groups).long()]
    ones, whole = torch.ones_like(centers[:, 0]), [slice(0, len(centers))]
    steps = lloyd_steps(Lloyd(centers, ones, whole), heads, 0.0)
    return [labels for _, (labels, _, _) in zip(range(5), steps, strict=False)][-1]


class OnlineClusters(NamedTuple):
    """Centres of online k-means, the weight that each has won, and the sum of squared errors."""

    centers: NDArray[np.float64]
    counts: NDArray[np.float64]
    error: float


def online_pass(
    x: NDArray[np.floating], weights: NDArray[np.float64], clusters: OnlineClusters, *, revive: bool
) -> tuple[OnlineClusters, NDArray[np.int32]]:
    """One pass of MacQueen's rule: each row moves its centre by 1 / count towards itself. O(n d k).

    Rows act one after the other, so the result does not depend on how they are cut into chunks; a
    weight of m acts as m copies of the row. ``revive``: a centre of count zero moves onto the next
    row that lies farther from its centre than rows have done on average. Returns what becomes of
    the clusters, and the labels.
    """
    from sklebm.inference._online import follow_rows

    # Moves far from zero would be rounded to the size of the rows.
    origin = clusters.centers.mean(axis=0)
    centers, counts = clusters.centers - origin, clusters.counts.copy()
    labels = np.empty(len(x), dtype=np.int32)
    error = clusters.error
    for start in range(0, len(x), _ONLINE_ROWS):
        some = slice(start, start + _ONLINE_ROWS)
        shifted = x[some] - origin
        error = follow_rows(shifted, weights[some], centers, counts, error, revive, labels[some])
    return OnlineClusters(centers + origin, counts, float(error)), labels
