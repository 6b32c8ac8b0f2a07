r"""E(x, z) = 1/2 |x - m - V'z|^2, F(x) = min_z E(x, z): principal components as an energy."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import torch

from sklebm._shell.available import available_if
from sklebm._shell.private import fit_context
from sklebm._shell.random import RandomState
from sklebm.energies import SubspaceEnergy
from sklebm.linear._base import PrincipalGaussian, streams


class EnergyPCA(PrincipalGaussian):
    r"""Principal component analysis: the plane that is closest to the rows.

    With the k leading principal directions as the rows of V and the mean m,

    .. math:: E(x, z) = \tfrac12 \lVert x - m - V^\top z \rVert^2, \qquad
              F(x) = \min_z E(x, z) = \tfrac12 \lVert x - m - V^\top V (x - m) \rVert^2 .

    Wherever the plane lies, only rows near it have an energy near zero: k limits the volume of low
    energy. F is constant along the plane and so cannot be normalised. The probabilistic form can: z
    has a Gaussian prior, and x has Gaussian noise of variance :math:`\sigma^2`,

    .. math:: p(x) = N\bigl(m,\; V^\top \operatorname{diag}(l - \sigma^2) V + \sigma^2 I\bigr),

    with the variances l along V, and :math:`\sigma^2` the mean variance outside the plane. Up to
    the divisor n - 1 of the variances, this is the maximum-likelihood Gaussian of this form.

    Parameters
    ----------
    n_components : int, float, "mle", "held_out" or None, default=None
        Number k of directions. A fraction in (0, 1) keeps enough to explain that share of the
        variance; "mle" selects the number with the largest evidence (Minka, 2000); "held_out" the
        number that gives held-out rows the highest density in five-fold cross-validation, which
        needs all rows at once. None keeps all: d, or as many as the rows span if there are fewer
        rows than features.
    shrinkage : float, "oas", "ledoit_wolf" or None, default=None
        Weight s in [0, 1] of the mean variance times the identity, which is mixed into the
        covariance of the density; the plane stays the same. "oas" and "ledoit_wolf" estimate the
        weight that minimises the expected squared error; "ledoit_wolf" needs all rows at once, so
        there is no ``partial_fit``.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise the CPU.
    strategy : {"ddp"} or None, default=None
        "ddp": processes started by ``torchrun`` fit one model together, each on its own rows; see
        :doc:`/user_guide/scale`.

    Attributes
    ----------
    components_ : ndarray of shape (n_components_, n_features_in_)
        V: orthonormal principal directions, by descending variance.
    explained_variance_ : ndarray of shape (n_components_,)
        Variance along each component (divisor n - 1); exactly 0 along directions without any.
    explained_variance_ratio_ : ndarray of shape (n_components_,)
        The same as a share of the total variance.
    singular_values_ : ndarray of shape (n_components_,)
        Singular values of the centred rows, ``sqrt((n - 1) * explained_variance_)``.
    mean_ : ndarray of shape (n_features_in_,)
        Mean of the training rows.
    covariance_ : ndarray of shape (n_features_in_, n_features_in_)
        Covariance of the training rows (divisor n - 1). With fewer rows than features it is
        computed on access, from ``covariance_factor_``.
    covariance_factor_ : ndarray of shape (rank, n_features_in_)
        F with ``covariance_ = F.T @ F``, stored in its place if there are fewer rows than features.
    dropped_features_ : ndarray of int
        Columns of X that are constant or part of a direction without variance.
    noise_variance_ : float
        Variance that ``score_samples`` assigns to each direction outside ``components_``: the mean
        of the variances left out, shrunk, but at least a millionth of the variance of the features
        there; 0 if there is no such direction.
    ridge_ : float
        The amount that shrinkage adds to every variance.
    shrinkage_ : float
        The weight s.
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
    PCAWhitener : The same directions, with codes of unit variance.
    sklearn.decomposition.PCA : Equal up to signs and rounding for n >= d rows.

    Notes
    -----
    ``fit`` costs O(n d^2 + d^3) time and O(d^2) memory on top of X; with n < d rows O(n^2 d) and
    O(n d); if n_components is far below d, d^3 becomes O(n_components d^2). All statistics are
    accumulated in float64 in one pass, so ``partial_fit`` gives the same result however the rows
    are chunked. ``score`` is comparable between any parameters on the same rows.

    References
    ----------
    M. E. Tipping and C. M. Bishop, "Probabilistic principal component analysis", Journal of the
    Royal Statistical Society B 61(3), 1999.
    T. P. Minka, "Automatic choice of dimensionality for PCA", NIPS 13, 2000.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import EnergyPCA
    >>> X = load_digits().data
    >>> model = EnergyPCA(n_components=10).fit(X)
    >>> Z = model.transform(X)
    >>> bool(np.allclose(model.energy(X, Z), model.free_energy(X)))
    True
    >>> bool((model.energy(X, Z + 0.1) > model.free_energy(X)).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        name: choices
        for name, choices in PrincipalGaussian._parameter_constraints.items()
        if name != "ridge"
    }

    _whitens = False

    _compares_columns = True

    def __init__(
        self,
        n_components: int | float | Literal["mle", "held_out"] | None = None,
        *,
        shrinkage: float | Literal["oas", "ledoit_wolf"] | None = None,
        device: str | torch.device = "auto",
        strategy: Literal["ddp"] | None = None,
    ) -> None:
        self.n_components = n_components
        self.shrinkage = shrinkage
        self.device = device
        self.strategy = strategy

    @property
    def _n_features_out(self) -> int:
        return int(self.n_components_)

    def _rebuild(self, parameters: dict[str, torch.Tensor]) -> SubspaceEnergy:
        gaussian = self._gaussian(parameters)
        return SubspaceEnergy(parameters["mean_"], parameters["components_"], gaussian)

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the plane with the least squared distance to the rows.

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

    def transform(self, X: Any) -> Any:
        """Return the lowest-energy latent z = V (x - m) of each row.

        Parameters
        ----------
        X : array-like, sparse matrix or tensor of shape (n_samples, n_features)
            Rows to project.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components_)
            Coordinates in the plane.
        """
        return self._map_rows(X, SubspaceEnergy.project, "transform")

    def inverse_transform(self, X: Any) -> Any:
        """Return the points of the plane with coordinates X.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_components_)
            Coordinates, as ``transform`` returns them.

        Returns
        -------
        X_original : array or tensor of shape (n_samples, n_features)
            Points in the plane.
        """
        return self._map_rows(X, SubspaceEnergy.decode, "inverse_transform", latents=True)

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, z), half the squared distance of each row from point z of the plane.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        Z : array-like or tensor of shape (n_samples, n_components_)
            One latent per row.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In squared units of X.
        """
        return self._pair_energies(X, Z)

    def free_energy(
        self, X: Any, *, form: Literal["projection", "probabilistic"] = "projection"
    ) -> Any:
        """Return F(x), half the squared distance of each row from the plane.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to evaluate.
        form : {"projection", "probabilistic"}, default="projection"
            "projection" minimises over z. "probabilistic" integrates over z under its prior: half
            the squared Mahalanobis distance to the mean, -log p(x) - log Z in nats.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In squared units of X, or in nats.
        """
        if form not in ("projection", "probabilistic"):
            raise ValueError(f'form={form!r} must be "projection" or "probabilistic".')
        if form == "projection":
            return self._map_rows(X, SubspaceEnergy.free_energy, "free_energy")
        return self._map_rows(X, lambda energy, x: energy.gaussian.free_energy(x), "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return the exact log density of each row under probabilistic PCA.

        Parameters
        ----------
        X : array-like, sparse matrix or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        log_density : array or tensor of shape (n_samples,)
            log p(x) in nats; higher is more typical.
        """
        return self._map_rows(X, SubspaceEnergy.log_density, "score_samples")

    def sample(self, n_samples: int = 1, *, random_state: RandomState = None) -> Any:
        """Draw independent, exact samples from the density.

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
