r"""Densities of a step whose parameters are given row by row: p(x_t | parameters_t).

Every output has ``n_parameters``, the number of values that it reads per row, and

- ``log_density(y, parameters)`` of shape (n_rows,), in nats;
- ``mean(parameters)`` and ``draw(parameters, generator)`` of shape (n_rows, n_features);
- ``latents(y, parameters)``: what the step adds to its past, or None;
- ``start(mean)``: parameters with which every row has these means.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from sklebm.energies.units import draw_bits, softplus

#: Standard deviations of standardised features stay within exp(-7) and exp(7).
_MOST_LOG_SCALE = 7.0
_HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)


def _bounded(value: Tensor) -> Tensor:
    """A logarithm of a scale, smoothly kept within bounds; near 0 it is the value."""
    return _MOST_LOG_SCALE * torch.tanh(value / _MOST_LOG_SCALE)


class StepOutput(nn.Module):
    """Base class: one block of parameters per feature, no latents."""

    standardizes = False  # whether rows are standardised, feature by feature
    is_exact = True

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.n_features = n_features
        self.n_parameters = n_features

    def latents(self, y: Tensor, parameters: Tensor) -> Tensor | None:
        """There are none."""
        return None

    def initialize(self, generator: torch.Generator) -> None:
        """Fill the parameters that all rows share; most outputs have none."""


class BernoulliOutput(StepOutput):
    """Independent bits: log p = sum_i x_i f_i - log(1 + e^f_i)."""

    def log_density(self, y: Tensor, parameters: Tensor) -> Tensor:
        """Rows of bits, or of probabilities."""
        return (y * parameters - softplus(parameters)).sum(dim=1)

    def mean(self, parameters: Tensor) -> Tensor:
        """Probability that each bit is on."""
        return torch.sigmoid(parameters)

    def draw(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """Bits."""
        return draw_bits(self.mean(parameters), generator)

    def start(self, mean: Tensor) -> Tensor:
        """Log odds, away from certainty."""
        return torch.logit(mean.clamp(1e-3, 1.0 - 1e-3))


class CategoricalOutput(StepOutput):
    """One of n_features categories: log p = sum_k x_k log softmax(f)_k."""

    def log_density(self, y: Tensor, parameters: Tensor) -> Tensor:
        """Rows that are one-hot; shares or counts count every category as often as it is there."""
        return (y * functional.log_softmax(parameters, dim=1)).sum(dim=1)

    def mean(self, parameters: Tensor) -> Tensor:
        """Probability of each category."""
        return functional.softmax(parameters, dim=1)

    def draw(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """One-hot rows."""
        chosen = torch.multinomial(self.mean(parameters), 1, generator=generator)
        return torch.zeros_like(parameters).scatter_(1, chosen, 1.0)

    def start(self, mean: Tensor) -> Tensor:
        """Log shares, away from zero."""
        return torch.log(mean.clamp(min=0.0) + 1e-3)


class GaussianOutput(StepOutput):
    """Independent Gaussians with their own means and scales, of standardised features."""

    standardizes = True

    def __init__(self, n_features: int) -> None:
        super().__init__(n_features)
        self.n_parameters = 2 * n_features

    def log_density(self, y: Tensor, parameters: Tensor) -> Tensor:
        """sum_i -(y_i - m_i)^2 / 2 s_i^2 - log s_i - log(2 pi) / 2."""
        mean, log_scale = parameters.chunk(2, dim=1)
        log_scale = _bounded(log_scale)
        gaps = (y - mean) * torch.exp(-log_scale)
        return -(0.5 * gaps.square() + log_scale + _HALF_LOG_2_PI).sum(dim=1)

    def mean(self, parameters: Tensor) -> Tensor:
        """m."""
        return parameters[:, : self.n_features]

    def draw(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """m + s times noise."""
        mean, log_scale = parameters.chunk(2, dim=1)
        noise = torch.empty_like(mean).normal_(generator=generator)
        return mean + noise * torch.exp(_bounded(log_scale))

    def start(self, mean: Tensor) -> Tensor:
        """These means, and scales of 1."""
        return torch.cat([mean, torch.zeros_like(mean)])


class LatentGaussianOutput(GaussianOutput):
    """x_t = m + V z + s noise with latents z ~ N(0, 1): N(m, V V' + diag(s^2)).

    The latents are what the step adds to its past: their posterior mean is
    (I + V' S^-1 V)^-1 V' S^-1 (x - m) with S = diag(s^2).
    """

    def __init__(self, n_features: int, n_latents: int) -> None:
        super().__init__(n_features)
        self.loadings = nn.Parameter(torch.empty(n_features, n_latents, device="meta"))

    def initialize(self, generator: torch.Generator) -> None:
        """Small random loadings."""
        n_features, n_latents = self.loadings.shape
        bound = 0.5 / math.sqrt(max(n_features, n_latents))
        with torch.no_grad():
            self.loadings.uniform_(-bound, bound, generator=generator)

    def _posterior(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gaps and loadings in units of the noise, the factor of I + V' S^-1 V, V' S^-1 gaps."""
        mean, log_scale = parameters.chunk(2, dim=1)
        shrink = torch.exp(-_bounded(log_scale))
        gaps = (y - mean) * shrink
        loadings = self.loadings * shrink[:, :, None]
        precision = loadings.transpose(1, 2) @ loadings
        eye = torch.eye(precision.shape[1], dtype=y.dtype, device=y.device)
        factor = torch.linalg.cholesky(precision + eye)
        return gaps, shrink, factor, (loadings.transpose(1, 2) @ gaps[:, :, None])

    def log_density(self, y: Tensor, parameters: Tensor) -> Tensor:
        """By the matrix inversion lemma: O(n_features n_latents^2) per row."""
        gaps, shrink, factor, projected = self._posterior(y, parameters)
        solved = torch.linalg.solve_triangular(factor, projected, upper=False)
        log_det = factor.diagonal(dim1=1, dim2=2).log().sum(dim=1) - shrink.log().sum(dim=1)
        squares = gaps.square().sum(dim=1) - solved.square().sum(dim=(1, 2))
        total: Tensor = -0.5 * squares - log_det - self.n_features * _HALF_LOG_2_PI
        return total

    def latents(self, y: Tensor, parameters: Tensor) -> Tensor:
        """Posterior means, (n_rows, n_latents)."""
        _gaps, _shrink, factor, projected = self._posterior(y, parameters)
        means: Tensor = torch.cholesky_solve(projected, factor)[:, :, 0]
        return means

    def draw(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """m + V z + s noise."""
        rows = super().draw(parameters, generator)
        z = rows.new_empty(len(rows), self.loadings.shape[1]).normal_(generator=generator)
        return rows + z @ self.loadings.T


OUTPUTS = ("bernoulli", "categorical", "gaussian", "latent", "rbm")
