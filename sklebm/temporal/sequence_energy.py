r"""E(x_t | x_1 ... x_{t-1}) = -log p(x_t | h_{t-1}) with h_t = cell(x_t, h_{t-1})."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.columns import weighted_mean
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import Scaling
from sklebm.energies.cells import CELLS
from sklebm.energies.step_outputs import OUTPUTS
from sklebm.objectives import Batch, Objective
from sklebm.objectives.sequence_likelihood import SequenceContrast, SequenceLikelihood
from sklebm.temporal import _draws, _network
from sklebm.temporal._base import (
    SEQUENCE_CONSTRAINTS,
    SequenceEstimator,
    WalkingRows,
    held_out_mean,
    warn_if_ignored,
)
from sklebm.training.clipping import ClippedNorm
from sklebm.training.schedules import Schedule
from sklebm.training.start import Start

_COUNT = Interval(Integral, 1, None, closed="left")


class SequenceEnergy(SequenceEstimator):
    r"""Surprise of each step of a sequence, given the steps before it.

    .. math:: E(x_t \mid x_1 \dots x_{t-1}) = -\log p(x_t \mid h_{t-1}), \qquad
              h_t = \mathrm{cell}(x_t, h_{t-1}).

    A recurrent or causal convolutional network summarises the past; an affine map of its features
    gives the parameters of the density of the next step. h_0 is learnt; that of "conv" comes from
    a window of zeros.

    Parameters
    ----------
    n_components : int, default=64
        Width of the state h.
    cell : {"lstm", "gru", "rnn", "linear", "conv"}, default="lstm"
        Network that summarises the past: torch's LSTM, GRU or tanh network, a linear dynamical
        system, or causal convolutions.
    output : {"gaussian", "latent", "bernoulli", "rbm", "categorical"}, default="gaussian"
        Density of a step. "gaussian": independent features, each with its own mean and scale;
        "latent": these plus ``n_latents`` common factors, regularised by N(0, 1); "bernoulli":
        independent bits; "rbm": bits of a restricted Boltzmann machine whose biases depend on the
        past; "categorical": one-hot rows.
    n_latents : int, default=16
        Number of factors of "latent", or of hidden units of "rbm".
    window : int, default=32
        Number of past steps that "conv" sees, rounded up to a power of two; 1: only the last.
    truncation : int, default=100
        Longest piece of a sequence in training. Up to as many steps before a piece set its initial
        state, so gradients reach back over at most twice this number of steps.
    max_gradient_norm : float or None, default=5.0
        Gradients with a larger norm are scaled down to it. None: no clipping. "lbfgs" never clips:
        its line search needs the gradient of the loss itself.
    forget_bias : float, default=1.0
        Initial bias of an LSTM's forget gate: values above 0 make it remember.
    n_gibbs_steps : int, default=10
        Gibbs steps of contrastive divergence, for "rbm".
    dropout : float, default=0.0
        Fraction of the features h_{t-1} that is dropped at random in every update; the values of
        past steps are dropped at half this rate. With few sequences, 0.5 and a wide network give
        better scores on new ones.
    learning_rate : float, default=0.003
        Step size. For a batch of m < ``batch_size`` rows it is scaled by m / ``batch_size``.
    batch_size : int, default=256
        Least number of rows in an update; a batch holds whole sequences or pieces.
    max_epochs : int, default=50
        Passes over the rows.
    optimizer : str, default="adam"
        "adam", "adamw", "rmsprop", "sgd", "momentum", or "gradient_descent" and "lbfgs" with all
        rows at once.
    learning_rate_schedule : str or Schedule, default="cosine"
        "constant", "linear", "cosine", "non_monotone", or a schedule object.
    validation_fraction : float or None, default=None
        Largest fraction of the rows held out, as whole sequences, at least one; of a single
        sequence its end, which is scored as a new sequence, without what came before. The mean log
        density is recorded after each epoch.
    n_iter_no_change : int or None, default=None
        Stop when the validation score has not improved by ``tol`` for this many epochs, and keep
        the best parameters.
    tol : float, default=1e-4
        Minimum absolute improvement that counts as progress.
    value_range : {"warn", "raise", "clip"}, default="warn"
        What to do with values outside [0, 1], if the output is "bernoulli" or "rbm"; "warn" uses
        them unchanged.
    warm_start : bool, default=False
        Whether ``fit`` continues from the fitted parameters.
    net_params : dict or None, default=None
        Passed to the internal skorch net: callbacks, ``optimizer__weight_decay``.
    random_state : int, RandomState instance or None, default=None
        Seed for the initial weights, the order of sequences and Gibbs draws.
    verbose : int, default=0
        If nonzero, print one line per epoch.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise CUDA if available.

    Attributes
    ----------
    weights_ : dict of str to ndarray
        Parameters under their torch names: "cell.net.weight_ih_l0", "readout.weight" and so on.
    architecture_ : dict
        Description of the networks in plain values.
    offset_, scale_ : ndarray of shape (n_features_in_,) or None
        Mean and scale of each feature, which standardise rows for "gaussian" and "latent".
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean loss of the batches by epoch, for standardised rows; for "rbm" a difference of
        energies.
    validation_scores_ : ndarray
        Mean log density of the held-out rows, standardised like those of ``loss_curve_``, by epoch,
        if ``validation_fraction`` is set.
    n_iter_ : int
        Number of epochs, or of ``partial_fit`` calls.
    feature_means_ : ndarray of shape (n_features_in_,)
        Mean of the training rows.
    n_samples_seen_ : int
        Number of training rows.
    training_state_ : dict
        Optimiser statistics; see ``drop_training_state``.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    GaussianEnergy : One Gaussian for all rows, in any order.
    EnergyOutlierDetector : Turns surprise into a decision.

    Notes
    -----
    An update costs O(n h (h + d)) for n rows of d features and h components; with "rbm", a score or
    prediction costs O(2^k d) more per row for k <= 20 hidden units. With more units both are
    estimates from 20 annealed chains: log Z is too low on average, and predictions, weighted
    averages along the chains, may be off by about 0.1 where a machine has distant modes; a
    prediction takes 20 chains of 300 steps, O(6000 k d) per row. Scales of Gaussians stay above
    e^-7 times that of the feature. A sequence of one step is scored by h_0 alone. Training runs in
    float32, answers are computed in the dtype of X. All methods handle values outside [0, 1] as
    ``value_range`` says if outputs are binary, and refuse negative ones for "categorical", where a
    row of zeros, which has no category, has a log density of 0. ``groups`` that are not contiguous,
    or have another length than X, raise ValueError.

    References
    ----------
    .. [1] S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9, 1997.
    .. [2] N. Boulanger-Lewandowski, Y. Bengio and P. Vincent, "Modeling temporal dependencies in
       high-dimensional sequences", ICML 2012.
    .. [3] S. Bai, J. Z. Kolter and V. Koltun, "An empirical evaluation of generic convolutional and
       recurrent networks for sequence modeling", arXiv:1803.01271, 2018.

    Examples
    --------
    >>> from sklebm import SequenceEnergy
    >>> from sklebm.datasets import AutoregressiveProcess
    >>> X, groups = AutoregressiveProcess(0.9).sample(20, 50, random_state=0)
    >>> model = SequenceEnergy(4, cell="linear", learning_rate=0.02, max_epochs=20, random_state=0)
    >>> model = model.fit(X, groups=groups)
    >>> bool(model.score(X, groups=groups) > -1.5)  # nats a step; independent steps have -2.25
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **SEQUENCE_CONSTRAINTS,
        "n_components": [_COUNT],
        "cell": [StrOptions(set(CELLS))],
        "output": [StrOptions(set(OUTPUTS))],
        "n_latents": [_COUNT],
        "window": [_COUNT],
        "truncation": [_COUNT],
        "max_gradient_norm": [Interval(Real, 0, None, closed="neither"), None],
        "forget_bias": [Interval(Real, None, None, closed="neither")],
        "n_gibbs_steps": [_COUNT],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "value_range": [StrOptions({"warn", "raise", "clip"})],
    }

    def __init__(
        self,
        n_components: int = 64,
        *,
        cell: str = "lstm",
        output: str = "gaussian",
        n_latents: int = 16,
        window: int = 32,
        truncation: int = 100,
        max_gradient_norm: float | None = 5.0,
        forget_bias: float = 1.0,
        n_gibbs_steps: int = 10,
        dropout: float = 0.0,
        learning_rate: float = 0.003,
        batch_size: int = 256,
        max_epochs: int = 50,
        optimizer: str = "adam",
        learning_rate_schedule: str | Schedule = "cosine",
        validation_fraction: float | None = None,
        n_iter_no_change: int | None = None,
        tol: float = 1e-4,
        value_range: str = "warn",
        warm_start: bool = False,
        net_params: dict[str, Any] | None = None,
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
    ) -> None:
        self.n_components = n_components
        self.cell = cell
        self.output = output
        self.n_latents = n_latents
        self.window = window
        self.truncation = truncation
        self.max_gradient_norm = max_gradient_norm
        self.forget_bias = forget_bias
        self.n_gibbs_steps = n_gibbs_steps
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.optimizer = optimizer
        self.learning_rate_schedule = learning_rate_schedule
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.value_range = value_range
        self.warm_start = warm_start
        self.net_params = net_params
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    def _record(self, n_features: int) -> dict[str, Any]:
        return _network.record_of(self, n_features)

    def _assemble(self, record: Mapping[str, Any]) -> Any:
        return _network.assemble(record)

    def _fresh(self, record: Mapping[str, Any], mean: Any, generator: torch.Generator) -> Any:
        return _network.fresh(record, mean, float(self.forget_bias), generator)

    def _longest_piece(self) -> int:
        return int(self.truncation)

    def _scaling(self, rows: Rows) -> Scaling | None:
        return _network.scaling_of(rows, self.output)

    def _check_rows(self, rows: Rows, *, learning: bool) -> None:
        output = self.output if learning else self.architecture_["output"]
        _network.check_rows(self, rows, output)

    def _objective(self, energy: Any) -> Objective:
        dropout = float(self.dropout)
        if self.output == "rbm":
            return SequenceContrast(self.n_gibbs_steps, dropout)
        return SequenceLikelihood(dropout)

    def _transforms(self, energy: Any, start: Start) -> list[ClippedNorm]:
        norm = self.max_gradient_norm
        return [] if norm is None or self.optimizer == "lbfgs" else [ClippedNorm(float(norm))]

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        stream = WalkingRows(_network.scores)
        return held_out_mean(energy, batch, stream, _network.floats_per_row(energy.record))

    def _floats_per_row(self) -> int:
        return _network.floats_per_row(self.architecture_)

    @property
    def _n_features_out(self) -> int:
        latents = self.architecture_["n_latents"] * (self.architecture_["output"] == "latent")
        return int(self.architecture_["n_components"] + latents)

    def transform(self, X: Any, groups: Any = None) -> Any:
        """Return the state h_t after each step; with "latent" outputs, z_t beside it.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The steps of all sequences.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each step, as in ``fit``.

        Returns
        -------
        H : array or tensor of shape (n_samples, n_components) or (n_samples, n_components + \
n_latents)
            h_t, followed by the posterior mean of the factors given x_t and its past for "latent".
        """
        return self._walk(X, groups, _network.features, "transform")

    def score_samples(self, X: Any, groups: Any = None) -> Any:
        """Return log p(x_t | x_1 ... x_{t-1}) of each step: minus its surprise.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The steps of all sequences.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each step, as in ``fit``.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            In nats. Exact, except for "rbm" with more than 20 hidden units. A score does not depend
            on later steps; the scores of a sequence add up to its log density.
        """
        return self._walk(X, groups, _network.scores, "score_samples")

    def free_energy(self, X: Any, groups: Any = None) -> Any:
        """Return E(x_t | x_1 ... x_{t-1}) = -log p of each step, its surprise.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The steps of all sequences.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each step, as in ``fit``.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            ``-score_samples(X, groups)``, in nats.
        """
        return self._walk(X, groups, lambda *walk: -_network.scores(*walk), "free_energy")

    def score(self, X: Any, y: Any = None, groups: Any = None, sample_weight: Any = None) -> float:
        """Return the mean log density of a step given its past.

        Comparable between models of any parameters for the same features of X and the same kind of
        ``output``: densities of real features, or probabilities of bits or categories. Not so for
        "rbm" with more than 20 hidden units, whose scores are too high on average: log Z is
        estimated, and too low.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The steps of held-out sequences.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each step, as in ``fit``.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weight of each step in the mean.

        Returns
        -------
        score : float
            Mean over all steps, the first ones included, in nats.
        """
        warn_if_ignored(self, y, groups, "score")
        scores = self.score_samples(X, groups)
        return weighted_mean(scores, sample_weight, type(self).__name__)

    def predict(self, X: Any, groups: Any = None) -> Any:
        """Return the mean of the step after each row, given the row and those before it.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The steps of all sequences.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each step, as in ``fit``.

        Returns
        -------
        X_next : array or tensor of shape (n_samples, n_features)
            Row t predicts row t + 1; the one at the last step of a sequence is a forecast. Exact,
            except for "rbm" with more than 20 hidden units; see Notes.
        """
        return self._walk(X, groups, _network.next_means, "predict")

    def sample(
        self, n_samples: int = 1, *, start: Any = None, random_state: RandomState = None
    ) -> Any:
        """Draw the steps of one sequence, each given those before it.

        Parameters
        ----------
        n_samples : int, default=1
            Number of steps.
        start : array-like or tensor of shape (n_steps, n_features) or None, default=None
            Steps that the draws continue, read in chunks. None: a new sequence begins.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The steps, in the dtype of ``start``, float32 without it. Exact draws; for "rbm", the
            ends of Gibbs chains of 100 steps.
        """
        check_is_fitted(self)
        return _draws.drawn(self, n_samples, start, random_state)

    def gradient_flow(self, X: Any, groups: Any = None) -> Any:
        """Return how much the loss of a sequence's last step depends on each earlier state.

        The states of a whole sequence are held in memory at once, whatever ``working_memory`` is.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The steps of all sequences.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each step, as in ``fit``.

        Returns
        -------
        norms : ndarray of shape (n_samples,)
            Norm of d loss_T / d h_t (for an LSTM of h_t and its cell together), with the loss
            -log p(x_T | past) of the last step T of row t's sequence; 0 for row T itself.
        """
        check_is_fitted(self)
        return _draws.gradient_norms(self, X, groups)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self.output == "categorical"
        return tags
