"""Estimators as JSON and named tensors, and back: a closed set of types, classes from our tables.

``None``, booleans, integers, finite floats, strings and lists stand for themselves in JSON; every
other value is an object with a ``type``. Python writes floats so that they are read back to the
last bit. Classes are looked up by name in ``sklebm.ESTIMATORS`` and ``sklebm.PARTS``; nothing is
imported because a file says so.
"""

from __future__ import annotations

import importlib
import math
import types
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch

import sklebm
from sklebm._shell.state import first_broken, fitted_attributes

#: dtypes of the tensors; the file format has no others that NumPy has too.
DTYPES = {
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "BOOL": "bool",
}
_MAX_DEPTH = 64
_OUTPUTS = ("default", "pandas", "polars")

Node = Any


def registered(name: str, table: dict[str, str]) -> type | None:
    """The class of this name in one of the package's own tables."""
    home = table.get(name)
    return None if home is None else getattr(importlib.import_module(home), name)


def _is_part(value: object) -> bool:
    return registered(type(value).__name__, sklebm.PARTS) is type(value)


def _is_estimator(value: object) -> bool:
    return registered(type(value).__name__, sklebm.ESTIMATORS) is type(value)


def _refuse_non_finite(values: Any, where: str) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"{where} holds NaN or infinity, which a file must not contain.")


# ---------------------------------------------------------------------- to JSON and tensors


class Encoder:
    """Turns one estimator into JSON and collects its arrays in ``tensors``."""

    def __init__(self) -> None:
        self.tensors: dict[str, np.ndarray[Any, Any]] = {}

    def estimator(self, value: Any, where: str = "") -> Node:
        """Encode an estimator after checking what ``Decoder.estimator`` will check."""
        value._validate_params()
        value._check_state()
        inside = f"{where}." if where else ""
        params = value.get_params(deep=False)
        state = fitted_attributes(value)
        return {
            "type": "estimator",
            "class": type(value).__name__,
            "params": {k: self.value(v, inside + k) for k, v in sorted(params.items())},
            "state": {k: self.value(v, inside + k, True) for k, v in sorted(state.items())},
            "output": getattr(value, "_sklearn_output_config", {}).get("transform"),
        }

    def value(self, value: Any, where: str, finite: bool = False) -> Node:
        """Encode any value; ``finite`` refuses NaN and infinity, which only parameters may hold."""
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return self._float(value, where, finite)
        if kind is list:
            return self._items(value, where, finite)
        if kind is tuple:
            return {"type": "tuple", "items": self._items(value, where, finite)}
        if kind is dict:
            return self._mapping(value, where, finite)
        if isinstance(value, np.generic):
            return self._scalar(value, where, finite)
        if kind in (np.ndarray, np.memmap):
            return self._array(np.asarray(value), where)
        if kind is torch.device:
            return {"type": "device", "value": str(value)}
        if _is_part(value):
            named = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
            encoded = {k: self.value(v, f"{where}.{k}", finite) for k, v in named.items()}
            return {"type": "part", "class": kind.__name__, "fields": encoded}
        if _is_estimator(value):
            return self.estimator(value, where)
        raise _unsupported(value, where)

    def _float(self, value: float, where: str, finite: bool) -> Node:
        if math.isfinite(value):
            return value
        if finite:
            raise ValueError(f"{where} is {value}: fitted attributes must be finite.")
        return {"type": "float", "value": str(value)}

    def _items(self, values: Any, where: str, finite: bool) -> Node:
        return [self.value(item, f"{where}.{i}", finite) for i, item in enumerate(values)]

    def _mapping(self, values: dict[Any, Any], where: str, finite: bool) -> Node:
        if not all(type(key) is str for key in values):
            raise TypeError(f"{where} has keys that are not strings.")
        items = [[key, self.value(item, f"{where}.{key}", finite)] for key, item in values.items()]
        return {"type": "dict", "items": items}

    def _scalar(self, value: np.generic, where: str, finite: bool) -> Node:
        if isinstance(value, np.str_):
            return {"type": "scalar", "dtype": "str", "value": str(value)}
        if value.dtype.name not in DTYPES.values():
            raise _unsupported(value, where)
        plain = value.item()
        if isinstance(plain, float):
            plain = self._float(plain, where, finite)
        return {"type": "scalar", "dtype": value.dtype.name, "value": plain}

    def _array(self, value: np.ndarray[Any, Any], where: str) -> Node:
        strings = value.dtype.kind == "U" or (
            value.dtype == object and all(type(item) is str for item in value.flat)
        )
        if strings:
            kind = "object" if value.dtype == object else "str"
            items, shape = [str(item) for item in value.flat], list(value.shape)
            return {"type": "strings", "dtype": kind, "shape": shape, "items": items}
        if value.dtype.name not in DTYPES.values():
            raise _unsupported(value, where)
        _refuse_non_finite(value, where)
        # The layout decides in which order sums are taken, hence the last bit of later results.
        transposed = value.flags.f_contiguous and not value.flags.c_contiguous
        stored = np.array(value.T if transposed else value, order="C", copy=None)
        while where in self.tensors:
            where += "'"  # two paths may read the same if a dictionary has keys with dots
        self.tensors[where] = stored.astype(stored.dtype.newbyteorder("="), copy=False)
        return {"type": "array", "tensor": where, "order": "F" if transposed else "C"}


def _unsupported(value: object, where: str) -> TypeError:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, (np.ndarray, np.generic)):
        kind += f" of dtype {value.dtype}"
    hint = "skops.io.dump (pip install skops) can store many other objects."
    if isinstance(value, torch.Tensor):
        hint = "Pass it as a NumPy array."  # skops stores no tensors
    elif isinstance(value, np.random.RandomState):
        hint = f"Set random_state to an integer. {hint}"
    return TypeError(
        f"{where} is a {kind}, which sklebm.save cannot store: a model may hold numbers, strings, "
        f"arrays, and sklebm's own estimators and parts. {hint}"
    )


# ---------------------------------------------------------------------- and back


class Decoder:
    """Turns JSON and ``tensors`` back into an estimator, or raises ValueError."""

    def __init__(self, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
        self.unused = dict(tensors)

    def estimator(self, node: Node, depth: int = 0) -> Any:
        """Rebuild and check an estimator; its class comes from ``sklebm.ESTIMATORS``."""
        self._require(node, "estimator", ("class", "params", "state", "output"))
        cls = self._class(node["class"], sklebm.ESTIMATORS, "estimator")
        params, state = self._named(node["params"], depth), self._named(node["state"], depth)
        unknown = sorted(set(params) - set(cls._get_param_names()))
        if unknown:
            raise ValueError(f"{node['class']} has no parameter called {', '.join(unknown)}")
        for name in state:
            if not name.isidentifier() or name.startswith("_") or not name.endswith("_"):
                raise ValueError(f"{name!r} is not the name of a fitted attribute")
        estimator = cls(**params)
        estimator._validate_params()
        vars(estimator).update(state)
        estimator._check_state()
        broken = first_broken(state)
        if broken is not None:
            raise ValueError(f"the fitted attribute {broken} is not finite")
        if node["output"] is not None:
            if node["output"] not in _OUTPUTS:
                raise ValueError(f"output is {node['output']!r} instead of one of {_OUTPUTS}")
            estimator.set_output(transform=node["output"])
        return estimator

    def value(self, node: Node, depth: int) -> Any:
        """Decode any node."""
        if depth > _MAX_DEPTH:
            raise ValueError(f"values are nested more than {_MAX_DEPTH} deep")
        if node is None or type(node) in (bool, int, float, str):
            return node
        if type(node) is list:
            return [self.value(item, depth + 1) for item in node]
        kind = node.get("type")
        if kind == "estimator":
            return self.estimator(node, depth + 1)
        if not isinstance(kind, str) or kind not in _DECODERS:
            raise ValueError(f"{kind!r} is not a known type of value")
        decode, keys = _DECODERS[kind]
        self._require(node, kind, keys)
        return decode(self, node, depth + 1)

    @staticmethod
    def _require(node: Node, kind: str, keys: tuple[str, ...]) -> None:
        if not isinstance(node, dict) or node.get("type") != kind or set(node) != {"type", *keys}:
            raise ValueError(f"a value of type {kind!r} needs exactly the keys {keys}")

    @staticmethod
    def _class(name: Node, table: dict[str, str], what: str) -> Any:
        cls = registered(name, table) if isinstance(name, str) else None
        if cls is None:
            raise ValueError(f"{name!r} names no {what} of sklebm {sklebm.__version__}")
        return cls

    def _named(self, node: Node, depth: int) -> dict[str, Any]:
        if not isinstance(node, dict):
            raise ValueError("named values must be a JSON object")
        return {key: self.value(item, depth + 1) for key, item in node.items()}

    def _float(self, node: Node, depth: int) -> float:
        if node["value"] not in ("nan", "inf", "-inf"):
            raise ValueError(f"{node['value']!r} is not a special float")
        return float(node["value"])

    def _items(self, node: Node, depth: int) -> list[Any]:
        if not isinstance(node["items"], list):
            raise ValueError("items must be a list")
        return [self.value(item, depth) for item in node["items"]]

    def _tuple(self, node: Node, depth: int) -> tuple[Any, ...]:
        return tuple(self._items(node, depth))

    def _mapping(self, node: Node, depth: int) -> dict[str, Any]:
        pairs = self._items(node, depth)
        if not all(isinstance(p, list) and len(p) == 2 and type(p[0]) is str for p in pairs):
            raise ValueError("items of a dictionary must be pairs of a string and a value")
        mapping = dict(pairs)
        if len(mapping) != len(pairs):
            raise ValueError("a dictionary holds the same key twice")
        return mapping

    def _scalar(self, node: Node, depth: int) -> Any:
        name, plain = node["dtype"], self.value(node["value"], depth)
        if name == "str" and type(plain) is str:
            return np.str_(plain)
        if name not in DTYPES.values():
            raise ValueError(f"{name!r} is not the dtype of a scalar")
        dtype = np.dtype(name)
        if type(plain) is not {"b": bool, "f": float}.get(dtype.kind, int):
            raise ValueError(f"{plain!r} is not a value of dtype {name}")
        return dtype.type(plain)

    def _array(self, node: Node, depth: int) -> Any:
        if node["order"] not in ("C", "F") or not isinstance(node["tensor"], str):
            raise ValueError("an array needs the name of a tensor and the order 'C' or 'F'")
        if node["tensor"] not in self.unused:
            raise ValueError(f"the tensor {node['tensor']!r} is missing or used twice")
        value = self.unused.pop(node["tensor"])
        _refuse_non_finite(value, node["tensor"])
        return value.T if node["order"] == "F" else value

    def _strings(self, node: Node, depth: int) -> Any:
        items, shape = self._items(node, depth), node["shape"]
        sizes = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
        if not sizes or math.prod(shape) != len(items) or not all(type(s) is str for s in items):
            raise ValueError("an array of strings needs a shape and as many strings")
        if node["dtype"] not in ("object", "str"):
            raise ValueError(f"{node['dtype']!r} is not the dtype of an array of strings")
        return np.array(items, dtype=object if node["dtype"] == "object" else str).reshape(shape)

    def _device(self, node: Node, depth: int) -> torch.device:
        try:
            return torch.device(str(node["value"]))
        except RuntimeError as error:
            raise ValueError(f"{node['value']!r} is not a device") from error

    def _part(self, node: Node, depth: int) -> Any:
        cls = self._class(node["class"], sklebm.PARTS, "part")
        values = self._named(node["fields"], depth)
        aliases = getattr(cls, "aliases", {})  # of settings that older versions named otherwise
        unknown = sorted(set(values) - {f.name for f in fields(cls) if f.init} - set(aliases))
        if unknown:
            raise ValueError(f"{node['class']} has no field called {', '.join(unknown)}")
        hints = get_type_hints(cls)
        for name, value in values.items():
            if not _fits(value, hints[aliases.get(name, name)]):
                raise ValueError(f"{node['class']}.{name} cannot be {value!r}")
        return cls(**values)


def _fits(value: object, hint: Any) -> bool:
    """Whether ``value`` is what the annotation of a part's field asks for."""
    origin, choices = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, choice) for choice in choices)
    if origin is Literal:
        return value in choices
    if hint is Any:
        return True
    if hint is float:
        return type(value) in (float, int)
    kind = origin or hint
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


_DECODERS: dict[str, tuple[Callable[[Decoder, Node, int], Any], tuple[str, ...]]] = {
    "float": (Decoder._float, ("value",)),
    "tuple": (Decoder._tuple, ("items",)),
    "dict": (Decoder._mapping, ("items",)),
    "scalar": (Decoder._scalar, ("dtype", "value")),
    "array": (Decoder._array, ("tensor", "order")),
    "strings": (Decoder._strings, ("dtype", "shape", "items")),
    "device": (Decoder._device, ("value",)),
    "part": (Decoder._part, ("class", "fields")),
}
