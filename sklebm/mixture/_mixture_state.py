"""A mixture as plain arrays: fitted attributes, and the state ``partial_fit`` continues from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sklebm._shell.gaps import rows_with_gaps
from sklebm._shell.state import Array, Flag, Record, Scalar, Spec
from sklebm.energies import GaussianMixture
from sklebm.energies.gaussian_mixture import CovarianceType
from sklebm.inference.conditional_gaussian import conditional_mean
from sklebm.inference.expectation_maximization import Statistics, precision_factors
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
        If ``flat`` was not exported by ``export_block`` for such a mixture.
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


def fitted_type(estimator: Any) -> CovarianceType:
    """The type of the fitted covariances, which holds even if the parameter is changed later."""
    factors, (k, d) = estimator.precisions_cholesky_, estimator.means_.shape
    if factors.ndim != 2:
        return "full" if factors.ndim == 3 else "spherical"
    # A triangular factor has a zero in this corner, unless it is a single number: then "tied" and
    # "diag" are the same model, and "diag" it is.
    return "diag" if factors.shape == (k, d) and factors[-1, 0] != 0 else "tied"


def fitted_mixture(estimator: Any, device: torch.device) -> GaussianMixture:
    """The fitted attributes as tensors that share their memory on the CPU."""
    weights, means, covariances, factors = (
        torch.from_numpy(getattr(estimator, name)).to(device) for name in _ARRAYS
    )
    return GaussianMixture(weights, means, covariances, factors, fitted_type(estimator))


def check_unchanged(estimator: Any, n_features: int) -> None:
    """Refuse to continue from a mixture whose size or type differs from the parameters."""
    fitted: dict[str, Any] = {"n_components": len(estimator.weights_)}
    if estimator.precisions_cholesky_.shape != (1, 1) or estimator.covariance_type != "tied":
        fitted["covariance_type"] = fitted_type(estimator)
    for name, value in fitted.items():
        if getattr(estimator, name) != value:
            raise ValueError(
                f"{name}={getattr(estimator, name)!r} differs from that of the fitted mixture, "
                f"{value!r}: set it back, or call fit to start again."
            )
    if estimator.means_.shape[1] != n_features:
        raise ValueError(
            f"X has {n_features} features, but the fitted mixture has {estimator.means_.shape[1]}: "
            "set warm_start=False to start again."
        )


def complete(estimator: Any, X: Any) -> Any:
    """Copy of X with conditional means in place of the missing entries."""
    rows = rows_with_gaps(estimator, X)
    mixture = fitted_mixture(estimator, rows.device)

    def fill(chunk: torch.Tensor) -> torch.Tensor:
        return conditional_mean(mixture, chunk.double(), torch.isnan(chunk))

    n_floats = 4 * len(estimator.weights_) * rows.shape[1]
    return rows.map(fill, floats_per_row=n_floats, what=f"{type(estimator).__name__}.complete")


def mixture_spec(estimator: Any) -> Spec:
    """Kind and shape of every fitted attribute."""
    shape = covariance_shape(estimator.covariance_type, "n_components", "n_features_in_")
    return {
        "weights_": Array("f", ("n_components",), of="weights"),
        "means_": Array("f", ("n_components", "n_features_in_"), of="means"),
        "precisions_cholesky_": Array("f", shape, of="factors"),
        "covariances_": Array("f", shape),
        "converged_": Flag(),
        "n_iter_": Scalar(int, 0),
        "lower_bound_": Scalar(float),
        "lower_bounds_": Array("f", (None,)),
        "n_samples_seen_": Scalar(float, 0.0),
        "reg_covar_": Array("f", ("n_features_in_",), optional=True),
        "training_state_": Record(),
    }


def with_factors(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters with precision factors, computed from the covariances if need be."""
    if "covariances" not in parameters or "precisions_cholesky" in parameters:
        return parameters
    covariances = torch.from_numpy(np.array(parameters["covariances"], dtype=np.float64))
    factors = precision_factors(covariances, parameters.get("covariance_type", "full"))
    return {**parameters, "precisions_cholesky": factors.numpy()}


def untrained(given: dict[str, Any]) -> dict[str, Any]:
    """Fitted attributes for a given mixture, which counts as one row per component."""
    factors, means = (np.asarray(given[name]) for name in ("precisions_cholesky_", "means_"))
    diagonal = factors.ndim == 1 or (factors.ndim == 2 and factors.shape == means.shape)
    if diagonal and not (factors.ndim == 2 and len(means) == means.shape[1] and _is_upper(factors)):
        covariances = factors**-2.0
    else:
        inverse = np.linalg.inv(factors)
        covariances = np.swapaxes(inverse, -1, -2) @ inverse
    return {
        "covariances_": covariances,
        "converged_": False,
        "n_iter_": 0,
        "lower_bound_": 0.0,
        "lower_bounds_": np.empty(0),
        "n_samples_seen_": float(len(means)),
        "training_state_": {},
    }


def _is_upper(factors: np.ndarray[Any, Any]) -> bool:
    return bool((np.tril(factors, -1) == 0).all() and len(factors) > 1)


def n_parameters(estimator: Any) -> int:
    """Number of free parameters of the fitted mixture."""
    k, d = estimator.means_.shape
    per_type = {"full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2, "diag": k * d}
    return int(per_type.get(fitted_type(estimator), k) + k * d + k - 1)
