r"""Clipping of gradients: g <- g min(1, c / |g|), with the norm over all parameters.

R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training recurrent neural networks",
ICML 2013.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sklebm.energies.gradients import Gradients
from sklebm.objectives import Batch
from sklebm.training.transforms import TransformState


@dataclass(frozen=True)
class ClippedNorm:
    """Shortens gradients whose norm over all parameters exceeds ``max_norm``."""

    max_norm: float

    def init(self) -> TransformState:
        """There is no state."""
        return {}

    def update(
        self, gradients: Gradients, batch: Batch, state: TransformState, share: float
    ) -> tuple[Gradients, TransformState]:
        """The gradients, shortened where they are too long; without a transfer from the device."""
        tensors: list[Tensor] = [gradient for _, gradient in gradients]  # type: ignore[misc]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))
        factor = torch.clamp(self.max_norm / (norm + 1e-12), max=1.0)
        return [(p, g.mul_(factor)) for (p, _), g in zip(gradients, tensors, strict=True)], state
