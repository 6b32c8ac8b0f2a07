"""Common parts of Gaussians in principal axes: streamed moments, their spectrum, the density."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.private import Interval, RealNotInt, StrOptions
from sklebm._shell.progress import Progress
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import warn_of_unequal_spans
from sklebm._shell.state import Array, Scalar, Spec
from sklebm.base import EnergyEstimator
from sklebm.energies import QuadraticEnergy
from sklebm.linear._derived import Derived
from sklebm.linear._diagnosis import warn_of_dropped, warn_of_few_rows
from sklebm.linear._dimension import by_evidence, by_held_out_density
from sklebm.linear._moments import (
    Moments,
    RowMoments,
    add_rows,
    covariance_factor_of,
    covariance_of,
    empty_row_moments,
    freedom,
)
from sklebm.linear._spectrum import Spectrum, complement, spectrum_of, spectrum_of_factor

# Directions without variance get this fraction of their features' variance, so that movement
# along them is very atypical but has finite energy. The absolute floor is for constant data.
_RELATIVE_FLOOR = 1e-6
_ABSOLUTE_FLOOR = 1e-12
# A feature is dropped if it has at least this share in directions without variance.
_SHARE = 1e-6


def streams(estimator: Any) -> bool:
    """Whether the parameters need only sums over rows, for ``available_if``."""
    for name, value in (("shrinkage", "ledoit_wolf"), ("n_components", "held_out")):
        if getattr(estimator, name, None) == value:
            raise AttributeError(
                f'{name}="{value}" needs all rows at once, so there is no partial_fit: call fit, '
                f"or pass a number, such as the {name}_ of a fit to a part of the rows."
            )
    return True


class PrincipalGaussian(EnergyEstimator):
    """Base of Gaussians in principal axes; a subclass defines what its latent is."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EnergyEstimator._parameter_constraints,
        "n_components": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="neither"),
            StrOptions({"mle", "held_out"}),
            None,
        ],
        "ridge": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "shrinkage": [
            Interval(Real, 0, 1, closed="both"),
            StrOptions({"ledoit_wolf", "oas"}),
            None,
        ],
    }
    _min_rows_fit = 2  # a covariance needs two rows
    _computes_in_double = True
    _accepts_sparse = True
    _whitens = True  # the codes are divided by deviations

    n_components: Any
    ridge: Any = 0.0
    _compares_columns = False  # whether their units against each other change the density
    shrinkage: Any = None

    # Filled by fit.
    n_samples_seen_: float
    n_components_: int
    mean_: Any
    components_: Any
    explained_variance_: Any
    noise_variance_: float
    ridge_: float
    shrinkage_: float

    # ------------------------------------------------------------------ learning

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        weights = rows.columns.get("weight")
        total = math.inf if weights is None else rows.ranks.total(float(weights.sum()))
        if total <= 1:
            raise ValueError(
                f"sample_weight adds up to {total:.3g}, but a weight counts as so many copies of "
                "its row, and a covariance needs more than one: scale the weights up, for example "
                "to a mean of 1."
            )
        state = self._begin(rows)
        warn_of_few_rows(self, rows, state)
        return state

    def _begin(self, rows: Rows) -> dict[str, Any]:
        if self._compares_columns:
            warn_of_unequal_spans(type(self).__name__, rows)
        return self._solve(rows, empty_row_moments(rows.shape[1], rows.device))

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        if not self._is_fitted() or not self.n_samples_seen_:  # or made from parameters
            return self._begin(rows)
        seen = self.n_samples_seen_
        mean = torch.from_numpy(self.mean_).to(rows.device)
        own = vars(self).get("covariance_factor_")
        if own is not None:
            factor = torch.from_numpy(own * freedom(seen) ** 0.5).to(rows.device)
            return self._solve(rows, RowMoments(seen, mean, factor))
        scatter = torch.from_numpy(self.covariance_ * freedom(seen)).to(rows.device)
        return self._solve(rows, Moments(seen, mean, scatter))

    def _solve(self, rows: Rows, before: Moments | RowMoments) -> dict[str, Any]:
        weights = rows.columns.get("weight")
        moments = add_rows(rows, before, weights)
        wanted = self.n_components
        n_wanted = int(wanted) if isinstance(wanted, Integral) else None
        state: dict[str, Any] = {}
        if isinstance(moments, RowMoments):
            factor, variances = covariance_factor_of(moments)
            if not torch.isfinite(variances).all():
                # eigh would fail with an obscure error of its own; the shell names the cause
                return {"explained_variance_": variances.cpu().numpy()}
            spectrum = spectrum_of_factor(factor, variances, resolution_of(rows))
            state["covariance_factor_"] = np.sqrt(spectrum.variances)[:, None] * spectrum.directions
        else:
            covariance = covariance_of(moments)
            state["covariance_"] = covariance.cpu().numpy()
            if not torch.isfinite(covariance).all():
                return state
            spectrum = spectrum_of(covariance, resolution_of(rows), n_wanted)
            variances = covariance.diagonal()
        whole = float(moments.n_rows)
        state["n_samples_seen_"] = int(whole) if whole.is_integer() else whole
        state["mean_"] = moments.mean.cpu().numpy()
        n_kept = self._count_components(rows, spectrum, moments, weights)
        shrinkage = self._shrink(rows, spectrum, whole, moments.mean)
        state |= self._principal(spectrum, variances.cpu().numpy(), n_kept, shrinkage)
        if self._whitens and before.n_rows == 0 and not self._codes_are_whole(state):
            n_left_out = int((state["explained_variance_"] <= 0).sum())
            warn_of_dropped(n_left_out, state["dropped_features_"], rows.feature_names)
        return state

    @staticmethod
    def _codes_are_whole(state: dict[str, Any]) -> bool:
        return bool(state["ridge_"] > 0 or (state["explained_variance_"] > 0).all())

    def _shrink(self, rows: Rows, spectrum: Spectrum, n_rows: float, mean: torch.Tensor) -> float:
        """Weight of the multiple of the identity that is mixed into the covariance."""
        if self.shrinkage == "ledoit_wolf":
            rows.need_one_process('shrinkage="ledoit_wolf"')
            return _ledoit_wolf(rows, mean, n_rows, spectrum)
        if self.shrinkage == "oas" or (self.ridge == "auto" and self.shrinkage is None):
            return _oracle_approximating(spectrum, rows.shape[1], n_rows)
        return float(self.shrinkage or 0.0)

    def _count_components(
        self,
        rows: Rows,
        spectrum: Spectrum,
        moments: Moments | RowMoments,
        weights: torch.Tensor | None,
    ) -> int:
        wanted, n_features = self.n_components, rows.shape[1]
        # Few rows span few directions: no others are invented for them.
        rank = len(spectrum.variances)
        most = n_features if isinstance(moments, Moments) else max(rank, 1)
        if wanted is None:
            return most
        if wanted == "mle":
            return by_evidence(spectrum.variances, n_features, float(moments.n_rows))
        if wanted == "held_out":
            rows.need_one_process('n_components="held_out"')
            return by_held_out_density(rows.all().cpu().double(), weights, most)
        if isinstance(wanted, Integral):
            if int(wanted) > n_features:
                raise ValueError(
                    f"n_components={wanted} is larger than the number of features, {n_features}: "
                    f"choose n_components between 1 and {n_features}, a fraction of the variance, "
                    "or None for all."
                )
            return int(wanted)
        shares = np.cumsum(spectrum.variances) / (spectrum.total or 1.0)
        return min(int(np.searchsorted(shares, wanted)) + 1, most)

    def _principal(
        self, spectrum: Spectrum, own_variances: Any, n_kept: int, shrinkage: float
    ) -> dict[str, Any]:
        """Fitted attributes from the spectrum and the variances of the features."""
        n_features = len(own_variances)
        mean_variance = spectrum.total / n_features
        ridge = (0.0 if self.ridge == "auto" else float(self.ridge)) + shrinkage
        ridge *= mean_variance
        kept, components = spectrum.variances[:n_kept], spectrum.directions[:n_kept]
        n_missing = n_kept - len(kept)
        if n_missing > 0:
            kept = np.concatenate([kept, np.zeros(n_missing)])
            components = np.concatenate([components, complement(components, n_missing)])
        # The sign of an eigenvector is arbitrary: make its largest entry positive.
        largest = np.abs(components).argmax(axis=1)
        components = components * np.sign(components[np.arange(n_kept), largest])[:, None]
        n_modelled = n_kept if ridge > 0 else int(np.count_nonzero(kept))
        n_rest = n_features - n_modelled
        noise = 0.0
        if n_rest:
            rest = (1 - shrinkage) * spectrum.rest(n_modelled) / n_rest + ridge
            noise = max(rest, _floor(components[:n_modelled], own_variances, mean_variance))
        return {
            "components_": np.ascontiguousarray(components),
            "explained_variance_": kept.copy(),
            "explained_variance_ratio_": kept / (spectrum.total or 1.0),
            "n_components_": n_kept,
            "noise_variance_": noise,
            "ridge_": ridge,
            "shrinkage_": shrinkage,
            "dropped_features_": _dropped(spectrum, own_variances),
        }

    # ------------------------------------------------------------------ fitted state

    def _state_spec(self) -> Spec:
        kept, width = "n_components_", "n_features_in_"
        return {
            "n_samples_seen_": Scalar(float, 0.0),
            "n_components_": Scalar(int, 1),
            "mean_": Array("f", (width,), of="mean"),
            "covariance_": Array("f", (width, width), optional=True),
            "covariance_factor_": Array("f", (None, width), optional=True),
            "components_": Array("f", (kept, width), of="directions"),
            "explained_variance_": Array("f", (kept,), of="variances"),
            "explained_variance_ratio_": Array("f", (kept,)),
            # files written by older versions lack the first and contain the second
            "dropped_features_": Array("i", (None,), optional=True),
            "filters_": Array("f", (None, width), optional=True),
            "noise_variance_": Scalar(float, 0.0),
            "ridge_": Scalar(float, 0.0),
            "shrinkage_": Scalar(float, 0.0),
        }

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        n_components, n_features = np.shape(given["components_"])
        variances = np.asarray(given["explained_variance_"], dtype=np.float64)
        noise = float(given.get("noise_variance_", 0.0))
        total = float(variances.sum()) + noise * (n_features - n_components)
        return {
            "n_samples_seen_": 0,
            "n_components_": n_components,
            "explained_variance_ratio_": variances / (total or 1.0),
            "ridge_": 0.0,
            "shrinkage_": 0.0,
        } | ({"noise_variance_": 0.0} if n_components == n_features else {})

    def _rebuild(self, parameters: dict[str, torch.Tensor]) -> Any:
        return self._gaussian(parameters)

    def _gaussian(self, parameters: dict[str, torch.Tensor]) -> QuadraticEnergy:
        """The density: modelled variances along components, and the noise outside them."""
        variances = (1 - self.shrinkage_) * parameters["explained_variance_"] + self.ridge_
        n_modelled = int(torch.count_nonzero(variances))
        return QuadraticEnergy(
            parameters["mean_"],
            parameters["components_"][:n_modelled],
            variances[:n_modelled],
            residual_variance=self.noise_variance_,
        )

    def _modelled_variances(self) -> Any:
        """Variances of the density along ``components_``."""
        variances = (1 - self.shrinkage_) * self.explained_variance_ + self.ridge_
        return np.asarray(variances, dtype=np.float64)

    @Derived
    def covariance_(self) -> Any:
        """Covariance of the training rows from its factor, or that of given parameters."""
        factor = vars(self).get("covariance_factor_")
        return self.get_covariance() if factor is None else factor.T @ factor

    @Derived
    def covariance_factor_(self) -> Any:
        """F with ``covariance_ = F.T @ F``."""
        variances, vectors = np.linalg.eigh(self.covariance_)
        return np.sqrt(np.clip(variances, 0.0, None))[:, None] * vectors.T

    @Derived
    def singular_values_(self) -> Any:
        """Singular values of the centred training rows."""
        return np.sqrt(self.explained_variance_ * max(self.n_samples_seen_ - 1, 1))

    # ------------------------------------------------------------------ the density

    def get_covariance(self) -> Any:
        """Return the covariance of the Gaussian that ``score_samples`` evaluates.

        Returns
        -------
        covariance : ndarray of shape (n_features, n_features)
            Modelled variances along the components, ``noise_variance_`` in every other direction.
        """
        return self._rotated(lambda variances: variances)

    def get_precision(self) -> Any:
        """Return the inverse of ``get_covariance()``, without inverting a matrix.

        Returns
        -------
        precision : ndarray of shape (n_features, n_features)
            The precision of the Gaussian.
        """
        return self._rotated(np.reciprocal)

    def _rotated(self, function: Callable[[Any], Any]) -> Any:
        """V' f(v) V + (I - V'V) f(s): the symmetric matrix that applies f to each variance."""
        check_is_fitted(self)
        energy = self._own_gaussian()
        directions, variances = energy.directions.numpy(), function(energy.variances.numpy())
        n_features, rest = directions.shape[1], 0.0
        if len(directions) < n_features:
            rest = float(function(np.float64(self.noise_variance_)))
        matrix = (directions.T * (variances - rest)) @ directions
        matrix[np.diag_indices(n_features)] += rest
        return matrix

    def _draw(self, n_samples: int, random_state: RandomState) -> Any:
        """Independent draws from the density, float64."""
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples={n_samples!r} must be a positive integer.")
        generator = make_generator(draw_seed(random_state), "sample")
        return self._own_gaussian().sample(int(n_samples), generator).numpy()

    def _own_gaussian(self) -> QuadraticEnergy:
        names = ("mean_", "components_", "explained_variance_")
        arrays = (np.asarray(getattr(self, name), dtype=np.float64) for name in names)
        return self._gaussian(dict(zip(names, map(torch.from_numpy, arrays), strict=True)))


def inverse_roots(variances: Any) -> Any:
    """v^-1/2, and 0 where there is no variance."""
    return np.divide(1.0, np.sqrt(variances), out=np.zeros_like(variances), where=variances > 0)


def _oracle_approximating(spectrum: Spectrum, n_features: int, n_rows: float) -> float:
    """The shrinkage of Chen, Wiesel, Eldar & Hero (2010), which needs only sums."""
    square, mean = spectrum.squares / n_features**2, spectrum.total / n_features
    spread = (n_rows + 1) * (square - mean**2 / n_features)
    if spread <= 0:  # a multiple of the identity already
        return 1.0 if spectrum.total else 0.0
    return min((square + mean**2) / spread, 1.0)


def _ledoit_wolf(rows: Rows, mean: torch.Tensor, n_rows: float, spectrum: Spectrum) -> float:
    """The shrinkage of Ledoit & Wolf (2004), from the fourth powers of the rows' lengths."""
    weights, fourth = rows.columns.get("weight"), 0.0
    for part in rows.chunks(3 * rows.shape[1]):
        lengths = (rows[part].double() - mean).square().sum(dim=1).square()
        fourth += float(lengths.sum() if weights is None else lengths @ weights[part])
    ratio = (n_rows - 1) / n_rows  # variances with the divisor n
    squares, total = ratio**2 * spectrum.squares, ratio * spectrum.total
    distance = squares - total**2 / rows.shape[1]
    if distance <= 0:  # a multiple of the identity already
        return 1.0 if rows.shape[1] == 1 and total else 0.0
    return min(max(fourth / n_rows - squares, 0.0) / n_rows / distance, 1.0)


def _floor(components: Any, own_variances: Any, mean_variance: float) -> float:
    """A millionth of the variance that features have outside the span of the components."""
    outside = np.clip(1.0 - np.square(components).sum(axis=0), 0.0, 1.0)
    natural = np.where(own_variances > 0, own_variances, mean_variance)
    floor = _RELATIVE_FLOOR * float(outside @ natural) / max(float(outside.sum()), 1e-300)
    return floor or _ABSOLUTE_FLOOR


def _dropped(spectrum: Spectrum, own_variances: Any) -> Any:
    """Features that take part in directions without variance."""
    dropped = own_variances <= 0
    zero = spectrum.variances == 0
    if zero.any():  # all directions are there
        dropped = dropped | (np.square(spectrum.directions[zero]).sum(axis=0) > _SHARE)
    return np.flatnonzero(dropped)


def resolution_of(rows: Rows) -> float:
    """Smallest relative variance that is not rounding error, given the precision of the input."""
    single = rows.dtype is torch.float32
    eps = np.finfo(np.float32).eps ** 2 if single else np.finfo(np.float64).eps
    return float(10 * rows.shape[1] * eps)
