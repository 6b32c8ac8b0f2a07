"""Kernels that change with every batch of images, from sums over images and their codes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sklebm._shell.rows import row_slices
from sklebm.coding._dictionary import DictionaryLearner, Settings
from sklebm.coding._sums import Totals
from sklebm.energies.convolution import ConvolutionalCodingEnergy, ConvolutionGrid
from sklebm.inference.kernel_update import (
    check_consensus,
    code_sums,
    consensus_kernels,
    improve_kernels,
)

# Codes of the last pass are kept up to this size in all; images beyond it start from zero.
_KEPT_BYTES = 2**28
# Parts of the images that have kernels of their own in a consensus: batches take turns.
_N_PARTS = 4


@dataclass(frozen=True)
class KernelSettings(Settings):
    """How kernels are learnt."""

    grid: ConvolutionGrid = field(kw_only=True)

    def energy(self, atoms: Tensor) -> ConvolutionalCodingEnergy:
        """The energy with these kernels, of images without their smooth part."""
        return ConvolutionalCodingEnergy(atoms, self.penalty, self.alpha, self.grid)


@dataclass
class KernelSums(Totals):
    """Sums over images and their codes; see ``sklebm.inference.kernel_update``."""

    code_products: Tensor
    row_products: Tensor
    weight: Tensor

    @classmethod
    def zero(cls, n_kernels: int, grid: ConvolutionGrid, device: torch.device) -> KernelSums:
        """The sums over no images."""
        tall, wide = grid.kernel_height, grid.kernel_width
        shapes: tuple[tuple[int, ...], ...] = (
            (n_kernels, n_kernels, 2 * tall - 1, 2 * wide - 1),
            (n_kernels, grid.channels, tall, wide),
            (),
        )
        return cls(*(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))

    def usage(self) -> Tensor:
        """Sum of squares of the codes of each kernel."""
        middle = self.code_products.shape[2] // 2, self.code_products.shape[3] // 2
        return self.code_products[:, :, middle[0], middle[1]].diagonal()

    def forget(self, kernels: Tensor) -> None:
        """Remove what was summed for kernels that are being replaced."""
        self.code_products[kernels] = 0.0
        self.code_products[:, kernels] = 0.0
        self.row_products[kernels] = 0.0


class KernelLearner(DictionaryLearner):
    """Kernels that change after every ``batch_size`` images, however the images arrive.

    Images come without their smooth part, which does not depend on the kernels.
    Missing pixels are filled with their reconstructions: the energy of the observed pixels is at
    most that of the filled image, and equal to it before the kernels move.
    """

    settings: KernelSettings

    def __init__(self, dictionary: Tensor, intercept: Tensor, settings: KernelSettings) -> None:
        super().__init__(dictionary, intercept, settings)
        self.mask: Tensor | None = None
        self.peak = 0.0  # the largest product of an image with a kernel
        # Non-zeros of each image's code in the last pass, from which the next pass starts.
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}
        self.n_kept = 0  # numbers in them
        # Batches in which no kernel is replaced: those of a pass whose sums start empty.
        self.n_spared = 0
        # Sums over parts of the images since the last step, if their kernels come to a consensus.
        self.parts: list[KernelSums] = []

    def seek_consensus(self) -> None:
        """Let parts of the images come to a consensus, instead of steps along the gradient."""
        check_consensus(self.settings.grid.kernels(self.atoms))  # before the search, which is long
        self.parts = [self._no_sums() for _ in range(_N_PARTS)]

    def in_the_middle(self, n_spared: int) -> KernelLearner | None:
        """A learner without sums whose kernels have their squares around the middle of the window.

        What leaves the window is lost. None if no kernel moves by a pixel. In the first
        ``n_spared`` batches, kernels that are not used yet are not replaced.
        """
        grid = self.settings.grid
        kernels = grid.kernels(self.atoms)
        moved = _centred(kernels)
        if torch.equal(moved, kernels):
            return None
        # Its own search: warnings speak of the kernels that are kept.
        settings = replace(self.settings, search=copy.copy(self.settings.search))
        learner = KernelLearner(_flat(moved, grid), self.intercept, settings)
        learner.mask, learner.n_steps, learner.n_spared = self.mask, self.n_steps, n_spared
        if self.parts:
            learner.seek_consensus()
        # Nothing is learnt here any more, and codes of both would take twice the memory.
        self.kept, self.n_kept = {}, 0
        return learner

    def _no_sums(self) -> KernelSums:
        return KernelSums.zero(len(self.atoms), self.settings.grid, self.atoms.device)

    def collect(self, x: Tensor, places: Tensor | None = None, mask: Tensor | None = None) -> None:
        """Find the codes of images and add them to the sums of the batch.

        ``mask`` is one where a pixel is observed. Without it, that of all images says so.
        """
        if mask is None and self.mask is not None and places is not None:
            mask = self.mask[places]
        floats = 12 * len(self.atoms) * self.settings.grid.map_length
        for part in row_slices(len(x), floats, x.device):
            seen = None if mask is None else mask[part].to(x.dtype)
            self._collect(x[part], None if places is None else places[part], seen)

    def _collect(self, x: Tensor, places: Tensor | None, mask: Tensor | None) -> None:
        settings = self.settings
        energy = settings.energy(self.atoms.to(x.dtype))
        start = None if places is None else self._start(places, x)
        z = settings.search.find(energy, x, mask, start).codes  # type: ignore[attr-defined]
        values = energy.energy(x, z) if mask is None else energy.masked_energy(x, z, mask)
        sharp, decoded = x, energy.decode(z)
        if mask is not None:
            sharp = mask * x + (1.0 - mask) * decoded
        self.add(sharp, z, values, decoded)
        if places is not None:
            for place, code in zip(places.tolist(), z, strict=True):
                self._keep(place, code)

    def _keep(self, place: int, code: Tensor) -> None:
        """Keep the code of an image, if there is room for it."""
        self.n_kept -= len(self.kept.pop(place, ((),))[0])
        index = code.nonzero()[:, 0]
        if (self.n_kept + len(index)) * (4 + code.element_size()) <= _KEPT_BYTES:
            self.kept[place] = index.to(torch.int32), code[index]
            self.n_kept += len(index)

    def add(self, x: Tensor, z: Tensor, values: Tensor, decoded: Tensor) -> None:
        """Take in images without gaps, their codes and energies, and what these decode to."""
        settings, grid = self.settings, self.settings.grid
        if not bool(torch.isfinite(values).all()):
            # An overflowing image without its smooth part is NaN: name the largest number instead.
            largest = torch.finfo(x.dtype).max
            raise FloatingPointError(
                f"{settings.search.owner}: the energies of the images overflow (largest |X|: "
                f"{float(x.nan_to_num(largest).abs().max()):.3g}). Scale X, for example to [0, 1]."
            )
        products, windows = code_sums(z, x, grid)
        sums = [self.pending]
        if self.parts:
            sums.append(self.parts[int(self.pending.weight) // settings.batch_size % _N_PARTS])
        for own in sums:
            own.code_products += products
            own.row_products += windows
            own.weight += len(x)
        self.energy += float(values.double().sum())
        self.n_rows += len(x)
        self.n_nonzero += int((z != 0).sum())
        if not self.n_nonzero:
            drawn = grid.analyse(x, grid.transfer(self.atoms.to(x.dtype)))
            self.peak = max(self.peak, float(settings.penalty.dual_norm(drawn).max()))
        cut, local = patches_of(grid.images(x - decoded).double(), grid)
        errors, places_of_errors = local.max(dim=1)
        patches = cut(places_of_errors)
        self._keep_worst(torch.cat([self.spare, patches]), torch.cat([self.spare_errors, errors]))

    def _start(self, places: Tensor, x: Tensor) -> Tensor:
        """Codes of the last pass."""
        grid = self.settings.grid
        start = x.new_zeros(len(places), len(self.atoms) * grid.map_length)
        for row, place in zip(start, places.tolist(), strict=True):
            if place in self.kept:
                index, values = self.kept[place]
                row[index.long()] = values
        return start

    def _improve(self, batch: Any, n_sweeps: int) -> None:
        sums, grid = self.history, self.settings.grid
        kernels = grid.kernels(self.atoms)
        if self.parts:
            parts = [(p.code_products, p.row_products) for p in self.parts if p.weight]
            kernels = consensus_kernels(kernels, parts)
            self.seek_consensus()
        else:
            kernels = improve_kernels(kernels, sums.code_products, sums.row_products)
        self.atoms = _flat(kernels, grid)

    def _replace_dead(self) -> None:
        """Codes of the last pass do not belong to kernels that replace others."""
        if self.n_spared:
            self.n_spared -= 1
            self.spare, self.spare_errors = self.spare[:0], self.spare_errors[:0]
            return
        before = self.atoms.clone()
        super()._replace_dead()
        replaced = (self.atoms - before).any(dim=1)
        if bool(replaced.any()):
            for place, (index, values) in self.kept.items():
                stays = ~replaced[index.long() // self.settings.grid.map_length]
                self.kept[place] = index[stays], values[stays]
            self.n_kept = sum(len(index) for index, _ in self.kept.values())


def _flat(kernels: Tensor, grid: ConvolutionGrid) -> Tensor:
    """Kernels (n, channels, height, width) in the order of the pixels of a row."""
    planes = kernels.permute(0, 2, 3, 1) if grid.channels_last else kernels
    return planes.flatten(1).contiguous()


def _centred(kernels: Tensor) -> Tensor:
    """Kernels moved by whole pixels to the middle of their squares, each as long as before."""
    squares, moved = kernels.square().sum(dim=1), kernels.clone()
    for axis in (1, 2):
        size = squares.shape[axis]
        profile = squares.sum(dim=3 - axis)
        where = torch.arange(size, dtype=profile.dtype, device=profile.device)
        middle = (profile @ where) / profile.sum(dim=1).clamp(min=torch.finfo(profile.dtype).tiny)
        shifts = (0.5 * (size - 1) - middle).round().where(profile.any(dim=1), 0.0)
        for kernel, shift in zip(moved, shifts.int().tolist(), strict=True):
            if shift:
                kernel.copy_(kernel.roll(shift, dims=axis))
                lost = slice(0, shift) if shift > 0 else slice(shift, None)
                kernel.movedim(axis, 0)[lost] = 0.0
    lengths = [torch.linalg.vector_norm(k.flatten(1), dim=1) for k in (kernels, moved)]
    scale = torch.where(lengths[1] > 0, lengths[0] / lengths[1], 1.0)
    return moved * scale[:, None, None, None]


def patches_of(images: Tensor, grid: ConvolutionGrid) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A function that cuts a patch at one place of each image, and the squared length of each."""
    tall, wide = grid.kernel_height, grid.kernel_width
    squares = images.square().sum(dim=1, keepdim=True)
    local = torch.nn.functional.avg_pool2d(squares, (tall, wide), stride=1) * (tall * wide)
    n_columns, device = local.shape[3], images.device

    def cut(place: Tensor) -> Tensor:
        rows = (place // n_columns)[:, None] + torch.arange(tall, device=device)
        columns = (place % n_columns)[:, None] + torch.arange(wide, device=device)
        image = torch.arange(len(images), device=device)[:, None, None]
        patch = images.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]
        return (patch if grid.channels_last else patch.permute(0, 3, 1, 2)).flatten(1)

    return cut, local.flatten(1)
