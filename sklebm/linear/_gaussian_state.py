"""Fitted attributes of a Gaussian with precision P = C^-1: their kinds, fits and draws."""

from __future__ import annotations

from numbers import Integral
from typing import Any, Literal, get_args

import numpy as np
import torch

from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Scalar, Spec
from sklebm.energies import PrecisionEnergy
from sklebm.linear._gaussian_fit import Settings, fit_rows, fit_sums
from sklebm.linear._moments import Moments, empty_moments, stream_moments
from sklebm.linear._newton import Observer, ignore
from sklebm.linear._structure import Entries, make_mask

Objective = Literal[
    "maximum_likelihood", "score_matching", "noise_contrastive", "conditional_noise_contrastive"
]
OBJECTIVES = set(get_args(Objective))
_FROM_SUMS = ("maximum_likelihood", "score_matching")

_ROUNDING = 1e-10  # of an inverse in double precision, relative to its largest entry
_WIDTH = "n_features_in_"
STATE: Spec = {
    "precision_": Array("f", (_WIDTH, _WIDTH), of="precision"),
    "covariance_": Array("f", (_WIDTH, _WIDTH)),
    "sample_covariance_": Array("f", (_WIDTH, _WIDTH)),
    "location_": Array("f", (_WIDTH,), of="location"),
    "sample_mean_": Array("f", (_WIDTH,)),
    "log_partition_": Scalar(float),
    "estimated_log_partition_": Scalar(float, optional=True),
    "ridge_": Scalar(float, 0.0),
    "n_iter_": Scalar(int, 0),
    "n_samples_seen_": Scalar(int, 0),
}


def streams(estimator: Any) -> bool:
    """Whether the objective needs only sums over rows, for ``available_if``."""
    if estimator.objective in _FROM_SUMS:
        return True
    raise AttributeError(
        f"objective={estimator.objective!r} compares every row with noise, so it needs all rows at "
        'once and there is no partial_fit: call fit, or use objective="maximum_likelihood" or '
        '"score_matching", which need only sums.'
    )


def learn(
    estimator: Any, rows: Rows, observe: Observer = ignore, *, goes_on: bool = False
) -> dict[str, Any]:
    """Fitted attributes from sums over these rows, and over earlier ones if it ``goes_on``."""
    mask = make_mask(estimator.structure, rows.shape[1], estimator.image_shape, estimator.radius)
    objective, ridge = estimator.objective, estimator.ridge
    settings = Settings(
        objective,
        0.0 if ridge == "auto" else float(ridge),
        ridge == "auto",
        float(estimator.tol),
        estimator.max_iter,
        observe,
    )
    before = empty_moments(rows.shape[1], rows.device)
    if goes_on and estimator.n_samples_seen_:  # 0 if it was made from parameters
        seen = estimator.n_samples_seen_
        scatter = torch.from_numpy(estimator.sample_covariance_ * seen).to(rows.device)
        mean = torch.from_numpy(estimator.sample_mean_).to(rows.device)
        before = Moments(seen, mean, scatter)
    moments = stream_moments(rows, before)
    state = {
        "n_samples_seen_": int(moments.n_rows),
        "sample_mean_": moments.mean.cpu().numpy(),
        "sample_covariance_": (moments.scatter / moments.n_rows).cpu().numpy(),
    }
    if not torch.isfinite(moments.scatter).all():
        return state  # the shell names the cause
    entries = Entries(mask, rows.device)
    if objective in _FROM_SUMS:
        return {**state, **fit_sums(moments, entries, settings)}
    rows.need_one_process(f'objective="{objective}"')
    generator = make_generator(draw_seed(estimator.random_state), "noise", device=rows.device)
    scale = None
    if objective == "conditional_noise_contrastive":
        automatic = estimator.noise_scale == "auto"
        scale = min(1.0, 2.0 / rows.shape[1] ** 0.5) if automatic else float(estimator.noise_scale)
    learnt = fit_rows(rows, moments, entries, settings, estimator.n_noise, scale, generator)
    return {**state, **learnt}


def untrained_state(given: dict[str, Any]) -> dict[str, Any]:
    """What follows from a given precision and location.

    Raises
    ------
    ValueError
        If the precision is not symmetric and positive definite, so that there is no density.
    """
    precision = torch.from_numpy(np.array(given["precision_"], dtype=np.float64))
    location = torch.from_numpy(np.array(given["location_"], dtype=np.float64))
    factor, failure = torch.linalg.cholesky_ex(precision)
    # Also the precision of a fit is symmetric up to rounding only.
    skewness, largest = float((precision - precision.T).abs().max()), float(precision.abs().max())
    if int(failure) or skewness > _ROUNDING * largest:
        raise ValueError("precision must be symmetric and positive definite: there is no density.")
    covariance = torch.cholesky_inverse(factor).numpy()
    return {
        "covariance_": covariance,
        "sample_covariance_": covariance.copy(),
        "sample_mean_": location.numpy(),
        "log_partition_": PrecisionEnergy(location, factor).log_partition(),
        "ridge_": 0.0,
        "n_iter_": 0,
        "n_samples_seen_": 0,
    }


def draw(energy: PrecisionEnergy, n_samples: int, random_state: RandomState) -> Any:
    """Independent draws, float64."""
    if not isinstance(n_samples, Integral) or n_samples < 1:
        raise ValueError(f"n_samples={n_samples!r} must be a positive integer.")
    generator = make_generator(draw_seed(random_state), "sample")
    return energy.sample(int(n_samples), generator).numpy()
