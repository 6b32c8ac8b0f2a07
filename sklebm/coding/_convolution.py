"""Convolutional codes as estimators use them: sizes, pooling and the search."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from numbers import Integral
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm.coding._search import CodeSearch
from sklebm.coding._state import n_atoms
from sklebm.energies.convolution import ConvolutionalCodingEnergy, ConvolutionGrid
from sklebm.inference.convolutional import MapMethod, solve_maps
from sklebm.inference.sparse import SparseSolution

# Side of a kernel by default: about half of the image's, and at most this.
_SIDE = 9


def grid_of(model: Any, n_features: int) -> ConvolutionGrid:
    """The sizes that the parameters describe.

    Raises
    ------
    ValueError
        If ``image_shape`` does not fit the number of features, or the kernel not the image.
    """
    shape = (n_features,) if model.image_shape is None else tuple(model.image_shape)
    good = len(shape) in (1, 2, 3) and all(isinstance(s, Integral) and int(s) >= 1 for s in shape)
    if not good or math.prod(shape) != n_features:
        raise ValueError(
            f"image_shape={model.image_shape!r} does not fit X with {n_features} features: give "
            "(length,) for signals, (height, width) or (height, width, channels), whose product "
            "is the number of features."
        )
    sides = tuple(int(s) for s in shape[:2])
    channels = int(shape[2]) if len(shape) == 3 else 1
    kernel = kernel_sides(model.kernel_size, sides)
    tall, wide = kernel if len(kernel) == 2 else (1, *kernel)
    height, width = sides if len(sides) == 2 else (1, *sides)
    return ConvolutionGrid(height, width, channels, tall, wide, model.boundary == "circular")


def kernel_sides(
    kernel_size: Any, sides: tuple[int, ...], name: str = "kernel_size"
) -> tuple[int, ...]:
    """The parameter ``kernel_size``, or another like it, as one number a side of the image."""
    if kernel_size is None:
        return tuple(min(_SIDE, (side + 1) // 2) for side in sides)
    kernel = tuple(kernel_size) if np.ndim(kernel_size) else (kernel_size,) * len(sides)
    good = len(kernel) == len(sides) and all(
        isinstance(s, Integral) and int(s) >= 1 for s in kernel
    )
    if not good or any(small > large for small, large in zip(kernel, sides, strict=True)):
        raise ValueError(
            f"{name}={kernel_size!r} does not fit images of {' x '.join(map(str, sides))}: "
            "give a positive integer, or one for each side, no larger than the image."
        )
    return tuple(int(side) for side in kernel)


def stacked_grids(
    model: Any,
    sizes: Sequence[int],
    n_features: int,
    pooled: Callable[[tuple[int, int, int]], tuple[int, ...]] = tuple,
) -> list[ConvolutionGrid]:
    """The sizes of layers of kernels, each of which describes the maps of the one below.

    ``pooled`` says what is left of number and sides of the maps before the next layer.
    """
    kernels = model.kernel_sizes
    kernels = [None] * len(sizes) if kernels is None else listed(kernels).tolist()
    if len(kernels) != len(sizes):
        raise ValueError(
            f"kernel_sizes={model.kernel_sizes!r} must hold one size, or one for each side of the "
            f"maps, for each of the {len(sizes)} layers."
        )
    plain = SimpleNamespace(
        image_shape=model.image_shape, kernel_size=None, boundary=model.boundary
    )
    grid = grid_of(plain, n_features)
    flat = model.image_shape is None or len(tuple(model.image_shape)) == 1
    grids: list[ConvolutionGrid] = []
    shape: tuple[int, ...] = (grid.channels, grid.height, grid.width)
    for layer, (size, kernel) in enumerate(zip(sizes, kernels, strict=True), start=1):
        channels, height, width = shape
        sides = (width,) if flat else (height, width)
        own = kernel_sides(kernel, sides, f"kernel_sizes: layer {layer}")
        tall, wide = (1, *own) if flat else own
        first = layer == 1
        grids.append(
            ConvolutionGrid(height, width, channels, tall, wide, grid.circular, channels_last=first)
        )
        shape = pooled((size, *grids[-1].map_shape))
    return grids


def listed(values: Any) -> Any:
    """One value or several as an array, of which some may be tuples and others numbers."""
    return np.atleast_1d(np.asarray(values, dtype=object))


def record_grids(grids: Sequence[ConvolutionGrid]) -> dict[str, Any]:
    """The sizes of layers as plain values."""
    return {
        f"layer{layer}.{name}": value
        for layer, grid in enumerate(grids, start=1)
        for name, value in record_grid(grid).items()
    }


def recall_grids(record: Mapping[str, Any]) -> list[ConvolutionGrid]:
    """The sizes of layers that a fitted model stores."""
    grids: list[ConvolutionGrid] = []
    while f"layer{len(grids) + 1}.height" in record:
        prefix = f"layer{len(grids) + 1}."
        own = {k.removeprefix(prefix): v for k, v in record.items() if k.startswith(prefix)}
        grids.append(recall_grid(own))
    return grids


def recall_grid(record: Mapping[str, Any]) -> ConvolutionGrid:
    """The sizes that a fitted model stores."""
    return ConvolutionGrid(**{name: type_(record[name]) for name, type_ in _FIELDS.items()})


def record_grid(grid: ConvolutionGrid) -> dict[str, Any]:
    """The sizes as plain values."""
    return {name: _FIELDS[name](value) for name, value in asdict(grid).items()}


_FIELDS: dict[str, type] = {
    "height": int,
    "width": int,
    "channels": int,
    "kernel_height": int,
    "kernel_width": int,
    "circular": bool,
    "channels_last": bool,
}


def block_sides(size: Any, image_shape: Any) -> tuple[int, int]:
    """The parameter ``pool_size`` as height and width of a block; signals have height 1.

    Raises
    ------
    ValueError
        Unless it is a positive integer, or one for each side of an image.
    """
    n_sides = 1 if image_shape is None or len(tuple(image_shape)) == 1 else 2
    sides = tuple(size) if np.ndim(size) else (size,) * n_sides
    good = all(isinstance(s, Integral) and int(s) >= 1 for s in sides)
    if len(sides) != n_sides or not good:
        raise ValueError(
            f"pool_size={size!r} must be a positive integer, or one for each side of an image."
        )
    tall, wide = (1, *sides)[-2:]
    return int(tall), int(wide)


class Pooling:
    """Codes pooled over blocks of each map; the last ones may be smaller.

    Parameters
    ----------
    kind : {"max", "mean"} or None
        Largest or mean magnitude in each block; None leaves codes as they are.
    size : int or tuple of int
        Side or sides of a block, cut to the size of the map.
    map_shape : tuple of (int, int)
        Height and width of a map; signals have height 1.
    image_shape : tuple of int or None
        The parameter of the model. Maps with a height are images, whatever it has become.
    """

    def __init__(
        self, kind: str | None, size: Any, map_shape: tuple[int, int], image_shape: Any
    ) -> None:
        self.kind, self.map_shape = kind, map_shape
        shape = map_shape if image_shape is None and map_shape[0] > 1 else image_shape
        pairs = zip(block_sides(size, shape), map_shape, strict=True)
        self.block = tuple(min(side, length) for side, length in pairs)

    @property
    def length(self) -> int:
        """Numbers that are left of a map."""
        if self.kind is None:
            return math.prod(self.map_shape)
        pairs = zip(self.map_shape, self.block, strict=True)
        return math.prod(-(-length // side) for length, side in pairs)

    def apply(self, maps: Tensor) -> Tensor:
        """Pooled maps as rows, (n_rows, n_kernels * length)."""
        if self.kind is None:
            return maps.flatten(1)
        size = maps.abs()
        if self.kind == "mean":
            pooled = torch.nn.functional.avg_pool2d(size, self.block, ceil_mode=True)
        else:
            pooled = torch.nn.functional.max_pool2d(size, self.block, ceil_mode=True)
        return pooled.flatten(1)


def spectra_length(grids: Sequence[ConvolutionGrid], kernels: Sequence[Any]) -> int:
    """Numbers in the spectra of the kernels of all layers, held beside the codes of any images.

    With many maps below, they outweigh the codes of an image.
    """
    return sum(len(own) * grid.n_pixels for grid, own in zip(grids, kernels, strict=True))


class MapSearch(CodeSearch):
    """Lowest-energy convolutional codes, and how many of them are not final.

    Parameters
    ----------
    owner : str
        Class of the estimator, named in messages.
    tol : float
        Relative duality gap at which a code is accepted as final.
    solver : {"auto", "greedy", "fista", "admm"}
        A method of ``solve_maps``.
    """

    def __init__(self, owner: str, tol: float, solver: MapMethod) -> None:
        super().__init__(owner, tol)
        self.method: MapMethod = solver

    def find(
        self,
        energy: ConvolutionalCodingEnergy,
        x: Tensor,
        mask: Tensor | None = None,
        start: Tensor | None = None,
    ) -> SparseSolution:
        """Codes and certificates of images as they are in X."""
        seen = None if mask is None else mask.to(x.dtype)
        found = solve_maps(
            x - energy.smooth(x, seen),
            energy.dictionary,
            energy.penalty,
            energy.alpha,
            energy.grid,
            method=self.method,
            tol=self.tol,
            mask=seen,
            start=start,
        )
        self.count(found)
        return found

    def codes(self, energy: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The lowest-energy codes."""
        return self.find(energy, x, mask).codes

    def pooled(self, pooling: Pooling) -> Any:
        """A function that pools these codes."""
        return lambda energy, x, mask=None: pooling.apply(
            energy.grid.maps(self.codes(energy, x, mask))
        )

    def free_energies(self, energy: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The energy at these codes."""
        z = self.codes(energy, x, mask)
        value: Tensor = (
            energy.energy(x, z) if mask is None else energy.masked_energy(x, z, mask.to(x.dtype))
        )
        return value

    def reconstructions(self, energy: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """What these codes decode to, with the smooth part."""
        seen = None if mask is None else mask.to(x.dtype)
        whole: Tensor = energy.decode(self.codes(energy, x, mask)) + energy.smooth(x, seen)
        return whole

    def certificates(self, energy: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The certificates of these codes."""
        return self.find(energy, x, mask).certificate


def code_length(model: Any) -> int:
    """Numbers in a code in full; NotFittedError if there are no kernels yet."""
    return n_atoms(model) * recall_grid(model.grid_).map_length


def map_search(model: Any) -> MapSearch:
    """The search that the parameters describe."""
    return MapSearch(type(model).__name__, float(model.code_tol), model.solver)


def pooling_of(model: Any) -> Pooling:
    """The pooling that the parameters describe; NotFittedError if there are no kernels yet."""
    n_atoms(model)
    shape = recall_grid(model.grid_).map_shape
    return Pooling(model.pool, model.pool_size, shape, model.image_shape)
