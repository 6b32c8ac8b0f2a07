r"""F(x, y) = |x - b|^2 / 2 + |y - c|^2 / 2 - sum_k log(1 + exp(d_k + x'W_k y)): related pairs."""

from __future__ import annotations

from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import torch
from sklearn.utils.validation import check_is_fitted

from sklebm import likelihood, settling
from sklebm._shell.available import available_if
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.state import Spec
from sklebm.boltzmann import _pairs, _scaled
from sklebm.boltzmann._pair_norms import keep_normalised
from sklebm.energies.gated import GatedEnergy
from sklebm.gradient import GradientEstimator
from sklebm.inference.gibbs import BlockGibbs
from sklebm.objectives import (
    Batch,
    ContrastiveDivergence,
    MaximumLikelihood,
    Objective,
    PersistentContrastiveDivergence,
    check_needs,
    resolve_objective,
)
from sklebm.training.pace import Pace
from sklebm.training.schedules import Schedule
from sklebm.training.transforms import Projection

OBJECTIVES: dict[str, type[Objective]] = {
    "cd": ContrastiveDivergence,
    "pcd": PersistentContrastiveDivergence,
    "maximum_likelihood": MaximumLikelihood,
}
# Up to this many states of summed units, "auto" follows the exact gradient.
_FEW_STATES = 2**10


class GatedBM(GradientEstimator):
    r"""Gated Boltzmann machine: hidden units that say how one view becomes the other.

    .. math:: E(x, y, z) = \tfrac12 |x - b|^2 + \tfrac12 |y - c|^2 - d^\top z
              - \sum_k z_k \, x^\top W_k \, y,

    for real-valued views; for bits the first two terms are :math:`-b^\top x - c^\top y`. W is a
    full tensor, or has ``n_factors`` factors,

    .. math:: \sum_k z_k \, x^\top W_k \, y = \sum_f (u_f^\top x) (v_f^\top y) (g_f^\top z).

    A row is a pair [x | y] of two views side by side. Given x and z, y is a linear function of x
    plus noise; z selects the function. On shifted images, filters learn Fourier components, and the
    code z indicates the shift, whatever the image.

    Parameters
    ----------
    n_components : int, default=64
        Number of hidden units, the code of a transformation.
    n_factors : int or None, default=None
        Number of factors; None learns the full tensor, of n_components d_x d_y weights.
    split : int or None, default=None
        Number of columns of x, the first ones of a row; None: half of them, rounded down.
    likelihood : {"gaussian", "bernoulli"}, default="gaussian"
        The units of both views: real values, or bits and their probabilities in [0, 1].
    noise_scale : float or "auto", default="auto"
        Standard deviation of the noise of a real-valued feature given x and z, relative to the
        standard deviation of the feature. "auto" is 1/3 for a conditional model and 1 for a joint
        one; use ``score`` to compare other values. Learning that goes on keeps that of the fit.
    conditional : bool, default=True
        True: the model is p(y | x), and x has no density. False: it is p(x, y), a density of
        real-valued views only while the norm of sum_k z_k W_k is below 1 for all z; W is shrunk
        after each step to keep the sum of their spectral norms below 1.
    objective : str or Objective, default="auto"
        How the energy is shaped. "cd": contrastive divergence by Gibbs steps, three-way, with x
        clamped if the model is conditional; "pcd": persistent chains, for a joint model only;
        "maximum_likelihood": the exact gradient, summed over at most 16 units; "auto":
        "maximum_likelihood" for up to 10 of these units, otherwise "cd" for a conditional model and
        "pcd" for a joint one.
    n_gibbs_steps : int, default=1
        Steps of the chains per update.
    n_annealing_steps : int, default=200
        Temperatures of the 20 chains that estimate log Z(x) of each row in a conditional model with
        more than 16 hidden units.
    learning_rate : float, default=0.01
        Step size. For a batch of m < ``batch_size`` rows it is scaled by m / ``batch_size``.
    batch_size : int, default=100
        Rows per update, and number of persistent chains.
    max_epochs : int or "auto", default="auto"
        Passes over the rows; "auto" makes about 3000 updates, in at least 20 and at most 200
        passes.
    optimizer : str, default="adam"
        Update rule: "adam", "adamw", "rmsprop", "sgd", "momentum", or, with all rows at once,
        "gradient_descent" and "lbfgs"; "lbfgs" needs "maximum_likelihood", and cannot learn a joint
        density of real values.
    learning_rate_schedule : str or Schedule, default="linear"
        How the learning rate changes over ``max_epochs``: "constant", "linear", "cosine",
        "non_monotone", or a schedule object with its own settings.
    validation_fraction : float or None, default=None
        Fraction of the rows held out for validation; their log p(y | x) in units of the noise is
        recorded after each epoch. With more than 16 hidden units it is estimated by a short
        annealing run.
    n_iter_no_change : int or None, default=None
        Stop when the validation score has not improved by ``tol`` for this many epochs, and keep
        the best parameters. None trains for ``max_epochs``.
    tol : float, default=1e-4
        Minimum absolute improvement that counts as progress.
    log_partition : {"auto", "exact", "ais", "bridge"} or None, default="auto"
        How ``fit`` computes log Z of a joint model: "exact" sums over the hidden units (and the
        smaller view, if views are bits), at most 16 units in all; "ais" and "bridge" anneal, with
        Hamiltonian Monte Carlo for real values and block Gibbs for bits; "auto": exact if possible;
        None: not at all. A conditional model has no log Z.
    value_range : {"warn", "raise", "clip"}, default="warn"
        What to do with values outside [0, 1], if views are bits; "warn" uses them unchanged.
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
    components_ : ndarray of shape (n_components, n_left_, n_features_in_ - n_left_)
        Weights W of rows divided by ``scale_``, if ``n_factors`` is None.
    left_factors_, right_factors_ : ndarray of shape (n_factors, number of columns of the view)
        Filters u and v of rows divided by ``scale_``, if ``n_factors`` is given.
    hidden_factors_ : ndarray of shape (n_factors, n_components)
        Weights g of the hidden units, if ``n_factors`` is given.
    intercept_left_ : ndarray of shape (n_left_,)
        Biases b, if ``conditional=False``.
    intercept_right_ : ndarray of shape (n_features_in_ - n_left_,)
        Biases c.
    intercept_hidden_ : ndarray of shape (n_components,)
        Biases d.
    n_left_ : int
        Number of columns of x.
    is_binary_, is_conditional_ : bool
        Whether the views are bits, and whether x is given: the ``likelihood`` and ``conditional``
        of the fit.
    offset_, scale_ : ndarray of shape (n_features_in_,)
        The model sees (X - offset_) / scale_, in which real-valued noise has a variance of 1.
    log_partition_ : float or None
        log Z of a joint model in nats; None if unknown.
    log_partition_interval_ : ndarray of shape (2,) or None
        Its interval; both values equal log Z if it is exact.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean loss by epoch, as defined by the objective.
    validation_scores_ : ndarray
        Held-out log p(y | x) by epoch, if ``validation_fraction`` is set.
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
    GaussianRBM : Sums of hidden causes instead of relations between two views.

    Notes
    -----
    A step costs O(batch_size k d_x d_y), or O(batch_size f (d_x + d_y + k)) with factors; exact
    likelihoods cost O(2^k k) for each real-valued row and O(2^k k d_y) for bits, annealed ones
    O(20 ``n_annealing_steps`` k d_y); keeping a real-valued joint model normalised O(k d^3) for
    each update. An annealed log p(y | x) is too high on average, by about half the variance of the
    log weights over the number of chains; it depends only on the row. Training runs in float32,
    row-wise methods in the dtype of X. The units of the features do not matter: the model is the
    same.

    References
    ----------
    .. [1] R. Memisevic and G. E. Hinton, "Unsupervised learning of image transformations", CVPR
       2007.
    .. [2] R. Memisevic and G. E. Hinton, "Learning to represent spatial transformations with
       factored higher-order Boltzmann machines", Neural Computation 22(6), 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import GatedBM
    >>> from sklebm.datasets import make_shifted_pairs
    >>> data = {"image_shape": (1, 8), "max_shift": (0, 2), "density": 0.4}
    >>> X, shifts = make_shifted_pairs(2000, **data, random_state=0)
    >>> model = GatedBM(20, n_factors=40, learning_rate=0.03, max_epochs=40, random_state=0).fit(X)
    >>> codes = [model.transform(X[shifts[:, 1] == shift][:1]) for shift in (-2, -1, 0, 1, 2)]
    >>> image = np.array([[0, 0, 0, 1, 0, 0, 0, 0]])  # a dot in the fourth place
    >>> [int(model.apply(image, code).argmax()) for code in codes]
    [1, 2, 3, 4, 5]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **GradientEstimator._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "n_factors": [Interval(Integral, 1, None, closed="left"), None],
        "split": [Interval(Integral, 1, None, closed="left"), None],
        "likelihood": [StrOptions({"gaussian", "bernoulli"})],
        "value_range": [StrOptions({"warn", "raise", "clip"})],
        "noise_scale": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "conditional": ["boolean"],
        "objective": [StrOptions({"auto", *OBJECTIVES}), ContrastiveDivergence, MaximumLikelihood],
        "n_gibbs_steps": [Interval(Integral, 1, None, closed="left")],
        "n_annealing_steps": [Interval(Integral, 1, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "log_partition": [StrOptions(set(likelihood.METHODS)), None],
    }
    _settle_chains = settling.settle_chains
    _pace = Pace(n_updates=3000, most_epochs=200)

    def __init__(
        self,
        n_components: int = 64,
        *,
        n_factors: int | None = None,
        split: int | None = None,
        likelihood: Literal["gaussian", "bernoulli"] = "gaussian",
        noise_scale: float | str = "auto",
        conditional: bool = True,
        objective: str | Objective = "auto",
        n_gibbs_steps: int = 1,
        n_annealing_steps: int = 200,
        learning_rate: float = 0.01,
        batch_size: int = 100,
        max_epochs: int | str = "auto",
        optimizer: str = "adam",
        learning_rate_schedule: str | Schedule = "linear",
        validation_fraction: float | None = None,
        n_iter_no_change: int | None = None,
        tol: float = 1e-4,
        log_partition: str | None = "auto",
        value_range: str = "warn",
        warm_start: bool = False,
        net_params: dict[str, Any] | None = None,
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
        strategy: Literal["ddp"] | None = None,
    ) -> None:
        self.n_components = n_components
        self.n_factors = n_factors
        self.split = split
        self.likelihood = likelihood
        self.noise_scale = noise_scale
        self.conditional = conditional
        self.objective = objective
        self.n_gibbs_steps = n_gibbs_steps
        self.n_annealing_steps = n_annealing_steps
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.optimizer = optimizer
        self.learning_rate_schedule = learning_rate_schedule
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.log_partition = log_partition
        self.value_range = value_range
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

    def _check_rows(self, rows: Rows, *, learning: bool) -> None:
        _pairs.check_rows(self, rows, learning=learning)

    def _prepare(self, rows: Rows, seed: int, *, resume: bool, **data: Any) -> Rows:
        if resume:
            self._check_resumable(rows)  # before the fitted scale meets rows of another width
            return rows.standardized(_scaled.fitted_scaling(self))
        return rows.standardized(_pairs.learnt_scaling(self, rows))

    def _initial_energy(
        self, rows: Rows, means: torch.Tensor, generator: torch.Generator
    ) -> GatedEnergy:
        return _pairs.initial_energy(self, rows, means.float(), generator)

    def _objective(self, energy: Any) -> Objective:
        name = self.objective
        if name == "auto":
            exact = 2 ** getattr(energy, "summed_units", 99) <= _FEW_STATES
            if self.conditional:
                exact = 2**self.n_components <= _FEW_STATES
            sampled = "cd" if self.conditional else "pcd"
            name = "maximum_likelihood" if exact and self.n_gibbs_steps == 1 else sampled
        options = {"n_gibbs_steps": self.n_gibbs_steps} if self.n_gibbs_steps != 1 else {}
        objective = resolve_objective(name, OBJECTIVES, options)
        if self.conditional and isinstance(objective, PersistentContrastiveDivergence):
            raise ValueError(
                "Persistent chains draw x and y, but conditional=True trains p(y | x), with x "
                'given: set objective="cd", or conditional=False.'
            )
        if self._projections(energy) and self.optimizer == "lbfgs":
            raise ValueError(
                'The line searches of optimizer="lbfgs" leave the weights for which real-valued '
                'views have a joint density: use "adam", or conditional=True.'
            )
        check_needs(objective, energy, OBJECTIVES.values())
        return objective

    def _projections(self, energy: Any) -> tuple[Projection, ...]:
        if self.conditional or self.likelihood == "bernoulli":
            return ()
        return (partial(keep_normalised, energy),)

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        _pairs.check_resumable(self)

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        return -_pairs.mean_given_left(self, energy, batch.x)

    _check_completion = _pairs.check_completion

    def _complete(self, energy: Any, state: dict[str, Any], seed: int) -> dict[str, Any]:
        return state if self.conditional else likelihood.complete(self, energy, state, seed)

    # ------------------------------------------------------------------ fitted state

    def _state_spec(self) -> Spec:
        return {**super()._state_spec(), **_pairs.state_spec(self), **likelihood.STATE}

    def _export(self, energy: Any) -> dict[str, Any]:
        return {**_pairs.export(energy), **likelihood.unknown()}

    def _rebuild(self, parameters: dict[str, torch.Tensor]) -> GatedEnergy:
        return _pairs.rebuilt(self, parameters)

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Self:
        """Make an estimator from given parameters, as if a fit had found them.

        Parameters
        ----------
        **parameters : object
            Fitted attributes without their underscore: ``components``, or the three factors, and
            the intercepts; parameters of the constructor. Without ``offset`` and ``scale`` the
            model sees rows as they are.

        Returns
        -------
        estimator : object
            It transforms, scores, can be saved, and keeps learning with ``partial_fit``.

        Raises
        ------
        TypeError
            If a parameter is missing or its name is unknown.
        ValueError
            If the arrays do not fit each other or the parameters.
        """
        return super().from_parameters(**_pairs.completed(parameters))

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        binary = self.likelihood == "bernoulli"
        kind = _pairs.kind_of(given["n_left_"], binary, bool(self.conditional))
        return {**super()._untrained_state(given), **kind}

    def _check_state(self) -> None:
        super()._check_state()
        _pairs.check_views(self)

    def _floats_per_row(self) -> int:
        return _pairs.floats_per_row(self)

    @property
    def _n_features_out(self) -> int:
        return len(self.intercept_hidden_)

    # ------------------------------------------------------------------ what methods answer

    def transform(self, X: Any) -> Any:
        """Return the code of the relation between both views of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Pairs [x | y].

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components)
            p(z_k = 1 | x, y).
        """
        return self._map_rows(X, lambda energy, v: energy.hidden_mean(v), "transform")

    def apply(self, X_left: Any, Z: Any) -> Any:
        """Return the mean of y given x and a code: the transformation applied to other images.

        Parameters
        ----------
        X_left : array-like or tensor of shape (n_samples, n_left_)
            Left views x, in the units of X.
        Z : array-like or tensor of shape (n_samples, n_components)
            A code for each left view, such as ``transform`` returns for pairs.

        Returns
        -------
        X_right : array or tensor of shape (n_samples, n_features_in_ - n_left_)
            E[y | x, z], in the units of X.
        """
        check_is_fitted(self)
        return _pairs.applied(self, X_left, Z)

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, y, z) of each row with its own hidden state.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Pairs [x | y].
        Z : array-like or tensor of shape (n_samples, n_components)
            Hidden states.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In nats, for X in its own units; of a conditional model, without the terms of x alone.
        """
        return self._pair_energies(X, Z) + _pairs.log_volume(self)

    def free_energy(self, X: Any, beta: float = 1.0) -> Any:
        r"""Return -log p(y | x) of a conditional model, or F(x, y) of a joint one.

        .. math:: F_\beta(x, y) = -\frac1\beta \log \sum_z e^{-\beta E(x, y, z)}

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Pairs [x | y].
        beta : float, default=1.0
            Inverse temperature of the hidden units of a joint model; a conditional one is at 1.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In nats, for X in its own units. At ``beta=1`` F(x, y) is -log p(x, y) - log Z.
        """
        return self._map_rows(X, _pairs.free_energies(self, beta), "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return log p(y | x), or, of a joint model, log p(x, y).

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Pairs [x | y].

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            In nats, for X in its own units; higher is more typical. Deterministic. Exact for up to
            16 hidden units; beyond, log p(y | x) is annealed, and so is log Z of a joint model.
            While log Z of a joint model is unknown, -F(x, y).
        """
        log_z = self.log_partition_ if self._is_fitted() else None
        return self._map_rows(X, partial(_pairs.score, self, log_z or 0.0), "score_samples")

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log p(y | x), or, of a joint model, the mean log p(x, y).

        Scores on the same X can be compared between models with the same ``conditional`` and
        ``split``. A joint model is scored at the pessimistic end of the interval of log Z.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Held-out pairs.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.

        Returns
        -------
        score : float
            In nats per row.
        """
        check_is_fitted(self)
        if self.is_conditional_:
            return super().score(X)
        likelihood.need_log_partition(self, "score is a log-likelihood and")
        return likelihood.pessimistic_mean(self, X)

    @available_if(_pairs.is_joint)
    def sample(
        self, n_samples: int = 1, *, n_steps: int = 1000, random_state: RandomState = None
    ) -> Any:
        """Draw pairs from a joint model, with one block Gibbs chain per row.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        n_steps : int, default=1000
            Gibbs steps of every chain: z, x and y in turn.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Pairs [x | y], float32.
        """
        check_is_fitted(self)
        return _scaled.drawn(self, BlockGibbs(), n_samples, n_steps, random_state)

    @available_if(_pairs.is_joint)
    def estimate_log_partition(
        self,
        method: likelihood.PartitionMethod = "auto",
        *,
        n_chains: int = 100,
        n_temperatures: int | None = None,
        n_steps: int = 100,
        random_state: RandomState = None,
    ) -> Self:
        """Compute log Z of a joint model, which turns ``score_samples`` into log p(x, y).

        Parameters
        ----------
        method : {"auto", "exact", "ais", "bridge"}, default="auto"
            As ``log_partition`` of the constructor.
        n_chains : int, default=100
            Number of annealed chains, or of ladders.
        n_temperatures : int or None, default=None
            Number of annealing steps (None: 1000), or of rungs of each ladder (None: 20).
        n_steps : int, default=100
            Steps of the ladders of "bridge".
        random_state : int, RandomState instance or None, default=None
            Seed for the chains.

        Returns
        -------
        self : object
            The estimator with ``log_partition_`` and ``log_partition_interval_`` set.
        """
        found = likelihood.estimate(self, method, n_chains, n_temperatures, n_steps, random_state)
        likelihood.keep(self, found)
        return self
