r"""q(z | x): Gaussians with diagonal and full covariance, and independent Bernoulli units.

Each provides draws from given noise, the log density of a draw in nats, and the divergence
KL(q || p) from the prior in closed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sklebm.energies.units import softplus

_LOG_2PI = math.log(2.0 * math.pi)
#: Bounds on the logarithm of a posterior standard deviation, beyond which float32 fails.
_LOG_SCALE = 15.0


@dataclass(frozen=True)
class DiagonalGaussian:
    """N(m, diag s^2) against the prior N(0, I).

    Parameters
    ----------
    mean, log_scale : Tensor of shape (n_rows, n_components)
        Means m and logarithms of the deviations s.
    """

    mean: Tensor
    log_scale: Tensor

    @staticmethod
    def n_outputs(n_components: int) -> int:
        """Number of encoder outputs that describe it."""
        return 2 * n_components

    @classmethod
    def unpack(cls, outputs: Tensor) -> DiagonalGaussian:
        """Build it from the outputs of an encoder."""
        mean, log_scale = outputs.chunk(2, dim=-1)
        return cls(mean, log_scale.clamp(-_LOG_SCALE, _LOG_SCALE))

    def detach(self) -> DiagonalGaussian:
        """The same, detached from the graph."""
        return DiagonalGaussian(self.mean.detach(), self.log_scale.detach())

    def draw(self, noise: Tensor) -> Tensor:
        """z = m + s e, differentiable in m and s."""
        return self.mean + self.log_scale.exp() * noise

    def log_density(self, z: Tensor) -> Tensor:
        """log q(z), shape (..., n_rows)."""
        noise = (z - self.mean) * (-self.log_scale).exp()
        return -0.5 * (noise.square() + 2.0 * self.log_scale + _LOG_2PI).sum(dim=-1)

    def divergence(self) -> Tensor:
        """KL(q || N(0, I)) of each latent, shape (n_rows, n_components)."""
        squares = self.mean.square() + (2.0 * self.log_scale).exp()
        return 0.5 * (squares - 1.0) - self.log_scale


@dataclass(frozen=True)
class FullGaussian:
    """N(m, L L') against the prior N(0, I), with L lower triangular.

    Parameters
    ----------
    mean, log_diagonal : Tensor of shape (n_rows, n_components)
        Means m and logarithms of the diagonal of L.
    below : Tensor of shape (n_rows, n_components, n_components)
        The factor L without its diagonal.
    """

    mean: Tensor
    log_diagonal: Tensor
    below: Tensor

    @staticmethod
    def n_outputs(n_components: int) -> int:
        """Number of encoder outputs that describe it."""
        return n_components * (n_components + 3) // 2

    @classmethod
    def unpack(cls, outputs: Tensor) -> FullGaussian:
        """Build it from encoder outputs: mean, log diagonal, and L's other entries by rows."""
        # n = 2 k + k (k - 1) / 2 numbers
        n_components = int((math.isqrt(9 + 8 * outputs.shape[-1]) - 3) // 2)
        sizes = [n_components, n_components, outputs.shape[-1] - 2 * n_components]
        mean, log_diagonal, entries = torch.split(outputs, sizes, dim=-1)
        row, column = torch.tril_indices(
            n_components, n_components, -1, device=outputs.device
        ).unbind()
        below = outputs.new_zeros(*outputs.shape[:-1], n_components, n_components)
        below[..., row, column] = entries
        return cls(mean, log_diagonal.clamp(-_LOG_SCALE, _LOG_SCALE), below)

    def detach(self) -> FullGaussian:
        """The same, detached from the graph."""
        return FullGaussian(self.mean.detach(), self.log_diagonal.detach(), self.below.detach())

    def draw(self, noise: Tensor) -> Tensor:
        """z = m + L e, differentiable in m and L."""
        rotated = (self.below @ noise.unsqueeze(-1)).squeeze(-1)
        return self.mean + self.log_diagonal.exp() * noise + rotated

    def log_density(self, z: Tensor) -> Tensor:
        """log q(z), shape (..., n_rows). O(k^2)."""
        factor = self.below + torch.diag_embed(self.log_diagonal.exp())
        noise: Tensor = torch.linalg.solve_triangular(
            factor, (z - self.mean).unsqueeze(-1), upper=False
        ).squeeze(-1)
        return -0.5 * (noise.square() + 2.0 * self.log_diagonal + _LOG_2PI).sum(dim=-1)

    def divergence(self) -> Tensor:
        """KL(q || N(0, I)), shape (n_rows, n_components); only the sum over latents counts."""
        squares = self.mean.square() + (2.0 * self.log_diagonal).exp()
        squares = squares + self.below.square().sum(dim=-1)
        return 0.5 * (squares - 1.0) - self.log_diagonal


@dataclass(frozen=True)
class BernoulliPosterior:
    """Independent units in {0, 1} with log odds l against a prior of log odds r.

    Parameters
    ----------
    logits : Tensor of shape (n_rows, n_components)
        The log odds l.
    prior_logits : Tensor of shape (n_components,)
        The log odds r.
    """

    logits: Tensor
    prior_logits: Tensor

    @property
    def mean(self) -> Tensor:
        """q(z = 1)."""
        return torch.sigmoid(self.logits)

    def draw(self, noise: Tensor) -> Tensor:
        """States as floating-point 0 and 1 from noise that is uniform in [0, 1)."""
        return (noise < self.mean).to(self.logits.dtype)

    def log_density(self, z: Tensor) -> Tensor:
        """log q(z), shape (..., n_rows)."""
        return (z * self.logits - softplus(self.logits)).sum(dim=-1)

    def divergence(self) -> Tensor:
        """KL(q || p) of each unit in closed form, shape (n_rows, n_components)."""
        agreement = self.mean * (self.logits - self.prior_logits)
        return agreement - softplus(self.logits) + softplus(self.prior_logits)


GaussianPosterior = DiagonalGaussian | FullGaussian
