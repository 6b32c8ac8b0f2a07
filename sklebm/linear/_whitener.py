"""What the whiteners share: streamed moments, eigenvectors, and the Gaussian they define."""

from __future__ import annotations

from abc import abstractmethod
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.utils.metaestimators import available_if

from sklebm._shell.private import Interval, StrOptions, fit_context
from sklebm._shell.progress import Progress
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Scalar, Spec
from sklebm.base import EnergyEstimator
from sklebm.energies import QuadraticEnergy
from sklebm.linear._moments import Moments, covariance_of, empty_moments, stream_moments
from sklebm.linear._spectrum import principal_axes

# Directions without variance get this fraction of the mean variance when rows are scored, so that
# movement along them is very atypical yet finite. The absolute floor serves constant data.
_RELATIVE_FLOOR = 1e-6
_ABSOLUTE_FLOOR = 1e-12


def _streams(estimator: Any) -> bool:
    if estimator.shrinkage != "ledoit_wolf":
        return True
    raise AttributeError(
        'shrinkage="ledoit_wolf" needs all rows at once, so there is no partial_fit: call fit, or '
        "pass a number, such as the shrinkage_ of a fit to a part of the rows."
    )


class Whitener(EnergyEstimator):
    """Base of the whiteners; a subclass says how coordinates are rotated."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EnergyEstimator._parameter_constraints,
        "n_components": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Real, 0, 1, closed="neither"),
            None,
        ],
        "ridge": [Interval(Real, 0, None, closed="left")],
        "shrinkage": [
            Interval(Real, 0, 1, closed="both"),
            StrOptions({"ledoit_wolf"}),
            None,
        ],
    }
    _min_rows_fit = 2  # a covariance needs two rows
    _computes_in_double = True

    def __init__(
        self,
        n_components: int | float | None = None,
        *,
        ridge: float = 0.0,
        shrinkage: float | Literal["ledoit_wolf"] | None = None,
        device: str | torch.device = "auto",
        strategy: Literal["ddp"] | None = None,
    ) -> None:
        self.n_components = n_components
        self.ridge = ridge
        self.shrinkage = shrinkage
        self.device = device
        self.strategy = strategy

    @available_if(_streams)
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Add a chunk of rows to the statistics; any chunks give what one ``fit`` gives.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The next chunk of training rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.

        Returns
        -------
        self : object
            The updated estimator. An exception or an interrupt leaves it as it was before.

        Raises
        ------
        AttributeError
            With ``shrinkage="ledoit_wolf"``, which needs all rows at once.
        """
        return self._learn(X, self._partial_fit, first=not self._is_fitted())

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        return self._solve(rows, empty_moments(rows.shape[1], rows.device))

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        if not self._is_fitted():
            return self._fit(rows, progress)
        seen = self.n_samples_seen_
        scatter = torch.from_numpy(self.covariance_ * max(seen - 1, 1)).to(rows.device)
        mean = torch.from_numpy(self.mean_).to(rows.device)
        return self._solve(rows, Moments(seen, mean, scatter))

    def _solve(self, rows: Rows, moments: Moments) -> dict[str, Any]:
        moments = stream_moments(rows, moments)
        covariance = covariance_of(moments)
        if not torch.isfinite(covariance).all():
            # eigh would answer with an obscure failure of its own; the shell names the cause
            return {"covariance_": covariance.cpu().numpy()}
        variances, vectors = principal_axes(covariance, 10 * rows.shape[1] * _resolution(rows))
        return {
            "n_samples_seen_": moments.n_rows,
            "mean_": moments.mean.cpu().numpy(),
            "covariance_": covariance.cpu().numpy(),
            **self._spectrum(variances.cpu().numpy(), vectors.cpu().numpy(), self._shrink(rows)),
        }

    def _shrink(self, rows: Rows) -> float:
        """Weight of the multiple of the identity that the covariance is mixed with."""
        if self.shrinkage == "ledoit_wolf":
            rows.need_one_process('shrinkage="ledoit_wolf"')
            return float(ledoit_wolf_shrinkage(rows.to_numpy().astype(np.float64, copy=False)))
        return float(self.shrinkage or 0.0)

    def _spectrum(self, variances: Any, vectors: Any, shrinkage: float) -> dict[str, Any]:
        """Fitted attributes from all variances (descending) and directions (rows)."""
        mean_variance = float(variances.mean())
        ridge = (float(self.ridge) + shrinkage) * mean_variance
        n_kept = self._count_components(variances)
        # The sign of an eigenvector is arbitrary: make its largest entry positive.
        largest = np.abs(vectors).argmax(axis=1)
        vectors = vectors * np.sign(vectors[np.arange(len(vectors)), largest])[:, None]
        kept = variances[:n_kept]
        n_modelled = n_kept if ridge > 0 else int(np.count_nonzero(kept))
        residual = variances[n_modelled:]
        floor = max(_RELATIVE_FLOOR * mean_variance, _ABSOLUTE_FLOOR)
        noise = (1 - shrinkage) * float(residual.mean()) + ridge if len(residual) else 0.0
        total = max(float(variances.sum()), _ABSOLUTE_FLOOR)
        components = np.ascontiguousarray(vectors[:n_kept])
        scale = np.zeros(n_kept)
        scale[:n_modelled] = 1.0 / np.sqrt((1 - shrinkage) * kept[:n_modelled] + ridge)
        return {
            "components_": components,
            "explained_variance_": kept.copy(),
            "explained_variance_ratio_": kept / total,
            "n_components_": n_kept,
            "noise_variance_": max(noise, floor) if len(residual) else 0.0,
            "ridge_": ridge,
            "shrinkage_": shrinkage,
            "filters_": self._filters(components, scale),
        }

    def _count_components(self, variances: Any) -> int:
        wanted, n_features = self.n_components, len(variances)
        if wanted is None:
            return n_features
        if isinstance(wanted, Integral):
            if wanted > n_features:
                raise ValueError(
                    f"n_components={wanted} is larger than the number of features, {n_features}: "
                    f"choose n_components between 1 and {n_features}, a fraction of the variance, "
                    "or None for all."
                )
            return int(wanted)
        shares = np.cumsum(variances) / max(float(variances.sum()), _ABSOLUTE_FLOOR)
        return min(int(np.searchsorted(shares, wanted)) + 1, n_features)

    @abstractmethod
    def _filters(self, components: Any, scale: Any) -> Any:
        """The rows that X minus its mean is multiplied with by ``transform``."""

    def _state_spec(self) -> Spec:
        width, kept = self.n_features_in_, self.n_components_
        return {
            "n_samples_seen_": Scalar(int, 1),
            "n_components_": Scalar(int, 1),
            "mean_": Array("f", (width,)),
            "covariance_": Array("f", (width, width)),
            "components_": Array("f", (kept, width)),
            "explained_variance_": Array("f", (kept,)),
            "explained_variance_ratio_": Array("f", (kept,)),
            "filters_": Array("f", (self._n_features_out, width)),
            "noise_variance_": Scalar(float, 0.0),
            "ridge_": Scalar(float, 0.0),
            "shrinkage_": Scalar(float, 0.0),
        }

    def _energy(self, device: torch.device) -> QuadraticEnergy:
        variances = (1 - self.shrinkage_) * self.explained_variance_ + self.ridge_
        n_modelled = int(np.count_nonzero(variances))
        arrays = (self.mean_, self.components_[:n_modelled], variances[:n_modelled])
        mean, directions, kept = (torch.from_numpy(array).to(device) for array in arrays)
        return QuadraticEnergy(mean, directions, kept, residual_variance=self.noise_variance_)

    def free_energy(self, X: Any) -> Any:
        """Return half the squared Mahalanobis distance to the mean.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to measure.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            ``-log p(x) - log Z`` in nats under the Gaussian with the modelled covariance.
        """
        return self._map_rows(X, lambda energy, x: energy.free_energy(x), "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return the Gaussian log density of each row; the normaliser is exact.

        The covariance has variance ``(1 - shrinkage_) * explained_variance_ + ridge_`` along each
        component and ``noise_variance_`` in every other direction, as in probabilistic PCA
        (Tipping & Bishop, 1999). Directions in which the training rows never moved get a small
        positive variance, so that movement along them scores low.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        log_density : array or tensor of shape (n_samples,)
            log p(x) in nats; higher is more typical.
        """

        def log_density(energy: QuadraticEnergy, x: torch.Tensor) -> torch.Tensor:
            return -energy.free_energy(x) - energy.log_partition()

        return self._map_rows(X, log_density, "score_samples")


def _resolution(rows: Rows) -> float:
    """Smallest relative variance that is not rounding, given the precision of the input."""
    single = rows.dtype is torch.float32
    return float(np.finfo(np.float32).eps ** 2 if single else np.finfo(np.float64).eps)
