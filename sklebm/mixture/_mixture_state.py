"""A mixture as plain arrays: fitted attributes, and what ``partial_fit`` goes on from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sklebm.energies import GaussianMixture
from sklebm.inference.expectation_maximization import Statistics
from sklebm.inference.online_em import OnlineState
from sklebm.mixture._mixture_start import covariance_shape

_ARRAYS = ("weights_", "means_", "covariances_", "precisions_cholesky_")


def fitted_arrays(mixture: GaussianMixture) -> dict[str, Any]:
    """The fitted attributes that are the mixture's parameters."""
    values = (mixture.weights, mixture.means, mixture.covariances, mixture.factors)
    return {name: value.cpu().numpy() for name, value in zip(_ARRAYS, values, strict=True)}


def export_block(state: OnlineState) -> dict[str, Any]:
    """The open block of mini-batch EM; empty at the start of a block."""
    if state.block is None:
        return {}
    sums = {f"block.{key}": value.cpu().numpy() for key, value in state.block._asdict().items()}
    start = {f"start.{key}": value for key, value in fitted_arrays(state.start).items()}
    return {"n_before": state.n_before, **start, **sums}


def import_block(flat: dict[str, Any], mixture: GaussianMixture, n_seen: float) -> OnlineState:
    """Where the last ``partial_fit`` stopped; the fitted mixture itself if no block is open.

    Raises
    ------
    ValueError
        If ``flat`` is not what ``export_block`` gave for such a mixture.
    """
    if not flat:
        return OnlineState(mixture, None, n_seen)
    kind, device = mixture.covariance_type, mixture.means.device
    k, d = mixture.means.shape
    shapes = {f"start.{key}": value.shape for key, value in fitted_arrays(mixture).items()}
    sums = {"total": (), "log_likelihood": (), "counts": (k,), "shifts": (k, d)}
    sums["scatter"] = covariance_shape(kind, k, d)
    shapes |= {f"block.{key}": shape for key, shape in sums.items()}
    found = {key: np.shape(value) for key, value in flat.items()}
    if found != {**shapes, "n_before": ()}:
        raise ValueError(
            "training_state_ does not belong to this mixture: fit again before partial_fit."
        )
    tensors = {key: torch.as_tensor(value, device=device) for key, value in flat.items()}
    weights, means, covariances, factors = (tensors[f"start.{key}"] for key in _ARRAYS)
    start = GaussianMixture(weights, means, covariances, factors, kind)
    block = Statistics(*(tensors[f"block.{key}"] for key in Statistics._fields))
    return OnlineState(start, block, float(flat["n_before"]))
