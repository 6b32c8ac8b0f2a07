"""What a network looks like, as plain values: checked parameters, and the modules they stand for.

The record is part of the fitted state, so that changing a parameter later changes no answer.
User modules are the exception: a class is no plain value, so it is read from the parameter.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import nn

from sklebm.energies.networks import Shape

Record = dict[str, Any]

_MAX_LAYERS = 100
_default_generator = threading.RLock()


def check_sizes(hidden_sizes: Any) -> tuple[int, ...]:
    """The widths as integers; ValueError if they are none."""
    sizes = tuple(hidden_sizes)
    good = all(isinstance(s, Integral) and not isinstance(s, bool) and int(s) >= 1 for s in sizes)
    if not good or len(sizes) > _MAX_LAYERS:
        raise ValueError(
            f"hidden_sizes={hidden_sizes!r} must be positive integers, at most {_MAX_LAYERS}: the "
            "widths of the encoder's hidden layers, or the channels of its convolutions."
        )
    return tuple(int(size) for size in sizes)


def check_image_shape(image_shape: Any, n_features: int) -> Shape:
    """(channels, height, width) of a row, or (n_features,) without ``image_shape``."""
    if image_shape is None:
        return (n_features,)
    sides = tuple(image_shape)
    good = len(sides) in (2, 3) and all(isinstance(s, Integral) and int(s) >= 1 for s in sides)
    if not good or math.prod(sides) != n_features:
        raise ValueError(
            f"image_shape={image_shape!r} does not fit X with {n_features} features: give "
            "(height, width) or (channels, height, width) whose product is the number of features."
        )
    return (1,) * (3 - len(sides)) + tuple(int(side) for side in sides)


def same_record(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the entries in which two records differ."""
    names = sorted(one.keys() | other.keys())
    return [
        name
        for name in names
        if name not in one or name not in other or not np.array_equal(one[name], other[name])
    ]


def check_record(expected: Mapping[str, Any], fitted: Mapping[str, Any], owner: str) -> None:
    """Raise ValueError if the parameters no longer describe the fitted network."""
    different = same_record(expected, fitted)
    if different:
        raise ValueError(
            f"{owner}.architecture_ differs from the parameters in {', '.join(different)}: if they "
            "were changed after fit, fit again."
        )


def check_arrays(network: nn.Module, arrays: Mapping[str, Any], owner: str) -> None:
    """Raise ValueError unless ``arrays`` are the parameters and buffers of ``network``."""
    expected = network.state_dict()
    if arrays.keys() != expected.keys():
        wrong = sorted(arrays.keys() ^ expected.keys())[:5]
        raise ValueError(f"{owner}.weights_ lacks, or has too much: {', '.join(wrong)}; fit again.")
    for name, tensor in expected.items():
        value = arrays[name]
        shape = tuple(tensor.shape)
        kind = "f" if tensor.is_floating_point() else "i"
        good = isinstance(value, np.ndarray) and value.dtype.kind == kind
        if not good or value.shape != shape:
            found = getattr(value, "shape", type(value).__name__)
            raise ValueError(
                f"{owner}.weights_[{name!r}] is {found}, but the architecture asks for an array "
                f"of shape {shape}. If parameters were changed after fit, fit again."
            )


def check_resumable(owner: Any, asked: Mapping[str, Any], fitted: Mapping[str, Any]) -> None:
    """Raise ValueError if the parameters ask for another network than the fitted one."""
    for name in same_record(asked, fitted):
        parameter = name.removeprefix("own_")
        raise ValueError(
            f"{parameter}={getattr(owner, parameter)!r} differs from the fitted "
            f"{fitted.get(name)!r} that training would continue from: set it back, or fit with "
            "warm_start=False."
        )


# ---------------------------------------------------------------------- numbers of a network


def export_weights(network: nn.Module, owner: Any) -> dict[str, Any]:
    """Copies of the parameters and buffers as NumPy arrays.

    Raises
    ------
    FloatingPointError
        If one is not finite: training has diverged.
    """
    weights = {
        name: np.array(tensor.detach().cpu().numpy())
        for name, tensor in network.state_dict().items()
    }
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise FloatingPointError(
                f"{type(owner).__name__}: {name} became infinite or NaN. Lower learning_rate="
                f"{owner.learning_rate}, or scale X. The estimator was left as it was."
            )
    return weights


def import_weights(network: nn.Module, weights: Mapping[str, Any], device: torch.device) -> None:
    """Let a network, which may be on the meta device, hold the arrays; shared on the CPU."""
    tensors = {name: torch.from_numpy(array).to(device) for name, array in weights.items()}
    network.load_state_dict(tensors, assign=True)


# ---------------------------------------------------------------------- modules of the user


def build_user_module(
    factory: Callable[..., Any], name: str, n_inputs: int, n_outputs: int
) -> nn.Module:
    """``factory(n_inputs, n_outputs)``, which must be a torch module.

    Raises
    ------
    ValueError
        If it is a module already, cannot be called so, or makes something else.
    """
    if isinstance(factory, nn.Module):
        raise ValueError(
            f"{name} is a module; pass its class instead, which every fit calls as "
            f"{name}(n_inputs, n_outputs) for a network of its own."
        )
    try:
        module = factory(n_inputs, n_outputs)
    except TypeError as error:
        raise ValueError(
            f"{name} could not be called as {name}({n_inputs}, {n_outputs}): it must be a class "
            f"of torch modules that takes the numbers of inputs and outputs. ({error})"
        ) from error
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"{name}({n_inputs}, {n_outputs}) is a {type(module).__name__}, but must be a "
            "torch.nn.Module."
        )
    return module


def check_user_module(module: nn.Module, name: str, n_inputs: int, n_outputs: int) -> None:
    """Raise ValueError unless the module maps rows of ``n_inputs`` to rows of ``n_outputs``."""
    with torch.no_grad():
        try:
            found = tuple(module.eval()(torch.zeros(2, n_inputs)).shape)
        except RuntimeError as error:
            raise ValueError(
                f"{name} must map rows of {n_inputs} numbers to rows of {n_outputs}, but fails on "
                f"them: {error}"
            ) from error
    if found != (2, n_outputs):
        raise ValueError(
            f"{name} maps 2 rows of {n_inputs} numbers to shape {found}, but must return (2, "
            f"{n_outputs})."
        )


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Let modules of the user draw their first weights from a seed; torch's generator stays.

    torch's own layers know no other generator than the global one. It is put back as it was, and
    a lock keeps fits in other threads from drawing in between.
    """
    with _default_generator:
        state = torch.get_rng_state()
        try:
            if seed is not None:
                torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
            yield
        finally:
            torch.set_rng_state(state)
