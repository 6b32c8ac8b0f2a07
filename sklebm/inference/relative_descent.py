r"""U <- exp(A) U: a loss over a group of matrices, by L-BFGS on all rows, or by random batches.

Both work in coordinates relative to U, and each step begins with the curvature that independent
outputs would have (``matrix_groups``). A pass takes a step A = -t^-0.7 H^-1 G after batch number t,
counted over all passes. Noise keeps such steps from the optimum, but the first passes from a random
start come close to it. Once a pass gains less than a step of L-BFGS promises, L-BFGS takes over,
which ends where the gradient of all rows is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from torch import Tensor

from sklebm.inference.matrix_groups import LEAST_CURVATURE, Local, MatrixGroup

_MEMORY = 20
_ARMIJO = 1e-4
_HALVINGS = 25
_LONGEST = 1.0  # radians in one step, or a factor of e
_ROUNDING = 1e-14  # of the loss, relative
_FORGETTING = 0.7  # how fast steps after a batch become smaller
_PACE = 0.1  # share of a batch in the running mean of curvatures
# Random outputs have hardly any curvature, by which the noise of a batch must not be divided.
_LEAST_OF_BATCHES = 0.1

#: The loss of all rows, or of a part of them, at (U, t).
Function = Callable[[Tensor, Tensor], Local]
PartFunction = Callable[[Tensor, Tensor, Tensor], Local]


class Place(NamedTuple):
    """Where the search stands, and the last steps with the changes of gradient that they made.

    ``scale`` is by how much the inverse of the metric falls short of these changes.
    """

    matrix: Tensor
    free: Tensor
    local: Local
    steps: tuple[tuple[Tensor, Tensor], ...] = ()
    scale: float = 1.0
    settled: bool = False


def begin(function: Function, matrix: Tensor, free: Tensor) -> Place:
    """The place of a start."""
    return Place(matrix, free, function(matrix, free))


def advance(function: Function, group: MatrixGroup, place: Place, tol: float) -> Place:
    """One step down. It has settled if no derivative exceeds ``tol``, or nothing is lower."""
    gradient, metric = group.gradient(place.local), group.metric(place.local)
    if _is_flat(gradient, tol):
        return place._replace(settled=True)
    for steps in (place.steps, ()) if place.steps else ((),):
        scale = place.scale if steps or not place.steps else 1.0
        direction = _direction(gradient, partial(group.solve, metric), steps, scale)
        slope = float(gradient @ direction)
        if not slope < 0:
            continue
        length = min(1.0, _LONGEST / float(direction.abs().amax()))
        for _ in range(_HALVINGS):
            move = length * direction
            matrix, free = group.moved(place.matrix, place.free, move)
            local = function(matrix, free)
            bound = place.local.loss + _ARMIJO * length * slope
            if local.loss <= bound + _ROUNDING * abs(place.local.loss):
                after = group.gradient(local)
                change = after - gradient
                bend = float(change @ move)
                # Only a positive curvature can be a metric; where there is none, go further.
                if bend > 1e-12 * float(change.norm() * move.norm()):
                    steps = (*steps, (move, change))[-_MEMORY:]
                    scale = bend / float(change @ group.solve(metric, change))
                else:
                    scale = min(2.0 * scale, 1.0 / LEAST_CURVATURE)
                return Place(matrix, free, local, steps, scale, _is_flat(after, tol))
            length /= 2
    return place._replace(settled=True)  # nothing is lower but for rounding


def pass_over(
    part: PartFunction,
    group: MatrixGroup,
    place: Place,
    batches: Iterable[tuple[Tensor, float]],
    n_before: float,
) -> tuple[Tensor, Tensor, float]:
    """The matrix and t after a pass over ``batches``, and the number of batches so far.

    A batch comes with its size as a share of a whole one.
    """
    matrix, free, metric = place.matrix, place.free, group.metric(place.local)
    for rows, share in batches:
        n_before += share
        local = part(rows, matrix, free)
        metric = metric + _PACE * share * (group.metric(local) - metric)
        rate = share * max(n_before, 1.0) ** -_FORGETTING
        move = -rate * group.solve(metric, group.gradient(local), _LEAST_OF_BATCHES)
        move = move * min(1.0, _LONGEST / max(float(move.abs().amax()), 1e-300))
        matrix, free = group.moved(matrix, free, move)
    return matrix, free, n_before


def promise(group: MatrixGroup, place: Place) -> float:
    """By how much a step of L-BFGS would lower the loss, if it were the parabola of its metric."""
    gradient = group.gradient(place.local)
    return 0.5 * float(gradient @ group.solve(group.metric(place.local), gradient))


def _is_flat(gradient: Tensor, tol: float) -> bool:
    # One matrix entry and no numbers beside it: there is nothing to move.
    return not len(gradient) or float(gradient.abs().amax()) <= tol


def _direction(
    gradient: Tensor,
    solve: Callable[[Tensor], Tensor],
    steps: tuple[tuple[Tensor, Tensor], ...],
    scale: float,
) -> Tensor:
    """Minus the inverse metric times the gradient: the two loops of L-BFGS."""
    rest, weights = gradient.clone(), []
    for move, change in reversed(steps):
        weight = (move @ rest) / (move @ change)
        rest -= weight * change
        weights.append(weight)
    rest = scale * solve(rest)
    for (move, change), weight in zip(steps, reversed(weights), strict=True):
        rest += (weight - (change @ rest) / (move @ change)) * move
    return -rest
