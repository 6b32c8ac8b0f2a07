"""Rows that are pairs: where x ends, in which units y is, densities given x, chains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm._checks import check_beta
from sklebm._shell.random import make_generator
from sklebm._shell.rows import Rows, row_slices
from sklebm._shell.scaling import Scaling, measure_spread
from sklebm._shell.state import Array, Flag, Scalar, Spec, exported
from sklebm._shell.value_range import check_bits
from sklebm.boltzmann._pair_norms import keep_normalised, need_normalised
from sklebm.boltzmann._scaled import check_scale, check_unchanged, fitted_scaling, remember
from sklebm.energies import Bernoulli, Gaussian, Units
from sklebm.energies.gated import MAX_SUMMED, FactoredCoupling, GatedEnergy, TensorCoupling
from sklebm.inference import clamped_annealing
from sklebm.inference.ais import base_rate_bias
from sklebm.inference.gated_path import GatedPath
from sklebm.summable import need_summable

#: Noise of real-valued views relative to each feature, given x and jointly.
_NOISE_GIVEN_LEFT, _JOINT_NOISE = 1.0 / 3.0, 1.0
#: Annealed chains for each row.
N_CHAINS = 20
_VALIDATION_TEMPERATURES = 50


class BinaryPairEnergy(GatedEnergy):
    """A gated energy of bits, with a path from independent bits to it."""

    def tempered_path(self, base_bias: Tensor, variance: None = None) -> GatedPath:
        """The path along which log Z of both views is annealed."""
        return GatedPath(self, base_bias)


def columns_of_left(split: int | None, n_features: int) -> int:
    """Number of columns of x; raise ValueError if a view is left without columns."""
    n_left = n_features // 2 if split is None else int(split)
    if not 1 <= n_left < n_features:
        raise ValueError(
            f"split={split} leaves a view without columns: X has {n_features} feature(s), and a "
            f"row is a pair of x, its first columns, and y, the others. split must be from 1 to "
            f"{n_features - 1}, or None for half of them."
        )
    return n_left


def check_rows(model: Any, rows: Rows, *, learning: bool) -> None:
    """Refuse rows that cannot be divided, and handle values that are no probabilities of bits."""
    owner = type(model).__name__
    if rows.shape[1] < 2:
        raise ValueError(
            f"Found array with {rows.shape[1]} feature(s) (shape={rows.shape}) while a minimum of "
            f"2 is required by {owner}: a row is a pair of views side by side."
        )
    if model.likelihood == "bernoulli" if learning else model.is_binary_:
        check_bits(model, rows, "likelihood", learning=learning)


def initial_energy(
    model: Any, rows: Rows, means: Tensor, generator: torch.Generator
) -> GatedEnergy:
    """The energy before training, of standardised rows."""
    n_left, k = columns_of_left(model.split, len(means)), int(model.n_components)
    n_right = len(means) - n_left

    def directions(*shape: int) -> Tensor:
        """Random arrays whose rows, or matrices, have a norm of about 1."""
        draws = torch.randn(*shape, generator=generator)
        scaled: Tensor = draws / math.sqrt(draws[0].numel())
        return scaled

    coupling: TensorCoupling | FactoredCoupling
    if model.n_factors is None:
        coupling = TensorCoupling(directions(k, n_left, n_right))
    else:
        f = int(model.n_factors)
        coupling = FactoredCoupling(directions(f, n_left), directions(f, n_right), directions(f, k))
    left = None if model.conditional else _units(model, means[:n_left])
    energy = _made(model, left, _units(model, means[n_left:]), torch.zeros(k), coupling, n_left)
    remember(energy, rows.scaling)
    if not (model.conditional or model.likelihood == "bernoulli"):
        keep_normalised(energy)
    return energy


def _units(model: Any, mean: Tensor) -> Units:
    """Units with these means."""
    if model.likelihood == "bernoulli":
        return Bernoulli(base_rate_bias(mean))
    return Gaussian(mean, mean.new_zeros(1))


def _made(
    model: Any,
    left: Units | None,
    right: Units,
    hidden_bias: Tensor,
    coupling: TensorCoupling | FactoredCoupling,
    n_left: int,
) -> GatedEnergy:
    kind = GatedEnergy if model.likelihood == "gaussian" else BinaryPairEnergy
    return kind(left, right, Bernoulli(hidden_bias), coupling, n_left)


# ---------------------------------------------------------------------- fitted state


def spec(*, factored: bool, conditional: bool) -> Spec:
    """Declarations of the parameters that an energy has, and of its kind."""
    weights = {"components_": Array("f", ("n_components", "n_left_", None), of="coupling.weights")}
    if factored:
        weights = {
            "left_factors_": Array("f", ("n_factors", "n_left_"), of="coupling.left_factors"),
            "right_factors_": Array("f", ("n_factors", None), of="coupling.right_factors"),
            "hidden_factors_": Array(
                "f", ("n_factors", "n_components"), of="coupling.hidden_factors"
            ),
        }
    if not conditional:
        weights["intercept_left_"] = Array("f", ("n_left_",), of="left.bias")
    return {
        **weights,
        "intercept_right_": Array("f", (None,), of="right.bias"),
        "intercept_hidden_": Array("f", ("n_components",), of="hidden.bias"),
        "n_left_": Scalar(int, 1),
        "is_binary_": Flag(),
        "is_conditional_": Flag(),
        "offset_": Array("f", ("n_features_in_",), optional=True, of="offset"),
        "scale_": Array("f", ("n_features_in_",), optional=True, of="scale"),
    }


def state_spec(model: Any) -> Spec:
    """Declarations of what was learnt, or of what the parameters of the constructor call for."""
    if hasattr(model, "is_conditional_"):
        return spec(
            factored=hasattr(model, "left_factors_"), conditional=bool(model.is_conditional_)
        )
    return spec(factored=model.n_factors is not None, conditional=bool(model.conditional))


def export(energy: GatedEnergy) -> dict[str, Any]:
    """Fitted attributes of an energy."""
    factored = isinstance(energy.coupling, FactoredCoupling)
    return {
        **exported(energy, spec(factored=factored, conditional=energy.is_conditional)),
        **kind_of(energy.n_left, energy.domain == "binary", energy.is_conditional),
    }


def kind_of(n_left: int, is_binary: bool, is_conditional: bool) -> dict[str, Any]:
    """Fitted attributes that say what rows are."""
    return {"n_left_": n_left, "is_binary_": is_binary, "is_conditional_": is_conditional}


def is_joint(model: Any) -> bool:
    """Whether the model is, or would be, a density of both views."""
    if not getattr(model, "is_conditional_", model.conditional):
        return True
    raise AttributeError(
        "it is a density of y given x; for a joint density of x and y, set conditional=False and "
        "fit again."
    )


def rebuilt(model: Any, parameters: Mapping[str, Tensor]) -> GatedEnergy:
    """The energy of a fitted model."""
    coupling: TensorCoupling | FactoredCoupling
    if "components_" in parameters:
        coupling = TensorCoupling(parameters["components_"])
    else:
        names = ("left_factors_", "right_factors_", "hidden_factors_")
        coupling = FactoredCoupling(*(parameters[name] for name in names))

    def units(bias: Tensor) -> Units:
        return Bernoulli(bias) if model.is_binary_ else Gaussian(bias, bias.new_zeros(1))

    left = None if model.is_conditional_ else units(parameters["intercept_left_"])
    right, hidden_bias = units(parameters["intercept_right_"]), parameters["intercept_hidden_"]
    kind = BinaryPairEnergy if model.is_binary_ else GatedEnergy
    energy = kind(left, right, Bernoulli(hidden_bias), coupling, int(model.n_left_))
    remember(energy, fitted_scaling(model))
    return energy


def completed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Given parameters, with the number of factors and of features that follow from them."""
    found = dict(parameters)
    weights = found.get("components", found.get("left_factors"))
    if np.ndim(found.get("left_factors", 0)) == 2:
        found.setdefault("n_factors", len(found["left_factors"]))
    if weights is not None and np.ndim(weights) >= 2 and "intercept_right" in found:
        width = np.shape(weights)[1] + np.size(found["intercept_right"])
        found.setdefault("feature_means", np.zeros(width))
        found.setdefault("split", int(np.shape(weights)[1]))
    return found


def check_views(model: Any) -> None:
    """Raise ValueError unless the fitted arrays are those of two views of one row."""
    if not model._is_fitted():
        return
    name, n_right = type(model).__name__, len(model.intercept_right_)
    if model.n_left_ + n_right != model.n_features_in_:
        raise ValueError(
            f"{name}: the views have {model.n_left_} and {n_right} columns, but rows have "
            f"{model.n_features_in_}."
        )
    of_right = (
        model.right_factors_.shape[1]
        if hasattr(model, "right_factors_")
        else model.components_.shape[2]
    )
    if of_right != n_right:
        raise ValueError(
            f"{name}: the weights are for right views of {of_right} columns, but intercept_right_ "
            f"has {n_right}."
        )
    check_scale(model)
    if not (model.is_conditional_ or model.is_binary_):
        need_normalised(model)


def check_resumable(model: Any) -> None:
    """Raise ValueError if training cannot continue from the fitted weights."""
    n_left = columns_of_left(model.split, model.n_features_in_)
    factors = getattr(model, "left_factors_", None)
    fitted = {
        "n_components": len(model.intercept_hidden_),
        "n_factors": None if factors is None else len(factors),
        "split": model.n_left_,
        "conditional": model.is_conditional_,
        "likelihood": "bernoulli" if model.is_binary_ else "gaussian",
    }
    asked = {
        "n_components": model.n_components,
        "n_factors": model.n_factors,
        "split": n_left,
        "conditional": model.conditional,
        "likelihood": model.likelihood,
    }
    check_unchanged(asked, fitted)


# ---------------------------------------------------------------------- the scale of rows


def learnt_scaling(model: Any, rows: Rows) -> Scaling:
    """Offset and scale of each feature, such that the noise of real-valued views is 1."""
    d = rows.shape[1]
    if model.likelihood == "bernoulli":
        return Scaling(np.zeros(d), np.ones(d))
    scaling = measure_spread(rows).scaling(common=False)
    noise = model.noise_scale
    if noise == "auto":
        noise = _NOISE_GIVEN_LEFT if model.conditional else _JOINT_NOISE
    return Scaling(scaling.offset, scaling.scale * float(noise))


def log_normaliser(energy: GatedEnergy, x: Tensor, n_temperatures: int) -> Tensor:
    """log Z(x), exactly or annealed, always with the same random numbers."""
    if energy.coupling.n_hidden <= MAX_SUMMED:
        return energy.log_normaliser(x)
    generator = make_generator(0, "clamped annealing", device=x.device)
    return clamped_annealing.log_normaliser(
        energy, x, generator, n_chains=N_CHAINS, n_temperatures=n_temperatures
    )


def free_energy_given_left(energy: GatedEnergy, v: Tensor, n_temperatures: int) -> Tensor:
    """-log p(y | x) of rows [x | y], in the energy's coordinates."""
    x, _ = energy.split(v)
    value = energy.free_energy(v) + log_normaliser(energy, x, n_temperatures)
    return value if energy.left is None else value - energy.left.energy(x)


def mean_given_left(model: Any, energy: GatedEnergy, v: Tensor) -> float:
    """The mean of -log p(y | x), annealed briefly if it cannot be summed."""
    total = 0.0
    for part in row_slices(len(v), floats_per_row(model, energy)):
        values = free_energy_given_left(energy, v[part], _VALIDATION_TEMPERATURES)
        total += float(values.double().sum())
    return total / len(v)


def log_volume(model: Any) -> float:
    """Sum of the logarithms of the scales of what the density is of: y, or x and y."""
    if not model._is_fitted():
        return 0.0
    scale = fitted_scaling(model).scale
    return float(np.log(scale[model.n_left_ if model.is_conditional_ else 0 :]).sum())


def free_energy(model: Any, energy: GatedEnergy, v: Tensor, beta: float = 1.0) -> Tensor:
    """What ``score_samples`` negates, in the units of X, but for log Z of a joint model."""
    if model.is_conditional_:
        return free_energy_given_left(energy, v, model.n_annealing_steps) + log_volume(model)
    return energy.free_energy(v, beta) + log_volume(model)


def free_energies(model: Any, beta: float) -> Callable[[GatedEnergy, Tensor], Tensor]:
    """``free_energy`` of a model at an inverse temperature, which a conditional one has not."""
    check_beta(beta)
    if beta != 1.0 and model._is_fitted() and model.is_conditional_:
        raise ValueError(
            f"beta={beta}: -log p(y | x) of a conditional model is normalised at beta=1. Leave "
            "beta out, or fit with conditional=False."
        )
    return partial(free_energy, model, beta=beta)


def check_completion(model: Any, energy: GatedEnergy) -> None:
    """Refuse a log Z that cannot be summed; p(y | x) has none to be kept."""
    if not model.conditional:
        need_summable(model, energy)


def score(model: Any, log_z: float, energy: GatedEnergy, v: Tensor) -> Tensor:
    """log p(y | x), or log p(x, y) for this log Z."""
    return -free_energy(model, energy, v) - log_z


def floats_per_row(model: Any, energy: GatedEnergy | None = None) -> int:
    """Temporary values of a row in the methods that need log Z(x)."""
    n_left = model.n_left_ if energy is None else energy.n_left
    n_right = len(model.intercept_right_ if energy is None else energy.right.bias)
    n_hidden = len(model.intercept_hidden_) if energy is None else energy.coupling.n_hidden
    binary = model.is_binary_ if energy is None else energy.domain == "binary"
    weights = n_hidden * (n_right + n_left)
    if n_hidden <= MAX_SUMMED:
        states = 2**n_hidden * (3 * n_right if binary else 1)
    else:
        states = N_CHAINS * (n_hidden + n_right)
    return int(4 * states + 6 * weights)


def applied(model: Any, X_left: Any, Z: Any) -> Any:
    """E[y | x, z] in the units of X."""
    probe = model._twin(model._unfitted_dict())
    rows, n_left = model._read(X_left, probe, reset=True), model.n_left_
    if rows.shape[1] != n_left:
        raise ValueError(
            f"X_left has {rows.shape[1]} columns, but the left view of {type(model).__name__} has "
            f"{n_left}: pass the first {n_left} columns of rows."
        )
    if model.is_binary_:
        check_bits(model, rows, "likelihood", learning=False)
    codes = model._open_latents(Z)
    if len(rows) != len(codes):
        raise ValueError(
            f"X_left has {len(rows)} rows and Z has {len(codes)}: pass one z for each x."
        )
    scaling = fitted_scaling(model)
    left, right = (
        Scaling(scaling.offset[part], scaling.scale[part])
        for part in (slice(n_left), slice(n_left, None))
    )
    energy = model._energy(rows.device).to(rows.dtype)

    def apply(x: Tensor, z: Tensor) -> Tensor:
        return right.restore(energy.right_mean(x, z.to(x)))

    return rows.standardized(left).map(
        apply,
        floats_per_row=floats_per_row(model),
        what=f"{type(model).__name__}.apply",
        beside=codes,
    )
