"""What fitted attributes must look like: declared by an estimator, checked when a file is loaded.

``EnergyEstimator._state_spec`` returns a dictionary from attribute to one of the types below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

_KINDS = {"f": "floating-point", "i": "integer", "b": "boolean"}
#: Set by scikit-learn's validation and checked for every estimator.
_INPUT_NAMES = ("n_features_in_", "feature_names_in_")


class Array(NamedTuple):
    """An array of dtype kind "f", "i" or "b"; ``None`` in ``shape`` is any length."""

    kind: str
    shape: tuple[int | None, ...]
    optional: bool = False


class Scalar(NamedTuple):
    """A number of type int or float, at least ``minimum``; a float may be given as an int."""

    kind: type
    minimum: float = -math.inf
    optional: bool = False


class Flag(NamedTuple):
    """True or False."""

    optional: bool = False


class Record(NamedTuple):
    """A dictionary from strings to arrays and scalars, such as the state of an optimiser."""

    optional: bool = False


class Estimators(NamedTuple):
    """Fitted estimators by name, all for ``n_features`` features."""

    n_features: int
    optional: bool = False


_Expected = Array | Flag | Scalar | Record | Estimators
Spec = Mapping[str, _Expected]


def fitted_attributes(estimator: Any) -> dict[str, Any]:
    """The fitted attributes: public names with a trailing underscore."""
    return {
        name: value
        for name, value in vars(estimator).items()
        if name.endswith("_") and not name.startswith("_")
    }


def first_broken(values: Mapping[str, Any], prefix: str = "") -> str | None:
    """Name of the first number or array with NaN or infinity in it, also in dictionaries."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        found: str | None = None
        if isinstance(value, Mapping):
            found = first_broken(value, f"{name}.")
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
    """Raise ValueError unless the fitted attributes are exactly those of ``spec``."""
    name = type(estimator).__name__
    found = fitted_attributes(estimator)
    unknown = sorted(set(found) - set(spec) - set(_INPUT_NAMES))
    if unknown:
        raise ValueError(f"{name} has no fitted attribute called {', '.join(unknown)}.")
    for key, expected in spec.items():
        if expected.optional and found.get(key) is None:
            continue
        if key in found:
            _check_value(f"{name}.{key}", found[key], expected)
        else:
            raise ValueError(f"{name} lacks its fitted attribute {key}.")


def _check_value(where: str, value: Any, expected: _Expected) -> None:
    if isinstance(expected, Array):
        _check_array(where, value, expected)
    elif isinstance(expected, Scalar):
        _check_scalar(where, value, expected)
    elif isinstance(expected, Flag):
        if type(value) is not bool:
            raise ValueError(f"{where} is {value!r}, but must be True or False.")
    elif isinstance(expected, Estimators):
        items = value.values() if isinstance(value, dict) else ()
        widths = [getattr(item, "n_features_in_", None) for item in items]
        if not widths or set(widths) != {expected.n_features}:
            raise ValueError(
                f"{where} must be estimators of {expected.n_features} features, not of {widths}."
            )
    else:
        allowed = (np.ndarray, np.generic, int, float, str)
        plain = isinstance(value, dict) and all(
            isinstance(key, str) and isinstance(item, allowed) for key, item in value.items()
        )
        if not plain:
            raise ValueError(f"{where} must be a dictionary of arrays and numbers.")


def _check_array(where: str, value: Any, expected: Array) -> None:
    kind = _KINDS[expected.kind]
    if not isinstance(value, np.ndarray) or value.dtype.kind.replace("u", "i") != expected.kind:
        found = f"of dtype {value.dtype}" if isinstance(value, np.ndarray) else repr(type(value))
        raise ValueError(f"{where} is {found}, but must be an array of a {kind} dtype.")
    fits = len(value.shape) == len(expected.shape) and all(
        size is None or size == length
        for size, length in zip(expected.shape, value.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in expected.shape)
        raise ValueError(
            f"{where} has shape {value.shape}, but its parameters and the number of features ask "
            f"for ({wanted}). If parameters were changed after fit, fit again."
        )


def _check_scalar(where: str, value: Any, expected: Scalar) -> None:
    integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    number = integer or (expected.kind is float and isinstance(value, (float, np.floating)))
    if not number or not value >= expected.minimum or not math.isfinite(value):
        bound = "" if math.isinf(expected.minimum) else f" of at least {expected.minimum}"
        raise ValueError(
            f"{where} is {value!r}, but must be a finite {expected.kind.__name__}{bound}."
        )
