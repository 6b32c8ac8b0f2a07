"""Block Gibbs chains of a machine, one per row, with known features clamped."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from sklebm._checks import check_count
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import resolve_device, row_slices
from sklebm.inference import gibbs
from sklebm.inference.gibbs import GibbsState
from sklebm.inference.gibbs_langevin import GibbsLangevin
from sklebm.inference.gibbs_sweeps import GibbsSweeps, SweepState
from sklebm.likelihood import from_origin, path_energy


def moved(model: Any, X: Any, n_steps: int, random_state: RandomState) -> Any:
    """Rows after block Gibbs steps that start from them, in the type of X."""
    check_count(n_steps, "n_steps")
    seed = draw_seed(random_state)
    generators: dict[torch.device, torch.Generator] = {}

    def move(energy: Any, v: torch.Tensor) -> torch.Tensor:
        if v.device not in generators:
            generators[v.device] = make_generator(seed, "gibbs", device=v.device)
        generator = generators[v.device]
        if not hasattr(energy, "draw_visible"):
            return _swept(energy, v, None, n_steps, generator)
        state = gibbs.init(generator, v, energy)
        for _ in range(n_steps - 1):
            state = gibbs.step(generator, state, energy)
        return from_origin(model, energy.draw_visible(state.hidden, generator))

    return model._map_rows(X, move, "gibbs")


def drawn(
    model: Any,
    n_samples: int,
    n_steps: int,
    init: Any,
    clamped: Any,
    sampler: GibbsLangevin | None,
    random_state: RandomState,
) -> Any:
    """Final rows of chains of a fitted model."""
    limits = model._visible_range
    check_count(n_samples, "n_samples")
    check_count(n_steps, "n_steps")
    shape = (int(n_samples), int(model.n_features_in_))
    start = None if init is None else chain_rows("init", init, shape, limits)
    _check_sampler(model, sampler, limits)
    known = given = None
    if clamped is not None:
        known = chain_rows("clamped", clamped, shape, limits, missing=True)
        given = known.float().numpy()
    seed = draw_seed(random_state)
    device = resolve_device(model.device, None, model._prefers_cuda)
    generator = make_generator(seed, "sampling", device=device)
    energy, mean = path_energy(model, model._energy(device).float(), vars(model))
    mean = torch.from_numpy(mean.clip(*limits)).to(device, torch.float32)
    offset = getattr(model, "offset_", None)
    # Taken off in double precision: far from zero, single precision would round the difference.
    moved = 0.0 if offset is None else torch.from_numpy(offset)
    start = None if start is None else (start - moved).float()
    known = None if known is None else (known - moved).float()
    out = np.empty(shape, dtype=np.float32)
    with torch.no_grad():
        floats = model._floats_per_row()
        if known is not None and hasattr(energy.visible, "conditional_on"):
            floats += shape[1] ** 2  # what known units send to the others, at most for each row
        for part in row_slices(n_samples, floats):
            base = mean.expand(len(out[part]), -1).contiguous()
            keep = None if known is None else known[part].to(device)
            v = energy.visible.draw(base, generator) if start is None else start[part].to(device)
            further = base[:, shape[1] :]  # visible units that are no features: deeper layers
            if further.shape[1]:
                if start is not None:
                    v = torch.cat([v, energy.visible.draw(further, generator)], dim=1)
                if keep is not None:
                    keep = torch.cat([keep, torch.full_like(further, torch.nan)], dim=1)
            v = _run_chains(energy, v, keep, n_steps, sampler, generator)
            out[part] = from_origin(model, v[:, : shape[1]]).cpu().numpy()
    # Known features are returned exactly as given, whatever was subtracted in between.
    return out if given is None else np.where(np.isnan(given), out, given)


def _check_sampler(model: Any, sampler: Any, limits: tuple[float, float]) -> None:
    if sampler is None:
        return
    if not isinstance(sampler, GibbsLangevin):
        raise ValueError(f"sampler={sampler!r} must be a GibbsLangevin(), or None for block Gibbs.")
    if math.isfinite(limits[1]):
        raise ValueError(
            f"GibbsLangevin moves real-valued visible units; those of {type(model).__name__} "
            "are bits: leave sampler=None, for block Gibbs."
        )


def _run_chains(
    energy: Any,
    v: torch.Tensor,
    known: torch.Tensor | None,
    n_steps: int,
    sampler: GibbsLangevin | None,
    generator: torch.Generator,
) -> torch.Tensor:
    """Visible states after ``n_steps`` that keep known features fixed."""

    def keep(states: torch.Tensor) -> torch.Tensor:
        return states if known is None else torch.where(known.isnan(), states, known)

    given = None if known is None else ~known.isnan()
    v = keep(v)
    # Units that are coupled to each other are drawn given the known ones, too.
    condition = getattr(getattr(energy, "visible", None), "conditional_on", None)
    complete = keep if condition is None or known is None else condition(known)
    if not hasattr(energy, "draw_visible"):
        return keep(_swept(energy, v, given, n_steps, generator))
    for _ in range(n_steps):
        h = energy.draw_hidden(v, generator)
        if sampler is None:
            v = complete(energy.draw_visible(h, generator))
        else:
            v, _info = sampler.move_visible(generator, GibbsState(v, h), energy, given)
    return v


def _swept(
    energy: Any,
    v: torch.Tensor,
    given: torch.Tensor | None,
    n_steps: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Visible states after sweeps over units on any graph; those that are ``given`` stay."""
    sampler, n_visible = GibbsSweeps(), v.shape[1]
    state = sampler.init(generator, v, energy)
    held = None
    if given is not None:
        # Known values between 0 and 1 send what they are, not a draw.
        state = SweepState(torch.cat([v, state.position[:, n_visible:]], dim=1))
        held = torch.zeros_like(state.position, dtype=torch.bool)
        held[:, :n_visible] = given
    return sampler.moved(generator, state, energy, n_steps, held).position[:, :n_visible]


def chain_rows(
    name: str,
    values: Any,
    shape: tuple[int, int],
    limits: tuple[float, float],
    *,
    missing: bool = False,
) -> torch.Tensor:
    """One row per chain, float64; rejects other shapes and values outside the limits."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
    array = np.asarray(values, dtype=np.float64)
    if array.shape not in (shape, shape[1:]):
        raise ValueError(
            f"{name} has shape {array.shape}, but must be one row of {shape[1]} features or "
            f"{shape[0]} of them (n_samples)."
        )
    given = array[~np.isnan(array)] if missing else array
    low, high = limits
    if not ((given >= low) & (given <= high) & np.isfinite(given)).all():
        where = f"values in [{low:g}, {high:g}]" if math.isfinite(high) else "finite values"
        what = " or NaN, for features to draw" if missing else ""
        raise ValueError(f"{name} must hold {where}{what}.")
    return torch.from_numpy(np.array(np.broadcast_to(array, shape)))
