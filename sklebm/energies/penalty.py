r"""R(z) in E(x, z) = 1/2 |x - z D - b|^2 + alpha R(z), and what solvers require of it.

A penalty is a frozen record of numbers with methods: its value, its proximal operator
prox(v, t) = argmin_z 1/2 |z - v|^2 + t R(z), its dual norm, its ridge. Solvers use these methods,
never a class check, so a new penalty is a single class that provides what it has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor


@dataclass(frozen=True)
class Penalty(ABC):
    """A penalty R on codes."""

    #: True if R is convex, so that a code with zero duality gap is optimal.
    convex: ClassVar[bool] = True
    #: True if z is constrained to be nonnegative.
    non_negative: ClassVar[bool] = False
    #: True if every code has a finite penalty.
    finite: ClassVar[bool] = True
    #: True if the objective is quadratic once the signs of a code are known.
    quadratic_on_support: ClassVar[bool] = False
    #: What certifies a code: see ``sklebm.inference.sparse_problem.certificate_kind``.
    certificate: ClassVar[Literal["duality gap", "KKT residual"]] = "duality gap"
    #: Methods of ``sklebm.inference.sparse.solve_codes`` that find codes, the preferred one first.
    solvers: ClassVar[tuple[str, ...]] = ("fista", "ista")

    @abstractmethod
    def value(self, z: Tensor) -> Tensor:
        """R(z) of each row, shape (n_rows,)."""

    def check_width(self, n_components: int) -> None:
        """Raise ValueError if codes of ``n_components`` entries do not fit."""
        if n_components < 1:
            raise ValueError(f"{type(self).__name__} needs a code of at least one entry.")

    @property
    def ridge(self) -> float:
        """The weight r of r/2 |z|^2 within R."""
        return 0.0

    def without_ridge(self) -> Penalty:
        """R(z) - r/2 |z|^2."""
        return self

    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        """The row-wise minimum of 1/2 |z - v|^2 + step R(z)."""
        raise TypeError(f"{type(self).__name__} has no proximal operator in closed form.")

    def dual_norm(self, gradient: Tensor) -> Tensor:
        """max <gradient, z> over R(z) <= 1 of each row, shape (n_rows,), for R without ridge."""
        raise TypeError(f"{type(self).__name__} has no dual norm in closed form.")

    def critical_alpha(self, correlations: Tensor, squared_lengths: Tensor) -> Tensor:
        """The weight above which no step along one atom from z = 0 lowers the energy, (n_rows,).

        Parameters
        ----------
        correlations : Tensor of shape (n_rows, n_components)
            Products of rows and atoms.
        squared_lengths : Tensor of shape (n_components,)
            Squared lengths of the atoms, none of them zero.
        """
        return self.dual_norm(correlations)

    def coordinate_minimum(
        self, z: Tensor, target: Tensor, curvature: Tensor, alpha: float
    ) -> Tensor:
        """Minimise curvature/2 z_k^2 - target_k z_k + alpha R(z) over each z_k, others fixed."""
        return self.prox(target / curvature, alpha / curvature)

    def price_alone(self, z: Tensor) -> Tensor:
        """R of a code with the one entry z_k, for every entry of z."""
        raise TypeError(f"{type(self).__name__} is not a sum over single entries.")

    def members(self) -> Tensor:
        """Components in each pool, for penalties whose pools overlap."""
        raise TypeError(f"{type(self).__name__} has no pools.")

    def pair_curvature(self, index: Tensor, signs: Tensor) -> Tensor | None:
        """Contribution of R to the products of atoms while codes keep their signs.

        Parameters
        ----------
        index : Tensor of shape (n_rows, n_used)
            Entries of the code that differ from zero.
        signs : Tensor of shape (n_rows, n_used)
            Their signs.
        """
        return None


def check_divides(penalty: Any, n_components: int) -> None:
    """Raise ValueError if groups of ``group_size`` do not cover the code."""
    if n_components % penalty.group_size:
        raise ValueError(
            f"{type(penalty).__name__}: group_size={penalty.group_size} does not divide the "
            f"{n_components} components: choose a divisor of their number."
        )
