r"""E(x, z) = -log w_k - log N(x; m_k, S_k), z one-hot; F(x) = -log p(x) in nats."""

from __future__ import annotations

import warnings
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from sklebm._shell.private import Interval, StrOptions, check_sample_weight, fit_context
from sklebm._shell.progress import Progress
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.ranks import Ranks
from sklebm._shell.rows import Rows
from sklebm.base import EnergyEstimator
from sklebm.energies import GaussianMixture
from sklebm.energies.gaussian_mixture import CovarianceType
from sklebm.inference.expectation_maximization import em_steps
from sklebm.inference.online_em import online_pass
from sklebm.mixture._mixture_estimator import MixtureEstimator
from sklebm.mixture._mixture_start import check_given, start_mixture
from sklebm.mixture._mixture_state import export_block, fitted_arrays, import_block
from sklebm.mixture._range import check_range


class EnergyGaussianMixture(MixtureEstimator):
    r"""A mixture of Gaussians as an energy with a one-hot latent, fitted by EM.

    .. math:: E(x, z) = -\log w_k - \log \mathcal{N}(x; m_k, S_k) \text{ for } z = e_k,

    .. math:: F(x) = -\log \sum_{k=1}^K e^{-E(x, e_k)} = -\log p(x).

    The density is exactly normalised: ``score_samples`` is :math:`-F(x) = \log p(x)` in nats.

    Parameters
    ----------
    n_components : int, default=1
        Number K of Gaussians.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        A covariance each; one for all; a diagonal each; a single variance each.
    init : {"kmeans", "random"}, default="kmeans"
        Start from a k-means clustering (greedy k-means++ and Lloyd), or from means at random,
        different rows with the covariance of all rows.
    weights_init : array-like of shape (n_components,), default=None
        Initial weights; they replace those of ``init``.
    means_init : array-like of shape (n_components, n_features), default=None
        Initial means. The weights and covariances that are not given are then those of the rows
        nearest to each mean, and ``init`` is not used.
    precisions_init : array-like, default=None
        Initial inverse covariances, of the shape of ``covariances_``.
    n_init : int, default=1
        Number of starts; the run with the highest ``lower_bound_`` is kept.
    max_iter : int, default=100
        Most EM steps of one run.
    tol : float, default=1e-3
        A run ends when the mean log likelihood changes by less than this, in nats per row.
    reg_covar : float, default=1e-6
        Added to every variance, in squared units of X. With 0 the likelihood never falls.
    batch_size : int, default=1024
        Rows of a block of mini-batch EM in ``partial_fit``; ``fit`` uses all rows in every step.
    random_state : int, RandomState instance or None, default=None
        Seed of the start.
    verbose : int, default=0
        Whether to print a line for each step of EM: mean log density and seconds.
    device : str or torch.device, default="auto"
        Where to compute; "auto" is the device of X if it is a tensor, else the CPU.
    strategy : {"ddp"} or None, default=None
        "ddp": the processes that ``torchrun`` started fit together, each on rows of its own; see
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
        Upper triangular U with :math:`S^{-1} = U U^\top`; of the shape of ``covariances_``.
    converged_ : bool
        Whether the best run ended by ``tol``.
    n_iter_ : int
        EM steps of the best run, plus the blocks that ``partial_fit`` closed.
    lower_bound_ : float
        Mean log likelihood at the last E step, before the last M step, as in scikit-learn. After
        ``partial_fit``: that of the rows of the last block.
    lower_bounds_ : ndarray of shape (n_steps,)
        The same at every step of the best run.
    n_samples_seen_ : float
        Total weight of the training rows.
    training_state_ : dict
        Sums within an unfinished block of ``partial_fit``; see ``drop_training_state``.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    sklearn.mixture.GaussianMixture : The same model without weights, streaming and energies.
    EnergyKMeans : The limit of tied, isotropic, vanishing covariances.

    Notes
    -----
    An EM step costs O(n K d^2) time for "full", O(n d (K + d)) for "tied" and O(n K d) for the
    others; "full" skips rows whose posterior is below 1e-20. Rows stream through in chunks, so that
    memory beside X and the parameters stays within scikit-learn's ``working_memory``. Everything
    is computed in float64. Distances of "tied", "diag" and "spherical" are expanded products: their
    relative precision is lost where clusters lie more than 1e6 standard deviations apart.

    ``partial_fit`` treats its first chunk as ``fit`` does (it must have at least 2 and K rows), and
    then follows mini-batch EM in blocks of ``batch_size`` rows with the step
    :math:`(m / b) \max(b / n, (b / n)^{0.7})` at row n for a block of m rows. Blocks are counted
    over calls, so later rows may come in chunks of any size with the same result.

    ``score`` compares models of any ``n_components``, ``covariance_type``, ``init`` and
    ``reg_covar`` on the same rows; it does not compare different preprocessing.

    References
    ----------
    A. P. Dempster, N. M. Laird and D. B. Rubin, "Maximum likelihood from incomplete data via the
    EM algorithm", Journal of the Royal Statistical Society B 39, 1977.
    O. Cappé and E. Moulines, "On-line expectation-maximization algorithm for latent data models",
    Journal of the Royal Statistical Society B 71, 2009.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklebm import EnergyGaussianMixture
    >>> X = load_iris().data
    >>> model = EnergyGaussianMixture(3, random_state=0).fit(X)
    >>> model.transform(X).shape
    (150, 3)
    >>> print(f"{model.score(X):.2f} nats, or {model.bic(X):.0f} with a price for each parameter")
    -1.20 nats, or 581 with a price for each parameter
    >>> print(model.complete([[5.1, 3.5, np.nan, np.nan]]).round(1))
    [[5.1 3.5 1.5 0.3]]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EnergyEstimator._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions({"full", "tied", "diag", "spherical"})],
        "init": [StrOptions({"kmeans", "random"})],
        "weights_init": ["array-like", None],
        "means_init": ["array-like", None],
        "precisions_init": ["array-like", None],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "reg_covar": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }
    _min_rows_fit = 2

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: CovarianceType = "full",
        init: Literal["kmeans", "random"] = "kmeans",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        n_init: int = 1,
        max_iter: int = 100,
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        batch_size: int = 1024,
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
        self.random_state = random_state
        self.verbose = verbose
        self.device = device
        self.strategy = strategy

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the mixture under which the rows are most likely, by EM.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Training rows, at least 2 and at least ``n_components`` of them.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows; a weight of m is the same as m copies of the row.

        Returns
        -------
        self : object
            The fitted estimator. An exception or an interrupt leaves it as it was before.

        Raises
        ------
        ValueError
            If a covariance is not positive definite: increase ``reg_covar``.
        """
        return self._learn(X, self._fit, sample_weight=sample_weight)

    def _max_steps(self) -> int:
        return self._n_runs() * self.max_iter

    def _n_runs(self) -> int:
        return self.n_init if self.means_init is None else 1

    def _fit(self, rows: Rows, progress: Progress | None, **data: Any) -> dict[str, Any]:
        weights = check_sample_weight(
            data.get("sample_weight"),
            np.empty(rows.shape),
            dtype=np.float64,
            ensure_non_negative=True,
        )
        weights = torch.from_numpy(weights.copy()).to(rows.device)
        self._check_row_count(int(rows.ranks.sum((weights > 0).sum())))
        given = check_given(self, rows.shape[1])
        x, parts = rows.all(), self._parts(rows)
        for part in parts:
            check_range(x[part].double())
        seed = rows.ranks.first(draw_seed(self.random_state))
        best: dict[str, Any] = {}
        for run in range(self._n_runs()):
            generator = make_generator(seed, "start", index=run)
            start = start_mixture(x, weights, parts, self, given, generator, rows.ranks)
            state = self._run(start, x, weights, parts, progress, rows.ranks)
            if not best or state["lower_bound_"] > best["lower_bound_"]:
                best = state
            if progress is not None and progress.stopped:
                return best
        if not best["converged_"]:
            warnings.warn(
                f"EM did not converge in max_iter={self.max_iter} steps: increase max_iter or tol.",
                ConvergenceWarning,
                stacklevel=5,
            )
        return best

    def _parts(self, rows: Rows) -> list[slice]:
        return rows.chunks(floats_per_row=6 * rows.shape[1] + 8 * self.n_components)

    def _run(
        self,
        mixture: GaussianMixture,
        x: torch.Tensor,
        weights: torch.Tensor,
        parts: list[slice],
        progress: Progress | None,
        ranks: Ranks,
    ) -> dict[str, Any]:
        n_seen, bounds = float(ranks.sum(weights.sum())), [-np.inf]
        steps = em_steps(mixture, x, weights, parts, float(self.reg_covar), ranks)
        for _ in range(self.max_iter):
            if progress is not None:
                progress.begin()
            bound, mixture = next(steps)
            converged = abs(bound - bounds[-1]) < self.tol
            bounds.append(bound)
            state = partial(self._state, mixture, bounds[1:], converged, len(bounds) - 1, n_seen)
            stopped = progress is not None and progress.end(
                state, lambda: {"lower_bound": bounds[-1]}
            )
            if stopped or converged:
                break
        return state()

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        rows.need_one_process("partial_fit of a mixture")
        if not self._is_fitted():
            if len(rows) < 2:
                raise ValueError("n_samples=1 should be >= 2 in the first chunk: pass more rows.")
            return self._fit(rows, None)
        self._check_unchanged()
        start = import_block(
            self.training_state_, self._mixture(rows.device), float(self.n_samples_seen_)
        )
        state, mixture, bound, n_closed = online_pass(
            start, check_range(rows.all().double()), self.batch_size, float(self.reg_covar)
        )
        return {
            **fitted_arrays(mixture),
            "converged_": self.converged_,
            "n_iter_": self.n_iter_ + n_closed,
            "lower_bound_": bound,
            "lower_bounds_": self.lower_bounds_,
            "n_samples_seen_": self.n_samples_seen_ + len(rows),
            "training_state_": export_block(state),
        }
