r"""E(s) = -1/2 s' W s - b's, s = (x, h) in {0, 1}; p(x) = sum_h exp(-E(x, h)) / Z, on any graph."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, Literal

import torch
from sklearn.utils.validation import check_is_fitted

from sklebm import likelihood
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Scalar, Spec
from sklebm._shell.value_range import apply_value_range
from sklebm.boltzmann import _chains, _completion, _graph
from sklebm.boltzmann._base import BoltzmannEstimator
from sklebm.boltzmann._structure import STRUCTURES, check_couplings, coupled_pairs
from sklebm.energies import Bernoulli, PairwiseEnergy
from sklebm.gradient import GradientEstimator
from sklebm.inference.gibbs_langevin import GibbsLangevin
from sklebm.objectives import Batch, Objective
from sklebm.training.pairwise_centring import PairwiseCentring
from sklebm.training.schedules import Schedule
from sklebm.training.start import Start

# Most hidden units whose states a free energy lists.
_MOST_LISTED = 20


class BoltzmannMachine(BoltzmannEstimator):
    r"""Boltzmann machine: bits on any graph, all visible or some of them hidden.

    .. math:: E(s) = -\tfrac12 s^\top W s - b^\top s, \qquad s = (x, h) \in \{0, 1\}^{d + q},

    .. math:: F(x) = -\log \sum_h e^{-E(x, h)}, \qquad \log p(x) = -F(x) - \log Z.

    W is symmetric with a zero diagonal, so the factor 1/2 counts every pair once: a pair that is
    on contributes :math:`-W_{ij}`. Spins :math:`\sigma = 2 s - 1` with energy
    :math:`-\sum_{i<j} J_{ij} \sigma_i \sigma_j` are :math:`W = 4 J`, :math:`b = -2 J 1`.

    Parameters
    ----------
    n_components : int, default=0
        Number q of hidden units. At most 20 of them may be coupled to each other.
    structure : {"full", "grid"} or array of bool, default="full"
        Which pairs are coupled. "full": all; "grid": neighbours in a row or column of the image,
        with hidden units coupled to all visible units but not to each other; an array: those where
        this symmetric mask is True, either over the visible units (hidden units are then coupled as
        for "grid") or over all units, the visible ones first.
    image_shape : (height, width) or None, default=None
        Layout of the features, for "grid" only; None is a single line.
    objective : str or Objective, default="pseudo_likelihood"
        How the energy is shaped. Without negatives: "pseudo_likelihood", "ratio_matching",
        "minimum_probability_flow"; with: "pcd" (persistent chains), "cd" (k Gibbs sweeps from the
        data), "noise_contrastive"; exact: "maximum_likelihood" (small machines only).
    n_gibbs_steps : int, default=1
        Sweeps of the chains per update, for "pcd" and "cd".
    centering : bool, default=True
        Whether to centre gradients at the means of the units, which makes learning better
        conditioned and independent of which state is called 1. "lbfgs" uses the plain gradient.
    learning_rate : float, default=0.1
        Step size, per pair. For a batch of m < ``batch_size`` rows it is scaled by
        m / ``batch_size``.
    batch_size : int, default=50
        Rows per update, and number of persistent chains.
    max_epochs : int, default=50
        Passes over the rows.
    optimizer : str, default="sgd"
        Update rule: "sgd", "momentum" (heavy ball), "rmsprop", "adam", "adamw", or, with all rows
        at once, "gradient_descent" and "lbfgs" (with ``learning_rate=1``, for objectives that draw
        nothing: "maximum_likelihood" and those without negatives).
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
        How ``fit`` computes log Z at the end. One class of units that are not coupled to each other
        is summed over in closed form. "exact": a sum over the states of the remaining units (at
        most 25); "ais": annealed importance sampling, forwards and backwards; "bridge": bridge
        sampling along a ladder of tempered chains; "auto": exact up to 20 units, otherwise annealed
        for at most half as long as training took; None: not at all.
    value_range : {"warn", "raise", "clip"}, default="warn"
        What to do with values outside [0, 1]; "warn" uses them unchanged. Values between 0 and 1
        are taken as probabilities of bits.
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
    couplings_ : ndarray of shape (n_units_, n_units_)
        W, symmetric, the visible units first; zero on the diagonal and outside the structure.
    intercept_visible_ : ndarray of shape (n_features_in_,)
        Biases b of the visible units.
    intercept_hidden_ : ndarray of shape (n_components,)
        Biases b of the hidden units.
    n_units_ : int
        Number of units, visible and hidden.
    log_partition_ : float or None
        log Z in nats; None if unknown. ``partial_fit`` clears it.
    log_partition_interval_ : ndarray of shape (2,) or None
        Estimates from chains started at both ends, plus and minus three standard errors; both
        values equal log Z if it is exact.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean loss by epoch, as defined by the objective.
    validation_scores_ : ndarray
        Held-out log pseudo-likelihood by epoch, if ``validation_fraction`` is set.
    free_energy_gaps_ : ndarray
        Mean free energy of the held-out rows minus that of an equal number of training rows (nats),
        by epoch, if ``validation_fraction`` is set. It rises when the machine overfits.
    n_iter_ : int
        Number of epochs, or of ``partial_fit`` calls.
    feature_means_ : ndarray of shape (n_features_in_,)
        Mean of the training rows, the base rate from which annealing and sampling start; after
        ``from_parameters``, the mean-field means.
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
    BernoulliRBM : Hidden units that are coupled to visible ones only, any number of them.
    HopfieldNetwork : Stores patterns in W by a rule instead of learning a density.
    GaussianEnergy : Real-valued rows on a graph.

    Notes
    -----
    ``transform`` returns the exact means of the hidden units or, if there are none, the mean of
    each visible unit given the others. A step costs O(batch_size d^2) without hidden units, and 2^r
    times as much with r hidden units outside the largest class of hidden units that are not coupled
    to each other. A sweep costs O(batch_size (d + q)^2), one class of uncoupled units after the
    other; an exact log Z costs O(2^s (d + q)) with s units, visible or hidden, outside the largest
    such class of all units. Training runs in float32, log Z in float64, row-wise methods in the
    dtype of X. csr rows are made dense batch by batch.

    References
    ----------
    .. [1] G. E. Hinton and T. J. Sejnowski, "Learning and relearning in Boltzmann machines", in
       "Parallel Distributed Processing", 1986.
    .. [2] A. Hyvarinen, "Consistency of pseudolikelihood estimation of fully visible Boltzmann
       machines", Neural Computation 18(10), 2006.
    .. [3] J. Sohl-Dickstein, P. Battaglino and M. R. DeWeese, "Minimum probability flow learning",
       ICML 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import BoltzmannMachine
    >>> X = np.random.default_rng(0).integers(2, size=(500, 3)).astype(float)
    >>> X[:, 2] = X[:, 1]  # the third unit copies the second
    >>> machine = BoltzmannMachine(random_state=0).fit(X)
    >>> bool(machine.score(X) > -2.5 * np.log(2))  # nats; the entropy is 2 log 2
    True
    >>> machine.conditional_mean([[np.nan, np.nan, 1.0]]).round()[0, 1]
    np.float64(1.0)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BoltzmannEstimator._parameter_constraints,
        "n_components": [Interval(Integral, 0, None, closed="left")],
        "structure": [StrOptions(set(STRUCTURES)), "array-like"],
        "image_shape": ["array-like", None],
        "objective": [StrOptions(set(_graph.OBJECTIVES)), Objective],
        "value_range": [StrOptions({"warn", "raise", "clip"})],
    }
    _visible_range = (0.0, 1.0)
    _decodes = False

    def __init__(
        self,
        n_components: int = 0,
        *,
        structure: Any = "full",
        image_shape: tuple[int, int] | None = None,
        objective: str | Objective = "pseudo_likelihood",
        n_gibbs_steps: int = 1,
        centering: bool = True,
        learning_rate: float = 0.1,
        batch_size: int = 50,
        max_epochs: int = 50,
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

    def _mask(self, n_features: int) -> torch.Tensor:
        name = type(self).__name__
        return coupled_pairs(self.structure, self.image_shape, n_features, self.n_components, name)

    def _initial_energy(
        self, rows: Rows, means: torch.Tensor, generator: torch.Generator
    ) -> PairwiseEnergy:
        return _graph.initial_energy(self._mask(len(means)), means, rows.total(), generator)

    def _starting_energy(self, start: Start) -> Any:
        energy = super()._starting_energy(start)
        # Couplings that happen to be zero may be learnt, if the structure has them.
        energy.allow(self._mask(start.rows.shape[1]))
        if energy.listed_hidden_units > _MOST_LISTED:
            raise ValueError(
                f"{type(self).__name__}: {self.n_components} hidden units that are coupled to each "
                f"other need a sum over 2^{energy.listed_hidden_units} states for every row, more "
                f'than 2^{_MOST_LISTED}: set structure="grid" or a mask over the visible units, '
                "which leave hidden units uncoupled, or use BernoulliRBM."
            )
        return energy

    def _transforms(self, energy: Any, start: Start) -> tuple[PairwiseCentring]:
        return _graph.centring(self, energy, start)

    def _rebuild(self, parameters: dict[str, torch.Tensor]) -> PairwiseEnergy:
        visible, couplings = parameters["intercept_visible_"], parameters["couplings_"]
        hidden = parameters.get("intercept_hidden_", visible[:0])
        return PairwiseEnergy(Bernoulli(visible), Bernoulli(hidden), couplings)

    def _state_spec(self) -> Spec:
        spec = {**super()._state_spec()}
        del spec["components_"]
        return {
            **spec,
            "couplings_": Array("f", ("n_units_", "n_units_"), of="couplings"),
            "intercept_hidden_": Array("f", ("n_components",), optional=True, of="hidden.bias"),
            "n_units_": Scalar(int, 1),
        }

    def _export(self, energy: Any) -> dict[str, Any]:
        return {**super()._export(energy), "n_units_": len(energy.weights)}

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        check_couplings(given, type(self).__name__)
        state = super()._untrained_state(given)
        held = {name: torch.as_tensor(value) for name, value in given.items()}
        return {**state, "feature_means_": _graph.mean_field(self._rebuild(held))}

    def _check_state(self) -> None:
        super()._check_state()
        if self._is_fitted():
            check_couplings(vars(self), type(self).__name__)

    def _check_resumable(self, rows: Rows) -> None:
        GradientEstimator._check_resumable(self, rows)
        fitted = self.n_units_ - self.n_features_in_
        if fitted != self.n_components:
            raise ValueError(
                f"n_components={self.n_components} differs from the {fitted} fitted hidden units "
                "that training would continue from: set it back, or fit with warm_start=False."
            )

    def _check_rows(self, rows: Rows, *, learning: bool) -> None:
        apply_value_range(rows, self.value_range, owner=type(self).__name__, learning=learning)

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        return _graph.validation_score(energy, batch, seed)

    def _floats_per_row(self) -> int:
        n_hidden = int(self.n_units_ - self.n_features_in_)
        return 4 * int(self.n_units_) + (4 << min(n_hidden, 14))

    @property
    def _n_features_out(self) -> int:
        return int((self.n_units_ - self.n_features_in_) or self.n_features_in_)

    def transform(self, X: Any) -> Any:
        """Return the exact mean of the hidden units given each row.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        H : array or tensor of shape (n_samples, n_components)
            p(h_k = 1 | x). Without hidden units, p(x_i = 1 | the other features), of shape
            (n_samples, n_features).
        """

        def encode(energy: Any, x: torch.Tensor) -> torch.Tensor:
            has_hidden = len(energy.hidden.bias) > 0
            means: torch.Tensor
            means = energy.hidden_mean(x) if has_hidden else energy.conditional_mean(x)
            return means

        return self._map_rows(X, encode, "transform")

    def conditional_mean(
        self,
        X: Any,
        method: str = "auto",
        *,
        n_steps: int = 1000,
        random_state: RandomState = None,
    ) -> Any:
        """Fill in unknown features by their means given the known ones.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Values of known features, and NaN for the others.
        method : {"auto", "exact", "mean_field", "chains"}, default="auto"
            "exact" sums over the states of the unknown units, hidden ones included: the largest
            class of those that are not coupled to each other in closed form, all states of the
            others (at most 25) one by one; "mean_field" approximates units as independent, which
            is deterministic but overconfident; "chains" averages over one Gibbs chain per row.
            "auto" is exact for rows with up to 20 units to list, and mean field, with a warning,
            for the others.
        n_steps : int, default=1000
            Sweeps over which each chain is averaged, after half as many burn-in sweeps.
        random_state : int, RandomState instance or None, default=None
            Seed for the chains. What they give also depends on ``working_memory``, which divides
            the rows into chunks.

        Returns
        -------
        X_filled : array or tensor of shape (n_samples, n_features)
            The rows with p(x_i = 1 | the known features) for NaN, in the dtype of X.

        Raises
        ------
        ValueError
            If a known value lies outside [0, 1] (``value_range="clip"`` clips it), or "exact" would
            have to list the states of more than 25 units.

        Warns
        -----
        UserWarning
            If "auto" falls back to mean field, or mean field has not converged.
        """
        return _completion.conditional_mean(self, X, method, n_steps, random_state)

    def variational_log_partition(self, method: Literal["mean_field", "bethe"] = "bethe") -> float:
        """Approximate log Z by messages between the units; ``log_partition_`` does not change.

        Parameters
        ----------
        method : {"mean_field", "bethe"}, default="bethe"
            "mean_field" is a lower bound; "bethe" is exact if the graph is a tree, and otherwise an
            approximation that may be too high or too low.

        Returns
        -------
        log_partition : float
            In nats, in float64.

        Warns
        -----
        UserWarning
            If the messages have not converged, as can happen with strong couplings in loops.
        """
        check_is_fitted(self)
        return _completion.variational_log_partition(self, method)

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
