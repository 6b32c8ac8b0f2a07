r"""F(x) = 1/2 (x - m)' P (x - m) with P = V' diag(1/v) V + (I - V'V) / s: a Gaussian energy.

V holds orthonormal directions (rows) of variance v; all other directions share the variance s.
log Z = 1/2 (d log 2 pi + sum log v + (d - q) log s) exactly.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class QuadraticEnergy(nn.Module):
    """Half the squared Mahalanobis distance under a principal-component covariance.

    Parameters
    ----------
    mean : Tensor of shape (n_features,)
        The point of minimum energy m.
    directions : Tensor of shape (n_directions, n_features)
        Orthonormal rows V.
    variances : Tensor of shape (n_directions,)
        Positive variances v along V.
    residual_variance : float
        Positive variance s of the directions orthogonal to V; unused if there are none.
    """

    mean: Tensor
    directions: Tensor
    variances: Tensor

    def __init__(
        self, mean: Tensor, directions: Tensor, variances: Tensor, residual_variance: float
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("directions", directions)
        self.register_buffer("variances", variances)
        self.residual_variance = residual_variance

    def free_energy(self, x: Tensor) -> Tensor:
        """F(x) of shape (n_rows,), without the normaliser. O(n d q)."""
        centred = x - self.mean
        coordinates = centred @ self.directions.T
        energy = (coordinates.square() / self.variances).sum(dim=1)
        if len(self.directions) < len(self.mean):
            # By explicit subtraction: |x|^2 - |Vx|^2 would cancel for rows near the subspace.
            residual = centred - coordinates @ self.directions
            energy = energy + residual.square().sum(dim=1) / self.residual_variance
        return 0.5 * energy

    def log_density(self, x: Tensor) -> Tensor:
        """log p(x) of shape (n_rows,)."""
        return -self.free_energy(x) - self.log_partition()

    def whiten(self, x: Tensor) -> Tensor:
        """Coordinates along the directions in units of their standard deviation, (n_rows, q)."""
        return ((x - self.mean) @ self.directions.T) / self.variances.sqrt()

    def unwhiten(self, z: Tensor) -> Tensor:
        """The point of minimum energy that ``whiten`` maps to ``z``, (n_rows, d)."""
        return torch.addmm(self.mean, z * self.variances.sqrt(), self.directions)

    def whiten_in_place(self, x: Tensor, rest: float) -> Tensor:
        """``whiten``, rotated back; the part outside the directions times ``rest``, (n_rows, d)."""
        centred = x - self.mean
        scale = self.variances.rsqrt() - rest
        return torch.addmm(rest * centred, (centred @ self.directions.T) * scale, self.directions)

    def unwhiten_in_place(self, z: Tensor, rest: float) -> Tensor:
        """The row that is whitened to ``z``; if ``rest`` is 0, the one of minimum energy."""
        undone = 1.0 / rest if rest else 0.0
        scale = self.variances.sqrt() - undone
        along = (z @ self.directions.T) * scale
        return torch.addmm(self.mean + undone * z, along, self.directions)

    def sample(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Independent draws, (n_rows, d). O(n d q)."""
        shape = (n_rows, len(self.mean))
        white = torch.randn(
            shape, generator=generator, dtype=self.mean.dtype, device=self.mean.device
        )
        rest = (
            self.residual_variance**0.5
        )  # also along the directions, where it is subtracted again
        along = (white @ self.directions.T) * (self.variances.sqrt() - rest)
        return torch.addmm(self.mean + rest * white, along, self.directions)

    def log_partition(self) -> float:
        """log Z in nats."""
        n_features, n_residual = len(self.mean), len(self.mean) - len(self.directions)
        total = n_features * math.log(2 * math.pi) + float(torch.log(self.variances).sum())
        if n_residual:
            total += n_residual * math.log(self.residual_variance)
        return 0.5 * total
