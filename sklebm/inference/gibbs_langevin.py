r"""Gibbs-Langevin sampling: Langevin steps of Gaussian visible units, then a draw of the hidden.

Given h, the visible units have the density N(m, s^2) with m = a + W' h. With u = (v - m) / s, n
steps u <- (1 - e^2/2) u + e xi make

    u' = c u + r xi,      c = (1 - e^2/2)^n,      r^2 = (1 - c^2) / (1 - e^2/4),

so that any number of steps costs one draw. They leave variances of s^2 / (1 - e^2/4) where h stands
still: an error of O(e^2), which Metropolis and Hastings correct by accepting with probability
min(1, exp(e^2/8 (|u|^2 - |u'|^2))). Followed exactly, the Langevin equation du = -u dt/2 + dB is
that of Ornstein and Uhlenbeck, c = exp(-n e^2/2) and r^2 = 1 - c^2, which has no error to correct.

R. Liao, S. Kornblith, M. Ren, D. J. Fleet and G. Hinton, "Gaussian-Bernoulli RBMs without tears",
arXiv:2210.10318, 2022.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor

from sklebm._checks import check_counts
from sklebm.energies.base import TwoLayerEnergy
from sklebm.inference.gibbs import BlockGibbs, GibbsState
from sklebm.inference.samplers import StepInfo, standard_normal

CORRECTIONS = ("exact", "metropolis", "none")


@dataclass(frozen=True)
class GibbsLangevin(BlockGibbs):
    """Visible units that move by Langevin steps between draws of the hidden units.

    For Gaussian visible units. A step retains part of the previous visible state, which block Gibbs
    forgets; the chain moves in smaller steps and mixes no faster per step.

    Parameters
    ----------
    step_size : float, default=0.5
        Standard deviation of the noise of a Langevin step, in standard deviations of the visible
        units given the hidden ones. Below 2, from which on steps diverge, unless they are exact.
    n_langevin_steps : int, default=10
        Langevin steps for each draw of the hidden units.
    correction : {"exact", "metropolis", "none"}, default="exact"
        "exact" follows the Langevin equation without error, as can be done where the density is
        Gaussian. "none" takes the published Euler steps, which make the visible units too noisy by
        O(step_size^2). "metropolis" accepts or refuses where these lead, which is exact, but hardly
        moves where step_size is far above 2 / n_features^(1/4).
    """

    step_size: float = 0.5
    n_langevin_steps: int = 10
    correction: str = "exact"

    needs: ClassVar[tuple[str, ...]] = ("visible", "visible_field", "draw_hidden")
    domain: ClassVar[str | None] = "real"
    domain_reason: ClassVar[str] = "moves them by Langevin steps"

    def __post_init__(self) -> None:
        check_counts(self, "n_langevin_steps")
        if self.correction not in CORRECTIONS:
            raise ValueError(
                f'GibbsLangevin: correction={self.correction!r} must be "exact", "metropolis" or '
                '"none".'
            )
        limit = math.inf if self.correction == "exact" else 2.0
        if not (isinstance(self.step_size, Real) and 0.0 < self.step_size < limit):
            below = "" if limit == math.inf else " below 2, or Euler steps diverge"
            raise ValueError(
                f"GibbsLangevin: step_size={self.step_size!r} must be a positive number{below}."
            )

    def move_visible(
        self,
        generator: torch.Generator,
        state: GibbsState,
        energy: TwoLayerEnergy,
        known: Tensor | None = None,
    ) -> tuple[Tensor, StepInfo]:
        """Visible states after the Langevin steps; those where ``known`` is true stay."""
        v = state.visible
        mean = energy.visible.mean(energy.visible_field(state.hidden))
        deviation = torch.exp(0.5 * energy.visible.log_variance)
        kept, spread = self._whole_move()
        proposal = mean + kept * (v - mean) + spread * deviation * standard_normal(generator, v)
        if known is not None:
            proposal = torch.where(known, v, proposal)
        acceptance = self._acceptance((v - mean) / deviation, (proposal - mean) / deviation)
        moved = torch.empty_like(acceptance).uniform_(generator=generator) < acceptance
        return torch.where(moved[:, None], proposal, v), StepInfo(acceptance, moved)

    def _acceptance(self, before: Tensor, after: Tensor) -> Tensor:
        """The probability of each move from u to u'; what is not finite is refused."""
        sums = after.square().sum(dim=1)
        log_ratio = torch.zeros_like(sums)
        if self.correction == "metropolis":
            log_ratio = self.step_size**2 / 8.0 * (before.square().sum(dim=1) - sums)
        return log_ratio.clamp(max=0.0).exp().masked_fill(~torch.isfinite(sums), 0.0)

    def _whole_move(self) -> tuple[float, float]:
        """The factor on u after all Langevin steps, and the standard deviation of their noise."""
        square, n_steps = float(self.step_size) ** 2, self.n_langevin_steps
        if self.correction == "exact":
            kept = math.exp(-0.5 * n_steps * square)
            return kept, math.sqrt(1.0 - kept**2)
        kept = (1.0 - 0.5 * square) ** n_steps
        return kept, math.sqrt((1.0 - kept**2) / (1.0 - 0.25 * square))
