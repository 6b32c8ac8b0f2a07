"""log Z of a restricted Boltzmann machine as fitted attributes: exact or annealed."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from sklebm._random import make_generator
from sklebm.energies import BilinearEnergy
from sklebm.inference import ais, enumeration

#: Up to this many units in the smaller layer, ``log_partition="auto"`` sums over all states.
AUTO_EXACT_UNITS = 20

PartitionMethod = Literal["auto", "exact", "ais"]


def no_partition() -> dict[str, Any]:
    """The attributes while log Z is unknown."""
    return {"log_partition_": None, "log_partition_interval_": None}


def compute_partition(
    energy: BilinearEnergy, mean: Any, method: str, seed: int, options: dict[str, int]
) -> dict[str, Any]:
    """log Z and its interval in float64, as fitted attributes."""
    with torch.no_grad():
        double = double_copy(energy)
        smaller = min(double.weights.shape)
        if method == "exact" or (method == "auto" and smaller <= AUTO_EXACT_UNITS):
            value = float(enumeration.log_partition(double))
            return {"log_partition_": value, "log_partition_interval_": np.array([value, value])}
        device = double.weights.device
        base = ais.base_rate_bias(torch.from_numpy(mean).to(device))
        generator = make_generator(seed, "annealing", device=device)
        estimate = ais.log_partition(double, base, generator, **options)
    interval = np.array([estimate.low, estimate.high])
    return {"log_partition_": estimate.value, "log_partition_interval_": interval}


def double_copy(energy: BilinearEnergy) -> BilinearEnergy:
    kinds = type(energy.visible), type(energy.hidden)
    return BilinearEnergy(
        kinds[0](energy.visible.bias.detach().double()),
        kinds[1](energy.hidden.bias.detach().double()),
        energy.weights.detach().double(),
    )
