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

    def n_in_block(self) -> int:
        """Rows in the block so far."""
        return 0 if self.block is None else round(float(self.block.total))


def step_size(n_rows: int, n_seen: float, block_size: int) -> float:
    """The step g for the last ``n_rows`` of ``n_seen`` rows; never above 1."""
    share = block_size / n_seen
    return float(n_rows / block_size * max(share, share**_FORGETTING))


def online_pass(
    state: OnlineState, x: Tensor, block_size: int, reg_covar: float
) -> tuple[OnlineState, GaussianMixture, float, int]:
    """One pass over the rows of ``x``.

    Returns the state, the mixture with all rows counted, the mean log likelihood of the rows of
    the last block under the mixture at its start, and the number of blocks that were closed.
    """
    first, n_closed = 0, 0
    current, mean_log_likelihood = state.start, float("nan")
    while first < len(x):
        rows = slice(first, first + block_size - state.n_in_block())
        ones = torch.ones(len(x[rows]), dtype=torch.float64, device=x.device)
        sums = expect(state.start.energy(), x[rows], ones, [slice(None)])
        block = sums if state.block is None else state.block + sums
        state = state._replace(block=block)
        first = rows.stop
        n_rows = state.n_in_block()
        n_seen = state.n_before + n_rows
        step = step_size(n_rows, n_seen, block_size)
        current = maximise(state.start, block, reg_covar, step)
        mean_log_likelihood = float(block.log_likelihood / block.total)
        if n_rows >= block_size:
            state = OnlineState(current, None, n_seen)
            n_closed += 1
    return state, current, mean_log_likelihood, n_closed
