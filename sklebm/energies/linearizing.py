r"""Squared errors of the next frame, from codes that go on along straight lines.

    E(x_{t+1}, d | x_t, x_{t-1}) = |x_{t+1} - g(z')|^2,
    z' = z_t + (1 + W d) * (e(z_t, z_{t-1}) - z_t)

z = f(x) is the code of a frame and e its extrapolation: along a straight line, or by two learnt
weights. A latent d of few dimensions stretches, stops or reverses the predicted change of each part
of the code; at d = 0 the prediction is the extrapolation itself.

R. Goroshin, M. Mathieu and Y. LeCun, "Learning to linearize under uncertainty", NIPS 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklebm.energies.standardization import Standardization


class StraightLine(nn.Module):
    """z_t + (z_t - z_{t-1}); magnitudes, the first ``n_magnitudes`` numbers, are averaged instead.

    Parameters
    ----------
    n_magnitudes : int
        Numbers of a code that tell what is there, which does not change along a path.
    """

    def __init__(self, n_magnitudes: int) -> None:
        super().__init__()
        self.n_magnitudes = n_magnitudes

    def forward(self, z: Tensor, before: Tensor) -> Tensor:
        """The next code, (n_rows, n_codes)."""
        m = self.n_magnitudes
        mean = 0.5 * (z[:, :m] + before[:, :m])
        return torch.cat([mean, 2.0 * z[:, m:] - before[:, m:]], dim=1)


class LearntLine(nn.Module):
    """a_1 z_t + a_2 z_{t-1} with learnt numbers a."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.empty(2, device="meta"))

    def forward(self, z: Tensor, before: Tensor) -> Tensor:
        """The next code, (n_rows, n_codes)."""
        ahead: Tensor = self.weights[0] * z + self.weights[1] * before
        return ahead


class LinearizingEnergy(nn.Module):
    """Squared error of the next frame.

    Parameters
    ----------
    encoder, decoder : Module
        The maps f and g.
    line : Module
        The extrapolation e, called with the latest code and the one before it.
    gate : Linear or None
        W, from latents to the gates of the code's changes; None: no latents.
    n_steps : int
        Gradient steps from d = 0 that infer the latent of a frame.
    rate : float
        Size of these steps, on the mean squared error of the features.
    """

    standardization: Standardization | None

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        line: nn.Module,
        gate: nn.Linear | None,
        n_steps: int,
        rate: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.line = line
        self.gate = gate
        self.n_steps = n_steps
        self.rate = rate
        self.standardization = None

    def standardized(self, x: Tensor) -> Tensor:
        """Rows as the networks see them."""
        return x if self.standardization is None else self.standardization(x)

    def restored(self, y: Tensor) -> Tensor:
        """Rows in the units of x."""
        return y if self.standardization is None else self.standardization.restore(y)

    def in_units_of_rows(self, errors: Tensor) -> Tensor:
        """Squared errors of rows from those of standardised rows."""
        if self.standardization is None:
            return errors
        return errors * self.standardization.unit().square()

    def next_code(self, z: Tensor, before: Tensor, delta: Tensor | None = None) -> Tensor:
        """z', (n_rows, n_codes); without ``delta`` the extrapolation."""
        ahead: Tensor = self.line(z, before)
        if delta is None or self.gate is None:
            return ahead
        gated: Tensor = z + (1.0 + self.gate(delta)) * (ahead - z)
        return gated

    def infer(self, z: Tensor, before: Tensor, y: Tensor) -> Tensor | None:
        """The latent of the next standardised row: ``n_steps`` gradient steps on its error.

        With gradients enabled, the result can be differentiated through all steps.
        """
        if self.gate is None:
            return None
        learning = torch.is_grad_enabled()
        delta = torch.zeros(len(z), self.gate.in_features, dtype=z.dtype, device=z.device)
        with torch.enable_grad():
            delta.requires_grad_()
            for _ in range(self.n_steps):
                error = self.errors(z, before, y, delta).sum() / y.shape[1]
                (slope,) = torch.autograd.grad(error, delta, create_graph=learning)
                delta = delta - self.rate * slope
                if not learning:
                    delta = delta.detach().requires_grad_()
        return delta if learning else delta.detach()

    def errors(self, z: Tensor, before: Tensor, y: Tensor, delta: Tensor | None) -> Tensor:
        """Squared error of each standardised row, (n_rows,)."""
        gaps: Tensor = y - self.decoder(self.next_code(z, before, delta))
        return gaps.square().sum(dim=1)

    def surprises(self, z: Tensor, before: Tensor, y: Tensor) -> Tensor:
        """Squared error of each standardised row with its own latent, (n_rows,)."""
        return self.errors(z, before, y, self.infer(z, before, y))
