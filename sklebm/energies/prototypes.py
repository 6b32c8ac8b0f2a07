r"""E(x, z) = \|x - z W\|^2 with a one-hot latent z: the energy of k-means.

F_beta(x) = -1/beta log sum_k exp(-beta \|x - w_k\|^2), and F_inf(x) = min_k \|x - w_k\|^2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class PrototypeEnergy(nn.Module):
    """Squared Euclidean distance to the closest of k prototypes.

    Parameters
    ----------
    centers : Tensor of shape (n_clusters, n_features)
        The prototypes w_k.
    """

    centers: Tensor
    _origin: Tensor
    _shifted: Tensor
    _squared_norms: Tensor

    def __init__(self, centers: Tensor) -> None:
        super().__init__()
        # Distances do not depend on the origin, but their rounding errors do: the expansion
        # |x|^2 - 2 x'w + |w|^2 cancels badly when the data lie far from zero.
        origin = centers.mean(dim=0)
        shifted = centers - origin
        self.register_buffer("centers", centers)
        self.register_buffer("_origin", origin)
        self.register_buffer("_shifted", shifted)
        self.register_buffer("_squared_norms", shifted.square().sum(dim=1))

    def squared_distances(self, x: Tensor) -> Tensor:
        """Energies of every one-hot latent: shape (n_rows, n_clusters). O(n d k)."""
        x = x - self._origin
        products = torch.addmm(self._squared_norms, x, self._shifted.T, alpha=-2.0)
        return products.add_(x.square().sum(dim=1, keepdim=True)).clamp_(min=0.0)

    def assign(self, x: Tensor) -> Tensor:
        """Index of the prototype of least energy, shape (n_rows,). O(n d k).

        Raises
        ------
        FloatingPointError
            If an energy overflows: any index would be wrong.
        """
        # |x|^2 is the same for every prototype, so the minimum does not need it.
        x = x - self._origin
        products = torch.addmm(self._squared_norms, x, self._shifted.T, alpha=-2.0)
        least, labels = products.min(dim=1)
        if not torch.isfinite(least).all():
            raise overflow(x)
        return labels

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z) for given latents z of shape (n_rows, n_clusters)."""
        return (x - z @ self.centers).square().sum(dim=1)

    def free_energy(self, x: Tensor, beta: float = math.inf) -> Tensor:
        """F_beta(x), shape (n_rows,); ``beta=inf`` is the distance to the closest prototype."""
        if math.isinf(beta):
            return (x - self.centers[self.assign(x)]).square().sum(dim=1)
        return -torch.logsumexp(-beta * self.squared_distances(x), dim=1) / beta

    def responsibilities(self, x: Tensor, beta: float) -> Tensor:
        """p(z | x) at inverse temperature ``beta``, shape (n_rows, n_clusters)."""
        return torch.softmax(-beta * self.squared_distances(x), dim=1)


def overflow(x: Tensor) -> FloatingPointError:
    """The error for rows whose squared distances are not finite."""
    return FloatingPointError(
        f"Squared distances overflow (largest |X|: {float(x.abs().max()):.3g}). Scale X, "
        "for example with StandardScaler."
    )
