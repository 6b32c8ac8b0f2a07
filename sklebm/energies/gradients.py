r"""Gradients in closed form, as factors where they are products.

The gradient with respect to a matrix of weights is often a product of two thin matrices,
dL/dW = A' B, as in dF/dW = -E[h | v]' v. Kept as its factors, it can be added to the weights by
the matrix product itself; written out, it costs two more passes through memory of the weights'
size at every step.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Product(NamedTuple):
    """The gradient ``left.T @ right``, for factors of shapes (n_rows, a) and (n_rows, b)."""

    left: Tensor
    right: Tensor


#: Parameters with their gradients.
Gradients = list[tuple[Tensor, Tensor | Product]]


def dense(gradient: Tensor | Product) -> Tensor:
    """The gradient as one tensor of its parameter's shape."""
    return gradient.left.T @ gradient.right if isinstance(gradient, Product) else gradient


def descend(parameter: Tensor, gradient: Tensor | Product, rate: float) -> None:
    """Subtract ``rate`` times the gradient from the parameter, in place."""
    if isinstance(gradient, Product):
        parameter.addmm_(gradient.left.T, gradient.right, alpha=-rate)
    else:
        parameter.add_(gradient, alpha=-rate)
