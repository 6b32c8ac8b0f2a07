r"""Steps of what joins real-valued rows to the layer above: in the units of the rows.

Means b + W' h have the units of the rows x, but their gradients, h (x - b - W' h)' / s^2, have the
inverse ones: plain steps would grow without bound for small units and vanish for large ones. Times
the variance s^2, the step in any units is the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sklebm.energies.gradients import Gradients
from sklebm.energies.units import Gaussian
from sklebm.objectives import Batch
from sklebm.training.transforms import TransformState


class RowUnits:
    """Multiplies gradients by the variances of the visible units: a transform for ``train``.

    Parameters
    ----------
    visible : Gaussian
        The units of the rows.
    parameters : sequence of Tensor
        Biases of these units, (n_visible,), and weights, (n_hidden, n_visible).
    """

    def __init__(self, visible: Gaussian, parameters: Sequence[Tensor]) -> None:
        self.visible = visible
        self.places = {id(parameter) for parameter in parameters}

    def init(self) -> TransformState:
        """There is no state."""
        return {}

    def update(
        self, gradients: Gradients, batch: Batch, state: TransformState, share: float
    ) -> tuple[Gradients, TransformState]:
        """Steps in the units of the rows."""
        variance = self.visible.log_variance.detach().exp()
        for parameter, gradient in gradients:
            if id(parameter) in self.places:
                gradient.mul_(variance)  # type: ignore[union-attr]
        return gradients, state
