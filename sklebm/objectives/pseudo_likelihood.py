r"""log PL(v) = sum_i log p(v_i | the others), p(v_i | the others) = s(F(v, bit i flipped) - F(v)).

J. Besag, "Statistical analysis of non-lattice data", The Statistician 24(3), 1975.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from sklebm.energies.base import FreeEnergy
from sklebm.objectives.single_flips import SingleFlips


@dataclass(frozen=True)
class PseudoLikelihood(SingleFlips):
    """The conditional log-likelihood of every unit given the others, without a normaliser.

    The loss is -sum_i log p(v_i | the others) in nats. If the data come from the model, its minimum
    is the truth, with somewhat more variance than maximum likelihood; otherwise it is a different
    compromise. A step costs O(n d k) logarithms for n rows. Rows between 0 and 1 are
    drawn as bits at every step; line searches ("lbfgs") need rows of 0 and 1.
    """

    def cost(self, differences: Tensor) -> Tensor:
        """-log p(v_i | the others), in nats."""
        return -logsigmoid(differences)


def pseudo_log_likelihood(
    energy: FreeEnergy, v: Tensor, generator: torch.Generator, n_flips: int = 4
) -> Tensor:
    """Estimate of the log pseudo-likelihood of each row in nats, (n_rows,). O(n_flips n d k).

    Averages over ``n_flips`` bits per row, drawn from ``generator``, and multiplies by the
    number of bits: unbiased, and comparable between models if the generator has the same seed.
    Needs no normaliser. Meant for rows in [0, 1], where flipping is 1 - v.
    """
    n_rows, n_features = v.shape
    free_energy = energy.free_energy(v)
    rows = torch.arange(n_rows, device=v.device)
    total = torch.zeros_like(free_energy)
    for _ in range(n_flips):
        bits = torch.randint(n_features, (n_rows,), generator=generator).to(v.device)
        flipped = v.clone()
        flipped[rows, bits] = 1.0 - v[rows, bits]
        total += logsigmoid(energy.free_energy(flipped) - free_energy)
    return total * (n_features / n_flips)
