r"""E(x, z) = -log w_k - log N(x; m_k, S_k), z one-hot; F(x) = -log p(x) in nats."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.progress import Progress
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.state import Spec
from sklebm.base import EnergyEstimator
from sklebm.energies import GaussianMixtureEnergy
from sklebm.energies.gaussian_mixture import CovarianceType
from sklebm.iterative import Draw
from sklebm.mixture import _mixture_state as fitted
from sklebm.mixture._base import OneHotEstimator, inverse_temperature
from sklebm.mixture._clusters import source
from sklebm.mixture._mixture_fit import (
    MixtureProblem,
    MixtureRun,
    learn_online,
    make_problem,
    warn_of_few_rows,
)
from sklebm.mixture._mixture_start import check_given
from sklebm.mixture._range import check_range


class EnergyGaussianMixture(OneHotEstimator[MixtureProblem, MixtureRun]):
    r"""A mixture of Gaussians as an energy with a one-hot latent, fitted by EM.

    .. math:: E(x, z) = -\log w_k - \log \mathcal{N}(x; m_k, S_k) \text{ for } z = e_k,

    .. math:: F(x) = -\log \sum_{k=1}^K e^{-E(x, e_k)} = -\log p(x), \text{ exactly, in nats.}

    Parameters
    ----------
    n_components : int, default=1
        Number K of Gaussians.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        A covariance per component; one covariance for all; a diagonal covariance per component; a
        single variance per component.
    init : {"kmeans", "k-means++", "random"}, default="kmeans"
        Start from a k-means clustering; from the rows nearest to each centre of greedy k-means++;
        or from means at random rows with the covariance of all rows.
    weights_init : array-like of shape (n_components,), default=None
        Initial weights.
    means_init : array-like of shape (n_components, n_features), default=None
        Initial means. Initial weights and precisions that are not given are computed from the rows
        nearest to each mean.
    precisions_init : array-like, default=None
        Initial inverse covariances, in the shape of ``covariances_``.
    n_init : int, default=1
        Number of starting points; the run with the highest ``lower_bound_`` is kept.
    max_iter : int, default=100
        Maximum number of EM steps per run.
    tol : float, default=1e-3
        A run stops when the mean log likelihood changes by less than this, in nats per row.
    reg_covar : float or "auto", default="auto"
        Added to every variance, in squared units of X; "auto" adds 1e-6 of each column's variance
        ("spherical": of their mean). With 0 the likelihood never decreases.
    batch_size : int, default=1024
        Rows per block of mini-batch EM in ``partial_fit``; ``fit`` uses all rows in every step.
    warm_start : bool, default=False
        Whether ``fit`` starts from the fitted mixture, if there is one, instead of ``init``.
    random_state : int, RandomState instance or None, default=None
        Seed for the starting points.
    verbose : int, default=0
        If nonzero, print one line per EM step, with the mean log density and the time in seconds.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise the CPU.
    strategy : {"ddp"} or None, default=None
        "ddp": processes started by ``torchrun`` fit one model together, each on its own rows; see
        :doc:`/user_guide/scale`.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Probabilities w of the components.
    means_ : ndarray of shape (n_components, n_features_in_)
        Means m.
    covariances_ : ndarray
        S: (K, d, d) for "full", (d, d) for "tied", (K, d) for "diag", (K,) for "spherical".
    precisions_cholesky_ : ndarray
        Upper triangular U with :math:`S^{-1} = U U^\top`, in the shape of ``covariances_``.
    converged_ : bool
        Whether the best run stopped because of ``tol``.
    n_iter_ : int
        EM steps of the best run, plus the blocks completed by ``partial_fit``.
    lower_bound_ : float
        Mean log likelihood before the last M step; after ``partial_fit``, over the rows of the last
        block.
    lower_bounds_ : ndarray of shape (n_steps,)
        The same for every step of the best run.
    n_samples_seen_ : float
        Total weight of the training rows.
    reg_covar_ : ndarray of shape (n_features_in_,)
        The amount added to the variance of each feature.
    training_state_ : dict
        Sums of an unfinished ``partial_fit`` block; see ``drop_training_state``.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    sklearn.mixture.GaussianMixture : The same model without sample weights, streaming or energies.

    Notes
    -----
    An EM step (Dempster et al., 1977) costs O(n K d^2) time for "full", O(n d (K + d)) for "tied"
    and O(n K d) for the others, in float64. Rows are processed in parts, also from memory maps and
    dask arrays. Except with "full", distances lose precision if clusters lie 1e6 standard
    deviations apart. Units do not matter, except with "spherical". ``partial_fit`` fits its first
    chunk as ``fit`` does, then runs mini-batch EM (Cappé and Moulines, 2009), whatever the chunk
    sizes.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklebm import EnergyGaussianMixture
    >>> X = load_iris().data
    >>> model = EnergyGaussianMixture(3, n_init=5, random_state=0).fit(X)
    >>> print(f"{model.score(X):.2f} nats, or {model.bic(X):.0f} with a price for each parameter")
    -1.20 nats, or 581 with a price for each parameter
    >>> print(model.complete([[5.1, 3.5, np.nan, np.nan]]).round(1))
    [[5.1 3.5 1.5 0.3]]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EnergyEstimator._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions({"full", "tied", "diag", "spherical"})],
        "init": [StrOptions({"kmeans", "k-means++", "random"})],
        "weights_init": ["array-like", None],
        "means_init": ["array-like", None],
        "precisions_init": ["array-like", None],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "reg_covar": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }
    _gives_probabilities = True
    _min_rows_fit = 2
    _completed = staticmethod(fitted.with_factors)
    _n_parameters = fitted.n_parameters

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: CovarianceType = "full",
        init: Literal["kmeans", "k-means++", "random"] = "kmeans",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        n_init: int = 1,
        max_iter: int = 100,
        tol: float = 1e-3,
        reg_covar: float | Literal["auto"] = "auto",
        batch_size: int = 1024,
        warm_start: bool = False,
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
        strategy: Literal["ddp"] | None = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.init = init
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.reg_covar = reg_covar
        self.batch_size = batch_size
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose
        self.device = device
        self.strategy = strategy

    # ------------------------------------------------------------------ learning

    def _n_starts(self) -> int:
        given = self.warm_start and self._is_fitted()
        return 1 if given or self.means_init is not None else self.n_init

    def _cost(self, state: Any) -> float:
        return -float(state["lower_bound_"])

    def _prepare(self, rows: Rows, **data: Any) -> MixtureProblem:
        weights = self._weights(rows, self.n_components, "n_components")
        given = check_given(self, rows.shape[1])
        parts = rows.chunks(6 * rows.shape[1] + 8 * self.n_components)
        return make_problem(self, rows, source(rows), weights, parts, given)

    def _start(self, problem: MixtureProblem, draw: Draw) -> MixtureRun:
        if self.warm_start and self._is_fitted():
            fitted.check_unchanged(self, problem.x.shape[1])
            return MixtureRun(fitted.fitted_mixture(self, problem.x.device))
        return problem.start(draw)

    def _step(self, problem: MixtureProblem, run: MixtureRun) -> MixtureRun:
        return problem.step(run, self.tol)

    def _fit(self, rows: Rows, progress: Any, **data: Any) -> dict[str, Any]:
        state = super()._fit(rows, progress, **data)
        warn_of_few_rows(self, rows, state)
        return state

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        rows.need_one_process("partial_fit of a mixture")
        if self._is_fitted():
            return learn_online(self, rows, self._weights(rows, 1, "n_components"))
        if len(rows) < 2:
            raise ValueError("n_samples=1 should be >= 2 in the first chunk: pass more rows.")
        return super()._fit(rows, None, **data)  # more rows may follow

    def _state_spec(self) -> Spec:
        return fitted.mixture_spec(self)

    def _rebuild(self, parameters: dict[str, torch.Tensor]) -> GaussianMixtureEnergy:
        weights, means, factors = parameters.values()  # as _state_spec names them
        return GaussianMixtureEnergy(weights, means, factors, fitted.fitted_type(self))

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        return fitted.untrained(given)

    @property
    def precisions_(self) -> Any:
        """Inverse covariances, of the shape of ``covariances_``."""
        factors = self.precisions_cholesky_
        square = fitted.fitted_type(self) in ("full", "tied")
        return factors @ np.swapaxes(factors, -1, -2) if square else factors**2

    def predict(self, X: Any) -> Any:
        """Return the most probable component of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to assign.

        Returns
        -------
        labels : array or tensor of shape (n_samples,)
            Index of the component with the lowest energy.
        """
        return self._map_rows(X, lambda energy, x: energy.assign(check_range(x)), "predict")

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

    def free_energy(self, X: Any, beta: float | None = None) -> Any:
        r"""Return :math:`F_\beta(x) = -\frac1\beta \log \sum_k e^{-\beta E(x, e_k)}`.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to evaluate.
        beta : float or None, default=None
            Inverse temperature; None is 1, which gives -log p(x); ``math.inf`` gives the lowest
            energy of any component.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In nats.
        """
        chosen = inverse_temperature(beta, 1.0)
        return self._map_rows(X, lambda energy, x: energy.free_energy(x, chosen), "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return the exactly normalised log density of each row.

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

    def complete(self, X: Any) -> Any:
        r"""Replace missing features by their conditional mean given the observed ones.

        :math:`E[x_u \mid x_o] = \sum_k p(k \mid x_o) (m_{ku} + S_{kuo} S_{koo}^{-1} (x_o -
        m_{ko}))` for missing u and observed o. O(K d^3) for each pattern, plus O(n K d^2).

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows with NaN at the missing features. All features of a row may be missing.

        Returns
        -------
        X_completed : array or tensor of shape (n_samples, n_features)
            Copy of X without NaN; observed entries are unchanged.
        """
        return fitted.complete(self, X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = "density_estimator"
        return tags

    def sample(self, n_samples: int = 1, random_state: RandomState = None) -> tuple[Any, Any]:
        """Draw independent, exact samples from the density that ``score_samples`` evaluates.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The rows, in random order of their components.
        labels : ndarray of shape (n_samples,)
            The component that each row was drawn from.
        """
        return self._draw(n_samples, random_state)
