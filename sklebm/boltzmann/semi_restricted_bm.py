r"""F(x) = 1/2 (x - a)' L (x - a) - sum_k log(1 + exp(c_k + w_k' L x)): lateral couplings."""

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
from sklebm._shell.state import Spec, exported
from sklebm._shell.value_range import check_bits
from sklebm.boltzmann import _chains, _graph, _lateral
from sklebm.boltzmann import _gaussian_start as start_of
from sklebm.boltzmann import _precision as precision_of
from sklebm.boltzmann._base import BoltzmannEstimator
from sklebm.energies import Bernoulli, PairwiseEnergy
from sklebm.energies.correlated_gaussian import CorrelatedBilinearEnergy, CorrelatedGaussian
from sklebm.energies.whitened_machine import WhitenedMachine
from sklebm.objectives import Batch, Objective
from sklebm.training.centring import Centring
from sklebm.training.schedules import Schedule
from sklebm.training.start import Start
from sklebm.training.transforms import Projection, TransformState


class SemiRestrictedBM(BoltzmannEstimator):
    r"""Restricted Boltzmann machine whose visible units are coupled too, real-valued or bits.

    .. math:: E(x, h) = \tfrac12 (x - a)^\top L (x - a) - c^\top h - x^\top L W^\top h,

    .. math:: p(x \mid h) = N(a + W^\top h, L^{-1}), \qquad \log p(x) = -F(x) - \log Z.

    The density is a mixture of 2^n_components Gaussians with one covariance, whose means are sums
    of rows of W. The lateral couplings L describe the smooth structure of the rows, which leaves
    the hidden units free for what is not Gaussian. All units of a layer are still drawn at once:
    block Gibbs.

    With ``visible="bernoulli"``, rows are bits with symmetric couplings V, zero on the diagonal:

    .. math:: E(x, h) = -\tfrac12 x^\top V x - a^\top x - c^\top h - h^\top W x.

    This is a :class:`BoltzmannMachine` without couplings between hidden units.

    Parameters
    ----------
    n_components : int, default=64
        Number of hidden units.
    visible : {"gaussian", "bernoulli"}, default="gaussian"
        Kind of the visible units: real-valued, or bits. Values between 0 and 1 are probabilities of
        bits.
    structure : {"full", "diagonal", "neighbours"} or array of bool, default="full"
        Which entries of the precision L, or pairs of bits, may be non-zero: all, the diagonal (for
        bits, none), those between adjacent pixels (diagonally as well), or those where the
        symmetric square array is True.
    image_shape : (height, width) or None, default=None
        Layout of the features for "neighbours"; None is a single line.
    objective : str or Objective, default="auto"
        How the energy is shaped. "auto" is "maximum_likelihood" in ``fit`` if the likelihood is
        cheap to sum (up to 16 hidden units) and the structure is "full" or "diagonal", otherwise
        "pcd". "pcd": persistent chains; "maximum_likelihood": exact, at most 25 hidden units;
        "score_matching": the slope of the energy at the data, in closed form, without chains;
        "noise_contrastive": tells rows from draws of a Gaussian (see Notes). For bits, as in
        :class:`BoltzmannMachine`: "auto" is "pseudo_likelihood"; the others are "ratio_matching",
        "minimum_probability_flow", "noise_contrastive", "cd", "pcd", and "maximum_likelihood",
        whose sum runs over the visible units (at most 25 that are coupled).
    n_gibbs_steps : int, default=1
        Steps of the chains per update; for bits, sweeps over all units. With more than one,
        ``objective="auto"`` is "pcd".
    centering : bool, default=True
        Whether to centre gradients at the means of the hidden units.
    learning_rate : float or "auto", default="auto"
        Step size; "auto" is 1 for "lbfgs" and 0.2 for the others. Steps for real-valued rows are
        rescaled internally (see Notes), so it need not be adapted to the units of X. For a batch
        of m < ``batch_size`` rows it is scaled by m / ``batch_size``.
    batch_size : int, default=100
        Rows per update, and number of persistent chains.
    max_epochs : int, default=20
        Passes over the rows.
    optimizer : {"auto", "sgd", "momentum", "lbfgs"}, default="auto"
        Update rule: "auto" is "lbfgs" if ``objective="auto"`` is the exact likelihood, otherwise
        "sgd". "momentum" (heavy ball) needs a tenth of the rate of "sgd". "lbfgs" needs
        "maximum_likelihood" and the structure "full" or "diagonal"; for bits, any objective that
        draws no random numbers.
    learning_rate_schedule : str or Schedule, default="linear"
        How the learning rate changes over ``max_epochs``: "constant", "linear", "cosine",
        "non_monotone", or a schedule object with its own settings.
    validation_fraction : float or None, default=None
        Fraction of the rows held out for validation; the negative of their score-matching loss, or
        for bits their log pseudo-likelihood, is recorded after each epoch.
    n_iter_no_change : int or None, default=None
        Stop when the validation score has not improved by ``tol`` for this many epochs, and keep
        the best parameters. None trains for ``max_epochs``.
    tol : float, default=1e-4
        Minimum absolute improvement that counts as progress.
    log_partition : {"auto", "exact", "ais", "bridge"} or None, default="auto"
        How ``fit`` computes log Z at the end. "exact": a sum over the states of the hidden units,
        or for bits of the visible units that are coupled (at most 25); "ais": annealed importance
        sampling, forwards and backwards; "bridge": bridge sampling along a ladder of tempered
        chains; "auto": exact up to 20 units, otherwise annealed; None: not at all.
    value_range : {"warn", "raise", "clip"}, default="warn"
        What to do with values outside [0, 1], if rows are bits; "warn" uses them unchanged.
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
        Weights W, in the units of X: a hidden unit that is on moves the mean by its row. For bits,
        it shifts their log odds.
    intercept_hidden_ : ndarray of shape (n_components,)
        Hidden biases c.
    intercept_visible_ : ndarray of shape (n_features_in_,)
        Visible biases a, the mean of x if all hidden units are off; for bits, their biases.
    precision_ : ndarray of shape (n_features_in_, n_features_in_) or None
        L, symmetric and positive definite, 0 where the structure requires it; None for bits.
    couplings_ : ndarray of shape (n_features_in_, n_features_in_) or None
        V, symmetric, 0 on the diagonal and where the structure requires it; None for real-valued
        rows.
    log_partition_ : float or None
        log Z in nats; None if unknown. ``partial_fit`` clears it.
    log_partition_interval_ : ndarray of shape (2,) or None
        Estimates from chains started at both ends, plus and minus three standard errors; both
        values equal log Z if it is exact.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean loss by epoch, as defined by the objective.
    validation_scores_ : ndarray
        Negative score-matching loss or log pseudo-likelihood of held-out rows by epoch, if
        ``validation_fraction`` is set.
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
        to uncentred rows. None for bits.
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
    GaussianRBM : Without lateral couplings.
    BernoulliRBM : Bits without lateral couplings.
    BoltzmannMachine : Bits with any couplings, of hidden units too.
    GaussianEnergy : Without hidden units.
    EnergyGaussianMixture : Components with their own weights, means and variances.

    Notes
    -----
    The exact likelihood has many local optima, most of them little better than one Gaussian. With
    ``objective="auto"`` and few units, ``fit`` maximises it by L-BFGS, with 20 iterations per
    epoch, in coordinates in which the rows are white, from the best of eight starts. Each start
    places hidden units, with equal probability, along directions in which the rows have two modes
    or at clusters around randomly chosen rows. ``partial_fit`` always uses chains.

    The other optimisers take their steps in coordinates in which L is the identity, divided by the
    variance of the rows over that of the noise, and for score matching by the norm of L. L starts
    as the precision of what the initial hidden units leave unexplained, from a covariance shrunk by
    Oracle Approximating Shrinkage. If a step makes L lose positive definiteness, its off-diagonal
    entries are scaled back until the smallest eigenvalue (with the diagonal scaled to ones) is
    2e-5. A step costs O(batch_size d (d + k) + d^3). Chains rarely cross between separated
    clusters, so that "pcd" learns their sizes badly; ``score`` shows this. Features may have
    different units. The noise of "noise_contrastive" has the mean and the covariance of the rows.

    Bits that are coupled are not independent given the hidden units: chains draw one class of
    uncoupled units after the other, and there is no ``inverse_transform``. A step costs
    O(batch_size d (d + k)), a sum over d bits O(2^d k). Training runs in float32, log Z in float64,
    row-wise methods in the dtype of X.

    References
    ----------
    .. [1] S. Osindero and G. E. Hinton, "Modeling image patches with a directed hierarchy of Markov
       random fields", NIPS 2007.
    .. [2] M. Welling, M. Rosen-Zvi and G. E. Hinton, "Exponential family harmoniums with an
       application to information retrieval", NIPS 2004.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import GaussianEnergy, SemiRestrictedBM
    >>> rng = np.random.default_rng(0)
    >>> Z = rng.integers(2, size=(400, 2))
    >>> X = Z @ [[4.0, 0.0, 4.0], [0.0, 5.0, 0.0]]
    >>> X += rng.normal(size=(400, 3)) @ [[1.0, 0.8, 0.0], [0.0, 0.6, 0.5], [0.0, 0.0, 1.0]]
    >>> machine = SemiRestrictedBM(2, max_epochs=5, random_state=0).fit(X)
    >>> bool(machine.score(X) > GaussianEnergy().fit(X).score_samples(X).mean() + 0.2)  # nats
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BoltzmannEstimator._parameter_constraints,
        "visible": [StrOptions({"gaussian", "bernoulli"})],
        "structure": [StrOptions(set(precision_of.STRUCTURES)), "array-like"],
        "image_shape": ["array-like", None],
        "objective": [StrOptions({"auto", *_lateral.OF_REALS, *_graph.OBJECTIVES}), Objective],
        "optimizer": [StrOptions({"auto", "sgd", "momentum", "lbfgs"})],
        "learning_rate": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "value_range": [StrOptions({"warn", "raise", "clip"})],
    }

    _n_starts = 1

    def __init__(
        self,
        n_components: int = 64,
        *,
        visible: Literal["gaussian", "bernoulli"] = "gaussian",
        structure: Any = "full",
        image_shape: tuple[int, int] | None = None,
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
        value_range: str = "warn",
        warm_start: bool = False,
        net_params: dict[str, Any] | None = None,
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
        strategy: Literal["ddp"] | None = None,
    ) -> None:
        self.n_components = n_components
        self.visible = visible
        self.structure = structure
        self.image_shape = image_shape
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

    @property
    def _is_binary(self) -> bool:
        """Whether rows are bits: those of the fit, or what the parameters call for."""
        return self.precision_ is None if self._is_fitted() else self.visible == "bernoulli"

    @property
    def _decodes(self) -> bool:  # type: ignore[override]
        return not self._is_binary

    @property
    def _visible_range(self) -> tuple[float, float]:  # type: ignore[override]
        return Bernoulli.limits if self._is_binary else CorrelatedGaussian.limits

    def _objective(self, energy: Any) -> Objective:
        return _lateral.objective(self, energy)

    def _check_rows(self, rows: Rows, *, learning: bool) -> None:
        if self.visible == "bernoulli" if learning else self._is_binary:
            check_bits(self, rows, "visible", learning=learning)

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        _lateral.free_pairs(self, rows.shape[1])
        can_search = isinstance(self.structure, str) and self.structure in precision_of.FACTORED
        binary = self.visible == "bernoulli"
        if self.optimizer == "lbfgs" and not (can_search or binary):
            raise ValueError(
                f'optimizer="lbfgs" factors L, which structure={self.structure!r} does not allow: '
                'use "sgd", or structure="full" or "diagonal".'
            )
        model, searches = _lateral.resolved(self), can_search and not binary
        return start_of.fitted(model, rows, progress, searches=searches, **data)

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        model = start_of.decided(_lateral.resolved(self), None)
        return BoltzmannEstimator._partial_fit(model, rows, progress, **data)

    def _initial_energy(
        self, rows: Rows, means: torch.Tensor, generator: torch.Generator
    ) -> CorrelatedBilinearEnergy | WhitenedMachine | PairwiseEnergy:
        mask, many = _lateral.free_pairs(self, rows.shape[1]), self._n_starts > 1
        if self.visible == "bernoulli":
            return _graph.initial_energy(mask, means, rows.total(), generator)
        root = precision_of.root_of_covariance(rows, means)
        exact = self.objective == "maximum_likelihood"
        machine = precision_of.initial_energy(
            self.n_components, mask, root, rows, means, generator, exact=exact, one_of_many=many
        )
        return self._searched(machine, root) if self.optimizer == "lbfgs" else machine

    def _searched(self, machine: Any, root: torch.Tensor) -> WhitenedMachine:
        return WhitenedMachine.of(machine, root, diagonal=self.structure == "diagonal")

    def _transforms(self, energy: Any, start: Start) -> tuple[Centring, ...]:
        return _lateral.transforms(self, energy, start)

    def _export_transforms(self, states: list[TransformState]) -> dict[str, Any]:
        return super()._export_transforms(states) if states else {"hidden_means_": None}

    def _export(self, energy: Any) -> dict[str, Any]:
        # Of the energy at hand: a former fit may have been one of other rows.
        spec = self._spec(binary=isinstance(energy, PairwiseEnergy))
        unlike = dict.fromkeys(_lateral.PAIRS)
        return {**unlike, **exported(precision_of.plain(energy), spec), **likelihood.unknown()}

    def _complete(self, energy: Any, state: dict[str, Any], seed: int) -> dict[str, Any]:
        return super()._complete(precision_of.plain(energy), state, seed)

    def _projections(self, energy: Any) -> tuple[Projection, ...]:
        if isinstance(energy, (WhitenedMachine, PairwiseEnergy)):
            return ()
        held = energy.visible.precision
        mask = _lateral.free_pairs(self, len(held)).to(held.device)
        return (partial(precision_of.keep_positive, energy, mask),)

    def _open(self, X: Any, probe: Any, *, reset: bool, min_rows: int = 1) -> Rows:
        rows = super()._open(X, probe, reset=reset, min_rows=min_rows)
        return likelihood.set_origin(self, rows, reset=reset)

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        _lateral.check_resumable(self)

    def _starting_energy(self, start: Start) -> Any:
        if self.visible == "bernoulli":
            energy = super()._starting_energy(start)
            # Couplings that happen to be zero may be learnt, if the structure has them.
            energy.allow(_lateral.free_pairs(self, start.rows.shape[1]))
            return energy
        start.rows.origin = likelihood.training_origin(self, start, kept=start.resume)
        if not start.resume:
            best = self._n_starts > 1
            return start_of.best_start(self, start) if best else super()._starting_energy(start)
        energy = super()._starting_energy(start)
        for project in self._projections(energy):  # the structure may have changed since
            project()
        if self.optimizer != "lbfgs":
            return energy
        means = start.means - start.rows.origin if start.rows.origin is not None else start.means
        root = precision_of.root_of_covariance(start.rows, means)
        return self._searched(energy, root).to(start.rows.device)

    def _trained(self, course: Any, seed: int, seen: Any, n_calls: int = 0) -> dict[str, Any]:
        state = super()._trained(course, seed, seen, n_calls)
        resumed = self._is_fitted() if n_calls else self._resumes()
        if state["precision_"] is None:
            return {**state, "offset_": None}
        state["offset_"] = getattr(self, "offset_", None) if resumed else seen["feature_means_"]
        return {**state, **self._around_zero(state)}

    def _around_zero(self, state: dict[str, Any]) -> dict[str, Any]:
        return precision_of.around_zero(state)

    def _rebuild(
        self, parameters: dict[str, torch.Tensor]
    ) -> CorrelatedBilinearEnergy | PairwiseEnergy:
        if "couplings_" in parameters:
            return _graph.without_hidden_pairs(parameters)
        parameters = precision_of.around_offset(parameters, getattr(self, "offset_", None))
        units = CorrelatedGaussian(parameters["intercept_visible_"], parameters["precision_"])
        hidden = Bernoulli(parameters["intercept_hidden_"])
        return CorrelatedBilinearEnergy(units, hidden, parameters["components_"])

    def _state_spec(self) -> Spec:
        return self._spec(binary=self._is_binary)

    def _spec(self, *, binary: bool) -> Spec:
        return _lateral.spec(super()._state_spec(), binary=binary)

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        _lateral.check_state(given, type(self).__name__)
        state = super()._untrained_state(given)
        if self.visible == "gaussian":
            return state
        held = {name: torch.as_tensor(value) for name, value in given.items()}
        return {**state, "feature_means_": _graph.mean_field(self._rebuild(held))}

    def _check_state(self) -> None:
        super()._check_state()
        if self._is_fitted():
            _lateral.check_state(vars(self), type(self).__name__)

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        return _lateral.validation_score(energy, batch, seed)

    # Documented in the base.

    def transform(self, X: Any) -> Any:  # noqa: D102
        return self._map_rows(X, lambda energy, x: energy.hidden_mean(x), "transform")

    def score_samples(self, X: Any) -> Any:  # noqa: D102
        return likelihood.score_samples(self, X)

    def sample(  # type: ignore[override]
        self,
        n_samples: int = 1,
        *,
        n_steps: int = 1000,
        init: Any = None,
        clamped: Any = None,
        random_state: RandomState = None,
    ) -> Any:
        """Draw rows from the model, with one block Gibbs chain per row; for bits, by sweeps.

        Draws are exact only in the limit of many steps. With ``clamped``, chains keep the known
        features of each row, and draw the others given these and the hidden units (completion).

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        n_steps : int, default=1000
            Gibbs steps, or sweeps over all units, of every chain.
        init : array-like of shape (n_features,) or (n_samples, n_features), default=None
            Initial states of the chains; None starts from the mean of the training rows.
        clamped : array-like of shape (n_features,) or (n_samples, n_features), default=None
            Values of known features, and NaN for those to draw. A single row applies to all chains.
            This costs O(d^3) once for each pattern of known features.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Visible states, float32; drawn bits are 0 or 1.
        """
        check_is_fitted(self)
        return _chains.drawn(self, n_samples, n_steps, init, clamped, None, random_state)
