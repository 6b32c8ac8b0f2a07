r"""E(x, z) = \|x - z W\|^2, z one-hot; F_beta(x) = -1/beta log sum_k exp(-beta \|x - w_k\|^2)."""

from __future__ import annotations

import warnings
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.base import ClusterMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array

from sklebm._shell.private import Interval, StrOptions, check_sample_weight, fit_context
from sklebm._shell.progress import Progress
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.ranks import ALONE, Ranks
from sklebm._shell.rows import Rows, row_slices
from sklebm.base import EnergyEstimator
from sklebm.inference.lloyd import Lloyd, inertia, lloyd_steps, online_pass
from sklebm.inference.mini_batch_lloyd import RandomBatches, mini_batch_steps
from sklebm.inference.pruned_lloyd import start_lloyd
from sklebm.inference.seeding import seed_centers
from sklebm.mixture._prototype_estimator import PrototypeEstimator

Output = Literal["distance", "onehot", "responsibility", "triangle"]


class EnergyKMeans(ClusterMixin, PrototypeEstimator):
    r"""K-means as an energy with a one-hot latent, and the density it defines.

    .. math:: E(x, z) = \|x - z W\|^2, \qquad F_\infty(x) = \min_k \|x - w_k\|^2,

    .. math:: F_\beta(x) = -\tfrac1\beta \log \sum_{k=1}^K \exp(-\beta \|x - w_k\|^2).

    Lloyd's algorithm lowers the sum of :math:`F_\infty` over the training rows. At the inverse
    temperature :math:`\beta = 1 / (2 \sigma^2)` of the fitted within-cluster variance the energy
    is a spherical mixture with equal weights, whose log density ``score_samples`` gives exactly.

    Parameters
    ----------
    n_clusters : int, default=8
        Number K of prototypes.
    init : {"k-means++"} or array-like of shape (n_clusters, n_features), default="k-means++"
        Greedy k-means++ seeding, or the initial centres.
    n_init : int, default=1
        Number of seedings; the run with the least inertia is kept.
    max_iter : int, default=300
        Most Lloyd iterations of one run.
    tol : float, default=1e-4
        A run ends when the squared shift of all centres falls to ``tol`` times the mean variance
        of the features, or when no assignment changes; with ``batch_size``, when a pass lowers the
        inertia by less than the fraction ``tol``.
    batch_size : int or None, default=None
        None follows Lloyd's algorithm on all rows. A number takes random batches of as many rows
        [6]_, and an iteration is one pass: fewer passes to a slightly larger inertia.
    output : {"distance", "onehot", "responsibility", "triangle"}, default="distance"
        What ``transform`` returns for each prototype: the distance; the one-hot code; the
        posterior p(z | x) at ``beta_``; or max(0, mean distance - distance), a sparse code that
        linear classifiers use well.
    random_state : int, RandomState instance or None, default=None
        Seed of the seeding.
    verbose : int, default=0
        Whether to print a line for each iteration: the inertia after it, and seconds.
    device : str or torch.device, default="auto"
        Where to compute; "auto" is the device of X if it is a tensor, else the CPU.
    strategy : {"ddp"} or None, default=None
        "ddp": the processes that ``torchrun`` started fit together, each on rows of its own; see
        :doc:`/user_guide/scale`.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, n_features_in_)
        The prototypes W.
    labels_ : ndarray of shape (n_samples,)
        Cluster of each row given last to ``fit`` or ``partial_fit``.
    inertia_ : float
        Weighted sum of squared distances of the training rows to their prototype.
    cluster_counts_ : ndarray of shape (n_clusters,)
        Training weight in each cluster.
    noise_variance_ : float
        Variance per feature around the prototypes, as it is for rows outside the training set: each
        row is left out of its own prototype in turn. After ``partial_fit``, which keeps no rows,
        inertia / (d (n - K)).
    beta_ : float
        Inverse temperature 1 / (2 noise_variance_).
    log_partition_ : float
        Exact log Z = log K + d/2 log(pi / beta_), in nats.
    n_iter_ : int
        Iterations of the best run.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    sklearn.cluster.KMeans : The same centres, without energies or a density.

    Notes
    -----
    An iteration costs O(n d K) time at most. On the CPU, problems that are large enough skip the
    distances that cannot change an assignment: compiled kernels keep bounds for groups of about
    ten prototypes [4]_, [5]_, n K / 10 numbers of four bytes, and follow the steps of Lloyd's
    algorithm in double precision for any number of threads. On a GPU (from K = 128 and n d K = 2^36
    on) rows that the bounds leave are gathered for products with groups of centres. Other memory
    beside X stays within scikit-learn's ``working_memory``; there is no n x K matrix.

    ``partial_fit`` seeds on its first chunk, which must have at least K rows, and then follows
    MacQueen's rule row by row on the CPU, so later rows may come in chunks of any size with the
    same result. Energies are computed in float64.

    References
    ----------
    .. [1] D. Arthur and S. Vassilvitskii, "k-means++: the advantages of careful seeding",
       SODA 2007.
    .. [2] D. Pelleg and A. Moore, "X-means", ICML 2000 (the likelihood, and the variance after
       ``partial_fit``).
    .. [3] A. Coates, H. Lee and A. Y. Ng, "An analysis of single-layer networks in unsupervised
       feature learning", AISTATS 2011 (the triangle code).
    .. [4] Y. Ding et al., "Yinyang k-means", ICML 2015.
    .. [5] G. Hamerly, "Making k-means even faster", SDM 2010.
    .. [6] D. Sculley, "Web-scale k-means clustering", WWW 2010.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklebm import EnergyKMeans
    >>> X, _ = make_blobs(300, centers=4, cluster_std=0.5, random_state=0)
    >>> search = GridSearchCV(EnergyKMeans(random_state=0), {"n_clusters": [2, 4, 8]}).fit(X)
    >>> search.best_params_
    {'n_clusters': 4}
    >>> model = search.best_estimator_
    >>> bool(model.score_samples([[50.0, 50.0]]) < model.score_samples(X).min())
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EnergyEstimator._parameter_constraints,
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "init": [StrOptions({"k-means++"}), "array-like"],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "output": [StrOptions({"distance", "onehot", "responsibility", "triangle"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }
    _own_to_each_rank = ("labels_",)

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means++",
        n_init: int = 1,
        max_iter: int = 300,
        tol: float = 1e-4,
        batch_size: int | None = None,
        output: Output = "distance",
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
        strategy: Literal["ddp"] | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.batch_size = batch_size
        self.output = output
        self.random_state = random_state
        self.verbose = verbose
        self.device = device
        self.strategy = strategy

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the prototypes of least total energy.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Training rows, at least ``n_clusters`` of them.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows; a weight of m is the same as m copies of the row.

        Returns
        -------
        self : object
            The fitted estimator. An exception or an interrupt leaves it as it was before.
        """
        return self._learn(X, self._fit, sample_weight=sample_weight)

    def _max_steps(self) -> int:
        return self._n_runs() * self.max_iter

    def _n_runs(self) -> int:
        return self.n_init if isinstance(self.init, str) else 1

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        x = rows.all()
        weights = check_sample_weight(
            data.get("sample_weight"), np.empty(x.shape), dtype=np.float64, ensure_non_negative=True
        )
        weights = torch.from_numpy(weights.copy()).to(x.device)
        self._check_row_count(int(rows.ranks.sum((weights > 0).sum())))
        seed = rows.ranks.first(draw_seed(self.random_state))
        best: dict[str, Any] = {}
        for run in range(self._n_runs()):
            generator = make_generator(seed, "seeding", index=run)
            state = self._run_lloyd(x, weights, rows, generator, progress)
            if not best or state["inertia_"] < best["inertia_"]:
                best = state
            if progress.stopped:
                break
        distinct = int(np.count_nonzero(best["cluster_counts_"]))
        if distinct < self.n_clusters:
            warnings.warn(
                f"Only {distinct} of n_clusters={self.n_clusters} prototypes own a row: X has "
                "fewer distinct rows than n_clusters. Lower n_clusters.",
                ConvergenceWarning,
                stacklevel=5,
            )
        return best

    def _run_lloyd(
        self,
        x: torch.Tensor,
        weights: torch.Tensor,
        rows: Rows,
        generator: torch.Generator,
        progress: Progress,
    ) -> dict[str, Any]:
        parts = rows.chunks(floats_per_row=3 * x.shape[1] + 2 * self.n_clusters)
        if self.batch_size is None:
            centers = self._initial_centers(x, weights, parts, generator, rows.ranks)
            search = start_lloyd(x, weights, centers, parts, rows.ranks)
            steps = lloyd_steps(search, centers, self.tol, rows.ranks)
        else:
            rows.need_one_process(f"batch_size={self.batch_size}")
            batches = RandomBatches(x, weights, parts, generator)
            # Seeding on all rows would take longer than the passes.
            some = batches.draw(max(3 * self.batch_size, 10 * self.n_clusters))[0]
            few = row_slices(len(some), 3 * x.shape[1] + 2 * self.n_clusters)
            centers = self._initial_centers(x[some], weights[some], few, generator)
            search = Lloyd(x, weights, parts)
            steps = mini_batch_steps(x, weights, centers, batches, self.batch_size, self.tol)
        for n_iter in range(1, self.max_iter + 1):
            progress.begin()
            labels, centers, settled = next(steps)
            state = partial(self._state, search, centers, weights, n_iter, rows.ranks)
            report = partial(_report, rows.ranks, x, weights, labels, centers, parts)
            if progress.end(state, report) or settled:
                break
        return state()

    def _initial_centers(
        self,
        x: torch.Tensor,
        weights: torch.Tensor,
        parts: Any,
        generator: torch.Generator,
        ranks: Ranks = ALONE,
    ) -> torch.Tensor:
        if isinstance(self.init, str):
            return seed_centers(x, weights, self.n_clusters, parts, generator, ranks)
        init = check_array(self.init, dtype=np.float64, input_name="init")
        if init.shape != (self.n_clusters, x.shape[1]):
            raise ValueError(
                f"init has shape {init.shape}, but n_clusters={self.n_clusters} prototypes of "
                f"{x.shape[1]} features need shape {(self.n_clusters, x.shape[1])}."
            )
        return torch.from_numpy(init.copy()).to(x)

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        rows.need_one_process("partial_fit, which goes row by row,")
        x = rows.to_numpy().astype(np.float64, copy=False)
        if self._is_fitted():
            centers, counts = self.cluster_centers_.astype(np.float64), self.cluster_counts_
            error, n_iter = self.inertia_, self.n_iter_
            if len(centers) != self.n_clusters:
                raise ValueError(
                    f"n_clusters={self.n_clusters} differs from the {len(centers)} fitted "
                    "prototypes: set it back, or call fit to start again."
                )
        else:
            self._check_row_count(len(x))
            generator = make_generator(draw_seed(self.random_state), "seeding")
            first = torch.from_numpy(np.require(x, requirements=["C", "W"]))
            weights = torch.ones(len(x), dtype=torch.float64)
            parts = rows.chunks(floats_per_row=3 * x.shape[1] + 2 * self.n_clusters)
            centers = self._initial_centers(first, weights, parts, generator).numpy()
            counts, error, n_iter = np.zeros(len(centers)), 0.0, 0
        centers, counts, labels, added = online_pass(x, centers, counts)
        n_rows = float(counts.sum())
        # The spread of the prototypes stands in for that of rows that are no longer at hand.
        spread = float(centers.var(axis=0).mean()) + error / n_rows
        error += added
        # Rows that are gone cannot be left out one by one: divide by the degrees of freedom.
        freedom = max(n_rows - self.n_clusters, 1.0) * x.shape[1]
        return {
            "cluster_centers_": centers,
            "labels_": labels,
            "cluster_counts_": counts,
            "inertia_": error,
            "n_iter_": n_iter + 1,
            **self._density(error / freedom, x.shape[1], spread),
        }


def _report(ranks: Ranks, *fit: Any) -> dict[str, float]:
    return {"inertia": ranks.total(inertia(*fit))}
