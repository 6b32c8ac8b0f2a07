"""What a fitted Gaussian mixture can do: posteriors, densities, samples, completion, criteria."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted, validate_data

from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import Rows, resolve_device
from sklebm._shell.state import Array, Flag, Record, Scalar, Spec
from sklebm.base import EnergyEstimator
from sklebm.energies import GaussianMixture, GaussianMixtureEnergy
from sklebm.energies.gaussian_mixture import CovarianceType
from sklebm.inference.conditional_gaussian import conditional_mean
from sklebm.mixture._mixture_start import covariance_shape
from sklebm.mixture._mixture_state import fitted_arrays
from sklebm.mixture._range import check_range


class MixtureEstimator(EnergyEstimator):
    """Base of mixtures of Gaussians; a subclass says how they are fitted."""

    _computes_in_double = True
    _continues_from = "training_state_"

    n_components: int
    covariance_type: Any
    weights_: Any
    means_: Any
    covariances_: Any
    precisions_cholesky_: Any

    def _n_parameters(self) -> int:
        k, d = self.means_.shape
        per_type = {"full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2, "diag": k * d}
        return int(per_type.get(self._fitted_type(), k) + k * d + k - 1)

    @property
    def precisions_(self) -> Any:
        """Inverse covariances, of the shape of ``covariances_``."""
        factors = self.precisions_cholesky_
        if self._fitted_type() in ("full", "tied"):
            return factors @ np.swapaxes(factors, -1, -2)
        return factors**2

    def _check_unchanged(self) -> None:
        """Refuse to go on from a mixture of another size or type than the parameters ask for."""
        fitted: dict[str, Any] = {"n_components": len(self.weights_)}
        if self.precisions_cholesky_.shape != (1, 1) or self.covariance_type != "tied":
            fitted["covariance_type"] = self._fitted_type()
        for name, value in fitted.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} differs from that of the fitted mixture, "
                    f"{value!r}: set it back, or call fit to start again."
                )

    def _check_row_count(self, n_rows: int) -> None:
        if n_rows < self.n_components:
            raise ValueError(
                f"n_samples={n_rows} should be >= n_components={self.n_components}: lower "
                "n_components or pass more rows (of positive weight)."
            )

    def _state(
        self,
        mixture: GaussianMixture,
        bounds: list[float],
        converged: bool,
        n_iter: int,
        n_seen: float,
    ) -> dict[str, Any]:
        """Every fitted attribute after EM."""
        return {
            **fitted_arrays(mixture),
            "converged_": converged,
            "n_iter_": n_iter,
            "lower_bound_": bounds[-1],
            "lower_bounds_": np.asarray(bounds),
            "n_samples_seen_": n_seen,
            "training_state_": {},
        }

    def _state_spec(self) -> Spec:
        k, d = self.n_components, self.n_features_in_
        shape = covariance_shape(self.covariance_type, k, d)
        return {
            "weights_": Array("f", (k,)),
            "means_": Array("f", (k, d)),
            "covariances_": Array("f", shape),
            "precisions_cholesky_": Array("f", shape),
            "converged_": Flag(),
            "n_iter_": Scalar(int, 1),
            "lower_bound_": Scalar(float),
            "lower_bounds_": Array("f", (None,)),
            "n_samples_seen_": Scalar(float, 0.0),
            "training_state_": Record(),
        }

    def _mixture(self, device: torch.device) -> GaussianMixture:
        arrays = (self.weights_, self.means_, self.covariances_, self.precisions_cholesky_)
        weights, means, covariances, factors = (torch.from_numpy(a).to(device) for a in arrays)
        return GaussianMixture(weights, means, covariances, factors, self._fitted_type())

    def _fitted_type(self) -> CovarianceType:
        """The type of the fitted covariances, which stays if the parameter is changed later."""
        factors, (k, d) = self.precisions_cholesky_, self.means_.shape
        if factors.ndim != 2:
            return "full" if factors.ndim == 3 else "spherical"
        # A triangular factor has a zero in this corner, unless it is a single number: then "tied"
        # and "diag" are the same model, and "diag" it is.
        return "diag" if factors.shape == (k, d) and factors[-1, 0] != 0 else "tied"

    def _energy(self, device: torch.device) -> GaussianMixtureEnergy:
        return self._mixture(device).energy()

    def _floats_per_row(self) -> int:
        return 4 * int(self.n_features_in_) + 4 * len(self.weights_)

    @property
    def _n_features_out(self) -> int:
        return len(self.weights_)

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit to X and return the most probable component of each of its rows.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Training rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        labels : array or tensor of shape (n_samples,)
            The same as ``fit(X).predict(X)``.
        """
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def predict(self, X: Any) -> Any:
        """Return the most probable component of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to assign.

        Returns
        -------
        labels : array or tensor of shape (n_samples,)
            Index of the component of least energy.
        """
        return self._map_rows(X, lambda energy, x: energy.assign(check_range(x)), "predict")

    def predict_proba(self, X: Any) -> Any:
        """Return the responsibilities p(z | x), as ``transform`` does, never as a data frame.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to assign.

        Returns
        -------
        responsibilities : array or tensor of shape (n_samples, n_components)
            Posterior probabilities; each row sums to one.
        """
        return self._map_rows(X, lambda energy, x: energy.responsibilities(x), "predict_proba")

    def transform(self, X: Any) -> Any:
        """Return the responsibilities p(z | x): the posterior mean of the one-hot latent.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components)
            Posterior probabilities of the components; each row sums to one.
        """
        return self._map_rows(X, lambda energy, x: energy.responsibilities(x), "transform")

    def inverse_transform(self, Z: Any) -> Any:
        """Return the means that the latents stand for, Z M.

        Parameters
        ----------
        Z : array-like or tensor of shape (n_samples, n_components)
            One-hot codes or responsibilities.

        Returns
        -------
        X : array or tensor of shape (n_samples, n_features)
            Combinations of ``means_``.
        """
        decode = lambda energy, z: z @ energy.means  # noqa: E731
        return self._map_rows(Z, decode, "inverse_transform", latents=True)

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, z) of each row with its own latent.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to measure.
        Z : array-like or tensor of shape (n_samples, n_components)
            One-hot latents. For other weights of the components the result is the energy's mean
            under them.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            -log w_k - log N(x; m_k, S_k) in nats.

        Raises
        ------
        ValueError
            If X and Z differ in their number of rows.
        """
        return self._pair_energies(X, Z)

    def free_energy(self, X: Any) -> Any:
        """Return F(x) = -log p(x), the energy with the component summed out.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to measure.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In nats.
        """
        return self._map_rows(X, lambda energy, x: energy.free_energy(x), "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return the log density of each row; exactly normalised.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        log_density : array or tensor of shape (n_samples,)
            log p(x) in nats; higher is more typical.
        """
        return self._map_rows(X, lambda energy, x: -energy.free_energy(x), "score_samples")

    def sample(self, n_samples: int = 1, random_state: RandomState = None) -> tuple[Any, Any]:
        """Draw independent rows from the mixture, exactly.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The rows, in random order of their components.
        labels : ndarray of shape (n_samples,)
            The component that each row came from.
        """
        if isinstance(n_samples, bool) or not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples={n_samples!r} must be an integer of at least 1.")
        check_is_fitted(self)
        generator = make_generator(draw_seed(random_state), "sampling")
        x, labels = self._energy(torch.device("cpu")).sample(int(n_samples), generator)
        return x.numpy(), labels.numpy()

    def complete(self, X: Any) -> Any:
        r"""Fill in missing features by their conditional mean given the other features.

        For a pattern with observed features :math:`o` and missing ones :math:`u`,

        .. math:: E[x_u \mid x_o] = \sum_k p(k \mid x_o) \,
                  \bigl(m_{ku} + S_{kuo} S_{koo}^{-1} (x_o - m_{ko})\bigr);

        each bracket minimises the energy of component k over :math:`x_u`. The result has the
        least expected squared error under the mixture. Rows share the work of a pattern:
        O(K d^3) for each different pattern, plus O(n K d^2).

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows with NaN at the missing features. A row may miss all of them.

        Returns
        -------
        X_completed : array or tensor of shape (n_samples, n_features)
            Copy of X without NaN; observed entries are unchanged.
        """
        check_is_fitted(self)
        if isinstance(X, torch.Tensor):
            filled = torch.nan_to_num(X, nan=0.0, posinf=math.inf, neginf=-math.inf)
            source: Any = validate_data(self, X.detach(), reset=False, skip_check_array=True)
            self._open(filled, self, reset=False)  # shape, dtype and infinities
            source = source if source.dtype == torch.float32 else source.double()
        else:
            kinds = [np.float64, np.float32]
            source = validate_data(self, X, reset=False, dtype=kinds, ensure_all_finite="allow-nan")
        rows = Rows(source, resolve_device(self.device, X, self._prefers_cuda))
        mixture = self._mixture(rows.device)

        def fill(chunk: torch.Tensor) -> torch.Tensor:
            return conditional_mean(mixture, chunk.double(), torch.isnan(chunk))

        n_floats = 4 * len(self.weights_) * rows.shape[1]
        return rows.map(fill, floats_per_row=n_floats, what=f"{type(self).__name__}.complete")

    def bic(self, X: Any) -> float:
        """Return Schwarz's criterion, -2 log likelihood + n_parameters log n; lower is better.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The training rows.

        Returns
        -------
        bic : float
            In nats.
        """
        n_rows = len(X)
        return -2 * n_rows * self.score(X) + self._n_parameters() * math.log(n_rows)

    def aic(self, X: Any) -> float:
        """Return Akaike's criterion, -2 log likelihood + 2 n_parameters; lower is better.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The training rows.

        Returns
        -------
        aic : float
            In nats.
        """
        return -2 * len(X) * self.score(X) + 2 * self._n_parameters()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = "density_estimator"
        return tags
