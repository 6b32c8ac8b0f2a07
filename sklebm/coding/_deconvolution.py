"""Layers of a ``DeconvolutionalNetwork``: their sizes, the search for codes, and the learner."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from sklebm._shell.rows import row_slices
from sklebm._shell.warning import warn
from sklebm.coding._convolution import (
    MapSearch,
    block_sides,
    recall_grids,
    record_grids,
    spectra_length,
    stacked_grids,
)
from sklebm.coding._kernel_learner import KernelLearner, KernelSettings
from sklebm.coding._kernels import CodedImages, initial_kernels
from sklebm.coding._penalty import resolve_penalty
from sklebm.energies.convolution import ConvolutionGrid
from sklebm.energies.deconvolution import DeconvolutionalEnergy, Switches, SwitchPooling
from sklebm.inference.convolutional import solve_maps
from sklebm.inference.deconvolution import solve_switched, surrogate_maps
from sklebm.inference.sparse import SparseSolution
from sklebm.training.architecture import positive_integers

# Passes over the images that the sums remember, as for a single dictionary.
_MEMORY = 0.5
# Codes are final for learning at this duality gap: the kernels change before they matter.
_LEARNING_GAP = 1e-3
# Steps that are enough for learning, unless no limit is asked for.
_LEARNING_STEPS = 100
# Duality gap above which codes that end at the limit of steps are reported.
_LARGE_GAP = 0.1
# Images encoded for each initial kernel of an upper layer.
_PER_KERNEL = 4


# ---------------------------------------------------------------------- parameters


def sizes_of(model: Any) -> list[int]:
    """The checked parameter ``hidden_sizes``."""
    entries = positive_integers(model.hidden_sizes)
    if not entries:
        raise ValueError(
            f"hidden_sizes={model.hidden_sizes!r} must be positive integers, at least one: the "
            "numbers of kernels of the layers."
        )
    return list(entries)


def alphas_of(model: Any) -> list[float]:
    """The checked parameter ``alpha``, for each layer."""
    n_layers = len(sizes_of(model))
    alphas = [model.alpha] * n_layers if isinstance(model.alpha, Real) else list(model.alpha)
    good = all(isinstance(a, Real) and 0 < float(a) < math.inf for a in alphas)
    if len(alphas) != n_layers or not good:
        raise ValueError(
            f"alpha={model.alpha!r} must be one positive number, or one for each of the "
            f"{n_layers} layers."
        )
    return [float(a) for a in alphas]


def layers_of(model: Any, n_features: int) -> tuple[list[ConvolutionGrid], SwitchPooling]:
    """Sizes of each layer and of the blocks, from the parameters."""
    pooling = pooling_of(model)
    pooled = pooling.shape if model.adaptive else tuple
    return stacked_grids(model, sizes_of(model), n_features, pooled), pooling


def pooling_of(model: Any) -> SwitchPooling:
    """The blocks that the parameters describe."""
    shape, held = model.image_shape, getattr(model, "architecture_", None)
    if shape is None and held is not None and int(held["layer1.height"]) > 1:
        shape = int(held["layer1.height"]), int(held["layer1.width"])  # fitted to images
    return SwitchPooling(int(model.pool_maps), *block_sides(model.pool_size, shape))


def record_layers(
    grids: list[ConvolutionGrid], pooling: SwitchPooling, adaptive: bool
) -> dict[str, Any]:
    """The sizes as plain values."""
    record: dict[str, Any] = {
        "adaptive": bool(adaptive),
        "pool_maps": pooling.n_maps,
        "pool_height": pooling.height,
        "pool_width": pooling.width,
    }
    return record | record_grids(grids)


def recall_layers(record: Mapping[str, Any]) -> tuple[list[ConvolutionGrid], SwitchPooling]:
    """The sizes that a fitted model stores."""
    pooling = SwitchPooling(*(int(record[f"pool_{n}"]) for n in ("maps", "height", "width")))
    return recall_grids(record), pooling


def asked_record(model: Any, n_features: int) -> dict[str, Any]:
    """The sizes that the parameters describe, as plain values."""
    return record_layers(*layers_of(model, n_features), model.adaptive)


# ---------------------------------------------------------------------- codes


class NetworkSearch(MapSearch):
    """Codes of each layer, one after the other; adaptive ones in ``max_steps``.

    It warns of codes that end at this limit with a duality gap above ``tolerated``.
    """

    def __init__(
        self, owner: str, tol: float, max_steps: int | None, tolerated: float = math.inf
    ) -> None:
        self.max_switched, self.tolerated = max_steps, tolerated
        super().__init__(owner, tol, "auto")

    def forget(self) -> None:
        """Start counting from zero."""
        super().forget()
        self.n_cut, self.widest = 0, 0.0

    def warn(self) -> None:
        """Warn if any codes are not final, or far from it where a limit of steps allows that."""
        super().warn()
        if self.n_cut:
            warn(
                f"{self.owner}: {self.n_cut} codes of adaptive layers were accepted after "
                f"max_inference_steps={self.max_switched} steps, although other codes may have up "
                f"to {100 * self.widest:.0f} % less energy (see certificate). Raise "
                "max_inference_steps, or set it to None.",
                ConvergenceWarning,
            )

    def climb(
        self, network: DeconvolutionalEnergy, x: Tensor, top: int
    ) -> Iterator[tuple[Tensor, Tensor, Switches]]:
        """What each layer up to ``top`` describes, its code, and the switches of those below."""
        target = x
        switches: Switches = ()
        for layer in range(1, top + 1):
            z = self.code(network, target, switches, layer)
            yield target, z, switches
            if layer == top:
                return
            target, own = network.lift(target, z, layer)
            switches = switches if own is None else (*switches, own)

    def code(
        self, network: DeconvolutionalEnergy, target: Tensor, switches: Switches, layer: int
    ) -> Tensor:
        """The code of one layer, given what is below."""
        return self.solution(network, target, switches, layer).codes

    def solution(
        self, network: DeconvolutionalEnergy, target: Tensor, switches: Switches, layer: int
    ) -> SparseSolution:
        """The code of one layer with its certificate, given what is below."""
        if layer == 1 or not network.adaptive:
            found = solve_maps(
                target,
                network.dictionaries[layer - 1],
                network.penalty,
                network.alphas[layer - 1],
                network.grids[layer - 1],
                method=self.method,
                tol=self.tol,
            )
        else:
            found = solve_switched(
                network, target, switches, layer, tol=self.tol, max_iter=self.max_switched
            )
            far = found.certificate > self.tolerated
            self.n_cut += int(far.sum())
            self.widest = max(self.widest, float(found.certificate.max()))
        self.count(found)
        return found

    def certificates(self, network: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Duality gaps of the layers that count, as a share of their energy."""
        gap, total, target = x.new_zeros(len(x)), x.new_zeros(len(x)), x
        switches: Switches = ()
        for layer in range(1, network.n_layers + 1):
            found = self.solution(network, target, switches, layer)
            if layer == network.n_layers or not network.adaptive:
                value = network.layer_energy(target, found.codes, layer, switches)
                gap, total = gap + found.certificate * value, total + value
            target, own = network.lift(target, found.codes, layer)
            switches = switches if own is None else (*switches, own)
        return torch.where(total > 0, gap / total, gap)

    def top(self, network: Any, x: Tensor) -> Tensor:
        """The code of the highest layer."""
        *_, (_, z, _) = self.climb(network, x, network.n_layers)
        return z

    def pooled_top(self, network: Any, x: Tensor) -> Tensor:
        """The code of the highest layer, pooled."""
        pooled: Tensor = network.pooled(self.top(network, x), network.n_layers)[0]
        return pooled

    def free_energies(self, network: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The energy at the codes found."""
        total = x.new_zeros(len(x))
        for layer, (target, z, switches) in enumerate(
            self.climb(network, x, network.n_layers), start=1
        ):
            value = network.layer_energy(target, z, layer, switches)
            total = value if network.adaptive else total + value
        return total

    def energies(self, network: Any, x: Tensor, z: Tensor) -> Tensor:
        """The energy of codes of the highest layer, given the codes found for those below."""
        total, target, top = x.new_zeros(len(x)), x, network.n_layers
        switches: Switches = ()
        for layer, (below, code, known) in enumerate(self.climb(network, x, top - 1), start=1):
            if not network.adaptive:
                total = total + network.layer_energy(below, code, layer, known)
            target, own = network.lift(below, code, layer)
            switches = known if own is None else (*known, own)
        value: Tensor = network.layer_energy(target, z.to(x.dtype), top, switches)
        return total + value

    def pictures(
        self, layer: int, change: Callable[[Any, Tensor], Tensor]
    ) -> Callable[[Any, Tensor], Tensor]:
        """A function from images to what a changed code of a layer looks like in pixels."""

        def function(network: Any, x: Tensor) -> Tensor:
            *_, (_, z, switches) = self.climb(network, x, layer)
            transfers = network.transfers(layer)
            decoded: Tensor = network.synthesise(change(network, z), switches, transfers)
            return decoded

        return function


def network_search(model: Any) -> NetworkSearch:
    """The search that the parameters describe."""
    limit = model.max_inference_steps
    return NetworkSearch(type(model).__name__, float(model.code_tol), limit, _LARGE_GAP)


def learning_search(model: Any) -> NetworkSearch:
    """The search for the codes that kernels are learnt from."""
    tol = max(float(model.code_tol), _LEARNING_GAP)
    limit = model.max_inference_steps
    return NetworkSearch(type(model).__name__, tol, limit and min(limit, _LEARNING_STEPS))


# ---------------------------------------------------------------------- learning


class NetworkLearner:
    """Kernels of all layers, which change after every ``batch_size`` images."""

    def __init__(
        self, learners: list[KernelLearner], search: NetworkSearch, pooling: SwitchPooling,
        adaptive: bool,
    ) -> None:  # fmt: skip
        self.learners, self.search = learners, search
        self.pooling, self.adaptive = pooling, adaptive

    def network(self, dtype: torch.dtype) -> DeconvolutionalEnergy:
        """The energy with the present kernels."""
        settings = [learner.settings for learner in self.learners]
        return DeconvolutionalEnergy(
            [learner.atoms.to(dtype) for learner in self.learners],
            [own.grid for own in settings],
            settings[0].penalty,
            [own.alpha for own in settings],
            self.pooling,
            self.adaptive,
        )

    def absorb(self, x: Tensor) -> None:
        """Take in images; a step follows every full batch."""
        size = self.learners[0].settings.batch_size
        if int(self.learners[0].pending.weight) >= size:
            self._step(math.inf)  # batches have become shorter: this one is full
        while len(x):
            room = size - int(self.learners[0].pending.weight)
            part, x = x[:room], x[room:]
            self._collect(part)
            if len(part) == room:
                self._step(math.inf)

    def pass_over(self, x: Tensor, order: Tensor) -> tuple[list[float], list[float]]:
        """One pass over the images; see ``take_means``."""
        parts = torch.split(order, self.learners[0].settings.batch_size)
        for part in parts:
            self._collect(x[part])
            self._step(_MEMORY * len(parts))
        return self.take_means()

    def take_means(self) -> tuple[list[float], list[float]]:
        """Mean energies, and non-zeros of each layer, of the images since the last call.

        The last energy is that of the network. Before it come those of the layers below if they
        are no part of it: each layer of an adaptive network has an energy of its own.
        """
        means = [learner.take_means() for learner in self.learners]
        energies = [energy for energy, _ in means]
        counts = [count for _, count in means]
        return (energies if self.adaptive else [sum(energies)]), counts

    def _collect(self, x: Tensor) -> None:
        network = self.network(x.dtype)
        floats = 12 * sum(math.prod(network.map_shape(i + 1)) for i in range(network.n_layers))
        floats += spectra_length(network.grids, network.dictionaries)
        for part in row_slices(len(x), floats, x.device):
            climb = self.search.climb(network, x[part], network.n_layers)
            for layer, (target, z, switches) in enumerate(climb, start=1):
                learner = self.learners[layer - 1]
                values = network.layer_energy(target, z, layer, switches)
                if self.adaptive:
                    maps, decoded, weight = surrogate_maps(network, target, z, switches, layer)
                else:
                    grid, weight = learner.settings.grid, target.new_ones(len(target), 1)
                    maps, decoded = target, grid.synthesise(z, network.transfers(layer)[-1])
                root = weight.sqrt()  # what is squared counts by its weight
                learner.add(root * maps, root * z, values, root * decoded)

    def _step(self, memory: float) -> None:
        for learner in self.learners:
            learner.step(memory=memory)


def first_network(model: Any, x: Tensor, generator: torch.Generator) -> NetworkLearner:
    """Initial kernels: patches of images, and of codes of images in the layers above."""
    grids, pooling = layers_of(model, x.shape[1])
    search, learners = learning_search(model), []
    below: Any = x
    for size, alpha, grid in zip(sizes_of(model), alphas_of(model), grids, strict=True):
        atoms = initial_kernels(below, size, grid, generator)
        settings = settings_of(model, alpha, grid, search)
        learners.append(KernelLearner(atoms, x.new_zeros(0, dtype=torch.float64), settings))
        if len(learners) < len(grids):
            wanted = _PER_KERNEL * sizes_of(model)[len(learners)]
            some = torch.randperm(len(x), generator=generator)[:wanted].to(x.device)
            network = NetworkLearner(learners, search, pooling, model.adaptive).network(x.dtype)
            encode = search.pooled_top if model.adaptive else search.top
            below = CodedImages(network, x, some, encode)
    return NetworkLearner(learners, search, pooling, bool(model.adaptive))


def settings_of(
    model: Any, alpha: float, grid: ConvolutionGrid, search: NetworkSearch
) -> KernelSettings:
    """The parameters in the form a learner needs."""
    return KernelSettings(
        resolve_penalty(model.penalty, 1),
        alpha,
        model.batch_size,
        unit_norm=False,
        fit_intercept=False,
        search=search,
        by_gradient=False,
        grid=grid,
    )
