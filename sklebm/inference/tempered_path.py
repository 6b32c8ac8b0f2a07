r"""A path of machines from independent visible units to a bilinear energy.

    E_t(v, h) = U(v; (1 - t) b_0 + t b) - t (c' h + h' W s(v)),     0 <= t <= 1,

with the energy U of the visible units at given biases and what they send, s(v). At t = 0 the
visible units have biases b_0 and the hidden ones are on half of the time, so that Z_0 is known; at
t = 1 it is the machine itself. Summed over h,

    log p*_t(v) = -U(v; b_t) + sum_k log(1 + exp(t f_k(v))),     f(v) = c + W s(v).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class TemperedPath:
    """The machines along the path, for samplers and estimators of log Z.

    Parameters
    ----------
    energy : BilinearEnergy
        The machine at t = 1.
    base_bias : Tensor of shape (n_visible,)
        Biases b_0 of the visible units at t = 0.
    """

    def __init__(self, energy: Any, base_bias: Tensor) -> None:
        self.energy = energy
        self.base = base_bias.to(energy.visible.bias)
        self.slope = energy.visible.bias.detach() - self.base

    def log_z0(self) -> float:
        """log Z at t = 0."""
        visible = float(self.energy.visible.log_partition(self.base).sum().detach())
        return visible + len(self.energy.hidden.bias) * math.log(2.0)

    def draw_base(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Independent visible states at t = 0, (n_rows, n_visible)."""
        mean = self.energy.visible.mean(self.base).expand(n_rows, -1).contiguous()
        draws: Tensor = self.energy.visible.draw(mean, generator)
        return draws

    def log_weight(self, v: Tensor, field: Tensor, start: Any, stop: Any) -> Tensor:
        """log p*_stop(v) - log p*_start(v), (n_rows,); ``field`` is ``hidden_field(v)``.

        ``start`` and ``stop`` are numbers, or columns of one number for each row.
        """
        hidden, visible = self.energy.hidden, self.energy.visible
        gain = (hidden.cumulant(stop * field) - hidden.cumulant(start * field)).sum(dim=1)
        if isinstance(start, Tensor):
            # U is at most quadratic in its bias, and row by row this needs no bias for each row.
            at_base, at_end = (
                visible.energy(v, self.base),
                visible.energy(v, self.base + self.slope),
            )
            bow = visible.statistic(self.slope.square()).sum() if self.is_quadratic else 0.0
            linear = at_end - at_base - 0.5 * bow
            start, stop = start[:, 0], stop[:, 0]
            gap = (stop - start) * linear + 0.5 * bow * (stop.square() - start.square())
        else:
            gap = visible.energy(v, self._bias(stop)) - visible.energy(v, self._bias(start))
        total: Tensor = gain - gap
        return total

    @property
    def is_quadratic(self) -> bool:
        """Whether the energy of the visible units is quadratic in their bias, not linear."""
        return bool(self.energy.domain == "real")

    def _bias(self, t: float) -> Tensor:
        bias: Tensor = self.base + t * self.slope
        return bias

    def draw_hidden(self, field: Tensor, t: Any, generator: torch.Generator) -> Tensor:
        """Hidden states given what they receive, at t."""
        hidden = self.energy.hidden
        draws: Tensor = hidden.draw(hidden.mean(t * field), generator)
        return draws

    def draw_visible(self, h: Tensor, t: Any, generator: torch.Generator) -> Tensor:
        """Visible states given the hidden ones, at t."""
        visible = self.energy.visible
        field = self.base + t * (self.slope + h @ self.energy.weights)
        draws: Tensor = visible.draw(visible.mean(field), generator)
        return draws
