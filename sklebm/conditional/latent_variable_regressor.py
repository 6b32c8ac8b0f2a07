r"""F(x, y) = min_z or softmin_z of |g - Dec(x, z)|^2 / 2 + lambda R(z): one of several answers."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.columns import weighted_mean
from sklebm._shell.private import Interval, StrOptions, fit_context
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Scalar, Spec
from sklebm._shell.targets import as_table, read_targets
from sklebm.conditional import _latents
from sklebm.conditional._base import ConditionalEstimator
from sklebm.energies.latent_targets import REGULARIZERS, LatentTargetEnergy
from sklebm.objectives import Batch, Objective
from sklebm.objectives.latent_losses import FreeEnergyLoss
from sklebm.training.architecture import NetworkRecord
from sklebm.training.pace import Pace
from sklebm.training.schedules import Schedule


class LatentVariableRegressor(RegressorMixin, ConditionalEstimator):
    r"""Regression with a latent: a row may have several answers, and z tells which.

    .. math:: E(x, y, z) = \tfrac{1}{2} \lVert g - \mathrm{Dec}(x, z) \rVert^2 + \lambda R(z),
              \qquad F(x, y) = -\frac{1}{\beta} \log \sum_z p(z) e^{-\beta C(x, y, z)}

    where g = (y - m(x)) / s, with the linear part m and the scale s of its residuals from ridge
    regression, C is the first term of E, and :math:`p(z) \propto e^{-\beta \lambda R(z)}`. At
    ``beta=inf`` F is the minimum of E over z. ``fit`` minimises the mean of F over the rows
    [1]_. F is low at few targets only because the latent carries little information: it is one of
    several branches, a point of a grid, or a real vector that is limited by a penalty, few
    dimensions or noise. For real vectors, F is the minimum over z at any ``beta``, found by descent
    or by an encoder; an encoder adds half the squared distance between z and its output to E, times
    ``encoder_weight``.

    ``fit(X)`` without y explains the rows themselves, as k-means or a curve through the data does.

    Parameters
    ----------
    n_components : int, default=2
        Number of branches, or of components of z.
    hidden_sizes : tuple of int or int, default=(64, 64)
        Widths of the hidden layers of Dec. Empty: Dec is linear.
    latent : {"branches", "grid", "continuous"}, default="branches"
        "branches": z is one-hot, and Dec has an answer for each branch. "grid": z is a point of a
        grid between the ends of ``latent_range``, and an input of Dec. "continuous": z is any point
        in that range.
    regularizer : {"none", "l2", "l1", "l0", "effective_dimension"}, default="none"
        R(z) of "grid" and "continuous": nothing, :math:`\|z\|^2 / 2`, the sum of :math:`|z_i|`,
        the number of components that are not zero, or the number of components among which the
        size of z is shared, :math:`(\sum_i |z_i|)^2 / \|z\|^2`. "none": only the range limits z.
    regularization : float, default=0.1
        Weight lambda of R(z).
    latent_range : tuple of two floats, default=(-1.0, 1.0)
        Least and largest value of each component of z in "grid" and "continuous".
    n_points : int, default=21
        Number of values of each component in "grid". Odd numbers include the middle.
    encoder : bool or callable, default=False
        For "continuous", whether a second network Enc predicts which z explains a target, in one
        pass instead of a descent: True for one with ``hidden_sizes``, or a torch module class,
        called with the number of features (0 without y) plus that of outputs and with
        ``n_components``. It sees the standardised row and g, side by side, and learns from the z of
        a short descent.
    encoder_weight : float, default=1.0
        Weight of the squared distance between z and the output of the encoder.
    latent_noise : float, default=0.0
        For "continuous", the standard deviation of noise that is added to z in training, so that
        Dec learns to work from a z that is known only this accurately. With an encoder and "l2"
        this is the conditional variational auto-encoder with fixed noise [2]_; z is then the output
        of the encoder itself, and ``encoder_weight`` has no effect.
    beta : float, default=25.0
        Inverse temperature, in units of the standardised targets: 25 stands for a standard
        deviation of a fifth around each answer. ``inf``: the minimum over z. With "continuous" it
        affects only the spread of ``sample`` and p(z).
    activation : str, default="silu"
        Activation of the hidden layers: "silu", "softplus", "tanh", "sigmoid", "elu", "relu",
        "shrink", "saturated_linear" or "identity".
    network : callable or None, default=None
        A torch module class instead of the built-in network. "branches": called with the number of
        features (1 without y) and that of branches times outputs. "grid": with the number of
        features (0 without y) plus ``n_components`` and the number of outputs; it sees
        standardised rows and z, side by side, and returns g.
    alpha : float, default=1e-4
        Weight of the L2 penalties: alpha / 2 times the sum of the squared weights of Dec is added
        to the mean loss, and alpha |w|^2 to the mean squared error of the linear part.
    standardize : bool, default=True
        Whether rows are standardised inside, and Dec starts from the linear part. Otherwise Dec
        sees x and returns y (g = y), as a network of your own may need.
    learning_rate : float, default=0.01
        Step size. For a batch of m < ``batch_size`` rows it is scaled by m / ``batch_size``.
    batch_size : int, default=128
        Rows per update.
    max_epochs : int or "auto", default="auto"
        Passes over the rows. "auto": 1500 updates, but at least 20 and at most 150 passes.
    optimizer : str, default="adam"
        Update rule: "adam", "adamw", "sgd", "momentum", "rmsprop", or, with all rows at once,
        "gradient_descent" and "lbfgs".
    learning_rate_schedule : str or Schedule, default="cosine"
        How the learning rate changes over ``max_epochs``: "constant", "linear", "cosine",
        "non_monotone", or a schedule object with its own settings.
    validation_fraction : float or None, default=None
        Fraction of the rows held out for validation; minus their free energy is recorded after
        each epoch.
    n_iter_no_change : int or None, default=None
        Stop when the validation score has not improved by ``tol`` for this many epochs, and keep
        the best parameters. None trains for ``max_epochs``.
    tol : float, default=1e-4
        Minimum absolute improvement that counts as progress.
    warm_start : bool, default=False
        Whether ``fit`` continues from the fitted parameters.
    net_params : dict or None, default=None
        Passed to the internal skorch net: callbacks, iterators, ``optimizer__weight_decay``.
    random_state : int, RandomState instance or None, default=None
        Seed for the initial weights and the batches.
    verbose : int, default=0
        If nonzero, print one line per epoch.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise CUDA if available,
        otherwise the CPU.

    Attributes
    ----------
    coef_ : ndarray of shape (n_outputs, n_features_in_) or (n_outputs, 0)
        Slopes of the linear part m, in the units of X and y; none without y or ``standardize``.
    intercept_, residual_scale_ : ndarray of shape (n_outputs,)
        m(0), and the scales s of the residuals of m. The few targets that are more than 10 times as
        far from m as nine tenths of all targets are moved to that distance, with a warning.
    y_dimensions_ : int
        2 if y was a table, 1 if it was a column, 0 if there was none.
    beta_ : float or None
        The inverse temperature of F; None stands for the minimum over z.
    weights_ : dict of str to ndarray
        Parameters of Dec and Enc under their torch names: "network.0.weight", "encoder.0.weight"
        and so on.
    architecture_ : dict
        Description of the network in plain values.
    offset_, scale_ : ndarray of shape (n_features_in_,)
        The network sees (x - offset_) / scale_.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean free energy of the batches by epoch, with its penalty.
    validation_scores_ : ndarray
        Minus the free energy of the held-out rows by epoch, if ``validation_fraction`` is set.
    n_iter_ : int
        Number of epochs, or of ``partial_fit`` calls.
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
    EnergyRegressor : A density of y for every row, without a latent.
    EnergyKMeans : Branches without rows, by Lloyd's algorithm.

    Notes
    -----
    A step costs O(batch_size k P) for P weights and k values of the grid; branches share one pass,
    a descent takes k = 36, or 20 from the output of an encoder, and the descents of ``explain`` up
    to 900. Training runs in float32, row-wise methods in the dtype of X. ``fit`` merges equal rows
    with equal targets, so weighting a row has the same effect as repeating it, and the order of the
    rows does not matter.

    Without y, ``score_samples`` is log p(x), or -F(x) where F is a minimum. With y it is the log of
    the integral of exp(-beta F) over y, the same for all rows: rows are then given and not
    modelled.

    References
    ----------
    .. [1] Y. LeCun, S. Chopra, R. Hadsell, M. Ranzato and F. J. Huang, "A tutorial on energy-based
       learning", 2006.
    .. [2] K. Sohn, H. Lee and X. Yan, "Learning structured output representation using deep
       conditional generative models", NIPS 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import LatentVariableRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(-1, 1, size=(400, 1))
    >>> sign = rng.choice([-1.0, 1.0], size=400)
    >>> y = sign * (1 + X[:, 0])  # two lines
    >>> model = LatentVariableRegressor(2, (), max_epochs=60, random_state=0).fit(X, y)
    >>> np.sort(model.predict_set([[1.0]])[0]).round(1).tolist()
    [-2.0, 2.0]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **ConditionalEstimator._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "latent": [StrOptions({"branches", "grid", "continuous"})],
        "regularizer": [StrOptions(set(REGULARIZERS))],
        "regularization": [Interval(Real, 0, None, closed="left")],
        "latent_range": ["array-like"],
        "n_points": [Interval(Integral, 2, None, closed="left")],
        "encoder": ["boolean", callable],
        "encoder_weight": [Interval(Real, 0, None, closed="left")],
        "latent_noise": [Interval(Real, 0, None, closed="left")],
        "beta": [Interval(Real, 0, math.inf, closed="right")],
        "standardize": ["boolean"],
    }
    _of_targets = ("coef_", "intercept_", "residual_scale_", "y_dimensions_")
    _pace = Pace(n_updates=1500, most_epochs=150)

    coef_: NDArray[np.float64]
    intercept_: NDArray[np.float64]
    residual_scale_: NDArray[np.float64]
    y_dimensions_: int
    beta_: float | None

    def __init__(
        self,
        n_components: int = 2,
        hidden_sizes: tuple[int, ...] | int = (64, 64),
        *,
        latent: Literal["branches", "grid", "continuous"] = "branches",
        regularizer: str = "none",
        regularization: float = 0.1,
        latent_range: tuple[float, float] = (-1.0, 1.0),
        n_points: int = 21,
        encoder: Any = False,
        encoder_weight: float = 1.0,
        latent_noise: float = 0.0,
        beta: float = 25.0,
        activation: str = "silu",
        network: Any = None,
        alpha: float = 1e-4,
        standardize: bool = True,
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
        self.n_components = n_components
        self.hidden_sizes = hidden_sizes
        self.latent = latent
        self.regularizer = regularizer
        self.regularization = regularization
        self.latent_range = latent_range
        self.n_points = n_points
        self.encoder = encoder
        self.encoder_weight = encoder_weight
        self.latent_noise = latent_noise
        self.beta = beta
        self.activation = activation
        self.network = network
        self.alpha = alpha
        self.standardize = standardize
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
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the model to the rows of X and their targets, or to the rows alone.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs) or None, default=None
            Real targets. None: the rows are to be explained themselves.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights of the rows; None weights all equally.

        Returns
        -------
        self : object
            The fitted estimator. It is left unchanged by an exception or an interrupt.
        """
        return self._learn_targets(X, y, self._fit, sample_weight)

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Update Dec with one pass over a chunk of rows.

        The first call also fixes the units of rows and targets; later ones leave them as they are.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            The next chunk of training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs) or None, default=None
            Their targets, if there were any in the first call.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights of the rows, relative to a row of weight 1.

        Returns
        -------
        self : object
            The updated estimator. It is left unchanged by an exception or an interrupt.
        """
        return self._learn_targets(X, y, self._partial_fit, sample_weight)

    def _learn_targets(self, X: Any, y: Any, step: Any, sample_weight: Any) -> Self:
        targets = None if y is None else read_targets(y, type(self).__name__)
        first = step == self._fit or not self._is_fitted()
        columns = {"target": targets, "weight": sample_weight}
        if targets is not None:
            columns["target"] = as_table(targets)
        known = {"y_dimensions_": 0 if targets is None else targets.ndim}
        return self._learn(X, step, first=first, columns=columns, **known)

    def _read_targets_of(
        self, rows: Rows, known: dict[str, Any], *, goes_on: bool, chunk: bool = False
    ) -> Any:
        if goes_on:
            self._check_resumable(rows)
        return _latents.standardised_targets(self, rows, known, goes_on=goes_on, chunk=chunk)

    def _initial_energy(self, rows: Rows, means: torch.Tensor, generator: torch.Generator) -> Any:
        energy = super()._initial_energy(rows, means, generator)
        _latents.check_encoder(energy)
        return _latents.seed_branches(energy, rows, generator).float()

    def _objective(self, energy: Any) -> Objective:
        return _latents.penalized_loss(self)

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        value, _ = FreeEnergyLoss().loss(energy.eval(), batch, {}, None)  # nothing is drawn
        return -float(value)

    # ------------------------------------------------------------------ the energy

    def _n_outputs(self) -> int:
        return len(self.intercept_) * (self.n_components if self.latent == "branches" else 1)

    def _n_inputs(self, n_features: int) -> int:
        seen = n_features if self.y_dimensions_ else int(self.latent == "branches")
        return seen + (self.n_components if self.latent != "branches" else 0)

    def _classes(self) -> dict[str, Any]:
        return {**super()._classes(), "encoder": self.encoder if callable(self.encoder) else None}

    def _given_width(self, parameters: Any) -> int:
        return super()._given_width(parameters) if self.y_dimensions_ else len(self.intercept_)

    def _further_values(self) -> dict[str, Any]:
        return _latents.record_values(self)

    def _assemble(self, record: NetworkRecord) -> LatentTargetEnergy:
        network = record.encoder(int(record["n_components"]), name="network")
        return _latents.latent_energy(network, record, self)

    def _export(self, energy: Any) -> dict[str, Any]:
        return {**super()._export(energy), "beta_": _latents.beta_of_sums(self)}

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        return {**super()._untrained_state(given), "beta_": _latents.beta_of_sums(self)}

    def _state_spec(self) -> Spec:
        return {
            **super()._state_spec(),
            "coef_": Array("f", (None, None)),
            "intercept_": Array("f", (None,)),
            "residual_scale_": Array("f", (None,)),
            "y_dimensions_": Scalar(int, 0),
            "beta_": Scalar(float, 0.0, optional=True),
        }

    @property
    def _n_features_out(self) -> int:
        n_latent: int = int(self.architecture_["n_latent"])
        return len(self.intercept_) if self.y_dimensions_ else n_latent

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        tags.target_tags.multi_output = True
        return tags

    def _floats_per_row(self) -> int:
        return _latents.floats_per_row(self)

    # ------------------------------------------------------------------ answers

    def _shaped(self, answers: Any) -> Any:
        return answers[..., 0] if self.y_dimensions_ == 1 else answers

    def predict(self, X: Any, z: Any = None) -> Any:
        """Return the answer of each row: that of a given latent, or the mean over latents.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.
        z : array-like of shape (n_samples, n_components) or (n_components,) or None, default=None
            Latents of the rows, or one for all; for branches, their weights. None: the mean of the
            answers over p(z), which has the least squared error; without y in ``fit``, the row as
            reconstructed from its own latent.

        Returns
        -------
        y : array or tensor of shape (n_samples,) or (n_samples, n_outputs)
            In units of y.
        """
        return self._shaped(_latents.predicted(self, X, z))

    def predict_set(self, X: Any, n_answers: int | None = None) -> Any:
        """Return several answers for each row, one for each of several latents.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows; without y in ``fit`` only their number matters.
        n_answers : int or None, default=None
            Number of latents, evenly spaced among all; None: all. "continuous" has 512, which fill
            the range evenly.

        Returns
        -------
        y : array or tensor of shape (n_samples, n_answers) or (n_samples, n_answers, n_outputs)
            In units of y.
        """
        return self._shaped(_latents.predicted_sets(self, X, n_answers))

    def sample(self, X: Any, n_samples: int = 1, *, random_state: RandomState = None) -> Any:
        """Draw targets for each row: a latent from p(z), decoded, plus noise at finite ``beta``.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features), or int
            Rows. Without y in ``fit`` there are none: ``sample(100)`` draws 100 rows.
        n_samples : int, default=1
            Number of draws for each row.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        y : array or tensor of shape (n_rows, n_samples) or (n_rows, n_samples, n_outputs)
            In units of y; without y in ``fit`` of shape (n_samples, n_features). Draws are from
            p(y | x) itself, except with "continuous", where 512 points that fill the range evenly
            stand for p(z). The noise has the variance ``residual_scale_**2 / beta``.
        """
        return _latents.sampled(self, X, n_samples, random_state)

    def explain(self, X: Any, y: Any = None) -> Any:
        """Return the latent of lowest energy of each row with its target.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs) or None, default=None
            Targets; None if ``fit`` had none.

        Returns
        -------
        z : array or tensor of shape (n_samples, n_components)
            One-hot for branches, a point of the grid, or, for "continuous", the end of a descent or
            the answer of the encoder.
        """
        return _latents.with_targets(self, X, y, _latents.explanations, "explain")

    def transform(self, X: Any) -> Any:
        """Return the latent of each row; with y in ``fit``, the mean answer as a table.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components) or (n_samples, n_outputs)
            ``explain(X)``. With y in ``fit``, a latent depends on both row and target; for rows
            alone this is ``predict(X)``.
        """
        return _latents.transformed(self, X)

    def energy(self, X: Any, Z: Any, y: Any = None) -> Any:
        """Return E(x, y, z) of each row with a latent.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.
        Z : array-like of shape (n_samples, n_components)
            Latents.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs) or None, default=None
            Targets; None if ``fit`` had none.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In squared units of the standardised targets.
        """
        return _latents.energies(self, X, Z, y)

    def free_energy(self, X: Any, y: Any = None) -> Any:
        """Return F of each row with its target.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs) or None, default=None
            Targets. None although ``fit`` had targets: F integrated over y, the same for all rows.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In squared units of the standardised targets.
        """
        check_is_fitted(self)
        if self.y_dimensions_ and y is None:
            return self._map_rows(X, lambda e, x: e.integrated(x), "free_energy")
        return _latents.with_targets(
            self, X, y, lambda e, u, g: e.target_free_energy(u, g), "free_energy"
        )

    def conditional_log_density(self, X: Any, y: Any) -> Any:
        """Return log p(y | x) of each row with its target, at finite ``beta``.

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
        check_is_fitted(self)
        if self.beta_ is None or not self.y_dimensions_:
            raise ValueError(
                "conditional_log_density needs a finite beta, targets in fit, and finitely many "
                'latents: at beta=inf or with latent="continuous" F is a minimum, and '
                "free_energy(X, y) is all there is."
            )
        return _latents.with_targets(
            self, X, y, lambda e, u, g: e.log_density(u, g), "conditional_log_density"
        )

    def score_samples(self, X: Any) -> Any:
        """Return how well latents explain each row; for a model of targets, log Z(x).

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            Without y in ``fit``: log p(x) at finite ``beta``, -F(x) where F is a minimum, at
            ``beta=inf`` and with "continuous". With y: the log of the integral of exp(-beta F) over
            y, the same for all rows.
        """
        return _latents.row_scores(self, X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return R^2 of ``predict``, or, without y in ``fit``, the mean of ``score_samples``.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Held-out rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs) or None, default=None
            Their targets.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights of the rows.

        Returns
        -------
        score : float
            R^2 rates the mean answer only: use
            :func:`sklebm.metrics.score_conditional_density` to rate several answers.
        """
        check_is_fitted(self)
        if self.y_dimensions_:
            return float(RegressorMixin.score(self, X, y, sample_weight))
        return weighted_mean(self.score_samples(X), sample_weight, type(self).__name__)
