"""From the parameters of a ``ConvSparseCoder`` to a learner, and on to fitted attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.random import draw_seed, make_generator
from sklebm._shell.rows import Rows, row_slices
from sklebm._shell.state import Array, Record, Scalar, Spec
from sklebm._shell.warning import warn
from sklebm.coding._checks import given_dictionary
from sklebm.coding._convolution import MapSearch, block_sides, grid_of, recall_grid, record_grid
from sklebm.coding._dictionary import normalise
from sklebm.coding._image_checks import check_images
from sklebm.coding._kernel_learner import KernelLearner, KernelSettings, patches_of
from sklebm.coding._learning import Learning, Pass, learnt_state
from sklebm.coding._masks import useful_mask
from sklebm.coding._penalty import recall_penalty, record_penalty, resolve_penalty
from sklebm.energies.convolution import ConvolutionalCodingEnergy, ConvolutionGrid, smooth_part
from sklebm.iterative import Draw

#: Number of kernels by default.
N_KERNELS = 16
# How often kernels that have settled are moved to the middle of their window, to learn on.
_CENTRINGS = 4
# Codes are final for learning at this duality gap: the kernels change before they matter.
_LEARNING_GAP = 1e-3
# The gap of the first pass, and by what it shrinks at least from pass to pass: while kernels change
# a lot, many passes with rough codes lower the energy sooner than few with good ones.
_FIRST_GAP, _GAP_SHRINKS = 0.9, 0.8
# Fewer passes than these are better spent with good codes.
_FEW_PASSES = 10


@dataclass(frozen=True)
class KernelPass(Pass):
    """Where a fit of kernels stands, and where it stood before they were centred."""

    centred: KernelPass | None = None
    n_centrings: int = 0
    gap: float = 0.0  # of the codes of the next pass

    def best(self) -> KernelPass:
        """The present pass, or the one before kernels were centred if its energy was lower."""
        before = self.centred
        if before is None:
            return self
        worse = len(self.curve) == len(before.curve) or self.curve[-1] >= before.curve[-1]
        return before if worse else replace(self, centred=None)


@dataclass(frozen=True)
class KernelLearning(Learning):
    """What all passes of a fit share."""

    mask: Tensor | None = None

    def start(self, draw: Draw) -> KernelPass:
        """The initial kernels; ``draw`` gives a generator for each purpose."""
        learner = first_learner(self.coder, self.x, draw("atoms"), self.mask)
        learner.mask = self.mask
        if self.coder.algorithm == "consensus":
            learner.seek_consensus()
        greedy = self.coder.solver in ("auto", "greedy") and self.x.device.type == "cpu"
        rough = greedy and self.coder.max_iter >= _FEW_PASSES
        return KernelPass(learner, draw("batches"), gap=_FIRST_GAP if rough else 0.0)

    def step(self, run: Pass) -> KernelPass:
        """One pass; kernels that have settled are centred, and kept so if this lowers the energy.

        A pattern that is longer than the part of it that a kernel has found lies at the edge of its
        window and is cut there. No small change moves it: all codes would have to move too.
        """
        before = cast(KernelPass, run)
        search, final = run.learner.settings.search, _learning_gap(self.coder)
        search.tol = max(before.gap, final)
        run = cast(KernelPass, super().step(run))
        if search.largest > final:  # rough codes: where they no longer gain, better ones will
            # Half of the passes that are allowed have good ones in any case.
            shrinks = (final / _FIRST_GAP) ** (1.0 / (self.coder.max_iter // 2))
            gap = 0.0 if run.settled else search.tol * min(_GAP_SHRINKS, shrinks)
            return replace(run, settled=False, gap=gap)
        if before.centred and len(before.curve) == len(before.centred.curve):
            return replace(run, settled=False)  # the first pass with empty sums
        if not run.settled:
            return run
        run = run.best()
        learner = cast(KernelLearner, run.learner)
        n_batches = -(-len(self.x) // learner.settings.batch_size) if self.is_online else 1
        moved = learner.in_the_middle(n_batches) if run is not before.centred else None
        if moved is None or run.n_centrings == _CENTRINGS:
            return run
        tried = run.n_centrings + 1
        return replace(run, learner=moved, settled=False, centred=run, n_centrings=tried)

    def state(self, run: Pass, n_iter: int) -> dict[str, Any]:
        """Every fitted attribute after ``n_iter`` passes."""
        run = cast(KernelPass, run).best()
        n_seen = self.rows.total()
        return kernel_state(self.coder, run.learner, self.rows.dtype, run.curve, n_seen)

    def finish(self, run: Pass) -> None:
        """Warn of codes that are not final, or that are all zero."""
        run = cast(KernelPass, run).best()
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
    seen = useful_mask(mask, rows)
    check_images(coder, rows, seen)
    return KernelLearning(coder, rows, _sharp_parts(coder, rows, seen), seen)


class SharpImages:
    """Rows without their smooth part, which is taken off whenever some of them are asked for.

    Nothing of the size of all images is held: unmasked, the smooth part costs far less than a code.
    """

    def __init__(self, rows: Rows, grid: ConvolutionGrid, low_pass: float) -> None:
        self.rows, self.grid, self.low_pass = rows, grid, low_pass
        self.shape, self.device = rows.shape, rows.device

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        x = self.rows[index]
        if not self.low_pass:
            return x
        return x - self.grid.rows(smooth_part(self.grid.images(x), self.low_pass))


def _sharp_parts(coder: Any, rows: Rows, mask: Tensor | None = None) -> Any:
    """Images without their smooth part; with a mask, whose equations take long, as a copy."""
    grid, low_pass = grid_of(coder, rows.shape[1]), float(coder.low_pass)
    if mask is None or not low_pass:
        return SharpImages(rows, grid, low_pass)
    x = rows.all()
    sharp = torch.empty_like(x)
    for part in row_slices(len(x), 8 * grid.n_pixels, x.device):
        seen = grid.images(mask[part].to(x.dtype))
        sharp[part] = x[part] - grid.rows(smooth_part(grid.images(x[part]), low_pass, seen))
    return sharp


def _learning_gap(coder: Any) -> float:
    return max(float(coder.code_tol), _LEARNING_GAP)


def settings_of(coder: Any, n_components: int, n_features: int) -> KernelSettings:
    """The parameters in the form a learner needs."""
    return KernelSettings(
        resolve_penalty(coder.penalty, n_components),
        float(coder.alpha),
        coder.batch_size,
        unit_norm=False,
        fit_intercept=False,
        search=MapSearch(type(coder).__name__, _learning_gap(coder), coder.solver),
        by_gradient=False,
        grid=grid_of(coder, n_features),
    )


def first_learner(
    coder: Any, x: Any, generator: torch.Generator, mask: Tensor | None = None
) -> KernelLearner:
    """A learner with initial kernels: those given, patches of x or random directions.

    ``x`` is a tensor, or hands out its rows like one.
    """
    n_components = coder.n_components or N_KERNELS
    if coder.dict_init is not None:
        grid = grid_of(coder, x.shape[1])
        given = _checked_kernels(coder, "dict_init", grid)
        atoms = torch.from_numpy(given.astype(np.float64)).to(x.device)
        atoms = atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True).clamp(min=1.0)
        settings = settings_of(coder, len(atoms), x.shape[1])
    else:
        settings = settings_of(coder, n_components, x.shape[1])
        atoms = initial_kernels(x, n_components, settings.grid, generator, mask)
    return KernelLearner(atoms, atoms.new_zeros(0), settings)


def initial_kernels(
    x: Any,
    n_components: int,
    grid: ConvolutionGrid,
    generator: torch.Generator,
    mask: Tensor | None = None,
) -> Tensor:
    """Patches of random images, of length one; longer ones are likelier.

    Images are asked for one by one: ``x`` is a tensor, or hands out its rows like one.
    """
    atoms = torch.randn(n_components, grid.kernel_length, generator=generator, dtype=torch.float64)
    atoms = normalise(atoms).to(x.device)
    count = 0
    for _ in range(4 * n_components):  # images without a direction are skipped
        place = int(torch.randint(len(x), (1,), generator=generator))
        row = x[place : place + 1].double()
        if mask is not None:
            row = row * mask[place : place + 1]
        cut, errors = patches_of(grid.images(row), grid)
        share = errors[0].cumsum(0).cpu()
        drawn = torch.rand(1, generator=generator, dtype=torch.float64) * share[-1]
        patch = cut(torch.searchsorted(share, drawn).clamp(max=len(share) - 1).to(x.device))
        if bool(patch.any()):
            atoms[count] = normalise(patch)[0]
            count += 1
        if count == n_components:
            break
    return atoms


class CodedImages:
    """Codes of some images, each found when it is asked for: all of them may not fit in memory."""

    def __init__(
        self, energy: Any, x: Tensor, some: Tensor, encode: Callable[[Any, Tensor], Tensor]
    ) -> None:
        self.energy, self.x, self.some, self.encode = energy, x, some, encode
        self.device = x.device

    def __len__(self) -> int:
        return len(self.some)

    def __getitem__(self, part: slice) -> Tensor:
        return self.encode(self.energy, self.x[self.some[part]])


def learn_images(coder: Any, rows: Rows, mask: Any = None) -> dict[str, Any]:
    """One pass over a chunk of images; returns the fitted attributes."""
    fitted, seen = coder._is_fitted(), useful_mask(mask, rows)
    learner = _resumed_learner(coder, rows.device) if fitted else None
    x = _sharp_parts(coder, rows, seen)
    if learner is None:
        check_images(coder, rows, seen)
        generator = make_generator(draw_seed(coder.random_state), "atoms")
        learner = first_learner(coder, x, generator, seen)
    for part in row_slices(len(x), 8 * rows.shape[1], rows.device):
        learner.absorb(x[part], **({} if seen is None else {"mask": seen[part]}))
    learner.settings.search.warn()
    curve = [*(coder.energy_curve_ if fitted else ()), learner.take_means()[0]]
    n_before = coder.n_samples_seen_ if fitted else 0
    return kernel_state(coder, learner, rows.dtype, curve, n_before + len(x))


def _resumed_learner(coder: Any, device: torch.device) -> KernelLearner:
    """A learner that continues from the fitted state."""
    settings = settings_of(coder, len(coder.components_), coder.n_features_in_)
    asked = {
        "n_components": coder.n_components or len(coder.components_),
        **record_grid(settings.grid),
        "low_pass": float(coder.low_pass),
    }
    held = {
        "n_components": len(coder.components_),
        **coder.grid_,
        "low_pass": coder.low_pass_,
    }
    need_same_sizes(coder, asked, held)
    if coder.online_state_:
        return KernelLearner.restore(coder.online_state_, settings, device)  # type: ignore[return-value]
    atoms = torch.from_numpy(np.array(coder.components_)).to(device)
    return KernelLearner(atoms, atoms.new_zeros(0), settings)


def need_same_sizes(model: Any, asked: Mapping[str, Any], held: Mapping[str, Any]) -> None:
    """Raise ValueError if parameters no longer describe what learning would continue from."""
    different = [name for name in {**asked, **held} if asked.get(name) != held.get(name)]
    if different:
        raise ValueError(
            f"{', '.join(different)} of the parameters differ from those of the fitted "
            f"{type(model).__name__}: set them back, or call fit to start again."
        )


def kernel_state(
    coder: Any, learner: Any, dtype: torch.dtype, curve: Any, n_seen: int
) -> dict[str, Any]:
    """The fitted attributes in the learner's present state."""
    state = learnt_state(learner, dtype, curve, n_seen)
    del state["intercept_"]
    grid = record_grid(learner.settings.grid)
    return {**state, "grid_": grid, "low_pass_": float(coder.low_pass)}


def given_kernels(coder: Any, rows: Rows, mask: Any = None, *, n_before: int = 0) -> dict[str, Any]:
    """The fitted attributes for a given dictionary: of the rows, their number alone is learnt."""
    useful_mask(mask, rows)
    block_sides(coder.pool_size, coder.image_shape)
    if coder.dict_init is not None:
        raise ValueError(
            "dict_init has no effect when dictionary is given, which is used as it is: pass only "
            "one of them."
        )
    grid = grid_of(coder, rows.shape[1])
    atoms = _checked_kernels(coder, "dictionary", grid)
    return {
        **unlearnt_kernels(coder, atoms, rows.shape[1]),
        "components_": atoms,
        "n_samples_seen_": n_before + rows.total(),
    }


def _checked_kernels(coder: Any, name: str, grid: ConvolutionGrid) -> Any:
    """A parameter that holds kernels, flat."""
    return given_dictionary(
        getattr(coder, name),
        coder.n_components,
        grid.kernel_length,
        name,
        "kernels have {} numbers (the sides of a kernel times the channels)",
    )


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
