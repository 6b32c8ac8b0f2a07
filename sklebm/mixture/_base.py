"""Common parts of energies with a one-hot latent: weights of rows, decoding, weighted scores."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, Self, TypeVar

import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.arrays import count_rows
from sklebm._shell.available import available_if
from sklebm._shell.columns import weighted_mean
from sklebm._shell.private import fit_context
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import Rows
from sklebm.iterative import IterativeEstimator, Problem, Run

P = TypeVar("P", bound=Problem[Any])
R = TypeVar("R", bound=Run)


def _check_decodes(estimator: Any) -> bool:
    lacking = estimator._decodes()
    if lacking:
        raise AttributeError(f"it needs codes that sum to one: {lacking}.")
    return True


def _check_gives_probabilities(estimator: Any) -> bool:
    if estimator._gives_probabilities:
        return True
    raise AttributeError(
        'it assigns each row by predict; for responsibilities set output="responsibility" and call '
        "transform."
    )


class OneHotEstimator(IterativeEstimator[P, R]):
    """Base of models whose latent picks one of several components."""

    _computes_in_double = True
    _continues_from = "training_state_"
    _gives_probabilities = False

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the model to the rows of X.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Training rows, at least as many as components.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows; a weight of m is the same as m copies of the row.

        Returns
        -------
        self : object
            The fitted estimator. An exception or an interrupt leaves it as it was before.
        """
        return self._learn(X, self._fit, columns={"weight": sample_weight})

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Update the energy with one pass over a chunk of rows.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            The next chunk of training rows; the first one needs as many rows as components.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows; a weight of m is the same as m copies of the row.

        Returns
        -------
        self : object
            The updated estimator. An exception or an interrupt leaves it as it was before.
        """
        first, columns = not self._is_fitted(), {"weight": sample_weight}
        return self._learn(X, self._partial_fit, first=first, columns=columns)

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit to X and return the component that the latent of each row selects.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Training rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows; a weight of m is the same as m copies of the row.

        Returns
        -------
        labels : array or tensor of shape (n_samples,)
            The same as ``fit(X).predict(X)``.
        """
        fitted: Any = self.fit(X, sample_weight=sample_weight)
        return fitted.predict(X)

    @available_if(_check_gives_probabilities)
    def predict_proba(self, X: Any) -> Any:
        """Return the responsibilities p(z | x) of each row, never as a data frame.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Rows to assign.

        Returns
        -------
        responsibilities : array or tensor of shape (n_samples, n_components)
            Posterior probabilities of the components; each row sums to one.
        """
        chosen = self._temperature() if self._is_fitted() else {}
        return self._map_rows(
            X, lambda energy, x: energy.responsibilities(x, **chosen), "predict_proba"
        )

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, z) of each row paired with its latent.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Rows to evaluate.
        Z : array-like or tensor of shape (n_samples, n_components)
            One-hot latents. Other codes give a mixture: of the prototypes in EnergyKMeans, of the
            energies in EnergyGaussianMixture.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In the units of ``free_energy``.

        Raises
        ------
        ValueError
            If X and Z have different numbers of rows.
        """
        return self._pair_energies(X, Z)

    def _draw(self, n_samples: int, random_state: RandomState) -> tuple[Any, Any]:
        """Rows and their components, as NumPy arrays."""
        if isinstance(n_samples, bool) or not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples={n_samples!r} must be an integer of at least 1.")
        check_is_fitted(self)
        generator = make_generator(draw_seed(random_state), "sampling")
        energy = self._energy(torch.device("cpu"))
        x, labels = energy.sample(int(n_samples), generator, **self._temperature())
        return x.numpy(), labels.numpy()

    def _temperature(self) -> dict[str, float]:
        """The fitted inverse temperature, for an energy that does not store it."""
        return {}

    @property
    def _n_features_out(self) -> int:
        return len(self._energy(torch.device("cpu")))

    def _floats_per_row(self) -> int:
        return 4 * (int(self.n_features_in_) + self._n_features_out)

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Self:
        """Make an estimator from given parameters, as if a fit had found them.

        Parameters
        ----------
        **parameters : object
            Fitted attributes without the trailing underscore, and constructor parameters:
            ``cluster_centers`` and optionally ``noise_variance`` (default 1) for EnergyKMeans;
            ``weights``, ``means`` and ``covariances`` or ``precisions_cholesky`` for
            EnergyGaussianMixture.

        Returns
        -------
        estimator : object
            A fitted estimator; ``partial_fit`` continues as if each component had been fitted to
            one row.

        Raises
        ------
        TypeError
            If a parameter is missing or unknown.
        ValueError
            If the arrays are inconsistent with each other or with the parameters.
        """
        return super().from_parameters(**cls._completed(parameters))

    @classmethod
    def _completed(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        """The parameters, completed with what follows from them."""
        return parameters

    def _decodes(self) -> str:
        """What ``inverse_transform`` lacks; empty if it can decode the output of ``transform``."""
        return ""

    @available_if(_check_decodes)
    def inverse_transform(self, X: Any) -> Any:
        """Decode latents: combinations Z W of prototypes, or of means.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_components)
            One-hot codes or responsibilities.

        Returns
        -------
        X_original : array or tensor of shape (n_samples, n_features)
            Reconstructed rows.
        """
        decode = lambda energy, z: energy.decode(z)  # noqa: E731
        return self._map_rows(X, decode, "inverse_transform", latents=True)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the mean log density of the rows of X, in nats; higher is better.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Held-out rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the mean.

        Returns
        -------
        score : float
            Mean of ``score_samples(X)``.
        """
        return weighted_mean(self.score_samples(X), sample_weight, type(self).__name__)

    def _n_parameters(self) -> int:
        """Number of free parameters of the density."""
        raise NotImplementedError

    def bic(self, X: Any) -> float:
        """Return the Bayesian information criterion, -2 log likelihood + n_parameters log n.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The training rows.

        Returns
        -------
        bic : float
            In nats; lower is better.
        """
        n_rows = count_rows(X)
        return -2 * n_rows * self.score(X) + self._n_parameters() * math.log(n_rows)

    def aic(self, X: Any) -> float:
        """Return the Akaike information criterion, -2 log likelihood + 2 n_parameters.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The training rows.

        Returns
        -------
        aic : float
            In nats; lower is better.
        """
        return -2 * count_rows(X) * self.score(X) + 2 * self._n_parameters()

    def _weights(self, rows: Rows, n_least: int, name: str) -> torch.Tensor:
        """Weights of the rows; requires at least as many rows of positive weight as components."""
        ones = torch.ones(len(rows), dtype=torch.float64, device=rows.device)
        weights = rows.columns.get("weight", ones)
        n_rows = int(rows.ranks.sum((weights > 0).sum()))
        if n_rows < n_least:
            raise ValueError(
                f"n_samples={n_rows} should be >= {name}={n_least}: lower {name} or pass more rows "
                "(of positive weight)."
            )
        return weights


def inverse_temperature(beta: Any, default: float) -> float:
    """Raise ValueError unless ``beta`` is a positive number, or None for the default."""
    if beta is not None and not (isinstance(beta, Real) and float(beta) > 0):
        raise ValueError(f"beta={beta!r} must be positive; math.inf gives the hard minimum.")
    return default if beta is None else float(beta)
