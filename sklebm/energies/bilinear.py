r"""E(v, h) = U(v) + V(h) - h' W v: the energy of every restricted Boltzmann machine.

F(v) = U(v) - sum_k Gamma_k(c_k + w_k' v) with the cumulants Gamma of the hidden units; for
Bernoulli units U(v) = -b' v and F(v) = -b' v - sum_k log(1 + exp(c_k + w_k' v)).
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sklebm.energies.gradients import Gradients, Product
from sklebm.energies.layered import LayeredEnergy
from sklebm.energies.units import Bernoulli, Gaussian, Units

# Pairs of units times rows that ``flip_differences`` processes at a time.
_MAX_PAIRS = 2**22


class BilinearEnergy(LayeredEnergy):
    """Two layers of units and the weights between them: a layered energy with closed-form sums.

    Parameters
    ----------
    visible, hidden : Bernoulli
        The layers' units. ``GaussianBilinearEnergy`` has Gaussian visible units.
    weights : Tensor of shape (n_hidden, n_visible)
        The couplings W.
    """

    def __init__(self, visible: Bernoulli | Gaussian, hidden: Bernoulli, weights: Tensor) -> None:
        nn.Module.__init__(self)  # parameters keep the names used by optimisers and files
        self.visible = visible
        self.hidden = hidden
        self.weights = nn.Parameter(weights)

    @property
    def layers(self) -> tuple[Units, Units]:  # type: ignore[override]
        """The visible and the hidden units."""
        return self.visible, self.hidden

    @property
    def couplings(self) -> tuple[Tensor]:  # type: ignore[override]
        """The weights."""
        return (self.weights,)

    @staticmethod
    def of_halves(energy: LayeredEnergy) -> BilinearEnergy:
        """Any number of layers of bits as two: the even ones visible, the odd ones hidden.

        The joint distribution of all units is the same, and so is Z.
        """
        even = torch.cat([layer.bias.detach() for layer in list(energy.layers)[0::2]])
        odd = torch.cat([layer.bias.detach() for layer in list(energy.layers)[1::2]])
        weights = even.new_zeros(len(odd), len(even))
        places = [sum(energy.widths[i % 2 : i : 2]) for i in range(len(energy.widths))]
        for index, matrix in enumerate(energy.couplings):
            below, above = (
                slice(places[i], places[i] + energy.widths[i]) for i in (index, index + 1)
            )
            if index % 2:
                weights[below, above] = matrix.detach().T
            else:
                weights[above, below] = matrix.detach()
        return BilinearEnergy(Bernoulli(even), Bernoulli(odd), weights)

    def with_parameters(self, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> Self:
        """An energy of this kind with other weights and biases."""
        visible, hidden = self.visible.with_bias(visible_bias), self.hidden.with_bias(hidden_bias)
        return type(self)(visible, hidden, weights)

    def flip_differences(self, v: Tensor) -> Tensor:
        """F(v with unit i flipped) - F(v) for every i, shape (n_rows, n_visible). O(n d k).

        For rows of 0 and 1.
        """
        n_pairs = self.weights.numel()
        if len(v) * n_pairs <= _MAX_PAIRS:
            return self._flip_differences(v)
        # The graph of all rows would need gigabytes: the backward pass recomputes each block.
        blocks = torch.split(v, max(1, _MAX_PAIRS // n_pairs))
        return torch.cat(
            [checkpoint(self._flip_differences, block, use_reentrant=False) for block in blocks]
        )

    def _flip_differences(self, v: Tensor) -> Tensor:
        change = 1.0 - 2.0 * v
        field = self.hidden_field(v)
        # Gamma(f + w) - Gamma(f) for all pairs of units, (n_rows, n_hidden, n_visible).
        flipped = field.unsqueeze(2) + self.weights * change.unsqueeze(1)
        gain = self.hidden.cumulant(flipped).sum(dim=1)
        gain = gain - self.hidden.cumulant(field).sum(dim=1, keepdim=True)
        return -(change * self.visible.bias) - gain

    def hidden_field(self, v: Tensor) -> Tensor:
        """Input of the hidden units, (n_rows, n_hidden). O(n d k)."""
        return torch.addmm(self.hidden.bias, v, self.weights.T)

    def visible_field(self, h: Tensor) -> Tensor:
        """Input of the visible units, (n_rows, n_visible). O(n d k)."""
        return torch.addmm(self.visible.bias, h, self.weights)

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h), shape (n_rows,)."""
        return self.visible.energy(v) + self.hidden.energy(h) - ((h @ self.weights) * v).sum(dim=1)

    def free_energy(self, v: Tensor, beta: float = 1.0) -> Tensor:
        """F_beta(v) = -1/beta log sum_h exp(-beta E(v, h)), shape (n_rows,)."""
        cumulants = self.hidden.cumulant(beta * self.hidden_field(v)).sum(dim=1)
        return self.visible.energy(v) - cumulants / beta

    def hidden_mean(self, v: Tensor) -> Tensor:
        """Mean of p(h | v), shape (n_rows, n_hidden)."""
        return self.hidden.mean(self.hidden_field(v))

    def draw_hidden(self, v: Tensor, generator: torch.Generator) -> Tensor:
        """One draw of p(h | v) for each row."""
        return self.hidden.draw(self.hidden_mean(v), generator)

    def draw_visible(self, h: Tensor, generator: torch.Generator) -> Tensor:
        """One draw of p(v | h) for each row."""
        return self.visible.draw(self.visible.mean(self.visible_field(h)), generator)

    def free_energy_gradients(
        self, v: Tensor, signs: Tensor, field: Tensor, mean: Tensor
    ) -> tuple[Tensor, Gradients]:
        """A scalar and the gradients of ``signs @ free_energy(v)``, reusing existing products.

        ``field`` and ``mean`` are ``hidden_field(v)`` and the hidden means. The scalar is the sum
        of the energies E(v, mean) without the hidden entropy, which needs no logarithms; the
        gradient with respect to every parameter is exact, because dF/dW = dE(v, h)/dW at
        h = mean. Autograd through ``free_energy`` would repeat the matrix product.
        """
        weights = -signs
        pulled = weights @ v
        pushed = (mean * weights[:, None]).flatten()
        value = torch.dot(pushed, field.flatten()) + pulled @ self.visible.bias
        return value, [
            (self.weights, Product(mean, v, weights)),
            (self.visible.bias, pulled),
            (self.hidden.bias, weights @ mean),
        ]
