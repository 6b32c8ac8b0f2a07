"""How mixtures are fitted: EM over all rows from a starting point, and the result."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.ranks import Ranks
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import column_deviations
from sklebm._shell.warning import warn
from sklebm.energies import GaussianMixture
from sklebm.inference.expectation_maximization import em_step
from sklebm.inference.lloyd import RowSource, Slices, column_moments
from sklebm.inference.online_em import online_pass
from sklebm.iterative import Draw
from sklebm.mixture._mixture_start import StartOptions, start_mixture
from sklebm.mixture._mixture_state import (
    check_unchanged,
    export_block,
    fitted_arrays,
    fitted_mixture,
    import_block,
)
from sklebm.mixture._range import check_range

# Part of the variances that reg_covar adds, above which it takes the place of missing rows.
_MUCH_ADDED = 1e-3

# What reg_covar="auto" adds, as a fraction of a column's variance.
_SHARE = 1e-6


class MixtureRun(NamedTuple):
    """A run of EM: the mixture, and the mean log likelihood before each step so far."""

    mixture: GaussianMixture
    bounds: tuple[float, ...] = ()
    settled: bool = False


class MixtureProblem(NamedTuple):
    """Rows and their weights, shared by all runs."""

    x: RowSource
    weights: Tensor
    parts: Slices
    ranks: Ranks
    options: StartOptions

    def start(self, draw: Draw) -> MixtureRun:
        """Start from a clustering, random rows, or the user's parameters."""
        x, weights, parts, ranks = self.x, self.weights, self.parts, self.ranks
        return MixtureRun(
            start_mixture(x, weights, parts, self.options, draw("start"), ranks),
        )

    def step(self, run: MixtureRun, tol: float) -> MixtureRun:
        """One EM step; settled if the mean log likelihood changed by less than ``tol``."""
        bound, mixture = em_step(
            run.mixture,
            self.x,
            self.weights,
            self.parts,
            self.options.regularisation,
            self.ranks,
        )
        settled = bool(run.bounds) and abs(bound - run.bounds[-1]) < tol
        return MixtureRun(mixture, (*run.bounds, bound), settled)

    def report(self, run: MixtureRun) -> dict[str, float]:
        """The mean log likelihood before the last step."""
        return {"lower_bound": run.bounds[-1]}

    def state(self, run: MixtureRun, n_iter: int) -> dict[str, Any]:
        """Every fitted attribute after a run."""
        regularisation = self.options.regularisation.expand(self.x.shape[1])
        return {
            **fitted_arrays(run.mixture),
            "converged_": run.settled,
            "n_iter_": n_iter,
            "lower_bound_": run.bounds[-1],
            "lower_bounds_": np.asarray(run.bounds),
            "n_samples_seen_": float(self.ranks.sum(self.weights.sum())),
            "reg_covar_": regularisation.cpu().numpy().copy(),
            "training_state_": {},
        }


def make_problem(
    estimator: Any, rows: Rows, x: RowSource, weights: Tensor, parts: Slices, given: Any
) -> MixtureProblem:
    """Rows with their weights and scales; refuses rows whose squares overflow."""
    for part in parts:
        check_range(x[part].double())
    mean, variance = column_moments(x, weights, parts, rows.ranks)
    deviations = column_deviations(mean, variance)
    kind = estimator.covariance_type
    regularisation = regularise(estimator.reg_covar, deviations, alike=kind == "spherical")
    options = StartOptions(
        estimator.n_components, kind, estimator.init, given, regularisation, mean, deviations
    )
    return MixtureProblem(x, weights, parts, rows.ranks, options)


def warn_of_few_rows(estimator: Any, rows: Rows, state: dict[str, Any]) -> None:
    """Warn if most of a mixture has full covariances of fewer rows than features."""
    kind, n_features = estimator.covariance_type, rows.shape[1]
    if kind not in ("full", "tied"):
        return
    each = state["weights_"] * rows.total()  # rows of every component
    share = float(state["weights_"][each <= n_features].sum())
    if kind == "tied":
        share = float(rows.total() - len(each) < n_features)
    variances = np.diagonal(state["covariances_"], axis1=-2, axis2=-1)
    added = state["reg_covar_"] / np.maximum(variances, np.finfo(np.float64).tiny)
    if share <= 0.5 or np.median(added) > _MUCH_ADDED:
        return
    warn(
        f"{type(estimator).__name__} was fitted to {rows.total()} rows of {n_features} features, "
        f"too few for {len(each)} component(s) with covariance_type={kind!r}: the scores of new "
        'rows will be very low. Use covariance_type="diag", fewer components or features, or more '
        "rows."
    )


def regularise(reg_covar: Any, deviations: Tensor, *, alike: bool) -> Tensor:
    """What is added to the variances: a number, or a fraction of each column's variance.

    A constant column gets the average of the others; with ``alike`` all columns get it.
    """
    if reg_covar != "auto":
        return torch.tensor(float(reg_covar), dtype=torch.float64, device=deviations.device)
    variances = deviations.square()
    if not bool(variances.any()):
        return torch.full_like(variances, _SHARE)
    if alike:
        return _SHARE * variances.mean().expand_as(variances)
    return _SHARE * torch.where(variances > 0, variances, variances[variances > 0].mean())


def deviations_of(mixture: GaussianMixture) -> Tensor:
    """The mean standard deviation of each feature within the components."""
    covariances, kind = mixture.covariances, mixture.covariance_type
    if kind == "spherical":
        return covariances.mean().sqrt().expand(mixture.means.shape[1])
    variances = covariances if kind == "diag" else covariances.diagonal(dim1=-2, dim2=-1)
    return variances.reshape(-1, mixture.means.shape[1]).mean(dim=0).sqrt()


def learn_online(estimator: Any, rows: Rows, weights: Tensor) -> dict[str, Any]:
    """Every fitted attribute after mini-batch EM on rows that are not kept."""
    check_unchanged(estimator, rows.shape[1])
    mixture = fitted_mixture(estimator, rows.device)
    start = import_block(estimator.training_state_, mixture, float(estimator.n_samples_seen_))
    known = getattr(estimator, "reg_covar_", None)
    if known is None:  # made from parameters, whose units are those of the rows
        regularisation = regularise(estimator.reg_covar, deviations_of(mixture), alike=False)
    else:
        regularisation = torch.from_numpy(known).to(rows.device)
        asked = estimator.reg_covar
        if asked != "auto" and not np.allclose(known, asked, rtol=1e-9, atol=0.0):
            raise ValueError(
                f"reg_covar={asked} differs from what the fitted covariances hold, "
                f"{float(regularisation.mean()):.3g}: set it back, or fit with warm_start=False."
            )
    x = check_range(rows.all().double())
    state, mixture, bound, n_closed = online_pass(
        start, x, weights, estimator.batch_size, regularisation
    )
    return {
        **fitted_arrays(mixture),
        "converged_": estimator.converged_,
        "n_iter_": estimator.n_iter_ + n_closed,
        "lower_bound_": bound,
        "lower_bounds_": estimator.lower_bounds_,
        "n_samples_seen_": estimator.n_samples_seen_ + float(weights.sum()),
        "reg_covar_": regularisation.expand(rows.shape[1]).cpu().numpy().copy(),
        "training_state_": export_block(state),
    }
