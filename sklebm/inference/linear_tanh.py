r"""z = g tanh(W x + b): the encoder of the first predictive sparse decomposition."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn


class LinearTanhEncoder(nn.Module):
    """A saturated linear map with a gain for each entry of the code.

    K. Kavukcuoglu, M. Ranzato and Y. LeCun, "Fast inference in sparse coding algorithms with
    applications to object recognition", 2008.

    Parameters
    ----------
    weights : Tensor of shape (n_components, n_features)
        W.
    bias : Tensor of shape (n_components,)
        b.
    gains : Tensor of shape (n_components,)
        g.
    """

    def __init__(self, weights: Tensor, bias: Tensor, gains: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)
        self.bias = nn.Parameter(bias)
        self.gains = nn.Parameter(gains)

    @classmethod
    def start(cls, dictionary: Tensor) -> Self:
        """Products with the atoms, hardly saturated for rows of length one."""
        n_components = len(dictionary)
        return cls(
            dictionary.clone(),
            dictionary.new_zeros(n_components),
            dictionary.new_ones(n_components),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Codes, shape (n_rows, n_components)."""
        return self.gains * torch.tanh(torch.addmm(self.bias, x, self.weights.T))
