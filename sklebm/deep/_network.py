"""Networks of deep energy models: their records, energies, initialisation and reused layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from sklebm._shell.random import make_generator
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import warn_of_unequal_scales
from sklebm.energies.deep import DeepEnergy, LogFactorEnergy
from sklebm.energies.reference import ReferenceGaussian
from sklebm.training.architecture import NetworkRecord, check_user_module

# Standard deviation of the initial weights times the root of the number of inputs. A sigmoid is a
# tanh of half the argument.
_GAINS = {"sigmoid": 3.0, "softplus": 1.5, "tanh": 1.5, "silu": 1.5}
# Variances of the reference are at least this fraction of their mean, so that it covers rows that
# happen not to vary along some direction.
_LEAST_VARIANCE = 1e-4
# Distances, in standard deviations of the data, at which the energy is checked for an endless
# fall.
_FAR = (10.0, 100.0, 1000.0)


#: Parameters that may hold a class of the user.
_GIVEN = ("network", "log_factor")


def record_of(model: Any, n_features: int, **sizes: Any) -> NetworkRecord:
    """The network that checked parameters specify, or one of other ``sizes``."""
    _check_factors(model)
    if model.log_factor is None:
        return NetworkRecord.from_parameters(model, n_features, _GIVEN[:1], **sizes)
    values = {  # the module decides on everything
        "n_features": n_features,
        "n_components": 1,
        "own_log_factor": "given",
        "sigma": "none" if model.sigma is None else "of a Gaussian factor",
    }
    return NetworkRecord(values, {"log_factor": model.log_factor})


def fitted_record(model: Any) -> NetworkRecord:
    """The network that the model was fitted with."""
    return NetworkRecord.of_fitted(model, _GIVEN)


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


def assembled(record: NetworkRecord) -> DeepEnergy | LogFactorEnergy:
    """The energy of a record without values yet; built-in networks are on the meta device."""
    d = record["n_features"]
    empty = torch.empty(d, device="meta"), torch.empty(d, d, device="meta")
    network = record.encoder(record["n_components"], name=name_of_network(record))
    scalar, reference = torch.empty((), device="meta"), ReferenceGaussian(*empty)
    energy: DeepEnergy | LogFactorEnergy
    if not is_log_factor(record):
        energy = DeepEnergy(network, empty[0], scalar, reference, scalar)
    elif record["sigma"] == "none":
        energy = LogFactorEnergy(network, None, None, reference, scalar)
    else:
        energy = LogFactorEnergy(network, empty[0], scalar, reference, scalar)
    energy.record = record
    return energy


def is_log_factor(record: NetworkRecord) -> bool:
    """Whether one module of the user computes all of H(x)."""
    return "own_log_factor" in record.values


def name_of_network(record: NetworkRecord) -> str:
    """The parameter that may hold the class of the network."""
    return "log_factor" if is_log_factor(record) else "network"


def start_values(model: Any, energy: Any, spread: torch.Tensor, generator: torch.Generator) -> None:
    """Give a new energy its first parameters, for rows around zero with this covariance."""
    scale, d = math.sqrt(float(spread.diagonal().mean())), len(spread)
    if model.log_factor is not None:
        check_user_module(energy.log_factor, "log_factor", d, 1, flat=True)
    elif model.network is not None:
        check_user_module(energy.network, "network", d, int(model.n_components))
    else:
        initialize(energy.network, energy.record["activation"], scale, generator)
    if energy.log_sigma is not None:
        sigma = scale if model.sigma == "auto" else float(model.sigma)
        energy.log_sigma = nn.Parameter(torch.tensor(math.log(sigma)))
        energy.visible_bias = nn.Parameter(torch.zeros(d))
    energy.reference = ReferenceGaussian(torch.zeros(d), torch.linalg.cholesky(spread))
    energy.log_partition = nn.Parameter(torch.tensor(0.0))
    energy.float().train()


def covariance(rows: Rows, means: torch.Tensor, owner: str) -> torch.Tensor:
    """Covariance of the rows in float64, on the CPU, with a floor under its variances.

    Warns if columns hardly count beside others.
    """
    d = rows.shape[1]
    total = torch.zeros(d, d, dtype=torch.float64)
    for part in rows.chunks(2 * d):
        centred = rows[part].double().cpu() - means
        total += centred.T @ centred
    found = rows.ranks.sum(total) / rows.total()
    deviations = found.diagonal().sqrt()
    warn_of_unequal_scales(owner, deviations, "standard deviation", rows.feature_names)
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
