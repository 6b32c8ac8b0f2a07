r"""E(x, z) = \|x - z W\|^2, z one-hot; F_beta(x) = -1/beta log sum_k exp(-beta \|x - w_k\|^2)."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import torch
from sklearn.base import ClusterMixin
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.progress import Progress
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.state import Spec
from sklebm.base import EnergyEstimator
from sklebm.energies import PrototypeEnergy
from sklebm.iterative import Draw
from sklebm.mixture._base import OneHotEstimator, inverse_temperature
from sklebm.mixture._clusters import (
    ClusterProblem,
    ClusterRun,
    cluster_spec,
    floats_per_row,
    learn_online,
    source,
    untrained,
    warn_of_clusters,
)

Output = Literal["distance", "onehot", "responsibility", "triangle"]


class EnergyKMeans(ClusterMixin, OneHotEstimator[ClusterProblem, ClusterRun]):
    r"""K-means as an energy with a one-hot latent, and the density it defines.

    .. math:: E(x, z) = \|x - z W\|^2, \qquad F_\infty(x) = \min_k \|x - w_k\|^2,

    .. math:: F_\beta(x) = -\tfrac1\beta \log \sum_{k=1}^K \exp(-\beta \|x - w_k\|^2).

    Lloyd's algorithm lowers the sum of :math:`F_\infty` over the training rows. At the inverse
    temperature :math:`\beta = 1 / (2 \sigma^2)` of the fitted within-cluster variance, the energy
    is a spherical mixture with equal weights, and ``score_samples`` returns its exact log density.

    Parameters
    ----------
    n_clusters : int, default=8
        Number K of prototypes.
    init : {"k-means++", "random"}, callable or array-like, default="k-means++"
        Greedy k-means++ seeding; distinct random rows; ``init(X, n_clusters, random_state=)``,
        which returns the initial centres; or the centres, of shape (n_clusters, n_features).
    n_init : int, default=1
        Number of starting points; the run with the lowest inertia is kept.
    max_iter : int, default=300
        Maximum number of Lloyd iterations per run.
    tol : float, default=1e-4
        A run stops when the squared shift of all centres falls to ``tol`` times the mean variance
        of the features, or when no assignment changes; with ``batch_size``, when a pass lowers the
        inertia by less than the fraction ``tol``.
    batch_size : int or None, default=None
        None runs Lloyd's algorithm on all rows. A number uses random batches of that many rows
        [6]_, one pass per iteration: fewer passes, but a slightly larger inertia. A row of weight m
        fills a batch as m rows do: scale weights to a mean near 1.
    output : {"distance", "onehot", "responsibility", "triangle"}, default="distance"
        What ``transform`` returns for each prototype: the distance; the one-hot code; the posterior
        p(z | x) at ``beta_``; or max(0, mean distance - distance), a sparse code that suits linear
        classifiers.
    random_state : int, RandomState instance or None, default=None
        Seed for the starting points.
    verbose : int, default=0
        If nonzero, print one line per iteration, with the inertia and the time in seconds.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise the CPU.
    strategy : {"ddp"} or None, default=None
        "ddp": processes started by ``torchrun`` fit one model together, each on its own rows; see
        :doc:`/user_guide/scale`.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, n_features_in_)
        The prototypes W.
    labels_ : ndarray of shape (n_samples,)
        Cluster of each row in the last call of ``fit`` or ``partial_fit``.
    inertia_ : float
        Weighted sum of squared distances of the training rows to their prototypes.
    cluster_counts_ : ndarray of shape (n_clusters,)
        Total training weight of each cluster.
    noise_variance_ : float
        Variance per feature around the prototypes, as estimated for rows outside the training set:
        each row in turn is left out of the mean that defines its prototype. After ``partial_fit``,
        which keeps no rows, inertia / (d (n - K)).
    beta_ : float
        Inverse temperature 1 / (2 noise_variance_).
    log_partition_ : float
        Exact log Z = log K + d/2 log(pi / beta_), in nats.
    n_iter_ : int
        Iterations of the best run.
    n_features_in_ : int
        Number of features seen in ``fit``.
    training_state_ : dict
        Double-precision centres after ``partial_fit`` on single-precision rows; otherwise empty.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    sklearn.cluster.KMeans : The same centres, without energies or a density.

    Notes
    -----
    An iteration costs at most O(n d K) time. On the CPU, compiled double-precision kernels skip
    rows, and with many prototypes groups of about ten, whose distances cannot change an assignment
    [4]_, [5]_; they store 24 bytes per row, or n K / 10 numbers of four bytes. On a GPU (for K >=
    128 and n d K >= 2^36), the rows that the bounds do not exclude are gathered. No n x K matrix is
    formed. Memory maps, dask arrays and csr matrices are read in parts; other memory stays within
    ``working_memory``.

    Columns of X are weighted by their scale; a warning is raised if scales differ by more than 1e3.
    ``partial_fit`` initialises the prototypes on its first chunk, then applies MacQueen's rule row
    by row on the CPU, so the sizes of later chunks do not affect the result. A prototype without
    rows moves to the next row that is farther from its own prototype than average. Energies are
    computed in float64.

    References
    ----------
    .. [1] Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007.
    .. [2] Pelleg and Moore, "X-means", ICML 2000 (likelihood, variance after ``partial_fit``).
    .. [3] Coates, Lee and Ng, "An analysis of single-layer networks", AISTATS 2011 (triangle code).
    .. [4] Ding et al., "Yinyang k-means", ICML 2015.
    .. [5] Hamerly, "Making k-means even faster", SDM 2010.
    .. [6] Sculley, "Web-scale k-means clustering", WWW 2010.

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
        "init": [StrOptions({"k-means++", "random"}), callable, "array-like"],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "output": [StrOptions({"distance", "onehot", "responsibility", "triangle"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }
    _accepts_sparse = True
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

    # ------------------------------------------------------------------ learning

    def _n_starts(self) -> int:
        return self.n_init if isinstance(self.init, str) or callable(self.init) else 1

    def _advice(self) -> str:
        return ""  # as in scikit-learn: centres that still move a little are no fault

    def _cost(self, state: Any) -> float:
        return float(state["inertia_"])

    def _prepare(self, rows: Rows, **data: Any) -> ClusterProblem:
        if self.batch_size is not None:
            rows.need_one_process(f"batch_size={self.batch_size}")
        weights = self._weights(rows, self.n_clusters, "n_clusters")
        parts = rows.chunks(floats_per_row(rows.shape[1], self.n_clusters))
        k, names = self.n_clusters, rows.feature_names
        return ClusterProblem(source(rows), weights, parts, rows.ranks, k, self.init, names)

    def _start(self, problem: ClusterProblem, draw: Draw) -> ClusterRun:
        if self.batch_size is None:
            return problem.start(self.tol, draw)
        return problem.start_batches(self.batch_size, self.tol, draw)

    def _step(self, problem: ClusterProblem, run: ClusterRun) -> ClusterRun:
        return run.next()

    def _finish(self, problem: ClusterProblem, run: ClusterRun, state: dict[str, Any]) -> None:
        warn_of_clusters(self, run, state, problem.names)

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        rows.need_one_process("partial_fit, which goes row by row,")
        return learn_online(self, rows, **data)

    def _state_spec(self) -> Spec:
        return cluster_spec()

    # ------------------------------------------------------------------ what it answers

    def _rebuild(self, parameters: dict[str, torch.Tensor]) -> PrototypeEnergy:
        return PrototypeEnergy(parameters["cluster_centers_"].double())

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        return untrained(given)

    def _decodes(self) -> str:
        right = self.output in ("onehot", "responsibility")
        return "" if right else f'set output="onehot" or "responsibility"; it is "{self.output}"'

    def _temperature(self) -> dict[str, float]:
        return {"beta": self.beta_}

    def _n_parameters(self) -> int:
        return int(self.cluster_centers_.size) + 1  # the variance

    def predict(self, X: Any) -> Any:
        """Return the index of the lowest-energy prototype.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Rows to assign.

        Returns
        -------
        labels : array or tensor of shape (n_samples,)
            Index into ``cluster_centers_``.
        """
        return self._map_rows(X, lambda energy, x: energy.assign(x).to(torch.int32), "predict")

    def transform(self, X: Any) -> Any:
        """Return the latent code of each row, in the form chosen by ``output``.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_clusters)
            Distances (Euclidean), one-hot codes, responsibilities, or triangle codes.
        """
        check_is_fitted(self)
        output, beta = self.output, self.beta_
        return self._map_rows(X, lambda energy, x: energy.codes(x, output, beta), "transform")

    def free_energy(self, X: Any, beta: float | None = None) -> Any:
        r"""Return :math:`F_\beta(x)`, the energy with the latent summed out.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Rows to evaluate.
        beta : float or None, default=None
            Inverse temperature; ``math.inf`` gives the squared distance to the closest
            prototype; None uses the fitted ``beta_``.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In squared units of X.
        """
        check_is_fitted(self)
        chosen = inverse_temperature(beta, self.beta_)
        return self._map_rows(X, lambda energy, x: energy.free_energy(x, chosen), "free_energy")

    def score_samples(self, X: Any) -> Any:
        r"""Return :math:`\log p(x) = -\beta F_\beta(x) - \log Z` at the fitted temperature.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        log_density : array or tensor of shape (n_samples,)
            Log density in nats of the mixture of K equally weighted spherical Gaussians with
            variance ``noise_variance_``; exactly normalised. Higher is more typical.
        """
        check_is_fitted(self)
        beta, log_z = self.beta_, self.log_partition_
        return self._map_rows(
            X, lambda energy, x: -beta * energy.free_energy(x, beta) - log_z, "score_samples"
        )

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
