r"""F(x) = |x - a|^2 / 2 s^2 - sum_k log(1 + exp(c_k + w_k' x / s^2)): 2^k Gaussians in one."""

from __future__ import annotations

from functools import partial
from numbers import Real
from typing import Any, ClassVar, Literal

import torch
from sklearn.utils.validation import check_is_fitted

from sklebm import likelihood
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.progress import Progress
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import warn_of_unequal_spans
from sklebm._shell.state import Array, Spec
from sklebm.boltzmann import _chains
from sklebm.boltzmann import _gaussian_start as start_of
from sklebm.boltzmann._base import BoltzmannEstimator
from sklebm.boltzmann._objectives import OBJECTIVES
from sklebm.energies import Bernoulli, Gaussian, GaussianBilinearEnergy
from sklebm.inference.gibbs_langevin import GibbsLangevin
from sklebm.objectives import Batch, Objective, ScoreMatching
from sklebm.training.gaussian_centring import GaussianCentring
from sklebm.training.optimizers import OPTIMIZERS
from sklebm.training.schedules import Schedule
from sklebm.training.start import Start
from sklebm.training.transforms import Projection


class GaussianRBM(BoltzmannEstimator):
    r"""Restricted Boltzmann machine with real-valued visible and binary hidden units.

    .. math:: E(x, h) = \sum_i \frac{(x_i - a_i)^2}{2 s_i^2} - c^\top h
              - \sum_i \frac{x_i (W^\top h)_i}{s_i^2},

    .. math:: p(x \mid h) = N(a + W^\top h, s^2), \qquad \log p(x) = -F(x) - \log Z.

    The density is a mixture of 2^n_components Gaussians with equal variances, whose means are sums
    of rows of W.

    Parameters
    ----------
    n_components : int, default=64
        Number of hidden units.
    variance : float or {"shared", "diagonal"}, default="shared"
        The variance s^2: fixed, or learnt in logarithmic form starting from that of the rows, as
        one value for all features or one per feature. Features in different units need "diagonal"
        or a scaler; nearly constant features make "diagonal" diverge.
    objective : str or Objective, default="auto"
        How the energy is shaped. "auto" is "maximum_likelihood" in ``fit`` if the likelihood is
        cheap to sum (up to 16 hidden units; see Notes), otherwise "pcd".
        With negatives: "pcd" (persistent chains), "cd" (k Gibbs steps
        from the data), "tempered_pcd" (parallel tempering), "noise_contrastive",
        "variational_noise_contrastive"; without: "score_matching", "denoising_score_matching";
        exact: "maximum_likelihood" (at most 25 hidden units). Objectives for bits
        ("fast_pcd", "pseudo_likelihood", ...) are rejected.
    n_gibbs_steps : int, default=1
        Steps of the chains per update. With more than one, ``objective="auto"`` is "pcd".
    centering : bool, default=True
        Whether to centre gradients at the means of the units, which makes learning independent of
        the origin of the rows. "lbfgs" uses the plain gradient.
    learning_rate : float or "auto", default="auto"
        Step size; "auto" is 1 for "lbfgs" and 0.2 for the others. Steps are rescaled internally
        (see Notes), so it need not be adapted to the units of X, the number of hidden units or the
        sharpness of clusters. For a batch of m < ``batch_size`` rows it is scaled by
        m / ``batch_size``.
    batch_size : int, default=100
        Rows per update, and number of persistent chains.
    max_epochs : int, default=20
        Passes over the rows.
    optimizer : str, default="auto"
        Update rule: "auto" is "lbfgs" if ``objective="auto"`` is the exact likelihood, otherwise
        "sgd". Others: "momentum" (heavy ball), "rmsprop", "adam", "adamw", and, with all rows
        at once, "gradient_descent"; "lbfgs" needs "maximum_likelihood" or "score_matching".
        "momentum" needs a tenth of the rate of "sgd", and "adam" about 0.01.
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
    log_partition : {"auto", "exact", "ais", "bridge"} or None, default="auto"
        How ``fit`` computes log Z at the end. "exact": a sum over the states of the hidden units
        (at most 25); "ais": annealed importance sampling, forwards and backwards; "bridge": bridge
        sampling along a ladder of tempered chains; "auto": exact up to 20 units, otherwise
        annealed; None: not at all.
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
        Weights W, in the units of X: a hidden unit that is on moves the mean by its row.
    intercept_hidden_ : ndarray of shape (n_components,)
        Hidden biases c.
    intercept_visible_ : ndarray of shape (n_features_in_,)
        Visible biases a, the mean of x if all hidden units are off.
    log_variance_ : ndarray of shape (1,) or (n_features_in_,)
        Logarithm of s^2, shared or per feature.
    log_partition_ : float or None
        log Z in nats, infinite if a variance is infinite; None if unknown. ``partial_fit`` clears
        it.
    log_partition_interval_ : ndarray of shape (2,) or None
        Estimates from chains started at both ends, plus and minus three standard errors; both
        values equal log Z if it is exact.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean loss by epoch, as defined by the objective.
    validation_scores_ : ndarray
        Negative score-matching loss on held-out rows by epoch, if ``validation_fraction`` is set.
    free_energy_gaps_ : ndarray
        Mean free energy of the held-out rows minus that of an equal number of training rows (nats),
        by epoch, if ``validation_fraction`` is set. It rises when the machine overfits.
    n_iter_ : int
        Number of epochs, or of ``partial_fit`` calls.
    feature_means_ : ndarray of shape (n_features_in_,)
        Mean of the training rows, from which annealing and sampling start.
    hidden_means_ : ndarray of shape (n_components,) or None
        Moving average of the hidden units, at which gradients are centred.
    offset_ : ndarray of shape (n_features_in_,) or None
        Mean of the rows of the first fit, around which everything is computed; the intercepts refer
        to uncentred rows.
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
    BernoulliRBM : For binary rows.
    DeepEnergyModel : The same energy on the output of a network.
    EnergyGaussianMixture : Components with their own weights, means and variances.

    Notes
    -----
    With ``objective="auto"``, at most 16 hidden units, and rows that outnumber them by two or more
    but are few enough for sums over all states, ``fit`` maximises the exact likelihood by L-BFGS,
    with 20 iterations per epoch, from the best of 8 starts, which are compared on at most 2,000
    rows. This reaches optima that chains and plain gradient steps miss even after hundreds of
    epochs. ``partial_fit`` always uses chains.

    Gradients are those with respect to W / s and a / s, divided by the variance of the rows over
    s^2 and by one more than the mean number of hidden units that are on [2]_. A step costs
    O(batch_size d k). Training runs in float32, log Z in float64, row-wise methods in
    the dtype of X. Log densities depend on the units of X. No standard deviation falls below a
    millionth of the largest.

    References
    ----------
    .. [1] M. Welling, M. Rosen-Zvi and G. E. Hinton, "Exponential family harmoniums with an
       application to information retrieval", NIPS 2004.
    .. [2] K. Cho, A. Ilin and T. Raiko, "Improved learning of Gaussian-Bernoulli restricted
       Boltzmann machines", ICANN 2011.
    .. [3] J. Melchior, N. Wang and L. Wiskott, "Gaussian-binary restricted Boltzmann machines for
       modeling natural image statistics", PLoS ONE 12(2), 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import GaussianRBM
    >>> rng = np.random.default_rng(0)
    >>> X = rng.laplace(size=(3000, 2)) / np.sqrt(2)
    >>> rbm = GaussianRBM(8, random_state=0).fit(X)
    >>> normal = -0.5 * (X**2).sum(axis=1).mean() - np.log(2 * np.pi)
    >>> bool(rbm.score(X) > normal + 0.05)  # exact nats: 2^8 Gaussians can be summed over
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BoltzmannEstimator._parameter_constraints,
        "objective": [StrOptions({"auto", *OBJECTIVES}), Objective],
        "optimizer": [StrOptions({"auto", *OPTIMIZERS})],
        "learning_rate": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "variance": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"shared", "diagonal"}),
        ],
    }

    _n_starts = 1

    def __init__(
        self,
        n_components: int = 64,
        *,
        variance: float | str = "shared",
        objective: str | Objective = "auto",
        n_gibbs_steps: int = 1,
        centering: bool = True,
        learning_rate: float | str = "auto",
        batch_size: int = 100,
        max_epochs: int = 20,
        optimizer: str = "auto",
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
        self.variance = variance
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
        self.warm_start = warm_start
        self.net_params = net_params
        self.random_state = random_state
        self.verbose = verbose
        self.device = device
        self.strategy = strategy

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        return start_of.fitted(self, rows, progress, searches=True, **data)

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        return BoltzmannEstimator._partial_fit(start_of.decided(self, None), rows, progress, **data)

    def _initial_energy(
        self, rows: Rows, means: torch.Tensor, generator: torch.Generator
    ) -> GaussianBilinearEnergy:
        if self.variance != "diagonal":
            warn_of_unequal_spans(type(self).__name__, rows)
        return start_of.initial_energy(self.variance, self.n_components, rows, means, generator)

    def _transforms(self, energy: Any, start: Start) -> tuple[GaussianCentring]:
        visible, hidden = self._offsets(energy, start)
        if self.centering:
            return (GaussianCentring(energy, visible, hidden),)
        # The scale of the steps stays; their offsets are zero.
        visible, hidden = torch.zeros_like(visible), torch.zeros_like(hidden)
        return (GaussianCentring(energy, visible, hidden, follows=False),)

    def _projections(self, energy: Any) -> tuple[Projection]:
        return (partial(start_of.keep_above_floor, energy),)

    def _open(self, X: Any, probe: Any, *, reset: bool, min_rows: int = 1) -> Rows:
        rows = super()._open(X, probe, reset=reset, min_rows=min_rows)
        return likelihood.set_origin(self, rows, reset=reset)

    def _starting_energy(self, start: Start) -> Any:
        start.rows.origin = likelihood.training_origin(self, start, kept=start.resume)
        if self._n_starts > 1 and not start.resume:
            return start_of.best_start(self, start, apart=True)
        return super()._starting_energy(start)

    def _trained(self, course: Any, seed: int, seen: Any, n_calls: int = 0) -> dict[str, Any]:
        state = super()._trained(course, seed, seen, n_calls)
        resumed = self._is_fitted() if n_calls else self._resumes()
        state["offset_"] = getattr(self, "offset_", None) if resumed else seen["feature_means_"]
        return {**state, **self._around_zero(state)}

    def _around_zero(self, state: dict[str, Any]) -> dict[str, Any]:
        return start_of.around_zero(state)

    def _rebuild(self, parameters: dict[str, torch.Tensor]) -> GaussianBilinearEnergy:
        parameters = start_of.around_offset(parameters, getattr(self, "offset_", None))
        visible, hidden = parameters["intercept_visible_"], parameters["intercept_hidden_"]
        units = Gaussian(visible, parameters["log_variance_"], isinstance(self.variance, str))
        return GaussianBilinearEnergy(units, Bernoulli(hidden), parameters["components_"])

    def _state_spec(self) -> Spec:
        size = "n_features_in_" if self.variance == "diagonal" else 1
        return {
            **super()._state_spec(),
            "log_variance_": Array("f", (size,), of="visible.log_variance"),
            "offset_": Array("f", ("n_features_in_",), optional=True),
        }

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        loss, _ = ScoreMatching().loss(energy, batch, {}, torch.Generator())
        return -float(loss)

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
