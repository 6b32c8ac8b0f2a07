r"""Losses with gradients in closed form, which bypass autograd."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from sklebm.energies.gradients import Gradients, Product, dense
from sklebm.objectives.base import Batch, Objective, ObjectiveState


class ClosedFormObjective(Objective):
    """An objective with gradients in closed form, for some energies; see ``knows_gradients``."""

    def knows_gradients(self, energy: Any) -> bool:
        """True: there is no other way to compute them."""
        return True

    @abstractmethod
    def gradients(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, Gradients, ObjectiveState]:
        """Return the mean loss of the rows, its gradients and the new state, without a graph."""

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Return the mean loss of the rows, with these gradients as derivatives, and the state."""
        with torch.no_grad():
            value, gradients, state = self.gradients(energy, batch, state, generator)
        return known_gradients(value, gradients), state


def known_gradients(value: Tensor, gradients: Gradients) -> Tensor:
    """The value, with these gradients of parameters as its derivatives under autograd."""
    parameters = [parameter for parameter, _ in gradients]
    known = [gradient for _, gradient in gradients]
    result: Tensor = _KnownGradients.apply(value, known, *parameters)  # type: ignore[no-untyped-call]
    return result


class _KnownGradients(torch.autograd.Function):
    """A value whose derivatives under autograd are the given gradients."""

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
