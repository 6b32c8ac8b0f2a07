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
        """Energies of every one-hot latent: shape (n_rows, n_clusters). O(n d k).

        Small ones are sums of squared differences, because the expansion loses all their digits.
        """
        shifted = x - self._origin
        lengths = shifted.square().sum(dim=1, keepdim=True)
        squares = torch.addmm(self._squared_norms, shifted, self._shifted.T, alpha=-2.0)
        squares.add_(lengths).clamp_(min=0.0)
        # The error is a few roundings of the two lengths: below this share of them, less than half
        # of the digits would be correct.
        share = math.sqrt(torch.finfo(x.dtype).eps)
        rows, columns = torch.nonzero(squares < share * lengths, as_tuple=True)
        for some in torch.split(torch.arange(len(rows), device=x.device), max(len(x), 1)):
            row, column = rows[some], columns[some]
            squares[row, column] = (x[row] - self.centers[column]).square().sum(dim=1)
        return squares

    def assign(self, x: Tensor) -> Tensor:
        """Index of the prototype of minimum energy, shape (n_rows,). O(n d k).

        Raises
        ------
        FloatingPointError
            If an energy overflows: any index would be wrong.
        """
        least, labels = self._closest(x)
        if not torch.isfinite(least).all():
            raise overflow(x - self._origin)
        return labels

    def _closest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Least energy of each row, apart from its own |x|^2, and the index of its prototype."""
        # |x|^2 is the same for every prototype, so the minimum does not need it.
        shifted = x - self._origin
        products = torch.addmm(self._squared_norms, shifted, self._shifted.T, alpha=-2.0)
        least, labels = products.min(dim=1)
        if len(self.centers) > 1:
            self._settle(x, shifted, products, least, labels)
        return least, labels

    def _settle(
        self, x: Tensor, shifted: Tensor, products: Tensor, least: Tensor, labels: Tensor
    ) -> None:
        """Compare again, by differences, prototypes whose energies agree up to rounding."""
        reach = self._squared_norms.max().sqrt() + shifted.square().sum(dim=1).sqrt()
        error = (x.shape[1] + 8) * torch.finfo(x.dtype).eps * reach.square()
        near = products <= (least + 2.0 * error)[:, None]
        unsure = (near.sum(dim=1) > 1).nonzero()[:, 0]
        for rows in torch.split(unsure, max(len(x) // len(self.centers), 1)):
            row, column = torch.nonzero(near[rows], as_tuple=True)
            exact = (x[rows[row]].double() - self.centers[column].double()).square().sum(dim=1)
            squares = torch.full(
                (len(rows), len(self.centers)), torch.inf, dtype=torch.float64, device=x.device
            )
            squares[row, column] = exact
            labels[rows] = squares.argmin(dim=1)

    def __len__(self) -> int:
        """Number of components."""
        return len(self.centers)

    def decode(self, z: Tensor) -> Tensor:
        """Combinations of prototypes, shape (n_rows, n_features)."""
        return z @ self.centers

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z) for given latents z of shape (n_rows, n_clusters)."""
        return (x - self.decode(z)).square().sum(dim=1)

    def free_energy(self, x: Tensor, beta: float = math.inf) -> Tensor:
        """F_beta(x), shape (n_rows,); ``beta=inf`` is the distance to the closest prototype."""
        if math.isinf(beta):
            least, labels = self._closest(x)
            squares = (x - self.centers[labels]).square().sum(dim=1)
            # An energy, unlike an index, can say itself that it overflowed, and in which row.
            return squares.masked_fill(~torch.isfinite(least), torch.nan)
        return -torch.logsumexp(-beta * self.squared_distances(x), dim=1) / beta

    def codes(self, x: Tensor, kind: str, beta: float) -> Tensor:
        """Representation of the latents of rows, shape (n_rows, n_clusters).

        "onehot": the best latent; "responsibility": its posterior mean at ``beta``; "distance": how
        far each prototype is; "triangle": how much closer than the average, or zero.
        """
        if kind == "onehot":
            return nn.functional.one_hot(self.assign(x), len(self.centers)).to(x.dtype)
        if kind == "responsibility":
            return self.responsibilities(x, beta)
        distances = self.squared_distances(x).sqrt_()
        if kind == "distance":
            return distances
        return (distances.mean(dim=1, keepdim=True) - distances).clamp_(min=0.0)

    def sample(self, n_rows: int, generator: torch.Generator, beta: float) -> tuple[Tensor, Tensor]:
        """Draw prototypes, then rows of p(x | z) = N(w_z, I / 2 beta); both, and the choices."""
        labels = torch.randint(len(self.centers), (n_rows,), generator=generator)
        noise = torch.randn(
            n_rows, self.centers.shape[1], generator=generator, dtype=self.centers.dtype
        )
        return self.centers[labels] + noise * math.sqrt(0.5 / beta), labels

    def responsibilities(self, x: Tensor, beta: float) -> Tensor:
        """p(z | x) at inverse temperature ``beta``, shape (n_rows, n_clusters)."""
        return torch.softmax(-beta * self.squared_distances(x), dim=1)


def overflow(x: Tensor) -> FloatingPointError:
    """The error for rows whose squared distances are not finite."""
    return FloatingPointError(
        f"Squared distances overflow (largest |X|: {float(x.abs().max()):.3g}). Scale X, "
        "for example with StandardScaler."
    )
