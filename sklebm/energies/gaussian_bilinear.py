r"""E(v, h) = sum_i (v_i - a_i)^2 / 2 s_i^2 - c' h - h' W (v / s^2): real-valued visible units.

p(v | h) = N(a + W' h, s^2), and the hidden units receive c + W (v / s^2). Summed over h,
p(v) is a mixture of 2^k Gaussians with equal variances, and its logarithm has the derivatives

    d log p / dv = (a - v + W' m) / s^2,
    d^2 log p / dv_i^2 = -1 / s_i^2 + sum_k m_k (1 - m_k) w_ki^2 / s_i^4,     m = E[h | v].
"""

from __future__ import annotations

import torch
from torch import Tensor

from sklebm.energies.bilinear import BilinearEnergy
from sklebm.energies.gradients import Gradients, Product
from sklebm.energies.units import Gaussian


class GaussianBilinearEnergy(BilinearEnergy):
    """Gaussian visible and Bernoulli hidden units, and the weights between them.

    Parameters
    ----------
    visible : Gaussian
        The visible units.
    hidden : Bernoulli
        The hidden units.
    weights : Tensor of shape (n_hidden, n_visible)
        The couplings W, in the units of v: a hidden unit that is on moves the mean by w_k.
    """

    visible: Gaussian

    def hidden_field(self, v: Tensor) -> Tensor:
        """Input of the hidden units, (n_rows, n_hidden). O(n d k)."""
        return torch.addmm(self.hidden.bias, self.visible.statistic(v), self.weights.T)

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h), shape (n_rows,)."""
        coupling = ((h @ self.weights) * self.visible.statistic(v)).sum(dim=1)
        return self.visible.energy(v) + self.hidden.energy(h) - coupling

    def free_energy_gradients(
        self, v: Tensor, signs: Tensor, field: Tensor, mean: Tensor
    ) -> tuple[Tensor, Gradients]:
        """A scalar and the gradients of ``signs @ free_energy(v)``, variances included.

        The scalar is the sum of the energies E(v, mean) without the hidden entropy; at the hidden
        means both have the same derivatives.
        """
        u, gap, weights = self.visible.statistic(v), v - self.visible.bias, -signs
        quadratic = 0.5 * (weights @ self.visible.statistic(gap.square()))
        pushed = mean * weights.unsqueeze(1)
        value = torch.dot(pushed.flatten(), field.flatten()) - quadratic.sum()
        gradients: Gradients = [
            (self.weights, Product(mean, u, weights)),
            (self.visible.bias, weights @ self.visible.statistic(gap)),
            (self.hidden.bias, weights @ mean),
        ]
        log_variance = self.visible.log_variance
        if log_variance.requires_grad:
            each = quadratic - ((pushed @ self.weights) * u).sum(dim=0)
            each = each if len(log_variance) == len(each) else each.sum(dim=0, keepdim=True)
            gradients.append((log_variance, each))
        return value, gradients

    def score(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """First and second derivatives of log p(v) by each v_i, two of (n_rows, n_visible)."""
        mean = self.hidden_mean(v)
        precision = torch.exp(-self.visible.log_variance)
        first = (self.visible.bias - v + mean @ self.weights) * precision
        curvature = (mean * (1.0 - mean)) @ self.weights.square()
        return first, (curvature * precision - 1.0) * precision
