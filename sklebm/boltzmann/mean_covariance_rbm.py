r"""S^-1 = I / s^2 + R diag(-P y) R', p(x | y, z) = N(S (a + W z), S): means and covariances."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import torch
from sklearn.utils.validation import check_is_fitted

from sklebm import likelihood, settling
from sklebm._checks import check_beta
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.state import Spec
from sklebm.boltzmann import _covariances, _scaled
from sklebm.energies.mean_covariance import MeanCovarianceEnergy
from sklebm.gradient import GradientEstimator
from sklebm.inference.samplers import Sampler
from sklebm.likelihood import DensityCheck
from sklebm.objectives import (
    Batch,
    ContrastiveDivergence,
    MaximumLikelihood,
    Objective,
    PersistentContrastiveDivergence,
    ScoreMatching,
    check_needs,
    resolve_objective,
)
from sklebm.training.optimizers import OPTIMIZERS
from sklebm.training.schedules import Schedule
from sklebm.training.transforms import Projection

OBJECTIVES: dict[str, type[Objective]] = {
    "pcd": PersistentContrastiveDivergence,
    "cd": ContrastiveDivergence,
    "score_matching": ScoreMatching,
    "maximum_likelihood": MaximumLikelihood,
}
_SAMPLED = ("pcd", "cd")


class MeanCovarianceRBM(GradientEstimator):
    r"""Boltzmann machine whose hidden units set the mean and the covariance of real-valued rows.

    .. math:: \log p(x, y, z) = -\frac{|x|^2}{2 s^2} + a^\top x
              + \tfrac12 (x^\top R)^2 P y + c^\top y + x^\top W z + b^\top z - \log Z,
              \qquad P \le 0,

    .. math:: p(x \mid y, z) = N(S (a + W z), S), \qquad
              S^{-1} = I / s^2 + R \, \mathrm{diag}(-P y) \, R^\top.

    A covariance unit y that is on holds the projections on some filters close to zero, as along an
    edge; one that is off lets them vary. Mean units z are those of a
    :class:`~sklebm.GaussianRBM`; without them (``n_components=0``) this is the covariance RBM. Here
    x denotes the row minus ``offset_``, divided by ``scale_``.

    Parameters
    ----------
    n_components : int, default=64
        Number of mean units z; 0 for a covariance RBM.
    n_covariance_components : int, default=64
        Number of covariance units y.
    n_factors : int or None, default=None
        Number of filters, the columns of R; None: as many as covariance units.
    factor_structure : {"full", "topographic"}, default="full"
        Which entries of P may be below zero. "full": all. "topographic": filters and covariance
        units, equal in number, lie on a square grid, and each unit has the 3 x 3 filters around it,
        with wrap-around, so that neighbouring filters become alike; their number must be a square.
    variance : float or "shared", default="shared"
        The variance s^2 of every feature while all covariance units are off: fixed, in squared
        units of X, or learnt, starting from twice the mean variance of the rows.
    objective : str or Objective, default="pcd"
        How the energy is shaped. "pcd": persistent chains; "cd": chains that start at the rows;
        "score_matching": without chains; "maximum_likelihood": exact, for up to 16 hidden units in
        all.
    sampler : {"hmc", "gibbs"}, default="hmc"
        How the chains of "pcd", "cd" and ``sample`` move. "hmc": Hamiltonian Monte Carlo on F, with
        a step size that is adapted to accept nine in ten trajectories; "gibbs": exact draws of the
        hidden units and of x given them, which factorises S^-1 for every row and suits up to a few
        hundred features.
    n_steps : int, default=1
        Trajectories or Gibbs steps of a chain per update.
    n_leapfrog : int, default=10
        Leapfrog steps of a trajectory.
    learning_rate : float, default=0.01
        Step size. For a batch of m < ``batch_size`` rows it is scaled by m / ``batch_size``.
    batch_size : int, default=100
        Rows per update, and number of persistent chains.
    max_epochs : int, default=50
        Passes over the rows.
    optimizer : str, default="adam"
        Update rule: "adam", "adamw", "rmsprop", "sgd", "momentum" (heavy ball), or, with all rows
        at once, "gradient_descent". Not "lbfgs", whose line searches would leave P <= 0.
    learning_rate_schedule : str or Schedule, default="linear"
        How the learning rate changes over ``max_epochs``: "constant", "linear", "cosine",
        "non_monotone", or a schedule object with its own settings.
    validation_fraction : float or None, default=None
        Fraction of the rows held out for validation; the negative of their score-matching loss is
        recorded after each epoch.
    n_iter_no_change : int or None, default=None
        Stop when the validation score has not improved by ``tol`` for this many epochs, and keep
        the best parameters. None trains for ``max_epochs``.
    tol : float, default=1e-4
        Minimum absolute improvement that counts as progress.
    log_partition : {"auto", "exact", "ais"} or None, default="auto"
        How ``fit`` computes log Z at the end. "exact": a Gaussian integral for each state of the
        hidden units (at most 16); "ais": annealed importance sampling by Hamiltonian Monte Carlo,
        forwards and backwards; "auto": exact if possible, otherwise annealed for at most half as
        long as training took; None: not at all.
    warm_start : bool, default=False
        Whether ``fit`` continues from the fitted parameters.
    net_params : dict or None, default=None
        Passed to the internal skorch net: callbacks, iterators, ``optimizer__weight_decay``.
    random_state : int, RandomState instance or None, default=None
        Seed for the initial weights, batches, chains and annealing.
    verbose : int, default=0
        If nonzero, print one line per epoch.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise CUDA if available,
        otherwise the CPU.
    strategy : {"ddp"} or None, default=None
        "ddp": processes started by ``torchrun`` fit one model together, each on its own rows; see
        :doc:`/user_guide/scale`.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features_in_)
        Weights of the mean units, the columns of W.
    filters_ : ndarray of shape (n_factors, n_features_in_)
        The columns of R, of unit length.
    pooling_ : ndarray of shape (n_factors, n_covariance_components)
        P, nowhere positive.
    intercept_hidden_ : ndarray of shape (n_components,)
        Biases b of the mean units.
    intercept_covariance_ : ndarray of shape (n_covariance_components,)
        Biases c of the covariance units.
    intercept_visible_ : ndarray of shape (n_features_in_,)
        The linear term a.
    log_variance_ : ndarray of shape (1,)
        Logarithm of s^2, relative to ``scale_`` ** 2.
    offset_, scale_ : ndarray of shape (n_features_in_,)
        The machine sees (X - offset_) / scale_: means, and one scale for all features.
    log_partition_ : float or None
        log Z in nats; None if unknown. ``partial_fit`` clears it.
    log_partition_interval_ : ndarray of shape (2,) or None
        Estimates from chains started at both ends, plus and minus three standard errors; both
        values equal log Z if it is exact.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean loss by epoch, as defined by the objective.
    validation_scores_ : ndarray
        Negative score-matching loss on held-out rows by epoch, if ``validation_fraction`` is set.
    n_iter_ : int
        Number of epochs, or of ``partial_fit`` calls.
    feature_means_ : ndarray of shape (n_features_in_,)
        Mean of the training rows.
    n_samples_seen_ : int
        Number of training rows.
    training_state_ : dict
        Optimiser statistics and persistent chains; see ``drop_training_state``.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    GaussianRBM : Mean units alone.
    GatedBM : Products of two views instead of squares of one.

    Notes
    -----
    A step costs O(batch_size ``n_leapfrog`` f (d + n_covariance_components)) with "hmc" and
    O(batch_size d^2 (d + f)) with "gibbs"; an exact log Z O(2^n_covariance d^2 (d + f +
    2^n_mean)). Training runs in float32, log Z in float64, row-wise methods in the dtype of X.
    Features should have similar scales: whiten or scale them; columns whose scales differ by more
    than a factor of a thousand raise a warning.

    Rows of very different scales, such as flat and textured image patches, give a density with two
    scales, for which annealing cannot find log Z; a warning says so. Divide such rows by their
    contrast first.

    References
    ----------
    .. [1] M. Ranzato, A. Krizhevsky and G. E. Hinton, "Factored 3-way restricted Boltzmann machines
       for modeling natural images", AISTATS 2010.
    .. [2] M. Ranzato and G. E. Hinton, "Modeling pixel means and covariances using factorized
       third-order Boltzmann machines", CVPR 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import MeanCovarianceRBM
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(1000, 2)) * rng.choice([0.3, 2.0], size=(1000, 2))  # heavy tails
    >>> model = MeanCovarianceRBM(
    ...     0, 4, objective="maximum_likelihood", max_epochs=20, learning_rate=0.03, random_state=0
    ... ).fit(X)
    >>> normal = -0.5 * np.log(2 * np.pi * X.var(axis=0)).sum() - 1.0
    >>> bool(model.score(X) > normal + 0.2)  # nats, exact
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **GradientEstimator._parameter_constraints,
        "optimizer": [StrOptions(set(OPTIMIZERS) - {"lbfgs"})],
        "n_components": [Interval(Integral, 0, None, closed="left")],
        "n_covariance_components": [Interval(Integral, 1, None, closed="left")],
        "n_factors": [Interval(Integral, 1, None, closed="left"), None],
        "factor_structure": [StrOptions({"full", "topographic"})],
        "variance": [Interval(Real, 0, None, closed="neither"), StrOptions({"shared"})],
        "objective": [StrOptions(set(OBJECTIVES)), Objective],
        "sampler": [StrOptions(set(_covariances.SAMPLERS))],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "n_leapfrog": [Interval(Integral, 1, None, closed="left")],
        "log_partition": [StrOptions({"auto", "exact", "ais"}), None],
    }
    _settle_chains = settling.settle_chains

    def __init__(
        self,
        n_components: int = 64,
        n_covariance_components: int = 64,
        n_factors: int | None = None,
        *,
        factor_structure: Literal["full", "topographic"] = "full",
        variance: float | str = "shared",
        objective: str | Objective = "pcd",
        sampler: Literal["hmc", "gibbs"] = "hmc",
        n_steps: int = 1,
        n_leapfrog: int = 10,
        learning_rate: float = 0.01,
        batch_size: int = 100,
        max_epochs: int = 50,
        optimizer: str = "adam",
        learning_rate_schedule: str | Schedule = "linear",
        validation_fraction: float | None = None,
        n_iter_no_change: int | None = None,
        tol: float = 1e-4,
        log_partition: str | None = "auto",
        warm_start: bool = False,
        net_params: dict[str, Any] | None = None,
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
        strategy: Literal["ddp"] | None = None,
    ) -> None:
        self.n_components = n_components
        self.n_covariance_components = n_covariance_components
        self.n_factors = n_factors
        self.factor_structure = factor_structure
        self.variance = variance
        self.objective = objective
        self.sampler = sampler
        self.n_steps = n_steps
        self.n_leapfrog = n_leapfrog
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.optimizer = optimizer
        self.learning_rate_schedule = learning_rate_schedule
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.log_partition = log_partition
        self.warm_start = warm_start
        self.net_params = net_params
        self.random_state = random_state
        self.verbose = verbose
        self.device = device
        self.strategy = strategy

    # ------------------------------------------------------------------ learning

    def _open(self, X: Any, probe: Any, *, reset: bool, min_rows: int = 1) -> Rows:
        rows = super()._open(X, probe, reset=reset, min_rows=min_rows)
        return rows if reset else rows.standardized(_scaled.fitted_scaling(self))

    def _prepare(self, rows: Rows, seed: int, *, resume: bool, **data: Any) -> Rows:
        if resume:
            self._check_resumable(rows)  # before the fitted scale meets rows of another width
            return rows.standardized(_scaled.fitted_scaling(self))
        return rows.standardized(_covariances.learnt_scaling(self, rows))

    def _initial_energy(
        self, rows: Rows, means: torch.Tensor, generator: torch.Generator
    ) -> MeanCovarianceEnergy:
        return _covariances.initial_energy(self, rows, means, generator)

    def _chain(self) -> Sampler:
        return _covariances.make_sampler(self.sampler, self.n_leapfrog)

    def _objective(self, energy: Any) -> Objective:
        given: dict[str, Any] = {"n_steps": self.n_steps} if self.n_steps != 1 else {}
        if isinstance(self.objective, str) and self.objective in _SAMPLED:
            given["sampler"] = self._chain()
        objective = resolve_objective(self.objective, OBJECTIVES, given)
        check_needs(objective, energy, OBJECTIVES.values())
        return objective

    def _projections(self, energy: Any) -> tuple[Projection]:
        return (_covariances.constraint(self, energy),)

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        _covariances.check_resumable(self)

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        return -_covariances.mean_score_matching(energy, batch.x)

    _check_completion = likelihood.need_summable

    def _complete(self, energy: Any, state: dict[str, Any], seed: int) -> dict[str, Any]:
        return likelihood.complete(self, energy, state, seed)

    # ------------------------------------------------------------------ fitted state

    def _state_spec(self) -> Spec:
        return {**super()._state_spec(), **_covariances.SPEC, **likelihood.STATE}

    def _export(self, energy: Any) -> dict[str, Any]:
        return {**super()._export(energy), **likelihood.unknown()}

    def _rebuild(self, parameters: dict[str, torch.Tensor]) -> MeanCovarianceEnergy:
        return _covariances.rebuilt(self, parameters)

    def _check_state(self) -> None:
        super()._check_state()
        if self._is_fitted():
            _covariances.check_signs(self)

    def _floats_per_row(self) -> int:
        n_factors, n_covariance = self.pooling_.shape
        n_mean, d = self.components_.shape
        return int(4 * (d + n_factors + n_covariance + n_mean))

    @property
    def _n_features_out(self) -> int:
        return int(len(self.components_) + self.pooling_.shape[1])

    # ------------------------------------------------------------------ what methods answer

    def transform(self, X: Any) -> Any:
        """Return the means of the hidden units given each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components + n_covariance_components)
            p(z_k = 1 | x) of the mean units, then p(y_j = 1 | x) of the covariance units.
        """
        return self._map_rows(X, lambda energy, x: energy.hidden_mean(x), "transform")

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, y, z) of each row with its own hidden state.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        Z : array-like or tensor of shape (n_samples, n_components + n_covariance_components)
            Hidden states in the order of ``transform``.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In nats.
        """
        return self._pair_energies(X, Z) + _covariances.log_volume(self)

    def free_energy(self, X: Any, beta: float = 1.0) -> Any:
        r"""Return :math:`F_\beta(x) = -\frac1\beta \log \sum_{y, z} e^{-\beta E(x, y, z)}`.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to evaluate.
        beta : float, default=1.0
            Inverse temperature of the hidden units; the model itself is at 1.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In nats, for X in its own units; at ``beta=1`` it is ``-log p(x) - log Z``.
        """
        check_beta(beta)
        volume = _covariances.log_volume(self)
        return self._map_rows(
            X, lambda energy, x: energy.free_energy(x, beta) + volume, "free_energy"
        )

    def score_samples(self, X: Any) -> Any:
        """Return log p(x) where log Z is known, else the unnormalised -F(x).

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            ``-F(x) - log_partition_`` in nats, or ``-F(x)`` if ``log_partition_`` is None. Higher
            is more typical. Deterministic. log Z is exact for up to 16 hidden units of both kinds,
            otherwise annealed, with ``log_partition_interval_``.
        """
        rest = _covariances.log_volume(self, beside=True)
        return self._map_rows(X, lambda energy, x: -energy.free_energy(x) - rest, "score_samples")

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean held-out log-likelihood, at the pessimistic end of the interval of log Z.

        Scores on the same X can be compared between machines of any size, however they were
        trained.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Held-out rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.

        Returns
        -------
        score : float
            Mean log-likelihood in nats.
        """
        check_is_fitted(self)
        likelihood.need_log_partition(self, "score is a log-likelihood and")
        return likelihood.pessimistic_mean(self, X)

    def sample(
        self, n_samples: int = 1, *, n_steps: int = 200, random_state: RandomState = None
    ) -> Any:
        """Draw rows from the model, with one chain of ``sampler`` per row.

        Chains start at independent normal features; the step size of Hamiltonian Monte Carlo is
        adapted during the first half of the steps. Draws are exact in the limit of many steps.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        n_steps : int, default=200
            Trajectories or Gibbs steps of every chain.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The rows, float32.
        """
        check_is_fitted(self)
        return _scaled.drawn(self, self._chain(), n_samples, n_steps, random_state)

    def estimate_log_partition(
        self,
        method: Literal["auto", "exact", "ais"] = "auto",
        *,
        n_chains: int = 100,
        n_temperatures: int = 1000,
        random_state: RandomState = None,
    ) -> Self:
        """Compute log Z, which turns ``score_samples`` into a log-likelihood.

        Parameters
        ----------
        method : {"auto", "exact", "ais"}, default="auto"
            As ``log_partition`` of the constructor, with the numbers of chains and steps given
            here.
        n_chains : int, default=100
            Number of annealed chains.
        n_temperatures : int, default=1000
            Number of annealing steps, each a trajectory of Hamiltonian Monte Carlo. It is doubled,
            at most twice, while both directions disagree or the interval is wider than 0.8 nats.
        random_state : int, RandomState instance or None, default=None
            Seed for the chains.

        Returns
        -------
        self : object
            The estimator with ``log_partition_`` and ``log_partition_interval_`` set.

        Warns
        -----
        UserWarning
            If both directions still disagree after the last doubling. The interval covers both.
        """
        found = likelihood.estimate(self, method, n_chains, n_temperatures, 100, random_state)
        likelihood.keep(self, found)
        return self

    def check_density(self, random_state: RandomState = None) -> DensityCheck:
        """Compare log p with a known density, over draws from the latter.

        Averaged over draws from a density q, no log density exceeds log q (Gibbs' inequality).
        A log Z that is too low can fail the check; passing it proves nothing.

        Parameters
        ----------
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        check : DensityCheck
            ``mean_log_density``, ``reference_log_density``, ``standard_error`` and ``passed``, for
            rows divided by ``scale_``.

        Raises
        ------
        ValueError
            If log Z is unknown.
        """
        return likelihood.check_density(self, random_state)
