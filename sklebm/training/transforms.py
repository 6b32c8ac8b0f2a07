r"""Transforms of gradients before a step, and projections of parameters after it.

A *gradient transform* turns the gradients of a batch into steps,

    (g, state) <- update(g, batch, state, share),

as in optax: it is a function of the gradients, the batch and its own state, which the engine
carries from step to step. A *projection* maps the parameters back into the set that the model
allows, such as rows of unit length, after every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from sklebm.energies.gradients import Gradients
from sklebm.objectives import Batch

#: Tensors and counters that a transform carries from one step to the next.
TransformState = dict[str, Any]

#: Maps the parameters back into the set that the model allows, in place.
Projection = Callable[[], None]


class GradientTransform(Protocol):
    """A transform of the gradients of one player."""

    def init(self) -> TransformState:
        """The state before the first step."""

    def update(
        self, gradients: Gradients, batch: Batch, state: TransformState, share: float
    ) -> tuple[Gradients, TransformState]:
        """The steps that replace the gradients, and the new state.

        Each gradient is paired with its parameter: either the tensor that autograd stored, which
        may be overwritten, or the factors of a product, whose first rows belong to the batch.
        ``share`` is the batch size relative to a full batch, at most 1. Several processes average
        the tensors of the state.
        """


def tensors_of(state: TransformState) -> list[tuple[str, Tensor]]:
    """The floating-point tensors in a state, by name."""
    return [
        (name, value)
        for name, value in state.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    ]
