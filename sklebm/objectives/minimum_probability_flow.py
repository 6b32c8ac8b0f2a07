r"""min E sum_i exp((F(v) - F(v, bit i flipped)) / 2): how fast data would flow to other states.

A dynamics with the model as its equilibrium moves probability from v to its neighbours, which
differ in one bit, at the rate exp((F(v) - F(v')) / 2). The flow away from the data is least where
the data are the equilibrium.

J. Sohl-Dickstein, P. Battaglino and M. R. DeWeese, "Minimum probability flow learning", ICML 2011.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sklebm.objectives.base import Objective, ObjectiveState


@dataclass(frozen=True)
class MinimumProbabilityFlow(Objective):
    """Keep probability from flowing from the data to states with one bit flipped.

    Flows between two rows of the data count too: they cancel at the truth, and no table of
    the data is needed. The exponential weighs rows of high energy most. A step costs
    O(n d k) logarithms for n rows. Rows between 0 and 1 are drawn as bits at every step; line
    searches ("lbfgs") need rows of 0 and 1.
    """

    needs: ClassVar[tuple[str, ...]] = ("flip_differences",)
    domain: ClassVar[str | None] = "binary"
    domain_reason: ClassVar[str] = "compares each unit with its flipped state"
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def loss(
        self, energy: Any, x: Tensor, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean over the rows of the flow to all neighbours."""
        differences = energy.flip_differences(energy.visible.draw(x, generator))
        return torch.exp(-0.5 * differences).sum(dim=1).mean(), state
