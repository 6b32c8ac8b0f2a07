r"""Losses whose gradients are known in closed form, which autograd need not derive."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from sklebm.energies.gradients import Gradients, Product, dense
from sklebm.objectives.base import Batch, Objective, ObjectiveState


class ClosedFormObjective(Objective):
    """An objective that knows its gradients, if not for every energy; see ``knows_gradients``."""

    def knows_gradients(self, energy: Any) -> bool:
        """True: it has no other way."""
        return True

    @abstractmethod
    def gradients(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, Gradients, ObjectiveState]:
        """Return the mean loss of the rows, its gradients, and new state; builds no graph."""

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Return the mean loss of the rows, with the gradients as its derivatives, and state."""
        with torch.no_grad():
            value, gradients, state = self.gradients(energy, batch, state, generator)
        parameters = [parameter for parameter, _ in gradients]
        known = [gradient for _, gradient in gradients]
        return _KnownGradients.apply(value, known, *parameters), state  # type: ignore[no-untyped-call]


class _KnownGradients(torch.autograd.Function):
    """A value that autograd derives to the given gradients."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, gradients: list[Tensor | Product], *parameters: Tensor
    ) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        slope = grad_outputs[0]
        return None, None, *(dense(gradient) * slope for gradient in ctx.gradients)
