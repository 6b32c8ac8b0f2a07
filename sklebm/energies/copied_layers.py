r"""E(v, h) = -b'V - c'H - H' W V, V and H the sums over n copies of v and m copies of h.

A restricted machine of bits of which each layer occurs several times, with the same parameters. All
copies of v receive b + W' H, and those of h receive c + W V. Where all copies of v are equal to a
row x, V = n x: a layer that has a neighbour on one side only then receives what it will receive
from both sides in a deep Boltzmann machine. States are means over the copies, so that rows stay
what they are.

R. Salakhutdinov and G. Hinton, "Deep Boltzmann machines", AISTATS 2009.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from sklebm.energies.bilinear import BilinearEnergy
from sklebm.energies.gradients import Gradients
from sklebm.energies.units import Bernoulli, draw_bits, softplus


class CopiedBernoulli(Bernoulli):
    """Means of several independent bits with the same field.

    Parameters
    ----------
    bias : Tensor of shape (n_units,)
        The field without input, of each copy.
    n_copies : int, default=2
        Number of copies.
    """

    def __init__(self, bias: Tensor, n_copies: int = 2) -> None:
        super().__init__(bias)
        self.n_copies = n_copies

    def with_bias(self, bias: Tensor) -> Self:
        """Units of this kind with other biases."""
        return type(self)(bias, self.n_copies)

    def statistic(self, u: Tensor) -> Tensor:
        """The sum over the copies."""
        return self.n_copies * u

    def energy(self, u: Tensor, bias: Tensor | None = None) -> Tensor:
        """Energy of all copies without input, shape (n_rows,); with other biases if given."""
        return self.n_copies * super().energy(u, bias)

    def log_partition(self, bias: Tensor) -> Tensor:
        """Log of the sum over states of all copies of exp(-energy), elementwise."""
        return self.n_copies * softplus(bias)

    def cumulant(self, field: Tensor) -> Tensor:
        """log sum over the states of all copies, elementwise."""
        return self.n_copies * softplus(field)

    def variance(self, field: Tensor) -> Tensor:
        """That of a bit divided by the number of copies."""
        return super().variance(field) / self.n_copies

    def draw(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        """Means over independent copies."""
        total = draw_bits(mean, generator)
        for _ in range(self.n_copies - 1):
            total = total + draw_bits(mean, generator)
        return total / self.n_copies


class CopiedBilinearEnergy(BilinearEnergy):
    """Two layers of copied bits and the weights between them.

    Parameters
    ----------
    visible, hidden : CopiedBernoulli
        The layers' units.
    weights : Tensor of shape (n_hidden, n_visible)
        The couplings W of each copy with each copy.
    """

    visible: CopiedBernoulli
    hidden: CopiedBernoulli

    def hidden_field(self, v: Tensor) -> Tensor:
        """Input of each copy of the hidden units, (n_rows, n_hidden). O(n d k)."""
        return super().hidden_field(self.visible.statistic(v))

    def visible_field(self, h: Tensor) -> Tensor:
        """Input of each copy of the visible units, (n_rows, n_visible). O(n d k)."""
        return super().visible_field(self.hidden.statistic(h))

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h), shape (n_rows,)."""
        coupling = (self.hidden.statistic(h) @ self.weights) * self.visible.statistic(v)
        return self.visible.energy(v) + self.hidden.energy(h) - coupling.sum(dim=1)

    def free_energy_gradients(
        self, v: Tensor, signs: Tensor, field: Tensor, mean: Tensor
    ) -> tuple[Tensor, Gradients]:
        """As of the machine without copies, for the sums over these."""
        sums = self.visible.statistic(v), signs, field, self.hidden.statistic(mean)
        return super().free_energy_gradients(*sums)
