r"""Gradients in closed form, factored if they are products.

The gradient with respect to a matrix of weights is often a product of two thin matrices,
dL/dW = A' B, as in dF/dW = -E[h | v]' v. Kept as its factors, it can be added to the weights by
the matrix product itself; formed explicitly, it costs two more passes over memory the size of the
weights at every step.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Product(NamedTuple):
    """The gradient sum_i w_i left_i right_i', of shape (a, b).

    Attributes
    ----------
    left, right : Tensor of shape (n_rows, a) and (n_rows, b)
        The factors.
    weights : Tensor of shape (n_rows,)
        The weights w of the rows.
    """

    left: Tensor
    right: Tensor
    weights: Tensor


#: Parameters with their gradients.
Gradients = list[tuple[Tensor, Tensor | Product]]


def dense(gradient: Tensor | Product) -> Tensor:
    """The gradient as one tensor of its parameter's shape."""
    if isinstance(gradient, Product):
        return (gradient.left * gradient.weights[:, None]).T @ gradient.right
    return gradient


def descend(parameter: Tensor, gradient: Tensor | Product, rate: float) -> None:
    """Subtract ``rate`` times the gradient from the parameter, in place."""
    if isinstance(gradient, Product):
        weighted = gradient.left * gradient.weights[:, None]
        parameter.addmm_(weighted.T, gradient.right, alpha=-rate)
    else:
        parameter.add_(gradient, alpha=-rate)
