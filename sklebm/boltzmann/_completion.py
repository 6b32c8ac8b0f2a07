"""Means of unknown bits given known ones, row by row: summed, by mean field, or by chains."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sklebm._checks import check_count
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import resolve_device
from sklebm._shell.warning import warn
from sklebm.boltzmann._chains import chain_rows
from sklebm.energies.pairwise import colour_classes, means
from sklebm.inference.gibbs_sweeps import GibbsSweeps, SweepState
from sklebm.inference.variational_partition import bethe, mean_field, mean_field_means

METHODS = ("auto", "exact", "mean_field", "chains")
#: Up to this many unknown units in a row, "auto" sums over all their states.
MOST_UNKNOWN = 20


def conditional_mean(
    model: Any, X: Any, method: str, n_steps: int, random_state: RandomState
) -> Any:
    """The rows with NaN replaced by the mean given what is known, float64."""
    if method not in METHODS:
        names = ", ".join(f'"{name}"' for name in METHODS[:-1])
        raise ValueError(f'method={method!r} must be one of {names} and "{METHODS[-1]}".')
    check_count(n_steps, "n_steps")
    n_rows = np.shape(X)[0] if np.ndim(X) == 2 else 1
    shape = (n_rows, int(model.n_features_in_))
    rows = chain_rows("X", X, shape, model._visible_range, missing=True, dtype=np.float64)
    energy = model._energy(resolve_device(model.device, None, model._prefers_cuda)).double()
    rows = rows.to(energy.weights.device)
    if not len(rows):
        return rows.cpu().numpy()
    with torch.no_grad():
        n_hidden = len(energy.hidden.bias)
        most = int(rows.isnan().sum(dim=1).max()) + n_hidden
        if method == "auto":
            method = "exact" if most <= MOST_UNKNOWN else "mean_field"
            if method != "exact":
                warn(
                    f"{type(model).__name__}.conditional_mean: up to {most} units of a row are "
                    f"unknown, more than the {MOST_UNKNOWN} that can be summed over. These are "
                    "the means of mean field, which assumes that units are independent; "
                    'method="chains" estimates the exact ones.'
                )
        # Hidden units are unknown in every row.
        s = torch.cat([rows, rows.new_full((len(rows), n_hidden), torch.nan)], dim=1)
        if method == "exact":
            found = _summed(energy, s)
        elif method == "mean_field":
            start = s.nan_to_num(0.5)
            classes = energy.classes
            found, settled = mean_field_means(
                energy.couplings(), energy.biases(), classes, start, ~s.isnan(), tol=1e-8
            )
            if not settled:
                warn(f"{type(model).__name__}.conditional_mean: mean field did not converge.")
        else:
            seed = draw_seed(random_state)
            generator = make_generator(seed, "completion", device=s.device)
            found = _averaged(energy, s, n_steps, generator)
        return torch.where(rows.isnan(), found[:, : rows.shape[1]], rows).cpu().numpy()


def _summed(energy: Any, s: torch.Tensor) -> torch.Tensor:
    """Exact means; rows that lack the same units are summed together."""
    couplings, biases, found = energy.couplings(), energy.biases(), s.clone()
    patterns, which = torch.unique(s.isnan(), dim=0, return_inverse=True)
    for index, unknown in enumerate(patterns):
        at = (which == index).nonzero()[:, 0]
        free, known = unknown.nonzero()[:, 0], (~unknown).nonzero()[:, 0]
        if not len(free):
            continue
        inner = couplings[free][:, free]
        fields = biases[free] + s[at][:, known] @ couplings[known][:, free]
        found[at[:, None], free] = means(fields, inner, colour_classes(inner != 0))
    return found


def _averaged(
    energy: Any, s: torch.Tensor, n_steps: int, generator: torch.Generator
) -> torch.Tensor:
    """Means over ``n_steps`` sweeps of one chain a row, after half as many that are not counted.

    What is averaged is the probability of each unit given the others, not its bit, which has less
    variance.
    """
    held, couplings, biases = ~s.isnan(), energy.couplings(), energy.biases()
    start = torch.where(held, s, energy.visible.draw(torch.full_like(s, 0.5), generator))
    sampler = GibbsSweeps()
    state = sampler.moved(generator, SweepState(start), energy, max(1, n_steps // 2), held)
    total = torch.zeros_like(s)
    for _ in range(n_steps):
        state = sampler.moved(generator, state, energy, 1, held)
        total += torch.sigmoid(biases + state.position @ couplings)
    return total / n_steps


def variational_log_partition(model: Any, method: str) -> float:
    """log Z of a fitted machine by mean field or belief propagation, in float64."""
    if method not in ("mean_field", "bethe"):
        raise ValueError(f'method={method!r} must be "mean_field" or "bethe".')
    energy = model._energy(torch.device("cpu")).double()
    with torch.no_grad():
        couplings, biases = energy.couplings(), energy.biases()
        if method == "bethe":
            found = bethe(couplings, biases)
        else:
            found = mean_field(couplings, biases, energy.classes)
    if not found.settled:
        warn(
            f"{type(model).__name__}: the messages of {method} did not converge; its value "
            f"{found.value:.4g} is not that of a fixed point. Use estimate_log_partition()."
        )
    return found.value
