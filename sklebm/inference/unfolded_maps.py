r"""Encoders of images: convolutional LISTA, and a saturated convolution with gains.

z_0 = h(g_0 W_0 x, g_0 t_0), z_t = h(z_{t-1} + g_t W_t (x - B_t z_{t-1}), g_t t_t) for t = 1..T.

h is the soft threshold, W correlates an image with kernels, and B adds up shifted kernels. With
W = D', B = D, the step g = 1 / L of ISTA and t = alpha every layer is one of its steps. The matrix
S = I - g W B of LISTA is a pair of small stacks of kernels here, which cost O(k) maps rather than
O(k^2).

H. Sreter and R. Giryes, "Learned convolutional sparse coding", ICASSP 2018.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor, nn

from sklebm.energies.convolution import ConvolutionGrid
from sklebm.inference.unfolded import shrink


class ConvolutionalListaEncoder(nn.Module):
    """Unfolded ISTA for maps; ``forward(x)`` is the code of each image.

    Steps and thresholds are kept as logarithms: they are positive, and changing them by a factor
    does not depend on the units of x. They are divided by the root of the kernel's length, the
    size of a logarithm beside that of a number in a kernel: optimisers such as Adam move all
    numbers alike.

    Parameters
    ----------
    weights : Tensor of shape (n_layers + 1, n_kernels, kernel_length)
        W of the first shrink and of each layer.
    feedback : Tensor of shape (n_layers, n_kernels, kernel_length)
        B of each layer.
    log_steps, log_thresholds : Tensor of shape (n_layers + 1, n_kernels)
        log g and log t over the root of kernel_length, one for each kernel.
    grid : ConvolutionGrid
        Sizes and boundary.
    """

    def __init__(
        self,
        weights: Tensor,
        feedback: Tensor,
        log_steps: Tensor,
        log_thresholds: Tensor,
        grid: ConvolutionGrid,
    ) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)
        if len(feedback):
            self.feedback = nn.Parameter(feedback)
        self.log_steps = nn.Parameter(log_steps)
        self.log_thresholds = nn.Parameter(log_thresholds)
        self.grid = grid

    @classmethod
    def start(
        cls,
        atoms: Tensor,
        alpha: float,
        n_layers: int,
        grid: ConvolutionGrid,
        *,
        relative_step: float = 1.0,
    ) -> Self:
        """The encoder whose layers are steps of ISTA for these kernels and alpha.

        ``relative_step`` is the length of a step in units of 1 / L. Below 2, no step raises the
        energy, and while codes are few steps from zero longer ones lower it more.
        """
        tiny = torch.finfo(atoms.dtype).tiny
        step = relative_step / max(grid.largest_eigenvalue(grid.transfer(atoms)), tiny)
        ones = atoms.new_ones(n_layers + 1, len(atoms)) / grid.kernel_length**0.5
        return cls(
            atoms.repeat(n_layers + 1, 1, 1),
            atoms.repeat(n_layers, 1, 1),
            math.log(step) * ones,
            math.log(alpha) * ones,
            grid,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Codes after the last layer, shape (n_rows, n_kernels * map_length)."""
        grid, unit = self.grid, self.grid.kernel_length**0.5
        steps = (unit * self.log_steps).exp()
        limits = steps * (unit * self.log_thresholds).exp()
        z, residual = None, x
        for t, kernels in enumerate(self.weights):
            if z is not None:
                residual = x - grid.synthesise(z, grid.transfer(self.feedback[t - 1]))
            moved = steps[t].repeat_interleave(grid.map_length) * grid.analyse(
                residual, grid.transfer(kernels)
            )
            z = shrink(
                moved if z is None else z + moved, limits[t].repeat_interleave(grid.map_length)
            )
        assert z is not None  # noqa: S101  (there is at least the first shrink)
        return z


class ConvolutionalTanhEncoder(nn.Module):
    """z = s g tanh(W x / s + b), with a bias and a gain for each kernel.

    Parameters
    ----------
    weights : Tensor of shape (n_kernels, kernel_length)
        W.
    bias, gains : Tensor of shape (n_kernels,)
        b, g.
    scale : Tensor of shape ()
        s, the size of the products of images with kernels, which is not learnt.
    grid : ConvolutionGrid
        Sizes and boundary.
    """

    scale: Tensor

    def __init__(
        self, weights: Tensor, bias: Tensor, gains: Tensor, scale: Tensor, grid: ConvolutionGrid
    ) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)
        self.bias = nn.Parameter(bias)
        self.gains = nn.Parameter(gains)
        self.register_buffer("scale", scale)
        self.grid = grid

    @classmethod
    def start(cls, atoms: Tensor, parts: Iterable[Tensor], grid: ConvolutionGrid) -> Self:
        """Products with the kernels in units of one ISTA step, hardly saturated for these images.

        They come in parts, as their maps are many times as large.
        """
        transfer = grid.transfer(atoms)
        peaks = [grid.analyse(part, transfer).abs().amax() for part in parts]
        tiny = torch.finfo(atoms.dtype).tiny
        gain = 1.0 / max(grid.largest_eigenvalue(transfer), tiny)
        return cls(
            atoms.clone(),
            atoms.new_zeros(len(atoms)),
            atoms.new_full((len(atoms),), gain),
            torch.stack(peaks).amax().clamp(min=tiny),
            grid,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Codes, shape (n_rows, n_kernels * map_length)."""
        grid = self.grid
        products = grid.analyse(x, grid.transfer(self.weights)) / self.scale
        bias, gains = (p.repeat_interleave(grid.map_length) for p in (self.bias, self.gains))
        return self.scale * gains * torch.tanh(products + bias)
