"""Several layers of kernels, each of the maps of the one below: their search and learner."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.rows import row_slices
from sklebm.coding import _layers as layers
from sklebm.coding._convolution import record_grids, spectra_length, stacked_grids
from sklebm.coding._dictionary import normalise
from sklebm.coding._kernel_learner import KernelLearner, KernelSettings
from sklebm.coding._kernels import CodedImages, initial_kernels
from sklebm.coding._layers import LayeredLearner, LayeredSearch
from sklebm.coding._penalty import resolve_penalty
from sklebm.energies.convolution import ConvolutionGrid
from sklebm.energies.layered_coding import LayeredCodingEnergy, LayeredMapEnergy
from sklebm.inference.layered_maps import solve_map_layer, solve_map_layers, threshold_maps
from sklebm.inference.sparse import SparseSolution

# Certificate at which a code is final, by default and, at least, for learning: kernels change
# before more matters.
_CODE_TOL, _LEARNING_TOL = 1e-6, 1e-3
# Images encoded for each initial kernel of an upper layer.
_PER_KERNEL = 4


class MapLayeredSearch(LayeredSearch):
    """Maps of all layers side by side, found as the parameter ``inference`` says."""

    def codes(self, energy: Any, x: Tensor) -> Tensor:
        """The codes of all layers, side by side."""
        if self.inference == "layered_thresholding":
            found = threshold_maps(
                x,
                energy.dictionaries,
                energy.grids,
                energy.alphas,
                positive=energy.penalty.non_negative,
            )
            return torch.cat(found, dim=1)
        return torch.cat([part.codes for part in self._solutions(energy, x)], dim=1)

    def _solutions(self, energy: Any, x: Tensor) -> list[SparseSolution]:
        """The maps of each layer, or of all of them at once, with their certificates."""
        kernels, grids, alphas = energy.dictionaries, energy.grids, energy.alphas
        if self.inference == "multilayer_fista":
            whole = solve_map_layers(
                x,
                kernels,
                grids,
                alphas,
                positive=energy.penalty.non_negative,
                tol=self.tol,
                n_steps=self.n_joint_steps,
            )
            self.count(whole)
            return [whole]
        layers_found, below = [], x
        for atoms, grid, alpha in zip(kernels, grids, alphas, strict=True):
            layer = solve_map_layer(
                below, atoms, energy.penalty, alpha, grid, tol=self.tol, n_steps=self.n_steps
            )
            self.count(layer)
            below = layer.codes
            layers_found.append(layer)
        return layers_found


def map_search_of(coder: Any, inference: str) -> LayeredSearch:
    """The search for an inference with the other parameters."""
    return layers.search_of(coder, inference, MapLayeredSearch, _CODE_TOL)


def asked_sizes(coder: Any, n_features: int) -> dict[str, Any]:
    """The sizes that the parameters describe, as plain values."""
    return record_grids(stacked_grids(coder, layers.sizes_of(coder), n_features))


class MapLayeredLearner(LayeredLearner):
    """Kernels of all layers, which change after every ``batch_size`` images."""

    def __init__(
        self, learners: list[Any], search: LayeredSearch, grids: list[ConvolutionGrid]
    ) -> None:
        super().__init__(learners, search)
        self.grids = grids

    def sizes(self) -> dict[str, Any]:
        """The sizes of the layers as plain values."""
        return record_grids(self.grids)

    def energy(self, dtype: torch.dtype) -> LayeredCodingEnergy:
        """The energy with the present kernels, of as many layers as there are."""
        return LayeredMapEnergy(
            [learner.atoms.to(dtype) for learner in self.learners],
            self.grids[: len(self.learners)],
            self.learners[0].settings.penalty,
            [learner.settings.alpha for learner in self.learners],
        )

    def learner(
        self, coder: Any, penalty: Any, alpha: float, atoms: Any, held: dict[str, Any],
        device: torch.device,
    ) -> Any:  # fmt: skip
        """The learner of the next layer, from its exported state, or its kernels if it is empty."""
        settings = KernelSettings(
            penalty,
            alpha,
            coder.batch_size,
            unit_norm=False,
            fit_intercept=False,
            search=self.search,
            by_gradient=False,
            grid=self.grids[len(self.learners)],
        )
        if held:
            return KernelLearner.restore(held, settings, device)
        tensor = torch.from_numpy(np.array(atoms, np.float64)).to(device)
        return KernelLearner(tensor, tensor.new_zeros(0), settings)

    def _collect(self, x: Tensor) -> None:
        energy = self.energy(x.dtype)
        floats = 12 * sum(energy.widths) + spectra_length(self.grids, energy.dictionaries)
        for part in row_slices(len(x), floats, x.device):
            below, z = x[part], self.search.codes(energy, x[part])
            pairs = zip(energy.split(z), energy.layer_energies(below, z), strict=True)
            for layer, (code, values) in enumerate(pairs, start=1):
                learner: Any = self.learners[layer - 1]
                learner.add(below, code, values, energy.describe(code, layer))
                below = code


def empty_learner(coder: Any, n_features: int) -> MapLayeredLearner:
    """A learner to which layers are yet to be added."""
    search = map_search_of(coder, layers.learning_inference(coder))
    search.tol = max(search.tol, _LEARNING_TOL)
    return MapLayeredLearner([], search, stacked_grids(coder, layers.sizes_of(coder), n_features))


def first_map_layers(coder: Any, x: Tensor, generator: torch.Generator) -> MapLayeredLearner:
    """Initial kernels: patches of images and of the codes of each layer, or random directions."""
    learner = empty_learner(coder, x.shape[1])
    penalty, sizes = resolve_penalty(coder.penalty, 1), layers.sizes_of(coder)
    images: Any = x
    for size, alpha, grid in zip(sizes, layers.alphas_of(coder), learner.grids, strict=True):
        if coder.init == "random":
            shape = size, grid.kernel_length
            atoms = normalise(torch.randn(shape, generator=generator, dtype=torch.float64))
        else:
            atoms = initial_kernels(images, size, grid, generator)
        learner.learners.append(
            learner.learner(coder, penalty, alpha, atoms.cpu().numpy(), {}, x.device)
        )
        if coder.init == "data" and len(learner.learners) < len(sizes):
            wanted = _PER_KERNEL * sizes[len(learner.learners)]
            some = torch.randperm(len(x), generator=generator)[:wanted].to(x.device)
            images = CodedImages(learner.energy(x.dtype), x, some, _top_of(learner.search))
    return learner


def _top_of(search: LayeredSearch) -> Any:
    """A function that finds the code of the highest layer."""
    return lambda energy, x: energy.split(search.codes(energy, x))[-1]
