r"""Jacobian and Laplacian of a network in one forward pass.

Through an affine map u = W a + c both go linearly, J_u = W J_a and L_u = W L_a. Through a function
a = f(u), elementwise, J_a = f'(u) J_u and L_a = f'(u) L_u + f''(u) sum_i J_ui^2.

The rule for one and two layers is that of score matching in closed form; for any number it is the
"forward Laplacian" of R. Li et al., "A computational framework for neural network-based variational
Monte Carlo with forward Laplacian", Nature Machine Intelligence 6, 2024.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

#: The function's value and argument -> its first and second derivative.
_Slopes = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _sigmoid(value: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    slope = value * (1.0 - value)
    return slope, slope * (1.0 - 2.0 * value)


def _softplus(value: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    s = torch.sigmoid(u)
    return s, s * (1.0 - s)


def _tanh(value: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    slope = 1.0 - value.square()
    return slope, -2.0 * value * slope


def _silu(value: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    s = torch.sigmoid(u)
    slope = s * (1.0 - s)
    return s + u * slope, slope * (2.0 + u * (1.0 - 2.0 * s))


_SLOPES: dict[type[nn.Module], _Slopes] = {
    nn.Sigmoid: _sigmoid,
    nn.Softplus: _softplus,
    nn.Tanh: _tanh,
    nn.SiLU: _silu,
}


class Expansion(NamedTuple):
    """A map's value (n, m), Jacobian (n, m, d) and Laplacian (n, m).

    The Jacobian of an affine map is the same for all rows, (m, d), and its Laplacian is None, as
    both are for the identity.
    """

    value: Tensor
    jacobian: Tensor | None
    laplacian: Tensor | None


def is_expandable(network: nn.Module) -> bool:
    """Whether ``expand`` supports every layer of the network."""
    if not isinstance(network, nn.Sequential) or not is_plain(network, nn.Sequential):
        return False
    return all(is_plain(layer, nn.Linear) or _has_known_slopes(layer) for layer in network)


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module is of a kind whose ``forward`` it has not replaced."""
    return isinstance(module, kind) and type(module).forward is kind.forward


def _has_known_slopes(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Softplus) and layer.beta != 1:
        return False
    return type(layer) in _SLOPES


def expand(network: Any, x: Tensor) -> Expansion:
    """Value, Jacobian and Laplacian of a sequence of affine maps and smooth functions.

    O(n d P) for P weights; an empty network is the identity.
    """
    result = Expansion(x, None, None)
    for layer in network:
        if isinstance(layer, nn.Linear):
            result = _through_affine(layer.weight, layer.bias, result)
        else:
            result = _through_function(layer, result)
    return result


def _through_affine(weight: Tensor, bias: Tensor | None, inner: Expansion) -> Expansion:
    """Expand u -> weight u + bias after ``inner``."""
    laplacian = None if inner.laplacian is None else inner.laplacian @ weight.T
    value = inner.value @ weight.T if bias is None else torch.addmm(bias, inner.value, weight.T)
    jacobian = weight if inner.jacobian is None else torch.matmul(weight, inner.jacobian)
    return Expansion(value, jacobian, laplacian)


def _through_function(layer: nn.Module, inner: Expansion) -> Expansion:
    value: Tensor = layer(inner.value)
    first, second = _SLOPES[type(layer)](value, inner.value)
    jacobian = inner.jacobian
    if jacobian is None:
        jacobian = torch.eye(value.shape[1], dtype=value.dtype, device=value.device)
    laplacian = second * jacobian.square().sum(dim=-1)
    if inner.laplacian is not None:
        laplacian = laplacian + first * inner.laplacian
    return Expansion(value, first.unsqueeze(-1) * jacobian, laplacian)
