r"""E(x, z) = -log w_k - log N(x; m_k, S_k) for the one-hot z that picks k: a Gaussian mixture.

F(x) = -log sum_k exp(-E(x, k)) = -log p(x). The energy holds the normaliser, so log Z = 0.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

CovarianceType = Literal["full", "tied", "diag", "spherical"]

# Rows and columns of one product on a CPU: blocks stay in a core's cache while they are squared
# and summed.
_BLOCK_ROWS, _BLOCK_COLUMNS = 512, 800


class GaussianMixture(NamedTuple):
    """Parameters of a mixture of K Gaussians in d dimensions.

    The shapes of ``covariances`` and ``factors`` are (K, d, d) for "full", (d, d) for "tied",
    (K, d) for "diag" and (K,) for "spherical". ``factors`` are U with S^-1 = U U', upper
    triangular; for "diag" and "spherical" the inverse standard deviations.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    factors: Tensor
    covariance_type: CovarianceType

    def energy(self) -> GaussianMixtureEnergy:
        """The energy with these parameters."""
        return GaussianMixtureEnergy(self.weights, self.means, self.factors, self.covariance_type)


class GaussianMixtureEnergy(nn.Module):
    """Negative log joint density of a row and the component it comes from, in nats.

    Parameters
    ----------
    weights : Tensor of shape (n_components,)
        Probabilities w of the components.
    means : Tensor of shape (n_components, n_features)
        Means m.
    factors : Tensor
        Upper triangular factors U of the precisions, S^-1 = U U'; the shape follows from
        ``covariance_type`` as in :class:`GaussianMixture`.
    covariance_type : {"full", "tied", "diag", "spherical"}
        Which covariances the factors describe.
    """

    weights: Tensor
    means: Tensor
    factors: Tensor
    constants: Tensor

    def __init__(
        self, weights: Tensor, means: Tensor, factors: Tensor, covariance_type: CovarianceType
    ) -> None:
        super().__init__()
        self.covariance_type = covariance_type
        self.register_buffer("weights", weights)
        self.register_buffer("means", means)
        self.register_buffer("factors", factors)
        normaliser = 0.5 * means.shape[1] * math.log(2 * math.pi) - self._log_determinants()
        self.register_buffer("constants", normaliser - weights.log())

    def _log_determinants(self) -> Tensor:
        """Log determinants of the factors; one for all components or one each."""
        if self.covariance_type in ("full", "tied"):
            return self.factors.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        if self.covariance_type == "diag":
            return self.factors.log().sum(dim=1)
        return self.means.shape[1] * self.factors.log()

    def energies(self, x: Tensor) -> Tensor:
        """Energies of every one-hot latent: shape (n_rows, n_components).

        O(n K d^2) for "full", O(n d (K + d)) for "tied", else O(n K d).
        """
        return self.log_joint(x).neg_()

    def log_joint(self, x: Tensor, moments: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """log p(x, k) of every component, shape (n_rows, n_components); a new tensor.

        ``moments``, if known, is the result of ``row_moments(x, means)``; "full" does not use it.
        """
        if self.covariance_type == "full":
            return self._squared_lengths(x).mul_(-0.5).sub_(self.constants)
        x, squares = row_moments(x, self.means) if moments is None else moments
        means = self.means - self.means.mean(dim=0)
        if self.covariance_type == "tied":
            x, means = x @ self.factors, means @ self.factors
            squares, precisions = x.square(), means.new_ones(len(means), 1)
        else:
            precisions = self.factors.square().view(len(means), -1)
        slopes = means * precisions
        offsets = torch.sum(slopes * means, dim=1).mul_(-0.5).sub_(self.constants)
        products = torch.addmm(offsets, x, slopes.T)
        if self.covariance_type == "diag":
            return products.addmm_(squares, precisions.T, alpha=-0.5)
        return products.addr_(squares.sum(dim=1), precisions.flatten(), alpha=-0.5)

    def _squared_lengths(self, x: Tensor) -> Tensor:
        """(x - m_k)' S_k^-1 (x - m_k): several components and half the columns per product."""
        n_components, n_features = self.means.shape
        origin = self.means.mean(dim=0)
        x, means = x - origin, self.means - origin
        out = x.new_empty(len(x), n_components)
        x = torch.cat([x.new_ones(len(x), 1), x], dim=1)  # so that products also subtract the means
        n_rows = _BLOCK_ROWS if x.device.type == "cpu" else max(1, len(x))
        group, half = max(1, _BLOCK_COLUMNS // n_features), -(-n_features // 2)
        buffer = x.new_empty(min(n_rows, len(x)), min(group, n_components) * half)
        for first in range(0, n_components, group):
            some = slice(first, first + group)
            factors = self.factors[some]
            factors = torch.cat([-means[some, None] @ factors, factors], dim=1).transpose(0, 1)
            # The left half of a triangular factor has zeros below the middle.
            left = factors[: half + 1, :, :half].flatten(1).contiguous()
            right = factors[:, :, half:].flatten(1).contiguous()
            for start in range(0, len(x), n_rows):
                rows = x[start : start + n_rows]
                total = _lengths(rows[:, : half + 1], left, half, buffer)
                if half < n_features:
                    total += _lengths(rows, right, n_features - half, buffer)
                out[start : start + n_rows, some] = total
        return out

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z) = sum_k z_k E(x, k) for latents z of shape (n_rows, n_components)."""
        return torch.where(z != 0, z * self.energies(x), 0.0).sum(dim=1)

    def free_energy(self, x: Tensor, beta: float = 1.0) -> Tensor:
        """F_beta(x) = -1/beta log sum_k exp(-beta E(x, k)), shape (n_rows,).

        At ``beta=1`` it is -log p(x), at ``beta=inf`` the minimum energy.
        """
        log_joint = self.log_joint(x)
        if math.isinf(beta):
            return -log_joint.amax(dim=1)
        return -torch.logsumexp(beta * log_joint if beta != 1.0 else log_joint, dim=1) / beta

    def __len__(self) -> int:
        """Number of components."""
        return len(self.means)

    def decode(self, z: Tensor) -> Tensor:
        """Combinations of means, shape (n_rows, n_features)."""
        return z @ self.means

    def responsibilities(self, x: Tensor) -> Tensor:
        """p(z | x), shape (n_rows, n_components)."""
        return torch.softmax(self.log_joint(x), dim=1)

    def assign(self, x: Tensor) -> Tensor:
        """Index of the component of minimum energy, shape (n_rows,)."""
        return self.log_joint(x).argmax(dim=1)

    def sample(self, n_rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw components, then rows; shapes (n_rows, n_features) and (n_rows,)."""
        labels = torch.multinomial(self.weights, n_rows, replacement=True, generator=generator)
        shape, device = (n_rows, self.means.shape[1]), self.means.device
        noise = torch.randn(shape, generator=generator, dtype=self.means.dtype, device=device)
        factors = self.factors
        if self.covariance_type == "spherical":
            return self.means[labels] + noise / factors[labels, None], labels
        if self.covariance_type == "diag":
            return self.means[labels] + noise / factors[labels], labels
        if self.covariance_type == "tied":
            factors = factors.expand(len(self.means), -1, -1)
        x = torch.empty_like(noise)
        for k, factor in enumerate(factors):
            mine = (labels == k).nonzero().flatten()
            # e U^-1 has covariance U^-T U^-1 = S
            drawn = torch.linalg.solve_triangular(factor, noise[mine], upper=True, left=False)
            x[mine] = self.means[k] + drawn
        return x, labels


def _lengths(x: Tensor, columns: Tensor, width: int, buffer: Tensor) -> Tensor:
    """Squared lengths of x times each group of ``width`` columns, (n_rows, n_groups)."""
    size = len(x) * columns.shape[1]
    products = torch.mm(x, columns, out=buffer.flatten()[:size].view(len(x), -1))
    return products.square_().view(len(x), -1, width).sum(dim=2)


def row_moments(x: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """``y`` and ``y^2`` with y = x less the mean of the means, in which log densities are linear.

    The densities do not depend on this origin, but the rounding of the products does.
    """
    y = x - means.mean(dim=0)
    return y, y.square()
