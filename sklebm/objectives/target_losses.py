r"""Losses on the energies F(x, y) of real targets, in the coordinates g of ``TargetEnergy``.

    nll             F(x, g) + log int exp(-F(x, g')) dg'
    nce             S(-G(x, g)) + k E_q S(G(x, g')),   G = -F - log(k q)
    score matching  |dF/dg|^2 / 2 - sum_i d^2F/dg_i^2

with S(u) = log(1 + e^u). The integral is a sum over strata with one random point each, half of them
even and half ever finer towards the target: peaks that the energy forms at targets are seen,
however sharp they are, and cannot grow unnoticed between points. Where y has several numbers, it is
a sum over draws from a wide Gaussian q. The second learns energies whose integral
is 1; the third needs no integral at all.

F. K. Gustafsson, M. Danelljan, R. Timofte and T. B. Schon, "How to train your energy-based model
for regression", BMVC 2020; A. Hyvarinen, "Estimation of non-normalized statistical models by score
matching", JMLR 6, 2005.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sklebm._checks import check_counts
from sklebm.objectives.base import Batch, Objective, ObjectiveState
from sklebm.objectives.label_losses import weighted_mean

#: Standard deviation of the Gaussian q in units of g, whose spread over the training rows is 1.
NOISE_SCALE = 1.5

#: Even strata end here; those around the target begin at the second distance.
_NEAR, _FINEST = 8.0, 1e-3


def draw_noise(n_rows: int, k: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """k draws from q for each row, (n, k, m)."""
    noise = like.new_empty((n_rows, k, like.shape[-1])).normal_(generator=generator)
    return NOISE_SCALE * noise


def noise_log_density(g: Tensor) -> Tensor:
    """log q, without the last dimension of g."""
    constant = math.log(NOISE_SCALE * math.sqrt(2 * math.pi))
    return (-0.5 * (g / NOISE_SCALE).square() - constant).sum(dim=-1)


def _targets(batch: Batch) -> Tensor:
    """The coordinates g, (n, m)."""
    if batch.target is None:
        raise ValueError("A loss on targets needs a batch with targets.")
    return batch.target


@dataclass(frozen=True)
class TargetLoss(Objective):
    """A loss on the energies of the targets of each row."""

    needs: ClassVar[tuple[str, ...]] = ("target_energy",)
    #: Whether a constant that is added to the energy changes the loss.
    learns_level: ClassVar[bool] = False


@dataclass(frozen=True)
class TargetLikelihood(TargetLoss):
    """Minus the log density of the target given the row.

    Parameters
    ----------
    n_points : int, default=64
        Points of the integral for each row and update.
    """

    n_points: int = 64

    def __post_init__(self) -> None:
        check_counts(self, "n_points")

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Weighted mean of F(x, g) + log Z(x)."""
        x, g = batch.x, _targets(batch)
        points, log_weight = self._points(energy, g, generator)
        every = energy.target_energy(x, torch.cat([g[:, None], points], dim=1))
        log_z = torch.logsumexp(log_weight - every[:, 1:], dim=1)
        return weighted_mean(batch, every[:, 0] + log_z), state

    def _points(self, energy: Any, g: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Points (n, k, m) and the logarithms of their weights."""
        k = self.n_points
        if g.shape[1] > 1:
            points = draw_noise(len(g), k, g, generator)
            return points, -noise_log_density(points) - math.log(k)
        uniform = g.new_empty((len(g), k)).uniform_(generator=generator)
        n_even, reach = k // 2, float(energy.reach)
        near = min(reach, _NEAR)
        places = torch.arange(k, dtype=g.dtype, device=g.device)
        even = near * (2.0 * (places[:n_even] + uniform[:, :n_even]) / max(n_even, 1) - 1.0)
        # Around the target: log |g' - g| is spread evenly, up to all that is in reach.
        spread = torch.log1p((reach + g.abs()) / _FINEST)
        share = 2.0 * (places[: k - n_even] + uniform[:, n_even:]) / (k - n_even) - 1.0
        around = g + share.sign() * _FINEST * torch.expm1(share.abs() * spread)
        points = torch.cat([even, around], dim=1)
        density = 0.5 * (k - n_even) / (spread * ((points - g).abs() + _FINEST))
        density = density + (0.5 * n_even / near) * (points.abs() <= near)
        return points[:, :, None], -density.log()


@dataclass(frozen=True)
class TargetNoiseContrastive(TargetLoss):
    """Tell the target from Gaussian noise: the energies learn to be normalised.

    Parameters
    ----------
    n_noise : int, default=32
        Noise for each row and update.
    """

    n_noise: int = 32
    learns_level: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_counts(self, "n_noise")

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Weighted mean of S(-G(x, g)) + sum_j S(G(x, g_j))."""
        g = _targets(batch)
        points = torch.cat([g[:, None], draw_noise(len(g), self.n_noise, g, generator)], dim=1)
        ratios = -energy.target_energy(batch.x, points) - noise_log_density(points)
        ratios = ratios - math.log(self.n_noise)
        values = softplus(-ratios[:, 0]) + softplus(ratios[:, 1:]).sum(dim=1)
        return weighted_mean(batch, values), state


@dataclass(frozen=True)
class TargetScoreMatching(TargetLoss):
    """Zero slope and high curvature of F(x, .) at the targets.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import EnergyRegressor
    >>> from sklebm.objectives import TargetScoreMatching
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(-1, 1, (300, 1))
    >>> y = X[:, 0] + 0.3 * rng.standard_normal(300)
    >>> objective = TargetScoreMatching()
    >>> model = EnergyRegressor((), objective=objective, max_epochs=20, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.5
    True
    """

    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Weighted mean of |dF|^2 / 2 - lap F."""
        with torch.enable_grad():
            g = _targets(batch).detach().requires_grad_()
            total = energy.target_energy(batch.x, g[:, None]).sum()
            (slope,) = torch.autograd.grad(total, g, create_graph=True)
            values = 0.5 * slope.square().sum(dim=1)
            for index in range(g.shape[1]):
                (bend,) = torch.autograd.grad(slope[:, index].sum(), g, create_graph=True)
                values = values - bend[:, index]
        return weighted_mean(batch, values), state
