r"""Minimise sum_i w_i min_k \|x_i - c_k\|^2 by Lloyd steps that skip what cannot change, in torch.

The same labels as Lloyd's algorithm in double precision, on any device. Bounds on the distances to
groups of centres settle most rows; those that are left are gathered and compared with the groups
that may hold a closer centre, one matrix product for each group.

Y. Ding et al., "Yinyang k-means", ICML 2015; with one group, G. Hamerly, "Making k-means even
faster", SDM 2010.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sklebm.energies.prototypes import overflow
from sklebm.inference.fixed_point_sums import FixedPointSums
from sklebm.inference.lloyd import (
    Fit,
    Lloyd,
    Slices,
    group_centers,
    inertia,
    leave_one_out_inertia,
    relocate,
)

# Products with fewer centres would leave a GPU idle, and every group costs it a dozen launches.
_GROUP_SIZE, _MOST_GROUPS = 64, 16
# What a program may have allowed matrix products to round, relative to a product of two numbers.
_REDUCED = {"highest": 0.0, "high": 2.0**-10, "medium": 2.0**-7}


class _Centers(NamedTuple):
    """Centres, the same around the origin, their squared lengths there, and the longest."""

    points: Tensor
    shifted: Tensor
    squares: Tensor
    reach: Tensor


class _Contest(NamedTuple):
    """Rows under comparison: the closest centre so far, and squared distances.

    ``own``: to the centre that the row had; ``best``: to the closest; ``second``: to the one after
    it; ``beside``: to the one after it in its group; ``error``: bound on their rounding errors.
    """

    rows: Tensor
    held: Tensor
    labels: Tensor
    own: Tensor
    best: Tensor
    second: Tensor
    beside: Tensor
    error: Tensor


class CompactedLloyd(Lloyd):
    """Lloyd's algorithm on the rows ``x``, starting from ``centers``, for GPUs.

    Parameters
    ----------
    x : Tensor of shape (n_rows, n_features)
        Rows on any device, single or double precision.
    weights : Tensor of shape (n_rows,)
        Their weights, double precision, on the same device.
    centers : Tensor of shape (n_clusters, n_features)
        The first centres.
    parts : sequence of slices
        Chunks of rows that fit in memory together with their distances to all centres.

    Attributes
    ----------
    n_distances : int
        Distances between a row and a centre that assignments have computed so far.

    Notes
    -----
    The host waits for the device four times a step: for the numbers of rows that the bounds leave,
    of their pairs with groups, of pairs of distances too close for single precision, and of rows
    that changed cluster. It must know them to ask for as much work and no more. A wait takes some
    tens of microseconds; this class is for steps that take many milliseconds.

    Memory beside X: n_rows x n_groups bounds, with at most 16 groups, and one chunk.
    """

    def __init__(self, x: Tensor, weights: Tensor, centers: Tensor, parts: Slices) -> None:
        super().__init__(x, weights, parts)
        self.n_distances = 0
        self._chunk = max(part.stop - part.start for part in parts)
        n_groups = min(max(len(centers) // _GROUP_SIZE, 1), _MOST_GROUPS)
        groups = group_centers(centers, n_groups)
        self._members = [m for g in range(n_groups) if len(m := (groups == g).nonzero()[:, 0])]
        self._group_of = torch.empty_like(groups)
        self._place_of = torch.empty_like(groups)
        for group, members in enumerate(self._members):
            self._group_of[members] = group
            self._place_of[members] = torch.arange(len(members), device=x.device)
        # Distances do not depend on the origin, but their rounding errors do.
        self._origin = centers.mean(dim=0)
        self._eps = float(torch.finfo(x.dtype).eps)
        self._lengths = torch.cat([(x[p] - self._origin).norm(dim=1) for p in parts])
        self._labels = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        # Nothing is known yet: no row is settled, and no group is too far.
        self._upper = torch.full_like(self._lengths, torch.inf)
        self._lower = torch.zeros(len(x), len(self._members), dtype=x.dtype, device=x.device)
        self._centers = self._around(centers)
        self._summed: Tensor | None = None
        magnitudes = torch.stack([self._weighted(p).abs().sum(dim=0) for p in parts]).sum(dim=0)
        self._sums = FixedPointSums(len(centers), magnitudes, len(x))

    # ------------------------------------------------------------ assignment

    def assign(self, centers: Tensor) -> Tensor:
        """Index of the closest of ``centers`` for every row, shape (n_rows,)."""
        self._shift_bounds(centers)
        half = self._half_distances()[self._labels]
        floor = torch.maximum(self._lower.amin(dim=1), half)
        rows = (self._upper >= floor).nonzero()[:, 0]
        contest = self._open(rows)
        upper = self._upper[rows]
        close = (upper >= half[rows])[:, None] & (upper[:, None] >= self._lower[rows])
        # Group by group, the places in the contest of the rows that the group may attract.
        places = close.T.reshape(-1).nonzero()[:, 0] % max(len(rows), 1)
        for group, attracted in enumerate(torch.split(places, close.sum(dim=0).tolist())):
            for some in torch.split(attracted, self._chunk):
                self._compare(contest, some, group)
        self._close(contest)
        return self._labels.clone()

    def _around(self, centers: Tensor) -> _Centers:
        centers = centers.clone()  # the next way is measured from here
        shifted = centers - self._origin
        squares = shifted.square().sum(dim=1)
        return _Centers(centers, shifted, squares, squares.max().sqrt())

    def _half_distances(self) -> Tensor:
        """Half the distance of every centre to the closest other one, from below. O(k^2 d)."""
        _, shifted, squares, reach = self._centers
        every = torch.arange(len(squares), device=squares.device)
        half = torch.empty_like(squares)
        for some in torch.split(every, self._chunk):
            between = _squared_distances(shifted[some], squares[some], shifted, squares)
            between.scatter_(1, some[:, None], torch.inf)
            error = self._rounding(squares[some].sqrt(), reach)
            half[some] = 0.5 * _below(between.amin(dim=1), error)
        return half

    def _shift_bounds(self, centers: Tensor) -> None:
        """Make the bounds hold for new centres: upper ones rise, lower ones fall by their way."""
        way = (centers.double() - self._centers.points.double()).norm(dim=1)
        way = (way * (1.0 + 4.0 * self._eps)).to(centers.dtype)
        longest = torch.zeros(len(self._members), dtype=way.dtype, device=way.device)
        longest.scatter_reduce_(0, self._group_of, way, "amax")
        # The factors make up for the rounding of the sum, step after step.
        self._upper.add_(way[self._labels]).mul_(1.0 + 2.0 * self._eps)
        self._lower.sub_(longest).clamp_(min=0.0).mul_(1.0 - 2.0 * self._eps)
        self._centers = self._around(centers)

    def _open(self, rows: Tensor) -> _Contest:
        """Measure the given rows' distances to their own centres, which tightens upper bounds."""
        held = self._labels[rows]
        own = torch.empty_like(self._upper[rows])
        for start in range(0, len(rows), self._chunk):
            some = slice(start, start + self._chunk)
            own[some] = (self._x[rows[some]] - self._centers.points[held[some]]).square().sum(dim=1)
        self.n_distances += len(rows)
        error = self._rounding(self._lengths[rows], self._centers.reach)
        # Squares of differences do not cancel: their sum has a relative error.
        n_features = self._x.shape[1]
        margin = own * ((n_features + 8) * self._eps) + n_features * torch.finfo(own.dtype).tiny
        self._upper[rows] = _above(own, margin)
        nothing = torch.full_like(own, torch.inf)
        return _Contest(rows, held, held.clone(), own, own.clone(), nothing, nothing.clone(), error)

    def _compare(self, contest: _Contest, some: Tensor, group: int) -> None:
        """Compare rows of the contest with all centres of a group but their own."""
        members, centers = self._members[group], self._centers
        rows, held = contest.rows[some], contest.held[some]
        values = _squared_distances(
            self._x[rows] - self._origin,
            self._lengths[rows].square(),
            centers.shifted[members],
            centers.squares[members],
        )
        self.n_distances += values.numel()
        # No column is -1: the own centre of these rows is in another group.
        column = torch.where(self._group_of[held] == group, self._place_of[held], -1)
        columns = torch.arange(len(members), device=values.device)
        values.masked_fill_(columns == column[:, None], torch.inf)
        closest, place = values.min(dim=1)
        after = values.scatter_(1, place[:, None], torch.inf).amin(dim=1)
        self._lower[rows, group] = _below(closest, contest.error[some])
        best, second, beside = contest.best[some], contest.second[some], contest.beside[some]
        wins = closest < best
        passed = torch.where(wins, torch.minimum(best, after), torch.minimum(second, closest))
        contest.second[some] = passed
        contest.best[some] = torch.where(wins, closest, best)
        contest.beside[some] = torch.where(wins, after, beside)
        contest.labels[some] = torch.where(wins, members[place], contest.labels[some])

    def _close(self, contest: _Contest) -> None:
        """Give the rows of the contest their labels and bounds."""
        rows, labels, error = contest.rows, contest.labels, contest.error
        lower, changed = self._lower[rows], labels != contest.held
        # A row that changes takes a centre from the others of its group, and leaves them its own.
        taken, left = self._group_of[labels][:, None], self._group_of[contest.held][:, None]
        beside = torch.where(changed, _below(contest.beside, error), lower.gather(1, taken)[:, 0])
        own = torch.where(changed, _below(contest.own, error), torch.inf)
        lower.scatter_(1, taken, beside[:, None])
        lower.scatter_reduce_(1, left, own[:, None], "amin")
        self._lower[rows] = lower
        self._upper[rows] = torch.where(changed, _above(contest.best, error), self._upper[rows])
        self._labels[rows] = labels
        undecided = contest.second - contest.best <= 2.0 * error
        # No square that is computed anywhere is larger.
        largest = 4.0 * (self._lengths.max() + self._centers.reach).square()
        overflows = ~torch.isfinite(largest)
        n_undecided, is_broken = torch.stack([undecided.sum(), overflows.long()]).tolist()
        if is_broken:
            raise overflow(self._x[:])
        if n_undecided:
            self._decide(rows[undecided])

    def _decide(self, rows: Tensor) -> None:
        """Find the closest centres of rows for which rounding may have chosen; O(m d k)."""
        centers = self._around(self._centers.points.double())
        self.n_distances += len(rows) * len(centers.points)
        for some in torch.split(rows, self._chunk):
            labels, squares = self._decide_exactly(some, centers)
            before = self._labels[some]
            group, square = self._group_of[before], squares.to(self._upper.dtype)
            # The centre that was thought closest is now one of the others.
            known = self._lower[some, group]
            others = torch.minimum(known, _below(square, 0.0))
            self._lower[some, group] = torch.where(labels == before, known, others)
            self._upper[some] = _above(square, 0.0)
            self._labels[some] = labels

    def _decide_exactly(self, rows: Tensor, centers: _Centers) -> tuple[Tensor, Tensor]:
        """Labels by differences in double precision, ties to the lowest index, and distances."""
        x: Tensor = self._x[rows].double()
        shifted = x - self._origin
        lengths = shifted.square().sum(dim=1)
        squares = _squared_distances(shifted, lengths, centers.shifted, centers.squares)
        error = self._rounding(lengths.sqrt(), centers.reach)
        near = squares <= (squares.amin(dim=1) + 2.0 * error)[:, None]
        row, center = near.nonzero().unbind(1)
        pairs = zip(torch.split(row, self._chunk), torch.split(center, self._chunk), strict=True)
        exact = torch.cat([(x[r] - centers.points[c]).square().sum(dim=1) for r, c in pairs])
        least = torch.full_like(lengths, torch.inf).scatter_reduce_(0, row, exact, "amin")
        last = len(centers.points) - 1
        center = torch.where(exact == least[row], center, last)
        return torch.full_like(rows, last).scatter_reduce_(0, row, center, "amin"), least

    def _rounding(self, lengths: Tensor, reach: Tensor) -> Tensor:
        """Bound on the error of expanded squared distances of rows and centres so long."""
        n_features, kind = self._x.shape[1], torch.finfo(lengths.dtype)
        precision = (n_features + 8) * kind.eps
        if lengths.dtype == torch.float32:
            precision += _REDUCED[torch.get_float32_matmul_precision()]
        bound: Tensor = precision * (lengths + reach).square() + n_features * kind.tiny
        return bound

    # ------------------------------------------------------------ steps

    def step(self, centers: Tensor) -> tuple[Tensor, Tensor]:
        """Labels under ``centers``, and the centres that they lead to."""
        labels = self.assign(centers)
        totals = self._totals(labels)
        sums, counts = totals[:, :-1], totals[:, -1]
        means = sums / counts.clamp(min=torch.finfo(torch.float64).tiny)[:, None]
        moved = (means + self._origin).to(centers.dtype)
        empty = (counts <= 0).nonzero().flatten()
        if len(empty):
            moved, _ = relocate(self._x, self._weights, moved, empty, self._parts)
        return labels, moved

    def _totals(self, labels: Tensor) -> Tensor:
        """Sums of the rows around the origin, and of their weights, by cluster."""
        if self._summed is None:
            changed = torch.arange(len(labels), device=labels.device)
        else:
            changed = (labels != self._summed).nonzero()[:, 0]
        for some in torch.split(changed, self._chunk):
            rows = self._weighted(some)
            if self._summed is not None:
                self._sums.add(self._summed[some], rows, sign=-1)
            self._sums.add(labels[some], rows)
        self._summed = labels
        return self._sums.value()

    def _weighted(self, rows: Tensor | slice) -> Tensor:
        """Rows around the origin times their weights, and the weights as last column."""
        weights = self._weights[rows, None]
        return torch.cat([weights * (self._x[rows].double() - self._origin), weights], dim=1)

    # ------------------------------------------------------------ measures

    def measure(self, centers: Tensor, copies: Tensor) -> Fit:
        """Evaluate the rows under these centres; ``copies`` are weights for leaving one out."""
        labels = self.assign(centers)
        # Whatever lies near its own centre is far from all others, by the triangle inequality.
        beyond = 2.0 * self._half_distances()[labels] - self._upper
        others = torch.maximum(self._lower.amin(dim=1), beyond * (1.0 - 4.0 * self._eps))
        x, parts = self._x, self._parts
        return Fit(
            labels,
            self._totals(labels)[:, -1],
            inertia(x, self._weights, labels, centers, parts),
            leave_one_out_inertia(x, copies, labels, centers, parts, others=others),
        )


def _squared_distances(x: Tensor, squares: Tensor, centers: Tensor, norms: Tensor) -> Tensor:
    """Squared distances of rows to centres, in one product; O(n d k)."""
    products = torch.addmm(norms, x, centers.T, alpha=-2.0)
    return products.add_(squares[:, None])


def _below(squares: Tensor, error: Tensor | float) -> Tensor:
    """Square root, not above that of any number within ``error``."""
    rounding = 4.0 * torch.finfo(squares.dtype).eps
    return (squares - error).clamp_(min=0.0).sqrt_().mul_(1.0 - rounding)


def _above(squares: Tensor, error: Tensor | float) -> Tensor:
    """Square root, not below that of any number within ``error``."""
    rounding = 4.0 * torch.finfo(squares.dtype).eps
    return (squares + error).sqrt_().mul_(1.0 + rounding)
