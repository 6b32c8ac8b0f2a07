r"""y = (x - m) / s: networks work on y, energies and densities are those of x.

A density of y is one of x after division by prod_i s_i; a squared error of y is one of x after
multiplication with s^2, which needs one s for all features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Standardization(nn.Module):
    """The map between rows and the networks' inputs.

    Parameters
    ----------
    offset : Tensor of shape (n_features,)
        Subtracted from rows.
    scale : Tensor of shape (n_features,)
        Positive divisors.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, offset: Tensor, scale: Tensor) -> None:
        super().__init__()
        # Not part of the state: a fitted attribute holds them in double precision.
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> Standardization:
        """Follow the module to another device, but stay in double precision.

        In single precision the offset would move rows far from zero by its own rounding.
        """
        exact = self.offset, self.scale
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.offset, self.scale = (values.to(self.offset.device) for values in exact)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Standardised rows, in the dtype of x."""
        return ((x - self.offset) / self.scale).to(x.dtype)

    def restore(self, y: Tensor) -> Tensor:
        """Rows in their own units, in the dtype of y."""
        return torch.addcmul(self.offset, y, self.scale).to(y.dtype)

    def unit(self) -> Tensor:
        """The scale, if it is the same for all features."""
        return self.scale[0]
