r"""R(z): what a code costs in E(x, z) = 1/2 |x - D'z - b|^2 + alpha R(z), and how to lower it.

Every penalty is a frozen record of scalars with its value and its proximal operator
prox(v, t) = argmin_z 1/2 |z - v|^2 + t R(z), row by row.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Penalty(ABC):
    """A penalty R on codes."""

    #: True if R is convex, so that a code of zero duality gap is the best one.
    convex: ClassVar[bool] = True
    #: True if z is held at or above zero.
    non_negative: ClassVar[bool] = False

    @abstractmethod
    def value(self, z: Tensor) -> Tensor:
        """R(z) of each row, shape (n_rows,)."""

    def check_width(self, n_components: int) -> None:
        """Raise ValueError if codes of ``n_components`` entries do not fit."""
        if n_components < 1:
            raise ValueError(f"{type(self).__name__} needs a code of at least one entry.")


class ProximalPenalty(Penalty):
    """A penalty whose proximal operator has a closed form."""

    @abstractmethod
    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        """The row-wise minimum of 1/2 |z - v|^2 + step R(z)."""


def _check_positive(penalty: Penalty, name: str) -> None:
    value = getattr(penalty, name)
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not 0 < float(value) < math.inf:
        raise ValueError(f"{type(penalty).__name__}: {name}={value!r} must be a positive number.")


def _check_count(penalty: Penalty, name: str) -> None:
    value = getattr(penalty, name)
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{type(penalty).__name__}: {name}={value!r} must be a positive integer.")


def _check_divides(penalty: Any, n_components: int) -> None:
    if n_components % penalty.group_size:
        raise ValueError(
            f"{type(penalty).__name__}: group_size={penalty.group_size} does not divide the "
            f"{n_components} components: choose a multiple of it."
        )


@dataclass(frozen=True)
class L1(ProximalPenalty):
    """R(z) = sum_k |z_k|: few non-zeros."""

    def value(self, z: Tensor) -> Tensor:
        """R(z) of each row, shape (n_rows,)."""
        return z.abs().sum(dim=1)

    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        """Soft threshold."""
        return v.sign() * (v.abs() - step).clamp(min=0.0)


@dataclass(frozen=True)
class NonNegativeL1(ProximalPenalty):
    """R(z) = sum_k z_k for z >= 0, infinite elsewhere: parts that only add."""

    non_negative: ClassVar[bool] = True

    def value(self, z: Tensor) -> Tensor:
        """R(z) of each row, shape (n_rows,); infinite where an entry is negative."""
        return torch.where((z < 0).any(dim=1), math.inf, z.sum(dim=1))

    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        """Rectified shrinkage: a ReLU with a threshold."""
        return (v - step).clamp(min=0.0)


@dataclass(frozen=True)
class ElasticNet(ProximalPenalty):
    """R(z) = sum_k |z_k| + l2_ratio / 2 z_k^2: unique codes, shared between similar atoms.

    Parameters
    ----------
    l2_ratio : float, default=1.0
        Weight of the squares.
    """

    l2_ratio: float = 1.0

    def __post_init__(self) -> None:
        _check_positive(self, "l2_ratio")

    def value(self, z: Tensor) -> Tensor:
        """R(z) of each row, shape (n_rows,)."""
        return z.abs().sum(dim=1) + 0.5 * self.l2_ratio * z.square().sum(dim=1)

    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        """Soft threshold, then shrinkage."""
        return v.sign() * (v.abs() - step).clamp(min=0.0) / (1.0 + step * self.l2_ratio)


@dataclass(frozen=True)
class GroupL2(ProximalPenalty):
    """R(z) = sum_g |z_g|_2 over consecutive groups: whole groups are on or off.

    Parameters
    ----------
    group_size : int, default=4
        Components in a group; must divide their number.
    """

    group_size: int = 4

    def __post_init__(self) -> None:
        _check_count(self, "group_size")

    def check_width(self, n_components: int) -> None:
        """Raise ValueError if the groups do not cover ``n_components`` entries."""
        _check_divides(self, n_components)

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

    def __post_init__(self) -> None:
        _check_count(self, "pool_size")
        grid = self.grid
        counts = isinstance(grid, tuple) and all(isinstance(side, Integral) for side in grid)
        if not counts or len(grid) != 2 or min(grid) < self.pool_size:
            raise ValueError(
                f"Topographic: grid={grid!r} must be a tuple of two integers of at least "
                f"pool_size={self.pool_size}."
            )

    def check_width(self, n_components: int) -> None:
        """Raise ValueError if the torus has not ``n_components`` places."""
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


@dataclass(frozen=True)
class Lq(ProximalPenalty):
    """R(z) = sum_k |z_k|^q with 0 < q < 1: sparser than L1, and not convex.

    Parameters
    ----------
    q : float, default=0.5
        Exponent, above 0 and below 1.
    """

    q: float = 0.5
    convex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.q, Real) or not 0 < self.q < 1:
            raise ValueError(f"Lq: q={self.q!r} must lie between 0 and 1, without them.")

    def value(self, z: Tensor) -> Tensor:
        """R(z) of each row, shape (n_rows,)."""
        return z.abs().pow(self.q).sum(dim=1)

    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        """Zero below a jump, else the larger root of z - |v| + step q z^(q-1) = 0, by Newton."""
        q = self.q
        size = v.abs()
        # At the jump z = (2 t (1 - q))^(1 / (2 - q)) is as good as 0 (Marjanovic & Solo, 2012).
        least = torch.as_tensor(2.0 * (1.0 - q) * step, dtype=v.dtype, device=v.device)
        least = least.pow(1.0 / (2.0 - q))
        jump = least + q * step * least.pow(q - 1.0)
        z = size.clone().clamp(min=torch.finfo(v.dtype).tiny)
        for _ in range(10):  # from above the convex function's root: monotone, quadratic
            slope = 1.0 - q * (1.0 - q) * step * z.pow(q - 2.0)
            z = torch.where(size > jump, z - (z - size + q * step * z.pow(q - 1.0)) / slope, z)
        return torch.where(size > jump, v.sign() * z, torch.zeros_like(v))


@dataclass(frozen=True)
class TopK(ProximalPenalty):
    """R(z) = 0 for at most ``n_nonzero`` non-zeros, infinite beyond: L0 as a constraint.

    The non-zeros are chosen once, as the largest entries of the L1 code of weight alpha, and fitted
    again by least squares.

    Parameters
    ----------
    n_nonzero : int, default=5
        Most non-zeros of a code.
    """

    n_nonzero: int = 5
    convex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_count(self, "n_nonzero")

    def value(self, z: Tensor) -> Tensor:
        """R(z) of each row, shape (n_rows,)."""
        many = (z != 0).sum(dim=1) > self.n_nonzero
        return torch.where(many, math.inf, torch.zeros_like(z[:, 0]))

    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        """Keep the largest entries."""
        if self.n_nonzero >= v.shape[1]:
            return v.clone()
        kept = v.abs().topk(self.n_nonzero, dim=1).indices
        return torch.zeros_like(v).scatter_(1, kept, v.gather(1, kept))


@dataclass(frozen=True)
class LateralInhibition(Penalty):
    """R(z) = |z|_1 + strength sum_{j < k} |z_j| |z_k| within groups: winners silence the others.

    Not convex, and minimised one coordinate at a time: the threshold of an entry is 1 + its
    inhibition.

    Parameters
    ----------
    strength : float, default=1.0
        Weight of each pair.
    group_size : int, default=4
        Components in a group; must divide their number.
    """

    strength: float = 1.0
    group_size: int = 4
    convex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_positive(self, "strength")
        _check_count(self, "group_size")

    def check_width(self, n_components: int) -> None:
        """Raise ValueError if the groups do not cover ``n_components`` entries."""
        _check_divides(self, n_components)

    def inhibition(self, z: Tensor) -> Tensor:
        """sum_{j != k} strength |z_j| within the group of k, shape of z."""
        size = z.abs()
        totals = size.view(len(z), -1, self.group_size).sum(dim=2)
        return self.strength * (totals.repeat_interleave(self.group_size, dim=1) - size)

    def value(self, z: Tensor) -> Tensor:
        """R(z) of each row, shape (n_rows,)."""
        return (z.abs() * (1.0 + 0.5 * self.inhibition(z))).sum(dim=1)


PENALTIES: dict[str, type[Penalty]] = {
    "elastic_net": ElasticNet,
    "group": GroupL2,
    "l1": L1,
    "lateral_inhibition": LateralInhibition,
    "lq": Lq,
    "nonnegative": NonNegativeL1,
    "topographic": Topographic,
    "top_k": TopK,
}
