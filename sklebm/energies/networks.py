"""Encoders and decoders: affine maps and activations, for rows and for images.

Built on torch's meta device, where they cost neither memory nor random numbers; ``initialize``
or ``load_state_dict(..., assign=True)`` fills in their values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class SaturatedLinear(nn.Hardtanh):
    """min(max(x, 0), 1): flat outside (0, 1)."""

    def __init__(self) -> None:
        super().__init__(0.0, 1.0)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "shrink": nn.Softshrink,
    "saturated_linear": SaturatedLinear,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}

Shape = tuple[int, ...]


class TransposedLinear(nn.Module):
    """z -> z W + b, with the weights W of another linear map x -> x W' + c."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        # In a tuple, so that the weights are registered only with their owner.
        self._tied = (layer,)
        self.bias = nn.Parameter(torch.empty(layer.in_features, device="meta"))

    def forward(self, z: Tensor) -> Tensor:
        """Apply the transposed map."""
        return functional.linear(z, self._tied[0].weight.T, self.bias)


class TransposedConvolution(nn.Module):
    """The transpose of another convolution, with its own bias."""

    def __init__(self, layer: nn.Conv2d, output_padding: tuple[int, int]) -> None:
        super().__init__()
        self._tied = (layer,)
        self.output_padding = output_padding
        self.bias = nn.Parameter(torch.empty(layer.in_channels, device="meta"))

    def forward(self, z: Tensor) -> Tensor:
        """Apply the transposed map."""
        return functional.conv_transpose2d(
            z,
            self._tied[0].weight,
            self.bias,
            stride=2,
            padding=1,
            output_padding=self.output_padding,
        )


def layer_shapes(shape: Shape, hidden_sizes: Sequence[int]) -> list[Shape]:
    """Shapes of the input and of every hidden layer of an encoder.

    A row of d features is the shape (d,), an image (channels, height, width); convolutions halve
    the sides, rounding up.
    """
    shapes = [shape]
    for size in hidden_sizes:
        sides = tuple(-(-side // 2) for side in shapes[-1][1:])
        shapes.append((int(size), *sides))
    return shapes


def n_activations(shape: Shape, hidden_sizes: Sequence[int]) -> int:
    """Number of values per row in the input and all hidden layers of an encoder."""
    return sum(math.prod(part) for part in layer_shapes(shape, hidden_sizes))


def make_encoder(
    shape: Shape, hidden_sizes: Sequence[int], n_outputs: int, activation: str, last: str
) -> nn.Sequential:
    """Network from rows to ``n_outputs`` numbers: affine maps, or convolutions of stride 2."""
    shapes = layer_shapes(shape, hidden_sizes)
    images = len(shape) == 3
    steps: list[nn.Module] = [nn.Unflatten(1, shape)] if images else []
    for before, after in itertools.pairwise(shapes):
        if images:
            steps.append(nn.Conv2d(before[0], after[0], 3, 2, 1, device="meta"))
        else:
            steps.append(nn.Linear(before[0], after[0], device="meta"))
        steps.append(ACTIVATIONS[activation]())
    if images:
        steps.append(nn.Flatten())
    steps.append(nn.Linear(math.prod(shapes[-1]), n_outputs, device="meta"))
    return _finish(steps, last)


def make_decoder(
    n_inputs: int,
    hidden_sizes: Sequence[int],
    shape: Shape,
    activation: str,
    last: str,
    *,
    n_per_feature: int = 1,
    tied_to: nn.Sequential | None = None,
) -> nn.Sequential:
    """The mirror image of ``make_encoder``; with ``tied_to`` it shares that encoder's weights.

    With ``n_per_feature`` of m, the outputs are m blocks, each the size of a row.
    """
    shapes = layer_shapes(shape, hidden_sizes)
    images = len(shape) == 3
    tied = _affine(tied_to)[::-1] if tied_to is not None else [None] * len(shapes)
    width = math.prod(shapes[-1])
    m = n_per_feature if len(shapes) == 1 else 1
    first = tied[0]
    steps: list[nn.Module] = [
        TransposedLinear(first)
        if isinstance(first, nn.Linear)
        else nn.Linear(n_inputs, m * width, device="meta")
    ]
    if images and len(shapes) > 1:
        steps += [ACTIVATIONS[activation](), nn.Unflatten(1, shapes[-1])]
    elif len(shapes) > 1:
        steps.append(ACTIVATIONS[activation]())
    backwards = shapes[::-1]
    for index, (before, after) in enumerate(itertools.pairwise(backwards)):
        is_last = index == len(shapes) - 2
        m = n_per_feature if is_last else 1
        steps.append(_upward(before, after, m, tied[index + 1]))
        if not is_last:
            steps.append(ACTIVATIONS[activation]())
    if images and len(shapes) > 1:
        steps.append(nn.Flatten())
    return _finish(steps, last)


def _upward(before: Shape, after: Shape, m: int, tied: nn.Module | None) -> nn.Module:
    """The map from one layer of a decoder to the next, larger one."""
    if len(after) == 1:
        if isinstance(tied, nn.Linear):
            return TransposedLinear(tied)
        return nn.Linear(before[0], m * after[0], device="meta")
    # A side of 2 s pixels was halved to s without loss, one of 2 s - 1 with one pixel's padding.
    padding = (after[1] + 1 - 2 * before[1], after[2] + 1 - 2 * before[2])
    if isinstance(tied, nn.Conv2d):
        return TransposedConvolution(tied, padding)
    return nn.ConvTranspose2d(
        before[0], m * after[0], 3, 2, 1, output_padding=padding, device="meta"
    )


def _finish(steps: list[nn.Module], last: str) -> nn.Sequential:
    if last != "identity":
        steps.append(ACTIVATIONS[last]())
    return nn.Sequential(*steps)


def _affine(network: nn.Module) -> list[nn.Module]:
    """The maps with parameters, in order."""
    return [module for module in network.modules() if hasattr(module, "bias")]


def initialize(network: nn.Module, generator: torch.Generator) -> None:
    """Initialise every affine map: Glorot-uniform weights, zero bias.

    X. Glorot and Y. Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010.
    """
    network.to_empty(device="cpu")
    with torch.no_grad():
        for module in _affine(network):
            weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
            if isinstance(weight, Tensor):
                nn.init.xavier_uniform_(weight, generator=generator)
            if isinstance(bias, Tensor):
                bias.zero_()


def initialize_spread(network: nn.Module, generator: torch.Generator) -> None:
    """Initialise every affine map for standardised inputs: weights by fan-in, biases in (-1, 1).

    The bends of the units are then spread over the data, however few features there are: with
    biases of zero and small weights all units are straight where the data lie, and a smooth network
    of two features starts as a linear one that training may not leave.

    K. He, X. Zhang, S. Ren and J. Sun, "Delving deep into rectifiers", ICCV 2015.
    """
    initialize(network, generator)
    with torch.no_grad():
        for module in _affine(network):
            weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
            if isinstance(weight, Tensor):
                nn.init.kaiming_uniform_(weight, nonlinearity="relu", generator=generator)
            if isinstance(bias, Tensor):
                bias.uniform_(-1.0, 1.0, generator=generator)


def set_input_bias(encoder: nn.Module, values: Tensor, n_channels: int) -> None:
    """Make ``values``, one per feature, the initial zero point of the encoder.

    The first map's bias is set so that it takes them to 0, or, if it is a convolution, the mean
    of each channel.
    """
    first = _affine(encoder)[0]
    weight, bias = getattr(first, "weight", None), getattr(first, "bias", None)
    if isinstance(weight, Tensor) and isinstance(bias, Tensor):
        with torch.no_grad():
            if weight.ndim == 2:
                bias.copy_(-(weight @ values))
            else:
                means = values.reshape(n_channels, -1).mean(dim=1)
                bias.copy_(-(weight.sum(dim=(2, 3)) @ means))


def set_output_bias(decoder: nn.Module, values: Tensor, n_channels: int) -> None:
    """Make ``values``, one per feature, the initial output of the decoder.

    The last map's bias is set to them or, if it is a convolution, to the mean of each channel.
    Further outputs per feature start at 0.
    """
    bias = getattr(_affine(decoder)[-1], "bias", None)
    if not isinstance(bias, Tensor):
        return
    n_blocks = len(values) if len(bias) >= len(values) else n_channels
    with torch.no_grad():
        bias[:n_blocks] = values.reshape(n_blocks, -1).mean(dim=1)
