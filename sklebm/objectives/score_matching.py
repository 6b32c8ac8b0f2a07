r"""Zero slope and high curvature of F at the data: score matching, without a normaliser.

    J = E_x [ |dF(x)|^2 / 2 - lap F(x) ],

which differs from half the expected squared distance between the scores -dF of model and data by a
constant. In d dimensions the Laplacian costs d backward passes, so for wide rows it is projected on
random vectors v with E[v v'] = I,

    J = E_x E_v [ |dF(x)|^2 / 2 - v' d^2F(x) v ],

or corrupted rows y = x + s e, e standard normal, whose score is known (denoising):

    J = E_x E_e [ |dF(y) - e / s|^2 / 2 ].

A. Hyvarinen, "Estimation of non-normalized statistical models by score matching", Journal of
Machine Learning Research 6, 2005; Y. Song, S. Garg, J. Shi and S. Ermon, "Sliced score matching: a
scalable approach to density and score estimation", UAI 2019; P. Vincent, "A connection between
score matching and denoising autoencoders", Neural Computation 23(7), 2011.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sklebm._checks import check_counts, check_number
from sklebm.energies.base import FreeEnergy
from sklebm.objectives.base import Batch, Objective, ObjectiveState

_REASON = "differentiates log p with respect to the features"


def gradient(energy: FreeEnergy, x: Tensor) -> Tensor:
    """dF at each row, (n, d), as a function of the energy's parameters."""
    (slope,) = torch.autograd.grad(energy.free_energy(x).sum(), x, create_graph=True)
    return slope


def gradient_and_laplacian(energy: FreeEnergy, x: Tensor) -> tuple[Tensor, Tensor]:
    """dF (n, d) and the trace of its derivative (n,), by d further backward passes."""
    x = x.detach().requires_grad_()
    slope = gradient(energy, x)
    n_rows, n_features = x.shape
    eye = torch.eye(n_features, dtype=x.dtype, device=x.device)
    if not slope.requires_grad:  # F is linear
        return slope, torch.zeros_like(slope[:, 0])
    # Rows do not interact: one pass for e_i gives column i of the Hessians of all rows.
    laplacian = torch.zeros_like(slope[:, 0])
    for index in range(n_features):
        direction = eye[index].expand(n_rows, -1)
        (column,) = torch.autograd.grad(
            slope, x, direction, create_graph=True, materialize_grads=True
        )
        laplacian = laplacian + column[:, index]
    return slope, laplacian


def projected_curvature(energy: FreeEnergy, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """dF (n, d) and v_i' d^2F(x_i) v_i (n,), by one further backward pass."""
    x = x.detach().requires_grad_()
    slope = gradient(energy, x)
    if not slope.requires_grad:
        return slope, torch.zeros_like(slope[:, 0])
    (product,) = torch.autograd.grad(slope, x, v, create_graph=True, materialize_grads=True)
    return slope, (product * v).sum(dim=1)


@dataclass(frozen=True)
class ScoreMatching(Objective):
    """Exact score matching: half the squared slope of F minus its Laplacian, at the data.

    Closed forms for machines and for smooth networks of affine maps, where a step costs at most
    O(n d P) for P weights; d + 1 backward passes otherwise. No chains and no noise. Consistent if
    the data come from the model, but blind to the relative weights of modes separated by empty
    space: for these, prefer an objective with negatives.
    """

    needs: ClassVar[tuple[str, ...]] = ("free_energy",)
    domain: ClassVar[str | None] = "real"
    domain_reason: ClassVar[str] = _REASON
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean of |dF|^2 / 2 - lap F."""
        x = batch.x
        if hasattr(energy, "score"):
            first, second = energy.score(x)
            return batch.mean((0.5 * first.square() + second).sum(dim=1)), state
        if getattr(energy, "has_closed_derivatives", False):
            slope, laplacian = energy.gradient_and_laplacian(x)
        else:
            with torch.enable_grad():
                slope, laplacian = gradient_and_laplacian(energy, x)
        return batch.mean(0.5 * slope.square().sum(dim=1) - laplacian), state


@dataclass(frozen=True)
class SlicedScoreMatching(Objective):
    """Score matching with the Laplacian projected on random signs: unbiased, for wide rows.

    Parameters
    ----------
    n_projections : int, default=1
        Random vectors for each row. A step takes 2 + n_projections passes, whatever the width.
    """

    n_projections: int = 1

    needs: ClassVar[tuple[str, ...]] = ("free_energy",)
    domain: ClassVar[str | None] = "real"
    domain_reason: ClassVar[str] = _REASON

    def __post_init__(self) -> None:
        check_counts(self, "n_projections")

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean of |dF|^2 / 2 - v' d^2F v over rows and projections."""
        x = batch.x
        rows = x.repeat(self.n_projections, 1)
        signs = torch.empty_like(rows).uniform_(-1.0, 1.0, generator=generator).sign()
        with torch.enable_grad():
            slope, curvature = projected_curvature(energy, rows, signs)
        values = 0.5 * slope.square().sum(dim=1) - curvature
        return batch.mean(values.view(self.n_projections, -1).mean(dim=0)), state


@dataclass(frozen=True)
class DenoisingScoreMatching(Objective):
    """Match the score of the data smoothed by Gaussian noise: -dF points from noisy rows to clean.

    It learns the density of the rows plus noise, not that of the rows.

    Parameters
    ----------
    noise_scale : float, default=0.3
        Standard deviation s of the noise, in the units of the rows.
    """

    noise_scale: float = 0.3

    needs: ClassVar[tuple[str, ...]] = ("free_energy",)
    domain: ClassVar[str | None] = "real"
    domain_reason: ClassVar[str] = _REASON

    def __post_init__(self) -> None:
        check_number(self.noise_scale, "noise_scale", self)

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean of |dF(x + s e) - e / s|^2 / 2."""
        x = batch.x
        noise = torch.empty_like(x).normal_(generator=generator)
        moved = x + self.noise_scale * noise
        if hasattr(energy, "score"):
            slope = -energy.score(moved)[0]
        else:
            with torch.enable_grad():
                slope = gradient(energy, moved.requires_grad_())
        return 0.5 * batch.mean((slope - noise / self.noise_scale).square().sum(dim=1)), state
