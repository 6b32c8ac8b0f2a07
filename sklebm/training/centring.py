r"""Centred gradients of a bilinear energy: learning that does not depend on what is called 1.

Written around offsets, E(v, h) = U(v) + V(h) - (h - l)' W (v - m), the parameters are W,
b = b_c - W' l and c = c_c - W m. A step down the gradient in (W, b_c, c_c) moves the plain
parameters by J J' g, with the plain gradient g and the Jacobian J of that change of variables:

    g_W <- g_W - g_c m' - l g_b',     g_b <- g_b - g_W' l,     g_c <- g_c - g_W m.

With m and l the means of the units, flipping a unit (0 for 1) flips the course of learning and
nothing else, and the steps are close to those of the natural gradient.

J. Melchior, A. Fischer and L. Wiskott, "How to center deep Boltzmann machines", Journal of Machine
Learning Research 17(99), 2016; K. Cho, T. Raiko and A. Ilin, "Enhanced gradient for training
restricted Boltzmann machines", Neural Computation 25(3), 2013.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sklebm.energies.gradients import Gradients, Product

# The hidden means are followed by a sliding average over about 100 steps, as in the paper. A look
# at every eighth batch costs a fortieth of the step.
_EVERY, _RATE = 8, 0.08


class Centring(nn.Module):
    """Offsets of both layers, and the change of gradients that they stand for.

    Parameters
    ----------
    visible_mean : Tensor of shape (n_visible,)
        Offsets m of the visible units: the mean of the rows.
    hidden_mean : Tensor of shape (n_hidden,)
        Offsets l of the hidden units to begin with; they follow the batches.
    follows : bool, default=True
        False holds the hidden offsets.
    """

    visible_mean: Tensor
    hidden_mean: Tensor

    def __init__(self, visible_mean: Tensor, hidden_mean: Tensor, follows: bool = True) -> None:
        super().__init__()
        self.follows = follows
        self.register_buffer("visible_mean", visible_mean)
        self.register_buffer("hidden_mean", hidden_mean)
        self.n_steps = 0

    @torch.no_grad()
    def apply_to_gradients(self, energy: Any, x: Tensor) -> None:
        """Turn the plain gradients of ``energy`` at the rows x into centred ones, in place. O(d k).

        Bits need no look at the rows.
        """
        weights, hidden = energy.weights.grad, energy.hidden.bias.grad
        visible = energy.visible.bias.grad
        mean = energy.visible.statistic(self.visible_mean)
        left = torch.stack([hidden, self.hidden_mean], dim=1)
        weights.addmm_(left, torch.stack([mean, visible]), alpha=-1.0)
        visible.addmv_(weights.T, self.hidden_mean, alpha=-1.0)
        hidden.addmv_(weights, mean, alpha=-1.0)

    @torch.no_grad()
    def centred(self, energy: Any, gradients: Gradients, hidden: Tensor) -> Gradients:
        """Return centred gradients for plain ones in closed form. O(n (d + k)) for n rows.

        ``hidden`` are the hidden means of the batch, which only other kinds of rows need.

        That of the weights stays a product, sum_i w_i (h_i - l)(v_i - m)', for weights that sum
        to zero, as they do in every contrast of data with the model.
        """
        known: dict[int, Any] = {id(parameter): gradient for parameter, gradient in gradients}
        plain: Product = known[id(energy.weights)]
        mean = energy.visible.statistic(self.visible_mean)
        weights = plain.weights
        left, right = plain.left - self.hidden_mean, plain.right - mean
        visible, hidden = energy.visible.bias, energy.hidden.bias
        moved = (energy.weights, visible, hidden)
        rest = [(p, g) for p, g in gradients if not any(p is parameter for parameter in moved)]
        return [
            *rest,
            (energy.weights, Product(left, right, weights)),
            (visible, known[id(visible)] - (weights * (left @ self.hidden_mean)) @ right),
            (hidden, known[id(hidden)] - (weights * (right @ mean)) @ left),
        ]

    @torch.no_grad()
    def follow(self, energy: Any, x: Tensor, share: float, hidden: Tensor | None = None) -> None:
        """Let the hidden offsets follow their mean over the batch ``x``.

        ``share`` is the size of the batch in full ones, by which the average moves less;
        ``hidden`` are the hidden means of the batch, where they are known.
        """
        if self.follows and self.n_steps % _EVERY == 0:
            hidden = energy.hidden_mean(x) if hidden is None else hidden
            # A new tensor: the old one may share its memory with a fitted attribute.
            self.hidden_mean = torch.lerp(
                self.hidden_mean, hidden.mean(dim=0), _RATE * min(share, 1.0)
            )
        self.n_steps += 1
