r"""E(x, h_1, ..., h_L) = -b_0' x - sum_l b_l' h_l - h_1' W_0 x - sum_l h_{l+1}' W_l h_l."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm import likelihood, settling
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Record, Spec
from sklebm._shell.value_range import apply_value_range
from sklebm.boltzmann import _chains, _deep_state, _greedy
from sklebm.energies import BilinearEnergy, LayeredEnergy
from sklebm.gradient import GradientEstimator
from sklebm.likelihood import DensityCheck, PartitionMethod
from sklebm.objectives import (
    Batch,
    MaximumLikelihood,
    MeanFieldContrastiveDivergence,
    MeanFieldShortChains,
    Objective,
    check_needs,
    resolve_objective,
)
from sklebm.training.layered_centring import LayeredCentring
from sklebm.training.schedules import Schedule
from sklebm.training.start import Start
from sklebm.training.transforms import TransformState

OBJECTIVES: dict[str, type[Objective]] = {
    "pcd": MeanFieldContrastiveDivergence,
    "cd": MeanFieldShortChains,
    "maximum_likelihood": MaximumLikelihood,
}
_DEFAULT_GIBBS_STEPS = 1
# Mean-field steps of the methods; a row stops before, where its means have settled.
_STEPS = 500


class DeepBoltzmannMachine(GradientEstimator):
    r"""Boltzmann machine with several layers of hidden units, trained together.

    .. math:: E(x, h_1, \dots, h_L) = -\sum_{l=0}^{L} b_l^\top h_l
              - \sum_{l=0}^{L-1} h_{l+1}^\top W_l h_l, \qquad h_0 = x,

    .. math:: \log p(x) \geq -E(x, m) + \sum_k H(m_k) - \log Z.

    The bound holds for independent hidden units with any means m; mean field finds those that
    maximise it. All layers learn together, from random weights or after greedy pretraining layer by
    layer. Gradients contrast the rows at their mean field with persistent chains, and are centred
    at the means of the units.

    Parameters
    ----------
    hidden_sizes : tuple of int or int, default=(500, 1000)
        Number of hidden units of each layer, from the bottom up.
    objective : str or Objective, default="pcd"
        "pcd": mean field for the rows and persistent chains for the model; "cd": the same with
        chains that start at the rows in every update, which is biased; "maximum_likelihood":
        the exact likelihood, for machines whose states can be summed over: at most 20 units in the
        even layers (the rows are layer 0) or in the odd ones, whichever have fewer, and at most 20
        in the even hidden layers.
    n_gibbs_steps : int, default=1
        Steps of the chains per update, each of all even and then all odd layers.
    centering : bool, default=True
        Whether to centre gradients at the means of the units, without which deep layers hardly
        learn from random weights. "lbfgs" uses the plain gradient.
    learning_rate : float, default=0.1
        Step size. For a batch of m < ``batch_size`` rows it is scaled by m / ``batch_size``.
    batch_size : int, default=100
        Rows per update, and number of persistent chains.
    max_epochs : int, default=20
        Passes over the rows.
    pretraining_epochs : int, default=0
        Passes over the rows in which ``fit`` first trains each layer alone, from the bottom up, by
        persistent chains (greedy pretraining). 0 starts from random weights, as ``partial_fit``
        always does. Callbacks, curves and ``n_iter_`` do not cover these passes.
    optimizer : str, default="sgd"
        Update rule: "sgd", "momentum" (heavy ball), "rmsprop", "adam", "adamw", or, with all rows
        at once, "gradient_descent" and "lbfgs"; "lbfgs" needs
        ``objective="maximum_likelihood"``.
    learning_rate_schedule : str or Schedule, default="linear"
        How the learning rate changes over ``max_epochs``: "constant", "linear", "cosine",
        "non_monotone", or a schedule object with its own settings.
    validation_fraction : float or None, default=None
        Fraction of the rows held out for validation; the log probability with which the first
        hidden layer predicts them, at their mean field, is recorded after each epoch.
    n_iter_no_change : int or None, default=None
        Stop when the validation score has not improved by ``tol`` for this many epochs, and keep
        the best parameters. None trains for ``max_epochs``.
    tol : float, default=1e-4
        Minimum absolute improvement that counts as progress.
    log_partition : {"auto", "exact", "ais", "bridge"} or None, default="auto"
        How ``fit`` computes log Z at the end. "exact": a sum over the states of the even or the odd
        layers, whichever have fewer units (at most 20); "ais": annealed importance sampling,
        forwards and backwards; "bridge": bridge sampling along a ladder of tempered chains; "auto":
        exact up to 20 units, otherwise annealed; None: not at all.
    value_range : {"warn", "raise", "clip"}, default="warn"
        What to do with values outside [0, 1]; "warn" uses them unchanged.
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
    weights_ : dict of ndarray
        W_l, of shape (width of layer l + 1, width of layer l), under the names "layer1" for the
        weights between the rows and the first hidden layer, and so on.
    intercepts_ : dict of ndarray
        Biases b_l: "layer0" of the visible units, "layer1" of the first hidden layer, and so on.
    log_partition_ : float or None
        log Z in nats; None if unknown. ``partial_fit`` clears it.
    log_partition_interval_ : ndarray of shape (2,) or None
        Estimates from chains started at both ends, plus and minus three standard errors; both
        values equal log Z if it is exact.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean energy of the batches at their mean field minus that of the chains, by epoch (nats);
        the mean negative log-likelihood for "maximum_likelihood".
    validation_scores_ : ndarray
        Held-out log probability given the first hidden layer by epoch, if
        ``validation_fraction`` is set.
    n_iter_ : int
        Number of epochs, or of ``partial_fit`` calls.
    feature_means_ : ndarray of shape (n_features_in_,)
        Mean of the training rows, from which annealing and sampling start.
    hidden_means_ : ndarray of shape (sum of hidden_sizes,) or None
        Moving average of the hidden units, at which gradients are centred.
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
    DeepBeliefNetwork : Layers learnt one after the other.
    BernoulliRBM : One hidden layer.

    Notes
    -----
    Energies and the bound are exact, and so is log Z if it is summed. Mean field finds a local
    maximum of the bound, which is exact for one hidden layer. A step costs O(batch_size
    n_mean_field sum_l d_l d_{l+1}) with at most 10 mean-field steps. Training runs in float32,
    row-wise methods in the dtype of X, log Z in float64; annealing multiplies by 2^16 weights or
    more in float32. csr rows are made dense batch by batch.

    References
    ----------
    .. [1] R. Salakhutdinov and G. Hinton, "Deep Boltzmann machines", AISTATS 2009.
    .. [2] J. Melchior, A. Fischer and L. Wiskott, "How to center deep Boltzmann machines", Journal
       of Machine Learning Research 17(99), 2016.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import DeepBoltzmannMachine
    >>> X = (load_digits().data > 8).astype("float32")
    >>> machine = DeepBoltzmannMachine((16, 8), max_epochs=10, random_state=0).fit(X)
    >>> machine.transform(X).shape  # the means of both hidden layers
    (1797, 24)
    >>> bool(machine.score(X) > -26)  # exact log Z: the 16 units of the odd layer are summed over
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **GradientEstimator._parameter_constraints,
        "hidden_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "objective": [StrOptions(set(OBJECTIVES)), Objective],
        "n_gibbs_steps": [Interval(Integral, 1, None, closed="left")],
        "centering": ["boolean"],
        "pretraining_epochs": [Interval(Integral, 0, None, closed="left")],
        "log_partition": [StrOptions(set(likelihood.METHODS)), None],
        "value_range": [StrOptions({"warn", "raise", "clip"})],
    }
    _settle_chains = settling.settle_chains
    _accepts_sparse = True
    _check_completion = _deep_state.need_summable_half
    _visible_range = (0.0, 1.0)

    weights_: dict[str, np.ndarray[Any, Any]]
    intercepts_: dict[str, np.ndarray[Any, Any]]
    hidden_means_: np.ndarray[Any, Any] | None
    log_partition_: float | None
    log_partition_interval_: np.ndarray[Any, Any] | None

    def __init__(
        self,
        hidden_sizes: tuple[int, ...] | int = (500, 1000),
        *,
        objective: str | Objective = "pcd",
        n_gibbs_steps: int = 1,
        centering: bool = True,
        learning_rate: float = 0.1,
        batch_size: int = 100,
        max_epochs: int = 20,
        pretraining_epochs: int = 0,
        optimizer: str = "sgd",
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
        self.hidden_sizes = hidden_sizes
        self.objective = objective
        self.n_gibbs_steps = n_gibbs_steps
        self.centering = centering
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.pretraining_epochs = pretraining_epochs
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

    def _initial_energy(
        self, rows: Rows, means: torch.Tensor, generator: torch.Generator
    ) -> LayeredEnergy:
        widths = [len(means), *_deep_state.checked_sizes(self.hidden_sizes)]
        return _deep_state.initial_energy(widths, means, rows.total(), generator)

    def _starting_energy(self, start: Start) -> Any:
        energy = super()._starting_energy(start)
        if self.pretraining_epochs and not start.resume and not start.n_calls:
            _greedy.pretrain(self, energy, start)
        return energy

    def _objective(self, energy: Any) -> Objective:
        given = self.n_gibbs_steps != _DEFAULT_GIBBS_STEPS
        options = {"n_gibbs_steps": self.n_gibbs_steps} if given else {}
        objective = resolve_objective(self.objective, OBJECTIVES, options)
        check_needs(objective, energy, OBJECTIVES.values())
        return objective

    def _transforms(self, energy: Any, start: Start) -> tuple[LayeredCentring, ...]:
        if not self.centering:
            return ()
        like, means = energy.layers[0].bias, start.means
        hidden = torch.full((sum(energy.widths[1:]),), 0.5)
        if start.resume:
            means = torch.from_numpy(self.feature_means_)
            if self.hidden_means_ is not None:
                hidden = torch.from_numpy(self.hidden_means_)
        return (LayeredCentring(energy, means.to(like), hidden.to(like)),)

    def _export_transforms(self, states: list[TransformState]) -> dict[str, Any]:
        means = states[0]["hidden_mean"].cpu().numpy().copy() if self.centering else None
        return {"hidden_means_": means}

    def _check_rows(self, rows: Rows, *, learning: bool) -> None:
        apply_value_range(rows, self.value_range, owner=type(self).__name__, learning=learning)

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        _deep_state.check_sizes(self)

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        first = energy.split(energy.mean_field(batch.x))[0]
        field = energy.field(0, None, first)
        values = (batch.x * field).sum(dim=1) - energy.layers[0].cumulant(field).sum(dim=1)
        return float(values.double().mean())

    _complete = likelihood.complete

    def _path_energy(self, energy: Any, mean: Any) -> tuple[BilinearEnergy, Any]:
        """All even layers as the visible units of one machine; those above start at one half."""
        return BilinearEnergy.of_halves(energy), np.r_[mean, np.full(sum(energy.widths[2::2]), 0.5)]

    # ------------------------------------------------------------------ fitted state

    def _state_spec(self) -> Spec:
        return {
            **super()._state_spec(),
            "weights_": Record(),
            "intercepts_": Record(),
            "hidden_means_": Array("f", (None,), optional=True),
            **likelihood.STATE,
        }

    def _export(self, energy: Any) -> dict[str, Any]:
        return {**_deep_state.exported(energy), **likelihood.unknown()}

    def _energy(self, device: torch.device) -> LayeredEnergy:
        return _deep_state.rebuilt(self.weights_, self.intercepts_, device)

    def _check_state(self) -> None:
        super()._check_state()
        if self._is_fitted():
            _deep_state.check_sizes(self)

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Self:
        """Make a machine from given weights and biases, as if a fit had found them.

        Parameters
        ----------
        **parameters : object
            ``weights``, a list of matrices from the bottom up, each of shape (units above, units
            below); ``intercepts``, a list of the biases of all layers, those of the rows first; and
            parameters of the constructor.

        Returns
        -------
        estimator : object
            It transforms, scores, can be saved, and keeps learning with ``partial_fit``. log Z is
            unknown until ``estimate_log_partition`` computes it.

        Raises
        ------
        TypeError
            If a parameter is missing or its name is unknown.
        ValueError
            If the arrays do not fit each other.
        """
        return super().from_parameters(**_deep_state.given(cls, parameters))

    @property
    def _n_features_out(self) -> int:
        return sum(len(matrix) for matrix in self.weights_.values())

    def _floats_per_row(self) -> int:
        return 6 * (int(self.n_features_in_) + self._n_features_out)

    # ------------------------------------------------------------------ what it answers

    def transform(self, X: Any) -> Any:
        """Return the means of all hidden layers at the mean field of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        H : array or tensor of shape (n_samples, sum of hidden_sizes)
            Side by side, the first hidden layer first.
        """
        return self._map_rows(X, lambda energy, x: energy.mean_field(x, _STEPS), "transform")

    def inverse_transform(self, X: Any) -> Any:
        """Return the means of the visible units given hidden units.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, sum of hidden_sizes)
            Hidden states or means, of which only the first layer is used.

        Returns
        -------
        X_original : array or tensor of shape (n_samples, n_features)
            p(x_i = 1 | h_1).
        """

        def decode(energy: LayeredEnergy, h: torch.Tensor) -> torch.Tensor:
            return energy.layers[0].mean(energy.field(0, None, energy.split(h)[0].contiguous()))

        return self._map_rows(X, decode, "inverse_transform", latents=True)

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, z) of each row with its own hidden states.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Visible states.
        Z : array-like or tensor of shape (n_samples, sum of hidden_sizes)
            States of all hidden layers.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In nats.
        """
        return self._pair_energies(X, Z)

    def free_energy(self, X: Any) -> Any:
        """Return the variational free energy, an upper bound on F(x) = -log p(x) - log Z.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Rows to evaluate.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In nats; F itself for one hidden layer.
        """

        def bound(energy: LayeredEnergy, x: torch.Tensor) -> torch.Tensor:
            return energy.variational_free_energy(x, energy.mean_field(x, _STEPS))

        return self._map_rows(X, bound, "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return the variational lower bound on log p(x), without log Z while that is unknown.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            ``-free_energy(X) - log_partition_`` in nats. Higher is more typical. Deterministic.
        """
        check_is_fitted(self)
        return -self.free_energy(X) - (self.log_partition_ or 0.0)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean held-out bound, at the pessimistic end of the interval of log Z.

        Scores on the same X can be compared between machines of any size, however they were
        trained.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Held-out rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.

        Returns
        -------
        score : float
            Mean lower bound on the log-likelihood in nats.
        """
        check_is_fitted(self)
        likelihood.need_log_partition(self, "score is a log-likelihood and")
        return likelihood.pessimistic_mean(self, X)

    def sample(
        self,
        n_samples: int = 1,
        *,
        n_steps: int = 1000,
        init: Any = None,
        clamped: Any = None,
        random_state: RandomState = None,
    ) -> Any:
        """Draw rows from the model, with one chain per row; it redraws even and odd layers in turn.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        n_steps : int, default=1000
            Steps of every chain; draws are exact in the limit of many steps.
        init : array-like of shape (n_features,) or (n_samples, n_features), default=None
            Initial rows of the chains; None starts from the base rate of the units.
        clamped : array-like of shape (n_features,) or (n_samples, n_features), default=None
            Values of known features, and NaN for those to draw. A single row applies to all chains.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Float32; drawn states are 0 or 1.
        """
        check_is_fitted(self)
        return _chains.drawn(self, n_samples, n_steps, init, clamped, None, random_state)

    def estimate_log_partition(
        self,
        method: PartitionMethod = "auto",
        *,
        n_chains: int = 100,
        n_temperatures: int | None = None,
        n_steps: int = 100,
        random_state: RandomState = None,
    ) -> Self:
        """Compute log Z, over the even layers with the odd ones summed out, or the other way round.

        Parameters
        ----------
        method : {"auto", "exact", "ais", "bridge"}, default="auto"
            As in :meth:`BernoulliRBM.estimate_log_partition`, like all further arguments.
        n_chains : int, default=100
            Number of annealed chains, or of ladders.
        n_temperatures : int or None, default=None
            Number of annealing steps, or of rungs of each ladder.
        n_steps : int, default=100
            Steps of the ladders.
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

    def check_density(self, random_state: RandomState = None) -> DensityCheck:
        """Compare log p of all even layers with a known density, over draws from the latter.

        Parameters
        ----------
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        check : DensityCheck
            See :meth:`BernoulliRBM.check_density`.
        """
        return likelihood.check_density(self, random_state)
