"""Machines on top of each other: each learns from hidden states drawn by the one below."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import clone

from sklebm import likelihood, settling
from sklebm._shell.random import make_generator, purpose_seed
from sklebm._shell.rows import Rows
from sklebm._shell.state import fitted_attributes, need_finite
from sklebm.boltzmann._belief_state import (
    as_state,
    directed_layers,
    exported,
    is_restricted,
    untied,
)
from sklebm.boltzmann._deep_state import checked_sizes
from sklebm.boltzmann.bernoulli_rbm import BernoulliRBM
from sklebm.energies import Bernoulli, DeepBeliefEnergy, Gaussian
from sklebm.objectives import UpDown
from sklebm.summable import need_few
from sklebm.training.batches import training_rows
from sklebm.training.loop import EnergyTraining
from sklebm.training.row_units import RowUnits
from sklebm.training.schedules import ConstantRate, as_schedule
from sklebm.training.state import import_objective
from sklebm.training.train import Course, TrainingOptions, Watch, train

# Standard deviation of the weights of units that a transposed machine has more.
_FURTHER = 0.01

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


def make_machines(model: Any) -> list[Any]:
    """The unfitted machines of a network from the bottom up, without log Z."""
    shared = {name: getattr(model, name) for name in SHARED}
    device = str(model.device)
    shared |= {"log_partition": None, "device": device, "verbose": 0}
    sizes = checked_sizes(model.hidden_sizes)
    bottom = BernoulliRBM(**shared, value_range=model.value_range)
    if model.bottom is not None:
        bottom = _given_bottom(model.bottom)
        bottom.set_params(log_partition=None, warm_start=False, device=device)
    bottom.set_params(n_components=sizes[0], random_state=model.random_state)
    machines = [bottom, *(BernoulliRBM(size, **shared) for size in sizes[1:])]
    for machine in machines:
        machine._validate_params()
    return machines


def _given_bottom(bottom: Any) -> Any:
    """A copy of the user's bottom machine."""
    if not is_restricted(bottom):
        raise ValueError(
            f"bottom={bottom!r} must be a BernoulliRBM, a GaussianRBM or a SemiRestrictedBM with "
            'visible="gaussian", or None for a BernoulliRBM.'
        )
    return clone(bottom)


def finished(machine: Any, state: Mapping[str, Any], rows: Rows) -> Any:
    """The machine with a fitted state, and without the seed that is the network's."""
    need_finite(type(machine).__name__, state, rows)
    own = {**machine._unfitted_dict(), "random_state": None}
    return machine._twin({**own, "n_features_in_": rows.shape[1], **state})


def _seed_of_layer(first: Any, index: int) -> int:
    """The seed of a further machine, from that which the first one used."""
    return purpose_seed(int(first.training_state_["seed"]), "layer", index) % (2**31 - 1)


def resumed(machine: Any, fitted: Any) -> Any:
    """An unfitted machine with the fitted attributes of another."""
    return machine._twin({**vars(machine), **fitted_attributes(fitted)})


def transposed(machine: Any, below: Any) -> Any:
    """A machine that starts as ``below`` upside down, which leaves the density as it is.

    Units beyond the visible ones of ``below`` start with small random weights. What these add to
    log p(h) is constant to first order, as in a machine that starts on its own.
    """
    names = ("intercept_visible_", "intercept_hidden_")
    of_visible, of_hidden = (getattr(below, name) for name in names)
    is_binary = isinstance(below._energy(torch.device("cpu")).visible, Bernoulli)
    n_more = machine.n_components - below.n_features_in_
    if not is_binary or n_more < 0:
        raise ValueError(
            f'init="transpose" starts a layer as the one below upside down, so that it has at '
            f"least as many hidden units as that has visible ones, which must be binary: "
            f"hidden_sizes asks for {machine.n_components} above {type(below).__name__} with "
            f'{below.n_features_in_} visible units. Change hidden_sizes, or use init="random".'
        )
    seed = int(machine.random_state)
    generator = make_generator(seed, "units beyond the transpose")
    more = _FURTHER * torch.randn(n_more, len(of_hidden), generator=generator).numpy()
    start = type(machine).from_parameters(
        components=np.vstack([below.components_.T, more]).astype(below.components_.dtype),
        intercept_hidden=np.append(of_visible, -0.5 * more.sum(axis=1)),
        intercept_visible=of_hidden - 0.5 * more.sum(axis=0),
    )
    return resumed(machine, start).set_params(warm_start=True)


def drawn_hidden(machine: Any, rows: Rows) -> Rows:
    """Rows of a draw of the hidden states of each row, whatever the memory available."""
    seed, n_calls = (int(machine.training_state_[name]) for name in ("seed", "n_calls"))
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


def learn(model: Any, rows: Rows, progress: Any) -> dict[str, Any]:
    """Fitted attributes of a network whose layers learn one after the other, then together."""
    machines, done = make_machines(model), list[Any]()
    layer_rows = rows
    widths = [rows.shape[1], *(machine.n_components for machine in machines)]
    of_reals = len(machines) == 1 and not isinstance(machines[0], BernoulliRBM)
    n_summed = widths[-1] if of_reals else min(widths[-2:])
    need_few(model, n_summed)
    for index, machine in enumerate(machines):
        if index:
            machine.set_params(random_state=_seed_of_layer(done[0], index))
        if index and model.init == "transpose":
            machine = transposed(machine, done[-1])
        if index == len(machines) - 1 and not model.fine_tuning_epochs:
            machine.set_params(log_partition=model.log_partition)
        watched = LayerProgress(progress, partial(_with_layer, list(done), machine, layer_rows))
        done.append(finished(machine, machine._fit(layer_rows, watched), layer_rows))
        if progress.stopped or index == len(machines) - 1:
            break
        layer_rows = drawn_hidden(done[-1], layer_rows)
    seed = int(done[0].training_state_["seed"])
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
    """Fitted attributes after one pass of every machine over a chunk or its hidden states."""
    machines, done = make_machines(model), list[Any]()
    earlier = list(model.named_estimators_.values()) if model._is_fitted() else []
    widths = [len(machine.components_) for machine in earlier]
    sizes = [machine.n_components for machine in machines]
    tuned = getattr(model, "generative_", None) is not None
    if widths != sizes[: len(widths)] or (tuned and widths != sizes):
        raise ValueError(
            f"hidden_sizes={model.hidden_sizes!r} differs from the fitted {widths} that training "
            "would continue from: set it back, or fit anew."
        )
    if earlier and type(machines[0]) is not type(earlier[0]):
        raise ValueError(
            f"bottom is a {type(machines[0]).__name__}, but the fitted machine that training would "
            f"continue from is a {type(earlier[0]).__name__}: set bottom back, or fit anew."
        )
    layer_rows = rows
    if tuned:
        seed = int(earlier[0].training_state_.get("seed", 0))
        done = [resumed(*pair) for pair in zip(machines, earlier, strict=False)]
        done[0] = done[0]._twin({**vars(done[0]), **_seen(done[0], rows)})
        return _fine_tuned(model, done, rows, None, seed)
    for index, machine in enumerate(machines):
        if index < len(earlier):
            machine = resumed(machine, earlier[index])
        if index:
            machine.set_params(random_state=_seed_of_layer(done[0], index))
        if index >= max(len(earlier), 1) and model.init == "transpose":
            machine = transposed(machine, done[-1])
        state = machine._partial_fit(layer_rows, progress=None)
        done.append(finished(machine, state, layer_rows))
        layer_rows = drawn_hidden(done[-1], layer_rows)
    return as_state(done)


def _with_layer(
    done: Sequence[Any], machine: Any, rows: Rows, state: Mapping[str, Any]
) -> dict[str, Any]:
    """The fitted attributes of a network that ends with a machine in training."""
    return as_state([*done, finished(machine, state, rows)])


def _seen(machine: Any, rows: Rows) -> dict[str, Any]:
    """Number and mean of all rows seen, those of a further chunk included."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    for part in rows.chunks(2 * rows.shape[1]):
        total += rows[part].double().sum(dim=0)
    n_rows = machine.n_samples_seen_ + len(rows)
    share = len(rows) / n_rows
    mean = machine.feature_means_ * (1.0 - share) + total.cpu().numpy() / len(rows) * share
    return {"feature_means_": mean, "n_samples_seen_": n_rows, "n_iter_": machine.n_iter_}


def _in_row_units(energy: DeepBeliefEnergy) -> tuple[RowUnits, ...]:
    """What makes the steps of fine-tuning independent of the units of real-valued rows."""
    bottom: Any = energy.machines[0]
    if not isinstance(bottom.visible, Gaussian):
        return ()
    directed = [p for _, layer in energy.lower[:1] for p in (layer.weights, layer.units.bias)]
    return (RowUnits(bottom.visible, [bottom.weights, bottom.visible.bias, *directed]),)


def _fine_tuned(
    model: Any, machines: Sequence[Any], rows: Rows, progress: Any, seed: int
) -> dict[str, Any]:
    """Fitted attributes after up-down passes over all layers; without progress, one of a chunk."""
    whole = progress is not None
    earlier = {} if whole else model.fine_tuning_state_
    generative = None if whole else model.generative_
    losses = () if whole else model.fine_tuning_curve_
    n_calls = int(earlier.get("n_calls", 0)) + (0 if whole else 1)
    layers = directed_layers(machines, generative, rows.device)
    energy, objective = untied(DeepBeliefEnergy(*layers)), UpDown(model.n_gibbs_steps)
    generator = make_generator(seed, "fine-tuning", index=n_calls, device=rows.device)
    chains = import_objective(objective, earlier, rows.device)
    schedule = as_schedule(model.learning_rate_schedule if whole else ConstantRate())
    options = TrainingOptions(
        owner=type(model).__name__,
        learning_rate=model.fine_tuning_rate,
        batch_size=model.batch_size,
        max_epochs=model.fine_tuning_epochs if whole else 1,
        schedule=schedule,
        shuffle=whole,
        seed=purpose_seed(seed, "fine-tuning"),
    )

    def snapshot(course: Course) -> dict[str, Any]:
        kept = course.state(seed=seed, n_calls=n_calls)
        return as_state(*exported(energy, machines), [*losses, *course.losses], kept)

    if not chains:  # samples of the top machine, which is trained
        mean = settling.mean_of_rows(machines[-1], energy.top)
        states = settling.annealed(energy.top, mean, model.batch_size, generator).float()
        chains = objective.with_chains_at({}, states, energy, generator)
    course = train(
        EnergyTraining(
            energy, objective, chains, generator, rows.ranks, transforms=_in_row_units(energy)
        ),
        training_rows(rows),
        options,
        Watch(progress=progress, snapshot=snapshot),
        device=rows.device,
    )
    return snapshot(course)
