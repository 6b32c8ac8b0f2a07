"""Encoders of a ``ConvPredictiveSparseDecomposition``: first weights, and modules without any."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sklebm._shell.rows import Rows
from sklebm.coding._kernels import initial_kernels
from sklebm.energies import L1
from sklebm.energies.convolution import ConvolutionalCodingEnergy, ConvolutionGrid
from sklebm.energies.predictive_convolution import PredictiveConvolutionalEnergy
from sklebm.inference.unfolded_maps import ConvolutionalListaEncoder, ConvolutionalTanhEncoder

# First steps of an unfolded solver in units of 1 / L: 2 is where they would begin to diverge.
_RELATIVE_STEP = 1.9


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


class _SharpImages:
    """Rows without their smooth part, in double precision, of which only some are in memory."""

    device = torch.device("cpu")

    def __init__(self, rows: Rows, energy: ConvolutionalCodingEnergy) -> None:
        self.rows, self.energy = rows, energy

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> Tensor:
        return self.energy.centre(self.rows[part].cpu()).double()


def first_energy(
    architecture: dict[str, Any],
    alpha: float,
    grid: ConvolutionGrid,
    rows: Rows,
    generator: torch.Generator,
) -> Any:
    """The energy before training, float32: kernels are patches of rows, the encoder is a solver."""
    low_pass, weight = architecture["low_pass"], architecture["prediction_weight"]
    plain = ConvolutionalCodingEnergy(torch.zeros(0, 0), L1(), alpha, grid, low_pass)
    images: Any = _SharpImages(rows, plain)
    atoms = initial_kernels(images, architecture["n_components"], grid, generator)
    encoder: nn.Module
    if architecture["encoder"] == "linear_tanh":
        parts = (images[part] for part in rows.chunks(4 * len(atoms) * grid.map_length))
        encoder = ConvolutionalTanhEncoder.start(atoms, parts, grid)
    else:
        encoder = ConvolutionalListaEncoder.start(
            atoms, alpha, architecture["n_layers"], grid, relative_step=_RELATIVE_STEP
        )
    energy: Any = PredictiveConvolutionalEnergy(encoder, atoms, L1(), alpha, weight, grid, low_pass)
    energy.architecture = architecture
    return energy.float()
