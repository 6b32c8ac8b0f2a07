r"""log p(x | z) given the decoder's output for z: Gaussian, binary and one-hot rows, in nats.

``decoded`` is the decoder's output, of shape (..., n_rows, n_per_feature x n_features), and
broadcasts against rows x of shape (n_rows, n_features).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sklebm.energies.units import draw_bits, softplus

_LOG_2PI = math.log(2.0 * math.pi)
#: Minimum standard deviation relative to that of the data: a degenerate density has none.
RELATIVE_FLOOR = 1e-3


class BernoulliLikelihood(nn.Module):
    """log p(x | z) = sum_i x_i l_i - log(1 + e^l_i) with the decoded log odds l."""

    n_per_feature = 1

    def log_density(self, x: Tensor, decoded: Tensor) -> Tensor:
        """log p(x | z), shape (..., n_rows)."""
        losses = functional.binary_cross_entropy_with_logits(
            decoded, x.expand_as(decoded), reduction="none"
        )
        return -losses.sum(dim=-1)

    def log_density_table(self, x: Tensor, decoded: Tensor) -> Tensor:
        """log p(x_n | z_s) of all rows for all codes, shape (n_codes, n_rows). O(n s d)."""
        return decoded @ x.T - softplus(decoded).sum(dim=-1, keepdim=True)

    def mean(self, decoded: Tensor) -> Tensor:
        """p(x_i = 1 | z)."""
        return torch.sigmoid(decoded)

    def draw(self, decoded: Tensor, generator: torch.Generator) -> Tensor:
        """A row of 0 and 1 for each decoded row."""
        return draw_bits(self.mean(decoded), generator)


class CategoricalLikelihood(nn.Module):
    """log p(x | z) = sum_g sum_{c in g} x_c log softmax_g(l)_c for blocks g of one-hot columns.

    A block of zeros contributes nothing: its feature is missing.

    Parameters
    ----------
    sizes : sequence of int
        Columns of each block.
    """

    n_per_feature = 1

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = [int(size) for size in sizes]

    def _by_block(self, values: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Apply a function of the last axis to each block separately."""
        if len(set(self.sizes)) == 1:  # one call for all
            blocks = values.reshape(*values.shape[:-1], len(self.sizes), self.sizes[0])
            return function(blocks).reshape(values.shape)
        return torch.cat(
            [function(block) for block in torch.split(values, self.sizes, dim=-1)], dim=-1
        )

    def log_density(self, x: Tensor, decoded: Tensor) -> Tensor:
        """log p(x | z), shape (..., n_rows)."""
        return (x * self._by_block(decoded, lambda block: block.log_softmax(dim=-1))).sum(dim=-1)

    def log_density_table(self, x: Tensor, decoded: Tensor) -> Tensor:
        """log p(x_n | z_s) of all rows for all codes, shape (n_codes, n_rows). O(n s d)."""
        return self._by_block(decoded, lambda block: block.log_softmax(dim=-1)) @ x.T

    def mean(self, decoded: Tensor) -> Tensor:
        """Probabilities of the categories."""
        return self._by_block(decoded, lambda block: block.softmax(dim=-1))

    def draw(self, decoded: Tensor, generator: torch.Generator) -> Tensor:
        """A row of one-hot blocks for each decoded row: the first of exponential clocks to ring."""
        clocks = torch.empty_like(decoded).exponential_(generator=generator)
        return self._by_block(
            decoded - clocks.log(),
            lambda block: functional.one_hot(block.argmax(dim=-1), block.shape[-1]).to(decoded),
        )


class GaussianLikelihood(nn.Module):
    """log p(x | z) = log N(x; m, v) with the decoded mean m and v_i = floor^2 + exp(2 s_i).

    Parameters
    ----------
    noise : {"fixed", "shared", "learned"}
        Whether s is a constant, one parameter, or decoded from z for each feature.
    scale : float
        Initial standard deviation, or the permanent one if it is fixed.
    """

    def __init__(self, noise: Literal["fixed", "shared", "learned"], scale: float = 1.0) -> None:
        super().__init__()
        self.noise = noise
        self.n_per_feature = 2 if noise == "learned" else 1
        log_scale = torch.tensor([math.log(scale)])
        if noise == "shared":
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)
        self.register_buffer("floor", torch.zeros(1))

    def start_at(self, scale: float) -> None:
        """Start from this scale, that of the data, and if learnt never go far below it."""
        with torch.no_grad():
            self.log_scale.fill_(math.log(scale))
            self.get_buffer("floor").fill_(0.0 if self.noise == "fixed" else RELATIVE_FLOOR * scale)

    def split(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance."""
        floor = self.get_buffer("floor").square()
        if self.noise != "learned":
            return decoded, floor + (2.0 * self.log_scale).exp()
        mean, log_scale = decoded.chunk(2, dim=-1)
        return mean, floor + (2.0 * (self.log_scale + log_scale)).exp()

    def log_density(self, x: Tensor, decoded: Tensor) -> Tensor:
        """log p(x | z), shape (..., n_rows)."""
        mean, variance = self.split(decoded)
        if variance.ndim == 1:  # one number: squared distances are all that is needed
            squares = (x - mean).square().sum(dim=-1)
            return -0.5 * (squares / variance + x.shape[-1] * (variance.log() + _LOG_2PI))
        terms = (x - mean).square() / variance + variance.log()
        return -0.5 * (terms.sum(dim=-1) + x.shape[-1] * _LOG_2PI)

    def log_density_table(self, x: Tensor, decoded: Tensor) -> Tensor:
        """log p(x_n | z_s) of all rows for all codes, shape (n_codes, n_rows). O(n s d)."""
        return self.log_density(x, decoded[:, None, :])

    def mean(self, decoded: Tensor) -> Tensor:
        """E[x | z]."""
        return decoded.chunk(2, dim=-1)[0] if self.noise == "learned" else decoded

    def draw(self, decoded: Tensor, generator: torch.Generator) -> Tensor:
        """A row for each decoded row."""
        mean, variance = self.split(decoded)
        noise = torch.empty_like(mean).normal_(generator=generator)
        return mean + variance.sqrt() * noise


Likelihood = BernoulliLikelihood | CategoricalLikelihood | GaussianLikelihood
