"""The free energy of targets, with their latents minimised or summed out, as a loss.

A latent that is found by descent is held fixed while the parameters follow: the gradient of a
minimum is that of the energy at the minimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sklebm.objectives.base import Batch, Objective, ObjectiveState
from sklebm.objectives.label_losses import weighted_mean


@dataclass(frozen=True)
class FreeEnergyLoss(Objective):
    """F(x, y), which needs no negatives: finitely many latents have low energy at few targets only.

    At finite beta it is minus the log density over beta, up to a constant.
    """

    needs: ClassVar[tuple[str, ...]] = ("target_free_energy",)
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: Any
    ) -> tuple[Tensor, ObjectiveState]:
        """Weighted mean of F; rows without targets are their own."""
        g = batch.x if batch.target is None else batch.target
        return weighted_mean(batch, energy.target_free_energy(batch.x, g)), state


@dataclass(frozen=True)
class InferredLatentLoss(Objective):
    """E(x, y, z) at the z of a short descent; an encoder learns from that z as well."""

    needs: ClassVar[tuple[str, ...]] = ("fitted_latent",)
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: Any
    ) -> tuple[Tensor, ObjectiveState]:
        """Weighted mean of E; rows without targets are their own."""
        g = batch.x if batch.target is None else batch.target
        z = energy.fitted_latent(batch.x, g)
        return weighted_mean(batch, energy.energy(batch.x, g, z)), state


@dataclass(frozen=True)
class NoisyLatentLoss(Objective):
    """The cost of an answer decoded from z and noise, and R(z): one draw for each row.

    Parameters
    ----------
    scale : float
        Standard deviation of the noise.
    """

    scale: float

    needs: ClassVar[tuple[str, ...]] = ("noisy_energy",)
    is_stochastic: ClassVar[bool] = True
    loss_is_comparable: ClassVar[bool] = False

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Weighted mean over rows."""
        g = batch.x if batch.target is None else batch.target
        noise = g.new_empty((len(g), energy.latents.shape[1])).normal_(generator=generator)
        return weighted_mean(batch, energy.noisy_energy(batch.x, g, self.scale * noise)), state
