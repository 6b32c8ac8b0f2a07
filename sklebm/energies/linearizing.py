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

# Bounds of the part of a step that is tried after it raised the error. Where the error levels off
# far away, the minimum of the parabola is near one half of the step: still too far.
_LEAST_PART, _LARGEST_PART = 0.1, 0.25


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
        Gradient steps from d = 0 that infer the latent of a frame, and those tried and not taken.
    rate : float
        Size of these steps, on the mean squared error of the features, until one is too long.
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

    def infer(
        self, z: Tensor, before: Tensor, y: Tensor, unroll: bool = False
    ) -> tuple[Tensor | None, Tensor]:
        """The latent of the next standardised row, and the error of the row with it.

        Steps have the size ``rate`` where they lower the error of their row. The gradient of the
        error takes the latent as given, which is exact at a minimum over latents. With ``unroll``
        it goes through the steps that were taken, as if their sizes were given: steps that raise
        errors would raise them, and gradients, without bound.
        """
        if self.gate is None:
            return None, self.errors(z, before, y, None)
        start = z.new_zeros(len(z), self.gate.in_features)
        with torch.no_grad():
            delta, error, rates = self._descended(z, before, y, start)
        if not torch.is_grad_enabled():
            return delta, error
        if not unroll:
            return delta, self.errors(z, before, y, delta)
        delta = start.requires_grad_()
        for rate in rates:
            _, slope = self._sloping(z, before, y, delta)
            delta = delta - rate[:, None] * slope
        return delta, self.errors(z, before, y, delta)

    def _descended(
        self, z: Tensor, before: Tensor, y: Tensor, delta: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Latents, errors, and the size of each step for each row.

        A step that would raise the error of its row is not taken, and the next one is a tenth to a
        quarter as long: as near as that to where the parabola through both errors and the slope is
        least. Every step decodes once.
        """
        error, slope = self._sloping(z, before, y, delta)
        rate, rates = torch.full_like(error, self.rate), []
        for left in reversed(range(self.n_steps)):
            trial = delta - rate[:, None] * slope
            if left:
                found, ahead = self._sloping(z, before, y, trial)
            else:
                found, ahead = self.errors(z, before, y, trial), slope
            falls = found <= error
            rates.append(torch.where(falls, rate, 0.0))
            # What the step would lower the error by if the slope stayed the same.
            expected = rate * slope.square().sum(dim=1) * y.shape[1]
            part = 0.5 * expected / (found - error + expected)
            part = part.nan_to_num(_LEAST_PART).clamp(_LEAST_PART, _LARGEST_PART)
            rate = torch.where(falls, rate, part * rate)
            delta = torch.where(falls[:, None], trial, delta)
            slope = torch.where(falls[:, None], ahead, slope)
            error = torch.where(falls, found, error)
        return delta, error, rates

    def _sloping(
        self, z: Tensor, before: Tensor, y: Tensor, delta: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Squared error of each row, and the slope of its mean over features along the latent."""
        learning = torch.is_grad_enabled()
        with torch.enable_grad():
            delta = delta if learning else delta.detach().requires_grad_()
            errors = self.errors(z, before, y, delta)
            total = errors.sum() / y.shape[1]
            (slope,) = torch.autograd.grad(total, delta, create_graph=learning)
        return (errors, slope) if learning else (errors.detach(), slope)

    def errors(self, z: Tensor, before: Tensor, y: Tensor, delta: Tensor | None) -> Tensor:
        """Squared error of each standardised row, (n_rows,)."""
        gaps: Tensor = y - self.decoder(self.next_code(z, before, delta))
        return gaps.square().sum(dim=1)

    def surprises(self, z: Tensor, before: Tensor, y: Tensor, unroll: bool = False) -> Tensor:
        """Squared error of each standardised row with its own latent, (n_rows,)."""
        return self.infer(z, before, y, unroll)[1]
