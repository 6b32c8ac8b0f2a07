r"""F(x) = 1/2 (x - m)' C^-1 (x - m), z = L^-1/2 U' (x - m): principal-component whitening."""

from __future__ import annotations

from typing import Any, Literal, Self

import torch

from sklebm._shell.available import available_if
from sklebm._shell.private import fit_context
from sklebm._shell.random import RandomState
from sklebm.energies import QuadraticEnergy
from sklebm.linear._base import PrincipalGaussian, inverse_roots, streams
from sklebm.linear._derived import Derived


class PCAWhitener(PrincipalGaussian):
    r"""Whitening along principal components, and the Gaussian energy it defines.

    With the covariance :math:`C = U L U^\top` of the training rows and their mean :math:`m`,

    .. math:: z = (L + r)^{-1/2} U^\top (x - m), \qquad
              F(x) = \tfrac12 (x - m)^\top C^{-1} (x - m),

    so that the codes z have the identity as covariance (for ``ridge=0``), and ``score_samples`` is
    the exact log density of the Gaussian.

    Parameters
    ----------
    n_components : int, float, "mle", "held_out" or None, default=None
        Number of leading components to keep. A fraction in (0, 1) keeps enough to explain that
        share of the variance; "mle" selects the number with the largest evidence (Minka, 2000);
        "held_out" the number that gives held-out rows the highest density in five-fold
        cross-validation, which needs all rows at once. None keeps all: d, or as many as the rows
        span if there are fewer rows than features.
    ridge : float or "auto", default=0.0
        Added to every variance, as a fraction of the mean variance. It limits how strongly
        directions of low variance are amplified. The codes then have variance l / (l + r). "auto"
        shrinks by "oas" instead, unless ``shrinkage`` is given.
    shrinkage : float, "oas", "ledoit_wolf" or None, default=None
        Weight s in [0, 1] of the mean variance times the identity, which is mixed into the
        covariance before the ridge is added: (1 - s) C + s (tr C / d) I. "oas" and "ledoit_wolf"
        estimate the weight that minimises the expected squared error; "ledoit_wolf" needs all rows
        at once, so there is no ``partial_fit``.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise the CPU.
    strategy : {"ddp"} or None, default=None
        "ddp": processes started by ``torchrun`` fit one model together, each on its own rows; see
        :doc:`/user_guide/scale`.

    Attributes
    ----------
    components_ : ndarray of shape (n_components_, n_features_in_)
        Orthonormal principal directions, by descending variance.
    explained_variance_ : ndarray of shape (n_components_,)
        Variance along each component (divisor n - 1); exactly 0 along directions without any.
    explained_variance_ratio_ : ndarray of shape (n_components_,)
        The same as a share of the total variance.
    filters_ : ndarray of shape (n_components_, n_features_in_)
        Whitening filters: ``(X - mean_) @ filters_.T`` is ``transform(X)``.
    mean_ : ndarray of shape (n_features_in_,)
        Mean of the training rows.
    singular_values_ : ndarray of shape (n_components_,)
        Singular values of the centred rows, ``sqrt((n - 1) * explained_variance_)``.
    covariance_ : ndarray of shape (n_features_in_, n_features_in_)
        Covariance of the training rows (divisor n - 1), before shrinkage and ridge. With fewer rows
        than features it is computed on access, from ``covariance_factor_``.
    covariance_factor_ : ndarray of shape (rank, n_features_in_)
        F with ``covariance_ = F.T @ F``, stored in its place if there are fewer rows than features.
    dropped_features_ : ndarray of int
        Columns of X that are constant or part of a direction without variance.
    noise_variance_ : float
        Variance that ``score_samples`` assigns to each direction outside ``components_``: the mean
        of the variances left out, shrunk, plus ``ridge_``, but at least a millionth of the variance
        of the features there.
    ridge_ : float
        The amount that ridge and shrinkage add to every variance, in the units of the variances.
    shrinkage_ : float
        The weight s: directions of sample variance l are whitened as if their variance were ``(1 -
        shrinkage_) * l + ridge_``.
    n_components_ : int
        Number of components kept.
    n_samples_seen_ : int or float
        Number of rows in the statistics, or the sum of their weights.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    ZCAWhitener : The same, rotated back so that whitened rows stay close to the originals.
    sklearn.decomposition.PCA : With ``whiten=True`` it gives the same codes, up to sign.

    Notes
    -----
    ``fit`` costs O(n d^2 + d^3) time and O(d^2) memory on top of X; with n < d rows O(n^2 d) and
    O(n d); if n_components is far below d, d^3 becomes O(n_components d^2). All statistics are
    accumulated in float64 in one pass, so ``partial_fit`` gives the same result however the rows
    are chunked. Directions without variance are mapped to 0. Whether a column varies is judged
    relative to its own scale, so a column whose scale is 1e-9 of the largest is treated like any
    other. ``ridge``, ``shrinkage`` and ``n_components``, however, depend on the relative scales of
    columns: if these differ, use StandardScaler first.

    References
    ----------
    M. E. Tipping and C. M. Bishop, "Probabilistic principal component analysis", Journal of the
    Royal Statistical Society B 61(3), 1999.
    T. P. Minka, "Automatic choice of dimensionality for PCA", NIPS 13, 2000.
    Y. Chen, A. Wiesel, Y. C. Eldar and A. O. Hero, "Shrinkage algorithms for MMSE covariance
    estimation", IEEE Transactions on Signal Processing 58(10), 2010.
    O. Ledoit and M. Wolf, "A well-conditioned estimator for large-dimensional covariance matrices",
    Journal of Multivariate Analysis 88(2), 2004.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import PCAWhitener
    >>> X = load_digits().data
    >>> whitener = PCAWhitener(n_components=20).fit(X)
    >>> codes = whitener.transform(X)
    >>> bool(np.allclose(np.cov(codes.T), np.eye(20)))
    True
    """

    def __init__(
        self,
        n_components: int | float | Literal["mle", "held_out"] | None = None,
        *,
        ridge: float | Literal["auto"] = 0.0,
        shrinkage: float | Literal["oas", "ledoit_wolf"] | None = None,
        device: str | torch.device = "auto",
        strategy: Literal["ddp"] | None = None,
    ) -> None:
        self.n_components = n_components
        self.ridge = ridge
        self.shrinkage = shrinkage
        self.device = device
        self.strategy = strategy

    @property
    def _n_features_out(self) -> int:
        return int(self.n_components_)

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn the mean and the principal axes of the rows.

        Parameters
        ----------
        X : array-like, sparse matrix or tensor of shape (n_samples, n_features)
            Training rows, at least two. Sparse rows are made dense chunk by chunk.
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

    @available_if(streams)
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Add a chunk of rows to the statistics; any chunking gives the same result as one ``fit``.

        Parameters
        ----------
        X : array-like, sparse matrix or tensor of shape (n_samples, n_features)
            The next chunk of training rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows of the chunk.

        Returns
        -------
        self : object
            The updated estimator. An exception or an interrupt leaves it as it was before.

        Raises
        ------
        AttributeError
            With ``shrinkage="ledoit_wolf"`` or ``n_components="held_out"``.
        """
        first = not self._is_fitted()
        return self._learn(X, self._partial_fit, first=first, columns={"weight": sample_weight})

    @Derived
    def filters_(self) -> Any:
        """Whitening filters, from the components and their variances."""
        return inverse_roots(self._modelled_variances())[:, None] * self.components_

    def transform(self, X: Any) -> Any:
        """Return the whitened coordinates z of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to whiten.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components_)
            Coordinates in units of standard deviations.
        """

        def whiten(energy: QuadraticEnergy, x: torch.Tensor) -> torch.Tensor:
            z = energy.whiten(x)
            return torch.nn.functional.pad(z, (0, self.n_components_ - z.shape[1]))

        return self._map_rows(X, whiten, "transform")

    def inverse_transform(self, X: Any) -> Any:
        """Return the rows whose whitened coordinates are X.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_components_)
            Whitened coordinates, as ``transform`` returns them.

        Returns
        -------
        X_original : array or tensor of shape (n_samples, n_features)
            Points in the span of the components.
        """

        def unwhiten(energy: QuadraticEnergy, z: torch.Tensor) -> torch.Tensor:
            return energy.unwhiten(z[:, : len(energy.variances)])

        return self._map_rows(X, unwhiten, "inverse_transform", latents=True)

    def free_energy(self, X: Any) -> Any:
        """Return half the squared Mahalanobis distance to the mean.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to evaluate.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            ``-log p(x) - log Z`` in nats under the Gaussian with the modelled covariance.
        """
        return self._map_rows(X, QuadraticEnergy.free_energy, "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return the exactly normalised Gaussian log density of each row.

        The covariance has variance ``(1 - shrinkage_) * explained_variance_ + ridge_`` along each
        component and ``noise_variance_`` in every other direction, as in probabilistic PCA (Tipping
        & Bishop, 1999). Directions along which the training rows never vary get a small positive
        variance, so that movement along them scores low.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        log_density : array or tensor of shape (n_samples,)
            log p(x) in nats; higher is more typical.
        """
        return self._map_rows(X, QuadraticEnergy.log_density, "score_samples")

    def sample(self, n_samples: int = 1, *, random_state: RandomState = None) -> Any:
        """Draw independent, exact samples from the Gaussian.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Draws, float64.
        """
        return self._draw(n_samples, random_state)
