r"""F(x) = 1/2 (x - m)' C^-1 (x - m), z = L^-1/2 U' (x - m): principal-component whitening."""

from __future__ import annotations

from typing import Any

import torch

from sklebm.energies import QuadraticEnergy
from sklebm.linear._whitener import Whitener


class PCAWhitener(Whitener):
    r"""Whitening along principal components, and the Gaussian energy it defines.

    With the covariance :math:`C = U L U^\top` of the training rows and their mean :math:`m`,

    .. math:: z = (L + r)^{-1/2} U^\top (x - m), \qquad
              F(x) = \tfrac12 (x - m)^\top C^{-1} (x - m),

    so that the codes z have the identity as covariance (for ``ridge=0``), and
    ``score_samples`` is the exact log density of the Gaussian.

    Parameters
    ----------
    n_components : int, float or None, default=None
        Number of leading components to keep; a fraction in (0, 1) keeps as many as explain that
        share of the variance; None keeps all.
    ridge : float, default=0.0
        Added to every variance, as a fraction of the mean variance. It limits how much
        directions of little variance are amplified. The codes then have variance l / (l + r).
    shrinkage : float, "ledoit_wolf" or None, default=None
        Weight s in [0, 1] with which the covariance is mixed with the mean variance times the
        identity, (1 - s) C + s (tr C / d) I, before the ridge; "ledoit_wolf" estimates the weight
        of least expected squared error, needs all rows at once and leaves out ``partial_fit``.
    device : str or torch.device, default="auto"
        Where to compute; "auto" is the device of X if it is a tensor, else the CPU.
    strategy : {"ddp"} or None, default=None
        "ddp": the processes that ``torchrun`` started fit together, each on rows of its own; see
        :doc:`/user_guide/scale`.

    Attributes
    ----------
    components_ : ndarray of shape (n_components_, n_features_in_)
        Orthonormal principal directions, by descending variance.
    explained_variance_ : ndarray of shape (n_components_,)
        Variance along each component (divisor n - 1); exactly 0 for directions without any.
    explained_variance_ratio_ : ndarray of shape (n_components_,)
        The same as shares of the total variance.
    filters_ : ndarray of shape (n_components_, n_features_in_)
        Whitening filters: ``(X - mean_) @ filters_.T`` is ``transform(X)``.
    mean_ : ndarray of shape (n_features_in_,)
        Mean of the training rows.
    covariance_ : ndarray of shape (n_features_in_, n_features_in_)
        Covariance of the training rows (divisor n - 1), before shrinkage and ridge.
    noise_variance_ : float
        Variance that ``score_samples`` gives to each direction outside ``components_``: the mean
        of the variances left out, shrunk, plus ``ridge_``, and at least a millionth of the mean
        variance.
    ridge_ : float
        What is added to every variance, from ridge and shrinkage, in the units of the variances.
    shrinkage_ : float
        The weight s: directions of sample variance l are whitened as if it were
        ``(1 - shrinkage_) * l + ridge_``.
    n_components_ : int
        Number of components kept.
    n_samples_seen_ : int
        Number of rows in the statistics.
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
    ``fit`` costs O(n d^2 + d^3) time and O(d^2) memory beside X. All statistics are accumulated in
    float64 in one pass, so ``partial_fit`` gives the same result for every way to cut the rows into
    chunks. Directions without variance are mapped to 0.

    References
    ----------
    M. E. Tipping and C. M. Bishop, "Probabilistic principal component analysis", Journal of the
    Royal Statistical Society B 61(3), 1999.
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

    @property
    def _n_features_out(self) -> int:
        return int(self.n_components_)

    def _filters(self, components: Any, scale: Any) -> Any:
        return scale[:, None] * components

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

    def inverse_transform(self, Z: Any) -> Any:
        """Return the rows whose whitened coordinates are Z.

        Parameters
        ----------
        Z : array-like or tensor of shape (n_samples, n_components_)
            Whitened coordinates.

        Returns
        -------
        X : array or tensor of shape (n_samples, n_features)
            Points in the span of the components.
        """

        def unwhiten(energy: QuadraticEnergy, z: torch.Tensor) -> torch.Tensor:
            return energy.unwhiten(z[:, : len(energy.variances)])

        return self._map_rows(Z, unwhiten, "inverse_transform", latents=True)
