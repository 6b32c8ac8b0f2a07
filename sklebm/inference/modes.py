"""Climbing log p: each row descends the gradient of F with its own step size."""

from __future__ import annotations

import torch
from torch import Tensor

from sklebm.energies.base import FreeEnergy
from sklebm.inference.chains import energy_and_gradient

# A step that succeeds may be longer next time; one that fails is halved.
_GROWTH, _SHRINKAGE = 1.3, 0.5
_LOOK_EVERY = 25


def descend(
    energy: FreeEnergy, x: Tensor, *, step_size: float, max_iter: int, tol: float
) -> Tensor:
    """Local minimum of F reached from each row, (n, d). O(max_iter) gradients.

    F falls at every step that is taken. A row rests once its gradient is at most ``tol``; rows do
    not depend on each other.
    """
    value, gradient = energy_and_gradient(energy, x)
    step = torch.full_like(value, step_size)
    for index in range(max_iter):
        moving = gradient.square().sum(dim=1) > tol**2
        if index % _LOOK_EVERY == 0 and not bool(moving.any()):
            break
        proposal = x - step[:, None] * gradient
        new_value, new_gradient = energy_and_gradient(energy, proposal)
        lower = moving & (new_value <= value)
        x = torch.where(lower[:, None], proposal, x)
        gradient = torch.where(lower[:, None], new_gradient, gradient)
        value = torch.where(lower, new_value, value)
        step = step * torch.where(lower, _GROWTH, _SHRINKAGE)
    return x
