r"""E(x, y, z) = |g - Dec(u, z)|^2 / 2 + R(z): targets explained by finitely many latents.

u is the standardised row, and g = (y - m(x)) / s the residual of a linear part m. The latent z is
one of k branches, or a point of a grid, so that minima and sums over it are exact:

    F(x, y) = min_z E(x, y, z),   or   -1/beta log sum_z p(z) exp(-beta |g - Dec(u, z)|^2 / 2)

with p(z) proportional to exp(-beta R(z)). At finite beta p(y | x) is a mixture of Gaussians of
variance 1/beta around the decoded latents, whose normaliser is known.

Y. LeCun, S. Chopra, R. Hadsell, M. Ranzato and F. J. Huang, "A tutorial on energy-based learning",
2006.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from sklebm.energies.standardization import Standardization

REGULARIZERS = ("none", "l2", "l1", "l0", "effective_dimension")


def regularization(z: Tensor, kind: str, weight: float) -> Tensor:
    """R(z): weight times |z|^2 / 2, the sum of |z_i|, or the number of z_i that are not zero.

    Or the effective dimension, (sum |z_i|)^2 / |z|^2: 0 at zero, 1 if one component is not zero,
    and k if k components are alike, in whatever units.
    """
    if kind == "none" or weight == 0.0:
        return z.new_zeros(z.shape[:-1])
    if kind == "effective_dimension":
        size = z.abs().amax(dim=-1, keepdim=True)
        shares = z / torch.where(size > 0.0, size, 1.0)  # squares of small numbers would vanish
        squares = shares.square().sum(dim=-1)
        return weight * shares.abs().sum(dim=-1).square() / torch.where(squares > 0, squares, 1.0)
    if kind == "l2":
        values = 0.5 * z.square()
    else:
        values = z.abs() if kind == "l1" else (z != 0.0).to(z.dtype)
    return weight * values.sum(dim=-1)


def grid_points(n_components: int, n_points: int, low: float, high: float) -> Tensor:
    """Points of a grid in a cube, (n_points^n_components, n_components), in double precision.

    The middle of a range around 0 is 0 to the last bit, so that it costs nothing in l0.
    """
    steps = torch.arange(1 - n_points, n_points, 2, dtype=torch.float64) / (n_points - 1)
    axis = 0.5 * (low + high) + 0.5 * (high - low) * steps
    points = list(itertools.product(axis.tolist(), repeat=n_components))
    return torch.tensor(points, dtype=torch.float64)


class LatentTargetEnergy(nn.Module):
    """An energy of rows, targets and latents.

    Parameters
    ----------
    network : Module
        Dec. For branches from u (n, d) to the answers of all of them, (n, k m); for a grid from
        [u, z] of shape (n, d + k) to (n, m).
    latents : Tensor of shape (n_latents, k)
        All values of z: unit vectors for branches.
    coef : Tensor of shape (m, d) or (m, 0)
        Slopes of the linear part m(x), in the units of x and y; none if it has none.
    intercept, residual_scale : Tensor of shape (m,)
        m(0), and s: g = (y - m(x)) / s.
    regularizer : str
        One of ``REGULARIZERS``.
    weight : float
        Weight of R.
    beta : float
        Inverse temperature; infinite for the minimum.
    has_branches : bool
        Whether latents choose branches.
    has_rows : bool
        Whether there are rows beside the targets; otherwise the targets are the rows themselves.
    """

    latents: Tensor
    coef: Tensor
    intercept: Tensor
    residual_scale: Tensor
    record: Any
    scaling: Any

    def __init__(
        self,
        network: nn.Module,
        latents: Tensor,
        coef: Tensor,
        intercept: Tensor,
        residual_scale: Tensor,
        *,
        regularizer: str,
        weight: float,
        beta: float,
        has_branches: bool,
        has_rows: bool,
    ) -> None:
        super().__init__()
        self.network, self.regularizer, self.weight = network, regularizer, weight
        self.beta, self.has_branches, self.has_rows = beta, has_branches, has_rows
        self.standardization: Standardization | None = None
        self.register_buffer("latents", latents, persistent=False)  # fitted attributes hold these
        self.register_buffer("coef", coef, persistent=False)
        self.register_buffer("intercept", intercept, persistent=False)
        self.register_buffer("residual_scale", residual_scale, persistent=False)
        # A scale may be too small for single precision; its logarithm is not.
        self._log_scale = float(residual_scale.double().log().sum())

    @property
    def n_outputs(self) -> int:
        """Number m of numbers in y."""
        return len(self.intercept)

    def inputs(self, x: Tensor) -> Tensor:
        """Standardised rows, (n, d)."""
        return x if self.standardization is None else self.standardization(x)

    def mean(self, x: Tensor) -> Tensor:
        """m(x), (n, m)."""
        if not self.coef.shape[1]:
            return self.intercept.expand(len(x), -1)
        return torch.addmm(self.intercept, x, self.coef.T)

    def coordinates(self, x: Tensor, y: Tensor) -> Tensor:
        """g of targets y (n, m)."""
        return (y - self.mean(x)) / self.residual_scale

    def restore(self, x: Tensor, g: Tensor) -> Tensor:
        """Targets of g, (n, m) or (n, j, m)."""
        centre = self.mean(x)
        return (centre if g.dim() == 2 else centre[:, None]) + self.residual_scale * g

    def _seen(self, u: Tensor) -> Tensor:
        """What the network sees beside z: nothing of the row if that is to be explained."""
        return u if self.has_rows else u.new_ones((len(u), 1 if self.has_branches else 0))

    def decode(self, u: Tensor, z: Tensor) -> Tensor:
        """g at the latents z (n, j, k) of each row, (n, j, m)."""
        seen = self._seen(u)
        if self.has_branches:
            answers: Tensor = self.network(seen).view(len(u), z.shape[2], -1)
            return z @ answers
        pairs = torch.cat([seen[:, None].expand(-1, z.shape[1], -1), z], dim=2)
        return self.network(pairs.flatten(0, 1)).view(len(u), z.shape[1], -1)  # type: ignore[no-any-return]

    def answers(self, u: Tensor) -> Tensor:
        """g at all latents, (n, n_latents, m); one row for all if rows are not seen."""
        u = u if self.has_rows else u[:1]
        if self.has_branches:
            return self.network(self._seen(u)).view(len(u), len(self.latents), -1)  # type: ignore[no-any-return]
        return self.decode(u, self.latents.expand(len(u), -1, -1))

    def penalties(self) -> Tensor:
        """R of all latents, (n_latents,)."""
        return regularization(self.latents, self.regularizer, self.weight)

    def log_prior(self) -> Tensor:
        """log p(z) of all latents, (n_latents,); at the minimum that of the least R, alike."""
        penalties = self.penalties()
        if math.isinf(self.beta):
            least = (penalties == penalties.min()).to(penalties.dtype)
            return (least / least.sum()).log()
        return torch.log_softmax(-self.beta * penalties, dim=0)

    def latent_energies(self, u: Tensor, g: Tensor) -> Tensor:
        """E of all latents, (n, n_latents), for one g (n, m) of each row."""
        distance = (g[:, None] - self.answers(u)).square().sum(dim=2)
        return 0.5 * distance + self.penalties()

    def target_free_energy(self, u: Tensor, g: Tensor) -> Tensor:
        """F, (n,)."""
        energies = self.latent_energies(u, g)
        if math.isinf(self.beta):
            return energies.amin(dim=1)
        level = torch.logsumexp(-self.beta * self.penalties(), dim=0)
        return (level - torch.logsumexp(-self.beta * energies, dim=1)) / self.beta

    def explain(self, u: Tensor, g: Tensor) -> Tensor:
        """The latent of lowest energy, (n, k)."""
        return self.latents[self.latent_energies(u, g).argmin(dim=1)]

    def energy(self, u: Tensor, g: Tensor, z: Tensor) -> Tensor:
        """E at one latent (n, k) of each row, (n,)."""
        distance = (g - self.decode(u, z[:, None])[:, 0]).square().sum(dim=1)
        return 0.5 * distance + regularization(z, self.regularizer, self.weight)

    def log_density(self, u: Tensor, g: Tensor) -> Tensor:
        """log p(y | x) in the units of y, (n,), at finite beta."""
        constant = 0.5 * self.n_outputs * math.log(self.beta / (2.0 * math.pi))
        return constant - self.beta * self.target_free_energy(u, g) - self._log_scale

    def integrated(self, x: Tensor) -> Tensor:
        """-1/beta log of the integral of exp(-beta F) over y, the same for all rows, (n,)."""
        if math.isinf(self.beta):
            return x.new_zeros(len(x))
        constant = 0.5 * self.n_outputs * math.log(2.0 * math.pi / self.beta)
        return x.new_zeros(len(x)) - (constant + self._log_scale) / self.beta
