r"""Known reference densities, easy to draw from and to evaluate: ``energy.reference``.

    q(x) = N(x; m, L L'),      or  q(v) = prod_i exp(-U_i(v_i; b_i)) / Z_i   for units of any kind.

They serve as the noise that a model learns to distinguish from data, as the start of chains, and as
the initial density of annealing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sklebm.energies.units import Units


class ReferenceGaussian(nn.Module):
    """A Gaussian by its mean and a lower triangular factor of its covariance.

    Parameters
    ----------
    mean : Tensor of shape (n_features,)
        The mean m.
    factor : Tensor of shape (n_features, n_features)
        Lower triangular L with a positive diagonal.
    """

    mean: Tensor
    factor: Tensor

    def __init__(self, mean: Tensor, factor: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("factor", factor)

    def draw(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Independent draws, (n_rows, d). O(n d^2)."""
        white = torch.empty(
            (n_rows, len(self.mean)), dtype=self.mean.dtype, device=self.mean.device
        )
        return torch.addmm(self.mean, white.normal_(generator=generator), self.factor.T)

    def log_density(self, x: Tensor) -> Tensor:
        """log q(x) in nats, (n_rows,). O(n d^2)."""
        white = torch.linalg.solve_triangular(self.factor, (x - self.mean).T, upper=False)
        log_determinant = self.factor.diagonal().log().sum()
        constant = 0.5 * len(self.mean) * math.log(2 * math.pi) + log_determinant
        log_density: Tensor = -0.5 * white.square().sum(dim=0) - constant
        return log_density

    def free_energy(self, x: Tensor) -> Tensor:
        """-log q(x), so that the density is an energy whose normaliser is 1."""
        return -self.log_density(x)

    def stretched(self, factor: float) -> ReferenceGaussian:
        """The density of draws moved away from the mean by a factor."""
        return ReferenceGaussian(self.mean, factor * self.factor)

    def scale(self) -> Tensor:
        """Root of the mean variance of a feature, a scalar."""
        return self.factor.square().sum(dim=1).mean().sqrt()


class ReferenceUnits:
    """Independent units: the visible layer of a machine without its hidden units.

    Parameters
    ----------
    units : Units
        The units, whose biases are those of the density.
    """

    def __init__(self, units: Units) -> None:
        self.units = units
        self.bias = units.bias.detach()

    def draw(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Independent draws, (n_rows, d)."""
        with torch.no_grad():
            mean = self.units.mean(self.bias).expand(n_rows, -1).contiguous()
            return self.units.draw(mean, generator)

    def log_density(self, x: Tensor) -> Tensor:
        """log q(x) in nats, (n_rows,)."""
        with torch.no_grad():
            return -self.units.energy(x, self.bias) - self.units.log_partition(self.bias).sum()

    def free_energy(self, x: Tensor) -> Tensor:
        """-log q(x), so that the density is an energy whose normaliser is 1."""
        return -self.log_density(x)

    def scale(self) -> Tensor:
        """Root of the mean variance of a unit, a scalar."""
        with torch.no_grad():
            return self.units.variance(self.bias).mean().sqrt()
