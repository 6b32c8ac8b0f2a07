r"""E(x, z_L) = 1/2 |x - R_L z_L|^2 + alpha R(z_L), R_L z = D_1 * U_1(D_2 * U_2(... D_L * z)).

D_l adds up shifted kernels. U_l puts the entries of smaller, pooled maps back to where the largest
entries of each block were when the code z_l below was pooled: its switches. Given these, R_L is a
linear map. Without pooling, each layer describes the code below instead,

    E(x, z_1, ..., z_L) = sum_l 1/2 |z_{l-1} - D_l * z_l|^2 + alpha_l R(z_l), z_0 = x.

M. D. Zeiler, G. W. Taylor and R. Fergus, "Adaptive deconvolutional networks for mid and high level
feature learning", ICCV 2011; M. D. Zeiler et al., "Deconvolutional networks", CVPR 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sklebm.energies.convolution import ConvolutionGrid
from sklebm.energies.penalty import Penalty

#: For each pooled map of each layer, the place of the largest entry in every block.
Switches = tuple[Tensor, ...]


@dataclass(frozen=True)
class SwitchPooling:
    """Largest magnitudes in blocks of neighbouring maps and places, and where they were.

    Parameters
    ----------
    n_maps, height, width : int
        Sides of a block. Blocks at the end of a side may be smaller.
    """

    n_maps: int
    height: int
    width: int

    def shape(self, maps: Sequence[int]) -> tuple[int, int, int]:
        """Number and sides of pooled maps, given those of the maps."""
        depth, tall, wide = (
            -(-length // side) for length, side in zip(maps, self._block, strict=True)
        )
        return depth, tall, wide

    @property
    def _block(self) -> tuple[int, int, int]:
        return self.n_maps, self.height, self.width

    def pool(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Entries of largest magnitude, (n, depth, tall, wide), and their places in the blocks.

        Of a block of zeros, the first place.
        """
        blocks = self._split(maps)
        places = blocks.abs().argmax(dim=-1, keepdim=True)
        return blocks.gather(-1, places)[..., 0], places[..., 0]

    def take(self, maps: Tensor, switches: Tensor) -> Tensor:
        """The entries of maps at given places: the adjoint of ``unpool``."""
        return self._split(maps).gather(-1, switches[..., None])[..., 0]

    def unpool(self, pooled: Tensor, switches: Tensor, maps: Sequence[int]) -> Tensor:
        """Maps of the shape ``maps`` that are zero but for pooled entries at given places."""
        n, (depth, tall, wide) = len(pooled), self.shape(maps)
        blocks = pooled.new_zeros(*pooled.shape, self.n_maps * self.height * self.width)
        blocks.scatter_(-1, switches[..., None], pooled[..., None])
        whole = blocks.view(n, depth, tall, wide, *self._block).permute(0, 1, 4, 2, 5, 3, 6)
        sides = (depth * self.n_maps, tall * self.height, wide * self.width)
        return whole.reshape(n, *sides)[:, : maps[0], : maps[1], : maps[2]]

    def _split(self, maps: Tensor) -> Tensor:
        """Blocks, (n, depth, tall, wide, entries of a block); what is missing is zero."""
        depth, tall, wide = self.shape(maps.shape[1:])
        missing = (
            count * side - length
            for count, side, length in zip(
                (wide, tall, depth), self._block[::-1], maps.shape[:0:-1], strict=True
            )
        )
        padding = [number for end in missing for number in (0, end)]
        whole = torch.nn.functional.pad(maps, padding)
        split = whole.view(
            len(maps), depth, self.n_maps, tall, self.height, wide, self.width
        ).permute(0, 1, 3, 5, 2, 4, 6)
        return split.flatten(4)


class DeconvolutionalEnergy(nn.Module):
    """Convolutional decoders on top of each other; see the module.

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
    pooling : SwitchPooling
        Of the codes of every layer.
    adaptive : bool
        Whether layers are pooled, and reconstruct the image through all layers below.
    """

    def __init__(
        self,
        dictionaries: Sequence[Tensor],
        grids: Sequence[ConvolutionGrid],
        penalty: Penalty,
        alphas: Sequence[float],
        pooling: SwitchPooling,
        adaptive: bool,
    ) -> None:
        super().__init__()
        for index, dictionary in enumerate(dictionaries, start=1):
            self.register_buffer(f"dictionary{index}", dictionary)
        self.grids, self.penalty, self.alphas = tuple(grids), penalty, tuple(alphas)
        self.pooling, self.adaptive = pooling, adaptive

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.grids)

    @property
    def dictionaries(self) -> list[Tensor]:
        """The kernels of each layer."""
        return [self.get_buffer(f"dictionary{i}") for i in range(1, self.n_layers + 1)]

    def transfers(self, layer: int) -> list[Tensor]:
        """Spectra of the kernels of the first layers."""
        pairs = zip(self.grids[:layer], self.dictionaries[:layer], strict=True)
        return [grid.transfer(atoms) for grid, atoms in pairs]

    def map_shape(self, layer: int) -> tuple[int, int, int]:
        """Number and sides of the maps of a layer; 1 is that of the images."""
        return (len(self.dictionaries[layer - 1]), *self.grids[layer - 1].map_shape)

    def pooled(self, z: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Pooled codes of a layer, (n_rows, depth * tall * wide), and their switches."""
        values, switches = self.pooling.pool(z.view(len(z), *self.map_shape(layer)))
        return values.flatten(1), switches

    def lift(self, x: Tensor, z: Tensor, layer: int) -> tuple[Tensor, Tensor | None]:
        """What the next layer is about, given the code of this one; and switches, if adaptive."""
        if not self.adaptive:
            return z, None
        return x, self.pooled(z, layer)[1]

    def synthesise(
        self, z: Tensor, switches: Switches, transfers: Sequence[Tensor], *, down_to: int = 1
    ) -> Tensor:
        """R_l z of the codes of layer l = len(transfers), shape (n_rows, n_pixels).

        ``down_to`` leaves out the layers below it: the result is what this layer describes.
        """
        for layer in range(len(transfers), down_to - 1, -1):
            z = self.grids[layer - 1].synthesise(z, transfers[layer - 1])
            if self.adaptive and layer > down_to:
                z = self._unpool(z, switches, layer - 1)
        return z

    def decode(self, z: Tensor) -> Tensor:
        """R_L z without switches: of plain layers, or where every block holds a single entry."""
        first = (
            torch.zeros(len(z), *self.map_shape(layer), dtype=torch.int64, device=z.device)
            for layer in range(1, self.n_layers)
        )
        switches = tuple(first) if self.adaptive else ()
        return self.synthesise(z, switches, self.transfers(self.n_layers))

    def _unpool(self, rows: Tensor, switches: Switches, layer: int) -> Tensor:
        shape, places = self.map_shape(layer), switches[layer - 1]
        return self.pooling.unpool(rows.view(places.shape), places, shape).flatten(1)

    def analyse(self, x: Tensor, switches: Switches, transfers: Sequence[Tensor]) -> Tensor:
        """The adjoint of ``synthesise``: codes of layer l = len(transfers)."""
        for layer, (grid, transfer) in enumerate(zip(self.grids, transfers, strict=False), start=1):
            x = grid.analyse(x, transfer)
            if self.adaptive and layer < len(transfers):
                x = self._take(x, switches, layer)
        return x

    def back(self, x: Tensor, switches: Switches, transfers: Sequence[Tensor]) -> Tensor:
        """Pixels as what layer len(transfers) + 1 describes: the adjoint of ``down``."""
        return self._take(self.analyse(x, switches, transfers), switches, len(transfers))

    def down(self, rows: Tensor, switches: Switches, transfers: Sequence[Tensor]) -> Tensor:
        """What layer len(transfers) + 1 describes as pixels, through the layers below."""
        return self.synthesise(self._unpool(rows, switches, len(transfers)), switches, transfers)

    def _take(self, z: Tensor, switches: Switches, layer: int) -> Tensor:
        maps = z.view(len(z), *self.map_shape(layer))
        return self.pooling.take(maps, switches[layer - 1]).flatten(1)

    def curvature(self, layer: int) -> float:
        """An upper bound of the largest eigenvalue of R_l' R_l, or, if not adaptive, of D_l' D_l.

        Unpooling keeps lengths, so that the bounds of the layers multiply.
        """
        bound, first = 1.0, 0 if self.adaptive else layer - 1
        for grid, transfer in zip(
            self.grids[first:layer], self.transfers(layer)[first:], strict=True
        ):
            bound *= max(grid.largest_eigenvalue(transfer), torch.finfo(transfer.dtype).tiny)
        return bound

    def layer_energy(self, target: Tensor, z: Tensor, layer: int, switches: Switches) -> Tensor:
        """The energy of one layer's code, given what it describes, shape (n_rows,)."""
        lowest = 1 if self.adaptive else layer
        decoded = self.synthesise(z, switches, self.transfers(layer), down_to=lowest)
        error = (target - decoded).square().sum(dim=1)
        price = self.penalty.value(z)
        # 0 times infinity: a forbidden code stays forbidden where the penalty has no weight.
        price = torch.where(torch.isinf(price), price, self.alphas[layer - 1] * price)
        return 0.5 * error + price
