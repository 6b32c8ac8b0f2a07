r"""min E sum_i exp((F(v) - F(v, bit i flipped)) / 2): rate of flow from the data to other states.

Dynamics with the model as equilibrium move probability from v to its neighbours, which differ in
one bit, at the rate exp((F(v) - F(v')) / 2). The flow away from the data is minimal if the data
are at equilibrium.

J. Sohl-Dickstein, P. Battaglino and M. R. DeWeese, "Minimum probability flow learning", ICML 2011.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sklebm.objectives.single_flips import SingleFlips


@dataclass(frozen=True)
class MinimumProbabilityFlow(SingleFlips):
    """Minimise the flow of probability from the data to states with one bit flipped.

    Flows between two rows of the data count too: they cancel at the truth, and no table of
    the data is needed. The exponential gives rows of high energy the most weight. A step costs
    O(n d k) logarithms for n rows. Rows between 0 and 1 are drawn as bits at every step; line
    searches ("lbfgs") need rows of 0 and 1.
    """

    def cost(self, differences: Tensor) -> Tensor:
        """Rate at which probability flows to each neighbour."""
        return torch.exp(-0.5 * differences)
