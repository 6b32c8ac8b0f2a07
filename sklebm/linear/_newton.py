r"""min f(t), f convex and smooth: Newton steps by conjugate gradients, with backtracking.

The step s solves H s = -g and is halved until f falls by a share of what g promises, which also
keeps it inside the domain of f (Boyd & Vandenberghe, 2004, "Convex optimization", section 9.5).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_HALVINGS = 40
_ARMIJO = 1e-4  # sufficient share of the promised decrease
_ROUNDING = 1e-12  # a smaller relative increase of f is rounding


Observer = Callable[[float], None]


def ignore(value: float) -> None:
    """Observe nothing."""


class Convex(ABC):
    """A smooth convex function of a vector; ``value`` is infinite outside its domain."""

    @abstractmethod
    def value(self, point: Tensor) -> float:
        """f at ``point``."""

    @abstractmethod
    def gradient(self, point: Tensor) -> Tensor:
        """Gradient at ``point``; prepares ``curvature`` there."""

    @abstractmethod
    def curvature(self, direction: Tensor) -> Tensor:
        """Hessian at the last point of ``gradient`` times ``direction``."""

    @abstractmethod
    def precondition(self, residual: Tensor) -> Tensor:
        """Approximate inverse of the Hessian, positive definite, times ``residual``."""


class Minimum(NamedTuple):
    """Where the search ended."""

    point: Tensor
    n_iter: int
    converged: bool


def minimize(
    function: Convex, start: Tensor, *, tol: float, max_iter: int, observe: Observer = ignore
) -> Minimum:
    """Minimise until the largest entry of the gradient is at most ``tol``.

    ``observe`` is called with f after every step.
    """
    point, value = start, function.value(start)
    for n_iter in range(max_iter + 1):
        gradient = function.gradient(point)
        largest = float(gradient.abs().max())
        if largest <= tol or n_iter == max_iter or not math.isfinite(largest):
            return Minimum(point, n_iter, largest <= tol)
        # Loose tolerance far from the minimum, tight near it: convergence stays superlinear.
        relative = min(0.1, math.sqrt(largest))
        step = solve(
            function.curvature, -gradient, function.precondition, relative, absolute=0.1 * tol
        )
        promise, length = _ARMIJO * float(gradient @ step), 1.0
        slack = _ROUNDING * (1.0 + abs(value))
        for _ in range(_HALVINGS):
            candidate = function.value(point + length * step)
            if candidate <= value + length * promise + slack:
                break
            length /= 2
        else:
            return Minimum(point, n_iter, converged=False)
        point, value = point + length * step, candidate
        observe(value)
    raise AssertionError("unreachable")


def solve(
    operator: Callable[[Tensor], Tensor],
    target: Tensor,
    precondition: Callable[[Tensor], Tensor],
    relative: float,
    absolute: float = 0.0,
) -> Tensor:
    """Preconditioned conjugate gradients for a positive definite ``operator``."""
    solution = torch.zeros_like(target)
    residual = target.clone()
    preconditioned = precondition(residual)
    direction = preconditioned.clone()
    product = float(residual @ preconditioned)
    goal = max(relative * float(target.norm()), absolute)
    for _ in range(10 * len(target) + 100):
        if float(residual.norm()) <= goal:
            break
        curved = operator(direction)
        bend = float(direction @ curved)
        if not bend > 0:
            break
        length = product / bend
        solution += length * direction
        residual -= length * curved
        preconditioned = precondition(residual)
        product, previous = float(residual @ preconditioned), product
        direction = preconditioned + (product / previous) * direction
    return solution
