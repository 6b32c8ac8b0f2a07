r"""Mini-batch k-means: c_k <- c_k + (s_k - m_k c_k) / n_k for a batch of weight m_k, of sum s_k.

n_k is the weight that centre k has won so far, so that it is the mean of it all, each row assigned
as the centres were at the time.

D. Sculley, "Web-scale k-means clustering", WWW 2010.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sklebm.inference.lloyd import RowSource, Slices, assign_and_add, inertia, relocate
from sklebm.inference.seeding import content_keys


class RandomBatches:
    """Rows in random batches of a given weight; a weight of m is the same as m copies of a row.

    Copies of a row always share a batch, batches are cut by weight, and the order of different rows
    depends on their content alone. Weights that sum to less than the number of rows are scaled up
    to it; rows without weight are left out. O(n d + n log n) once.
    """

    def __init__(
        self, x: RowSource, weights: Tensor, parts: Slices, generator: torch.Generator
    ) -> None:
        #: Rows that are dealt with at a time, so that distances to all centres fit in memory.
        self.part_size = max(parts[0].stop - parts[0].start, 1)
        keys = content_keys(x, parts, generator)
        order = torch.argsort(keys, stable=True)
        self._order = order[weights[order] > 0]
        keys = keys[self._order]
        same = torch.zeros(len(keys), dtype=torch.bool, device=x.device)
        # Only rows of equal keys can be equal; on disk, reading all in this order would take long.
        for places in torch.split((keys[1:] == keys[:-1]).nonzero()[:, 0], self.part_size):
            equal = (x[self._order[places]] == x[self._order[places + 1]]).all(dim=1)
            same[places + 1] = equal
        # The different rows are numbered in the order of their content.
        self._number = (~same).cumsum(0) - 1
        self._n_different = int(self._number[-1]) + 1
        copies = weights[self._order]
        copies = copies * max(1.0, len(copies) / float(copies.sum()))
        self._copies = torch.zeros(self._n_different, dtype=torch.float64, device=x.device)
        self._copies.index_add_(0, self._number, copies)
        self._generator = generator

    def draw(self, size: float) -> tuple[Tensor, ...]:
        """All rows once, as indices: batches that begin in different multiples of ``size``."""
        device = self._order.device
        shuffled = torch.randperm(self._n_different, generator=self._generator).to(device)
        begins = torch.empty_like(self._copies)
        begins[shuffled] = self._copies[shuffled].cumsum(0) - self._copies[shuffled]
        place = torch.empty_like(shuffled)
        place[shuffled] = torch.arange(self._n_different, device=device)
        by_place = torch.argsort(place[self._number], stable=True)
        batch = (begins[self._number[by_place]] / size).floor()
        _, lengths = torch.unique_consecutive(batch, return_counts=True)
        return torch.split(self._order[by_place], lengths.tolist())

    def first(self, size: float, n_different: int) -> Tensor:
        """Batches of this size, as many as it takes to hold so many different rows."""
        number = torch.full((len(self._order) and int(self._order.max()) + 1,), -1)
        number = number.to(self._order).index_copy_(0, self._order, self._number)
        chosen: list[Tensor] = []
        n_found = 0
        for batch in self.draw(size):
            chosen.append(batch)
            n_found += len(set(number[batch].tolist()))  # copies of a row share a batch
            if n_found >= n_different:
                break
        return torch.cat(chosen)


def mini_batch_steps(
    x: RowSource,
    weights: Tensor,
    centers: Tensor,
    batches: RandomBatches,
    batch_size: int,
    tol: float,
) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """Pass over the rows in random batches: yields labels, centres and "settled" after each pass.

    Labels are those of the rows as they came by. It has settled when the inertia, summed as the
    rows come by, is less than the fraction ``tol`` below that of the pass before. Centres that win
    no row in a pass move onto rows of its last batch. O(n d k) a pass.
    """
    counts = torch.zeros(len(centers), dtype=torch.float64, device=x.device)
    labels = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    previous = float("inf")
    while True:
        before, total = counts, 0.0
        for rows in batches.draw(batch_size):
            batch, weight = x[rows], weights[rows]
            starts = range(0, len(batch), batches.part_size)
            parts = [slice(start, start + batches.part_size) for start in starts]
            # Around the mean, so that single-precision sums keep the differences between rows.
            origin = centers.mean(dim=0)
            label, sums, size = assign_and_add(batch, weight, centers, origin, parts)
            labels[rows] = label
            total += inertia(batch, weight, label, centers, parts)
            counts = counts + size
            around = (centers - origin).double()
            step = sums - size[:, None] * around
            around += step / counts.clamp(min=torch.finfo(torch.float64).tiny)[:, None]
            centers = (around + origin).to(centers.dtype)
        empty = (counts == before).nonzero().flatten()
        if len(empty):
            centers, _ = relocate(batch, weight, centers, empty, parts)
            counts[empty] = 0.0
        rests = previous < float("inf") and previous - total <= tol * previous
        yield labels, centers, rests and not len(empty)
        previous = total
