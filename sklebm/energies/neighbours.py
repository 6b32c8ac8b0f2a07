r"""F(x) = d log r_k(x), r_k the distance to the k-th nearest stored row: a neighbour energy."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class NeighbourDistance(nn.Module):
    """Distances to the nearest of a set of rows.

    Parameters
    ----------
    rows : Tensor of shape (n_rows, n_features)
        The stored rows.
    n_neighbors : int
        The number k of neighbours, at most ``n_rows``.
    floor : float
        Minimum distance, so that a row equal to k stored ones has a finite energy.
    """

    rows: Tensor
    center: Tensor

    def __init__(self, rows: Tensor, n_neighbors: int, floor: float) -> None:
        super().__init__()
        # Squared distances are expanded below: an origin among the rows preserves their digits.
        center = rows.mean(dim=0)
        self.register_buffer("center", center)
        self.register_buffer("rows", rows - center)
        self.n_neighbors = n_neighbors
        self.floor = floor

    def distances(self, x: Tensor) -> Tensor:
        """Distances to the k nearest rows, ascending, shape (n, k). O(n n_rows d)."""
        x = x - self.center
        rows = self.rows.to(x.dtype)
        # |x|^2 is left out: it is the same for all stored rows.
        relative = torch.addmm(rows.square().sum(dim=1), x, rows.T, alpha=-2)
        nearest = relative.topk(self.n_neighbors, dim=1, largest=False, sorted=False).indices
        # The few relevant distances are recomputed from differences, where nothing cancels.
        gaps = x[:, None] - rows[nearest]
        return gaps.square().sum(dim=2).sqrt().sort(dim=1).values

    def free_energy(self, x: Tensor) -> Tensor:
        """d log r_k(x), shape (n,)."""
        farthest = self.distances(x)[:, -1].clamp(min=self.floor)
        return x.shape[1] * farthest.log()
