"""Layer-by-layer training of a deep energy model, each layer first serving as the experts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sklebm._shell.random import make_generator, purpose_seed
from sklebm.deep._network import covariance, record_of
from sklebm.energies.deep import DeepEnergy
from sklebm.gradient import GradientEstimator
from sklebm.training.architecture import check_sizes, export_weights
from sklebm.training.ranks import share_parameters
from sklebm.training.start import Start


def layer_by_layer(model: Any, start: Start) -> DeepEnergy:
    """The energy with an untrained last layer on top of trained layers.

    With ``warm_start``, it starts from a fitted model that has all layers but the last.
    """
    if model.network is not None or model.image_shape is not None:
        given = "network" if model.network is not None else "image_shape"
        raise ValueError(
            f'layer_training="greedy" trains layers of widths hidden_sizes and does not support '
            f'{given}: leave {given} out, or set layer_training="joint".'
        )
    sizes = check_sizes(model.hidden_sizes)
    layers = (*sizes, int(model.n_components))
    first, below = 0, {}
    if GradientEstimator._resumes(model) and model._grows():
        GradientEstimator._check_resumable(model, start.rows)
        first, below = len(sizes), model.weights_
    spread = covariance(start.rows, start.means, owner=type(model).__name__)
    for depth in range(first, len(layers)):
        last = depth == len(sizes)
        seed = start.seed if last else purpose_seed(start.seed, "layers", index=depth)
        record = record_of(
            model,
            len(spread),
            hidden_sizes=np.array(sizes[:depth], dtype=np.int64),
            n_components=layers[depth],
        )
        generator = make_generator(seed, "parameters")
        energy: DeepEnergy = model._fresh(spread, record, below, generator)
        energy = energy.to(start.rows.device)
        share_parameters(start.rows.ranks, energy)
        if not last:
            options = replace(
                model._options(seed),
                max_epochs=model._n_epochs(start.rows),
                n_iter_no_change=None,
            )
            # The same rows are held out of all layers.
            apart = replace(start, seed=seed, split_seed=start.held_out_seed)
            model._train(energy, apart, options, whole=True)
            below = export_weights(energy, model)
    return energy
