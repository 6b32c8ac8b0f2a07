r"""Learn to tell data from noise: a logistic regression whose log odds are the log density ratio.

Against nu points y of a known density q for each row,

    J = E_x S(-G(x)) + nu E_y S(G(y)),     G(u) = -F(u) - log Z - log q(u) - log nu,

with S(u) = log(1 + e^u) and log Z as one more parameter: at the optimum -F - log Z is the log
density of the data. Conditional noise y = x + s e is a noisy copy of the row itself; with symmetric
noise both q and log Z cancel,

    J = E_x E_y S(F(x) - F(y)) = log 2 + s^2 / 4 (score matching) + O(s^4).

M. U. Gutmann and A. Hyvarinen, "Noise-contrastive estimation of unnormalized statistical models,
with applications to natural image statistics", Journal of Machine Learning Research 13, 2012;
C. Ceylan and M. U. Gutmann, "Conditional noise-contrastive estimation of unnormalised models", ICML
2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sklebm._checks import check_counts, check_number
from sklebm.objectives.base import Batch, Objective, ObjectiveState
from sklebm.objectives.noise_contrastive import MarginalMasses, logistic_loss


@dataclass(frozen=True)
class ReferenceNoiseContrastive(MarginalMasses):
    """Noise-contrastive estimation: rows against a Gaussian with their mean and covariance.

    Learns log Z beside the energy. The noise must reach wherever the data are; in many dimensions
    it is told apart too easily, and little is learnt.

    Parameters
    ----------
    n_noise : int, default=4
        Number nu of noise points for each row.
    """

    n_noise: int = 4

    needs: ClassVar[tuple[str, ...]] = ("free_energy", "reference", "log_partition")
    learns_log_partition: ClassVar[bool] = True

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean loss of telling a row and its noise points apart, in nats."""
        x = batch.x
        with torch.no_grad():
            noise = energy.reference.draw(self.n_noise * len(x), generator)
            log_q = [energy.reference.log_density(points) for points in (x, noise)]
        offset = math.log(self.n_noise) + energy.log_partition
        of_data, of_noise = self.log_masses(energy, x, noise, generator)
        of_data, of_noise = of_data - log_q[0] - offset, of_noise - log_q[1] - offset
        return logistic_loss(of_data, of_noise), state


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
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean loss of telling rows from noisy copies, in nats."""
        x = batch.x
        copies = x.repeat(self.n_noise, 1)
        noise = torch.empty_like(copies).normal_(generator=generator)
        moved = copies + self.noise_scale * energy.reference.scale() * noise
        return conditional_loss(energy, x, moved), state


def conditional_loss(energy: Any, x: Tensor, moved: Tensor) -> Tensor:
    """Mean of S(F(x) - F(y)) over rows x and their copies y, which come in blocks of len(x)."""
    energies = energy.free_energy(torch.cat([x, moved]))
    gaps = energies[: len(x)].repeat(len(moved) // len(x)) - energies[len(x) :]
    return softplus(gaps).mean()
