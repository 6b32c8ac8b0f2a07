"""Networks of deep energy models: their records, energies, initialisation and reused layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from sklebm._shell.random import make_generator
from sklebm._shell.rows import Rows
from sklebm.energies.deep import DeepEnergy, LogFactorEnergy
from sklebm.energies.networks import make_encoder
from sklebm.energies.reference import ReferenceGaussian
from sklebm.training.architecture import (
    build_user_module,
    check_image_shape,
    check_sizes,
    check_user_module,
)

# Standard deviation of the initial weights times the root of the number of inputs. A sigmoid is a
# tanh of half the argument.
_GAINS = {"sigmoid": 3.0, "softplus": 1.5, "tanh": 1.5, "silu": 1.5}
# Variances of the reference are at least this fraction of their mean, so that it covers rows that
# happen not to vary along some direction.
_LEAST_VARIANCE = 1e-4
# Distances, in standard deviations of the data, at which the energy is checked for an endless
# fall.
_FAR = (10.0, 100.0, 1000.0)


def record_of(
    model: Any,
    n_features: int,
    hidden_sizes: tuple[int, ...] | None = None,
    n_last: int | None = None,
) -> dict[str, Any]:
    """The network as plain values, from checked parameters, or with different widths."""
    _check_factors(model)
    if model.log_factor is not None:  # the module decides on everything
        return {
            "n_features": n_features,
            "n_components": 1,
            "own_log_factor": "given",
            "sigma": "none" if model.sigma is None else "of a Gaussian factor",
        }
    check_image_shape(model.image_shape, n_features)
    shape = () if model.image_shape is None else model.image_shape
    sizes = check_sizes(model.hidden_sizes) if hidden_sizes is None else hidden_sizes
    return {
        "n_features": n_features,
        "n_components": int(model.n_components) if n_last is None else n_last,
        "hidden_sizes": np.array(sizes, dtype=np.int64),
        "image_shape": np.array(shape, dtype=np.int64),
        "activation": str(model.activation),
        "own_network": "built in" if model.network is None else "given",
    }


def _check_factors(model: Any) -> None:
    """Raise ValueError unless the parameters name the factors of one density."""
    name = type(model).__name__
    if model.log_factor is not None and model.network is not None:
        raise ValueError(
            f"{name}: network and log_factor exclude each other: network computes the fields of "
            "hidden units, log_factor all of H(x)."
        )
    if model.log_factor is not None and model.layer_training == "greedy":
        raise ValueError(
            f'{name}: layer_training="greedy" trains layers of hidden units, which log_factor does '
            'not have: set layer_training="joint".'
        )
    if model.sigma is None and (model.log_factor is None or model.learn_sigma):
        raise ValueError(
            f"{name}: sigma=None leaves out the Gaussian factor, so it needs a log_factor that is "
            f"a density by itself, and learn_sigma=False: log_factor={model.log_factor!r}, "
            f"learn_sigma={model.learn_sigma}."
        )


def built(model: Any, architecture: dict[str, Any]) -> nn.Module:
    """The network of a record: the built-in one on the meta device, or the user's."""
    n_features, n_components = architecture["n_features"], architecture["n_components"]
    if model.log_factor is not None:
        return build_user_module(model.log_factor, "log_factor", n_features, 1)
    if model.network is not None:
        return build_user_module(model.network, "network", n_features, n_components)
    sizes = architecture["hidden_sizes"].tolist()
    shape, activation = shape_of(architecture), architecture["activation"]
    return make_encoder(shape, sizes, n_components, activation, "identity")


def assembled(model: Any, architecture: dict[str, Any]) -> DeepEnergy | LogFactorEnergy:
    """The energy of a record without values yet, on the meta device."""
    d = architecture["n_features"]
    empty = torch.empty(d, device="meta"), torch.empty(d, d, device="meta")
    network, scalar = built(model, architecture), torch.empty((), device="meta")
    reference = ReferenceGaussian(*empty)
    if model.log_factor is None:
        return DeepEnergy(network, empty[0], scalar, reference, scalar)
    if architecture["sigma"] == "none":
        return LogFactorEnergy(network, None, None, reference, scalar)
    return LogFactorEnergy(network, empty[0], scalar, reference, scalar)


def start_values(model: Any, energy: Any, spread: torch.Tensor, generator: torch.Generator) -> None:
    """Give a new energy its first parameters, for rows around zero with this covariance."""
    scale, d = math.sqrt(float(spread.diagonal().mean())), len(spread)
    if model.log_factor is not None:
        check_user_module(energy.log_factor, "log_factor", d, 1, flat=True)
    elif model.network is not None:
        check_user_module(energy.network, "network", d, int(model.n_components))
    else:
        initialize(energy.network, energy.architecture["activation"], scale, generator)
    if energy.log_sigma is not None:
        sigma = scale if model.sigma == "auto" else float(model.sigma)
        energy.log_sigma = nn.Parameter(torch.tensor(math.log(sigma)))
        energy.visible_bias = nn.Parameter(torch.zeros(d))
    energy.reference = ReferenceGaussian(torch.zeros(d), torch.linalg.cholesky(spread))
    energy.log_partition = nn.Parameter(torch.tensor(0.0))
    energy.float().train()


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


def adopt_layers(energy: nn.Module, weights: dict[str, Any]) -> None:
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
    """Describe where the energy falls or stays level, so that exp(-F) has no integral."""
    with torch.no_grad():
        mean = energy.reference.mean
        generator = make_generator(0, "far away", device=mean.device)
        ray = energy.reference.draw(64, generator) - mean
        near, far, farther = (energy.free_energy(mean + r * ray) for r in _FAR)
        falls = near.isfinite() & (near >= far) & (far >= farther)
        worst = int(torch.where(falls, farther, torch.inf).argmin())
        if not bool(falls[worst]):
            return None
    what = "falls without end" if bool(farther[worst] < near[worst]) else "does not rise"
    return (
        f"the energy {what}, from {float(near[worst]):.3g} at {_FAR[0]:.0f} standard deviations "
        f"from the data to {float(farther[worst]):.3g} at {_FAR[-1]:.0f}"
    )
