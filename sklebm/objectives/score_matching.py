r"""Match the derivatives of the log density by the data, in which no normaliser is left.

    exact:      min E sum_i [psi_i(x)^2 / 2 + d psi_i(x) / dx_i],       psi = d log p / dx
    denoising:  min E |psi(x + s e) + e / s|^2 / 2,                     e ~ N(0, I)

A. Hyvarinen, "Estimation of non-normalized statistical models by score matching", Journal of
Machine Learning Research 6, 2005; P. Vincent, "A connection between score matching and denoising
autoencoders", Neural Computation 23, 2011.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sklebm.objectives.base import Objective, ObjectiveState

_REASON = "differentiates log p by the features"


@dataclass(frozen=True)
class ScoreMatching(Objective):
    """Exact score matching: zero gradient and high curvature of F at the data.

    A step costs O(n d k) for n rows, no chains and no noise. Consistent if the data come from
    the model.
    """

    needs: ClassVar[tuple[str, ...]] = ("score",)
    domain: ClassVar[str | None] = "real"
    domain_reason: ClassVar[str] = _REASON
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def loss(
        self, energy: Any, x: Tensor, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean over the rows of the squared score, halved, and the divergence."""
        first, second = energy.score(x)
        return (0.5 * first.square() + second).sum(dim=1).mean(), state


@dataclass(frozen=True)
class DenoisingScoreMatching(Objective):
    """Score matching of the data with Gaussian noise added, by undoing the noise.

    Learns the density of the noisy data, which is smoother than that of the data.

    Parameters
    ----------
    noise_scale : float, default=0.3
        Standard deviation s of the noise, in the units of the rows.
    """

    noise_scale: float = 0.3

    needs: ClassVar[tuple[str, ...]] = ("score",)
    domain: ClassVar[str | None] = "real"
    domain_reason: ClassVar[str] = _REASON

    def __post_init__(self) -> None:
        if not 0.0 < self.noise_scale < math.inf:
            raise ValueError(
                f"{type(self).__name__}: noise_scale={self.noise_scale!r} must be a positive "
                "number."
            )

    def loss(
        self, energy: Any, x: Tensor, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean over the rows of half the squared distance between the score and the noise's."""
        noise = torch.empty_like(x).normal_(generator=generator)
        first, _ = energy.score(x + self.noise_scale * noise)
        return 0.5 * (first + noise / self.noise_scale).square().sum(dim=1).mean(), state
