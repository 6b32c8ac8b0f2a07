"""From rows or their sums to the fitted attributes of a Gaussian energy."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from sklearn.covariance import ledoit_wolf
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from sklebm._shell.rows import Rows
from sklebm._shell.warning import warn
from sklebm.energies import PrecisionEnergy
from sklebm.linear._contrastive import noise_contrastive
from sklebm.linear._moments import Moments, stands_still
from sklebm.linear._newton import Observer, ignore
from sklebm.linear._precision import Solution, inverse, maximum_likelihood, score_matching
from sklebm.linear._structure import Entries

# Added to the diagonal of a singular covariance, as a fraction of the mean variance; the absolute
# floor is for constant data.
_RELATIVE_FLOOR = 1e-6
_ABSOLUTE_FLOOR = 1e-12
_LEAST_RIDGE = 2.0**-20


class Settings(NamedTuple):
    """Parameters of the fit."""

    objective: str
    ridge: float
    finds_ridge: bool
    tol: float
    max_iter: int
    observe: Observer = ignore


def fit_sums(moments: Moments, entries: Entries, settings: Settings) -> dict[str, Any]:
    """Fitted attributes by maximum likelihood or score matching."""
    covariance = _covariance(moments)
    ridge = settings.ridge * float(covariance.diagonal().mean())
    covariance, ridge, whole = _positive_definite(covariance, ridge)
    n_free = len(entries)
    if n_free == entries.n_features * (entries.n_features + 1) // 2:
        solution = Solution(whole, 1, True)
    elif n_free == entries.n_features:  # the variances alone, whatever the objective
        solution = Solution(covariance.diagonal().reciprocal().diag(), 1, True)
    elif settings.objective == "maximum_likelihood":
        solution = maximum_likelihood(
            covariance,
            entries,
            tol=settings.tol,
            max_iter=settings.max_iter,
            observe=settings.observe,
        )
    else:
        solution, ridge = _score_matching(covariance, ridge, entries, settings)
    _check_convergence(solution.converged, solution.n_iter, settings)
    return _state(solution.precision, moments.mean, solution.n_iter, ridge, settings)


def _covariance(moments: Moments) -> Tensor:
    """Covariance (divisor n); features that vary only by rounding, as sums of chunks do, get 0."""
    covariance = moments.scatter / moments.n_rows
    still = stands_still(covariance.diagonal(), moments.mean)
    return covariance.masked_fill(still | still[:, None], 0.0)


def _score_matching(
    covariance: Tensor, ridge: float, entries: Entries, settings: Settings
) -> tuple[Solution, float]:
    """The solution, and the ridge that makes it positive definite, if the ridge is free.

    With a large ridge, S is close to a multiple of the identity and P to its inverse, so a suitable
    ridge exists: the smallest of the mean variance times 2^-20, 2^-19, ...
    """
    solution = score_matching(covariance, entries, tol=settings.tol)
    extra = _LEAST_RIDGE * float(covariance.diagonal().mean())
    first = ridge
    while settings.finds_ridge and not _is_positive_definite(solution.precision):
        identity = torch.eye(len(covariance)).to(covariance)
        solution = score_matching(covariance + extra * identity, entries, tol=settings.tol)
        ridge, extra = first + extra, 2 * extra
    return solution, ridge


def _is_positive_definite(precision: Tensor) -> bool:
    scale = precision.diagonal().clamp(min=0.0).sqrt()
    if not bool((scale > 0).all()):
        return False
    return int(torch.linalg.cholesky_ex(precision / scale[:, None] / scale)[1]) == 0


def _positive_definite(covariance: Tensor, ridge: float) -> tuple[Tensor, float, Tensor]:
    """S plus the ridge, or plus the floor if it is singular without one; and the inverse."""
    identity = torch.eye(len(covariance)).to(covariance)
    regular = covariance + ridge * identity
    found = inverse(regular)
    if found is None:
        floor = _RELATIVE_FLOOR * float(covariance.diagonal().mean())
        ridge = max(ridge, floor) or _ABSOLUTE_FLOOR
        regular = covariance + ridge * identity
        found = inverse(regular)
    if found is None:
        raise ValueError(
            "The covariance of X is singular to working precision even with a ridge of "
            f"{ridge:.3g}: the scales of the features differ too much. Use StandardScaler first, "
            "or raise ridge."
        )
    return regular, ridge, found


def fit_rows(
    rows: Rows,
    moments: Moments,
    entries: Entries,
    settings: Settings,
    n_noise: int,
    noise_scale: float | None,
    generator: torch.Generator,
) -> dict[str, Any]:
    """Fitted attributes by noise-contrastive estimation, conditional if ``noise_scale`` is given.

    Rows are standardised first, so that the optimiser sees features of the same scale.
    """
    if settings.ridge:
        raise ValueError(
            f"ridge={settings.ridge} does not apply to objective={settings.objective!r}: leave it "
            "out."
        )
    variances = _covariance(moments).diagonal()
    floor = _RELATIVE_FLOOR * float(variances.mean()) or _ABSOLUTE_FLOOR
    scale = variances.clamp(min=floor).sqrt()
    data = (rows.all().double() - moments.mean) / scale
    noise_covariance = torch.from_numpy(ledoit_wolf(data.cpu().numpy())[0]).to(data)
    noise_covariance.diagonal().add_(_RELATIVE_FLOOR)
    learnt = noise_contrastive(
        data,
        entries,
        torch.linalg.cholesky(noise_covariance),
        generator,
        n_noise=n_noise,
        noise_scale=noise_scale,
        tol=settings.tol,
        max_iter=settings.max_iter,
        observe=settings.observe,
    )
    _check_convergence(learnt.converged, learnt.n_iter, settings)
    factor = _factor(learnt.precision, settings)
    shift = torch.cholesky_solve(learnt.linear[:, None], factor)[:, 0]
    location = moments.mean + scale * shift
    precision = learnt.precision / scale[:, None] / scale
    state = _state(precision, location, learnt.n_iter, 0.0, settings)
    if learnt.constant is not None:
        # f(u) = -F(x) + constant + 1/2 h'Q^-1 h is the log density of u = (x - mean) / scale
        peak = learnt.constant + 0.5 * float(learnt.linear @ shift)
        state["estimated_log_partition_"] = float(scale.log().sum()) - peak
    return state


def _check_convergence(converged: bool, n_iter: int, settings: Settings) -> None:
    if not converged:
        warn(
            f"objective={settings.objective!r} did not reach tol={settings.tol} in {n_iter} "
            "iterations: raise max_iter or tol, or scale X.",
            ConvergenceWarning,
        )


def _factor(precision: Tensor, settings: Settings) -> Tensor:
    factor: Tensor
    factor, failure = torch.linalg.cholesky_ex(precision)
    if int(failure):
        least = float(torch.linalg.eigvalsh(precision)[0])
        raise ValueError(
            f"objective={settings.objective!r} found a precision that is not positive definite "
            f"(least eigenvalue {least:.3g}), so there is no density. "
            'Raise ridge, pass more rows, or use objective="maximum_likelihood": its precision is '
            "always positive definite."
        )
    return factor


def _state(
    precision: Tensor, location: Tensor, n_iter: int, ridge: float, settings: Settings
) -> dict[str, Any]:
    scale = precision.diagonal().clamp(min=0.0).sqrt()
    scale = torch.where(scale > 0, scale, 1.0)
    factor = scale[:, None] * _factor(precision / scale[:, None] / scale, settings)
    log_partition = PrecisionEnergy(location, factor).log_partition()
    if not math.isfinite(log_partition):
        raise ValueError(
            f"The precision overflows (log Z is {log_partition}). Scale X, for example with "
            "StandardScaler."
        )
    return {
        "precision_": precision.cpu().numpy(),
        "covariance_": torch.cholesky_inverse(factor).cpu().numpy(),
        "location_": location.cpu().numpy(),
        "log_partition_": log_partition,
        "estimated_log_partition_": None,
        "ridge_": ridge,
        "n_iter_": n_iter,
    }
