"""Where persistent chains begin if the energy is already trained: at samples of it.

New chains start at the reference density, which a new energy is close to. They are not samples of a
trained one, such as that of given parameters or after a greedy start, and until they are, updates
lead it astray. So they are annealed to it, as for log Z. ``GradientEstimator`` calls
``settle_chains`` for models that name it as their ``_settle_chains``.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from sklebm import likelihood
from sklebm.inference import ais

# Annealing steps that lead new chains to an energy that is already trained: block Gibbs, or
# trajectories of five gradients; and how many chains move together.
_SETTLING_STEPS, _SETTLING_TRAJECTORIES, _TOGETHER = 100, 25, 100


def annealed(energy: Any, mean: Any, n_chains: int, generator: torch.Generator) -> torch.Tensor:
    """States of ``n_chains`` chains, annealed from a density with this mean to the energy."""
    n_temperatures, energy = _SETTLING_TRAJECTORIES, copy.deepcopy(energy).eval()
    if likelihood.alternates(energy):  # networks may hold numbers of single precision
        n_temperatures, energy = _SETTLING_STEPS, energy.double()
    with torch.no_grad():
        path = likelihood.path_to(energy, mean, generator)
        groups = [min(_TOGETHER, n_chains - first) for first in range(0, n_chains, _TOGETHER)]
        found = [
            ais.forward(path, generator, n_chains=size, n_temperatures=n_temperatures).rows
            for size in groups
        ]
    return torch.cat(found)


def settle_chains(
    model: Any, objective: Any, state: Any, energy: Any, start: Any, generator: torch.Generator
) -> Any:
    """An objective's new state, with its chains annealed to the energy if that is trained."""
    greedy = getattr(model, "pretraining_epochs", 0) and not start.n_calls
    if not (start.resume or greedy):
        return state
    with torch.no_grad():
        chains = objective.chains(state, energy, generator)
        if chains is None:
            return state
        # A chunk of rows of one kind would leave the other modes of given parameters out of reach.
        mean = mean_of_rows(model, energy) if start.resume else None
        if mean is None:
            origin = start.rows.origin
            mean = (start.means if origin is None else start.means - origin).numpy()
        whole = likelihood.path_energy(model, energy, {"feature_means_": mean})
        states = annealed(*whole, len(chains), generator)
        return objective.with_chains_at(state, states.to(chains), energy, generator)


def mean_of_rows(model: Any, energy: Any) -> Any:
    """The mean of the rows that a model has learnt from, if any; else one that favours no mode.

    None if there is none to be had: a path from a reference density needs none.
    """
    if getattr(model, "n_samples_seen_", 0):
        return likelihood.centred_mean(vars(model))
    visible: Any = (
        energy.layers[0] if hasattr(energy, "layers") else getattr(energy, "visible", None)
    )
    if getattr(visible, "domain", None) == "binary":
        return np.full(len(visible.bias), 0.5)
    if hasattr(energy, "visible_field"):
        half = torch.full_like(energy.hidden.bias, 0.5)[None]
        return energy.visible.mean(energy.visible_field(half))[0].double().cpu().numpy()
    return None
