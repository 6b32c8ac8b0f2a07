"""log Z of a restricted Boltzmann machine as fitted attributes: exact, annealed or bridged."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from sklebm._shell.random import make_generator
from sklebm.inference import ais, bridge, enumeration
from sklebm.inference.ais import PartitionEstimate
from sklebm.inference.tempered_path import TemperedPath

#: Up to this many units in the smaller layer, ``log_partition="auto"`` sums over all states.
AUTO_EXACT_UNITS = 20
# The ladder whose chains reverse annealing starts from: 20 temperatures, 20 steps after 10 others.
_START_TEMPERATURES, _START_STEPS = 20, 20

METHODS = ("auto", "exact", "ais", "bridge")
PartitionMethod = Literal["auto", "exact", "ais", "bridge"]


@dataclass(frozen=True)
class Effort:
    """How many chains, temperatures and (for "bridge") steps an estimate takes."""

    n_chains: int = 100
    n_temperatures: int | None = None
    n_steps: int = 100


def no_partition() -> dict[str, Any]:
    """The attributes while log Z is unknown."""
    return {"log_partition_": None, "log_partition_interval_": None}


def _known(value: float) -> dict[str, Any]:
    """The attributes where there is nothing to estimate."""
    return {"log_partition_": value, "log_partition_interval_": np.array([value, value])}


def compute_partition(
    energy: Any, mean: Any, method: str, seed: int, effort: Effort
) -> dict[str, Any]:
    """log Z and its interval in float64, as fitted attributes."""
    double = copy.deepcopy(energy).double()
    n_units = enumeration.n_summed_units(double)
    if method == "exact" or (method == "auto" and n_units <= AUTO_EXACT_UNITS):
        with torch.no_grad():
            return _known(float(enumeration.log_partition(double)))
    device = double.weights.device
    base = torch.from_numpy(mean).to(device)
    if double.domain == "binary":
        base = ais.base_rate_bias(base)
    if not math.isfinite(TemperedPath(double, base).log_z0()):
        return _known(math.inf)
    generator = make_generator(seed, "annealing", device=device)
    estimate = _bridge if method == "bridge" else _anneal
    with torch.no_grad():
        value, interval = estimate(double, base, generator, effort)
    return {"log_partition_": value, "log_partition_interval_": interval}


def _anneal(
    energy: Any, base: Any, generator: torch.Generator, effort: Effort
) -> tuple[float, Any]:
    """Forwards, and backwards from a ladder; the interval holds those of both."""
    n_temperatures = effort.n_temperatures or 1000
    forward = ais.log_partition(
        energy, base, generator, n_chains=effort.n_chains, n_temperatures=n_temperatures
    )
    ladder = bridge.run_ladder(
        energy,
        base,
        generator,
        n_temperatures=_START_TEMPERATURES,
        n_ladders=effort.n_chains,
        n_steps=_START_STEPS,
    )
    reverse = ais.reverse_log_partition(
        energy, base, ladder.rows, generator, n_temperatures=n_temperatures
    )
    return forward.value, _hull(forward, reverse)


def _bridge(
    energy: Any, base: Any, generator: torch.Generator, effort: Effort
) -> tuple[float, Any]:
    ladder = bridge.run_ladder(
        energy,
        base,
        generator,
        n_temperatures=effort.n_temperatures or 20,
        n_ladders=effort.n_chains,
        n_steps=effort.n_steps,
    )
    estimate = bridge.log_partition(ladder, TemperedPath(energy, base).log_z0())
    return estimate.value, _hull(estimate)


def _hull(*estimates: PartitionEstimate) -> Any:
    """The least interval that holds those of all estimates."""
    return np.array([min(e.low for e in estimates), max(e.high for e in estimates)])
