"""Bits on a graph: how they start, where gradients are centred, how they are judged and rebuilt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sklebm._shell.random import make_generator
from sklebm.energies import Bernoulli, PairwiseEnergy
from sklebm.inference import variational_partition
from sklebm.inference.ais import base_rate_bias
from sklebm.objectives import Batch
from sklebm.objectives.pseudo_likelihood import pseudo_log_likelihood
from sklebm.training.pairwise_centring import PairwiseCentring
from sklebm.training.start import Start

#: What bits on a graph can learn from; chains of two layers need two layers.
OBJECTIVES = (
    "pseudo_likelihood",
    "ratio_matching",
    "minimum_probability_flow",
    "noise_contrastive",
    "cd",
    "pcd",
    "maximum_likelihood",
)
# Largest initial weights of hidden units.
_LARGEST_WEIGHTS = 0.3


def initial_energy(
    mask: torch.Tensor, means: torch.Tensor, n_rows: int, generator: torch.Generator
) -> PairwiseEnergy:
    """The machine before training, for rows with these means; ``mask`` is that of all units.

    Zero is a good start between visible units. Random weights break the symmetry between hidden
    ones, whose fields are balanced as in a restricted machine.
    """
    n_visible = len(means)
    n_hidden = len(mask) - n_visible
    scale = min(_LARGEST_WEIGHTS, 2.0 * math.sqrt(2.0 / len(mask)))
    between = scale * torch.randn(n_hidden, n_visible, generator=generator)
    between = between * mask[n_visible:, :n_visible]
    base = base_rate_bias(means.float(), n_rows)
    visible = Bernoulli(base - 0.5 * between.sum(dim=0))
    hidden = Bernoulli(-(between @ means.float()))
    return PairwiseEnergy(
        visible, hidden, _joined(torch.zeros(n_visible, n_visible), between), mask
    )


def _joined(lateral: torch.Tensor, between: torch.Tensor) -> torch.Tensor:
    """The couplings of all units, of which hidden ones are not coupled to each other."""
    below = torch.cat([between, between.new_zeros(len(between), len(between))], dim=1)
    return torch.cat([torch.cat([lateral, between.T], dim=1), below])


def without_hidden_pairs(parameters: Mapping[str, torch.Tensor]) -> PairwiseEnergy:
    """The machine of ``couplings_`` between visible units and ``components_`` of hidden ones."""
    visible, hidden = parameters["intercept_visible_"], parameters["intercept_hidden_"]
    weights = _joined(parameters["couplings_"], parameters["components_"])
    return PairwiseEnergy(Bernoulli(visible), Bernoulli(hidden), weights)


def centring(model: Any, energy: PairwiseEnergy, start: Start) -> tuple[PairwiseCentring]:
    """What gradients are centred at; without ``centering`` nothing, but pairs still count once."""
    visible, hidden = model._offsets(energy, start)
    if model.centering:
        return (PairwiseCentring(energy, visible, hidden),)
    visible, hidden = torch.zeros_like(visible), torch.zeros_like(hidden)
    return (PairwiseCentring(energy, visible, hidden, follows=False),)


def mean_field(energy: Any) -> np.ndarray[Any, Any]:
    """Means of the visible units by mean field, in double precision, if there are no rows."""
    energy = energy.double()
    with torch.no_grad():
        couplings, biases, classes = energy.couplings(), energy.biases(), energy.classes
        found = variational_partition.mean_field(couplings, biases, classes)
    means: np.ndarray[Any, Any] = found.means[: energy.n_visible].numpy()
    return means


def validation_score(energy: Any, batch: Batch, seed: int) -> float:
    """Mean log pseudo-likelihood of held-out rows."""
    # The same bits in every epoch, so that only the model changes the score.
    generator = make_generator(seed, "pseudo-likelihood")
    return float(pseudo_log_likelihood(energy, batch.x, generator).double().mean())
