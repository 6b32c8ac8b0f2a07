r"""The path from independent bits to bits on a graph: log p*_t(s) = (1 - t) b_0's - t E(s).

At t = 0 every unit is on with the probability sigma(b_0), so that log Z_0 = sum log(1 + e^b_0) is
known; at t = 1 it is the machine E(s) = -1/2 s' W s - b' s over all units, hidden ones included.
The units c of the largest class, which are not coupled to each other, are summed out, so that
weights depend on the remaining units r only and vary less:

    log p*_t(r) = (1 - t) b_0r' r + t (1/2 r' W_rr r + b_r' r)
                  + sum_{i in c} log(1 + exp((1 - t) b_0i + t (b_i + (W_cr r)_i))).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sklebm.energies.units import softplus
from sklebm.inference.gibbs_sweeps import sweep


class PairwisePath:
    """The machines along the path; states hold all units.

    Parameters
    ----------
    couplings : Tensor of shape (n_units, n_units)
        W, symmetric with a zero diagonal.
    biases : Tensor of shape (n_units,)
        b.
    base : Tensor of shape (n_units,)
        b_0, the biases at t = 0.
    classes : sequence of Tensor
        Indices of units that are not coupled to each other.
    """

    def __init__(
        self, couplings: Tensor, biases: Tensor, base: Tensor, classes: Sequence[Tensor]
    ) -> None:
        self.couplings, self.biases, self.base = couplings, biases, base
        self.like = base
        # The summed units come first in every sweep: their own states never count.
        self.classes = sorted(classes, key=len, reverse=True)
        self.summed = self.classes[0]
        rest = torch.ones(len(base), dtype=torch.bool, device=base.device)
        rest[self.summed] = False
        self.kept = rest.nonzero()[:, 0]
        self.slope = biases - base
        self.inner = couplings[self.kept][:, self.kept]
        self.between = couplings[self.kept][:, self.summed]

    @classmethod
    def to(
        cls, energy: Any, base_bias: Tensor, base_variance: Tensor | None = None
    ) -> PairwisePath:
        """The path to a ``PairwiseEnergy``; at t = 0, hidden units are on half of the time.

        Parameters
        ----------
        energy : PairwiseEnergy
            The machine at t = 1.
        base_bias : Tensor of shape (n_visible,)
            Biases of the visible units at t = 0.
        base_variance : None
            Bits have none.
        """
        biases = energy.biases().detach()
        base = torch.zeros_like(biases)
        base[: len(base_bias)] = base_bias
        return cls(energy.couplings().detach(), biases, base, energy.classes)

    def log_z0(self) -> float:
        """log Z at t = 0."""
        return float(softplus(self.base).sum())

    def draw_base(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Independent states at t = 0, (n_rows, n_units)."""
        mean = torch.sigmoid(self.base).expand(n_rows, -1)
        uniform = torch.empty(mean.shape, dtype=mean.dtype, device=mean.device)
        return uniform.uniform_(generator=generator).lt_(mean)

    def observe(self, s: Tensor) -> Tensor:
        """The derivative by t of the first terms, and of what each summed unit receives.

        Of shape (n_rows, 1 + n_summed).
        """
        r = s[:, self.kept]
        own = 0.5 * ((r @ self.inner) * r).sum(dim=1) + r @ self.slope[self.kept]
        return torch.cat([own.unsqueeze(1), self.slope[self.summed] + r @ self.between], dim=1)

    def log_weight(self, s: Tensor, seen: Tensor, start: Any, stop: Any) -> Tensor:
        """log p*_stop(r) - log p*_start(r), (n_rows,); ``seen`` is ``observe(s)``."""
        share = stop - start
        share = share[:, 0] if isinstance(share, Tensor) else share
        base, received = self.base[self.summed], seen[:, 1:]
        gain = softplus(base + stop * received) - softplus(base + start * received)
        return share * seen[:, 0] + gain.sum(dim=1)

    def move(self, s: Tensor, seen: Tensor, t: Any, generator: torch.Generator) -> Tensor:
        """The summed units, then a sweep over the others at t. O(n n_units^2)."""
        classes = self.classes
        if len(classes) > 2:
            # Given the summed units, a sweep in a fixed order is not reversible; the even mixture
            # with the opposite order is.
            backwards = bool(torch.rand((), generator=generator, device=s.device) < 0.5)
            classes = [classes[0], *(classes[:0:-1] if backwards else classes[1:])]
        biases = self.base + t * self.slope
        if not isinstance(t, Tensor):
            return sweep(s, t * self.couplings, biases, classes, generator)
        return sweep(s, self.couplings, biases, classes, generator, strength=t[:, 0])

    def log_base_density(self, s: Tensor) -> Tensor:
        """log of the normalised density of the remaining units at t = 0, (n_rows,)."""
        base = self.base[self.kept]
        return s[:, self.kept] @ base - softplus(base).sum()
