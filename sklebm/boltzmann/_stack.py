"""Machines on top of each other: each learns from hidden states drawn by the one below."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from sklebm import likelihood
from sklebm._shell.random import draw_seed, make_generator, purpose_seed
from sklebm._shell.rows import Rows, resolve_device, row_slices
from sklebm._shell.state import fitted_attributes, need_finite
from sklebm.boltzmann import _gaussian_start as start_of
from sklebm.boltzmann._base import BoltzmannEstimator
from sklebm.boltzmann.bernoulli_rbm import BernoulliRBM
from sklebm.energies import Bernoulli, DeepBeliefEnergy, DirectedLayer
from sklebm.objectives import UpDown
from sklebm.training.batches import training_rows
from sklebm.training.loop import EnergyTraining
from sklebm.training.schedules import SCHEDULES
from sklebm.training.train import Course, TrainingOptions, Watch, train

#: Parameters of the network that are those of each of its machines.
SHARED = (
    "objective",
    "n_gibbs_steps",
    "centering",
    "learning_rate",
    "batch_size",
    "max_epochs",
    "optimizer",
    "learning_rate_schedule",
    "net_params",
)
# Hidden states are drawn for this many rows at a time, whatever memory there is.
_BLOCK = 1024


class LayerProgress:
    """The progress of one machine as that of the network: snapshots hold the layers so far."""

    def __init__(self, progress: Any, whole: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        self._progress = progress
        self._whole = whole

    def begin(self) -> None:
        """Announce an epoch."""
        self._progress.begin()

    def end(self, state: Callable[[], Mapping[str, Any]]) -> bool:
        """Announce the end of an epoch; True if a callback requests a stop."""
        stopped: bool = self._progress.end(lambda: self._whole(state()))
        return stopped

    def held_out_score(self) -> float | None:
        """The last score of a monitor."""
        score: float | None = self._progress.held_out_score()
        return score


def checked_sizes(hidden_sizes: Any) -> list[int]:
    """The widths of the hidden layers; ValueError unless they are positive integers."""
    sizes = list(hidden_sizes)
    good = all(isinstance(s, Integral) and not isinstance(s, bool) and int(s) >= 1 for s in sizes)
    if not good or not sizes:
        raise ValueError(
            f"hidden_sizes={hidden_sizes!r} must be positive integers, at least one: the numbers "
            "of hidden units from the bottom on."
        )
    return [int(size) for size in sizes]


def make_machines(model: Any) -> list[Any]:
    """The unfitted machines of a network from the bottom on, without log Z."""
    shared = {name: getattr(model, name) for name in SHARED}
    shared |= {"log_partition": None, "device": model.device, "verbose": 0}
    seed, machines = None, []
    for index, size in enumerate(checked_sizes(model.hidden_sizes)):
        if index == 0:
            integral = isinstance(model.random_state, Integral)
            seed = int(model.random_state) if integral else draw_seed(model.random_state)
            bottom = BernoulliRBM(size, **shared, value_range=model.value_range)
            if model.bottom is not None:
                bottom = _given_bottom(model.bottom)
                own = {"log_partition": None, "warm_start": False, "device": model.device}
                bottom.set_params(n_components=size, **own)
            machines.append(bottom.set_params(random_state=seed))
        else:
            own_seed = purpose_seed(int(seed or 0), "layer", index) % (2**31 - 1)
            machines.append(BernoulliRBM(size, **shared, random_state=own_seed))
    for machine in machines:
        machine._validate_params()
    return machines


def _given_bottom(bottom: Any) -> Any:
    """A copy of the user's bottom machine."""
    if not isinstance(bottom, BoltzmannEstimator):
        raise ValueError(
            f"bottom={bottom!r} must be a restricted Boltzmann machine of this library, such as "
            "GaussianRBM(), or None for a BernoulliRBM."
        )
    return clone(bottom)


def finished(machine: Any, state: Mapping[str, Any], rows: Rows) -> Any:
    """The machine with a fitted state."""
    need_finite(type(machine).__name__, state, rows)
    return machine._twin({**machine._unfitted_dict(), "n_features_in_": rows.shape[1], **state})


def resumed(machine: Any, fitted: Any) -> Any:
    """An unfitted machine with the fitted attributes of another."""
    return machine._twin({**vars(machine), **fitted_attributes(fitted)})


def transposed(machine: Any, below: Any) -> Any:
    """A machine that starts as ``below`` upside down, which leaves the density as it is."""
    names = ("intercept_visible_", "intercept_hidden_")
    of_visible, of_hidden = (getattr(below, name) for name in names)
    is_binary = isinstance(below._energy(torch.device("cpu")).visible, Bernoulli)
    if not is_binary or machine.n_components != below.n_features_in_:
        raise ValueError(
            f'init="transpose" starts a layer as the one below upside down, so that it has as many '
            f"hidden units as that has visible ones, which must be binary: hidden_sizes asks for "
            f"{machine.n_components} above {type(below).__name__} with {below.n_features_in_} "
            'visible units. Change hidden_sizes, or use init="random".'
        )
    start = type(machine).from_parameters(
        components=below.components_.T.copy(),
        intercept_hidden=of_visible.copy(),
        intercept_visible=of_hidden.copy(),
    )
    return resumed(machine, start).set_params(warm_start=True)


def drawn_hidden(machine: Any, rows: Rows, seed: int, n_calls: int = 0) -> Rows:
    """Rows of a draw of the hidden states of each row; the same whatever memory there is."""
    energy = machine._energy(rows.device).float()
    out = torch.empty(len(rows), len(machine.components_), device=rows.device)
    with torch.no_grad():
        for block, start in enumerate(range(0, len(rows), _BLOCK)):
            part = slice(start, start + _BLOCK)
            place = (n_calls << 32) + (rows.ranks.rank << 24) + block
            generator = make_generator(seed, "hidden states", index=place, device=rows.device)
            x = rows.around_origin(rows[part]).float()
            out[part] = energy.draw_hidden(x, generator)
    above = Rows(out, rows.device)
    above.ranks = rows.ranks
    return above


# ---------------------------------------------------------------------- fine-tuning


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
        DirectedLayer(
            machine.visible.with_bias(machine.visible.bias.detach().clone()),
            machine.weights.detach().clone(),
        )
        for machine in machines[:-1]
    ]
    energy = DeepBeliefEnergy(machines, layers).float()
    for tensor in energy.parameters():
        tensor.data = tensor.data.clone()  # steps are in place, and fitted arrays must not change
    for machine in machines[:-1]:  # those of the directed layers take their place
        machine.visible.requires_grad_(False)
    return energy


def learn(model: Any, rows: Rows, progress: Any) -> dict[str, Any]:
    """Fitted attributes of a network whose layers learn one after the other, then together."""
    machines, done = make_machines(model), list[Any]()
    layer_rows, seed = rows, draw_seed(machines[0].random_state)
    for index, machine in enumerate(machines):
        if index and model.init == "transpose":
            machine = transposed(machine, done[-1])
        if index == len(machines) - 1 and not model.fine_tuning_epochs:
            machine.set_params(log_partition=model.log_partition)
        watched = LayerProgress(progress, partial(_with_layer, list(done), machine, layer_rows))
        done.append(finished(machine, machine._fit(layer_rows, watched), layer_rows))
        if progress.stopped or index == len(machines) - 1:
            break
        layer_rows = drawn_hidden(done[-1], layer_rows, seed)
    if not progress.stopped and model.fine_tuning_epochs:
        state = _fine_tuned(model, done, rows, progress, seed)
    else:
        state = as_state(done)
    top = list(state["named_estimators_"].values())[-1]
    if top.log_partition != model.log_partition:
        energy = top.set_params(log_partition=model.log_partition)._energy(rows.device).float()
        known = likelihood.complete(top, energy, fitted_attributes(top), seed)
        top.__dict__.update({name: known[name] for name in likelihood.STATE})
    return state


def learn_chunk(model: Any, rows: Rows) -> dict[str, Any]:
    """Fitted attributes after one pass of every machine over a chunk and the states drawn for it."""
    machines, done = make_machines(model), list[Any]()
    earlier = list(model.named_estimators_.values()) if model._is_fitted() else []
    widths = [len(machine.components_) for machine in earlier]
    sizes = [machine.n_components for machine in machines]
    if widths != sizes[: len(widths)]:
        raise ValueError(
            f"hidden_sizes={model.hidden_sizes!r} differs from the fitted {widths} that training "
            "would continue from: set it back, or fit anew."
        )
    if model.fine_tuning_epochs or getattr(model, "generative_", None) is not None:
        raise ValueError(
            "Layers that were fine-tuned together, or will be "
            f"(fine_tuning_epochs={model.fine_tuning_epochs}), cannot learn from chunks: use fit."
        )
    layer_rows, seed = rows, draw_seed(machines[0].random_state)
    for index, machine in enumerate(machines):
        if index < len(earlier):
            machine = resumed(machine, earlier[index])
        elif index and model.init == "transpose":
            machine = transposed(machine, done[-1])
        state = machine._partial_fit(layer_rows, progress=None)
        done.append(finished(machine, state, layer_rows))
        n_calls = int(state["training_state_"]["n_calls"])
        layer_rows = drawn_hidden(done[-1], layer_rows, seed, n_calls)
    return as_state(done)


def _with_layer(
    done: Sequence[Any], machine: Any, rows: Rows, state: Mapping[str, Any]
) -> dict[str, Any]:
    """The fitted attributes of a network that ends with a machine in training."""
    return as_state([*done, finished(machine, state, rows)])


def as_state(
    machines: Sequence[Any], generative: dict[str, Any] | None = None, losses: Sequence[float] = ()
) -> dict[str, Any]:
    """The fitted attributes of a network of these machines."""
    named = {f"layer{index}": machine for index, machine in enumerate(machines, start=1)}
    curve = np.asarray(losses, dtype=np.float64)
    return {"named_estimators_": named, "generative_": generative, "fine_tuning_curve_": curve}


def _fine_tuned(
    model: Any, machines: Sequence[Any], rows: Rows, progress: Any, seed: int
) -> dict[str, Any]:
    """Fitted attributes after up-down passes over all layers."""
    energies, _ = directed_layers(machines, None, rows.device)
    energy, objective = untied(DeepBeliefEnergy(energies)), UpDown(model.n_gibbs_steps)

    def snapshot(course: Course) -> dict[str, Any]:
        return as_state(*exported(energy, machines), course.losses)

    generator = make_generator(seed, "fine-tuning", device=rows.device)
    chains = objective.init_state(energy, model.batch_size, generator)
    schedule = model.learning_rate_schedule
    options = TrainingOptions(
        owner=type(model).__name__,
        learning_rate=model.fine_tuning_rate,
        batch_size=model.batch_size,
        max_epochs=model.fine_tuning_epochs,
        schedule=SCHEDULES[schedule]() if isinstance(schedule, str) else schedule,
        seed=purpose_seed(seed, "fine-tuning"),
    )
    course = train(
        EnergyTraining(energy, objective, chains, generator, rows.ranks),
        training_rows(rows),
        options,
        Watch(progress=progress, snapshot=snapshot),
        device=rows.device,
    )
    return snapshot(course)


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
    return {**state, **start_of.around_zero({**state, "offset_": offset})}


def _array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().cpu().numpy().copy()


# ---------------------------------------------------------------------- given machines, draws


def made_from(cls: Any, **parameters: Any) -> Any:
    """A network of given machines; see ``DeepBeliefNetwork.from_parameters``."""
    machines, generative = parameters.pop("machines", None), parameters.pop("generative", None)
    if not machines or not all(isinstance(item, BoltzmannEstimator) for item in machines):
        raise TypeError(
            f"{cls.__name__}.from_parameters needs machines: a list of fitted restricted Boltzmann "
            "machines, such as BernoulliRBM, from the bottom on."
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
    if not all(isinstance(machine, BoltzmannEstimator) for machine in machines):
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
    shapes = {}
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
