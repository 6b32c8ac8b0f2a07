r"""Gradients of machines with Gaussian visible units, independent of the units of the rows.

In the dimensionless coordinates v / s, W / s and b / s, and around the means m and l of both
layers, the parameters are

    W / s,    (b + W' l) / s,    c_c = c + W (m / s^2),

and a step down the gradient in these is, in the plain parameters,

    W <- s^2 (g_W - g_c (m / s^2)' - l g_b'),    b <- s^2 g_b - (step of W)' l,
    c <- g_c - (step of W) (m / s^2).

A hidden unit divides the rows half way between their means while it is off and while it is on,
m + (1/2 - l_k) w_k. A step of log s^2 takes c along, dc_k / dlog s_i^2 = w_ki (m_i + (1/2 - l_k)
w_ki) / s_i^2, so that this boundary stays in place and the mass of a component hardly changes. A
shared variance takes the mean step over all features.

The visible mean b + W' h moves by the steps of all hidden units that are on, and what a hidden unit
receives by the squares of (x - m) / s. The steps of W, b and c are therefore divided by one more
than the mean number of hidden units that are on, and all steps by the mean of those squares, the
variance of the rows over that of the noise: a rate that suits ten hidden units and diffuse clusters
then also suits a thousand units and sharp clusters.

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

    def _in_place(self, known: dict[int, Any], x: Tensor, offsets: Tensor) -> None:
        """Turn plain gradients at the rows x into steps. O(n d k) for n rows."""
        energy = self.energy
        weights, hidden = known[id(energy.weights)], known[id(energy.hidden.bias)]
        visible = known[id(energy.visible.bias)]
        mean = energy.visible.statistic(self.visible_mean)
        gap = x - self.visible_mean
        spread = _spread(gap * energy.visible.statistic(gap))
        pace = 1.0 / (spread * (1.0 + energy.hidden_mean(x).sum(dim=1).mean()))
        scale = pace * torch.exp(energy.visible.log_variance)
        log_variance, follows = known.get(id(energy.visible.log_variance)), None
        if log_variance is not None:
            step, follows = self._variance_step(hidden, log_variance, spread, offsets)
            log_variance.copy_(step)
        left = torch.stack([hidden, offsets], dim=1)
        weights.addmm_(left, torch.stack([mean, visible]), alpha=-1.0).mul_(scale)
        visible.mul_(scale).addmv_(weights.T, offsets, alpha=-1.0)
        hidden.mul_(pace).addmv_(weights, mean, alpha=-1.0)
        if follows is not None:
            hidden.add_(follows)

    def _of_factors(
        self, gradients: Gradients, known: dict[int, Any], offsets: Tensor, hidden: Tensor
    ) -> Gradients:
        """Steps for plain gradients in closed form. O(n (d + k) + d k) for n rows.

        The step of the weights remains a product, for row weights that sum to zero.
        """
        energy = self.energy
        plain: Product = known[id(energy.weights)]
        visible_bias, hidden_bias = energy.visible.bias, energy.hidden.bias
        log_variance = energy.visible.log_variance
        mean, variance = energy.visible.statistic(self.visible_mean), torch.exp(log_variance)
        left, sent = plain.left - offsets, plain.right - mean
        right = sent * variance
        # The rows of the batch come first in the contrast.
        spread = _spread((sent * right)[: len(hidden)])
        pace = 1.0 / (spread * (1.0 + hidden.sum(dim=1).mean()))
        weights = plain.weights * pace
        of_visible = variance * pace * known[id(visible_bias)]
        of_hidden = pace * known[id(hidden_bias)] - (weights * (right @ mean)) @ left
        steps: Gradients = [
            (energy.weights, Product(left, right, weights)),
            (visible_bias, of_visible - (weights * (left @ offsets)) @ right),
        ]
        if id(log_variance) in known:
            gradient, bias = known[id(log_variance)], known[id(hidden_bias)]
            step, follows = self._variance_step(bias, gradient, spread, offsets)
            of_hidden = of_hidden + follows
            steps.append((log_variance, step))
        return [*steps, (hidden_bias, of_hidden)]

    def _variance_step(
        self, hidden: Tensor, gradient: Tensor, spread: Tensor, offsets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The step of log s^2, and the corresponding step of c, from the plain gradients."""
        weights = self.energy.weights
        middle = self.visible_mean + (0.5 - offsets).unsqueeze(1) * weights
        slopes = weights * self.energy.visible.statistic(middle)
        count = 1.0
        if len(gradient) < len(self.visible_mean):
            slopes, count = slopes.sum(dim=1, keepdim=True), float(len(self.visible_mean))
        step = (gradient + hidden @ slopes) / (count * spread)
        return step, slopes @ step


def _spread(squares: Tensor) -> Tensor:
    """The variance of the rows over that of the noise, from the squares of (x - m) / s."""
    return squares.mean().clamp(min=1.0)
