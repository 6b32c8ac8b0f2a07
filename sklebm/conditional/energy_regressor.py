r"""p(y | x) = exp(-F(x, y)) / Z(x), F = |g|^2 / 2 + f(x, g), g = (y - m(x)) / s: regression."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.private import Interval, StrOptions, fit_context
from sklebm._shell.random import RandomState, make_generator
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Scalar, Spec
from sklebm._shell.targets import as_table, matching_targets, read_targets
from sklebm.conditional import _targets
from sklebm.conditional._base import ConditionalEstimator
from sklebm.energies.targets import TargetEnergy
from sklebm.inference import target_density
from sklebm.objectives import (
    Batch,
    Objective,
    TargetLikelihood,
    TargetNoiseContrastive,
    TargetScoreMatching,
    resolve_objective,
)
from sklebm.objectives.label_losses import PenalizedLoss, PenalizedNoisyLoss
from sklebm.objectives.target_losses import TargetLoss
from sklebm.training.architecture import NetworkRecord, check_sizes
from sklebm.training.pace import Pace
from sklebm.training.schedules import Schedule

OBJECTIVES: dict[str, type[TargetLoss]] = {
    "nll": TargetLikelihood,
    "nce": TargetNoiseContrastive,
    "score_matching": TargetScoreMatching,
}


class EnergyRegressor(RegressorMixin, ConditionalEstimator):
    r"""Regression by an energy of rows and answers: a whole density of y for every row.

    .. math:: F(x, y) = \tfrac{1}{2} \lVert g \rVert^2 + f(x, g), \qquad
              g = \frac{y - m(x)}{s}, \qquad
              p(y \mid x) = \frac{e^{-F(x, y)}}{\int e^{-F(x, y')} dy'}

    The linear part m, with the scale s of its residuals, is ridge regression in closed form; the
    network f turns its Gaussian into the density that fits the data: skewed, of varying width, or
    with several modes [1]_. ``predict`` gives the y of lowest energy, the highest mode.

    Parameters
    ----------
    hidden_sizes : tuple of int or int, default=(64, 64)
        Widths of the hidden layers of f. Empty, without ``network``: f = 0, so that the model is
        ridge regression with Gaussian residuals.
    activation : str, default="silu"
        Activation of the hidden layers: "silu", "softplus", "tanh", "sigmoid", "elu", "relu",
        "shrink", "saturated_linear" or "identity". Smooth ones give smooth densities.
    network : callable or None, default=None
        A torch module class, called with the number of features plus that of outputs and with 1,
        instead of the built-in network. It sees standardised rows and g, side by side.
    objective : str or Objective, default="nll"
        "nll": minus the log density, with the integral by random quadrature for one output, and by
        importance samples for several; "nce": tells targets from noise, and so learns the
        normaliser; "score_matching": fits the slopes only, without an integral. Or an object with
        its own settings, such as ``sklebm.objectives.TargetLikelihood(n_points=200)``.
    alpha : float or "auto", default="auto"
        Weight of the L2 penalties: alpha |w|^2 is added to the mean squared error of the linear
        part on standardised features (``Ridge`` with the penalty n alpha), and alpha / 2 times the
        sum of the squared weights of the network to its mean loss. "auto" is 3 / n for n rows, so
        that the penalty counts for less the more rows there are.
    learning_rate : float, default=0.01
        Step size. For a batch of m < ``batch_size`` rows it is scaled by m / ``batch_size``.
    batch_size : int, default=128
        Rows per update.
    max_epochs : int or "auto", default="auto"
        Passes over the rows. "auto": 1500 updates, but at least 20 and at most 150 passes.
    optimizer : str, default="adam"
        Update rule: "adam", "adamw", "sgd", "momentum", "rmsprop", or, with all rows at once,
        "gradient_descent" and "lbfgs" ("lbfgs" with "score_matching" only).
    learning_rate_schedule : str or Schedule, default="cosine"
        How the learning rate changes over ``max_epochs``: "constant", "linear", "cosine",
        "non_monotone", or a schedule object with its own settings.
    validation_fraction : float or None, default=None
        Fraction of the rows held out for validation; minus their loss is recorded after each
        epoch.
    n_iter_no_change : int or None, default=None
        Stop when the validation score has not improved by ``tol`` for this many epochs, and keep
        the best parameters. None trains for ``max_epochs``.
    tol : float, default=1e-4
        Minimum absolute improvement that counts as progress.
    warm_start : bool, default=False
        Whether ``fit`` continues from the fitted parameters, including those of the linear part.
        Without a network ``fit`` has a closed form and starts anew.
    net_params : dict or None, default=None
        Passed to the internal skorch net: callbacks, iterators, ``optimizer__weight_decay``.
    random_state : int, RandomState instance or None, default=None
        Seed for the initial weights, batches and points of the integrals.
    verbose : int, default=0
        If nonzero, print one line per epoch.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise CUDA if available,
        otherwise the CPU.

    Attributes
    ----------
    coef_ : ndarray of shape (n_outputs, n_features_in_)
        Slopes of m, in the units of X and y.
    intercept_ : ndarray of shape (n_outputs,)
        m(0).
    residual_scale_ : ndarray of shape (n_outputs,)
        Root mean squared residuals s of the linear part; with a network, the few targets that are
        more than 10 times as far from m as nine tenths of all targets are moved to that distance,
        with a warning.
    alpha_ : float
        Weight of the penalties.
    reach_ : float
        Distance from m(x), in units of s, within which integrals first evaluate the density.
    y_dimensions_ : int
        2 if y was a table, otherwise 1.
    weights_ : dict of str to ndarray
        Parameters of f under their torch names: "network.0.weight" and so on.
    architecture_ : dict
        Description of the network in plain values.
    offset_, scale_ : ndarray of shape (n_features_in_,)
        The network sees (x - offset_) / scale_.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean objective of the batches by epoch, in units of g, with its penalty.
    validation_scores_ : ndarray
        Minus the loss of the held-out rows by epoch, if ``validation_fraction`` is set.
    n_iter_ : int
        Number of epochs, or of ``partial_fit`` calls; 0 without a network.
    feature_means_ : ndarray of shape (n_features_in_,)
        Mean of the training rows.
    n_samples_seen_ : int
        Number of distinct training rows.
    training_state_ : dict
        Optimiser statistics; see ``drop_training_state``.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    EnergyClassifier : The same for labels.
    sklearn.linear_model.Ridge : The linear part.

    Notes
    -----
    A step costs O(batch_size k P) for P weights and k points of an integral, with "score_matching"
    two passes for each output; the linear part costs O(n d^2 + d^3) once. For one output, each
    answer integrates over a grid of 513 points. The trapezoidal rule is exact to 1e-6 for densities
    that are wider than a thirtieth of s; for several outputs integrals are importance-weighted
    means over 4096 points, whose error grows with their number, and ``predict`` descends from the
    best of 513 starts. Training runs in float32, row-wise methods in the dtype of X. Features and
    targets are standardised inside, so their units do not matter. ``fit`` merges equal rows with
    equal targets, so weighting a row has the same effect as repeating it, and the order of the rows
    does not matter; rows of a memory map are not merged. ``score`` is R^2 and rates the predicted
    mode only: use :func:`sklebm.metrics.score_conditional_density` to choose between densities.

    References
    ----------
    .. [1] F. K. Gustafsson, M. Danelljan, G. Bhat and T. B. Schon, "Energy-based models for deep
       probabilistic regression", ECCV 2020.

    Examples
    --------
    >>> from sklebm import EnergyRegressor
    >>> from sklebm.datasets import TwoBranches
    >>> X, y = TwoBranches().sample(2000, random_state=0)
    >>> model = EnergyRegressor((32,), max_epochs=20, random_state=0).fit(X, y)
    >>> pieces = model.predict_interval([[0.8]], level=0.9)[0]  # two branches, two intervals
    >>> pieces.shape
    (2, 2)
    >>> model.sample([[0.8]], 5, random_state=0).shape
    (1, 5)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **ConditionalEstimator._parameter_constraints,
        "objective": [StrOptions(set(OBJECTIVES)), TargetLoss],
        "alpha": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
    }
    _of_targets = ("coef_", "intercept_", "residual_scale_", "reach_", "alpha_", "y_dimensions_")
    standardize = True
    _pace = Pace(n_updates=1500, most_epochs=150)

    coef_: NDArray[np.float64]
    intercept_: NDArray[np.float64]
    residual_scale_: NDArray[np.float64]
    alpha_: float
    reach_: float
    y_dimensions_: int

    def __init__(
        self,
        hidden_sizes: tuple[int, ...] | int = (64, 64),
        *,
        activation: str = "silu",
        network: Any = None,
        objective: str | Objective = "nll",
        alpha: float | Literal["auto"] = "auto",
        learning_rate: float = 0.01,
        batch_size: int = 128,
        max_epochs: int | Literal["auto"] = "auto",
        optimizer: str = "adam",
        learning_rate_schedule: str | Schedule = "cosine",
        validation_fraction: float | None = None,
        n_iter_no_change: int | None = None,
        tol: float = 1e-4,
        warm_start: bool = False,
        net_params: dict[str, Any] | None = None,
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
    ) -> None:
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.network = network
        self.objective = objective
        self.alpha = alpha
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.optimizer = optimizer
        self.learning_rate_schedule = learning_rate_schedule
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.net_params = net_params
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    # ------------------------------------------------------------------ learning

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the model to the rows of X and their targets.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Real targets.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights of the rows; None weights all equally.

        Returns
        -------
        self : object
            The fitted estimator. It is left unchanged by an exception or an interrupt.
        """
        return self._learn_targets(X, y, self._fit, sample_weight)

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Update the network with one pass over a chunk of rows.

        The first call also fits the linear part; later ones leave it as it is.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            The next chunk of training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Their targets.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights of the rows, relative to a row of weight 1.

        Returns
        -------
        self : object
            The updated estimator. It is left unchanged by an exception or an interrupt.
        """
        return self._learn_targets(X, y, self._partial_fit, sample_weight)

    def _learn_targets(self, X: Any, y: Any, step: Any, sample_weight: Any) -> Self:
        targets = read_targets(y, type(self).__name__)
        first = step == self._fit or not self._is_fitted()
        columns = {"target": as_table(targets), "weight": sample_weight}
        known: dict[str, Any] = {"y_dimensions_": targets.ndim}
        return self._learn(X, step, first=first, columns=columns, **known)

    def _read_targets_of(
        self, rows: Rows, known: dict[str, Any], *, goes_on: bool, chunk: bool = False
    ) -> Any:
        """The linear part, and rows whose targets are g."""
        if goes_on:
            self._check_resumable(rows)  # the fitted linear part needs rows of its own width
        return _targets.residual_rows(self, rows, known, goes_on=goes_on, chunk=chunk)

    def _objective(self, energy: Any) -> Objective:
        loss = resolve_objective(self.objective, OBJECTIVES, {})
        kind = PenalizedNoisyLoss if loss.is_stochastic else PenalizedLoss
        return kind(loss, self.alpha_)

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        energy.eval()
        loss = resolve_objective(self.objective, OBJECTIVES, {})
        # The same points after every epoch, so that scores can be compared.
        generator = make_generator(seed, "validation points", device=batch.x.device)
        value, _ = loss.loss(energy, batch, {}, generator)
        return -float(value)

    # ------------------------------------------------------------------ the energy

    def _has_network(self) -> bool:
        return self.network is not None or len(check_sizes(self.hidden_sizes)) > 0

    def _n_outputs(self) -> int:
        return 1

    def _n_inputs(self, n_features: int) -> int:
        return n_features + len(self.intercept_)

    def _assemble(self, record: NetworkRecord) -> TargetEnergy:
        network = record.encoder(1, name="network") if record["has_network"] else None
        linear = (self.coef_, self.intercept_, self.residual_scale_)
        coef, intercept, scale = (torch.from_numpy(part) for part in linear)
        return TargetEnergy(network, coef, intercept, scale, float(self.reach_))

    def _export(self, energy: Any) -> dict[str, Any]:
        state = super()._export(energy)  # copies: training may go on from the energy as it is
        loss = resolve_objective(self.objective, OBJECTIVES, {})
        if isinstance(loss, TargetLoss) and not loss.learns_level:
            for name, level in energy.level().items():
                state["weights_"][name] -= level
        return state

    def _further_values(self) -> dict[str, Any]:
        return {"has_network": int(self._has_network())}

    def _state_spec(self) -> Spec:
        return {
            **super()._state_spec(),
            "coef_": Array("f", (None, "n_features_in_")),
            "intercept_": Array("f", (None,)),
            "residual_scale_": Array("f", (None,)),
            "alpha_": Scalar(float, 0.0),
            "reach_": Scalar(float, 0.0),
            "y_dimensions_": Scalar(int, 1),
        }

    @property
    def _n_features_out(self) -> int:
        return len(self.intercept_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _floats_per_row(self) -> int:
        widest = max((8, *map(int, self.architecture_["hidden_sizes"])))
        return target_density.n_energies(len(self.intercept_)) * (2 * widest + 8)

    def _given_y(self, y: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        return matching_targets(y, len(self.intercept_), type(self).__name__)

    def _need_one_output(self, what: str) -> None:
        check_is_fitted(self)
        if len(self.intercept_) > 1:
            raise ValueError(
                f"{what} is for one output, and y had {len(self.intercept_)}: use sample, or "
                "predict_density at points of your own."
            )

    # ------------------------------------------------------------------ answers

    def predict(self, X: Any) -> Any:
        """Return the y of lowest energy for each row: the highest mode of p(y | x).

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        y : array or tensor of shape (n_samples,) or (n_samples, n_outputs)
            In units of y. One output: the best point of a grid, refined by Newton's method up to
            rounding; several: descent from several starts.
        """
        found = self._map_rows(X, _targets.mode, "predict")
        return found[:, 0] if self.y_dimensions_ == 1 else found

    def transform(self, X: Any) -> Any:
        """Return the y of lowest energy as a table: the latent variable of a row is its unknown y.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_outputs)
            ``predict(X)``, with the container that ``set_output`` asks for.
        """
        return self._map_rows(X, _targets.mode, "transform")

    def energy(self, X: Any, y: Any) -> Any:
        """Return F(x, y) of each row with a target.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In nats.
        """
        return self._map_with_targets(
            X, self._given_y(y), lambda energy, x, y: energy.energy(x, y.to(x.dtype)), "energy"
        )

    def conditional_log_density(self, X: Any, y: Any) -> Any:
        """Return log p(y | x) of each row with a target.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.

        Returns
        -------
        log_p : array or tensor of shape (n_samples,)
            In nats, with respect to the units of y.
        """

        def log_density(energy: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            minus_energy: torch.Tensor = -energy.energy(x, y.to(x.dtype))
            return minus_energy - _targets.log_partition(energy, x)

        return self._map_with_targets(X, self._given_y(y), log_density, "conditional_log_density")

    def predict_density(self, X: Any, y_grid: Any) -> Any:
        """Return p(y | x) of every row at every point of a grid.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.
        y_grid : array-like of shape (n_points,) or (n_points, n_outputs)
            Targets.

        Returns
        -------
        p : array or tensor of shape (n_samples, n_points)
            Densities, per unit of y.
        """
        points = torch.from_numpy(self._given_y(y_grid))

        def density(energy: Any, x: torch.Tensor) -> torch.Tensor:
            y = points.to(x).expand(len(x), -1, -1)
            energies = energy.target_energy(energy.inputs(x), energy.coordinates(x, y))
            return torch.exp(-energies - _targets.log_partition(energy, x)[:, None])

        return self._map_rows(X, density, "predict_density")

    def sample(self, X: Any, n_samples: int = 1, *, random_state: RandomState = None) -> Any:
        """Draw targets from p(y | x) for each row.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.
        n_samples : int, default=1
            Number of draws for each row.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        y : array or tensor of shape (n_rows, n_samples) or (n_rows, n_samples, n_outputs)
            One output: by the inverse of the cumulative probability on the grid of the integral.
            Several: ends of Metropolis-adjusted Langevin chains of 300 steps, which start at the
            best of several draws from the linear part and may stay within one of several separate
            modes.
        """
        return _targets.draw_targets(self, X, n_samples, random_state)

    def predict_interval(self, X: Any, level: float = 0.9) -> list[Any]:
        """Return the smallest set of y that holds a given probability, for each row.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.
        level : float, default=0.9
            Probability, between 0 and 1.

        Returns
        -------
        pieces : list of ndarray of shape (n_pieces, 2)
            Lower and upper ends of the intervals that the set consists of, in ascending order;
            several where the density has several modes. Ends lie on the grid of the integral: 513
            points over the part of y where the density is not negligible.
        """
        self._need_one_output("predict_interval")
        return _targets.intervals(self, X, level)

    def free_energy(self, X: Any) -> Any:
        """Return the free energy of each row, integrated over y.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            Minus the log of the integral of exp(-F(x, y)) over y, in nats.
        """
        return self._map_rows(X, lambda e, x: -_targets.log_partition(e, x), "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return log Z(x), the log of the integral of exp(-F(x, y)) over y; not a density of rows.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            Minus ``free_energy(X)``. Training on p(y | x) does not determine their level, so the
            last bias of f is set such that f = 0 at the mean row with g = 0; a network of your own
            without such a bias keeps its level. "nce" pulls the scores to the log of
            ``residual_scale_``, summed over the outputs.
        """
        return self._map_rows(X, lambda e, x: _targets.log_partition(e, x), "score_samples")
