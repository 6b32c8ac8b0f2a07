"""A stack of machines as fitted attributes of a network: checked, exported, drawn from."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm import likelihood
from sklebm._shell.random import draw_seed, make_generator
from sklebm._shell.rows import resolve_device, row_slices
from sklebm.boltzmann._base import BoltzmannEstimator
from sklebm.boltzmann._deep_state import checked_sizes
from sklebm.energies import DeepBeliefEnergy, DirectedLayer


def is_restricted(machine: Any) -> bool:
    """Whether it is a machine of two layers, and not of bits on any graph."""
    return isinstance(machine, BoltzmannEstimator) and machine._decodes


def as_state(
    machines: Sequence[Any],
    generative: dict[str, Any] | None = None,
    losses: Sequence[float] = (),
    chains: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The fitted attributes of a network of these machines."""
    return {
        "named_estimators_": {f"layer{i}": part for i, part in enumerate(machines, start=1)},
        "generative_": generative,
        "fine_tuning_curve_": np.asarray(losses, dtype=np.float64),
        "fine_tuning_state_": chains or {},
    }


def directed_layers(
    machines: Sequence[Any], generative: Mapping[str, Any] | None, device: torch.device
) -> tuple[list[Any], list[DirectedLayer] | None]:
    """The energies of the machines, and the directed layers if these have their own parameters."""
    energies = [machine._energy(device) for machine in machines]
    if generative is None:
        return energies, None
    layers = []
    for index, energy in enumerate(energies[:-1], start=1):
        weights, bias = (
            torch.from_numpy(generative[f"layer{index}.{name}"]).to(device)
            for name in ("weights", "bias")
        )
        layers.append(DirectedLayer(energy.visible.with_bias(bias), weights))
    return energies, layers


def untied(energy: DeepBeliefEnergy) -> DeepBeliefEnergy:
    """A copy in single precision whose directed layers have their own parameters."""
    machines: list[Any] = list(energy.machines)
    layers = [
        DirectedLayer(layer.units.with_bias(layer.units.bias.detach()), layer.weights.detach())
        for _, layer in energy.lower
    ]
    energy = DeepBeliefEnergy(machines, layers).float()
    for tensor in energy.parameters():
        tensor.data = tensor.data.clone()  # steps are in place, and fitted arrays must not change
    for machine in machines[:-1]:  # those of the directed layers take their place
        machine.visible.requires_grad_(False)
    return energy


def exported(energy: DeepBeliefEnergy, machines: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """The machines after fine-tuning, and the parameters of the directed layers."""
    tuned: list[Any] = []
    parameters: dict[str, Any] = {}
    for index, (machine, part) in enumerate(zip(machines, energy.machines, strict=True), start=1):
        state = machine._export(part)
        if index < len(machines):
            layer: Any = energy.generative[index - 1]
            parameters[f"layer{index}.weights"] = _array(layer.weights)
            parameters[f"layer{index}.bias"] = _array(layer.units.bias)
        tuned.append(machine._twin({**vars(machine), **around_zero(machine, state)}))
    return tuned, parameters


def around_zero(machine: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Fitted attributes for rows as they are, where the machine computes around an offset."""
    offset = getattr(machine, "offset_", None)
    if offset is None:
        return state
    return {**state, **machine._around_zero({**state, "offset_": offset})}


def _array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().cpu().numpy().copy()


def made_from(cls: Any, **parameters: Any) -> Any:
    """A network of given machines; see ``DeepBeliefNetwork.from_parameters``."""
    machines, generative = parameters.pop("machines", None), parameters.pop("generative", None)
    if not machines or not all(is_restricted(item) for item in machines):
        raise TypeError(
            f"{cls.__name__}.from_parameters needs machines: a list of fitted restricted Boltzmann "
            "machines, such as BernoulliRBM, from the bottom up."
        )
    for machine in machines:
        check_is_fitted(machine)
    sizes = tuple(len(machine.components_) for machine in machines)
    model = cls(**{"hidden_sizes": sizes, **parameters})
    model._validate_params()
    copies = [copy.deepcopy(machine) for machine in machines]
    state = {**as_state(copies, generative), "n_features_in_": copies[0].n_features_in_}
    model.__dict__.update(state)
    model._check_state()
    return model


def check_chain(model: Any) -> None:
    """Raise ValueError unless the machines of a network stand on each other and fit it."""
    name, machines = type(model).__name__, list(model.named_estimators_.values())
    if not all(is_restricted(machine) for machine in machines):
        raise ValueError(f"{name}.named_estimators_ must hold restricted Boltzmann machines.")
    if [*model.named_estimators_] != [f"layer{i}" for i in range(1, len(machines) + 1)]:
        raise ValueError(f'{name}.named_estimators_ must be named "layer1", "layer2" and so on.')
    widths = [len(machine.components_) for machine in machines]
    below = [int(model.n_features_in_), *widths[:-1]]
    if [machine.n_features_in_ for machine in machines] != below:
        raise ValueError(
            f"{name}.named_estimators_ have {[m.n_features_in_ for m in machines]} visible units, "
            f"but stand on {below}."
        )
    if widths != checked_sizes(model.hidden_sizes)[: len(widths)]:
        raise ValueError(
            f"{name}.named_estimators_ have {widths} hidden units, but hidden_sizes="
            f"{model.hidden_sizes!r}. If parameters were changed after fit, fit again."
        )
    if model.generative_ is None:
        return
    shapes: dict[str, tuple[int, ...]] = {}
    for index, (width, size) in enumerate(zip(widths[:-1], below[:-1], strict=True), start=1):
        shapes |= {f"layer{index}.weights": (width, size), f"layer{index}.bias": (size,)}
    found = {key: getattr(value, "shape", None) for key, value in model.generative_.items()}
    if found != shapes:
        raise ValueError(f"{name}.generative_ has shapes {found}, but its machines need {shapes}.")


def drawn_rows(model: Any, n_samples: int, n_steps: int, random_state: Any) -> np.ndarray[Any, Any]:
    """Rows drawn down from chains of the top machine of a fitted network."""
    bottom, top = model.named_estimators_["layer1"], list(model.named_estimators_.values())[-1]
    if top is bottom:
        return top.sample(n_samples, n_steps=n_steps, random_state=random_state)  # type: ignore[no-any-return]
    seed = draw_seed(random_state)
    states = top.sample(n_samples, n_steps=n_steps, random_state=seed)
    device = resolve_device(model.device, None, model._prefers_cuda)
    generator = make_generator(seed, "down", device=device)
    energy = model._energy(device).float()
    out = np.empty((n_samples, model.n_features_in_), dtype=np.float32)
    with torch.no_grad():
        for part in row_slices(n_samples, model._floats_per_row()):
            h = torch.from_numpy(states[part]).to(device)
            v = energy.draw_down(h, generator)[0]
            out[part] = likelihood.from_origin(bottom, v).cpu().numpy()
    return out
