r"""Centred gradients of a bilinear energy: learning does not depend on which state is called 1.

Written around offsets, E(v, h) = U(v) + V(h) - (h - l)' W (v - m), the parameters are W,
b = b_c - W' l and c = c_c - W m. A step down the gradient in (W, b_c, c_c) moves the plain
parameters by J J' g, with the plain gradient g and the Jacobian J of that change of variables:

    g_W <- g_W - g_c m' - l g_b',     g_b <- g_b - g_W' l,     g_c <- g_c - g_W m.

With m and l the means of the units, flipping a unit (0 for 1) flips the course of learning and
has no other effect, and the steps are close to those of the natural gradient.

J. Melchior, A. Fischer and L. Wiskott, "How to center deep Boltzmann machines", Journal of Machine
Learning Research 17(99), 2016; K. Cho, T. Raiko and A. Ilin, "Enhanced gradient for training
restricted Boltzmann machines", Neural Computation 25(3), 2013.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sklebm.energies.gradients import Gradients, Product
from sklebm.objectives import Batch
from sklebm.training.transforms import TransformState

# The hidden means are tracked by a moving average over about 100 steps, as in the paper. Updating
# it at every eighth batch costs a fortieth of the step.
EVERY, RATE = 8, 0.08


class Centring:
    """Gradients centred at offsets of both layers: a transform for ``train``.

    Parameters
    ----------
    energy : BilinearEnergy
        The energy whose gradients are centred.
    visible_mean : Tensor of shape (n_visible,)
        Offsets m of the visible units: the mean of the rows.
    hidden_mean : Tensor of shape (n_hidden,)
        Initial offsets l of the hidden units; they follow the batches.
    follows : bool, default=True
        False keeps the hidden offsets fixed.
    """

    def __init__(
        self, energy: Any, visible_mean: Tensor, hidden_mean: Tensor, follows: bool = True
    ) -> None:
        self.energy = energy
        self.visible_mean = visible_mean
        self.hidden_mean = hidden_mean
        self.follows = follows

    def init(self) -> TransformState:
        """The hidden offsets, and the number of steps so far."""
        return {"hidden_mean": self.hidden_mean, "n_steps": 0}

    def update(
        self, gradients: Gradients, batch: Batch, state: TransformState, share: float
    ) -> tuple[Gradients, TransformState]:
        """Centred gradients from plain ones, and offsets moved towards those of the batch."""
        offsets = state["hidden_mean"]
        known: dict[int, Any] = {id(parameter): gradient for parameter, gradient in gradients}
        plain, hidden = known[id(self.energy.weights)], None
        if isinstance(plain, Product):
            # The rows of the batch come first in the contrast.
            hidden = plain.left[: len(batch)]
            steps = self._of_factors(gradients, known, offsets, hidden)
        else:
            self._in_place(known, batch.x, offsets)
            steps = gradients
        return steps, self._followed(state, batch.x, share, hidden)

    def _in_place(self, known: dict[int, Any], x: Tensor, offsets: Tensor) -> None:
        """Turn plain gradients at the rows x into centred ones. O(d k); bits need no rows."""
        energy = self.energy
        weights, hidden = known[id(energy.weights)], known[id(energy.hidden.bias)]
        visible = known[id(energy.visible.bias)]
        mean = energy.visible.statistic(self.visible_mean)
        left = torch.stack([hidden, offsets], dim=1)
        weights.addmm_(left, torch.stack([mean, visible]), alpha=-1.0)
        visible.addmv_(weights.T, offsets, alpha=-1.0)
        hidden.addmv_(weights, mean, alpha=-1.0)

    def _of_factors(
        self, gradients: Gradients, known: dict[int, Any], offsets: Tensor, hidden: Tensor
    ) -> Gradients:
        """Centred gradients from plain ones in closed form. O(n (d + k)) for n rows.

        The gradient of W remains a product, sum_i w_i (h_i - l)(v_i - m)', for row weights w that
        sum to zero, as they do in every contrast of data with the model. ``hidden`` holds the
        hidden means of the batch, which only other kinds of rows need.
        """
        energy = self.energy
        plain: Product = known[id(energy.weights)]
        mean = energy.visible.statistic(self.visible_mean)
        weights = plain.weights
        left, right = plain.left - offsets, plain.right - mean
        of_visible, of_hidden = energy.visible.bias, energy.hidden.bias
        moved = (energy.weights, of_visible, of_hidden)
        rest = [(p, g) for p, g in gradients if not any(p is parameter for parameter in moved)]
        return [
            *rest,
            (energy.weights, Product(left, right, weights)),
            (of_visible, known[id(of_visible)] - (weights * (left @ offsets)) @ right),
            (of_hidden, known[id(of_hidden)] - (weights * (right @ mean)) @ left),
        ]

    def _followed(
        self, state: TransformState, x: Tensor, share: float, hidden: Tensor | None
    ) -> TransformState:
        """Move the hidden offsets a little towards their mean over the batch.

        A batch moves them in proportion to its size; ``hidden`` holds its hidden means, if they
        are known.
        """
        offsets, n_steps = state["hidden_mean"], state["n_steps"]
        if self.follows and n_steps % EVERY == 0:
            hidden = self._hidden_mean(x) if hidden is None else hidden
            offsets = torch.lerp(offsets, hidden.mean(dim=0), RATE * min(share, 1.0))
        return {"hidden_mean": offsets, "n_steps": n_steps + 1}

    def _hidden_mean(self, x: Tensor) -> Tensor:
        """Means of the hidden units given each row."""
        mean: Tensor = self.energy.hidden_mean(x)
        return mean
