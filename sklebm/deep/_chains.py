"""Hamiltonian chains of a deep energy model, and the climb from rows to its modes."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import torch

from sklebm._checks import check_count
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import resolve_device, row_slices
from sklebm._shell.warning import warn
from sklebm.inference.chains import run
from sklebm.inference.hamiltonian import HMC
from sklebm.inference.modes import descend
from sklebm.likelihood import from_origin

_ADAPTATION = 0.1
# If all of this many proposals are rejected, something is wrong.
_ENOUGH_PROPOSALS = 30


def drawn(model: Any, n_samples: int, n_steps: int, random_state: RandomState) -> Any:
    """Final rows of chains that start at the reference density, one chain per row."""
    check_count(n_samples, "n_samples")
    check_count(n_steps, "n_steps")
    seed = draw_seed(random_state)
    device = resolve_device(model.device, None, model._prefers_cuda)
    generator = make_generator(seed, "sampling", device=device)
    energy = model._energy(device).float()
    out = np.empty((n_samples, model.n_features_in_), dtype=np.float32)
    sampler, warm_up = HMC(), n_steps // 2
    log_step = (sampler.step_size * energy.reference.scale()).log()
    moved = 0
    for part in row_slices(n_samples, 4 * model._floats_per_row()):
        start = energy.reference.draw(len(out[part]), generator)
        chains = sampler.resume(start, log_step, energy)
        chains = run(sampler, generator, chains, energy, warm_up, _ADAPTATION)
        before = chains.position
        chains = run(sampler, generator, chains, energy, n_steps - warm_up)
        moved += int((chains.position != before).any(dim=1).sum())
        out[part] = from_origin(model, chains.position).cpu().numpy()
    if not moved and n_samples * (n_steps - warm_up) >= _ENOUGH_PROPOSALS:
        warn(
            f"{type(model).__name__}.sample: no proposal of {n_samples} chain(s) was accepted "
            f"in {n_steps - warm_up} steps, so the rows are where the chains "
            f"started, not draws from the model. Raise n_steps={n_steps}, which adapts the "
            "step size for longer; if that does not help, the energy is too steep: fit with "
            "a lower learning_rate, or scale X."
        )
    return out


def climbed(model: Any, X: Any, max_iter: int, tol: float) -> Any:
    """End point of each row's climb up log p."""
    check_count(max_iter, "max_iter")
    if not (isinstance(tol, Real) and tol >= 0.0):
        raise ValueError(f"tol={tol!r} must be a number of at least 0.")

    def climb(energy: Any, x: torch.Tensor) -> torch.Tensor:
        scale = float(energy.reference.scale())
        rest = descend(energy, x, step_size=0.01 * scale**2, max_iter=max_iter, tol=tol / scale)
        return from_origin(model, rest)

    return model._map_rows(X, climb, "modes")
