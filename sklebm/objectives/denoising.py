r"""Map corrupted rows back: mean over rows of |x - g(f(x~))|^2, x~ a corrupted copy of x.

Under Gaussian noise of deviation s the best reconstruction r points to where data are,

    (r(x) - x) / s^2 = d/dx log p_s(x),       p_s the density of the data with that noise.

P. Vincent, "A connection between score matching and denoising autoencoders", Neural Computation
23(7), 2011; P. Vincent et al., "Stacked denoising autoencoders", JMLR 11, 2010; K. He et al.,
"Masked autoencoders are scalable vision learners", CVPR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from sklebm.objectives.base import Batch, Objective, ObjectiveState
from sklebm.objectives.reconstruction import squared_error

Corruption = Literal["gaussian", "masking", "salt_pepper"]


def corrupt(x: Tensor, corruption: Corruption, level: float, generator: torch.Generator) -> Tensor:
    """A corrupted copy of the rows.

    "gaussian" adds noise with standard deviation ``level``; "masking" sets a fraction ``level`` of
    the entries to 0; "salt_pepper" sets that fraction to 0 or 1 with equal probability.
    """
    if corruption == "gaussian":
        return torch.empty_like(x).normal_(generator=generator).mul_(level).add_(x)
    uniform = torch.empty_like(x).uniform_(generator=generator)
    if corruption == "masking":
        return x * (uniform >= level)
    noisy = torch.where(uniform < level, (uniform < 0.5 * level).to(x.dtype), x)
    return noisy


@dataclass(frozen=True)
class DenoisingError(Objective):
    """The squared error of reconstructing rows from corrupted copies of themselves.

    Parameters
    ----------
    corruption : {"gaussian", "masking", "salt_pepper"}, default="gaussian"
        How the copies are corrupted.
    level : float, default=0.3
        Standard deviation of the noise, or fraction of the entries that are overwritten.
    """

    corruption: Corruption = "gaussian"
    level: float = 0.3

    needs: ClassVar[tuple[str, ...]] = ("reconstruct",)

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean of |x - g(f(x~))|^2."""
        noisy = corrupt(batch.x, self.corruption, self.level, generator)
        return squared_error(batch, energy.reconstruct(noisy)), state


@dataclass(frozen=True)
class MaskedError(Objective):
    """The squared error of hidden entries, reconstructed from the visible ones.

    ``energy.n_hidden`` patches are hidden in each row, drawn anew at every update.
    """

    needs: ClassVar[tuple[str, ...]] = ("draw_hidden_entries", "hide")

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean over rows of the error on hidden entries, scaled to a whole row."""
        x = batch.x
        hidden = energy.draw_hidden_entries(len(x), generator)
        errors = (x - energy.reconstruct(energy.hide(x, hidden))).square()
        if batch.weight is None:
            return (errors * hidden).sum() / hidden.sum() * x.shape[1], state
        wrong, n_hidden = ((part * hidden).sum(dim=1) for part in (errors, torch.ones_like(x)))
        return batch.mean(wrong) / batch.mean(n_hidden) * x.shape[1], state
