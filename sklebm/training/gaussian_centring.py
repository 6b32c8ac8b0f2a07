r"""Gradients of machines with Gaussian visible units, whatever units the rows are measured in.

In the coordinates v / s, W / s and b / s, which have no units, and around the means m and l of both
layers, the parameters are

    W / s,    (b + W' l) / s,    c_c = c + W (m / s^2),

and a step down the gradient in these is, in the plain parameters,

    W <- s^2 (g_W - g_c (m / s^2)' - l g_b'),    b <- s^2 g_b - (step of W)' l,
    c <- g_c - (step of W) (m / s^2).

A hidden unit divides the rows half way between their means while it is off and while it is on,
m + (1/2 - l_k) w_k. A step of log s^2 takes c along, dc_k / dlog s_i^2 = w_ki (m_i + (1/2 - l_k)
w_ki) / s_i^2, so that this border stays where it is and the mass of a component hardly changes. A
shared variance takes the mean step of all features.

The visible mean b + W' h moves by the steps of all hidden units that are on, and what a hidden unit
receives by the squares of (x - m) / s. The steps of W, b and c are therefore divided by one more
than the mean number of hidden units that are on, and all steps by the mean of those squares, the
variance of the rows over that of the noise: a rate that suits ten hidden units and vague clusters
then suits a thousand, and sharp ones.

K. Cho, A. Ilin and T. Raiko, "Improved learning of Gaussian-Bernoulli restricted Boltzmann
machines", ICANN 2011; J. Melchior, N. Wang and L. Wiskott, "Gaussian-binary restricted Boltzmann
machines for modeling natural image statistics", PLoS ONE 12(2), 2017.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sklebm.energies.gradients import Gradients, Product
from sklebm.training.centring import Centring


class GaussianCentring(Centring):
    """Offsets of both layers, for visible units with variances."""

    @torch.no_grad()
    def apply_to_gradients(self, energy: Any, x: Tensor) -> None:
        """Turn the plain gradients of ``energy`` at the rows x into steps, in place. O(n d k)."""
        weights, hidden = energy.weights.grad, energy.hidden.bias.grad
        visible, mean = energy.visible.bias.grad, energy.visible.statistic(self.visible_mean)
        gap = x - self.visible_mean
        spread = _spread(gap * energy.visible.statistic(gap))
        pace = 1.0 / (spread * (1.0 + energy.hidden_mean(x).sum(dim=1).mean()))
        scale = pace * torch.exp(energy.visible.log_variance)
        log_variance, follows = energy.visible.log_variance.grad, None
        if log_variance is not None:
            step, follows = self._variance_step(energy, hidden, log_variance, spread)
            log_variance.copy_(step)
        left = torch.stack([hidden, self.hidden_mean], dim=1)
        weights.addmm_(left, torch.stack([mean, visible]), alpha=-1.0).mul_(scale)
        visible.mul_(scale).addmv_(weights.T, self.hidden_mean, alpha=-1.0)
        hidden.mul_(pace).addmv_(weights, mean, alpha=-1.0)
        if follows is not None:
            hidden.add_(follows)

    @torch.no_grad()
    def centred(self, energy: Any, gradients: Gradients, hidden: Tensor) -> Gradients:
        """Return steps for plain gradients in closed form. O(n (d + k) + d k) for n rows.

        ``hidden`` are the hidden means of the batch. The step of the weights stays a product, for
        weights of the rows that sum to zero.
        """
        known: dict[int, Any] = {id(parameter): gradient for parameter, gradient in gradients}
        plain: Product = known[id(energy.weights)]
        visible_bias, hidden_bias = energy.visible.bias, energy.hidden.bias
        log_variance = energy.visible.log_variance
        mean, variance = energy.visible.statistic(self.visible_mean), torch.exp(log_variance)
        left, sent = plain.left - self.hidden_mean, plain.right - mean
        right = sent * variance
        # The rows of the batch come first among those of the contrast.
        spread = _spread((sent * right)[: len(hidden)])
        pace = 1.0 / (spread * (1.0 + hidden.sum(dim=1).mean()))
        weights = plain.weights * pace
        of_visible = variance * pace * known[id(visible_bias)]
        of_hidden = pace * known[id(hidden_bias)] - (weights * (right @ mean)) @ left
        steps: Gradients = [
            (energy.weights, Product(left, right, weights)),
            (visible_bias, of_visible - (weights * (left @ self.hidden_mean)) @ right),
        ]
        if id(log_variance) in known:
            gradient = known[id(log_variance)]
            bias = known[id(hidden_bias)]
            step, follows = self._variance_step(energy, bias, gradient, spread)
            of_hidden = of_hidden + follows
            steps.append((log_variance, step))
        return [*steps, (hidden_bias, of_hidden)]

    def _variance_step(
        self, energy: Any, hidden: Tensor, gradient: Tensor, spread: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The step of log s^2, and that of c which goes with it, from the plain gradients."""
        weights = energy.weights
        middle = self.visible_mean + (0.5 - self.hidden_mean).unsqueeze(1) * weights
        slopes = weights * energy.visible.statistic(middle)
        count = 1.0
        if len(gradient) < len(self.visible_mean):
            slopes, count = slopes.sum(dim=1, keepdim=True), float(len(self.visible_mean))
        step = (gradient + hidden @ slopes) / (count * spread)
        return step, slopes @ step


def _spread(squares: Tensor) -> Tensor:
    """The variance of the rows over that of the noise, from the squares of (x - m) / s."""
    return squares.mean().clamp(min=1.0)
