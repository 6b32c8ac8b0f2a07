r"""Penalties that are not convex: sparser codes, found as a local minimum no worse than z = 0.

See ``sklebm.energies.penalty`` for what solvers require of a penalty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sklebm._checks import check_counts, check_number
from sklebm.energies.penalty import Penalty, check_divides


@dataclass(frozen=True)
class Lq(Penalty):
    """R(z) = sum_k |z_k|^q with 0 < q < 1: sparser than L1, and not convex.

    Parameters
    ----------
    q : float, default=0.5
        Exponent, above 0 and below 1.
    """

    q: float = 0.5
    convex: ClassVar[bool] = False
    certificate: ClassVar[Literal["duality gap", "KKT residual"]] = "KKT residual"
    solvers: ClassVar[tuple[str, ...]] = ("fista", "ista", "coordinate_descent")

    def __post_init__(self) -> None:
        if not isinstance(self.q, Real) or not 0 < self.q < 1:
            raise ValueError(f"Lq: q={self.q!r} must lie strictly between 0 and 1.")

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

    def critical_alpha(self, correlations: Tensor, squared_lengths: Tensor) -> Tensor:
        """The weight above which no single atom lowers the energy; 1.5 alpha^(2/3) for q = 1/2.

        It is the jump of ``prox``, solved for the weight.
        """
        q = self.q
        least = correlations.abs() / squared_lengths * (2.0 * (1.0 - q) / (2.0 - q))
        weights = squared_lengths * least.pow(2.0 - q) / (2.0 * (1.0 - q))
        return weights.amax(dim=1)

    def price_alone(self, z: Tensor) -> Tensor:
        """|z_k|^q of every entry."""
        return z.abs().pow(self.q)


@dataclass(frozen=True)
class TopK(Penalty):
    """R(z) = |z|_1 for at most ``n_nonzero`` non-zeros, infinite beyond.

    The non-zeros are chosen once, as the largest entries of the L1 code z_1 of weight alpha, and
    fitted again by least squares: E(x, z_2) of this second code is the free energy.

    Parameters
    ----------
    n_nonzero : int, default=5
        Maximum number of non-zeros in a code.
    """

    n_nonzero: int = 5
    convex: ClassVar[bool] = False
    finite: ClassVar[bool] = False
    certificate: ClassVar[Literal["duality gap", "KKT residual"]] = "KKT residual"
    solvers: ClassVar[tuple[str, ...]] = ("refit",)

    def __post_init__(self) -> None:
        check_counts(self, "n_nonzero")

    def value(self, z: Tensor) -> Tensor:
        """R(z) of each row, shape (n_rows,)."""
        return torch.where(_too_many(z, self.n_nonzero), math.inf, z.abs().sum(dim=1))

    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        """Soft threshold of the largest entries, zero for the others."""
        kept = _keep_largest(v, self.n_nonzero)
        return kept.sign() * (kept.abs() - step).clamp(min=0.0)

    def critical_alpha(self, correlations: Tensor, squared_lengths: Tensor) -> Tensor:
        """The largest absolute correlation, as for the L1 code."""
        return correlations.abs().amax(dim=1)


@dataclass(frozen=True)
class L0(Penalty):
    """R(z) = 0 for at most ``n_nonzero`` non-zeros, infinite beyond: a pure constraint.

    Codes are found by orthogonal matching pursuit: the atom that lowers the error most by itself
    is added, all are refitted by least squares, until there are ``n_nonzero``. The weight alpha
    has no effect.

    Parameters
    ----------
    n_nonzero : int, default=5
        Maximum number of non-zeros in a code.

    References
    ----------
    Y. C. Pati, R. Rezaiifar and P. S. Krishnaprasad, "Orthogonal matching pursuit", Asilomar 1993.
    """

    n_nonzero: int = 5
    convex: ClassVar[bool] = False
    finite: ClassVar[bool] = False
    certificate: ClassVar[Literal["duality gap", "KKT residual"]] = "KKT residual"
    solvers: ClassVar[tuple[str, ...]] = ("pursuit",)

    def __post_init__(self) -> None:
        check_counts(self, "n_nonzero")

    def value(self, z: Tensor) -> Tensor:
        """R(z) of each row, shape (n_rows,)."""
        return torch.where(_too_many(z, self.n_nonzero), math.inf, torch.zeros_like(z[:, 0]))

    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        """Keep the largest entries."""
        return _keep_largest(v, self.n_nonzero)

    def critical_alpha(self, correlations: Tensor, squared_lengths: Tensor) -> Tensor:
        """Infinite, because alpha has no effect; zero for rows that no atom explains."""
        return torch.where(correlations.any(dim=1), math.inf, 0.0).to(correlations.dtype)


def _too_many(z: Tensor, n_nonzero: int) -> Tensor:
    """Rows with more non-zeros."""
    return (z != 0).sum(dim=1) > n_nonzero


def _keep_largest(v: Tensor, n_kept: int) -> Tensor:
    """The entries of largest absolute value, zero for the others."""
    if n_kept >= v.shape[1]:
        return v.clone()
    kept = v.abs().topk(n_kept, dim=1).indices
    return torch.zeros_like(v).scatter_(1, kept, v.gather(1, kept))


@dataclass(frozen=True)
class LateralInhibition(Penalty):
    """R(z) = |z|_1 + strength sum_{j < k} |z_j| |z_k| within groups: winners suppress the others.

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
    quadratic_on_support: ClassVar[bool] = True
    certificate: ClassVar[Literal["duality gap", "KKT residual"]] = "KKT residual"
    solvers: ClassVar[tuple[str, ...]] = ("coordinate_descent",)

    def __post_init__(self) -> None:
        check_number(self.strength, "strength", self)
        check_counts(self, "group_size")

    def check_width(self, n_components: int) -> None:
        """Raise ValueError if the groups do not cover ``n_components`` entries."""
        check_divides(self, n_components)

    def inhibition(self, z: Tensor) -> Tensor:
        """sum_{j != k} strength |z_j| within the group of k, shape of z."""
        size = z.abs()
        totals = size.view(len(z), -1, self.group_size).sum(dim=2)
        return self.strength * (totals.repeat_interleave(self.group_size, dim=1) - size)

    def value(self, z: Tensor) -> Tensor:
        """R(z) of each row, shape (n_rows,)."""
        return (z.abs() * (1.0 + 0.5 * self.inhibition(z))).sum(dim=1)

    def critical_alpha(self, correlations: Tensor, squared_lengths: Tensor) -> Tensor:
        """The largest absolute correlation: a single entry costs the same as under L1."""
        return correlations.abs().amax(dim=1)

    def coordinate_minimum(
        self, z: Tensor, target: Tensor, curvature: Tensor, alpha: float
    ) -> Tensor:
        """Soft threshold, raised by the inhibition of the entry."""
        threshold = alpha * (1.0 + self.inhibition(z))
        return target.sign() * (target.abs() - threshold).clamp(min=0.0) / curvature

    def price_alone(self, z: Tensor) -> Tensor:
        """|z_k| of every entry."""
        return z.abs()

    def pair_curvature(self, index: Tensor, signs: Tensor) -> Tensor:
        """strength sign(z_j) sign(z_k) for the pairs of a group, else 0."""
        group = index // self.group_size
        pairs = (group[:, :, None] == group[:, None, :]) & (index[:, :, None] != index[:, None, :])
        return torch.where(pairs, self.strength * signs[:, :, None] * signs[:, None, :], 0.0)
