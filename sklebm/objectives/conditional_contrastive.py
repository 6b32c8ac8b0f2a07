r"""Tell rows from noisy copies of themselves, y = x + s e: neither a density nor log Z is needed.

With symmetric noise both cancel from the log odds,

    J = E_x E_y S(F(x) - F(y)) = log 2 + s^2 / 4 (score matching) + O(s^4),     S(u) = log(1 + e^u).

C. Ceylan and M. U. Gutmann, "Conditional noise-contrastive estimation of unnormalised models", ICML
2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sklebm._checks import check_counts, check_number
from sklebm.energies.base import FreeEnergy, ReferencedEnergy
from sklebm.objectives.base import Batch, Objective, ObjectiveState


@dataclass(frozen=True)
class ConditionalNoiseContrastive(Objective):
    """Rows against noisy copies of themselves: neither a noise density nor log Z is needed.

    Blind, like score matching, to the relative weights of modes that the noise does not bridge.

    Parameters
    ----------
    n_noise : int, default=4
        Noisy copies of each row.
    noise_scale : float, default=0.3
        Standard deviation s of the noise, in units of the root mean variance of the features.
    """

    n_noise: int = 4
    noise_scale: float = 0.3

    needs: ClassVar[tuple[str, ...]] = ("free_energy", "reference")

    def __post_init__(self) -> None:
        check_counts(self, "n_noise")
        check_number(self.noise_scale, "noise_scale", self)

    def loss(
        self,
        energy: ReferencedEnergy,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean loss of distinguishing rows from noisy copies, in nats."""
        x = batch.x
        copies = x.repeat(self.n_noise, 1)
        noise = torch.empty_like(copies).normal_(generator=generator)
        moved = copies + self.noise_scale * energy.reference.scale() * noise
        return conditional_loss(energy, x, moved, batch), state


def conditional_loss(
    energy: FreeEnergy, x: Tensor, moved: Tensor, batch: Batch | None = None
) -> Tensor:
    """Mean of S(F(x) - F(y)) over rows x and their copies y, which come in blocks of len(x)."""
    energies = energy.free_energy(torch.cat([x, moved]))
    gaps = energies[: len(x)].repeat(len(moved) // len(x)) - energies[len(x) :]
    if batch is None or batch.weight is None:
        return softplus(gaps).mean()
    return batch.mean(softplus(gaps).view(-1, len(x)).mean(dim=0))
