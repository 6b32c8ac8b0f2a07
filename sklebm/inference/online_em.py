r"""Mini-batch EM: moments follow s <- (1 - g) s + g s_block, one block of b rows after the other.

A block of m rows that ends at row n takes the step g = (m / b) max(b / n, (b / n)^0.7): every
row counts the same within the first b rows, and early rows, whose posteriors came from a poor
mixture, are forgotten slowly after that (Cappé & Moulines, 2009, "On-line expectation-maximization
algorithm for latent data models"). Posteriors within a block are those of the mixture at its
start, so the result does not depend on how rows were cut into chunks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sklebm.energies import GaussianMixture
from sklebm.inference.expectation_maximization import Statistics, expect, maximise

_FORGETTING = 0.7


class OnlineState(NamedTuple):
    """Where mini-batch EM stands: the mixture at the start of a block and sums within the block.

    ``n_before`` is the number of rows before the block; ``block`` is None at a block's start.
    """

    start: GaussianMixture
    block: Statistics | None
    n_before: float

    def weight_in_block(self) -> float:
        """Weight of the rows in the block so far."""
        return 0.0 if self.block is None else float(self.block.total)


def step_size(n_rows: float, n_seen: float, block_size: float) -> float:
    """The step g for the last ``n_rows`` of ``n_seen`` rows; never above 1."""
    share = block_size / n_seen
    return float(n_rows / block_size * max(share, share**_FORGETTING))


def online_pass(
    state: OnlineState, x: Tensor, weights: Tensor, block_size: int, regularisation: Tensor
) -> tuple[OnlineState, GaussianMixture, float, int]:
    """One pass over the rows of ``x``; a weight of m acts as m copies of the row.

    Returns the state, the mixture with all rows counted, the mean log likelihood of the rows of
    the last block under the mixture at its start, and the number of blocks that were closed.
    """
    first, n_closed = 0, 0
    ends = weights.cumsum(0)
    total, done = float(ends[-1]), 0.0
    current, mean_log_likelihood = state.start, float("nan")
    if state.block is not None and state.weight_in_block() >= block_size:
        # Blocks have become shorter: this one is full.
        weight = state.weight_in_block()
        n_seen = state.n_before + weight
        current = maximise(
            state.start, state.block, regularisation, step_size(weight, n_seen, weight)
        )
        state, n_closed = OnlineState(current, None, n_seen), 1
    while done < total:
        # A row whose weight does not fit any more goes on in the next block.
        stop = min(done + block_size - state.weight_in_block(), total)
        last = int(torch.searchsorted(ends, stop))
        rows = slice(first, last + 1)
        mass = weights[rows].clone()
        mass[0] = float(ends[first]) - done
        mass[-1] -= float(ends[last]) - stop
        sums = expect(state.start.energy(), x[rows], mass, [slice(None)])
        block = sums if state.block is None else state.block + sums
        state = state._replace(block=block)
        first, done = last + int(float(ends[last]) <= stop), stop
        weight = state.weight_in_block()
        n_seen = state.n_before + weight
        step = step_size(weight, n_seen, block_size)
        current = maximise(state.start, block, regularisation, step)
        mean_log_likelihood = float(block.log_likelihood / block.total)
        if weight >= block_size * (1.0 - 1e-12):
            state = OnlineState(current, None, n_seen)
            n_closed += 1
    return state, current, mean_log_likelihood, n_closed
