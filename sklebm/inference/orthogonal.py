r"""U <- exp(A) U, A' = -A: L-BFGS over orthogonal matrices, and over free numbers beside them.

With the gradient G of the loss for s_i += a s_j, exp(A) U changes the loss by tr((G - G')' A) / 2,
so that one coordinate for each pair i < j of rows is enough. The curvature for such a rotation is
approximated by a number for each pair, from which L-BFGS starts at every step (Ablin, Cardoso &
Gramfort, 2018, "Faster ICA under orthogonal constraint"). U stays orthogonal by the matrix
exponential, up to rounding that a symmetric orthogonalisation removes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_MEMORY = 10
_ARMIJO = 1e-4
_HALVINGS = 25
_LEAST_CURVATURE = 1e-2
_LONGEST = 1.0  # radians in one step, or a factor of e
_ROUNDING = 1e-14  # of the loss, relative


class Local(NamedTuple):
    """A loss at (U, t): its value, its derivatives, and approximate second derivatives.

    ``rotation`` (k, k) holds the derivative for s_i += a s_j in row i and column j, ``free`` those
    for t; ``rotation_curvature`` (k, k), symmetric, is that of a rotation of i and j.
    """

    loss: float
    rotation: Tensor
    rotation_curvature: Tensor
    free: Tensor
    free_curvature: Tensor


Function = Callable[[Tensor, Tensor], Local]


class Place(NamedTuple):
    """Where the search stands, and the last steps with the changes of gradient that they made."""

    orthogonal: Tensor
    free: Tensor
    local: Local
    steps: tuple[tuple[Tensor, Tensor], ...] = ()
    settled: bool = False


def symmetric_orthogonal(matrix: Tensor) -> Tensor:
    """The orthogonal matrix closest to a square one, (M M')^-1/2 M."""
    left, _, right = torch.linalg.svd(matrix)
    closest: Tensor = left @ right
    return closest


def begin(function: Function, orthogonal: Tensor, free: Tensor) -> Place:
    """The place of a start."""
    return Place(orthogonal, free, function(orthogonal, free))


def advance(function: Function, place: Place, tol: float) -> Place:
    """One step down. It has settled if no derivative exceeds ``tol``, or nothing is lower."""
    k = len(place.orthogonal)
    pairs = torch.triu_indices(k, k, 1, device=place.orthogonal.device)
    gradient, curvature = _flat(place.local, pairs)
    # One matrix entry and no numbers beside it: there is nothing to move.
    if not len(gradient) or float(gradient.abs().amax()) <= tol:
        return place._replace(settled=True)
    for steps in (place.steps, ()) if place.steps else ((),):
        direction = _direction(gradient, curvature, steps)
        slope = float(gradient @ direction)
        if not slope < 0:
            continue
        length = min(1.0, _LONGEST / float(direction.abs().amax()))
        for _ in range(_HALVINGS):
            move = length * direction
            orthogonal, free = _moved(place, move, pairs)
            local = function(orthogonal, free)
            bound = place.local.loss + _ARMIJO * length * slope
            if local.loss <= bound + _ROUNDING * abs(place.local.loss):
                after, _ = _flat(local, pairs)
                change = after - gradient
                # Only a positive curvature can be a metric.
                if float(change @ move) > 1e-12 * float(change.norm() * move.norm()):
                    steps = (*steps, (move, change))[-_MEMORY:]
                settled = float(after.abs().amax()) <= tol
                return Place(orthogonal, free, local, steps, settled)
            length /= 2
    return place._replace(settled=True)  # nothing is lower but for rounding


def _flat(local: Local, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient and curvature for all coordinates, (k (k - 1) / 2 + len(t),)."""
    i, j = pairs
    gradient = torch.cat([local.rotation[i, j] - local.rotation[j, i], local.free])
    curvature = torch.cat([local.rotation_curvature[i, j], local.free_curvature])
    # Where the loss bends down, as at a saddle, the size of the bend is a scale all the same.
    return gradient, curvature.abs().clamp(min=_LEAST_CURVATURE)


def _direction(
    gradient: Tensor, curvature: Tensor, steps: tuple[tuple[Tensor, Tensor], ...]
) -> Tensor:
    """Minus the inverse metric times the gradient: the two loops of L-BFGS."""
    rest, weights = gradient.clone(), []
    for move, change in reversed(steps):
        weight = (move @ rest) / (move @ change)
        rest -= weight * change
        weights.append(weight)
    rest /= curvature
    for (move, change), weight in zip(steps, reversed(weights), strict=True):
        rest += (weight - (change @ rest) / (move @ change)) * move
    return -rest


def _moved(place: Place, move: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """exp(A) U and t after a move of all coordinates."""
    i, j = pairs
    n_pairs = len(i)
    rotation = torch.zeros_like(place.orthogonal)
    rotation[i, j] = move[:n_pairs]
    rotation[j, i] = -move[:n_pairs]
    turned = torch.linalg.matrix_exp(rotation) @ place.orthogonal
    # One step of Newton's for (M M')^-1/2 M: what is left is the square of rounding.
    turned = 1.5 * turned - 0.5 * turned @ (turned.T @ turned)
    return turned, place.free + move[n_pairs:]
