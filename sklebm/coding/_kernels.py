"""Learning kernels from sums over codes and images, for convolutional sparse coding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.random import draw_seed, make_generator
from sklebm._shell.rows import Rows, row_slices
from sklebm._shell.scaling import column_spans, warn_of_unequal_scales
from sklebm._shell.state import Array, Record, Scalar, Spec
from sklebm._shell.warning import warn
from sklebm.coding._checks import given_dictionary
from sklebm.coding._convolution import MapSearch, checked_mask, grid_of, recall_grid, record_grid
from sklebm.coding._dictionary import DictionaryLearner, Settings, normalise
from sklebm.coding._learning import Learning, Pass, learnt_state
from sklebm.coding._penalty import recall_penalty, record_penalty, resolve_penalty
from sklebm.coding._sums import Totals
from sklebm.energies.convolution import ConvolutionalCodingEnergy, ConvolutionGrid
from sklebm.inference.kernel_update import code_sums, improve_kernels
from sklebm.iterative import Draw

#: Number of kernels by default.
N_KERNELS = 16
# Codes are final for learning at this duality gap: the kernels change before they matter.
_LEARNING_GAP = 1e-3


@dataclass(frozen=True)
class KernelSettings(Settings):
    """How kernels are learnt."""

    grid: ConvolutionGrid = field(kw_only=True)
    low_pass: float = 0.0

    def energy(self, atoms: Tensor) -> ConvolutionalCodingEnergy:
        """The energy with these kernels."""
        return ConvolutionalCodingEnergy(atoms, self.penalty, self.alpha, self.grid, self.low_pass)


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

    def _no_sums(self) -> KernelSums:
        return KernelSums.zero(len(self.atoms), self.settings.grid, self.atoms.device)

    def collect(self, x: Tensor, places: Tensor | None = None) -> None:
        """Find the codes of images and add them to the sums of the batch."""
        floats = 12 * len(self.atoms) * self.settings.grid.map_length
        for part in row_slices(len(x), floats, x.device):
            self._collect(x[part], None if places is None else places[part])

    def _collect(self, x: Tensor, places: Tensor | None) -> None:
        settings, grid = self.settings, self.settings.grid
        energy = settings.energy(self.atoms.to(x.dtype))
        mask = None
        if self.mask is not None and places is not None:
            mask = self.mask[places].to(x.dtype)
        start = None if places is None else self._start(places, x)
        z = settings.search.find(energy, x, mask, start).codes  # type: ignore[attr-defined]
        values = energy.energy(x, z) if mask is None else energy.masked_energy(x, z, mask)
        if not bool(torch.isfinite(values).all()):
            raise FloatingPointError(
                f"ConvSparseCoder: the energies of the images overflow (largest |X|: "
                f"{float(x.abs().max()):.3g}). Scale X, for example to [0, 1]."
            )
        sharp, decoded = x - energy.smooth(x, mask), energy.decode(z)
        if mask is not None:
            sharp = mask * sharp + (1.0 - mask) * decoded
        products, windows = code_sums(z, sharp, grid)
        self.pending.code_products += products
        self.pending.row_products += windows
        self.pending.weight += len(x)
        self.energy += float(values.double().sum())
        self.n_rows += len(x)
        self.n_nonzero += int((z != 0).sum())
        if not self.n_nonzero:
            drawn = grid.analyse(sharp, grid.transfer(energy.dictionary))
            self.peak = max(self.peak, float(settings.penalty.dual_norm(drawn).max()))
        if places is not None:
            for place, code in zip(places.tolist(), z, strict=True):
                index = code.nonzero()[:, 0]
                self.kept[place] = index.to(torch.int32), code[index]
        cut, local = _patches(grid.images(sharp - decoded).double(), grid)
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
        kernels = improve_kernels(kernels, sums.code_products, sums.row_products)
        planes = kernels.permute(0, 2, 3, 1) if grid.channels_last else kernels
        self.atoms = planes.flatten(1).contiguous()

    def _replace_dead(self) -> None:
        """Codes of the last pass do not belong to kernels that replace others."""
        before = self.atoms.clone()
        super()._replace_dead()
        replaced = (self.atoms - before).any(dim=1)
        if bool(replaced.any()):
            for place, (index, values) in self.kept.items():
                stays = ~replaced[index.long() // self.settings.grid.map_length]
                self.kept[place] = index[stays], values[stays]


def _patches(images: Tensor, grid: ConvolutionGrid) -> tuple[Callable[[Tensor], Tensor], Tensor]:
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


@dataclass(frozen=True)
class KernelLearning(Learning):
    """What all passes of a fit share."""

    mask: Tensor | None = None

    def start(self, draw: Draw) -> Pass:
        """The initial kernels; ``draw`` gives a generator for each purpose."""
        learner = first_learner(self.coder, self.x, draw("atoms"), self.mask)
        learner.mask = self.mask
        return Pass(learner, draw("batches"))

    def state(self, run: Pass, n_iter: int) -> dict[str, Any]:
        """Every fitted attribute after ``n_iter`` passes."""
        return kernel_state(run.learner, self.rows.dtype, run.curve, self.rows.total())

    def finish(self, run: Pass) -> None:
        """Warn of codes that are not final, or that are all zero."""
        learner: Any = run.learner
        learner.settings.search.warn()
        if run.n_nonzero == 0:
            warn(
                f"alpha={learner.settings.alpha:.6g} is too large for X (for its images and "
                f"kernels, codes begin to differ from zero at about {learner.peak:.6g}), so that "
                "every code is zero. Lower alpha, or scale X."
            )


def kernel_learning(coder: Any, rows: Rows, mask: Any = None) -> KernelLearning:
    """What a fit starts with."""
    _check_scales(coder, rows)
    seen = None
    if mask is not None:
        seen = torch.from_numpy(checked_mask(mask, rows.shape)).to(rows.device)
    return KernelLearning(coder, rows, rows.all(), seen)


def _check_scales(coder: Any, rows: Rows) -> None:
    """Warn of columns in different units, which the pixels of an image are not."""
    if coder.image_shape is None:
        warn_of_unequal_scales(type(coder).__name__, column_spans(rows))


def settings_of(coder: Any, n_components: int, n_features: int) -> KernelSettings:
    """The parameters in the form a learner needs."""
    return KernelSettings(
        resolve_penalty(coder.penalty, n_components),
        float(coder.alpha),
        coder.batch_size,
        unit_norm=False,
        fit_intercept=False,
        search=MapSearch(type(coder).__name__, max(coder.code_tol, _LEARNING_GAP), coder.solver),
        by_gradient=False,
        grid=grid_of(coder, n_features),
        low_pass=float(coder.low_pass),
    )


def first_learner(
    coder: Any, x: Tensor, generator: torch.Generator, mask: Tensor | None = None
) -> KernelLearner:
    """A learner with initial kernels: those given, patches of x or random directions."""
    n_components = coder.n_components or N_KERNELS
    if coder.dict_init is not None:
        grid = grid_of(coder, x.shape[1])
        given = given_dictionary(
            coder.dict_init, coder.n_components, grid.kernel_length, "dict_init"
        )
        atoms = torch.from_numpy(given.astype(np.float64)).to(x.device)
        atoms = atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True).clamp(min=1.0)
        settings = settings_of(coder, len(atoms), x.shape[1])
    else:
        settings = settings_of(coder, n_components, x.shape[1])
        atoms = _initial_kernels(x, n_components, settings, generator, mask)
    return KernelLearner(atoms, x.new_zeros(0, dtype=torch.float64), settings)


def _initial_kernels(
    x: Tensor,
    n_components: int,
    settings: KernelSettings,
    generator: torch.Generator,
    mask: Tensor | None,
) -> Tensor:
    """Patches of random images, of length one; longer ones are likelier."""
    grid = settings.grid
    atoms = torch.randn(n_components, grid.kernel_length, generator=generator, dtype=torch.float64)
    atoms = normalise(atoms).to(x.device)
    energy, count = settings.energy(atoms), 0
    for _ in range(4 * n_components):  # images without a direction are skipped
        place = int(torch.randint(len(x), (1,), generator=generator))
        row = x[place : place + 1].double()
        seen = None if mask is None else mask[place : place + 1].double()
        sharp = row - energy.smooth(row, seen)
        cut, errors = _patches(grid.images(sharp if seen is None else sharp * seen), grid)
        share = errors[0].cumsum(0).cpu()
        drawn = torch.rand(1, generator=generator, dtype=torch.float64) * share[-1]
        patch = cut(torch.searchsorted(share, drawn).clamp(max=len(share) - 1).to(x.device))
        if bool(patch.any()):
            atoms[count] = normalise(patch)[0]
            count += 1
        if count == n_components:
            break
    return atoms


def learn_images(coder: Any, rows: Rows) -> dict[str, Any]:
    """One pass over a chunk of images; returns the fitted attributes."""
    x, fitted = rows.all(), coder._is_fitted()
    if fitted:
        learner = _resumed_learner(coder, rows.device)
    else:
        _check_scales(coder, rows)
        learner = first_learner(coder, x, make_generator(draw_seed(coder.random_state), "atoms"))
    learner.absorb(x)
    learner.settings.search.warn()
    curve = [*(coder.energy_curve_ if fitted else ()), learner.take_means()[0]]
    seen = coder.n_samples_seen_ if fitted else 0
    return kernel_state(learner, rows.dtype, curve, seen + len(x))


def _resumed_learner(coder: Any, device: torch.device) -> KernelLearner:
    """A learner that continues from the fitted state."""
    settings = settings_of(coder, len(coder.components_), coder.n_features_in_)
    asked = {
        "n_components": coder.n_components or len(coder.components_),
        **record_grid(settings.grid),
        "low_pass": settings.low_pass,
    }
    held = {
        "n_components": len(coder.components_),
        **coder.grid_,
        "low_pass": coder.low_pass_,
    }
    different = [name for name, value in asked.items() if value != held[name]]
    if different:
        raise ValueError(
            f"{', '.join(different)} of the parameters differ from those of the fitted "
            f"{type(coder).__name__}: set them back, or call fit to start again."
        )
    if coder.online_state_:
        return KernelLearner.restore(coder.online_state_, settings, device)  # type: ignore[return-value]
    atoms = torch.from_numpy(np.array(coder.components_)).to(device)
    return KernelLearner(atoms, atoms.new_zeros(0), settings)


def kernel_state(learner: Any, dtype: torch.dtype, curve: Any, n_seen: int) -> dict[str, Any]:
    """The fitted attributes in the learner's present state."""
    state = learnt_state(learner, dtype, curve, n_seen)
    del state["intercept_"]
    settings = learner.settings
    return {**state, "grid_": record_grid(settings.grid), "low_pass_": settings.low_pass}


def given_kernels(coder: Any, rows: Rows) -> dict[str, Any]:
    """The fitted attributes for a given dictionary: nothing is learnt."""
    if coder.dict_init is not None:
        raise ValueError(
            "dict_init has no effect when dictionary is given, which is used as it is: pass only "
            "one of them."
        )
    grid = grid_of(coder, rows.shape[1])
    atoms = given_dictionary(coder.dictionary, coder.n_components, grid.kernel_length)
    return {
        **unlearnt_kernels(coder, atoms, rows.shape[1]),
        "components_": atoms,
        "n_samples_seen_": rows.total(),
    }


def unlearnt_kernels(coder: Any, atoms: Any, n_features: int) -> dict[str, Any]:
    """The other fitted attributes for kernels that were not learnt from images."""
    return {
        "alpha_": float(coder.alpha),
        "penalty_": record_penalty(resolve_penalty(coder.penalty, len(atoms))),
        "grid_": record_grid(grid_of(coder, n_features)),
        "low_pass_": float(coder.low_pass),
        "energy_curve_": np.empty(0),
        "online_state_": {},
        "n_iter_": 0,
        "n_samples_seen_": 0,
    }


def check_kernels(model: Any) -> None:
    """Raise ValueError if fitted kernels, sizes and features do not fit each other."""
    name = type(model).__name__
    try:
        grid = recall_grid(model.grid_)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name}.grid_ does not hold the sizes of images and kernels.") from error
    length = grid.kernel_length
    if model.components_.shape[1] != length or grid.n_pixels != model.n_features_in_:
        raise ValueError(
            f"{name}.components_ of shape {model.components_.shape} and {model.n_features_in_} "
            f"features do not fit grid_, with kernels of {length} and images of {grid.n_pixels}."
        )


def kernel_spec() -> Spec:
    """The attributes of kernels that were learnt from sums, or given."""
    return {
        "components_": Array("f", ("n_components", None)),
        "alpha_": Scalar(float, 0.0),
        "penalty_": Record(),
        "low_pass_": Scalar(float, 0.0),
        "grid_": Record(),
        "energy_curve_": Array("f", (None,)),
        "online_state_": Record(),
        "n_iter_": Scalar(int, 0),
        "n_samples_seen_": Scalar(int, 0),
    }


def kernel_energy(model: Any, device: torch.device) -> ConvolutionalCodingEnergy:
    """The energy with the fitted kernels."""
    return ConvolutionalCodingEnergy(
        torch.from_numpy(model.components_).to(device),
        recall_penalty(model.penalty_),
        model.alpha_,
        recall_grid(model.grid_),
        model.low_pass_,
    )
