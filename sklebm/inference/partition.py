r"""log Z of any model with a path to a known density, with an uncertainty interval.

Chains start at both ends. Annealed chains run from the base to the model, and from rows of the
model back; half of the tempered ladders start from the base at every temperature, and half from the
model's end. The estimates of the two halves are compared. While they disagree, or annealing leaves
a wide interval, the effort is doubled; if it is exhausted before they agree, ``settled`` is False
and the interval covers both estimates.

No method can detect a mode that no chain has visited from either end. Rows that the model was
trained on, or chains maintained during training, are the best rows for the model's end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sklebm.inference import ais, bridge, parallel_tempering
from sklebm.inference.ais import PartitionEstimate
from sklebm.inference.pace import paced
from sklebm.inference.parallel_tempering import TemperingState
from sklebm.inference.ratios import log_ratios
from sklebm.inference.tempered_path import Path

# An interval wider than this, in nats, justifies more effort.
_WIDE = 0.8
# The ladders from whose lowest rung reverse annealing starts.
_START_TEMPERATURES, _START_STEPS = 20, 20
# Exchanges rarer than this between two rungs call for one more in between.
_RARE = 0.2
# Annealing steps beside a bridge, for every step of its ladders.
_ANNEALED = 5


@dataclass(frozen=True)
class Effort:
    """Numbers of chains, temperatures and (for bridging) steps of the first attempt.

    ``doublings`` is the maximum number of times the effort doubles if the ends do not agree.
    """

    n_chains: int = 100
    n_temperatures: int | None = None
    n_steps: int = 100
    doublings: int = 2


class Partition(NamedTuple):
    """log Z in nats, its interval, and whether the two ends of the path agree."""

    value: float
    low: float
    high: float
    settled: bool


def agree(lows: Sequence[float], highs: Sequence[float]) -> bool:
    """Whether intervals of one number overlap, up to rounding."""
    highest, lowest = max(lows), min(highs)
    return highest <= lowest or math.isclose(highest, lowest, abs_tol=1e-9)


def estimate(
    path: Path,
    generator: torch.Generator,
    effort: Effort,
    *,
    method: str = "ais",
    rows: Tensor | None = None,
) -> Partition:
    """Estimate log Z along a path, by annealing ("ais") or tempered ladders ("bridge").

    ``rows`` are states at the model's end, one chain each or fewer; without any, those that chains
    from the base reached with the lowest energy stand for them.
    """
    steps = effort.n_steps * _ANNEALED if method == "bridge" else effort.n_temperatures or 1000
    path = paced(path, generator, effort.n_chains, steps)
    return (_bridged if method == "bridge" else _annealed)(path, generator, effort, rows)


def _annealed(
    path: Path, generator: torch.Generator, effort: Effort, rows: Tensor | None
) -> Partition:
    n_temperatures, n_chains = effort.n_temperatures or 1000, effort.n_chains
    state: TemperingState | None = None
    for round_ in range(effort.doublings + 1):
        forward = ais.forward(path, generator, n_chains=n_chains, n_temperatures=n_temperatures)
        if state is None:
            state = _from_both_ends(path, generator, forward, _START_TEMPERATURES, rows)
        n_steps = min(_START_STEPS << round_, max(2, n_temperatures // _START_TEMPERATURES))
        state = bridge.run_ladder(path, state, generator, n_steps=n_steps).state
        backward = ais.reverse(path, state.visible[0], generator, n_temperatures=n_temperatures)
        result = _bracket(forward, backward, path.log_z0())
        if result.settled and result.high - result.low < _WIDE:
            break
        n_temperatures *= 2
    return result


def _bracket(forward: PartitionEstimate, backward: PartitionEstimate, log_z0: float) -> Partition:
    """Both directions and both halves of the backward one in one interval; Bennett's value."""
    up, down = forward.log_weights, -backward.log_weights
    half = len(down) // 2
    ends, parts = [forward], [backward.log_weights[:half], backward.log_weights[half:]]
    if min(map(len, parts)) < 2:
        parts = [backward.log_weights]  # too few chains to tell the halves apart
    for part in parts:
        if len(part) > 1:
            inverse = ais.summarise(part, -log_z0, backward.rows)
            ends.append(
                PartitionEstimate(-inverse.value, -inverse.high, -inverse.low, part, inverse.rows)
            )
    value = log_z0 + float(log_ratios(up[None], down[None]))
    lows, highs = [e.low for e in ends], [e.high for e in ends]
    return Partition(value, min(*lows, value), max(*highs, value), agree(lows, highs))


def _bridged(
    path: Path, generator: torch.Generator, effort: Effort, rows: Tensor | None
) -> Partition:
    n_temperatures, n_steps = effort.n_temperatures or 20, effort.n_steps
    # Mass that all ladders have missed may still show in the weights of annealed chains.
    annealed = ais.forward(
        path, generator, n_chains=effort.n_chains, n_temperatures=_ANNEALED * n_steps
    )
    state = _from_both_ends(path, generator, annealed, n_temperatures, rows)
    state = bridge.run_ladder(path, state, generator, n_steps=max(1, n_steps // 2)).state
    for _ in range(effort.doublings + 1):
        ladder = bridge.run_ladder(path, state, generator, n_steps=n_steps)
        result = _compared(ladder, path.log_z0(), annealed)
        if result.settled and result.high - result.low < _WIDE:
            break
        state = ladder.state
        if effort.n_temperatures is None and float(ladder.acceptance.min()) < _RARE:
            state = _with_rungs_between(state)
        n_steps *= 2
    return result


def _compared(ladder: bridge.Ladder, log_z0: float, annealed: PartitionEstimate) -> Partition:
    """The bridge over all ladders, beside those over the ladders of either start."""
    half = ladder.upwards.shape[1] // 2
    whole = bridge.log_partition(ladder, log_z0)
    halves = (slice(half), slice(half, None))
    parts = [annealed, *(bridge.log_partition(ladder.of(part), log_z0) for part in halves)]
    lows, highs = [p.low for p in parts], [p.high for p in parts]
    value = whole.value
    return Partition(value, min(*lows, value), max(*highs, value), agree(lows, highs))


def _from_both_ends(
    path: Path,
    generator: torch.Generator,
    forward: PartitionEstimate,
    n_temperatures: int,
    rows: Tensor | None,
) -> TemperingState:
    """As many ladders as annealed chains: half from the base, half from the model's end."""
    n_ladders = len(forward.rows)
    n_hot = n_ladders // 2
    hot = parallel_tempering.init(generator, path, n_temperatures, n_hot)
    if rows is None or not len(rows):
        seen = path.observe(forward.rows)
        likeliest = path.log_weight(forward.rows, seen, 0.0, 1.0).argmax()
        rows = forward.rows[likeliest].unsqueeze(0)
    index = torch.randint(
        len(rows), (n_ladders - n_hot,), generator=generator, device=generator.device
    )
    cold = bridge.start_from(rows.to(path.like)[index.to(rows.device)], n_temperatures)
    return bridge.joined(hot, cold)


def _with_rungs_between(state: TemperingState) -> TemperingState:
    """Twice as many temperatures, less one; new rungs begin where the hotter neighbour stands."""
    n_temperatures = len(state.visible)
    index = torch.arange(2 * n_temperatures - 1, device=state.visible.device)
    return TemperingState(state.visible[(index + 1) // 2].clone(), state.parity)
