r"""E(x, z) = sum_l 1/2 |z_{l-1} - z_l D_l|^2 + alpha_l R(z_l), with z_0 = x: codes of codes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sklebm.energies.convolution import ConvolutionGrid
from sklebm.energies.penalty import Penalty


class LayeredCodingEnergy(nn.Module):
    """Linear decoders on top of each other, with a penalty on every code.

    Parameters
    ----------
    dictionaries : sequence of Tensor of shape (width, width of the layer below)
        The atoms of each layer, those that describe rows first.
    penalty : Penalty
        R.
    alphas : sequence of float
        Its weight in each layer.
    """

    def __init__(
        self, dictionaries: Sequence[Tensor], penalty: Penalty, alphas: Sequence[float]
    ) -> None:
        super().__init__()
        for index, dictionary in enumerate(dictionaries, start=1):
            self.register_buffer(f"dictionary{index}", dictionary)
        self.penalty, self.alphas = penalty, tuple(alphas)

    @property
    def dictionaries(self) -> list[Tensor]:
        """The atoms of each layer."""
        return [self.get_buffer(f"dictionary{i}") for i in range(1, len(self.alphas) + 1)]

    @property
    def widths(self) -> list[int]:
        """Numbers in the code of each layer."""
        return [len(dictionary) for dictionary in self.dictionaries]

    def split(self, z: Tensor) -> tuple[Tensor, ...]:
        """The codes of each layer, out of those of all layers side by side."""
        return torch.split(z, self.widths, dim=1)

    def describe(self, code: Tensor, layer: int) -> Tensor:
        """What the code of a layer, from 1, says of the one below: z_l D_l."""
        atoms: Tensor = self.get_buffer(f"dictionary{layer}")
        return code @ atoms

    def decode(self, z: Tensor) -> Tensor:
        """The reconstruction z_1 D_1, shape (n_rows, n_features)."""
        return self.describe(self.split(z)[0], 1)

    def layer_energies(self, x: Tensor, z: Tensor) -> list[Tensor]:
        """The terms of E(x, z) that belong to each layer, shape (n_rows,) each."""
        terms, below = [], x
        for layer, code in enumerate(self.split(z), start=1):
            price = self.penalty.value(code)
            # 0 times infinity: a forbidden code stays forbidden where the penalty has no weight.
            price = torch.where(torch.isinf(price), price, self.alphas[layer - 1] * price)
            terms.append(0.5 * (below - self.describe(code, layer)).square().sum(dim=1) + price)
            below = code
        return terms

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z) of each row with its own codes, shape (n_rows,)."""
        return torch.stack(self.layer_energies(x, z)).sum(dim=0)


class LayeredMapEnergy(LayeredCodingEnergy):
    """The same with convolutions: a code holds maps, and every layer describes the maps below.

    Parameters
    ----------
    dictionaries : sequence of Tensor of shape (n_kernels, kernel_length)
        The kernels of each layer, those of the images first, flat.
    grids : sequence of ConvolutionGrid
        Sizes of each layer; the channels of an upper layer are the maps that it describes.
    penalty : Penalty
        R.
    alphas : sequence of float
        Its weight in each layer.
    """

    def __init__(
        self,
        dictionaries: Sequence[Tensor],
        grids: Sequence[ConvolutionGrid],
        penalty: Penalty,
        alphas: Sequence[float],
    ) -> None:
        super().__init__(dictionaries, penalty, alphas)
        self.grids = tuple(grids)

    @property
    def widths(self) -> list[int]:
        """Numbers in the code of each layer."""
        pairs = zip(self.dictionaries, self.grids, strict=True)
        return [len(kernels) * grid.map_length for kernels, grid in pairs]

    def describe(self, code: Tensor, layer: int) -> Tensor:
        """What the code of a layer, from 1, says of the one below: D_l * z_l."""
        grid = self.grids[layer - 1]
        return grid.synthesise(code, grid.transfer(self.get_buffer(f"dictionary{layer}")))
