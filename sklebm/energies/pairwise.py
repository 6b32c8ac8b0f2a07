r"""E(s) = -1/2 s' W s - b' s of bits s = (x, h), visible and hidden, on any graph.

W is symmetric with a zero diagonal, so that every pair counts once: -sum_{i<j} W_ij s_i s_j. Pairs
that the mask excludes have W_ij = 0. A class of units without couplings among each other can be
drawn, or summed over, at once given the rest: with the largest class c summed out,

    log sum_s exp(-E(s)) = log sum_r exp(1/2 r' W_rr r + b_r' r
                           + sum_{i in c} log(1 + exp(b_i + (W_cr r)_i))),

and only the states of the remaining units r have to be listed. The mean of s is the derivative of
this sum by b.

G. E. Hinton and T. J. Sejnowski, "Learning and relearning in Boltzmann machines", in "Parallel
Distributed Processing", 1986.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sklebm.energies.binary_states import chunk_of_states
from sklebm.energies.reference import ReferenceUnits
from sklebm.energies.units import Bernoulli, softplus

#: Maximum number of units whose states are listed.
MAX_UNITS = 25
# Numbers in one block of a sum.
_BLOCK = 2**22
_CHUNK_BITS = 14


def colour_classes(coupled: Tensor) -> list[Tensor]:
    """Classes of units without couplings inside, by greedy colouring of the graph.

    Parameters
    ----------
    coupled : Tensor of bool, (n_units, n_units)
        True for pairs of units that are coupled; symmetric.
    """
    adjacent = coupled.cpu().numpy()
    n_units = len(adjacent)
    colours = np.full(n_units, -1)
    # Units with many neighbours first need fewer colours (Welsh and Powell, 1967).
    for unit in np.argsort(-adjacent.sum(axis=1), kind="stable"):
        taken = np.zeros(n_units + 1, dtype=bool)
        taken[colours[adjacent[unit]]] = True
        colours[unit] = int(np.argmin(taken[:n_units]))
    groups = [np.flatnonzero(colours == colour) for colour in range(colours.max(initial=-1) + 1)]
    return [torch.from_numpy(group).to(coupled.device) for group in groups]


def log_sums(fields: Tensor, couplings: Tensor, classes: list[Tensor]) -> Tensor:
    """log sum_s exp(1/2 s' W s + f' s) for every row f of ``fields``, (n_rows,). O(n 2^r m).

    Parameters
    ----------
    fields : Tensor of shape (n_rows, m)
        The biases of all units, in each row.
    couplings : Tensor of shape (m, m)
        W, symmetric with a zero diagonal.
    classes : list of Tensor
        Classes of units without couplings inside; all but the largest are listed.

    Raises
    ------
    ValueError
        If more than ``MAX_UNITS`` units would have to be listed.
    """
    n_units = fields.shape[1]
    if n_units == 0:
        return fields.sum(dim=1)
    summed = max(classes, key=len)
    kept = torch.ones(n_units, dtype=torch.bool, device=fields.device)
    kept[summed] = False
    listed = kept.nonzero()[:, 0]
    if len(listed) > MAX_UNITS:
        raise ValueError(
            f"The exact sum runs over the 2^{len(listed)} states of all {n_units} units but those "
            f"of one class without couplings, more than 2^{MAX_UNITS}: use annealed importance "
            'sampling, method="ais", or fewer couplings.'
        )
    of_fields, of_inputs = fields[:, listed], fields[:, summed]
    inner, between = couplings[listed][:, listed], couplings[listed][:, summed]
    size = min(2 ** len(listed), 2**_CHUNK_BITS, max(1, _BLOCK // len(summed)))
    n_together = max(1, _BLOCK // (size * len(summed)))

    def part(start: int, field: Tensor, received: Tensor) -> Tensor:
        states = chunk_of_states(start, len(listed), couplings, size)
        own = field @ states.T + 0.5 * ((states @ inner) * states).sum(dim=1)
        inputs = received.unsqueeze(1) + states @ between
        return torch.logsumexp(own + softplus(inputs).sum(dim=2), dim=1)

    starts = range(0, 2 ** len(listed), size)
    blocks = list(
        zip(torch.split(of_fields, n_together), torch.split(of_inputs, n_together), strict=True)
    )
    if len(starts) * len(blocks) <= 1:
        return part(0, of_fields, of_inputs)
    # The graph of all blocks would need gigabytes: the backward pass recomputes each one.
    totals = []
    for block in blocks:
        parts = [
            checkpoint(part, start, *block, use_reentrant=False, preserve_rng_state=False)
            for start in starts
        ]
        totals.append(torch.logsumexp(torch.stack(parts), dim=0))
    return torch.cat(totals)


def means(fields: Tensor, couplings: Tensor, classes: list[Tensor]) -> Tensor:
    """The exact mean of every unit for each row of ``fields``, (n_rows, m): d log_sums / df."""
    if len(classes) <= 1:
        return torch.sigmoid(fields)
    with torch.enable_grad():
        fields = fields.detach().requires_grad_()
        (found,) = torch.autograd.grad(log_sums(fields, couplings.detach(), classes).sum(), fields)
    return found


class PairwiseEnergy(nn.Module):
    """Bits on a graph, some of them hidden.

    Parameters
    ----------
    visible, hidden : Bernoulli
        The units, with their biases; there may be no hidden ones.
    weights : Tensor of shape (n_units, n_units)
        W, the visible units first; its symmetric part counts.
    mask : Tensor of bool of shape (n_units, n_units) or None, default=None
        Which pairs are coupled; None takes those with non-zero weights.

    Examples
    --------
    >>> import torch
    >>> from sklebm.energies import Bernoulli, PairwiseEnergy
    >>> weights = torch.tensor([[0.0, 2.0], [2.0, 0.0]])
    >>> bits = PairwiseEnergy(Bernoulli(torch.zeros(2)), Bernoulli(torch.zeros(0)), weights)
    >>> bits.free_energy(torch.tensor([[1.0, 1.0]])).tolist()
    [-2.0]
    >>> round(float(bits.exact_log_partition().exp().detach()), 4)  # 3 + e^2
    10.3891
    """

    domain = "binary"
    mask: Tensor

    def __init__(
        self, visible: Bernoulli, hidden: Bernoulli, weights: Tensor, mask: Tensor | None = None
    ) -> None:
        super().__init__()
        self.visible = visible
        self.hidden = hidden
        self.weights = nn.Parameter(weights)
        self.register_buffer("mask", None, persistent=False)
        self.allow((weights.detach() != 0) if mask is None else mask)

    def allow(self, mask: Tensor) -> None:
        """Couple the pairs of the mask and no others."""
        mask = mask.to(self.weights.device).clone().fill_diagonal_(False)
        self.mask = mask | mask.T
        self._classes: dict[str, list[Tensor]] = {}

    # ------------------------------------------------------------------ what it is made of

    @property
    def layers(self) -> tuple[Bernoulli, Bernoulli]:
        """The visible and the hidden units."""
        return self.visible, self.hidden

    @property
    def reference(self) -> ReferenceUnits:
        """The visible units without any input: independent, at their biases."""
        return ReferenceUnits(self.visible)

    @property
    def n_visible(self) -> int:
        """Number of visible units."""
        return len(self.visible.bias)

    def couplings(self) -> Tensor:
        """W: symmetric, zero on the diagonal and outside the mask."""
        return 0.5 * (self.weights + self.weights.T) * self.mask

    def lateral_couplings(self) -> Tensor:
        """W between visible units, (n_visible, n_visible)."""
        return self.couplings()[: self.n_visible, : self.n_visible]

    def hidden_couplings(self) -> Tensor:
        """W of the hidden units with the visible ones, (n_hidden, n_visible)."""
        return self.couplings()[self.n_visible :, : self.n_visible]

    def biases(self) -> Tensor:
        """b of all units, the visible ones first."""
        return torch.cat([self.visible.bias, self.hidden.bias])

    @property
    def classes(self) -> list[Tensor]:
        """Classes of units that can be drawn at once."""
        return self._coloured("all", self.mask)

    @property
    def hidden_classes(self) -> list[Tensor]:
        """The same of the hidden units alone, counted from the first of them."""
        return self._coloured("hidden", self.mask[self.n_visible :, self.n_visible :])

    def _coloured(self, which: str, coupled: Tensor) -> list[Tensor]:
        if which not in self._classes:
            self._classes[which] = colour_classes(coupled)
        return [units.to(coupled.device) for units in self._classes[which]]

    @property
    def summed_units(self) -> int:
        """Number of units that the exact log Z lists the states of."""
        return len(self.weights) - max(len(units) for units in self.classes)

    @property
    def listed_hidden_units(self) -> int:
        """Number of hidden units that the free energy lists the states of."""
        largest = max((len(units) for units in self.hidden_classes), default=0)
        return len(self.hidden.bias) - largest

    # ------------------------------------------------------------------ energies

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h), shape (n_rows,). O(n m^2)."""
        s = torch.cat([v, h], dim=1)
        return -(s @ self.biases()) - 0.5 * ((s @ self.couplings()) * s).sum(dim=1)

    def _hidden_field(self, v: Tensor, couplings: Tensor | None = None) -> Tensor:
        """Input of the hidden units from the visible ones, (n_rows, n_hidden)."""
        couplings = self.couplings() if couplings is None else couplings
        return self.hidden.bias + v @ couplings[: self.n_visible, self.n_visible :]

    def free_energy(self, v: Tensor, beta: float = 1.0) -> Tensor:
        """F_beta(v) = -1/beta log sum_h exp(-beta E(v, h)), shape (n_rows,)."""
        couplings, n = self.couplings(), self.n_visible
        own = -(v @ self.visible.bias) - 0.5 * ((v @ couplings[:n, :n]) * v).sum(dim=1)
        fields = self._hidden_field(v, couplings)
        return own - self._sums(beta * fields, beta * couplings) / beta

    def _sums(self, fields: Tensor, couplings: Tensor) -> Tensor:
        inner = couplings[self.n_visible :, self.n_visible :]
        return log_sums(fields, inner, self.hidden_classes)

    def hidden_mean(self, v: Tensor) -> Tensor:
        """Exact mean of every hidden unit given each row, (n_rows, n_hidden)."""
        couplings, n = self.couplings(), self.n_visible
        fields = self._hidden_field(v, couplings)
        return means(fields, couplings[n:, n:], self.hidden_classes)

    def flip_differences(self, v: Tensor) -> Tensor:
        """F(v with unit i flipped) - F(v) for every i, shape (n_rows, n_visible).

        For rows of 0 and 1. O(n d^2) without hidden units.
        """
        couplings, n = self.couplings(), self.n_visible
        change = 1.0 - 2.0 * v
        own = -change * (self.visible.bias + v @ couplings[:n, :n])
        if len(couplings) == n:
            return own
        fields = self._hidden_field(v, couplings)
        # The input of the hidden units with every unit flipped, (n_rows, n_visible, n_hidden).
        flipped = fields.unsqueeze(1) + change.unsqueeze(2) * couplings[:n, n:]
        gain = self._sums(flipped.flatten(0, 1), couplings).view_as(v)
        return own - gain + self._sums(fields, couplings).unsqueeze(1)

    def conditional_mean(self, v: Tensor) -> Tensor:
        """p(x_i = 1 | the other visible units), (n_rows, n_visible); x_i itself does not matter.

        O(n d^2) without hidden units.
        """
        couplings, n = self.couplings(), self.n_visible
        odds = self.visible.bias + v @ couplings[:n, :n]
        if len(couplings) > n:
            between = couplings[:n, n:]
            # The input of the hidden units with every unit at 0, (n_rows, n_visible, n_hidden).
            off = self._hidden_field(v, couplings).unsqueeze(1) - v.unsqueeze(2) * between
            gains = [self._sums(f.flatten(0, 1), couplings) for f in (off, off + between)]
            odds = odds + (gains[1] - gains[0]).view_as(v)
        return torch.sigmoid(odds)

    def exact_log_partition(self) -> Tensor:
        """log Z over all units, as a differentiable scalar. O(2^r m) for r listed units."""
        return log_sums(self.biases().unsqueeze(0), self.couplings(), self.classes)[0]
