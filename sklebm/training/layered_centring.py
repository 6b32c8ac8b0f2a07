r"""Centred gradients of any number of layers: no layer's origin matters.

Around offsets o_l, E = -sum_l b_l' s_l - sum_l (s_{l+1} - o_{l+1})' W_l (s_l - o_l). A step down
the gradient of those parameters moves the plain ones by

    g_W_l <- g_W_l - g_b_{l+1} o_l' - o_{l+1} g_b_l',
    g_b_l <- g_b_l - g_W_l' o_{l+1} - g_W_{l-1} o_{l-1},

with the new g_W in the second line. For two layers this is ``Centring``.

J. Melchior, A. Fischer and L. Wiskott, "How to center deep Boltzmann machines", Journal of Machine
Learning Research 17(99), 2016; G. Montavon and K.-R. Müller, "Deep Boltzmann machines and the
centering trick", in "Neural networks: tricks of the trade", 2012.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sklebm.energies.gradients import Gradients, Product, dense
from sklebm.objectives import Batch
from sklebm.training.centring import Centring
from sklebm.training.transforms import TransformState

_MEAN_FIELD_STEPS = 5


class LayeredCentring(Centring):
    """Gradients centred at offsets of all layers: a transform for ``train``.

    Parameters
    ----------
    energy : LayeredEnergy
        The energy whose gradients are centred; all of its units are bits.
    visible_mean : Tensor of shape (n_visible,)
        Offsets of the rows: their mean.
    hidden_mean : Tensor of shape (sum of the hidden widths,)
        Initial offsets of the hidden layers; they follow the batches.
    """

    def update(
        self, gradients: Gradients, batch: Batch, state: TransformState, share: float
    ) -> tuple[Gradients, TransformState]:
        """Centred gradients from plain ones, and offsets moved towards those of the batch."""
        hidden = state["hidden_mean"]
        offsets = [self.visible_mean, *torch.split(hidden, self.energy.widths[1:])]
        known: dict[int, Any] = {id(parameter): gradient for parameter, gradient in gradients}
        biases = [known[id(layer.bias)] for layer in self.energy.layers]
        weights: list[Any] = [known[id(matrix)] for matrix in self.energy.couplings]
        seen = self._hidden_rows(weights, len(batch))
        new_weights = [
            self._centred(plain, biases[i], biases[i + 1], offsets[i], offsets[i + 1])
            for i, plain in enumerate(weights)
        ]
        new_biases = list(biases)
        for i, centred in enumerate(new_weights):
            new_biases[i] = new_biases[i] - _times(centred, offsets[i + 1], above=True)
            new_biases[i + 1] = new_biases[i + 1] - _times(centred, offsets[i], above=False)
        steps: Gradients = [
            *zip((layer.bias for layer in self.energy.layers), new_biases, strict=True),
            *zip(self.energy.couplings, new_weights, strict=True),
        ]
        return steps, self._followed(state, batch.x, share, seen)

    @staticmethod
    def _centred(plain: Any, below: Tensor, above: Tensor, low: Tensor, high: Tensor) -> Any:
        """The gradient of a matrix around the offsets of the layers that it joins."""
        if isinstance(plain, Product):
            # Exact because the weights of a contrast sum to zero.
            return Product(plain.left - high, plain.right - low, plain.weights)
        return plain - torch.outer(above, low) - torch.outer(high, below)

    @staticmethod
    def _hidden_rows(weights: list[Any], n_rows: int) -> Tensor | None:
        """The hidden means of the batch, which come first in the factors of a contrast."""
        if not all(isinstance(plain, Product) for plain in weights):
            return None
        return torch.cat([plain.left[:n_rows] for plain in weights], dim=1)

    def _hidden_mean(self, x: Tensor) -> Tensor:
        mean: Tensor = self.energy.mean_field(x, _MEAN_FIELD_STEPS)
        return mean


def _times(gradient: Any, offset: Tensor, *, above: bool) -> Tensor:
    """The gradient of a matrix times the offset of the layer above, or below it."""
    if isinstance(gradient, Product):
        one, other = gradient.left, gradient.right
        if above:
            return (gradient.weights * (one @ offset)) @ other
        return (gradient.weights * (other @ offset)) @ one
    matrix = dense(gradient)
    return matrix.T @ offset if above else matrix @ offset
