r"""Units of Boltzmann machines: each knows its energy, cumulant, mean and draw.

A unit u receives a field f (its bias plus what the other layer sends) and has
p(u | f) = exp(f u) / exp(Gamma(f)), with the cumulant Gamma(f) = log sum_u exp(f u).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), elementwise, to double precision; so is its derivative."""
    # torch's own threshold of 20 drops a term of 2e-9 from the value and from the gradient.
    return nn.functional.softplus(x, threshold=40.0)


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

    def statistic(self, u: Tensor) -> Tensor:
        """What the other layer receives of states u, before the weights."""
        return u

    def energy(self, u: Tensor) -> Tensor:
        """Energy of states u without input, shape (n_rows,)."""
        return -(u @ self.bias)

    def cumulant(self, field: Tensor) -> Tensor:
        """log sum over both states of exp(field u), elementwise."""
        return softplus(field)

    def mean(self, field: Tensor) -> Tensor:
        """p(u = 1 | field), elementwise; the derivative of the cumulant."""
        return torch.sigmoid(field)

    def draw(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        """States with the given means, as floating-point 0 and 1."""
        # Comparing uniform numbers in place is one kernel, and unlike torch's own Bernoulli
        # sampler it neither raises nor poisons a CUDA context when a mean is NaN.
        uniform = torch.empty_like(mean).uniform_(generator=generator)
        return uniform.lt_(mean)
