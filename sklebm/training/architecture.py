"""Network architectures as plain values: checked parameters, and the modules built from them.

The record is part of the fitted state, so changing a parameter later does not change any result.
User modules are the exception: a class is not a plain value, so it is read from the parameter.

``NetworkRecord`` is what estimators use; the functions below it are its parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import nn

from sklebm.energies.networks import Shape, make_decoder, make_encoder, n_activations
from sklebm.training.module_draws import seeded

Record = dict[str, Any]

_MAX_LAYERS = 100
#: Parameters from which entries of a record follow that are called something else.
_SET_BY = {"n_heads": "objective", "noise": "noise_scale"}


@dataclass(frozen=True)
class NetworkRecord:
    """The networks of an estimator as plain values, and the modules built from them.

    Parameters
    ----------
    values : dict from str to number, str or array
        Values that determine the networks; stored as ``architecture_``.
    classes : mapping from str to callable or None
        User classes keyed by the parameter that holds them, such as "encoder"; None: built in.
    """

    values: Record
    classes: Mapping[str, Callable[..., Any] | None] = field(default_factory=dict)

    @classmethod
    def from_parameters(
        cls, estimator: Any, n_features: int, names: tuple[str, ...], **further: Any
    ) -> NetworkRecord:
        """The networks that ``estimator`` specifies, from its checked parameters.

        It has ``n_components``, ``hidden_sizes``, ``image_shape`` and ``activation``; ``names``
        are its parameters that may hold a user class. ``further`` values are added to the record.
        """
        classes = {name: getattr(estimator, name) for name in names}
        check_image_shape(estimator.image_shape, n_features)
        shape = () if estimator.image_shape is None else estimator.image_shape
        values = {
            "n_features": n_features,
            "n_components": int(estimator.n_components),
            "hidden_sizes": np.array(check_sizes(estimator.hidden_sizes), dtype=np.int64),
            "image_shape": np.array(shape, dtype=np.int64),
            "activation": str(estimator.activation),
            **{f"own_{k}": "built in" if c is None else "given" for k, c in classes.items()},
            **further,
        }
        return cls(values, classes)

    @classmethod
    def of_fitted(cls, estimator: Any, names: tuple[str, ...]) -> NetworkRecord:
        """The networks that ``estimator`` was fitted with."""
        return cls(estimator.architecture_, {name: getattr(estimator, name) for name in names})

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    # ------------------------------------------------------------------ sizes

    @property
    def shape(self) -> Shape:
        """(n_features,), or (channels, height, width) of a row."""
        sides = self["image_shape"].tolist()
        return check_image_shape(sides or None, int(self["n_features"]))

    @property
    def n_channels(self) -> int:
        """Channels of an image; 1 for other rows."""
        return self.shape[0] if len(self.shape) == 3 else 1

    def floats_per_row(self) -> int:
        """Number of values per row in the hidden layers, the code and the output."""
        hidden = n_activations(self.shape, self["hidden_sizes"].tolist())
        return int(hidden + self["n_components"] + self["n_features"])

    # ------------------------------------------------------------------ modules

    def is_given(self, name: str) -> bool:
        """Whether the network called ``name`` is a user class."""
        return self.classes.get(name) is not None

    def encoder(self, n_outputs: int, last: str = "identity", name: str = "encoder") -> nn.Module:
        """Network from rows to ``n_outputs`` numbers, with ``last`` as output activation."""
        given = self.classes.get(name)
        if given is not None:
            return build_user_module(given, name, self["n_features"], n_outputs)
        sizes = self["hidden_sizes"].tolist()
        return make_encoder(self.shape, sizes, n_outputs, self["activation"], last)

    def decoder(
        self, last: str = "identity", *, n_per_feature: int = 1, tied_to: Any = None
    ) -> nn.Module:
        """Network from codes to rows, or to ``n_per_feature`` numbers per feature."""
        given, n_inputs = self.classes.get("decoder"), self["n_components"]
        if given is not None:
            n_outputs = n_per_feature * self["n_features"]
            return build_user_module(given, "decoder", n_inputs, n_outputs)
        return make_decoder(
            n_inputs,
            self["hidden_sizes"].tolist(),
            self.shape,
            self["activation"],
            last,
            n_per_feature=n_per_feature,
            tied_to=tied_to,
        )

    def build(self, assemble: Callable[[NetworkRecord], nn.Module], seed: int | None = None) -> Any:
        """``assemble(self)``, whose built-in networks are on the meta device.

        User modules draw their initial weights from ``seed``; torch's global generator is
        unchanged.
        """
        if not any(self.is_given(name) for name in self.classes):
            return assemble(self)  # draws nothing, so needs no lock
        with seeded(seed):
            return assemble(self)

    def restore(
        self,
        assemble: Callable[[NetworkRecord], nn.Module],
        weights: Mapping[str, Any],
        device: torch.device,
    ) -> Any:
        """The module with fitted weights, for inference."""
        module = self.build(assemble)
        import_weights(module, weights, device)
        return module.to(device).eval()

    # ------------------------------------------------------------------ checks

    def check_module(self, name: str, module: nn.Module, n_inputs: int, n_outputs: int) -> None:
        """Raise ValueError if a user module does not map the given number of inputs to outputs."""
        if self.is_given(name):
            check_user_module(module, name, n_inputs, n_outputs)

    def check_weights(
        self,
        assemble: Callable[[NetworkRecord], nn.Module],
        weights: Mapping[str, Any],
        owner: str,
    ) -> None:
        """Raise ValueError unless ``weights`` match the modules."""
        check_arrays(self.build(assemble), weights, owner)

    def check_fitted(self, asked: NetworkRecord, owner: str) -> None:
        """Raise ValueError if the parameters, read as ``asked``, describe a different network."""
        check_record(asked.values, self.values, owner)

    def check_resumable(self, asked: NetworkRecord, estimator: Any) -> None:
        """Raise ValueError if training cannot continue with the network ``asked`` for."""
        check_resumable(estimator, asked.values, self.values)


# ---------------------------------------------------------------------- parts of the record


def positive_integers(values: Any) -> tuple[int, ...] | None:
    """Several, or a single one, as a tuple; None if any is something else."""
    entries = tuple(values) if np.ndim(values) else (values,)
    good = (isinstance(s, Integral) and not isinstance(s, bool) and int(s) >= 1 for s in entries)
    return tuple(int(entry) for entry in entries) if all(good) else None


def check_sizes(hidden_sizes: Any) -> tuple[int, ...]:
    """The widths as integers; ValueError if they are not."""
    sizes = positive_integers(hidden_sizes)
    if sizes is None or len(sizes) > _MAX_LAYERS:
        raise ValueError(
            f"hidden_sizes={hidden_sizes!r} must be positive integers, at most {_MAX_LAYERS}: the "
            "widths of the encoder's hidden layers, or the channels of its convolutions."
        )
    return sizes


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
        raise ValueError(
            f"{owner}.weights_ has missing or extra entries: {', '.join(wrong)}; fit again."
        )
    for name, tensor in expected.items():
        value = arrays[name]
        shape = tuple(tensor.shape)
        kind = "f" if tensor.is_floating_point() else "i"
        good = isinstance(value, np.ndarray) and value.dtype.kind == kind
        if not good or value.shape != shape:
            found = getattr(value, "shape", type(value).__name__)
            raise ValueError(
                f"{owner}.weights_[{name!r}] is {found}, but the architecture requires an array "
                f"of shape {shape}. If parameters were changed after fit, fit again."
            )


def check_resumable(owner: Any, asked: Mapping[str, Any], fitted: Mapping[str, Any]) -> None:
    """Raise ValueError if the parameters specify a network other than the fitted one."""
    # A different class of the user explains all other differences.
    for name in sorted(same_record(asked, fitted), key=lambda name: not name.startswith("own_")):
        parameter, made = name.removeprefix("own_"), ""
        if name in _SET_BY:
            parameter, made = _SET_BY[name], f" makes {name}={asked.get(name)!r}, which"
        given, before = getattr(owner, parameter, asked.get(name)), fitted.get(name)
        if isinstance(given, bool):
            before = bool(before)  # kept as a number, such as that of the labels
        raise ValueError(
            f"{parameter}={given!r}{made} differs from the fitted {before!r} that training would "
            "continue from: set it back, or fit with warm_start=False."
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
                f"{owner.learning_rate}, or scale X. The estimator was left unchanged."
            )
    return weights


def import_weights(network: nn.Module, weights: Mapping[str, Any], device: torch.device) -> None:
    """Load the arrays into a network, possibly on the meta device; memory is shared on the CPU."""
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
        If it is already a module, cannot be called this way, or returns something else.
    """
    if isinstance(factory, nn.Module):
        raise ValueError(
            f"{name} is a module; pass its class instead, which every fit calls as "
            f"{name}(n_inputs, n_outputs) to create its own network."
        )
    try:
        module = factory(n_inputs, n_outputs)
    except TypeError as error:
        raise ValueError(
            f"{name} could not be called as {name}({n_inputs}, {n_outputs}): it must be a torch "
            f"module class that takes the numbers of inputs and outputs. ({error})"
        ) from error
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"{name}({n_inputs}, {n_outputs}) is a {type(module).__name__}, but must be a "
            "torch.nn.Module."
        )
    return module


def check_user_module(
    module: nn.Module, name: str, n_inputs: int, n_outputs: int, *, flat: bool = False
) -> None:
    """Raise ValueError unless the module maps rows of ``n_inputs`` to rows of ``n_outputs``.

    ``flat``: an answer of one number a row may be of shape (n,), too.
    """
    with torch.no_grad():
        try:
            found = tuple(module.eval()(torch.zeros(2, n_inputs)).shape)
        except RuntimeError as error:
            raise ValueError(
                f"{name} must map rows of {n_inputs} numbers to rows of {n_outputs}, but fails on "
                f"them: {error}"
            ) from error
    if found != (2, n_outputs) and not (flat and found == (2,)):
        raise ValueError(
            f"{name} maps 2 rows of {n_inputs} numbers to shape {found}, but must return (2, "
            f"{n_outputs})."
        )
