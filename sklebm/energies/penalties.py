r"""Convex penalties R(z), whose best codes are certified by a duality gap, and the table of names.

See ``sklebm.energies.penalty`` for what solvers require of a penalty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

import torch
from torch import Tensor

from sklebm._checks import check_counts, check_number
from sklebm.energies.nonconvex_penalties import L0, LateralInhibition, Lq, TopK
from sklebm.energies.penalty import Penalty, check_divides

__all__ = [
    "L0", "L1", "PENALTIES", "ElasticNet", "GroupL2", "LateralInhibition", "Lq", "NonNegativeL1",
    "Penalty", "TopK", "Topographic",
]  # fmt: skip


@dataclass(frozen=True)
class L1(Penalty):
    """R(z) = sum_k |z_k|: few non-zeros."""

    quadratic_on_support: ClassVar[bool] = True
    solvers: ClassVar[tuple[str, ...]] = ("compiled", "fista", "ista", "coordinate_descent")

    def value(self, z: Tensor) -> Tensor:
        """R(z) of each row, shape (n_rows,)."""
        return z.abs().sum(dim=1)

    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        """Soft threshold."""
        return v.sign() * (v.abs() - step).clamp(min=0.0)

    def dual_norm(self, gradient: Tensor) -> Tensor:
        """The largest absolute entry of each row."""
        return gradient.abs().amax(dim=1)


@dataclass(frozen=True)
class NonNegativeL1(Penalty):
    """R(z) = sum_k z_k for z >= 0, infinite elsewhere: parts that only add."""

    non_negative: ClassVar[bool] = True
    finite: ClassVar[bool] = False
    quadratic_on_support: ClassVar[bool] = True
    solvers: ClassVar[tuple[str, ...]] = ("compiled", "fista", "ista", "coordinate_descent")

    def value(self, z: Tensor) -> Tensor:
        """R(z) of each row, shape (n_rows,); infinite where an entry is negative."""
        return torch.where((z < 0).any(dim=1), math.inf, z.sum(dim=1))

    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        """Rectified shrinkage: a ReLU with a threshold."""
        return (v - step).clamp(min=0.0)

    def dual_norm(self, gradient: Tensor) -> Tensor:
        """The largest entry of each row, or zero where all are negative."""
        return gradient.amax(dim=1).clamp(min=0.0)


@dataclass(frozen=True)
class ElasticNet(Penalty):
    """R(z) = sum_k |z_k| + l2_ratio / 2 z_k^2: unique codes, shared between similar atoms.

    Parameters
    ----------
    l2_ratio : float, default=1.0
        Weight of the squares.
    """

    l2_ratio: float = 1.0
    solvers: ClassVar[tuple[str, ...]] = L1.solvers

    def __post_init__(self) -> None:
        check_number(self.l2_ratio, "l2_ratio", self)

    def value(self, z: Tensor) -> Tensor:
        """R(z) of each row, shape (n_rows,)."""
        return z.abs().sum(dim=1) + 0.5 * self.l2_ratio * z.square().sum(dim=1)

    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        """Soft threshold, then shrinkage."""
        return v.sign() * (v.abs() - step).clamp(min=0.0) / (1.0 + step * self.l2_ratio)

    @property
    def ridge(self) -> float:
        """The weight of the squares."""
        return self.l2_ratio

    def without_ridge(self) -> L1:
        """The absolute values alone."""
        return L1()

    def dual_norm(self, gradient: Tensor) -> Tensor:
        """The largest absolute entry of each row."""
        return gradient.abs().amax(dim=1)


@dataclass(frozen=True)
class GroupL2(Penalty):
    """R(z) = sum_g |z_g|_2 over consecutive groups: whole groups are on or off.

    Parameters
    ----------
    group_size : int, default=4
        Components in a group; must divide their number.
    """

    group_size: int = 4

    def __post_init__(self) -> None:
        check_counts(self, "group_size")

    def check_width(self, n_components: int) -> None:
        """Raise ValueError if the groups do not cover ``n_components`` entries."""
        check_divides(self, n_components)

    def norms(self, z: Tensor) -> Tensor:
        """Euclidean norms of the groups, shape (n_rows, n_groups)."""
        norms: Tensor = torch.linalg.vector_norm(z.view(len(z), -1, self.group_size), dim=2)
        return norms

    def value(self, z: Tensor) -> Tensor:
        """R(z) of each row, shape (n_rows,)."""
        return self.norms(z).sum(dim=1)

    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        """Block soft threshold."""
        norms = self.norms(v)
        factor = (1.0 - step / norms.clamp(min=torch.finfo(v.dtype).tiny)).clamp(min=0.0)
        return v * factor.repeat_interleave(self.group_size, dim=1)

    def dual_norm(self, gradient: Tensor) -> Tensor:
        """The largest norm of a group of each row."""
        return self.norms(gradient).amax(dim=1)


@dataclass(frozen=True)
class Topographic(Penalty):
    """R(z) = sum_g |z_g|_2 over all square pools on a torus: neighbours are on together.

    Parameters
    ----------
    grid : tuple of (int, int), default=(4, 4)
        Height and width of the torus that the components lie on, row by row.
    pool_size : int, default=3
        Side of a pool. One pool begins at every component, so that each is in pool_size^2 of them.
    """

    grid: tuple[int, int] = (4, 4)
    pool_size: int = 3
    solvers: ClassVar[tuple[str, ...]] = ("splitting",)

    def __post_init__(self) -> None:
        check_counts(self, "pool_size")
        grid = self.grid
        counts = isinstance(grid, tuple) and all(isinstance(side, Integral) for side in grid)
        if not counts or len(grid) != 2 or min(grid) < self.pool_size:
            raise ValueError(
                f"Topographic: grid={grid!r} must be a tuple of two integers of at least "
                f"pool_size={self.pool_size}."
            )

    def check_width(self, n_components: int) -> None:
        """Raise ValueError unless the torus has ``n_components`` places."""
        if self.grid[0] * self.grid[1] != n_components:
            raise ValueError(
                f"Topographic: grid={self.grid} has {self.grid[0] * self.grid[1]} places, but "
                f"there are {n_components} components."
            )

    def members(self) -> Tensor:
        """Components in each pool, integers of shape (n_components, pool_size^2)."""
        height, width = self.grid
        rows, columns = torch.arange(height), torch.arange(width)
        reach = torch.arange(self.pool_size)
        tall = (rows[:, None] + reach) % height
        wide = (columns[:, None] + reach) % width
        index = tall[:, None, :, None] * width + wide[None, :, None, :]
        return index.reshape(height * width, -1)

    def norms(self, z: Tensor) -> Tensor:
        """Euclidean norms of the pools, shape (n_rows, n_components)."""
        grid = z.square().view(len(z), *self.grid)
        for axis in (1, 2):
            grid = torch.stack([grid.roll(-shift, axis) for shift in range(self.pool_size)]).sum(0)
        return grid.flatten(1).sqrt()

    def value(self, z: Tensor) -> Tensor:
        """R(z) of each row, shape (n_rows,)."""
        return self.norms(z).sum(dim=1)

    def critical_alpha(self, correlations: Tensor, squared_lengths: Tensor) -> Tensor:
        """A weight above which z = 0 is the best code; the smallest one has no closed form.

        It is attained if every pool takes an equal share of its members' correlations.
        """
        return self.norms(correlations).amax(dim=1) / self.pool_size**2


PENALTIES: dict[str, type[Penalty]] = {
    "elastic_net": ElasticNet,
    "group": GroupL2,
    "l0": L0,
    "l1": L1,
    "lateral_inhibition": LateralInhibition,
    "lq": Lq,
    "nonnegative": NonNegativeL1,
    "topographic": Topographic,
    "top_k": TopK,
}
