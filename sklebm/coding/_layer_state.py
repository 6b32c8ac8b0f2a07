"""Passes of a ``DeepSparseCoder`` over its rows, and the fitted attributes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.random import draw_seed, make_generator
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import warn_of_unequal_spans
from sklebm._shell.state import Array, Record, Scalar, Spec
from sklebm._shell.warning import warn
from sklebm.coding import _layers as layers
from sklebm.coding import _map_layers as maps
from sklebm.coding._checks import warn_if_codes_vanish
from sklebm.coding._convolution import Pooling, recall_grids, stacked_grids
from sklebm.coding._image_checks import check_images
from sklebm.coding._layers import LayeredLearner, LayeredSearch
from sklebm.coding._passes import LayersPass
from sklebm.coding._penalty import recall_penalty, record_penalty, resolve_penalty
from sklebm.coding._state import n_atoms
from sklebm.energies.convolution import ConvolutionGrid
from sklebm.energies.layered_coding import LayeredCodingEnergy, LayeredMapEnergy


@dataclass(frozen=True)
class LayeredLearning:
    """What all passes of a fit share: the parameters of the coder and the rows."""

    coder: Any
    rows: Rows
    x: Tensor

    def start(self, draw: Callable[[str], torch.Generator]) -> LayersPass:
        """The initial atoms; ``draw`` gives a generator for each purpose."""
        return LayersPass(_first(self.coder, self.x, draw("atoms")), draw("batches"))

    def step(self, run: LayersPass) -> LayersPass:
        """One pass over the rows; see ``LayersPass``."""
        return run.go_on(self.x, self.coder.tol)

    def state(self, run: LayersPass, n_iter: int) -> dict[str, Any]:
        """Every fitted attribute after ``n_iter`` passes."""
        learner, n_seen = run.best().learner, self.rows.total()
        return layered_state(self.coder, learner, self.rows.dtype, run.curve, n_seen)

    def report(self, run: LayersPass) -> dict[str, float]:
        """The mean energy of the rows in the last pass."""
        return {"energy": run.curve[-1]}

    def finish(self, run: LayersPass) -> None:
        """Warn of codes that are not final, or of a layer whose codes are all zero."""
        run = run.best()
        run.learner.search.warn()
        first = run.learner.learners[0]
        if run.n_nonzero[0] == 0 and self.coder.kernel_sizes is None:
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
    _check_rows(coder, rows)
    return LayeredLearning(coder, rows, rows.all())


def learn_layers(coder: Any, rows: Rows) -> dict[str, Any]:
    """One pass over a chunk of rows; returns the fitted attributes."""
    rows.need_one_process("partial_fit of several dictionaries")
    x, fitted = rows.all(), coder._is_fitted()
    if fitted:
        learner = resumed_layers(coder, rows.device)
    else:
        _check_rows(coder, rows)
        learner = _first(coder, x, make_generator(draw_seed(coder.random_state), "atoms"))
    learner.absorb(x)
    learner.search.warn()
    curve = [*(coder.energy_curve_ if fitted else ()), learner.take_means()[0][-1]]
    seen = coder.n_samples_seen_ if fitted else 0
    return layered_state(coder, learner, rows.dtype, curve, seen + len(x))


def _check_rows(coder: Any, rows: Rows) -> None:
    """Warn of rows in which some columns, or a constant, outweigh everything else."""
    if coder.kernel_sizes is None:
        warn_of_unequal_spans(type(coder).__name__, rows)
    else:
        check_images(coder, rows)


def _first(coder: Any, x: Tensor, generator: torch.Generator) -> LayeredLearner:
    """Initial dictionaries or kernels."""
    if coder.kernel_sizes is not None:
        return maps.first_map_layers(coder, x, generator)
    if coder.image_shape is not None:
        raise ValueError(
            f"image_shape={coder.image_shape!r} does not apply to dense layers: pass kernel_sizes "
            "for layers of kernels, or leave image_shape out."
        )
    return layers.first_layers(coder, x, generator)


def resumed_layers(coder: Any, device: torch.device) -> LayeredLearner:
    """A learner that continues from the fitted state."""
    check_layers(coder)
    empty: LayeredLearner
    if coder.kernel_sizes is not None:
        empty = maps.empty_learner(coder, coder.n_features_in_)
    else:
        empty = LayeredLearner([], layers.search_of(coder, layers.learning_inference(coder)))
    penalty, alphas = resolve_penalty(coder.penalty, 1), layers.alphas_of(coder)
    for index, (atoms, alpha) in enumerate(
        zip(dictionaries_of(coder), alphas, strict=True), start=1
    ):
        prefix = f"layer{index}."
        held = {
            key.removeprefix(prefix): value
            for key, value in coder.online_state_.items()
            if key.startswith(prefix)
        }
        empty.learners.append(empty.learner(coder, penalty, alpha, atoms, held, device))
    return empty


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
        "architecture_": learner.sizes(),
        "energy_curve_": np.asarray(curve),
        "online_state_": {
            f"layer{i}.{key}": value
            for i, part in enumerate(learner.learners, start=1)
            for key, value in part.export().items()
        },
        "n_iter_": len(curve),
        "n_samples_seen_": n_seen,
    }


def layered_spec(coder: Any) -> Spec:
    """The fitted attributes."""
    width = "n_features_in_" if coder.kernel_sizes is None else None
    return {
        "components_": Array("f", (None, width), of="dictionary1"),
        "upper_components_": Record(),
        "alpha_": Array("f", (None,)),
        "penalty_": Record(),
        "inference_": Record(),
        "architecture_": Record(optional=True),
        "energy_curve_": Array("f", (None,)),
        "online_state_": Record(),
        "n_iter_": Scalar(int, 0),
        "n_samples_seen_": Scalar(int, 0),
    }


def unlearnt_layers(coder: Any, n_features: int) -> dict[str, Any]:
    """The fitted attributes beside the dictionaries, for ``from_parameters``."""
    dense = coder.kernel_sizes is None
    return {
        "upper_components_": {},
        "alpha_": np.array(layers.alphas_of(coder)),
        "penalty_": record_penalty(resolve_penalty(coder.penalty, 1)),
        "inference_": {"name": coder.inference},
        "architecture_": None if dense else maps.asked_sizes(coder, n_features),
        "energy_curve_": np.empty(0),
        "online_state_": {},
        "n_iter_": 0,
        "n_samples_seen_": 0,
    }


def dictionaries_of(coder: Any) -> list[Any]:
    """The fitted dictionaries, that of the rows first."""
    return [coder.components_, *coder.upper_components_.values()]


def grids_of(coder: Any) -> list[ConvolutionGrid] | None:
    """Sizes of the fitted layers of kernels; None for dense layers."""
    record = getattr(coder, "architecture_", None)
    return None if record is None else recall_grids(record)


def widths_of(coder: Any) -> list[int]:
    """Numbers in the code of each fitted layer; NotFittedError if there are none yet."""
    n_atoms(coder)
    numbers, grids = [len(atoms) for atoms in dictionaries_of(coder)], grids_of(coder)
    if grids is None:
        return numbers
    return [k * grid.map_length for k, grid in zip(numbers, grids, strict=True)]


def features_of(coder: Any) -> tuple[int, Callable[[Tensor], Tensor]]:
    """How many numbers ``transform`` returns, and how they follow from the codes of all layers."""
    widths, grids = widths_of(coder), grids_of(coder)
    first = 0 if coder.output == "all" else len(widths) - 1
    if grids is None:
        return sum(widths[first:]), lambda z: z[:, sum(widths[:first]) :]
    poolings = [
        Pooling(coder.pool, coder.pool_size, grid.map_shape, coder.image_shape) for grid in grids
    ]
    chosen = list(zip(grids, poolings, dictionaries_of(coder), strict=True))[first:]

    def pooled(z: Tensor) -> Tensor:
        codes = torch.split(z, widths, dim=1)[first:]
        pairs = zip(codes, chosen, strict=True)
        return torch.cat([part.apply(grid.maps(c)) for c, (grid, part, _) in pairs], dim=1)

    return sum(len(kernels) * part.length for _, part, kernels in chosen), pooled


def inference_of(coder: Any) -> str:
    """How codes are found: as ``inference_`` of a fitted coder records, whatever was set since."""
    return str(coder.inference_["name"] if coder._is_fitted() else coder.inference)


def layered_search(coder: Any) -> LayeredSearch:
    """The search of a coder."""
    name = inference_of(coder)
    if grids_of(coder) is None:
        return layers.search_of(coder, name)
    return maps.map_search_of(coder, name)


def layered_energy(coder: Any, device: torch.device) -> LayeredCodingEnergy:
    """The energy with the fitted dictionaries."""
    tensors = [torch.from_numpy(array).to(device) for array in dictionaries_of(coder)]
    penalty, alphas, grids = recall_penalty(coder.penalty_), coder.alpha_.tolist(), grids_of(coder)
    if grids is None:
        return LayeredCodingEnergy(tensors, penalty, alphas)
    return LayeredMapEnergy(tensors, grids, penalty, alphas)


def _wanted_shapes(coder: Any) -> list[tuple[int, int]]:
    """Shapes of dictionaries that fit each other, ``hidden_sizes`` and the features."""
    sizes, n_features = layers.sizes_of(coder), int(coder.n_features_in_)
    if coder.kernel_sizes is None:
        return [(above, below) for below, above in itertools.pairwise([n_features, *sizes])]
    grids = stacked_grids(coder, sizes, n_features)
    return [(size, grid.kernel_length) for size, grid in zip(sizes, grids, strict=True)]


def check_layers(coder: Any) -> None:
    """Raise ValueError unless the fitted dictionaries fit each other and the parameters."""
    wanted = _wanted_shapes(coder)
    found = [getattr(array, "shape", None) for array in dictionaries_of(coder)]
    names = [f"layer{index}" for index in range(2, len(wanted) + 1)]
    kinds = {getattr(array, "dtype", np.dtype(object)).kind for array in dictionaries_of(coder)}
    if found != wanted or list(coder.upper_components_) != names or kinds != {"f"}:
        raise ValueError(
            f"{type(coder).__name__}: the dictionaries have shapes {found}, but "
            f"{coder.n_features_in_} features and hidden_sizes={coder.hidden_sizes!r} require "
            f"{wanted}, floating-point. If parameters were changed after fit, set them back or fit "
            "again."
        )
    _check_sizes(coder)
    if coder.inference_.get("name") not in layers.INFERENCES:
        raise ValueError(f"{type(coder).__name__}.inference_ must name one of {layers.INFERENCES}.")
    if coder.alpha_.shape != (len(wanted),) or bool((coder.alpha_ < 0).any()):
        raise ValueError(
            f"{type(coder).__name__}.alpha_ must hold a number for each of {len(wanted)} layers, "
            "none negative."
        )


def _check_sizes(coder: Any) -> None:
    """Raise ValueError unless ``architecture_`` holds the sizes that the parameters describe."""
    held, asked = getattr(coder, "architecture_", None), None
    if coder.kernel_sizes is not None:
        asked = maps.asked_sizes(coder, coder.n_features_in_)
    if held != asked:
        raise ValueError(
            f"{type(coder).__name__}.architecture_ does not hold the sizes that kernel_sizes, "
            "image_shape and boundary describe. If they were changed after fit, set them back or "
            "fit again."
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
