"""Passes of a ``DeconvolutionalNetwork`` over its images, and the fitted attributes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.random import draw_seed, make_generator
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Record, Scalar, Spec
from sklebm._shell.warning import warn
from sklebm.coding import _deconvolution as layers
from sklebm.coding._convolution import listed
from sklebm.coding._deconvolution import NetworkLearner
from sklebm.coding._image_checks import check_images
from sklebm.coding._kernel_learner import KernelLearner
from sklebm.coding._kernels import need_same_sizes
from sklebm.coding._passes import LayersPass
from sklebm.coding._penalty import recall_penalty, record_penalty, resolve_penalty
from sklebm.energies.deconvolution import DeconvolutionalEnergy, SwitchPooling


@dataclass(frozen=True)
class NetworkLearning:
    """What all passes of a fit share: the parameters of the model and the images."""

    model: Any
    rows: Rows
    x: Tensor

    def start(self, draw: Callable[[str], torch.Generator]) -> LayersPass:
        """The initial kernels; ``draw`` gives a generator for each purpose."""
        return LayersPass(layers.first_network(self.model, self.x, draw("atoms")), draw("batches"))

    def step(self, run: LayersPass) -> LayersPass:
        """One pass over the images; see ``LayersPass``."""
        return run.go_on(self.x, self.model.tol)

    def state(self, run: LayersPass, n_iter: int) -> dict[str, Any]:
        """Every fitted attribute after ``n_iter`` passes."""
        learner, n_seen = run.best().learner, self.rows.total()
        return network_state(self.model, learner, self.rows.dtype, run.curve, n_seen)

    def report(self, run: LayersPass) -> dict[str, float]:
        """The mean energy of the images in the last pass."""
        return {"energy": run.curve[-1]}

    def finish(self, run: LayersPass) -> None:
        """Warn of codes that are not final, or of a layer whose codes are all zero."""
        run = run.best()
        run.learner.search.warn()
        for layer, count in enumerate(run.n_nonzero, start=1):
            if count == 0:
                learner = run.learner.learners[layer - 1]
                warn(
                    f"alpha={learner.settings.alpha:.6g} is too large for X in layer {layer}: "
                    "every one of its codes is zero. Lower the alpha of this layer, or scale X."
                )
                return


def network_learning(model: Any, rows: Rows) -> NetworkLearning:
    """What a fit starts with."""
    rows.need_one_process("fit of several layers of kernels")
    check_images(model, rows)
    return NetworkLearning(model, rows, rows.all())


def learn_images(model: Any, rows: Rows) -> dict[str, Any]:
    """One pass over a chunk of images; returns the fitted attributes."""
    rows.need_one_process("partial_fit of several layers of kernels")
    x, fitted = rows.all(), model._is_fitted()
    if fitted:
        learner = resumed_network(model, rows.device)
    else:
        check_images(model, rows)
        generator = make_generator(draw_seed(model.random_state), "atoms")
        learner = layers.first_network(model, x, generator)
    learner.absorb(x)
    learner.search.warn()
    curve = [*(model.energy_curve_ if fitted else ()), learner.take_means()[0][-1]]
    seen = model.n_samples_seen_ if fitted else 0
    return network_state(model, learner, rows.dtype, curve, seen + len(x))


def resumed_network(model: Any, device: torch.device) -> NetworkLearner:
    """A learner that continues from the fitted state."""
    asked = layers.asked_record(model, model.n_features_in_)
    grids, _ = layers.recall_layers(model.architecture_)
    pooling = blocks_of(model)
    held = layers.record_layers(grids, pooling, model.architecture_["adaptive"])
    need_same_sizes(
        model,
        {"hidden_sizes": layers.sizes_of(model), **asked},
        {"hidden_sizes": [len(atoms) for atoms in kernels_of(model)], **held},
    )
    search, learners = layers.learning_search(model), []
    for index, (atoms, alpha, grid) in enumerate(
        zip(kernels_of(model), layers.alphas_of(model), grids, strict=True), start=1
    ):
        settings = layers.settings_of(model, alpha, grid, search)
        prefix = f"layer{index}."
        state = {
            key.removeprefix(prefix): value
            for key, value in model.online_state_.items()
            if key.startswith(prefix)
        }
        if state:
            learner: Any = KernelLearner.restore(state, settings, device)
        else:
            tensor = torch.from_numpy(np.array(atoms, np.float64)).to(device)
            learner = KernelLearner(tensor, tensor.new_zeros(0), settings)
        learners.append(learner)
    return NetworkLearner(learners, search, pooling, bool(model.adaptive))


def network_state(
    model: Any, learner: NetworkLearner, dtype: torch.dtype, curve: Any, n_seen: int
) -> dict[str, Any]:
    """The fitted attributes in the learner's present state."""
    arrays = [part.atoms.to(dtype, copy=True).cpu().numpy() for part in learner.learners]
    settings = [part.settings for part in learner.learners]
    grids = [own.grid for own in settings]
    return {
        "components_": arrays[0],
        "upper_components_": {f"layer{i}": array for i, array in enumerate(arrays[1:], start=2)},
        "alpha_": np.array([own.alpha for own in settings]),
        "penalty_": record_penalty(settings[0].penalty),
        "architecture_": layers.record_layers(grids, learner.pooling, learner.adaptive),
        "energy_curve_": np.asarray(curve),
        "online_state_": {
            f"layer{i}.{key}": value
            for i, part in enumerate(learner.learners, start=1)
            for key, value in part.export().items()
        },
        "n_iter_": len(curve),
        "n_samples_seen_": n_seen,
    }


def network_spec() -> Spec:
    """The fitted attributes."""
    return {
        "components_": Array("f", (None, None)),
        "upper_components_": Record(),
        "alpha_": Array("f", (None,)),
        "penalty_": Record(),
        "architecture_": Record(),
        "energy_curve_": Array("f", (None,)),
        "online_state_": Record(),
        "n_iter_": Scalar(int, 0),
        "n_samples_seen_": Scalar(int, 0),
    }


def unlearnt_network(model: Any, n_features: int) -> dict[str, Any]:
    """The fitted attributes beside the kernels, for ``from_parameters``."""
    return {
        "upper_components_": {},
        "alpha_": np.array(layers.alphas_of(model)),
        "penalty_": record_penalty(resolve_penalty(model.penalty, 1)),
        "architecture_": layers.asked_record(model, n_features),
        "energy_curve_": np.empty(0),
        "online_state_": {},
        "n_iter_": 0,
        "n_samples_seen_": 0,
    }


def kernels_of(model: Any) -> list[Any]:
    """The fitted kernels of each layer, those of the images first."""
    return [model.components_, *model.upper_components_.values()]


def blocks_of(model: Any) -> SwitchPooling:
    """The blocks of a fitted network: those of its fit, if codes are pooled between the layers.

    Otherwise only ``transform`` pools, as the parameters say.
    """
    _, pooling = layers.recall_layers(model.architecture_)
    return pooling if model.architecture_["adaptive"] else layers.pooling_of(model)


def shows_full_codes(model: Any) -> bool:
    """Whether every block holds a single entry, so that ``transform`` returns codes in full."""
    fitted = getattr(model, "architecture_", {})
    if fitted.get("adaptive"):
        sides = [fitted[f"pool_{name}"] for name in ("maps", "height", "width")]
    else:
        sides = [model.pool_maps, *listed(model.pool_size)]
    return all(side == 1 for side in sides)


def network_energy(model: Any, device: torch.device) -> DeconvolutionalEnergy:
    """The energy with the fitted kernels."""
    grids, _ = layers.recall_layers(model.architecture_)
    return DeconvolutionalEnergy(
        [torch.from_numpy(array).to(device) for array in kernels_of(model)],
        grids,
        recall_penalty(model.penalty_),
        model.alpha_.tolist(),
        blocks_of(model),
        bool(model.architecture_["adaptive"]),
    )


def check_network(model: Any) -> None:
    """Raise ValueError unless fitted kernels, sizes and features fit each other."""
    name = type(model).__name__
    try:
        grids, pooling = layers.recall_layers(model.architecture_)
        adaptive = bool(model.architecture_["adaptive"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name}.architecture_ does not hold the sizes of layers.") from error
    kernels = kernels_of(model)
    found = [getattr(array, "shape", None) for array in kernels]
    wanted, shape = [], None
    for grid, array in zip(grids, kernels, strict=False):
        inputs = grid.channels, grid.height, grid.width
        n_kernels = np.shape(array)[0] if np.ndim(array) else 0
        if shape not in (None, inputs):
            break
        wanted.append((n_kernels, grid.kernel_length))
        shape = (n_kernels, *grid.map_shape)
        shape = pooling.shape(shape) if adaptive else shape
    names = [f"layer{index}" for index in range(2, len(grids) + 1)]
    kinds = {getattr(array, "dtype", np.dtype(object)).kind for array in kernels}
    good = bool(grids) and grids[0].n_pixels == model.n_features_in_ and kinds == {"f"}
    if not good or found != wanted or list(model.upper_components_) != names:
        raise ValueError(
            f"{name}: the kernels have shapes {found}, which do not fit architecture_ and "
            f"{model.n_features_in_} features. If parameters were changed after fit, set them "
            "back or fit again."
        )
    if model.alpha_.shape != (len(grids),) or not bool((model.alpha_ > 0).all()):
        raise ValueError(f"{name}.alpha_ must hold a positive number for each layer.")
