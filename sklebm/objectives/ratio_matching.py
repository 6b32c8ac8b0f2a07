r"""min E sum_i (1 - p(v_i | the others))^2: ratios of probabilities of neighbouring states.

With p(v) / p(v, bit i flipped) = exp(F(v, bit i flipped) - F(v)) the normaliser cancels.

A. Hyvarinen, "Some extensions of score matching", Computational Statistics & Data Analysis
51, 2007.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sklebm.objectives.single_flips import SingleFlips


@dataclass(frozen=True)
class RatioMatching(SingleFlips):
    """Match the ratios p(v) / p(v with one bit flipped) to those of the data.

    Consistent like the pseudo-likelihood, but bounded in every unit, hence less affected by bits
    that are nearly impossible. A step costs O(n d k) logarithms for n rows. Rows between 0
    and 1 are drawn as bits at every step; line searches ("lbfgs") need rows of 0 and 1.
    """

    def cost(self, differences: Tensor) -> Tensor:
        """p(flipped v_i | the others)^2."""
        return torch.sigmoid(-differences).square()
