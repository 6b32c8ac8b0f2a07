"""What a fitted Gaussian with a constrained precision can do: energies, whitening, samples."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.state import Array, Scalar, Spec
from sklebm.base import EnergyEstimator
from sklebm.energies import PrecisionEnergy


class PrecisionEstimator(EnergyEstimator):
    """Base of Gaussians given by ``location_`` and ``precision_``; a subclass fits them."""

    def _state_spec(self) -> Spec:
        width = self.n_features_in_
        square, line = Array("f", (width, width)), Array("f", (width,))
        return {
            "precision_": square,
            "covariance_": square,
            "sample_covariance_": square,
            "location_": line,
            "sample_mean_": line,
            "log_partition_": Scalar(float),
            "estimated_log_partition_": Scalar(float, optional=True),
            "ridge_": Scalar(float, 0.0),
            "n_iter_": Scalar(int, 0),
            "n_samples_seen_": Scalar(int, 1),
        }

    @property
    def _n_features_out(self) -> int:
        return int(self.n_features_in_)

    def _energy(self, device: torch.device) -> PrecisionEnergy:
        location, precision = (
            torch.from_numpy(array).to(device) for array in (self.location_, self.precision_)
        )
        return PrecisionEnergy(location, torch.linalg.cholesky(precision))

    def free_energy(self, X: Any) -> Any:
        """Return F(x), half the squared Mahalanobis distance to ``location_``.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to measure.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            ``-log p(x) - log Z`` in nats.
        """
        return self._map_rows(X, lambda energy, x: energy.free_energy(x), "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return the log density of each row; the normaliser is exact for every objective.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        log_density : array or tensor of shape (n_samples,)
            log p(x) in nats; higher is more typical.
        """

        def log_density(energy: PrecisionEnergy, x: torch.Tensor) -> torch.Tensor:
            return energy.free_energy(x).add(self.log_partition_).neg()

        return self._map_rows(X, log_density, "score_samples")

    def transform(self, X: Any) -> Any:
        """Return the whitened rows z = L'(x - m), with the Cholesky factor P = L L'.

        z_i is what is left of feature i after its prediction from the features behind it, in units
        of its standard deviation given them; F(x) is half the squared length of z.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to whiten.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_features)
            White coordinates.
        """
        return self._map_rows(X, lambda energy, x: energy.whiten(x), "transform")

    def inverse_transform(self, Z: Any) -> Any:
        """Return the rows whose whitened form is Z.

        Parameters
        ----------
        Z : array-like or tensor of shape (n_samples, n_features)
            White coordinates.

        Returns
        -------
        X : array or tensor of shape (n_samples, n_features)
            Rows.
        """
        unwhiten = lambda energy, z: energy.unwhiten(z)  # noqa: E731
        return self._map_rows(Z, unwhiten, "inverse_transform", latents=True)

    def sample(self, n_samples: int = 1, *, random_state: RandomState = None) -> Any:
        """Draw rows from the model; exact and independent.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Draws, float64.
        """
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples={n_samples!r} must be a positive integer.")
        check_is_fitted(self)
        seed = draw_seed(random_state)
        shape = (int(n_samples), self.n_features_in_)
        white = torch.randn(shape, generator=make_generator(seed, "sample"), dtype=torch.float64)
        drawn: torch.Tensor = self._energy(torch.device("cpu")).unwhiten(white)
        return drawn.numpy()
