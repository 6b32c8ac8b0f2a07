"""Encoders of a ``ConvPredictiveSparseDecomposition``: first weights, and modules without any."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sklebm.coding._kernels import initial_kernels
from sklebm.energies import L1
from sklebm.energies.convolution import ConvolutionalCodingEnergy, ConvolutionGrid
from sklebm.energies.predictive_convolution import PredictiveConvolutionalEnergy
from sklebm.inference.unfolded_maps import ConvolutionalListaEncoder, ConvolutionalTanhEncoder


def blank_encoder(
    architecture: dict[str, Any], dictionary: Tensor, grid: ConvolutionGrid
) -> nn.Module:
    """The network with parameters on the meta device."""
    k, length = dictionary.shape
    n_layers = int(architecture["n_layers"])

    def blank(*shape: int) -> Tensor:
        return torch.empty(shape, device="meta")

    if architecture["encoder"] == "linear_tanh":
        return ConvolutionalTanhEncoder(blank(k, length), blank(k), blank(k), blank(), grid)
    return ConvolutionalListaEncoder(
        blank(n_layers + 1, k, length),
        blank(n_layers, k, length),
        blank(n_layers + 1, k),
        blank(n_layers + 1, k),
        grid,
    )


def first_energy(
    architecture: dict[str, Any],
    alpha: float,
    grid: ConvolutionGrid,
    x: Tensor,
    generator: torch.Generator,
) -> Any:
    """The energy before training, float32: kernels are patches of x, the encoder is a solver."""
    low_pass, weight = architecture["low_pass"], architecture["prediction_weight"]
    plain = ConvolutionalCodingEnergy(x.new_zeros(0, 0), L1(), alpha, grid, low_pass)
    x = plain.centre(x).double()
    atoms = initial_kernels(x, architecture["n_components"], grid, generator)
    encoder: nn.Module
    if architecture["encoder"] == "linear_tanh":
        encoder = ConvolutionalTanhEncoder.start(atoms, x, grid)
    else:
        encoder = ConvolutionalListaEncoder.start(atoms, alpha, architecture["n_layers"], grid)
    energy: Any = PredictiveConvolutionalEnergy(encoder, atoms, L1(), alpha, weight, grid, low_pass)
    energy.architecture = architecture
    return energy.float()
