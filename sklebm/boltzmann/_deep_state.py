"""Weights and biases of several layers as fitted attributes, and the energy made of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import expit

from sklebm.energies import Bernoulli, LayeredEnergy
from sklebm.inference.ais import base_rate_bias
from sklebm.summable import need_few
from sklebm.training.architecture import positive_integers

Arrays = dict[str, np.ndarray[Any, Any]]
# Standard deviation of the initial weights for few units.
_LARGEST_WEIGHTS = 0.3


def checked_sizes(hidden_sizes: Any) -> list[int]:
    """The widths of the hidden layers; ValueError unless they are positive integers."""
    sizes = positive_integers(hidden_sizes)
    if not sizes:
        raise ValueError(
            f"hidden_sizes={hidden_sizes!r} must be positive integers, at least one: the numbers "
            "of hidden units from the bottom up."
        )
    return list(sizes)


def initial_energy(
    widths: Sequence[int], means: torch.Tensor, n_rows: int, generator: torch.Generator
) -> LayeredEnergy:
    """The machine before training, for rows with these means.

    Random weights break the symmetry, and biases keep the mean fields at the base rate and at
    zero: every hidden unit starts on half of the time.
    """
    centres = [means.float(), *(torch.full((width,), 0.5) for width in widths[1:])]
    biases = [base_rate_bias(means.float(), n_rows)]
    biases += [torch.zeros(width) for width in widths[1:]]
    weights = []
    for index, (below, above) in enumerate(itertools.pairwise(widths)):
        scale = min(_LARGEST_WEIGHTS, 2.0 * math.sqrt(2.0 / (below + above)))
        matrix = scale * torch.randn(above, below, generator=generator)
        biases[index] = biases[index] - centres[index + 1] @ matrix
        biases[index + 1] = biases[index + 1] - matrix @ centres[index]
        weights.append(matrix)
    return LayeredEnergy([Bernoulli(bias) for bias in biases], weights)


def exported(energy: LayeredEnergy) -> dict[str, Arrays]:
    """Copies of the parameters, named by layer."""
    return {
        "weights_": {f"layer{i}": _array(w) for i, w in enumerate(energy.couplings, start=1)},
        "intercepts_": {f"layer{i}": _array(layer.bias) for i, layer in enumerate(energy.layers)},
    }


def rebuilt(weights: Arrays, intercepts: Arrays, device: torch.device) -> LayeredEnergy:
    """The energy of fitted parameters, without copies on the CPU."""
    tensors = [torch.from_numpy(array).to(device) for array in weights.values()]
    biases = [torch.from_numpy(array).to(device) for array in intercepts.values()]
    return LayeredEnergy([Bernoulli(bias) for bias in biases], tensors)


def check_sizes(model: Any) -> None:
    """Raise ValueError unless the fitted parameters fit each other and ``hidden_sizes``."""
    name = type(model).__name__
    widths = [int(model.n_features_in_), *checked_sizes(model.hidden_sizes)]
    wanted = {
        "intercepts_": {f"layer{i}": (width,) for i, width in enumerate(widths)},
        "weights_": {
            f"layer{i}": (above, below)
            for i, (below, above) in enumerate(itertools.pairwise(widths), start=1)
        },
    }
    if model.hidden_means_ is not None:
        wanted["hidden_means_"] = {"": (sum(widths[1:]),)}
    for attribute, shapes in wanted.items():
        value = getattr(model, attribute)
        arrays = value if isinstance(value, Mapping) else {"": value}
        found = {key: getattr(array, "shape", None) for key, array in arrays.items()}
        kinds = {getattr(array, "dtype", np.dtype(object)).kind for array in arrays.values()}
        if found != shapes or kinds != {"f"}:
            raise ValueError(
                f"{name}.{attribute} has shapes {found}, but {model.n_features_in_} features and "
                f"hidden_sizes={model.hidden_sizes!r} require {shapes}, floating-point. If "
                "parameters were changed after fit, set them back or fit again."
            )


def given(cls: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of ``from_parameters`` with the layers by name and all sizes."""
    missing = [name for name in ("weights", "intercepts") if parameters.get(name) is None]
    if missing:
        raise TypeError(f"{cls.__name__}.from_parameters needs {', '.join(missing)}.")
    weights = _named(parameters["weights"], start=1)
    intercepts = _named(parameters["intercepts"], start=0)
    # Annealing and chains start from the means that the visible biases imply.
    known = {
        "hidden_sizes": tuple(len(array) for array in list(intercepts.values())[1:]),
        "feature_means": expit(intercepts["layer0"].astype(np.float64)),
    }
    return {**known, **parameters, "weights": weights, "intercepts": intercepts}


def _named(arrays: Any, start: int) -> Arrays:
    """A list of arrays, or a fitted dictionary of them, as floating-point arrays by layer."""
    values = list(arrays.values()) if isinstance(arrays, Mapping) else list(arrays)
    made = [np.array(value) for value in values]
    made = [array if array.dtype.kind == "f" else array.astype(np.float64) for array in made]
    return {f"layer{index}": array for index, array in enumerate(made, start=start)}


def _array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().cpu().numpy().copy()


def need_summable_half(model: Any, energy: Any) -> None:
    """Refuse an exact log Z if both halves of the layers have too many units."""
    halves = sum(energy.widths[0::2]), sum(energy.widths[1::2])
    need_few(model, min(halves))
