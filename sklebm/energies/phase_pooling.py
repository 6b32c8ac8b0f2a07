r"""What and where: the soft maximum m of a group of units, and its soft place p.

    m = sum_i w_i a_i,   p = sum_i w_i i,   w_i = e^(beta a_i) / sum_j e^(beta a_j)

over the cells i of a group: features, rows and columns of a window. As beta grows, m becomes the
maximum and p its position. A group is filled again by m times a hat function around p, which is a
linear interpolation between the cells.

R. Goroshin, M. Mathieu and Y. LeCun, "Learning to linearize under uncertainty", NIPS 2015.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class PhaseShape:
    """How units are divided into groups.

    Parameters
    ----------
    n_groups : int
        Groups of features.
    n_features : int
        Features in a group.
    height, width : int
        Size of every feature's map; 1 and 1 for units without a place.
    window : (int, int)
        Height and width of a group, which divide those of the maps.
    """

    n_groups: int
    n_features: int
    height: int = 1
    width: int = 1
    window: tuple[int, int] = (1, 1)

    @property
    def sides(self) -> tuple[int, int, int]:
        """Features, rows and columns of a group."""
        return (self.n_features, *self.window)

    @property
    def axes(self) -> list[int]:
        """The axes along which a place can change."""
        return [axis for axis, side in enumerate(self.sides) if side > 1]

    @property
    def n_pools(self) -> int:
        """Groups, in all windows."""
        windows = (self.height // self.window[0]) * (self.width // self.window[1])
        return self.n_groups * windows

    @property
    def n_codes(self) -> int:
        """Numbers in a code: the magnitudes of all groups, then their places, axis by axis."""
        return self.n_pools * (1 + len(self.axes))

    def grouped(self, a: Tensor) -> Tensor:
        """Units (n_rows, ...) as (n_rows, n_pools, cells of a group)."""
        h, w = self.window
        parts = (self.n_groups, self.n_features, self.height // h, h, self.width // w, w)
        cells = a.reshape(len(a), *parts).permute(0, 1, 3, 5, 2, 4, 6)
        return cells.reshape(len(a), self.n_pools, math.prod(self.sides))

    def spread(self, cells: Tensor) -> Tensor:
        """The inverse of ``grouped``: maps (n_rows, n_groups * n_features, height, width)."""
        h, w = self.window
        parts = (self.n_groups, self.height // h, self.width // w, self.n_features, h, w)
        maps = cells.reshape(len(cells), *parts).permute(0, 1, 4, 2, 5, 3, 6)
        return maps.reshape(len(cells), self.n_groups * self.n_features, self.height, self.width)

    def places(self, like: Tensor) -> Tensor:
        """Places of the cells, (n_axes, n_cells), in cells from the middle of the group."""
        along = [
            torch.arange(side, dtype=like.dtype, device=like.device) - (side - 1) / 2
            for side in self.sides
        ]
        return torch.stack(torch.meshgrid(*along, indexing="ij")).flatten(1)[self.axes]


class PhasePooling(nn.Module):
    """From units to magnitudes and places.

    Parameters
    ----------
    shape : PhaseShape
        The groups.
    beta : float
        Sharpness of the soft maximum.
    """

    def __init__(self, shape: PhaseShape, beta: float) -> None:
        super().__init__()
        self.shape = shape
        self.beta = beta

    def forward(self, a: Tensor) -> Tensor:
        """Codes (n_rows, n_codes)."""
        cells = self.shape.grouped(a)
        weights = torch.softmax(self.beta * cells, dim=2)
        magnitudes = (weights * cells).sum(dim=2)
        places = weights @ self.shape.places(a).T
        return torch.cat([magnitudes, places.permute(0, 2, 1).flatten(1)], dim=1)


class PhaseUnpooling(nn.Module):
    """From magnitudes and places to units.

    Parameters
    ----------
    shape : PhaseShape
        The groups.
    """

    def __init__(self, shape: PhaseShape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, z: Tensor) -> Tensor:
        """Maps (n_rows, n_groups * n_features, height, width)."""
        parts = z.reshape(len(z), 1 + len(self.shape.axes), self.shape.n_pools)
        cells = parts[:, 0, :, None]
        for axis, places in enumerate(self.shape.places(z)):
            gaps = parts[:, 1 + axis, :, None] - places
            cells = cells * (1.0 - gaps.abs()).clamp(min=0.0)
        return self.shape.spread(cells.expand(-1, -1, math.prod(self.shape.sides)))
