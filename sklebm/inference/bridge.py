r"""log Z from a ladder of tempered chains, bridging from each temperature to the next.

For neighbours a and b with draws x of both, the ratio r = Z_b / Z_a solves (Bennett, 1976)

    sum_{x ~ p_a} s(l(x) - log r) = sum_{x ~ p_b} s(log r - l(x)),   l = log p*_b - log p*_a,

with the logistic function s; this has the least variance of all estimates from such draws. log Z
is log Z_0 plus the sum of the logs along the ladder. Each ladder is a chain of its own, so that
leaving out one group of ladders at a time gives the standard error, correlations in time included.

C. H. Bennett, "Efficient estimation of free energy differences from Monte Carlo data", Journal of
Computational Physics 22, 1976; X.-L. Meng and W. H. Wong, "Simulating ratios of normalizing
constants via a simple identity", Statistica Sinica 6, 1996.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sklebm.inference import parallel_tempering
from sklebm.inference.ais import PartitionEstimate
from sklebm.inference.tempered_path import TemperedPath

_GROUPS = 10
_BISECTIONS = 60


class Ladder(NamedTuple):
    """What a run of parallel tempering leaves behind.

    ``upwards`` and ``downwards`` hold l(x) of the draws at the hotter and at the colder of each
    pair of neighbours, (n_pairs, n_ladders, n_steps); ``rows`` the last states at t = 1;
    ``acceptance`` the mean share of exchanges for each pair.
    """

    upwards: Tensor
    downwards: Tensor
    rows: Tensor
    acceptance: Tensor


def run_ladder(
    energy: Any,
    base_bias: Tensor,
    generator: torch.Generator,
    *,
    n_temperatures: int = 20,
    n_ladders: int = 100,
    n_steps: int = 100,
) -> Ladder:
    """Temper for ``n_steps``, after half as many to forget the start.

    Takes O(n_temperatures n_ladders n_steps d k).
    """
    path = TemperedPath(energy, base_bias)
    t = parallel_tempering.temperatures(n_temperatures, path.base)
    hot, cold = (part.repeat_interleave(n_ladders).unsqueeze(1) for part in (t[1:], t[:-1]))
    state = parallel_tempering.init(generator, path, n_temperatures, n_ladders)
    ups: list[Tensor] = []
    downs: list[Tensor] = []
    shares: list[Tensor] = []
    for index in range(n_steps + n_steps // 2):
        state, info = parallel_tempering.step(generator, state, path)
        if index < n_steps // 2:
            continue
        v = state.visible
        shares.append(info.acceptance)
        for some, found in ((v[1:], ups), (v[:-1], downs)):
            rows = some.reshape(-1, v.shape[2])
            gain = path.log_weight(rows, energy.hidden_field(rows), hot, cold)
            found.append(gain.view(n_temperatures - 1, n_ladders))
    acceptance = torch.stack(shares).nanmean(dim=0)
    return Ladder(torch.stack(ups, 2), torch.stack(downs, 2), state.visible[0], acceptance)


def log_partition(ladder: Ladder, log_z0: float) -> PartitionEstimate:
    """log Z and three standard errors on either side; ``log_weights`` are those of the rungs."""
    steps = log_ratios(ladder.upwards, ladder.downwards)
    value = log_z0 + float(steps.sum())
    n_ladders = ladder.upwards.shape[1]
    n_groups = min(_GROUPS, n_ladders)
    group = torch.arange(n_ladders, device=steps.device) % n_groups
    left_out = torch.stack(
        [
            log_ratios(ladder.upwards[:, group != g], ladder.downwards[:, group != g]).sum()
            for g in range(n_groups)
        ]
    )
    spread = (left_out - left_out.mean()).square().sum() * (n_groups - 1) / n_groups
    error = 3.0 * math.sqrt(float(spread))
    return PartitionEstimate(value, value - error, value + error, steps)


def log_ratios(upwards: Tensor, downwards: Tensor) -> Tensor:
    """Bennett's estimate of log Z_cold - log Z_hot for every pair, by bisection."""
    up, down = upwards.flatten(1), downwards.flatten(1)
    low = torch.minimum(up.amin(1), down.amin(1)).unsqueeze(1)
    high = torch.maximum(up.amax(1), down.amax(1)).unsqueeze(1)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        # Falls as the ratio grows: the root is to the right where it is positive.
        excess = torch.sigmoid(up - middle).sum(1) - torch.sigmoid(middle - down).sum(1)
        right = (excess > 0).unsqueeze(1)
        low, high = torch.where(right, middle, low), torch.where(right, high, middle)
    return (0.5 * (low + high)).squeeze(1)
