"""Declarations of fitted attributes: made by an estimator, checked when a file is loaded.

``EnergyEstimator._state_spec`` returns a dictionary from attribute to one of the types below.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from numbers import Integral, Real
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator

from sklebm._shell.arrays import to_numpy

_KINDS = {"f": "floating-point", "i": "integer", "b": "boolean"}
#: Set by scikit-learn's validation and checked for every estimator.
_INPUT_NAMES = ("n_features_in_", "feature_names_in_")


class Array(NamedTuple):
    """An array of dtype kind "f", "i" or "b".

    A length in ``shape`` may be a number, the name of a parameter or attribute that holds it, or
    ``None`` for any. ``of`` names the energy parameter that the array copies, such as
    "hidden.bias": this declaration alone then serves to export the fitted attributes and to
    rebuild the energy from them.
    """

    kind: str
    shape: tuple[int | str | None, ...]
    optional: bool = False
    of: str = ""


class Labels(NamedTuple):
    """Distinct class labels in ascending order: numbers, booleans or strings."""

    optional: bool = False


class Scalar(NamedTuple):
    """A number of type int or float, at least ``minimum``; a float may be given as an int."""

    kind: type
    minimum: float = -math.inf
    optional: bool = False


class Flag(NamedTuple):
    """True or False."""

    optional: bool = False


class Choice(NamedTuple):
    """One of these strings."""

    options: tuple[str, ...]
    optional: bool = False


class Record(NamedTuple):
    """A dictionary from strings to arrays and scalars, such as the state of an optimiser."""

    optional: bool = False


class Estimators(NamedTuple):
    """Fitted estimators by name, all for ``n_features`` features; None: for any numbers of them."""

    n_features: int | None
    optional: bool = False


_Expected = Array | Choice | Flag | Labels | Scalar | Record | Estimators
Spec = Mapping[str, _Expected]


def fitted_attributes(estimator: Any) -> dict[str, Any]:
    """The fitted attributes: public names with a trailing underscore."""
    return {
        name: value
        for name, value in vars(estimator).items()
        if name.endswith("_") and not name.startswith("_")
    }


def input_names(estimator: Any) -> dict[str, Any]:
    """Attributes that validation sets from the columns of X."""
    return {name: value for name, value in vars(estimator).items() if name in _INPUT_NAMES}


def first_broken(values: Mapping[str, Any], prefix: str = "") -> str | None:
    """Name of the first number or array that contains NaN or infinity.

    Dictionaries and estimators are searched too.
    """
    for key, value in values.items():
        name = f"{prefix}{key}"
        found: str | None = None
        if isinstance(value, Mapping):
            found = first_broken(value, f"{name}.")
        elif isinstance(value, BaseEstimator):
            found = first_broken(fitted_attributes(value), f"{name}.")
        elif isinstance(value, (float, np.ndarray, np.floating)):
            array = np.asarray(value)
            found = name if array.dtype.kind == "f" and not np.isfinite(array).all() else None
        if found is not None:
            return found
    return None


def check_input_names(estimator: Any) -> None:
    """Raise ValueError unless ``n_features_in_`` and ``feature_names_in_`` are well formed."""
    name, attributes = type(estimator).__name__, vars(estimator)
    width = attributes.get("n_features_in_")
    if type(width) is not int or width < 1:
        raise ValueError(f"{name}.n_features_in_ is {width!r}, but must be a positive integer.")
    names = attributes.get("feature_names_in_")
    if names is None:
        return
    strings = isinstance(names, np.ndarray) and all(type(item) is str for item in names.flat)
    if not strings or names.shape != (width,):
        raise ValueError(f"{name}.feature_names_in_ must be an array of {width} strings.")


def check_attributes(estimator: Any, spec: Spec) -> None:
    """Raise ValueError unless the fitted attributes match ``spec`` exactly."""
    name = type(estimator).__name__
    found = fitted_attributes(estimator)
    unknown = sorted(set(found) - set(spec) - set(_INPUT_NAMES))
    if unknown:
        raise ValueError(f"{name} has no fitted attribute called {', '.join(unknown)}.")
    for key, expected in spec.items():
        if expected.optional and found.get(key) is None:
            continue
        if key in found:
            _check_value(f"{name}.{key}", found[key], resolved(estimator, expected))
        else:
            raise ValueError(f"{name} lacks its fitted attribute {key}.")


def resolved(estimator: Any, expected: Any) -> Any:
    """A declaration with numeric lengths; a parameter left at None allows any length."""
    if not isinstance(expected, Array):
        return expected
    shape = tuple(
        getattr(estimator, size, None) if isinstance(size, str) else size for size in expected.shape
    )
    return expected._replace(shape=shape)


def exported(energy: Any, spec: Spec) -> dict[str, Any]:
    """Copies of the declared parameters, as NumPy arrays keyed by attribute."""
    found = {}
    for name, expected in spec.items():
        if not isinstance(expected, Array) or not expected.of:
            continue
        value = attrgetter(expected.of)(energy)
        if callable(value):  # a parameter behind a constraint
            value = value()
        found[name] = value.detach().cpu().numpy().copy()
    return found


def held_tensors(estimator: Any, spec: Spec, device: torch.device) -> dict[str, torch.Tensor]:
    """The declared parameters of a fitted estimator, by attribute; on the CPU without a copy."""
    return {
        name: torch.from_numpy(getattr(estimator, name)).to(device)
        for name, declared in spec.items()
        if isinstance(declared, Array) and declared.of and getattr(estimator, name) is not None
    }


def made_from(cls: Any, parameters: Mapping[str, Any]) -> Any:
    """An estimator of a class from given parameters; see ``EnergyEstimator.from_parameters``."""
    names, owner = set(cls._get_param_names()), f"{cls.__name__}.from_parameters"
    model = cls(**{name: value for name, value in parameters.items() if name in names})
    model._validate_params()
    spec = model._state_spec()
    if spec is None:
        raise TypeError(f"{cls.__name__} cannot be made from parameters: it has to be fitted.")
    # A name shared with the constructor, such as log_partition, says how to compute an attribute,
    # unless it is the number itself, such as a ridge.
    given = {
        f"{name}_": value
        for name, value in parameters.items()
        if f"{name}_" in spec and (name not in names or _is_parameter(spec[f"{name}_"]))
    }
    unknown = [name for name in parameters if name not in names and f"{name}_" not in spec]
    if unknown:
        known = ", ".join(name.removesuffix("_") for name in spec)
        raise TypeError(
            f"{owner}: {cls.__name__} has no fitted attribute called {', '.join(unknown)}. Pass "
            f"parameters of the constructor and: {known}."
        )
    state = _given_state(model, given, spec, set(parameters))
    required = [name for name, declared in spec.items() if not declared.optional]
    _need(owner, [name for name in required if _is_parameter(spec[name])], state)
    numbers = {
        f"{name}_": value
        for name, value in parameters.items()
        if name in names and _is_number(value, spec.get(f"{name}_"))
    }
    # An attribute that may be None is the number only where the estimator says nothing else.
    optional = {name: value for name, value in numbers.items() if spec[name].optional}
    needed = {name: value for name, value in numbers.items() if name not in optional}
    state = {**optional, **model._untrained_state(state), **needed, **state}
    _need(owner, required, state)
    broken = first_broken(state)
    if broken is not None:
        raise ValueError(f"{owner}: {broken} holds NaN or infinity.")
    model.__dict__.update({**dict.fromkeys(spec), **state})
    model._check_state()
    return model


def _is_parameter(declared: _Expected) -> bool:
    """Whether the attribute holds a parameter of the energy."""
    return isinstance(declared, Array) and bool(declared.of)


def _is_number(value: object, declared: _Expected | None) -> bool:
    """Whether a parameter of the constructor is the number that the attribute must hold."""
    if not isinstance(declared, Scalar) or isinstance(value, bool):
        return False
    return isinstance(value, Integral if declared.kind is int else Real)


def _need(owner: str, names: Iterable[str], state: Mapping[str, Any]) -> None:
    missing = [name.removesuffix("_") for name in names if name not in state]
    if missing or "n_features_in_" not in state:
        raise TypeError(f"{owner} needs {', '.join(missing) or 'arrays'}.")


def _given_state(
    model: Any, given: Mapping[str, Any], spec: Spec, named: Set[str]
) -> dict[str, Any]:
    """The attributes that were passed, and the lengths that can be inferred from them.

    Lengths named in the declarations become ``n_features_in_`` and other attributes, or parameters
    of the model unless those are among the ``named``.
    """
    state: dict[str, Any] = {}
    lengths: dict[str, int] = {}
    for name, value in given.items():
        declared = spec[name]
        state[name] = value
        if not isinstance(declared, Array):
            continue
        array = np.array(to_numpy(value))
        if declared.kind == "f" and array.dtype.kind in "fiub":
            # In the precisions and the byte order that torch has.
            single = array.dtype.kind == "f" and array.dtype.itemsize <= 4
            array = array.astype(np.float32 if single else np.float64)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        state[name] = array
        if array.ndim != len(declared.shape):
            continue  # the check of the whole state says what is wrong
        for size, length in zip(declared.shape, array.shape, strict=True):
            if isinstance(size, str):
                lengths.setdefault(size, length)
    if getattr(model, "image_shape", None) is not None:
        lengths.setdefault("n_features_in_", math.prod(model.image_shape))
    for name, length in lengths.items():
        if name.endswith("_"):
            state[name] = length
        elif name not in named:
            model.set_params(**{name: length})
    return state


def need_finite(owner: str, state: Mapping[str, Any], rows: Any) -> None:
    """Reject fitted state that contains NaN or infinity: it would corrupt every later result."""
    broken = first_broken(state)
    if broken is None:
        return
    largest = max(float(rows[part].abs().max()) for part in rows.chunks(rows.shape[1]))
    # Squares of gradients overflow before the parameters that they belong to.
    remedy = "Lower learning_rate, or scale" if broken.startswith("training_state_") else "Scale"
    raise FloatingPointError(
        f"{owner}.fit got {broken} with values that are not finite (largest |X|: "
        f"{largest:.3g}). {remedy} X, for example with StandardScaler, and check for outliers. "
        "The estimator was left unchanged."
    )


def refuse_broken(estimator: Any, what: str) -> None:
    """Raise FloatingPointError if fitted attributes are not finite, but for training state.

    Comparisons, such as the best of several labels or a threshold, would hide it. O(parameters).
    """
    fitted = fitted_attributes(estimator)
    fitted.pop(getattr(estimator, "_continues_from", ""), None)
    name = first_broken(fitted)
    if name is not None:
        raise FloatingPointError(
            f"{type(estimator).__name__}.{what} failed: the fitted attribute {name} holds "
            "NaN or infinity, which fit never leaves there. Fit again, or load an intact file."
        )


def _check_value(where: str, value: Any, expected: _Expected) -> None:
    if isinstance(expected, Array):
        _check_array(where, value, expected)
    elif isinstance(expected, Scalar):
        _check_scalar(where, value, expected)
    elif isinstance(expected, Labels):
        _check_labels(where, value)
    elif isinstance(expected, Choice):
        if value not in expected.options:
            raise ValueError(f"{where} is {value!r}, but must be one of {expected.options}.")
    elif isinstance(expected, Flag):
        if type(value) is not bool:
            raise ValueError(f"{where} is {value!r}, but must be True or False.")
    elif isinstance(expected, Estimators):
        items = value.values() if isinstance(value, dict) else ()
        widths = [getattr(item, "n_features_in_", None) for item in items]
        any_width = expected.n_features is None and None not in widths
        if not widths or not (any_width or set(widths) == {expected.n_features}):
            raise ValueError(
                f"{where} must be estimators of {expected.n_features} features, not of {widths}."
            )
    else:
        allowed = (np.ndarray, np.generic, int, float, str)
        plain = isinstance(value, dict) and all(
            isinstance(key, str) and isinstance(item, allowed) for key, item in value.items()
        )
        # Arrays in a file are finite; a number may have been replaced by one that is not.
        if not plain or any(map(_is_not_finite, value.values())):
            raise ValueError(f"{where} must be a dictionary of arrays and finite numbers.")


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, (float, np.floating)) and not math.isfinite(value)


def _check_array(where: str, value: Any, expected: Array) -> None:
    kind = _KINDS[expected.kind]
    if not isinstance(value, np.ndarray) or value.dtype.kind.replace("u", "i") != expected.kind:
        found = f"of dtype {value.dtype}" if isinstance(value, np.ndarray) else repr(type(value))
        raise ValueError(f"{where} is {found}, but must be an array of a {kind} dtype.")
    if not value.dtype.isnative:
        raise ValueError(
            f"{where} is of dtype {value.dtype}, whose bytes have another order than this "
            "machine's: convert it by astype(dtype.newbyteorder('='))."
        )
    fits = len(value.shape) == len(expected.shape) and all(
        size is None or size == length
        for size, length in zip(expected.shape, value.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in expected.shape)
        raise ValueError(
            f"{where} has shape {value.shape}, but its parameters and the number of features "
            f"require ({wanted}). If parameters were changed after fit, fit again."
        )


def _check_labels(where: str, value: Any) -> None:
    good = isinstance(value, np.ndarray) and value.ndim == 1 and len(value) > 0
    if good and value.dtype.kind == "O":
        good = all(type(item) is str for item in value)
    elif good:
        good = value.dtype.kind in "fiubU" and not (value != value).any()
    if not good or not (value[1:] > value[:-1]).all():
        raise ValueError(
            f"{where} must be an array of distinct labels in ascending order, numbers or strings."
        )


def _check_scalar(where: str, value: Any, expected: Scalar) -> None:
    integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    number = integer or (expected.kind is float and isinstance(value, (float, np.floating)))
    if not number or not value >= expected.minimum or not math.isfinite(value):
        bound = "" if math.isinf(expected.minimum) else f" of at least {expected.minimum}"
        raise ValueError(
            f"{where} is {value!r}, but must be a finite {expected.kind.__name__}{bound}."
        )
