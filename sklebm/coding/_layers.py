"""Several dictionaries, each of the codes of the one below: their learner, search and state."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.random import draw_seed, make_generator
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import column_spans, warn_of_unequal_scales
from sklebm._shell.state import Array, Record, Scalar, Spec
from sklebm._shell.warning import warn
from sklebm.coding._checks import warn_if_codes_vanish
from sklebm.coding._dictionary import DictionaryLearner, Settings, initial_atoms
from sklebm.coding._penalty import recall_penalty, record_penalty, resolve_penalty
from sklebm.coding._search import CodeSearch
from sklebm.energies.layered_coding import LayeredCodingEnergy
from sklebm.inference.layered_coding import solve_layers, threshold_layers

# Passes over the rows that the sums remember, as for a single dictionary.
_MEMORY = 0.5
#: Ways to find the codes of all layers.
INFERENCES = ("layered_fista", "layered_thresholding", "multilayer_fista")
# Rows encoded for each initial atom of an upper layer: enough to find distinct ones.
_PER_ATOM = 8


class LayeredSearch(CodeSearch):
    """Codes of all layers side by side, found as the parameter ``inference`` says."""

    def __init__(self, owner: str, tol: float, inference: str, n_steps: int | None) -> None:
        solver = "threshold" if inference == "layered_thresholding" else "auto"
        by_layer = inference == "layered_fista" and n_steps is not None
        super().__init__(owner, tol, "fista" if by_layer else solver, n_steps if by_layer else None)
        self.inference, self.n_joint_steps = inference, n_steps

    def codes(self, energy: LayeredCodingEnergy, x: Tensor) -> Tensor:
        """The codes of all layers, side by side."""
        dictionaries, alphas = energy.dictionaries, energy.alphas
        positive = energy.penalty.non_negative
        if self.inference == "layered_thresholding":
            found = threshold_layers(x, dictionaries, alphas, positive=positive)
            return torch.cat(found, dim=1)
        if self.inference == "multilayer_fista":
            whole = solve_layers(
                x,
                dictionaries,
                alphas,
                positive=positive,
                tol=self.tol,
                n_steps=self.n_joint_steps,
            )
            self.count(whole)
            return whole.codes
        codes, below = [], x
        for atoms, alpha in zip(dictionaries, alphas, strict=True):
            below = self.solve(below, atoms, energy.penalty, alpha).codes
            codes.append(below)
        return torch.cat(codes, dim=1)


def layered_search(coder: Any) -> LayeredSearch:
    """The search of a fitted coder, which ``inference_`` records."""
    return _search(coder, coder.inference_["name"] if coder._is_fitted() else coder.inference)


def learning_search(coder: Any) -> LayeredSearch:
    """The search for the codes that dictionaries are learnt from."""
    _search(coder, coder.inference)  # refuses what does not go together
    by_layer = "layered_fista" if coder.inference == "multilayer_fista" else coder.inference
    return _search(coder, "multilayer_fista" if coder.learning == "joint" else by_layer)


def _search(coder: Any, inference: str) -> LayeredSearch:
    n_steps = coder.n_inference_steps
    if n_steps is not None and inference == "layered_thresholding":
        raise ValueError(
            f"n_inference_steps={n_steps} has no meaning for "
            'inference="layered_thresholding", which takes one step a layer: leave it out.'
        )
    return LayeredSearch(type(coder).__name__, float(coder.code_tol), inference, n_steps)


def sizes_of(coder: Any) -> list[int]:
    """The checked parameter ``hidden_sizes``."""
    sizes = list(coder.hidden_sizes)
    if not sizes or not all(
        isinstance(s, Integral) and not isinstance(s, bool) and int(s) >= 1 for s in sizes
    ):
        raise ValueError(
            f"hidden_sizes={coder.hidden_sizes!r} must be positive integers, at least one: the "
            "numbers of atoms of the layers, that of the rows first."
        )
    return [int(size) for size in sizes]


def alphas_of(coder: Any) -> list[float]:
    """The checked parameter ``alpha``, for each layer."""
    n_layers = len(sizes_of(coder))
    alphas = [coder.alpha] * n_layers if isinstance(coder.alpha, Real) else list(coder.alpha)
    good = all(isinstance(a, Real) and 0 <= float(a) < math.inf for a in alphas)
    if len(alphas) != n_layers or not good:
        raise ValueError(
            f"alpha={coder.alpha!r} must be one number, or one for each of the {n_layers} layers, "
            "finite and not negative."
        )
    if coder.inference == "layered_fista" and min(alphas) == 0:
        raise ValueError(
            f"alpha={coder.alpha!r} holds a zero, for which a layer alone has no unique code: use "
            'positive numbers, or inference="multilayer_fista" or "layered_thresholding".'
        )
    return [float(a) for a in alphas]


class LayeredLearner:
    """Dictionaries that all change after every ``batch_size`` rows, however the rows arrive."""

    def __init__(self, learners: list[DictionaryLearner], search: LayeredSearch) -> None:
        self.learners, self.search = learners, search

    def energy(self, dtype: torch.dtype) -> LayeredCodingEnergy:
        """The energy with the present dictionaries."""
        return LayeredCodingEnergy(
            [learner.atoms.to(dtype) for learner in self.learners],
            self.learners[0].settings.penalty,
            [learner.settings.alpha for learner in self.learners],
        )

    def absorb(self, x: Tensor) -> None:
        """Take in rows; a step follows every full batch."""
        size = self.learners[0].settings.batch_size
        while len(x):
            room = size - int(self.learners[0].pending.weight)
            part, x = x[:room], x[room:]
            self._collect(part)
            if len(part) == room:
                self._step(math.inf)

    def pass_over(self, x: Tensor, order: Tensor) -> tuple[float, list[float]]:
        """One pass over the rows; mean energy and mean number of non-zeros of each layer."""
        parts = torch.split(order, self.learners[0].settings.batch_size)
        for part in parts:
            self._collect(x[part])
            self._step(_MEMORY * len(parts))
        return self.take_means()

    def take_means(self) -> tuple[float, list[float]]:
        """Mean energy, and non-zeros of each layer, of the rows since the last call."""
        means = [learner.take_means() for learner in self.learners]
        return sum(energy for energy, _ in means), [count for _, count in means]

    def _collect(self, x: Tensor) -> None:
        energy, below = self.energy(x.dtype), x
        for learner, z in zip(
            self.learners, energy.split(self.search.codes(energy, x)), strict=True
        ):
            learner.take(below, below, z)
            below = z

    def _step(self, memory: float) -> None:
        for learner in self.learners:
            learner.step(memory=memory)


def first_layers(coder: Any, x: Tensor, generator: torch.Generator) -> LayeredLearner:
    """Initial atoms: rows of x, and codes of rows in the layers above, or random directions."""
    search, below, learners = learning_search(coder), x, []
    penalty = resolve_penalty(coder.penalty, 1)
    for size, alpha in zip(sizes_of(coder), alphas_of(coder), strict=True):
        zero = torch.zeros(below.shape[1], dtype=torch.float64, device=x.device)
        atoms = initial_atoms(below, size, coder.init, zero, generator)
        settings = _settings(coder, penalty, alpha, search)
        learners.append(DictionaryLearner(atoms, zero, settings))
        if coder.init == "random":  # whatever the first rows are
            below = x.new_zeros(0, size)
        elif len(learners) < len(sizes_of(coder)):
            wanted = _PER_ATOM * sizes_of(coder)[len(learners)]
            some = torch.randperm(len(x), generator=generator)[:wanted].to(x.device)
            energy = LayeredLearner(learners, search).energy(x.dtype)
            below = energy.split(search.codes(energy, x[some]))[-1]
    return LayeredLearner(learners, search)


def _settings(coder: Any, penalty: Any, alpha: float, search: LayeredSearch) -> Settings:
    return Settings(penalty, alpha, coder.batch_size, False, False, search, by_gradient=False)


@dataclass(frozen=True)
class LayeredPass:
    """Where a fit stands after some passes over the rows; its learner is updated in place."""

    learner: LayeredLearner
    order: torch.Generator
    curve: tuple[float, ...] = ()
    n_nonzero: tuple[float, ...] = ()
    settled: bool = False


@dataclass(frozen=True)
class LayeredLearning:
    """What all passes of a fit share: the parameters of the coder and the rows."""

    coder: Any
    rows: Rows
    x: Tensor

    def start(self, draw: Callable[[str], torch.Generator]) -> LayeredPass:
        """The initial atoms; ``draw`` gives a generator for each purpose."""
        return LayeredPass(first_layers(self.coder, self.x, draw("atoms")), draw("batches"))

    def step(self, run: LayeredPass) -> LayeredPass:
        """One pass over the rows; the run has settled when the mean energy hardly falls."""
        run.learner.search.forget()
        order = torch.randperm(len(self.x), generator=run.order).to(self.x.device)
        energy, counts = run.learner.pass_over(self.x, order)
        before = run.curve[-1] if run.curve else math.inf
        settled = bool(run.curve) and 0 < self.coder.tol * abs(before) >= before - energy
        return replace(run, curve=(*run.curve, energy), n_nonzero=tuple(counts), settled=settled)

    def state(self, run: LayeredPass, n_iter: int) -> dict[str, Any]:
        """Every fitted attribute after ``n_iter`` passes."""
        return layered_state(self.coder, run.learner, self.rows.dtype, run.curve, self.rows.total())

    def report(self, run: LayeredPass) -> dict[str, float]:
        """The mean energy of the rows in the last pass."""
        return {"energy": run.curve[-1]}

    def finish(self, run: LayeredPass) -> None:
        """Warn of codes that are not final, or of a layer whose codes are all zero."""
        run.learner.search.warn()
        first = run.learner.learners[0]
        if run.n_nonzero[0] == 0:
            warn_if_codes_vanish(
                self.rows,
                first.atoms,
                first.intercept,
                first.settings.penalty,
                first.settings.alpha,
            )
            return
        for layer, count in enumerate(run.n_nonzero, start=1):
            if count == 0:
                alpha = run.learner.learners[layer - 1].settings.alpha
                warn(
                    f"alpha={alpha:.6g} is too large for layer {layer}: every one of its codes is "
                    f"zero. Lower it, for example by alpha=({', '.join(['...'] * (layer - 1))}, "
                    f"{alpha / 10:.3g}), one number for each layer."
                )
                return


def layered_learning(coder: Any, rows: Rows) -> LayeredLearning:
    """What a fit starts with."""
    rows.need_one_process("fit of several dictionaries")
    warn_of_unequal_scales(type(coder).__name__, column_spans(rows))
    return LayeredLearning(coder, rows, rows.all())


def learn_layers(coder: Any, rows: Rows) -> dict[str, Any]:
    """One pass over a chunk of rows; returns the fitted attributes."""
    rows.need_one_process("partial_fit of several dictionaries")
    x, fitted = rows.all(), coder._is_fitted()
    if fitted:
        learner = resumed_layers(coder, rows.device)
    else:
        warn_of_unequal_scales(type(coder).__name__, column_spans(rows))
        learner = first_layers(coder, x, make_generator(draw_seed(coder.random_state), "atoms"))
    learner.absorb(x)
    learner.search.warn()
    curve = [*(coder.energy_curve_ if fitted else ()), learner.take_means()[0]]
    seen = coder.n_samples_seen_ if fitted else 0
    return layered_state(coder, learner, rows.dtype, curve, seen + len(x))


def resumed_layers(coder: Any, device: torch.device) -> LayeredLearner:
    """A learner that continues from the fitted state."""
    check_layers(coder)
    search, penalty, learners = learning_search(coder), resolve_penalty(coder.penalty, 1), []
    for index, (atoms, alpha) in enumerate(
        zip(dictionaries_of(coder), alphas_of(coder), strict=True), start=1
    ):
        settings = _settings(coder, penalty, alpha, search)
        prefix = f"layer{index}."
        held = {
            key.removeprefix(prefix): value
            for key, value in coder.online_state_.items()
            if key.startswith(prefix)
        }
        if held:
            learners.append(DictionaryLearner.restore(held, settings, device))
        else:
            tensor = torch.from_numpy(np.array(atoms, np.float64)).to(device)
            learners.append(DictionaryLearner(tensor, tensor.new_zeros(tensor.shape[1]), settings))
    return LayeredLearner(learners, search)


def layered_state(
    coder: Any, learner: LayeredLearner, dtype: torch.dtype, curve: Any, n_seen: int
) -> dict[str, Any]:
    """The fitted attributes in the learner's present state."""
    arrays = [part.atoms.to(dtype, copy=True).cpu().numpy() for part in learner.learners]
    return {
        "components_": arrays[0],
        "upper_components_": {f"layer{i}": array for i, array in enumerate(arrays[1:], start=2)},
        "alpha_": np.array([part.settings.alpha for part in learner.learners]),
        "penalty_": record_penalty(learner.learners[0].settings.penalty),
        "inference_": {"name": coder.inference},
        "energy_curve_": np.asarray(curve),
        "online_state_": {
            f"layer{i}.{key}": value
            for i, part in enumerate(learner.learners, start=1)
            for key, value in part.export().items()
        },
        "n_iter_": len(curve),
        "n_samples_seen_": n_seen,
    }


def layered_spec() -> Spec:
    """The fitted attributes."""
    return {
        "components_": Array("f", (None, "n_features_in_"), of="dictionary1"),
        "upper_components_": Record(),
        "alpha_": Array("f", (None,)),
        "penalty_": Record(),
        "inference_": Record(),
        "energy_curve_": Array("f", (None,)),
        "online_state_": Record(),
        "n_iter_": Scalar(int, 0),
        "n_samples_seen_": Scalar(int, 0),
    }


def unlearnt_layers(coder: Any) -> dict[str, Any]:
    """The fitted attributes beside the dictionaries, for ``from_parameters``."""
    return {
        "upper_components_": {},
        "alpha_": np.array(alphas_of(coder)),
        "penalty_": record_penalty(resolve_penalty(coder.penalty, 1)),
        "inference_": {"name": coder.inference},
        "energy_curve_": np.empty(0),
        "online_state_": {},
        "n_iter_": 0,
        "n_samples_seen_": 0,
    }


def dictionaries_of(coder: Any) -> list[Any]:
    """The fitted dictionaries, that of the rows first."""
    return [coder.components_, *coder.upper_components_.values()]


def layered_energy(coder: Any, device: torch.device) -> LayeredCodingEnergy:
    """The energy with the fitted dictionaries."""
    tensors = [torch.from_numpy(array).to(device) for array in dictionaries_of(coder)]
    return LayeredCodingEnergy(tensors, recall_penalty(coder.penalty_), coder.alpha_.tolist())


def check_layers(coder: Any) -> None:
    """Raise ValueError unless the fitted dictionaries fit each other and ``hidden_sizes``."""
    widths = [int(coder.n_features_in_), *sizes_of(coder)]
    wanted = [(above, below) for below, above in itertools.pairwise(widths)]
    found = [getattr(array, "shape", None) for array in dictionaries_of(coder)]
    names = [f"layer{index}" for index in range(2, len(wanted) + 1)]
    kinds = {getattr(array, "dtype", np.dtype(object)).kind for array in dictionaries_of(coder)}
    if found != wanted or list(coder.upper_components_) != names or kinds != {"f"}:
        raise ValueError(
            f"{type(coder).__name__}: the dictionaries have shapes {found}, but "
            f"{widths[0]} features and hidden_sizes={coder.hidden_sizes!r} require {wanted}, "
            "floating-point. If parameters were changed after fit, set them back or fit again."
        )
    if coder.inference_.get("name") not in INFERENCES:
        raise ValueError(f"{type(coder).__name__}.inference_ must name one of {INFERENCES}.")
    if coder.alpha_.shape != (len(wanted),) or bool((coder.alpha_ < 0).any()):
        raise ValueError(
            f"{type(coder).__name__}.alpha_ must hold a number for each of {len(wanted)} layers, "
            "none negative."
        )


def given_layers(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of ``from_parameters`` with the upper layers by name and all sizes."""
    if parameters.get("components") is None:
        return dict(parameters)
    upper = parameters.get("upper_components") or ()
    listed = list(upper.values()) if isinstance(upper, Mapping) else list(upper)
    arrays = [np.array(array) for array in listed]
    arrays = [array if array.dtype.kind == "f" else array.astype(np.float64) for array in arrays]
    named = {f"layer{index}": array for index, array in enumerate(arrays, start=2)}
    sizes = (len(parameters["components"]), *(len(array) for array in arrays))
    return {"hidden_sizes": sizes, **parameters, "upper_components": named}
