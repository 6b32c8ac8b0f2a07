r"""Gradients of machines with correlated Gaussian visible units, free of the units of the rows.

With the factor L = R R', the machine is one of unit variances in the coordinates R' v. A step down
the gradient there, around the means m and l of both layers, is in the plain parameters

    W <- (g_W - g_c (L m)' - l g_a') L^-1,    a <- L^-1 g_a - (step of W)' l,
    c <- g_c - (step of W) L m,               L <- L g_L L on the free entries,

which for L = I / s^2 is that of ``GaussianCentring``. As there, a step of L takes c along, such
that a hidden unit divides the rows half way between their means while it is off and on,

    c_k <- -w_k' (step of L) (m + (1/2 - l_k) w_k),

and all steps are divided by the variance of the rows over that of the noise, those of W, a and c
also by one more than the mean number of hidden units that are on. On the free entries G of g_L the
step goes downhill for any mask: <G, L G L> = |R' G R|^2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sklebm.energies.correlated_gaussian import factor_of
from sklebm.energies.gradients import Gradients, Product
from sklebm.objectives import Batch
from sklebm.training.centring import Centring
from sklebm.training.transforms import TransformState

# L moves more slowly than the means do, or it would explain the rows before hidden units can.
_SLOWER = 0.1


class PrecisionCentring(Centring):
    """Offsets of both layers, for visible units with one precision.

    Parameters
    ----------
    energy : CorrelatedBilinearEnergy
        The energy whose gradients are centred.
    visible_mean : Tensor of shape (n_visible,)
        Offsets m of the visible units.
    hidden_mean : Tensor of shape (n_hidden,)
        Initial offsets l of the hidden units.
    mask : Tensor of bool, shape (n_visible, n_visible)
        The free entries of L.
    follows : bool, default=True
        False keeps the hidden offsets fixed.
    sharp : bool, default=False
        Whether the loss grows with L, as score matching does: steps are then divided by its norm.
    """

    def __init__(
        self,
        energy: Any,
        visible_mean: Tensor,
        hidden_mean: Tensor,
        mask: Tensor,
        *,
        follows: bool = True,
        sharp: bool = False,
    ) -> None:
        super().__init__(energy, visible_mean, hidden_mean, follows)
        self.mask = mask
        self.sharp = sharp

    def update(
        self, gradients: Gradients, batch: Batch, state: TransformState, share: float
    ) -> tuple[Gradients, TransformState]:
        """Steps from plain gradients, and offsets moved towards those of the batch. O(d^3)."""
        energy, hidden_mean, m = self.energy, state["hidden_mean"], self.visible_mean
        known: dict[int, Any] = {id(parameter): gradient for parameter, gradient in gradients}
        of_weights = known[id(energy.weights)]
        if isinstance(of_weights, Product):
            of_weights = (of_weights.left * of_weights.weights[:, None]).T @ of_weights.right
        visible, hidden = energy.visible.bias, energy.hidden.bias
        g_visible, g_hidden = known[id(visible)], known[id(hidden)]
        precision, weights = energy.visible.precision.detach(), energy.weights.detach()
        means = energy.hidden_mean(batch.x)
        gap = batch.x - m
        spread = (gap * (gap @ precision)).mean().clamp(min=1.0)
        if self.sharp:
            spread = spread * precision.norm()
        pace = 1.0 / (spread * (1.0 + means.sum(dim=1).mean()))
        sent = precision @ m
        centred = of_weights - torch.outer(g_hidden, sent) - torch.outer(hidden_mean, g_visible)
        factor = factor_of(precision)
        solved = torch.cholesky_solve(torch.cat([centred, g_visible[None]]).T, factor).T
        of_weights, of_visible = pace * solved[:-1], pace * solved[-1]
        # The gradient of L with c taken along.
        middle = m + (0.5 - hidden_mean).unsqueeze(1) * weights
        along = (g_hidden.unsqueeze(1) * weights).T @ middle
        slope = known[id(energy.visible.precision)] - along
        slope = torch.where(self.mask, 0.5 * (slope + slope.T), 0.0)
        of_precision = torch.where(self.mask, precision @ slope @ precision, 0.0)
        of_precision = of_precision * (_SLOWER / spread)
        follows = -((weights @ of_precision) * middle).sum(dim=1)
        steps: Gradients = [
            (energy.weights, of_weights),
            (visible, of_visible - of_weights.T @ hidden_mean),
            (hidden, pace * g_hidden - of_weights @ sent + follows),
            (energy.visible.precision, of_precision),
        ]
        return steps, self._followed(state, batch.x, share, means)
