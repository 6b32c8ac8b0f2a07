r"""E(x, z) = 1/2 |x - m - V'z|^2, V orthonormal rows: F(x) = min_z E is the projection's error.

The minimum is at z = V (x - m). E has no normaliser: it is flat along the subspace. The Gaussian
associated with it has a variance along each direction, and another for all orthogonal ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklebm.energies.gaussian import QuadraticEnergy


class SubspaceEnergy(nn.Module):
    """Half the squared distance to a plane.

    Parameters
    ----------
    mean : Tensor of shape (n_features,)
        A point m of the plane.
    directions : Tensor of shape (n_directions, n_features)
        Orthonormal rows V that span it.
    gaussian : QuadraticEnergy
        The probabilistic form.
    """

    mean: Tensor
    directions: Tensor

    def __init__(self, mean: Tensor, directions: Tensor, gaussian: QuadraticEnergy) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("directions", directions)
        self.gaussian = gaussian

    def project(self, x: Tensor) -> Tensor:
        """z = V (x - m) for each row, (n_rows, n_directions)."""
        return (x - self.mean) @ self.directions.T

    def decode(self, z: Tensor) -> Tensor:
        """The points of the plane, (n_rows, n_features)."""
        return torch.addmm(self.mean, z, self.directions)

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z) for each pair of rows, (n_rows,)."""
        # Centred first: the sum m + V'z would round away anything small compared to m.
        return 0.5 * ((x - self.mean) - z @ self.directions).square().sum(dim=1)

    def free_energy(self, x: Tensor) -> Tensor:
        """F(x) = min_z E(x, z) of shape (n_rows,). O(n d q)."""
        return self.energy(x, self.project(x))

    def log_density(self, x: Tensor) -> Tensor:
        """Log density of the probabilistic form, (n_rows,)."""
        return self.gaussian.log_density(x)
