"""Where EM starts: a k-means clustering, random rows, or parameters given by the user."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import check_array
from torch import Tensor

from sklebm._shell.ranks import Ranks
from sklebm.energies import GaussianMixture, PrototypeEnergy
from sklebm.energies.gaussian_mixture import CovarianceType
from sklebm.inference.expectation_maximization import mixture_from_labels, precision_factors
from sklebm.inference.lloyd import RowSource, Slices, lloyd_steps
from sklebm.inference.pruned_lloyd import start_lloyd
from sklebm.inference.seeding import random_rows, seed_centers

_KMEANS_STEPS, _KMEANS_TOL = 300, 1e-4


class Given(NamedTuple):
    """Initial parameters from the user, validated; None where not given."""

    weights: Any
    means: Any
    precisions: Any

    def complete(self) -> bool:
        """True if nothing is left to choose."""
        return not any(value is None for value in self)


def covariance_shape(kind: CovarianceType, n_components: Any, n_features: Any) -> tuple[Any, ...]:
    """Shape of ``covariances_`` and of the arrays like it."""
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
        If one has the wrong shape, or the weights are not probabilities.
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


class Scaled:
    """Rows standardised column by column, in double precision.

    Clustering them does not depend on the units of the columns.
    """

    def __init__(self, x: RowSource, mean: Tensor, deviations: Tensor) -> None:
        self._x, self._mean = x, mean
        self._scale = torch.where(deviations > 0, deviations, 1.0)
        self.shape, self.device, self.dtype = x.shape, x.device, torch.float64

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, index: Any, /) -> Tensor:
        return self.scale(self._x[index])

    def scale(self, x: Tensor) -> Tensor:
        """Rows or points in these units."""
        return (x.double() - self._mean) / self._scale

    def restore(self, points: Tensor) -> Tensor:
        """Points in the units of the rows."""
        return points * self._scale + self._mean


class StartOptions(NamedTuple):
    """What a starting point depends on besides the rows."""

    n_components: int
    kind: CovarianceType
    init: str
    given: Given
    regularisation: Tensor
    mean: Tensor
    deviations: Tensor


def start_mixture(
    x: RowSource,
    weights: Tensor,
    parts: Slices,
    options: StartOptions,
    generator: torch.Generator,
    ranks: Ranks,
) -> GaussianMixture:
    """The mixture used by the first E step, float64 on the device of ``x``."""
    given, kind = options.given, options.kind
    own = Given(*(None if v is None else torch.from_numpy(v.copy()).to(x.device) for v in given))
    if own.complete():
        mixture = GaussianMixture(own.weights, own.means, own.precisions, own.precisions, kind)
    elif own.means is None and options.init == "random":
        mixture = _around_random_rows(x, weights, parts, options, generator, ranks)
    else:
        labels, centers = _cluster(x, weights, parts, options, own.means, generator, ranks)
        mixture = mixture_from_labels(
            labels, centers, x, weights, parts, kind, options.regularisation, ranks
        )
    if own.weights is not None:
        mixture = mixture._replace(weights=own.weights)
    if own.means is not None:
        mixture = mixture._replace(means=own.means)
    return mixture if own.precisions is None else _with_precisions(mixture, own.precisions)


def _cluster(
    x: RowSource,
    weights: Tensor,
    parts: Slices,
    options: StartOptions,
    means: Tensor | None,
    generator: torch.Generator,
    ranks: Ranks,
) -> tuple[Tensor, Tensor]:
    """Labels of the rows, and the centre of each label."""
    # Spherical components weigh all columns alike, and so must their starting point.
    alike = options.kind == "spherical"
    ones = torch.ones_like(options.deviations)
    zeros = torch.zeros_like(options.mean)
    rows = Scaled(x, zeros, ones) if alike else Scaled(x, options.mean, options.deviations)
    view: RowSource = x if alike else rows
    if means is not None:
        centers = rows.scale(means).to(view.dtype)
    else:
        centers = seed_centers(view, weights, options.n_components, parts, generator, ranks)
    if means is None and options.init == "kmeans":
        search = start_lloyd(view, weights, centers, parts, ranks)
        steps = lloyd_steps(search, centers, _KMEANS_TOL, ranks)
        for _ in range(_KMEANS_STEPS):
            labels, centers, settled = next(steps)
            if settled:
                break
    else:
        energy = PrototypeEnergy(centers)
        labels = torch.cat([energy.assign(view[part]) for part in parts])
    return labels, rows.restore(centers.double())


def _around_random_rows(
    x: RowSource,
    weights: Tensor,
    parts: Slices,
    options: StartOptions,
    generator: torch.Generator,
    ranks: Ranks,
) -> GaussianMixture:
    """Equal weights, means at random rows, and the covariance of all rows for each component."""
    k, kind = options.n_components, options.kind
    nothing = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    one = mixture_from_labels(
        nothing, options.mean[None], x, weights, parts, kind, options.regularisation, ranks
    )
    if kind != "tied":
        shape = covariance_shape(kind, k, x.shape[1])
        one = one._replace(
            covariances=one.covariances.expand(shape).clone(),
            factors=one.factors.expand(shape).clone(),
        )
    means = random_rows(x, weights, k, parts, generator, ranks).double()
    return one._replace(weights=means.new_full((k,), 1.0 / k), means=means)


def _with_precisions(mixture: GaussianMixture, precisions: Tensor) -> GaussianMixture:
    kind = mixture.covariance_type
    try:
        # precision_factors inverts: applied to precisions it gives covariance factors.
        inverse = precision_factors(precisions, kind)
        square = inverse @ inverse.mT if kind in ("full", "tied") else inverse.square()
        factors = precision_factors(square, kind)
    except ValueError as error:
        raise ValueError("precisions_init must be positive definite.") from error
    return mixture._replace(covariances=square, factors=factors)
