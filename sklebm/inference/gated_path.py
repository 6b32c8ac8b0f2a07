r"""A path from independent bits to a gated energy of two binary views.

    E_t(x, y, z) = (1 - t) U_0(x, y) + t (U(x) + V(y) - d'z - sum_k z_k x'W_k y),      0 <= t <= 1,

where U_0 has biases of its own. Summed over z, the cumulants of the fields t (d_k + x'W_k y) take
the place of the last two terms.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class GatedPath:
    """The energies along the path; states are rows [x | y].

    Parameters
    ----------
    energy : GatedEnergy
        The energy at t = 1, of binary views.
    base_bias : Tensor of shape (n_left + n_right,)
        Biases of both views at t = 0.
    """

    def __init__(self, energy: Any, base_bias: Tensor) -> None:
        self.energy, self.units = energy, energy.visible
        self.base = base_bias.to(self.units.bias)
        self.like = self.base

    def log_z0(self) -> float:
        """log Z at t = 0."""
        log_z = self.units.log_partition(self.base).sum()
        return float(log_z) + int(self.energy.coupling.n_hidden) * math.log(2.0)

    def draw_base(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Independent states at t = 0."""
        mean = self.units.mean(self.base).expand(n_rows, -1).contiguous()
        draws: Tensor = self.units.draw(mean, generator)
        return draws

    def log_base_density(self, v: Tensor) -> Tensor:
        """log of the normalised density at t = 0, (n_rows,)."""
        log_z = self.units.log_partition(self.base).sum()
        density: Tensor = -self.units.energy(v, self.base) - log_z
        return density

    def observe(self, v: Tensor) -> Tensor:
        """What the hidden units receive at t = 1."""
        field: Tensor = self.energy.hidden_field(v)
        return field

    def log_weight(self, v: Tensor, seen: Tensor, start: Any, stop: Any) -> Tensor:
        """log p*_stop(v) - log p*_start(v), (n_rows,)."""
        cumulant = self.energy.hidden.cumulant
        gain = (cumulant(stop * seen) - cumulant(start * seen)).sum(dim=1)
        share = stop - start
        share = share[:, 0] if isinstance(share, Tensor) else share
        weight: Tensor = gain - share * (self.units.energy(v) - self.units.energy(v, self.base))
        return weight

    def move(self, v: Tensor, seen: Tensor, t: Any, generator: torch.Generator) -> Tensor:
        """Draw z, then y, x and y again, each given the others: reversible, as z is not kept."""
        energy = self.energy
        z = energy.hidden.draw(energy.hidden.mean(t * seen), generator)
        x, y = energy.split(v)
        for side in ("right", "left", "right"):
            if side == "right":
                y = self._drawn(
                    energy.coupling.right(x, z), slice(energy.n_left, None), t, generator
                )
            else:
                x = self._drawn(energy.coupling.left(y, z), slice(energy.n_left), t, generator)
        return torch.cat([x, y], dim=1)

    def _drawn(self, pushed: Tensor, part: slice, t: Any, generator: torch.Generator) -> Tensor:
        """One view given the other and z, at t."""
        base, bias = self.base[part], self.units.bias[part]
        draws: Tensor = self.units.draw(
            self.units.mean(base + t * (bias - base + pushed)), generator
        )
        return draws
