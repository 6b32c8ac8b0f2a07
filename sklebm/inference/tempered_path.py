r"""Paths from a known density to a model, for annealing, tempering and bridging.

A ``Path`` joins a base with known log Z_0 (t = 0) to the model (t = 1). To follow one, all that is
needed are draws at the base, a kernel that leaves p_t invariant, and the differences

    l(v; s, t) = log p*_t(v) - log p*_s(v).

``TemperedPath`` is the one of bilinear energies, from independent visible units on:

    E_t(v, h) = (1 - t) U_0(v) + t U(v) - t (c' h + h' W s(v)),     0 <= t <= 1,

with the energy U of the visible units and what they send, s(v). At t = 0 the visible units have the
energy U_0, with biases b_0 (and variances) of their own, and the hidden ones are on half of the
time, so that Z_0 is known; at t = 1 it is the machine itself. Summed over h,

    log p*_t(v) = -(1 - t) U_0(v) - t U(v) + sum_k log(1 + exp(t f_k(v))),     f(v) = c + W s(v).

Gaussian units of variance s_0^2 at the base have, in between, the precision (1 - t) / s_0^2 +
t / s^2: a base as wide as the model meets all of its modes, where one as narrow as they are meets
none.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from sklebm.energies.bilinear import BilinearEnergy
from sklebm.energies.units import Bernoulli

# Couplings from which on what bits receive is summed in single precision.
_MANY = 2**16


def _is_many_doubles(weights: Tensor) -> bool:
    return weights.dtype == torch.float64 and weights.numel() >= _MANY


def _full_single_precision() -> bool:
    """Whether float32 products keep all of their bits."""
    return torch.get_float32_matmul_precision() == "highest"


class Path(Protocol):
    """A path of unnormalised densities; states are rows of a tensor.

    ``t``, ``start`` and ``stop`` are numbers, or columns of one number for each row.
    """

    #: Floating-point type and device of the states.
    like: Tensor

    def log_z0(self) -> float:
        """log Z at t = 0."""

    def draw_base(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Independent states at t = 0, (n_rows, d)."""

    def observe(self, v: Tensor) -> Tensor:
        """Quantities of the states for ``log_weight`` and ``move``, computed once for both."""

    def log_weight(self, v: Tensor, seen: Tensor, start: Any, stop: Any) -> Tensor:
        """log p*_stop(v) - log p*_start(v), (n_rows,); ``seen`` is ``observe(v)``."""

    def move(self, v: Tensor, seen: Tensor, t: Any, generator: torch.Generator) -> Tensor:
        """States after a step that leaves p_t invariant and is reversible."""


class TemperedPath:
    """The machines along the path of a bilinear energy.

    Large machines of bits in double precision sum what units receive in single precision, which is
    faster. Bits are exact in it, and relative rounding errors of about 1e-6 are far
    below the errors of what is estimated. A program that allows products of lower precision, by
    ``torch.set_float32_matmul_precision``, gets double precision.

    Parameters
    ----------
    energy : BilinearEnergy
        The machine at t = 1.
    base_bias : Tensor of shape (n_visible,)
        Biases b_0 of the visible units at t = 0.
    base_variance : Tensor of shape (n_visible,) or None
        Variances of Gaussian visible units at t = 0; None takes those of the machine.
    """

    def __init__(self, energy: Any, base_bias: Tensor, base_variance: Tensor | None = None) -> None:
        self.energy = energy
        self.base = base_bias.to(energy.visible.bias)
        self.like = self.base
        self.slope = energy.visible.bias.detach() - self.base
        bits = type(energy) is BilinearEnergy and isinstance(energy.visible, Bernoulli)
        weights = energy.weights.detach() if bits else None
        #: The couplings in single precision, where it serves.
        self.rounded: Tensor | None = None
        if weights is not None and _is_many_doubles(weights) and _full_single_precision():
            self.rounded = weights.float()
        #: s^2 / s_0^2 of Gaussian units, where the base has variances of its own.
        self.narrowing: Tensor | None = None
        if base_variance is not None:
            variance = torch.exp(energy.visible.log_variance.detach())
            self.narrowing = variance / base_variance.to(variance)

    def log_z0(self) -> float:
        """log Z at t = 0."""
        log_z: Tensor = self.energy.visible.log_partition(self.base).sum().detach()
        if self.narrowing is not None:
            log_z = log_z - 0.5 * self.narrowing.expand_as(self.base).log().sum()
        return float(log_z) + len(self.energy.hidden.bias) * math.log(2.0)

    def draw_base(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Independent visible states at t = 0, (n_rows, n_visible)."""
        mean = self.energy.visible.mean(self.base).expand(n_rows, -1).contiguous()
        return self._spread(mean, 0.0, generator)

    def observe(self, v: Tensor) -> Tensor:
        """What the hidden units receive at t = 1, (n_rows, n_hidden). O(n d k)."""
        if self.rounded is not None:
            return (v.float() @ self.rounded.T).double().add_(self.energy.hidden.bias)
        field: Tensor = self.energy.hidden_field(v)
        return field

    def move(self, v: Tensor, seen: Tensor, t: Any, generator: torch.Generator) -> Tensor:
        """Draw the hidden units at t, then the visible ones: block Gibbs. O(n d k)."""
        return self.draw_visible(self.draw_hidden(seen, t, generator), t, generator)

    def log_weight(self, v: Tensor, seen: Tensor, start: Any, stop: Any) -> Tensor:
        """log p*_stop(v) - log p*_start(v), (n_rows,); ``seen`` is ``observe(v)``."""
        cumulant = self.energy.hidden.cumulant
        gain: Tensor = (cumulant(stop * seen) - cumulant(start * seen)).sum(dim=1)
        share = stop - start
        gap = self.energy.visible.energy(v) - self._base_energy(v)
        weight: Tensor = gain - (share[:, 0] if isinstance(share, Tensor) else share) * gap
        return weight

    def log_base_density(self, v: Tensor) -> Tensor:
        """log of the normalised density of the visible units at t = 0, (n_rows,)."""
        log_z = self.log_z0() - len(self.energy.hidden.bias) * math.log(2.0)
        return -self._base_energy(v) - log_z

    def _base_energy(self, v: Tensor) -> Tensor:
        """U_0(v), (n_rows,)."""
        visible = self.energy.visible
        if self.narrowing is None:
            energy: Tensor = visible.energy(v, self.base)
            return energy
        gap = v - self.base
        energy = 0.5 * (visible.statistic(gap.square()) * self.narrowing).sum(dim=1)
        return energy

    def draw_hidden(self, field: Tensor, t: Any, generator: torch.Generator) -> Tensor:
        """Hidden states given what they receive, at t."""
        hidden = self.energy.hidden
        draws: Tensor = hidden.draw(hidden.mean(t * field), generator)
        return draws

    def draw_visible(self, h: Tensor, t: Any, generator: torch.Generator) -> Tensor:
        """Visible states given the hidden ones, at t."""
        if self.rounded is not None:
            pull = (h.float() @ self.rounded).double().add_(self.slope)
        else:
            pull = self.slope + h @ self.energy.weights
        if self.narrowing is None:
            field = self.base + t * pull
        else:
            field = self.base + t * pull / self._precision(t)
        return self._spread(self.energy.visible.mean(field), t, generator)

    def _precision(self, t: Any) -> Tensor:
        """The precision of Gaussian units at t in that of the machine."""
        precision: Tensor = (1.0 - t) * self.narrowing + t
        return precision

    def _spread(self, mean: Tensor, t: Any, generator: torch.Generator) -> Tensor:
        """Visible states with these means."""
        draws: Tensor = self.energy.visible.draw(mean, generator)
        if self.narrowing is None:
            return draws
        return mean + (draws - mean) / self._precision(t).sqrt()
