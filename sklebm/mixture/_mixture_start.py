"""Where EM starts: a k-means clustering, random rows, or parameters that the user gives."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import check_array

from sklebm._shell.ranks import Ranks
from sklebm.energies import GaussianMixture, PrototypeEnergy
from sklebm.energies.gaussian_mixture import CovarianceType
from sklebm.inference.expectation_maximization import (
    Slices,
    mixture_from_labels,
    precision_factors,
)
from sklebm.inference.lloyd import lloyd_steps
from sklebm.inference.pruned_lloyd import start_lloyd
from sklebm.inference.seeding import random_rows, seed_centers

_KMEANS_STEPS, _KMEANS_TOL = 300, 1e-4


class Given(NamedTuple):
    """Initial parameters from the user, validated; None where there is none."""

    weights: Any
    means: Any
    precisions: Any

    def complete(self) -> bool:
        """True if nothing is left to choose."""
        return not any(value is None for value in self)


def covariance_shape(kind: CovarianceType, n_components: int, n_features: int) -> tuple[int, ...]:
    """Shape of ``covariances_`` and its relatives."""
    return {
        "full": (n_components, n_features, n_features),
        "tied": (n_features, n_features),
        "diag": (n_components, n_features),
        "spherical": (n_components,),
    }[kind]


def check_given(estimator: Any, n_features: int) -> Given:
    """Validate ``weights_init``, ``means_init`` and ``precisions_init``.

    Raises
    ------
    ValueError
        If one has the wrong shape, or weights are no probabilities.
    """
    k = estimator.n_components
    shapes = {
        "weights_init": (k,),
        "means_init": (k, n_features),
        "precisions_init": covariance_shape(estimator.covariance_type, k, n_features),
    }
    given = []
    for name, shape in shapes.items():
        value = getattr(estimator, name)
        if value is not None:
            options = {"ensure_2d": False, "allow_nd": True, "input_name": name}
            value = check_array(value, dtype=np.float64, **options)
            if value.shape != shape:
                raise ValueError(
                    f"{name} has shape {value.shape}, but n_components={k}, {n_features} features "
                    f'and covariance_type="{estimator.covariance_type}" need shape {shape}.'
                )
        given.append(value)
    weights = given[0]
    if weights is not None and (weights.min() < 0 or abs(weights.sum() - 1) > 1e-6):
        raise ValueError(
            f"weights_init must be probabilities: its least entry is {weights.min():g} and its sum "
            f"{weights.sum():g}, not 1."
        )
    return Given(*given)


def start_mixture(
    x: torch.Tensor,
    weights: torch.Tensor,
    parts: Slices,
    estimator: Any,
    given: Given,
    generator: torch.Generator,
    ranks: Ranks,
) -> GaussianMixture:
    """The mixture that the first E step uses, float64 on the device of ``x``."""
    k, kind, reg = estimator.n_components, estimator.covariance_type, float(estimator.reg_covar)
    own = Given(*(None if v is None else torch.from_numpy(v.copy()).to(x.device) for v in given))
    if own.complete():
        mixture = GaussianMixture(own.weights, own.means, own.precisions, own.precisions, kind)
    elif own.means is not None:
        labels = _nearest(own.means.to(x.dtype), x, parts)
        mixture = mixture_from_labels(labels, own.means, x, weights, parts, kind, reg, ranks)
    elif estimator.init == "kmeans":
        centers = seed_centers(x, weights, k, parts, generator, ranks)
        search = start_lloyd(x, weights, centers, parts, ranks)
        steps = lloyd_steps(search, centers, _KMEANS_TOL, ranks)
        for _ in range(_KMEANS_STEPS):
            labels, centers, settled = next(steps)
            if settled:
                break
        mixture = mixture_from_labels(labels, centers, x, weights, parts, kind, reg, ranks)
    else:
        mixture = _around_random_rows(x, weights, parts, k, kind, reg, generator, ranks)
    if own.weights is not None:
        mixture = mixture._replace(weights=own.weights)
    if own.means is not None:
        mixture = mixture._replace(means=own.means)
    return mixture if own.precisions is None else _with_precisions(mixture, own.precisions)


def _nearest(centers: torch.Tensor, x: torch.Tensor, parts: Slices) -> torch.Tensor:
    energy = PrototypeEnergy(centers)
    return torch.cat([energy.assign(x[part]) for part in parts])


def _around_random_rows(
    x: torch.Tensor,
    weights: torch.Tensor,
    parts: Slices,
    k: int,
    kind: CovarianceType,
    reg_covar: float,
    generator: torch.Generator,
    ranks: Ranks,
) -> GaussianMixture:
    """Equal weights, means at random rows, and the covariance of all rows for each."""
    total = ranks.sum(weights.sum())
    mean = sum((weights[part] @ x[part].double() for part in parts), total.new_zeros(x.shape[1]))
    mean = ranks.sum(mean) / total
    nothing = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    one = mixture_from_labels(nothing, mean[None], x, weights, parts, kind, reg_covar, ranks)
    if kind != "tied":
        shape = covariance_shape(kind, k, x.shape[1])
        one = one._replace(
            covariances=one.covariances.expand(shape).clone(),
            factors=one.factors.expand(shape).clone(),
        )
    means = random_rows(x, weights, k, parts, generator, ranks).double()
    return one._replace(weights=total.new_full((k,), 1.0 / k), means=means)


def _with_precisions(mixture: GaussianMixture, precisions: torch.Tensor) -> GaussianMixture:
    kind = mixture.covariance_type
    try:
        # precision_factors inverts: applied to precisions it gives covariance factors.
        inverse = precision_factors(precisions, kind, 0.0)
        square = inverse @ inverse.mT if kind in ("full", "tied") else inverse.square()
        factors = precision_factors(square, kind, 0.0)
    except ValueError as error:
        raise ValueError("precisions_init must be positive definite.") from error
    return mixture._replace(covariances=square, factors=factors)
