"""Parts of mean-covariance machines: samplers, the start, constraints, fitted state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sklebm._shell.rows import Rows, row_slices
from sklebm._shell.scaling import Scaling, measure_spread
from sklebm._shell.state import Array, Spec
from sklebm.boltzmann._gaussian_start import directions
from sklebm.boltzmann._scaled import check_scale, check_unchanged, fitted_scaling, remember
from sklebm.energies import Bernoulli
from sklebm.energies.mean_covariance import MeanCovarianceEnergy
from sklebm.inference.gibbs import BlockGibbs
from sklebm.inference.hamiltonian import HMC
from sklebm.inference.samplers import Sampler
from sklebm.objectives import Batch, ScoreMatching
from sklebm.training.transforms import Projection

SAMPLERS = ("hmc", "gibbs")
# Rejected trajectories cost as much as others and leave chains in place.
_ACCEPTANCE = 0.9
# A mean unit starts on in this share of the rows; a covariance unit that sees nothing is on at odds
# of e^2 to 1, and its filters start with this weight in all.
_MEAN_SHARE, _COVARIANCE_BIAS, _POOLED = 0.03, 2.0, 1.0
# Covariance units that are on narrow the density: without them it starts wider than the rows.
_WIDER = math.log(2.0)

SPEC: Spec = {
    "components_": Array("f", ("n_components", "n_features_in_"), of="weights"),
    "filters_": Array("f", ("n_factors", "n_features_in_"), of="filters"),
    "pooling_": Array("f", ("n_factors", "n_covariance_components"), of="pooling"),
    "intercept_hidden_": Array("f", ("n_components",), of="mean_units.bias"),
    "intercept_covariance_": Array("f", ("n_covariance_components",), of="covariance_units.bias"),
    "intercept_visible_": Array("f", ("n_features_in_",), of="visible_bias"),
    "log_variance_": Array("f", (1,), of="log_variance"),
    "offset_": Array("f", ("n_features_in_",), optional=True, of="offset"),
    "scale_": Array("f", ("n_features_in_",), optional=True, of="scale"),
}


def make_sampler(name: str, n_leapfrog: int) -> Sampler:
    """A sampler by its name."""
    if name == "gibbs":
        return BlockGibbs()
    return HMC(n_leapfrog=n_leapfrog, target_acceptance=_ACCEPTANCE)


def learnt_scaling(model: Any, rows: Rows) -> Scaling:
    """Means, and one scale for all features."""
    spread = measure_spread(rows)
    spread.warn_if_unequal(type(model).__name__)
    return spread.scaling(common=True)


def n_filters(model: Any) -> int:
    """The number of factors; raise ValueError if they do not fit a grid that they need."""
    n_units = int(model.n_covariance_components)
    n = n_units if model.n_factors is None else int(model.n_factors)
    if model.factor_structure == "topographic" and (n != n_units or math.isqrt(n) ** 2 != n):
        raise ValueError(
            f'factor_structure="topographic" puts filters and covariance units on one square '
            f"grid, but n_factors={model.n_factors} and n_covariance_components={n_units}: both "
            "must be the same square number, such as 64."
        )
    return n


def allowed_pooling(model: Any, like: Tensor) -> Tensor:
    """1 where an entry of P may differ from 0, (n_factors, n_covariance)."""
    n, n_units = n_filters(model), int(model.n_covariance_components)
    if model.factor_structure == "full":
        return like.new_ones(n, n_units)
    side = math.isqrt(n)
    row, column = np.divmod(np.arange(n), side)
    apart = [np.abs(place[:, None] - place) for place in (row, column)]
    near = [(gap <= 1) | (gap == side - 1) for gap in apart]  # the grid wraps around
    return torch.from_numpy(near[0] & near[1]).to(like)


def initial_energy(
    model: Any, rows: Rows, means: Tensor, generator: torch.Generator
) -> MeanCovarianceEnergy:
    """The energy before training, of rows around zero with a mean variance of 1."""
    d, n_mean = len(means), int(model.n_components)
    n, n_units = n_filters(model), int(model.n_covariance_components)
    one, weights = torch.ones(1, dtype=torch.float64), torch.zeros(0, d)
    if n_mean:
        weights = directions(rows, means, one, n_mean, generator)
    bias = math.log(_MEAN_SHARE) - 0.5 * weights.square().sum(dim=1)
    filters = functional.normalize(torch.randn(n, d, generator=generator), dim=1)
    if model.factor_structure == "full":  # each unit starts with filters of its own
        chosen = (torch.arange(n)[:, None] % n_units == torch.arange(n_units) % n).float()
    else:
        chosen = allowed_pooling(model, filters)
    pooling = -_POOLED * chosen / chosen.sum(dim=0).clamp(min=1.0)
    learnt, scaling = isinstance(model.variance, str), cast(Scaling, rows.scaling)
    log_variance = torch.full((1,), _WIDER)
    if not learnt:
        relative = float(model.variance) / float(scaling.scale[0]) ** 2
        log_variance = torch.full((1,), math.log(relative))
    energy = MeanCovarianceEnergy(
        torch.zeros(d),
        log_variance,
        weights,
        Bernoulli(bias),
        filters,
        pooling,
        Bernoulli(torch.full((n_units,), _COVARIANCE_BIAS)),
        learn_variance=learnt,
    )
    remember(energy, scaling)
    return energy


def constraint(model: Any, energy: MeanCovarianceEnergy) -> Projection:
    """Filters of unit length, and a P that is nowhere positive, after each step."""
    return partial(_constrain, energy, allowed_pooling(model, energy.pooling.data))


def _constrain(energy: MeanCovarianceEnergy, allowed: Tensor) -> None:
    filters, pooling = energy.filters.data, energy.pooling.data
    filters.div_(torch.linalg.vector_norm(filters, dim=1, keepdim=True).clamp(min=1e-30))
    pooling.clamp_(max=0.0).mul_(allowed)


def mean_score_matching(energy: MeanCovarianceEnergy, x: Tensor) -> float:
    """Mean score-matching loss of rows."""
    total, (n, n_units) = 0.0, energy.pooling.shape
    for part in row_slices(len(x), 4 * n_units * (n + x.shape[1])):
        loss, _ = ScoreMatching().loss(energy, Batch(x[part]), {}, torch.Generator())
        total += float(loss.detach()) * len(x[part])
    return total / len(x)


# ---------------------------------------------------------------------- fitted state


def rebuilt(model: Any, parameters: Mapping[str, Tensor]) -> MeanCovarianceEnergy:
    """The energy of a fitted model."""
    energy = MeanCovarianceEnergy(
        parameters["intercept_visible_"],
        parameters["log_variance_"],
        parameters["components_"],
        Bernoulli(parameters["intercept_hidden_"]),
        parameters["filters_"],
        parameters["pooling_"],
        Bernoulli(parameters["intercept_covariance_"]),
        learn_variance=isinstance(model.variance, str),
    )
    remember(energy, fitted_scaling(model))
    return energy


def log_volume(model: Any, *, beside: bool = False) -> float:
    """Sum of the logarithms of the scales, ``beside`` log Z if it is known; 0 before a fit."""
    if not model._is_fitted():
        return 0.0
    volume = float(np.log(fitted_scaling(model).scale).sum())
    return volume + (model.log_partition_ or 0.0) * beside


def check_signs(model: Any) -> None:
    """Raise ValueError if the fitted arrays are those of no density."""
    name = type(model).__name__
    check_scale(model)
    if not bool((model.pooling_ <= 0.0).all()):
        raise ValueError(
            f"{name}.pooling_ must have no positive entry: a positive P has no density."
        )
    if len(model.filters_) != len(model.pooling_):
        raise ValueError(
            f"{name}: filters_ has {len(model.filters_)} filters, but pooling_ is for "
            f"{len(model.pooling_)}."
        )


def check_resumable(model: Any) -> None:
    """Raise ValueError if training cannot continue from the fitted parameters."""
    fitted = {
        "n_components": len(model.components_),
        "n_covariance_components": model.pooling_.shape[1],
        "n_factors": len(model.filters_),
    }
    asked = {
        "n_components": model.n_components,
        "n_covariance_components": model.n_covariance_components,
        "n_factors": n_filters(model),
    }
    check_unchanged(asked, fitted)
    if isinstance(model.variance, str):
        return
    held = math.exp(float(model.log_variance_[0])) * float(fitted_scaling(model).scale[0]) ** 2
    if not math.isclose(held, float(model.variance), rel_tol=1e-4):
        check_unchanged({"variance": model.variance}, {"variance": held})
