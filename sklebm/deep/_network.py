"""The built-in network of deep energy models: shape, initialisation and reused layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from sklebm._shell.random import make_generator
from sklebm._shell.rows import Rows
from sklebm.energies.deep import DeepEnergy
from sklebm.training.architecture import check_image_shape

# Standard deviation of the initial weights times the root of the number of inputs. A sigmoid is a
# tanh of half the argument.
_GAINS = {"sigmoid": 3.0, "softplus": 1.5, "tanh": 1.5, "silu": 1.5}
# Variances of the reference are at least this fraction of their mean, so that it covers rows that
# happen not to vary along some direction.
_LEAST_VARIANCE = 1e-4
# Distances, in standard deviations of the data, at which the energy is checked for an endless
# fall.
_FAR = (10.0, 100.0, 1000.0)


def shape_of(architecture: dict[str, Any]) -> tuple[int, ...]:
    """(n_features,), or (channels, height, width) of a row."""
    sides = architecture["image_shape"].tolist()
    return check_image_shape(sides or None, int(architecture["n_features"]))


def covariance(rows: Rows, means: torch.Tensor) -> torch.Tensor:
    """Covariance of the rows in float64, on the CPU, with a floor under its variances."""
    d = rows.shape[1]
    total = torch.zeros(d, d, dtype=torch.float64)
    for part in rows.chunks(2 * d):
        centred = rows[part].double().cpu() - means
        total += centred.T @ centred
    found = rows.ranks.sum(total) / rows.total()
    scale = float(found.diagonal().mean()) or 1.0
    found.diagonal().add_(_LEAST_VARIANCE * scale)
    return found


def maps_of(network: nn.Module) -> list[Any]:
    """Affine maps and convolutions of the built-in network, in order."""
    return [module for module in network.modules() if hasattr(module, "bias")]


def adopt_layers(energy: DeepEnergy, weights: dict[str, Any]) -> None:
    """Start from a trained shallower model: its experts become the last layer of g."""
    own = energy.state_dict()
    kept = ("network.", "visible_bias", "log_sigma")
    with torch.no_grad():
        for name in filter(lambda name: name.startswith(kept), weights):
            own[name].copy_(torch.from_numpy(weights[name]))


def initialize(
    network: nn.Module, activation: str, scale: float, generator: torch.Generator
) -> None:
    """Initialise the built-in network, for rows around zero with mean variance scale^2.

    Weights are normal with a standard deviation of gain / sqrt(inputs), the last of 1 /
    sqrt(inputs); hidden biases are uniform in (-1, 1), so that units bend at different places. The
    first map is scaled as if rows were standardised.
    """
    network.to_empty(device="cpu")
    maps = maps_of(network)
    with torch.no_grad():
        for index, module in enumerate(maps):
            weight, bias = module.weight, module.bias
            is_last = index == len(maps) - 1
            spread = (1.0 if is_last else _GAINS[activation]) / math.sqrt(weight[0].numel())
            weight.normal_(0.0, spread, generator=generator)
            bias.zero_() if is_last else bias.uniform_(-1.0, 1.0, generator=generator)
        maps[0].weight.div_(scale)


def fall_without_end(energy: Any) -> str | None:
    """Describe where the energy falls without end, so that exp(-F) has no integral."""
    with torch.no_grad():
        generator = make_generator(0, "far away", device=energy.visible_bias.device)
        mean = energy.reference.mean
        ray = energy.reference.draw(64, generator) - mean
        near, far, farther = (energy.free_energy(mean + r * ray) for r in _FAR)
        falls = (near > far) & (far > farther)
        worst = int(torch.where(falls, farther, torch.inf).argmin())
        if not bool(falls[worst]):
            return None
    return (
        f"the energy falls without end, from {float(near[worst]):.3g} at {_FAR[0]:.0f} standard "
        f"deviations from the data to {float(farther[worst]):.3g} at {_FAR[-1]:.0f}"
    )
