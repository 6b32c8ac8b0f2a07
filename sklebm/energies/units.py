r"""Units of Boltzmann machines, with their energy, cumulant, mean and draws.

A unit u receives a field f (its bias plus the input from the other layer) and has
p(u | f) = exp(f u) / exp(Gamma(f)), with the cumulant Gamma(f) = log sum_u exp(f u).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), elementwise, to double precision; so is its derivative."""
    # torch's own threshold of 20 drops a term of 2e-9 from the value and from the gradient.
    return nn.functional.softplus(x, threshold=40.0)


def draw_bits(probability: Tensor, generator: torch.Generator) -> Tensor:
    """Independent bits that are 1 with the given probabilities, as floating-point 0 and 1."""
    # Comparing uniform numbers in place is one kernel, and unlike torch's own Bernoulli sampler it
    # neither raises nor corrupts a CUDA context if a probability is NaN.
    return torch.empty_like(probability).uniform_(generator=generator).lt_(probability)


def base_rate_bias(mean: Tensor, n_rows: int = 1000) -> Tensor:
    """Log odds of each visible unit over ``n_rows`` rows, shrunk towards 1/2 by one extra row.

    More than 1000 rows count as 1000: a unit that never changed is then at odds of 2001 to 1.
    """
    rows = min(n_rows, 1000)
    mean = mean.clamp(0.0, 1.0)
    return torch.logit((mean * rows + 0.5) / (rows + 1.0))


class Units(nn.Module, ABC):
    """Interface of a layer of units for energies, samplers and estimators of log Z.

    All functions are elementwise over units unless a shape is given, and differentiable in their
    arguments if the units are.
    """

    bias: nn.Parameter

    #: Kind of states: "binary" or "real".
    domain: ClassVar[str]
    #: Smallest and largest state.
    limits: ClassVar[tuple[float, float]]
    #: True if a unit has few enough states to sum over; see ``states``.
    is_discrete: ClassVar[bool]

    @abstractmethod
    def with_bias(self, bias: Tensor) -> Self:
        """Units of this kind with other biases."""

    @abstractmethod
    def statistic(self, u: Tensor) -> Tensor:
        """Signal of states u to the other layer, before the weights."""

    @abstractmethod
    def energy(self, u: Tensor, bias: Tensor | None = None) -> Tensor:
        """Energy of states u without input, shape (n_rows,); with other biases if given."""

    @abstractmethod
    def log_partition(self, bias: Tensor) -> Tensor:
        """Log of the sum (integral) over states of exp(-energy) at these biases."""

    @abstractmethod
    def cumulant(self, field: Tensor) -> Tensor:
        """Log of the sum (integral) over states, given the unit's input."""

    @abstractmethod
    def mean(self, field: Tensor) -> Tensor:
        """Mean of the states, given the unit's input."""

    @abstractmethod
    def variance(self, field: Tensor) -> Tensor:
        """Variance of the states, given the unit's input."""

    @abstractmethod
    def draw(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        """States with the given means."""

    @abstractmethod
    def as_states(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Rows of data as states: draws, if the data are only probabilities."""

    @abstractmethod
    def curvature_of_bias(self, slope: Tensor) -> Tensor | float:
        """Second derivative of the energy along ``slope`` in the bias; 0 if it is linear."""

    @abstractmethod
    def fitted(self, count: Tensor, mean: Tensor, square: Tensor) -> Units:
        """Units with the moments of ``count`` rows and ten rows of a broad guess.

        ``mean`` is E[u] and ``square`` as in ``second_moments``. Holds no parameters of this layer.
        """

    def second_moments(self, u: Tensor, shares: Tensor) -> Tensor:
        """E[u^2] of each unit over rows with these shares; of correlated units, of each pair."""
        return shares @ u.square()

    def bias_gradient(self, u: Tensor) -> Tensor:
        """Minus the derivative of the energy of each state by its bias, (n_rows, n_units)."""
        return self.statistic(u)

    def bias_for(self, mean: Tensor) -> Tensor:
        """Biases at which units without input have the mean of some rows."""
        return mean

    def implied_variance(self, mean: Any) -> Any:
        """Variance of states with this mean; None if the mean does not determine it."""
        return None

    def states(self) -> Tensor:
        """The states of one unit, if there are finitely many."""
        raise NotImplementedError(f"{type(self).__name__} units have no list of states.")


class Bernoulli(Units):
    r"""Units in {0, 1}: Gamma(f) = log(1 + e^f), mean Gamma'(f) = 1 / (1 + e^-f).

    Parameters
    ----------
    bias : Tensor of shape (n_units,)
        The field without input: the log odds of being on.
    """

    domain = "binary"
    limits = (0.0, 1.0)
    is_discrete = True

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias)

    def with_bias(self, bias: Tensor) -> Self:
        """Units of this kind with other biases."""
        return type(self)(bias)

    def statistic(self, u: Tensor) -> Tensor:
        """Signal of states u to the other layer, before the weights."""
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

    def variance(self, field: Tensor) -> Tensor:
        """m (1 - m) for the mean m, elementwise."""
        mean = torch.sigmoid(field)
        return mean * (1.0 - mean)

    def draw(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        """States with the given means, as floating-point 0 and 1."""
        return draw_bits(mean, generator)

    def as_states(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Bits that are 1 with the probabilities x."""
        return draw_bits(x, generator)

    def curvature_of_bias(self, slope: Tensor) -> Tensor | float:
        """0: the energy is linear in the bias."""
        return 0.0

    def bias_for(self, mean: Tensor) -> Tensor:
        """Log odds, which stay finite."""
        return base_rate_bias(mean)

    def implied_variance(self, mean: Any) -> Any:
        """m (1 - m) for the mean m; rows of probabilities vary less."""
        return (mean * (1.0 - mean)).clip(0.0)

    def fitted(self, count: Tensor, mean: Tensor, square: Tensor) -> Bernoulli:
        """Bits with the given means, as if ten more rows had been on half of the time."""
        return Bernoulli(torch.logit((count * mean + 5.0) / (count + 10.0)))

    def states(self) -> Tensor:
        """0 and 1."""
        return self.bias.new_tensor([0.0, 1.0])


class Gaussian(Units):
    r"""Real-valued units: U(u) = (u - a)^2 / 2 s^2, mean f, variance s^2 for a field f.

    The field is in the units of u, and the other layer receives u / s^2, so that
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

    domain = "real"
    limits = (-math.inf, math.inf)
    is_discrete = False

    def __init__(self, bias: Tensor, log_variance: Tensor, learn_variance: bool = False) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias)
        self.log_variance = nn.Parameter(log_variance, requires_grad=learn_variance)

    def with_bias(self, bias: Tensor) -> Self:
        """Units of this kind, with the same variances and other biases."""
        return type(self)(bias, self.log_variance.detach())

    def statistic(self, u: Tensor) -> Tensor:
        """u / s^2, the signal of states u to the other layer before the weights."""
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

    def variance(self, field: Tensor) -> Tensor:
        """s^2, whatever the field."""
        return torch.exp(self.log_variance).expand_as(field)

    def as_states(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The rows themselves."""
        return x

    def curvature_of_bias(self, slope: Tensor) -> Tensor | float:
        """sum_i slope_i^2 / s_i^2."""
        return self.statistic(slope.square()).sum()

    def bias_gradient(self, u: Tensor) -> Tensor:
        """(u - a) / s^2."""
        return self.statistic(u - self.bias)

    def fitted(self, count: Tensor, mean: Tensor, square: Tensor) -> Gaussian:
        """Normal units with these moments, as if ten more rows had this layer's own variance."""
        variance = (square - mean.square()).clamp(min=0.0)
        broad = torch.exp(self.log_variance.detach())
        variance = (count * variance + 10.0 * broad) / (count + 10.0)
        return Gaussian(mean, variance.log())
