r"""Rows expanded by the products of their features: x -> [x_i, x_i x_j for i <= j]."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class QuadraticExpansion(nn.Module):
    """A row followed by the products of all pairs of its features.

    Parameters
    ----------
    n_features : int
        Number of features d; the expansion has d (d + 3) / 2 columns.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.n_features = n_features

    def forward(self, x: Tensor) -> Tensor:
        """The expanded rows, (n_rows, d (d + 3) / 2)."""
        first, second = torch.triu_indices(self.n_features, self.n_features, device=x.device)
        return torch.cat([x, x[:, first] * x[:, second]], dim=1)


def expanded_width(n_features: int, degree: int) -> int:
    """Columns of rows expanded to a degree of 1 or 2."""
    return n_features if degree == 1 else n_features * (n_features + 3) // 2
