r"""Units of Boltzmann machines: each knows its energy, cumulant, mean and draw.

A unit u receives a field f (its bias plus what the other layer sends) and has
p(u | f) = exp(f u) / exp(Gamma(f)), with the cumulant Gamma(f) = log sum_u exp(f u).
"""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor, nn


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), elementwise, to double precision; so is its derivative."""
    # torch's own threshold of 20 drops a term of 2e-9 from the value and from the gradient.
    return nn.functional.softplus(x, threshold=40.0)


def draw_bits(probability: Tensor, generator: torch.Generator) -> Tensor:
    """Independent bits that are 1 with the given probabilities, as floating-point 0 and 1."""
    # Comparing uniform numbers in place is one kernel, and unlike torch's own Bernoulli sampler it
    # neither raises nor poisons a CUDA context when a probability is NaN.
    return torch.empty_like(probability).uniform_(generator=generator).lt_(probability)


class Bernoulli(nn.Module):
    r"""Units in {0, 1}: Gamma(f) = log(1 + e^f), mean Gamma'(f) = 1 / (1 + e^-f).

    Parameters
    ----------
    bias : Tensor of shape (n_units,)
        The field without input, the log odds of being on.
    """

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias)

    def with_bias(self, bias: Tensor) -> Self:
        """Units of this kind with other biases."""
        return type(self)(bias)

    def statistic(self, u: Tensor) -> Tensor:
        """What the other layer receives of states u, before the weights."""
        return u

    def energy(self, u: Tensor, bias: Tensor | None = None) -> Tensor:
        """Energy of states u without input, shape (n_rows,); with other biases if given."""
        return -(u @ (self.bias if bias is None else bias))

    def log_partition(self, bias: Tensor) -> Tensor:
        """Log of the sum over states of exp(-energy) at these biases, elementwise."""
        return softplus(bias)

    def cumulant(self, field: Tensor) -> Tensor:
        """log sum over both states of exp(field u), elementwise."""
        return softplus(field)

    def mean(self, field: Tensor) -> Tensor:
        """p(u = 1 | field), elementwise; the derivative of the cumulant."""
        return torch.sigmoid(field)

    def draw(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        """States with the given means, as floating-point 0 and 1."""
        return draw_bits(mean, generator)


class Gaussian(nn.Module):
    r"""Real-valued units: U(u) = (u - a)^2 / 2 s^2, mean f, variance s^2 for a field f.

    The field is in the units of u, and what the other layer receives is u / s^2, so that
    p(u | f) = N(f, s^2) and Gamma(f) = 1/2 log(2 pi s^2) + (f^2 - a^2) / 2 s^2.

    Parameters
    ----------
    bias : Tensor of shape (n_units,)
        The mean a without input.
    log_variance : Tensor of shape (n_units,) or (1,)
        Logarithm of s^2, for each unit or shared by all.
    learn_variance : bool, default=False
        Whether ``log_variance`` is a parameter with a gradient.
    """

    def __init__(self, bias: Tensor, log_variance: Tensor, learn_variance: bool = False) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias)
        self.log_variance = nn.Parameter(log_variance, requires_grad=learn_variance)

    def with_bias(self, bias: Tensor) -> Self:
        """Units of this kind, with the same variances and other biases."""
        return type(self)(bias, self.log_variance.detach())

    def statistic(self, u: Tensor) -> Tensor:
        """u / s^2, what the other layer receives of states u before the weights."""
        return u * torch.exp(-self.log_variance)

    def energy(self, u: Tensor, bias: Tensor | None = None) -> Tensor:
        """Energy of states u without input, shape (n_rows,); with other biases if given."""
        gap = u - (self.bias if bias is None else bias)
        return 0.5 * self.statistic(gap.square()).sum(dim=1)

    def log_partition(self, bias: Tensor) -> Tensor:
        """Log of the integral over states of exp(-energy) at these biases, elementwise."""
        return (0.5 * (math.log(2.0 * math.pi) + self.log_variance)).expand_as(bias)

    def cumulant(self, field: Tensor) -> Tensor:
        """log of the integral over u of exp(-U(u) + (field - a) u / s^2), elementwise."""
        gain = self.statistic(field.square() - self.bias.square())
        return 0.5 * gain + self.log_partition(field)

    def mean(self, field: Tensor) -> Tensor:
        """Mean of p(u | field): the field itself."""
        return field

    def draw(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        """States with the given means."""
        noise = torch.empty_like(mean).normal_(generator=generator)
        return torch.addcmul(mean, noise, torch.exp(0.5 * self.log_variance))
