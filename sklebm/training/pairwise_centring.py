r"""Centred gradients of bits on a graph: learning does not depend on which state is called 1.

Around offsets m, E(s) = -sum_{i<j} W_ij (s_i - m_i)(s_j - m_j) - b_c's, the parameters are W and
b = b_c - W m. A step down the gradient in (W, b_c) is, in the plain parameters,

    g_Wij <- g_Wij - g_bi m_j - m_i g_bj,     g_b <- g_b - (step of W) m.

g_Wij is the derivative by the coupling of a pair. Gradients of the two entries that hold it are
half of that each; they are doubled, also where nothing is centred.
"""

from __future__ import annotations

from typing import Any

import torch

from sklebm.energies.gradients import Gradients
from sklebm.objectives import Batch
from sklebm.training.centring import Centring
from sklebm.training.transforms import TransformState


class PairwiseCentring(Centring):
    """Gradients of a ``PairwiseEnergy`` centred at the means of its units."""

    def update(
        self, gradients: Gradients, batch: Batch, state: TransformState, share: float
    ) -> tuple[Gradients, TransformState]:
        """Centred gradients from plain ones, and hidden offsets moved towards the batch's."""
        energy = self.energy
        known: dict[int, Any] = {id(parameter): gradient for parameter, gradient in gradients}
        pairs = known[id(energy.weights)]
        of_visible = known[id(energy.visible.bias)]
        # Without hidden units there is no gradient of their biases.
        of_hidden = known.get(id(energy.hidden.bias), of_visible[:0])
        offsets = torch.cat([self.visible_mean, state["hidden_mean"]])
        biases = torch.cat([of_visible, of_hidden])
        shift = torch.outer(biases, offsets)
        # Added up first, so that the step is symmetric to the last bit.
        step = (2.0 * pairs - (shift + shift.T)) * energy.mask
        pairs.copy_(step)
        biases = biases - step @ offsets
        of_visible.copy_(biases[: len(of_visible)])
        of_hidden.copy_(biases[len(of_visible) :])
        return gradients, self._followed(state, batch.x, share, None)
