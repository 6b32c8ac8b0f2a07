r"""F(x) = -b' x - sum_k log(1 + exp(c_k + w_k' x)); log p(x) = -F(x) - log Z, x in {0, 1}^d."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any, ClassVar, Literal

import torch
from sklearn.utils.validation import check_is_fitted

from sklebm import likelihood
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import RandomState, make_generator
from sklebm._shell.rows import Rows
from sklebm._shell.value_range import apply_value_range
from sklebm.boltzmann import _chains
from sklebm.boltzmann._base import BoltzmannEstimator
from sklebm.boltzmann._compiled_pass import compiled_pass
from sklebm.energies import Bernoulli, BilinearEnergy
from sklebm.inference.ais import base_rate_bias
from sklebm.inference.gibbs_langevin import GibbsLangevin
from sklebm.objectives import Batch, Objective
from sklebm.objectives.pseudo_likelihood import pseudo_log_likelihood
from sklebm.training.loop import EnergyTraining
from sklebm.training.pace import Pace
from sklebm.training.schedules import Schedule
from sklebm.training.start import Start

# Standard deviation of the initial weights for few units.
_LARGEST_WEIGHTS = 0.3


class BernoulliRBM(BoltzmannEstimator):
    r"""Restricted Boltzmann machine with binary visible and hidden units.

    .. math:: E(x, h) = -b^\top x - c^\top h - h^\top W x, \qquad \log p(x) = -F(x) - \log Z,

    .. math:: F(x) = -b^\top x - \sum_k \log(1 + e^{c_k + w_k^\top x}).

    Parameters
    ----------
    n_components : int, default=256
        Number of hidden units.
    objective : str or Objective, default="pcd"
        How the energy is shaped. With negatives: "pcd" (persistent chains), "cd" (k Gibbs steps
        from the data), "fast_pcd" (with fast weights), "tempered_pcd" (parallel tempering),
        "noise_contrastive", "variational_noise_contrastive"; exact: "maximum_likelihood" (small
        machines only); without negatives: "pseudo_likelihood", "ratio_matching",
        "minimum_probability_flow".
    n_gibbs_steps : int, default=1
        Steps of the chains per update.
    centering : bool, default=True
        Whether to centre gradients at the means of the units, which makes learning better
        conditioned and independent of which state is called 1. "lbfgs" uses the plain gradient.
        If units are mostly off, as pixels of drawings are, False can give features that classify
        a little better; if they are mostly on, False can learn far worse.
    learning_rate : float, default=0.1
        Step size. For a batch of m < ``batch_size`` rows it is scaled by m / ``batch_size``.
    batch_size : int, default=100
        Rows per update, and number of persistent chains.
    max_epochs : int or "auto", default="auto"
        Passes over the rows. "auto": enough for 3000 updates, but at least 20 and at most 1000.
    optimizer : str, default="sgd"
        Update rule: "sgd", "momentum" (heavy ball), "rmsprop", "adam", "adamw", or, with all rows
        at once, "gradient_descent" and "lbfgs"; "lbfgs" needs an objective that draws nothing:
        "maximum_likelihood", or, for rows of 0 and 1, "pseudo_likelihood", "ratio_matching" or
        "minimum_probability_flow".
    learning_rate_schedule : str or Schedule, default="linear"
        How the learning rate changes over ``max_epochs``: "constant", "linear", "cosine",
        "non_monotone", or a schedule object with its own settings.
    validation_fraction : float or None, default=None
        Fraction of the rows held out for validation; their log pseudo-likelihood (nats, on bits
        drawn once) is recorded after each epoch.
    n_iter_no_change : int or None, default=None
        Stop when the validation score has not improved by ``tol`` for this many epochs, and keep
        the best parameters. None trains for ``max_epochs``.
    tol : float, default=1e-4
        Minimum absolute improvement that counts as progress.
    log_partition : {"auto", "exact", "ais", "bridge"} or None, default="auto"
        How ``fit`` computes log Z at the end. "exact": a sum over the states of the smaller layer
        (at most 25 units); "ais": annealed importance sampling, forwards and backwards; "bridge":
        bridge sampling along a ladder of tempered chains; "auto": exact up to 20 units, otherwise
        annealed for at most half as long as training took; None: not at all, which saves its cost
        in pipelines that only transform.
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
    components_ : ndarray of shape (n_components, n_features_in_)
        Weights W.
    intercept_hidden_ : ndarray of shape (n_components,)
        Hidden biases c.
    intercept_visible_ : ndarray of shape (n_features_in_,)
        Visible biases b.
    log_partition_ : float or None
        log Z in nats; None if unknown. ``partial_fit`` clears it.
    log_partition_interval_ : ndarray of shape (2,) or None
        Estimates from chains started at both ends, plus and minus three standard errors; both
        values equal log Z if it is exact.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean energy of the batches minus that of the negatives, by epoch (nats); the mean
        negative log-likelihood for "maximum_likelihood".
    validation_scores_ : ndarray
        Held-out log pseudo-likelihood by epoch, if ``validation_fraction`` is set.
    free_energy_gaps_ : ndarray
        Mean free energy of the held-out rows minus that of an equal number of training rows (nats),
        by epoch, if ``validation_fraction`` is set. It rises when the machine overfits.
    n_iter_ : int
        Number of epochs, or of ``partial_fit`` calls.
    feature_means_ : ndarray of shape (n_features_in_,)
        Mean of the training rows, the base rate from which annealing and sampling start.
    hidden_means_ : ndarray of shape (n_components,) or None
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
    sklearn.neural_network.BernoulliRBM : On the CPU, without a likelihood.

    Notes
    -----
    A step costs O(batch_size d k), an exact log Z O(2^min(d, k) d k). Annealing costs at most half
    of training by default, and about O(3000 x 100 d k) in ``estimate_log_partition``. Training
    runs in float32, row-wise methods in the dtype of X, log Z in float64; annealing multiplies by
    2^16 weights or more in float32. csr rows are made dense batch by batch.

    References
    ----------
    .. [1] P. Smolensky, "Information processing in dynamical systems", in "Parallel Distributed
       Processing", 1986.
    .. [2] G. E. Hinton, "Training products of experts by minimizing contrastive divergence",
       Neural Computation 14(8), 2002.
    .. [3] T. Tieleman, "Training restricted Boltzmann machines using approximations to the
       likelihood gradient", ICML 2008.
    .. [4] J. Melchior, A. Fischer and L. Wiskott, "How to center deep Boltzmann machines", Journal
       of Machine Learning Research 17(99), 2016.
    .. [5] R. Salakhutdinov and I. Murray, "On the quantitative analysis of deep belief networks",
       ICML 2008.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import BernoulliRBM
    >>> X = (load_digits().data > 8).astype("float32")
    >>> rbm = BernoulliRBM(16, max_epochs=20, random_state=0).fit(X)
    >>> bool(rbm.score(X) > -23.0)  # exact nats per row: 16 hidden units can be summed over
    True
    >>> rbm.transform(X).shape
    (1797, 16)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BoltzmannEstimator._parameter_constraints,
        "max_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "value_range": [StrOptions({"warn", "raise", "clip"})],
    }
    _pace = Pace(n_updates=3000)
    _visible_range = (0.0, 1.0)

    def __init__(
        self,
        n_components: int = 256,
        *,
        objective: str | Objective = "pcd",
        n_gibbs_steps: int = 1,
        centering: bool = True,
        learning_rate: float = 0.1,
        batch_size: int = 100,
        max_epochs: int | Literal["auto"] = "auto",
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
        self.n_components = n_components
        self.objective = objective
        self.n_gibbs_steps = n_gibbs_steps
        self.centering = centering
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

    def _initial_energy(
        self, rows: Rows, means: torch.Tensor, generator: torch.Generator
    ) -> BilinearEnergy:
        # Random weights break the symmetry between hidden units. Tiny ones would leave a small data
        # set on the plateau around zero; these give fields with a standard deviation of at most
        # 1.4, and biases keep the mean fields at the base rate and at zero.
        n_units = self.n_components + len(means)
        scale = min(_LARGEST_WEIGHTS, 2.0 * math.sqrt(2.0 / n_units))
        weights = scale * torch.randn(self.n_components, len(means), generator=generator)
        hidden = Bernoulli(-(weights @ means.float()))
        visible = Bernoulli(base_rate_bias(means.float(), rows.total()) - 0.5 * weights.sum(dim=0))
        return BilinearEnergy(visible, hidden, weights)

    def _rebuild(self, parameters: dict[str, torch.Tensor]) -> BilinearEnergy:
        visible, hidden = parameters["intercept_visible_"], parameters["intercept_hidden_"]
        return BilinearEnergy(Bernoulli(visible), Bernoulli(hidden), parameters["components_"])

    def _check_rows(self, rows: Rows, *, learning: bool) -> None:
        apply_value_range(rows, self.value_range, owner=type(self).__name__, learning=learning)

    def _players(self, energy: Any, start: Start) -> list[EnergyTraining]:
        players = super()._players(energy, start)
        for player in players:
            player.fused = compiled_pass(energy, player.objective, player.transforms)
        return players

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        # The same bits in every epoch, so that only the model changes the score.
        generator = make_generator(seed, "pseudo-likelihood")
        return float(pseudo_log_likelihood(energy, batch.x, generator).double().mean())

    # Documented in the base.

    def transform(self, X: Any) -> Any:  # noqa: D102
        return self._map_rows(X, lambda energy, x: energy.hidden_mean(x), "transform")

    def score_samples(self, X: Any) -> Any:  # noqa: D102
        return likelihood.score_samples(self, X)

    def sample(  # noqa: D102
        self,
        n_samples: int = 1,
        *,
        n_steps: int = 1000,
        init: Any = None,
        clamped: Any = None,
        sampler: GibbsLangevin | None = None,
        random_state: RandomState = None,
    ) -> Any:
        check_is_fitted(self)
        return _chains.drawn(self, n_samples, n_steps, init, clamped, sampler, random_state)
