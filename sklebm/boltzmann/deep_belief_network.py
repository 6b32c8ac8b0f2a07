r"""p(x, h_1, ..., h_L) = p(x | h_1) ... p(h_{L-2} | h_{L-1}) p(h_{L-1}, h_L)."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm import likelihood
from sklebm._checks import check_count
from sklebm._shell.private import HasMethods, Interval, StrOptions
from sklebm._shell.progress import Progress
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Estimators, Record, Spec
from sklebm._shell.value_range import apply_value_range
from sklebm.base import EnergyEstimator
from sklebm.boltzmann import _belief_state, _stack
from sklebm.boltzmann._base import BoltzmannEstimator
from sklebm.boltzmann.bernoulli_rbm import BernoulliRBM
from sklebm.energies import DeepBeliefEnergy
from sklebm.inference import belief_bounds
from sklebm.likelihood import PartitionMethod
from sklebm.objectives import Objective
from sklebm.training.schedules import SCHEDULES, Schedule


class DeepBeliefNetwork(EnergyEstimator):
    r"""Stack of restricted Boltzmann machines, learnt layer by layer.

    .. math:: p(x, h_1, \dots, h_L) = p(x \mid h_1) \cdots p(h_{L-2} \mid h_{L-1}) \,
              p(h_{L-1}, h_L), \qquad p(h_{L-1}, h_L) = e^{-E(h_{L-1}, h_L)} / Z,

    .. math:: \log p(x) \geq \mathbb{E}_q \sum_{l < L} \log
              \frac{p(h_{l-1} \mid h_l)}{q(h_l \mid h_{l-1})} - \mathbb{E}_q F(h_{L-1}) - \log Z,
              \qquad h_0 = x.

    The first machine learns from the rows, and each further machine from hidden states drawn by the
    machine below, whose prior over these states it replaces. The approximate posterior q, which
    leads upwards from the rows, uses the parameters of the machines.

    Parameters
    ----------
    hidden_sizes : tuple of int or int, default=(500, 500)
        Number of hidden units of each layer, from the bottom up.
    bottom : estimator or None, default=None
        The machine for the rows, with its own parameters: a :class:`BernoulliRBM`, or for
        real-valued rows a :class:`GaussianRBM` or a :class:`SemiRestrictedBM`. None: a
        ``BernoulliRBM``. ``hidden_sizes``, ``random_state``, ``device`` and ``log_partition`` of
        the network replace its own, and its ``warm_start`` is not used.
    init : {"random", "transpose"}, default="random"
        How each further machine is initialised. "transpose": as the machine below turned upside
        down, which leaves log p unchanged at the start. It must then have at least as many hidden
        units as the machine below has visible units, and these must be binary; further units start
        with small random weights. Such a machine is already trained: a ``learning_rate`` well
        below that of ``bottom`` keeps what it has.
    objective : str or Objective, default="pcd"
        How each machine learns; see :class:`BernoulliRBM`.
    n_gibbs_steps : int, default=1
        Steps of the chains per update, also in fine-tuning.
    centering : bool, default=True
        Whether to centre gradients at the means of the units.
    learning_rate : float, default=0.1
        Step size.
    batch_size : int, default=100
        Rows per update, and number of persistent chains.
    max_epochs : int, default=20
        Passes over the rows for each layer.
    optimizer : str, default="sgd"
        Update rule; see :class:`BernoulliRBM`.
    learning_rate_schedule : str or Schedule, default="linear"
        How the learning rate changes over the epochs of a layer: "constant", "linear", "cosine",
        or a schedule object.
    fine_tuning_epochs : int, default=0
        Passes of the up-down algorithm over all layers together, after which p and q have
        parameters of their own. 0 keeps the greedy stack.
    fine_tuning_rate : float, default=0.01
        Step size of fine-tuning, which follows the same schedule.
    log_partition : {"auto", "exact", "ais", "bridge"} or None, default="auto"
        How ``fit`` computes log Z of the top machine; see :class:`BernoulliRBM`.
    value_range : {"warn", "raise", "clip"}, default="warn"
        What to do with values outside [0, 1] if ``bottom`` is None; "warn" uses them unchanged.
    net_params : dict or None, default=None
        Passed to the skorch net of each machine.
    random_state : int, RandomState instance or None, default=None
        Seed for weights, batches, hidden states, chains and annealing.
    verbose : int, default=0
        If nonzero, print one line per epoch.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise CUDA if available,
        otherwise the CPU.

    Attributes
    ----------
    named_estimators_ : dict
        The fitted machines, "layer1" for the rows, and so on. If a callback stops the fit, the
        network has the layers trained so far.
    generative_ : dict or None
        Weights and biases of p for each layer below the top machine, such as "layer1.weights", if
        they were fine-tuned; None: those of the machines.
    fine_tuning_curve_ : ndarray
        Loss of the up-down algorithm by epoch, which does not measure quality.
    fine_tuning_state_ : dict
        Chains that ``partial_fit`` continues from; empty without fine-tuning.
    loss_curve_ : ndarray of shape (n_iter_,)
        Losses of all machines and of fine-tuning, by epoch.
    log_partition_, log_partition_interval_ : float and ndarray of shape (2,), or None
        log Z of the top machine in nats, and its interval; see :class:`BernoulliRBM`.
    n_iter_ : int
        Number of epochs in all.
    feature_means_ : ndarray of shape (n_features_in_,)
        Mean of the training rows.
    n_samples_seen_ : int
        Number of training rows.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    BernoulliRBM : One layer.

    Notes
    -----
    With one layer, everything is exact that is exact for the machine. With up to 10 units between
    the rows and the top layer, the bound is summed over their states, and the importance-sampled
    estimate is log p(x) itself; otherwise both are estimated from draws of q. log Z is exact up to
    20 units in the smaller of the two top layers, and annealed beyond. ``transform`` is exact given
    the means that it passes upwards, ``sample`` given its chains.

    Every machine is trained on one draw of the hidden states of all rows. These states are kept in
    memory: 4 bytes per row and hidden unit. A step costs O(batch_size d k) for layers of d and k
    units, a bound O(n_draws d k) per row. csr rows are made dense batch by batch.

    References
    ----------
    .. [1] G. E. Hinton, S. Osindero and Y.-W. Teh, "A fast learning algorithm for deep belief
       nets", Neural Computation 18(7), 2006.
    .. [2] R. Salakhutdinov and I. Murray, "On the quantitative analysis of deep belief networks",
       ICML 2008.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import DeepBeliefNetwork
    >>> X = (load_digits().data > 8).astype("float32")
    >>> network = DeepBeliefNetwork((32, 16), max_epochs=5, random_state=0).fit(X)
    >>> network.transform(X).shape
    (1797, 16)
    >>> bound, estimate = (network.score(X, bound=b) for b in ("variational", "importance"))
    >>> bound < estimate
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "device": EnergyEstimator._parameter_constraints["device"],
        **{name: BoltzmannEstimator._parameter_constraints[name] for name in _stack.SHARED},
        "learning_rate_schedule": [StrOptions(set(SCHEDULES) - {"non_monotone"}), Schedule],
        "hidden_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "bottom": [HasMethods("fit"), None],
        "init": [StrOptions({"random", "transpose"})],
        "fine_tuning_epochs": [Interval(Integral, 0, None, closed="left")],
        "fine_tuning_rate": [Interval(Real, 0, None, closed="neither")],
        "log_partition": BoltzmannEstimator._parameter_constraints["log_partition"],
        "value_range": [StrOptions({"warn", "raise", "clip"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }
    _prefers_cuda = True
    _accepts_sparse = True
    _step_name = "epoch"

    named_estimators_: dict[str, Any]
    generative_: dict[str, Any] | None
    fine_tuning_curve_: np.ndarray[Any, Any]
    fine_tuning_state_: dict[str, Any]

    def __init__(
        self,
        hidden_sizes: tuple[int, ...] | int = (500, 500),
        *,
        bottom: Any = None,
        init: str = "random",
        objective: str | Objective = "pcd",
        n_gibbs_steps: int = 1,
        centering: bool = True,
        learning_rate: float = 0.1,
        batch_size: int = 100,
        max_epochs: int = 20,
        optimizer: str = "sgd",
        learning_rate_schedule: str | Schedule = "linear",
        fine_tuning_epochs: int = 0,
        fine_tuning_rate: float = 0.01,
        log_partition: str | None = "auto",
        value_range: str = "warn",
        net_params: dict[str, Any] | None = None,
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
    ) -> None:
        self.hidden_sizes = hidden_sizes
        self.bottom = bottom
        self.init = init
        self.objective = objective
        self.n_gibbs_steps = n_gibbs_steps
        self.centering = centering
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.optimizer = optimizer
        self.learning_rate_schedule = learning_rate_schedule
        self.fine_tuning_epochs = fine_tuning_epochs
        self.fine_tuning_rate = fine_tuning_rate
        self.log_partition = log_partition
        self.value_range = value_range
        self.net_params = net_params
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    # ------------------------------------------------------------------ learning

    def _max_steps(self, rows: Rows) -> int:
        own = sum(machine._n_epochs(rows) for machine in _stack.make_machines(self))
        return int(own) + self.fine_tuning_epochs

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        return _stack.learn(self, rows, progress)

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        return _stack.learn_chunk(self, rows)

    def _check_rows(self, rows: Rows, *, learning: bool) -> None:
        machine = self.bottom if learning else self.named_estimators_["layer1"]
        if machine is None or isinstance(machine, BernoulliRBM):
            value_range = getattr(self.bottom, "value_range", self.value_range)
            apply_value_range(rows, value_range, owner=type(self).__name__, learning=learning)

    def _open(self, X: Any, probe: Any, *, reset: bool, min_rows: int = 1) -> Rows:
        rows = super()._open(X, probe, reset=reset, min_rows=min_rows)
        machine = None if reset else self.named_estimators_["layer1"]
        return likelihood.set_origin(machine, rows, reset=reset)

    def drop_training_state(self) -> Self:
        """Drop what only further training needs, such as optimiser statistics and chains.

        Returns
        -------
        self : object
            The estimator.
        """
        check_is_fitted(self)
        for machine in self.named_estimators_.values():
            machine.drop_training_state()
        self.fine_tuning_state_ = {}
        return self

    # ------------------------------------------------------------------ fitted state

    def _state_spec(self) -> Spec:
        return {
            "named_estimators_": Estimators(None),
            "generative_": Record(optional=True),
            "fine_tuning_curve_": Array("f", (None,)),
            "fine_tuning_state_": Record(),
        }

    def _check_state(self) -> None:
        super()._check_state()
        if self._is_fitted():
            _belief_state.check_chain(self)

    def _energy(self, device: torch.device) -> DeepBeliefEnergy:
        machines = list(self.named_estimators_.values())
        return DeepBeliefEnergy(*_belief_state.directed_layers(machines, self.generative_, device))

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Self:
        """Make a network from fitted machines.

        Parameters
        ----------
        **parameters : object
            ``machines``, the fitted machines from the bottom up; ``generative``, if p has
            parameters of its own; and parameters of the constructor.

        Returns
        -------
        estimator : object
            It transforms, scores, samples, can be saved, and keeps learning with ``partial_fit``.

        Raises
        ------
        TypeError
            If ``machines`` is missing or a name is unknown.
        ValueError
            If the machines do not fit on top of each other.
        """
        return _belief_state.made_from(cls, **parameters)  # type: ignore[no-any-return]

    @property
    def _top(self) -> Any:
        return list(self.named_estimators_.values())[-1]

    @property
    def log_partition_(self) -> float | None:
        """log Z of the top machine."""
        return self._top.log_partition_  # type: ignore[no-any-return]

    @property
    def log_partition_interval_(self) -> Any:
        """Interval of log Z of the top machine."""
        return self._top.log_partition_interval_

    @property
    def loss_curve_(self) -> np.ndarray[Any, Any]:
        """Losses of all layers and of fine-tuning."""
        curves = [machine.loss_curve_ for machine in self.named_estimators_.values()]
        return np.concatenate([*curves, self.fine_tuning_curve_])

    @property
    def n_iter_(self) -> int:
        """Number of epochs of all layers and of fine-tuning."""
        own = sum(machine.n_iter_ for machine in self.named_estimators_.values())
        return int(own) + len(self.fine_tuning_curve_)

    @property
    def feature_means_(self) -> np.ndarray[Any, Any]:
        """Mean of the training rows."""
        means: np.ndarray[Any, Any] = self.named_estimators_["layer1"].feature_means_
        return means

    @property
    def n_samples_seen_(self) -> int:
        """Number of training rows."""
        return int(self.named_estimators_["layer1"].n_samples_seen_)

    # ------------------------------------------------------------------ what it answers

    @property
    def _n_features_out(self) -> int:
        width: int = len(self._top.components_)
        return width

    def _floats_per_row(self) -> int:
        widths = [len(machine.components_) for machine in self.named_estimators_.values()]
        n_states: int = 2 ** min(sum(widths[:-1]), belief_bounds.MAX_SUMMED_UNITS)
        return 4 * (int(self.n_features_in_) + sum(widths)) + 4 * n_states

    def transform(self, X: Any) -> Any:
        """Return the means of the top layer, from the means of each layer below.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        H : array or tensor of shape (n_samples, hidden_sizes[-1])
            Between 0 and 1.
        """
        return self._map_rows(X, lambda energy, x: energy.encode(x), "transform")

    def inverse_transform(self, X: Any) -> Any:
        """Return the means of the rows, from those of each layer above.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, hidden_sizes[-1])
            States or means of the top layer.

        Returns
        -------
        X_original : array or tensor of shape (n_samples, n_features)
            Means of the visible units.
        """
        bottom = self.named_estimators_["layer1"] if self._is_fitted() else None

        def decode(energy: DeepBeliefEnergy, h: torch.Tensor) -> torch.Tensor:
            return likelihood.from_origin(bottom, energy.decode(h))

        return self._map_rows(X, decode, "inverse_transform", latents=True)

    def free_energy(self, X: Any, bound: str = "variational", n_draws: int = 100) -> Any:
        """Return an upper bound on F(x) = -log p(x) - log Z, or an estimate of it.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Rows to evaluate.
        bound : {"variational", "importance"}, default="variational"
            "variational": the bound; "importance": importance sampling, whose estimate of p(x) is
            unbiased, so that F is too high on average.
        n_draws : int, default=100
            Draws of the hidden layers for each row; they depend only on the row.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In nats. Deterministic.
        """
        check_count(n_draws, "n_draws")
        if bound not in belief_bounds.BOUNDS:
            raise ValueError(f'bound={bound!r} must be "variational" or "importance".')
        return self._map_rows(
            X, lambda energy, x: belief_bounds.free_energy(energy, x, bound, n_draws), "free_energy"
        )

    def score_samples(self, X: Any, bound: str = "variational", n_draws: int = 100) -> Any:
        """Return a lower bound on log p(x), or an estimate; without log Z if that is unknown.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Rows to score.
        bound : {"variational", "importance"}, default="variational"
            See ``free_energy``.
        n_draws : int, default=100
            Draws of the hidden layers for each row.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            ``-free_energy(X) - log_partition_`` in nats; higher is more typical.
        """
        check_is_fitted(self)
        return -self.free_energy(X, bound, n_draws) - (self.log_partition_ or 0.0)

    def score(
        self, X: Any, y: Any = None, *, bound: str = "variational", n_draws: int = 100
    ) -> float:
        """Return the mean score of held-out rows, at the upper end of the interval of log Z.

        Scores on the same X can be compared between networks of any size, and with single machines.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Held-out rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        bound : {"variational", "importance"}, default="variational"
            See ``free_energy``.
        n_draws : int, default=100
            Draws of the hidden layers for each row.

        Returns
        -------
        score : float
            Mean in nats.
        """
        check_is_fitted(self)
        likelihood.need_log_partition(self, "score is a log-likelihood and")
        log_z = self.log_partition_interval_[1]  # a top machine's log Z always has an interval
        return -float(self.free_energy(X, bound, n_draws).mean()) - float(log_z)

    def sample(
        self, n_samples: int = 1, *, n_steps: int = 1000, random_state: RandomState = None
    ) -> Any:
        """Draw rows: Gibbs steps of the top machine, then one draw down to the rows.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        n_steps : int, default=1000
            Gibbs steps of every chain; draws are exact in the limit of many steps.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Float32; drawn states of binary units are 0 or 1.
        """
        check_is_fitted(self)
        return _belief_state.drawn_rows(self, n_samples, n_steps, random_state)

    def estimate_log_partition(
        self,
        method: PartitionMethod = "auto",
        *,
        n_chains: int = 100,
        n_temperatures: int | None = None,
        n_steps: int = 100,
        random_state: RandomState = None,
    ) -> Self:
        """Compute log Z of the top machine.

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
        check_is_fitted(self)
        self._top.estimate_log_partition(
            method,
            n_chains=n_chains,
            n_temperatures=n_temperatures,
            n_steps=n_steps,
            random_state=random_state,
        )
        return self
