r"""F(x) = 1/2 (x - m)' P (x - m), log Z = 1/2 (d log 2 pi - log det P): by precision.

With the Cholesky factor P = L L' the latent z = L' (x - m) is white, and F(x) = |z|^2 / 2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class PrecisionEnergy(nn.Module):
    """Quadratic energy with any positive definite precision.

    Parameters
    ----------
    location : Tensor of shape (n_features,)
        The point of minimum energy m.
    factor : Tensor of shape (n_features, n_features)
        Lower Cholesky factor L of the precision.
    """

    location: Tensor
    factor: Tensor

    def __init__(self, location: Tensor, factor: Tensor) -> None:
        super().__init__()
        self.register_buffer("location", location)
        self.register_buffer("factor", factor)

    def free_energy(self, x: Tensor) -> Tensor:
        """F(x) of shape (n_rows,), without the normaliser. O(n d^2)."""
        return 0.5 * self.whiten(x).square().sum(dim=1)

    def whiten(self, x: Tensor) -> Tensor:
        """z = L' (x - m) for each row, (n_rows, d)."""
        return (x - self.location) @ self.factor

    def unwhiten(self, z: Tensor) -> Tensor:
        """The rows that ``whiten`` maps to ``z``, (n_rows, d)."""
        solved: Tensor = torch.linalg.solve_triangular(self.factor, z, upper=False, left=False)
        return self.location + solved

    def precision(self) -> Tensor:
        """P = L L', (n_features, n_features)."""
        return self.factor @ self.factor.T

    def log_density(self, x: Tensor) -> Tensor:
        """log p(x) of shape (n_rows,)."""
        return -self.free_energy(x) - self.log_partition()

    def sample(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Independent draws, (n_rows, d)."""
        shape, like = (n_rows, len(self.location)), self.location
        white = torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
        return self.unwhiten(white)

    def log_partition(self) -> float:
        """log Z in nats."""
        log_determinant = 2.0 * float(self.factor.diagonal().log().sum())
        return 0.5 * (len(self.location) * math.log(2 * math.pi) - log_determinant)
