"""Machines that see rows minus an offset, divided by a scale: both directions, and chains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sklebm._checks import check_count
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import resolve_device, row_slices
from sklebm._shell.scaling import Scaling, recall_scaling
from sklebm.inference.samplers import Sampler, run

_ADAPTATION = 0.1


def fitted_scaling(model: Any) -> Scaling:
    """That of a fitted model; rows as they are if it was made from parameters without any."""
    d = model.n_features_in_
    return recall_scaling(model) or Scaling(np.zeros(d), np.ones(d))


def remember(energy: Any, scaling: Scaling | None) -> None:
    """Keep the scaling beside the energy, from which it is exported."""
    if scaling is None:
        raise ValueError("Rows must be standardised before an energy is made for them.")
    energy.offset, energy.scale = (
        torch.from_numpy(values.copy()) for values in (scaling.offset, scaling.scale)
    )


def check_scale(model: Any) -> None:
    """Raise ValueError unless the fitted scale is positive."""
    if not bool((fitted_scaling(model).scale > 0.0).all()):
        raise ValueError(f"{type(model).__name__}.scale_ must be positive numbers.")


def check_unchanged(asked: Mapping[str, Any], fitted: Mapping[str, Any]) -> None:
    """Raise ValueError if parameters differ from those of the fit that training continues from."""
    for name, value in asked.items():
        if value != fitted[name]:
            raise ValueError(
                f"{name}={value!r} differs from {name}={fitted[name]!r} of the fitted model that "
                "training would continue from: set it back, or fit with warm_start=False."
            )


def drawn(
    model: Any, sampler: Sampler, n_samples: int, n_steps: int, random_state: RandomState
) -> Any:
    """Final rows of chains that start at the reference; their steps adapt in the first half."""
    check_count(n_samples, "n_samples")
    check_count(n_steps, "n_steps")
    device = resolve_device(model.device, None, model._prefers_cuda)
    generator = make_generator(draw_seed(random_state), "sampling", device=device)
    energy, scaling = model._energy(device).float(), fitted_scaling(model)
    out = np.empty((n_samples, model.n_features_in_), dtype=np.float32)
    with torch.no_grad():
        for part in row_slices(n_samples, model._floats_per_row()):
            chains = sampler.start(generator, len(out[part]), energy)
            chains = run(sampler, generator, chains, energy, n_steps // 2, _ADAPTATION)
            chains = run(sampler, generator, chains, energy, n_steps - n_steps // 2)
            out[part] = scaling.restore(chains.position.double()).float().cpu().numpy()
    return out
