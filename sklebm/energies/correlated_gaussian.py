r"""E(v, h) = 1/2 (v - a)' L (v - a) - c' h - h' W L v: real-valued units with lateral couplings.

p(v | h) = N(a + W' h, L^-1), and the hidden units receive c + W L v. Summed over h, p(v) is a
mixture of 2^k Gaussians with one covariance, and its logarithm has the derivatives

    d log p / dv = L (a - v + W' m),
    d^2 log p / dv_i^2 = -L_ii + sum_k m_k (1 - m_k) (L w_k)_i^2,     m = E[h | v].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from sklebm.energies.bilinear import BilinearEnergy
from sklebm.energies.gradients import Gradients, Product
from sklebm.energies.units import Bernoulli, Units, draw_bits


def factor_of(precision: Tensor) -> Tensor:
    """The lower triangular R of L = R R', not a number if L is not positive definite. O(d^3).

    After steps so long that nothing is finite, it is for training to say what to do.
    """
    factor, failed = torch.linalg.cholesky_ex(precision)
    safe: Tensor = torch.where(failed > 0, torch.nan, factor)
    return safe


class CorrelatedGaussian(Units):
    r"""Real-valued units with one precision: U(u) = 1/2 (u - a)' L (u - a).

    The field is in the units of u, and the other layer receives L u, so that
    p(u | f) = N(f, L^-1). Cumulants are split among units such that their sum is that of the layer.

    Parameters
    ----------
    bias : Tensor of shape (n_units,)
        The mean a without input.
    precision : Tensor of shape (n_units, n_units)
        L, symmetric and positive definite.
    """

    domain = "real"
    limits = (-math.inf, math.inf)
    is_discrete = False

    def __init__(self, bias: Tensor, precision: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias)
        self.precision = nn.Parameter(precision)

    def with_bias(self, bias: Tensor) -> Self:
        """Units of this kind, with the same precision and other biases."""
        return type(self)(bias, self.precision.detach())

    def statistic(self, u: Tensor) -> Tensor:
        """L u, the signal of states u to the other layer before the weights. O(n d^2)."""
        return u @ self.precision

    def energy(self, u: Tensor, bias: Tensor | None = None) -> Tensor:
        """Energy of states u without input, shape (n_rows,); with other biases if given."""
        gap = u - (self.bias if bias is None else bias)
        return 0.5 * (self.statistic(gap) * gap).sum(dim=1)

    def log_partition(self, bias: Tensor) -> Tensor:
        """An equal share for each unit of the log of the integral of exp(-energy). O(d^3)."""
        share = torch.linalg.slogdet(self.precision)[1] / len(self.precision)
        each: Tensor = (0.5 * (math.log(2.0 * math.pi) - share)).expand_as(bias)
        return each

    def cumulant(self, field: Tensor) -> Tensor:
        """Terms whose sum over units is log of the integral of exp(-U(u) + (field - a)' L u)."""
        gain = field * self.statistic(field) - self.bias * self.statistic(self.bias)
        return 0.5 * gain + self.log_partition(field)

    def mean(self, field: Tensor) -> Tensor:
        """Mean of p(u | field): the field itself."""
        return field

    def variance(self, field: Tensor) -> Tensor:
        """The diagonal of L^-1, whatever the field."""
        variance: Tensor = torch.linalg.inv(self.precision).diagonal().expand_as(field)
        return variance

    def draw(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        """States with the given means and the covariance L^-1. O(n d^2 + d^3)."""
        noise = torch.empty_like(mean).normal_(generator=generator)
        factor = factor_of(self.precision)
        # A row z R^-1 has the covariance R^-T R^-1 = (R R')^-1.
        solved: Tensor = torch.linalg.solve_triangular(factor, noise, upper=False, left=False)
        return mean + solved

    def conditional_on(self, known: Tensor) -> Callable[[Tensor], Tensor]:
        """Turn draws of all units into draws given the known ones, whose rows have NaN elsewhere.

        For u ~ N(m, L^-1), unknown units j and known ones k, u_j - L_jj^-1 L_jk (known - u_k) has
        the mean and the covariance of p(u_j | u_k = known). O(d^3) for each pattern of gaps.
        """
        patterns, which = torch.unique(known.isnan(), dim=0, return_inverse=True)
        parts = []
        for index, missing in enumerate(patterns):
            rows = (which == index).nonzero()[:, 0]
            own = self.precision[missing]
            carried = torch.linalg.solve(own[:, missing], own[:, ~missing])
            parts.append((rows, missing, known[rows][:, ~missing], carried.T))

        def given(u: Tensor) -> Tensor:
            u = u.clone()
            for rows, missing, values, carried in parts:
                new = u[rows]
                new[:, missing] -= (values - new[:, ~missing]) @ carried
                new[:, ~missing] = values
                u[rows] = new
            return u

        return given

    def as_states(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The rows themselves."""
        return x

    def curvature_of_bias(self, slope: Tensor) -> Tensor | float:
        """slope' L slope."""
        curvature: Tensor = slope @ self.precision @ slope
        return curvature

    def bias_gradient(self, u: Tensor) -> Tensor:
        """L (u - a)."""
        return self.statistic(u - self.bias)

    def second_moments(self, u: Tensor, shares: Tensor) -> Tensor:
        """E[u u'] over rows with these shares, (d, d). O(n d^2)."""
        return (u * shares.unsqueeze(1)).T @ u

    def fitted(self, count: Tensor, mean: Tensor, square: Tensor) -> CorrelatedGaussian:
        """Normal units with these moments, as if ten more rows had the covariance L^-1. O(d^3)."""
        double = self.precision.detach().double()
        broad = torch.cholesky_inverse(factor_of(double))
        covariance = square.double() - torch.outer(mean, mean).double()
        covariance = (count * covariance + 10.0 * broad) / (count + 10.0)
        precision = torch.cholesky_inverse(factor_of(covariance))
        return CorrelatedGaussian(mean, precision.to(mean))


class ReferenceBits:
    """Rows from hidden units that are on by themselves, as each would be without the others."""

    def __init__(self, energy: CorrelatedBilinearEnergy) -> None:
        self.energy = energy

    def draw(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Independent rows, (n_rows, n_visible)."""
        energy = self.energy
        sent = energy.visible.statistic(energy.weights)
        gain = 0.5 * (sent * energy.weights).sum(dim=1) + sent @ energy.visible.bias
        chances = torch.sigmoid(energy.hidden.bias + gain)
        bits = draw_bits(chances.expand(n_rows, -1), generator)
        return energy.draw_visible(bits, generator)


class CorrelatedBilinearEnergy(BilinearEnergy):
    """Correlated Gaussian visible and Bernoulli hidden units, and the weights between them.

    Parameters
    ----------
    visible : CorrelatedGaussian
        The visible units.
    hidden : Bernoulli
        The hidden units.
    weights : Tensor of shape (n_hidden, n_visible)
        The couplings W, in the units of v: a hidden unit that is on moves the mean by w_k.
    """

    visible: CorrelatedGaussian  # type: ignore[assignment]

    def __init__(self, visible: CorrelatedGaussian, hidden: Bernoulli, weights: Tensor) -> None:
        super().__init__(visible, hidden, weights)  # type: ignore[arg-type]

    @property
    def reference(self) -> ReferenceBits:  # type: ignore[override]
        """Where chains start: in one cluster, they would not find the others."""
        return ReferenceBits(self)

    def hidden_field(self, v: Tensor) -> Tensor:
        """Input of the hidden units, (n_rows, n_hidden). O(n d k + d^2 k)."""
        return torch.addmm(self.hidden.bias, v, self.visible.statistic(self.weights).T)

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h), shape (n_rows,)."""
        coupling = ((h @ self.weights) * self.visible.statistic(v)).sum(dim=1)
        return self.visible.energy(v) + self.hidden.energy(h) - coupling

    def free_energy_gradients(
        self, v: Tensor, signs: Tensor, field: Tensor, mean: Tensor
    ) -> tuple[Tensor, Gradients]:
        """A scalar and the gradients of ``signs @ free_energy(v)``, those of L included.

        The scalar is the sum of the energies E(v, mean) without the hidden entropy; at the hidden
        means both have the same derivatives.
        """
        gap, weights = v - self.visible.bias, -signs
        sent = self.visible.statistic(gap)
        pushed = mean * weights.unsqueeze(1)
        value = torch.dot(pushed.flatten(), field.flatten())
        value = value - 0.5 * weights @ (sent * gap).sum(dim=1)
        pulled = (pushed @ self.weights).T @ v
        of_precision = 0.5 * (gap * signs.unsqueeze(1)).T @ gap + 0.5 * (pulled + pulled.T)
        return value, [
            (self.weights, Product(mean, self.visible.statistic(v), weights)),
            (self.visible.bias, weights @ sent),
            (self.hidden.bias, weights @ mean),
            (self.visible.precision, of_precision),
        ]

    def score(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """First and second derivatives of log p(v) by each v_i, two of (n_rows, n_visible)."""
        mean = self.hidden_mean(v)
        first = self.visible.statistic(self.visible.bias - v + mean @ self.weights)
        curvature = (mean * (1.0 - mean)) @ self.visible.statistic(self.weights).square()
        return first, curvature - self.visible.precision.diagonal()
