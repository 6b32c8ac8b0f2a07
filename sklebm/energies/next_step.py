r"""E(x_t | x_1 ... x_{t-1}) = -log p(x_t | h_{t-1}): a cell sums up the past, an output scores.

Sequences lie one after the other in the rows of a batch. ``walk`` gathers those of similar length
side by side; what is padded at their ends is never read, since nothing before it sees it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sklebm.energies.cells import State
from sklebm.energies.standardization import Standardization


class Walk(NamedTuple):
    """Features of all rows, and the state of the last sequence after its last row."""

    past: Tensor  # h_{t-1}, (n_rows, n_components)
    after: Tensor  # h_t
    state: State


class NextStepEnergy(nn.Module):
    """Energy of each step given those before it in the same sequence.

    Parameters
    ----------
    cell : Module
        See ``sklebm.energies.cells``.
    readout : Linear
        From features to the parameters of the output.
    output : Module
        See ``sklebm.energies.step_outputs``.
    standardization : Standardization or None
        Applied to rows that have not been standardised yet.
    """

    def __init__(
        self,
        cell: Any,
        readout: nn.Module,
        output: Any,
        standardization: Standardization | None = None,
    ) -> None:
        super().__init__()
        self.cell = cell
        self.readout = readout
        self.output = output
        self.standardization = standardization

    # ------------------------------------------------------------------ the walk through time

    def standardized(self, x: Tensor) -> Tensor:
        """Rows as the networks see them."""
        return x if self.standardization is None else self.standardization(x)

    def restored(self, y: Tensor) -> Tensor:
        """Rows in their own units."""
        return y if self.standardization is None else self.standardization.restore(y)

    def walk(
        self, y: Tensor, lengths: list[int], state: State | None = None, *, keep: bool = False
    ) -> Walk:
        """Features of sequences of standardised rows; ``state`` continues the first of them.

        ``keep``: return the state of the last one. Both sequences walk alone.
        """
        stops = torch.tensor(lengths).cumsum(0)
        starts = stops - torch.tensor(lengths)
        alone = sorted({*[0] * (state is not None), *[len(lengths) - 1] * keep})
        order = sorted(set(range(len(lengths))) - set(alone), key=lambda i: -lengths[i])
        blocks, places = [], []
        final: State = ()
        for index in alone:
            rows = slice(int(starts[index]), int(stops[index]))
            begun = state if index == 0 and state is not None else self.cell.initial(1)
            before, h, final = self._walked(y[rows, None], begun)
            blocks.append((before[:, 0], h[:, 0]))
            places.append(torch.arange(rows.start, rows.stop))
        for bucket in _of_similar_length(order, lengths):
            longest = lengths[bucket[0]]
            steps = torch.arange(longest)[:, None]
            own = torch.tensor([lengths[i] for i in bucket])
            where = starts[bucket] + torch.minimum(steps, own - 1)
            real = steps < own
            before, h, _ = self._walked(y[where.to(y.device)], self.cell.initial(len(bucket)))
            blocks.append((before[real.to(y.device)], h[real.to(y.device)]))
            places.append(where[real])
        back = torch.argsort(torch.cat(places)).to(y.device)
        past, after = (torch.cat(parts)[back] for parts in zip(*blocks, strict=True))
        return Walk(past, after, final)

    def _walked(self, y: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        h, last = self.cell(y, state)
        return torch.cat([self.cell.features_of(state)[None], h[:-1]]), h, last

    @property
    def n_components(self) -> int:
        """Number of features."""
        return int(self.readout.in_features)  # type: ignore[arg-type]

    # ------------------------------------------------------------------ answers, row by row

    def log_density(self, x: Tensor, groups: Tensor | None) -> Tensor:
        """log p(x_t | past) of each row, (n_rows,), in the units of x."""
        y = self.standardized(x)
        return self.log_density_given(y, self.walk(y, lengths_of(groups, len(x))).past)

    def log_density_given(self, y: Tensor, past: Tensor) -> Tensor:
        """log p of standardised rows given the features of their past, in the units of x."""
        found: Tensor = self.output.log_density(y, self.readout(past))
        if self.standardization is None:
            return found
        return found - self.standardization.scale.to(y.dtype).log().sum()

    def next_mean(self, after: Tensor) -> Tensor:
        """Mean of the step after each row, in the units of x."""
        mean: Tensor = self.output.mean(self.readout(after))
        return self.restored(mean)

    def latents(self, y: Tensor, past: Tensor) -> Tensor | None:
        """What a step adds to its past, if the output has latents."""
        found: Tensor | None = self.output.latents(y, self.readout(past))
        return found


def lengths_of(groups: Tensor | None, n_rows: int) -> list[int]:
    """Lengths of the runs of equal groups; one run without groups."""
    if groups is None:
        return [n_rows]
    counts: list[int] = torch.unique_consecutive(groups, return_counts=True)[1].tolist()
    return counts


def _of_similar_length(order: list[int], lengths: list[int]) -> list[list[int]]:
    """Sequences from long to short, in buckets in which at most half is padding."""
    buckets: list[list[int]] = []
    for index in order:
        if buckets and 2 * lengths[index] > lengths[buckets[-1][0]]:
            buckets[-1].append(index)
        else:
            buckets.append([index])
    return buckets
