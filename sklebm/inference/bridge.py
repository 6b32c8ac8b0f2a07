r"""log Z from a ladder of tempered chains, bridging from each temperature to the next.

log Z is log Z_0 plus the sum of Bennett's estimates of the ratios along the ladder (``ratios``).
Each ladder is an independent chain, so leaving out one group of ladders at a time gives the
standard error, including correlations in time. It cannot reveal an error common to all ladders,
such as a start from which none of them has escaped. Ladders therefore start from both ends of the
path, and the two groups have to agree.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sklebm.inference import parallel_tempering
from sklebm.inference.ais import PartitionEstimate
from sklebm.inference.parallel_tempering import TemperingState
from sklebm.inference.ratios import log_ratio_error, log_ratios
from sklebm.inference.tempered_path import Path


class Ladder(NamedTuple):
    """Results of a run of parallel tempering.

    ``upwards`` and ``downwards`` hold l(x) of the draws at the hotter and at the colder of each
    pair of neighbours, (n_pairs, n_ladders, n_steps); ``state`` is the last; ``acceptance`` the
    mean share of exchanges for each pair.
    """

    upwards: Tensor
    downwards: Tensor
    state: TemperingState
    acceptance: Tensor

    def of(self, ladders: slice) -> Ladder:
        """Some of the ladders."""
        state = TemperingState(self.state.visible[:, ladders], self.state.parity)
        return Ladder(self.upwards[:, ladders], self.downwards[:, ladders], state, self.acceptance)


def start_from(rows: Tensor, n_temperatures: int) -> TemperingState:
    """Ladders that hold one of the rows each, at every temperature."""
    return TemperingState(rows.expand(n_temperatures, -1, -1).clone(), 0)


def joined(first: TemperingState, second: TemperingState) -> TemperingState:
    """The ladders of both, side by side."""
    return TemperingState(torch.cat([first.visible, second.visible], dim=1), first.parity)


def run_ladder(
    path: Path, state: TemperingState, generator: torch.Generator, *, n_steps: int = 100
) -> Ladder:
    """Temper for ``n_steps``, from a state that a run before may have left.

    Takes n_temperatures n_ladders n_steps steps of the path's kernel.
    """
    n_temperatures, n_ladders, n_features = state.visible.shape
    t = parallel_tempering.temperatures(n_temperatures, path.like)
    hot, cold = (part.repeat_interleave(n_ladders).unsqueeze(1) for part in (t[1:], t[:-1]))
    ups: list[Tensor] = []
    downs: list[Tensor] = []
    shares: list[Tensor] = []
    for _ in range(n_steps):
        state, info = parallel_tempering.step(generator, state, path)
        shares.append(info.acceptance)
        rows = state.visible.reshape(-1, n_features)
        seen = path.observe(rows)
        for part, found in (
            (slice(n_ladders, None), ups),
            (slice(0, len(rows) - n_ladders), downs),
        ):
            gain = path.log_weight(rows[part], seen[part], hot, cold)
            found.append(gain.view(n_temperatures - 1, n_ladders))
    acceptance = torch.stack(shares).nanmean(dim=0)
    return Ladder(torch.stack(ups, 2), torch.stack(downs, 2), state, acceptance)


def log_partition(ladder: Ladder, log_z0: float) -> PartitionEstimate:
    """log Z and three standard errors on either side; ``log_weights`` are those of the rungs."""
    steps = log_ratios(ladder.upwards, ladder.downwards)
    value = log_z0 + float(steps.sum())
    error = 3.0 * log_ratio_error(ladder.upwards, ladder.downwards, steps)
    return PartitionEstimate(value, value - error, value + error, steps, ladder.state.visible[0])
