"""Encoders of a ``ConvPredictiveSparseDecomposition``: first weights, and modules without any."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sklebm._shell.private import get_chunk_n_rows
from sklebm._shell.rows import Rows
from sklebm.coding._kernels import SharpImages, initial_kernels
from sklebm.energies import L1
from sklebm.energies.convolution import ConvolutionGrid
from sklebm.energies.predictive_convolution import PredictiveConvolutionalEnergy
from sklebm.inference.unfolded_maps import ConvolutionalListaEncoder, ConvolutionalTanhEncoder
from sklebm.objectives import ConvolutionalDecomposition

# First steps of an unfolded solver in units of 1 / L: 2 is where they would begin to diverge.
_RELATIVE_STEP = 1.9

# Arrays of the size of a code that training holds at once, for the search and for each layer: the
# peak of the process grew by 54 of them for three layers.
_ARRAYS, _ARRAYS_OF_LAYER = 16, 10


def decomposition_of(energy: Any) -> ConvolutionalDecomposition:
    """The objective, for so many images at once as ``working_memory`` has room for."""
    atoms = energy.dictionary
    n_layers = 1 + energy.architecture["n_layers"]
    code_bytes = len(atoms) * energy.grid.map_length * atoms.element_size()
    at_once = get_chunk_n_rows((_ARRAYS + _ARRAYS_OF_LAYER * n_layers) * code_bytes)
    return ConvolutionalDecomposition(images_at_once=int(at_once))


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
    rows: Rows,
    generator: torch.Generator,
) -> Any:
    """The energy before training, float32: kernels are patches of rows, the encoder is a solver."""
    low_pass, weight = architecture["low_pass"], architecture["prediction_weight"]
    images = SharpImages(rows, grid, low_pass)
    atoms = initial_kernels(images, architecture["n_components"], grid, generator).cpu()
    encoder: nn.Module
    if architecture["encoder"] == "linear_tanh":
        parts = (
            images[part].cpu().double() for part in rows.chunks(4 * len(atoms) * grid.map_length)
        )
        encoder = ConvolutionalTanhEncoder.start(atoms, parts, grid)
    else:
        encoder = ConvolutionalListaEncoder.start(
            atoms, alpha, architecture["n_layers"], grid, relative_step=_RELATIVE_STEP
        )
    energy: Any = PredictiveConvolutionalEnergy(encoder, atoms, L1(), alpha, weight, grid, low_pass)
    energy.architecture = architecture
    return energy.float()
