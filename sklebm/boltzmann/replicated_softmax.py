r"""E(v, h) = -b' v - D c' h - h' W v, D = sum_w v_w: counts of words and hidden bits."""

from __future__ import annotations

import math
from functools import partial
from numbers import Integral
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm import likelihood
from sklebm._checks import check_beta, check_count
from sklebm._shell.arrays import to_numpy
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.progress import Progress
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Scalar, Spec
from sklebm._shell.value_range import need_counts
from sklebm.boltzmann import _documents
from sklebm.boltzmann._base import check_components
from sklebm.energies import ReplicatedSoftmaxEnergy
from sklebm.gradient import GradientEstimator
from sklebm.objectives import Batch, Objective
from sklebm.training.pace import Pace
from sklebm.training.schedules import Schedule


class ReplicatedSoftmax(GradientEstimator):
    r"""Boltzmann machine of counts: an undirected topic model.

    .. math:: E(v, h) = -b^\top v - D \, c^\top h - h^\top W v, \qquad D = \sum_w v_w,

    .. math:: \log p(v) = b^\top v + \sum_k \log(1 + e^{D c_k + w_k^\top v}) - \log Z_D,
              \qquad Z_D = \sum_h e^{D a(h)},

    .. math:: a(h) = c^\top h + \log \sum_w e^{b_w + (W^\top h)_w}.

    p(v) is the probability of a document as an ordered sequence of D words, without a multinomial
    coefficient. Given the bits, words are independent, with probabilities proportional to a
    product over the topics that are on; given the words, the bits are independent too. The length
    of the document multiplies the biases of the bits.

    Parameters
    ----------
    n_components : int, default=50
        Number of hidden units, the topics.
    objective : str or Objective, default="cd"
        How the energy is shaped: "cd", contrastive divergence, in which a negative has the length
        of its document, or "maximum_likelihood", the exact likelihood (at most 14 hidden units). As
        objects, these are ``ContrastiveDivergence()`` and ``LengthLikelihood()``.
    n_gibbs_steps : int, default=5
        Steps of the chains of "cd" per update. One step is faster, but learns less from long
        documents.
    learning_rate : float, default=0.01
        Step size. For a batch of m < ``batch_size`` rows it is scaled by m / ``batch_size``.
    batch_size : int, default=100
        Documents per update.
    max_epochs : int or "auto", default="auto"
        Passes over the documents. "auto": 300 updates, but at least 15 and at most 150 passes. With
        many more, chains of well-separated topics no longer mix, and the intervals of log Z widen.
    optimizer : str, default="adam"
        Update rule: "adam", "adamw", "rmsprop", whose steps do not depend on the lengths of the
        documents, or "sgd", "momentum", "gradient_descent" and "lbfgs"; the last needs
        ``objective="maximum_likelihood"``.
    learning_rate_schedule : str or Schedule, default="linear"
        How the learning rate changes over ``max_epochs``: "constant", "linear", "cosine",
        "non_monotone", or a schedule object with its own settings.
    validation_fraction : float or None, default=None
        Fraction of the documents held out for validation; for each, the log probability of one word
        given its other words is recorded after each epoch.
    n_iter_no_change : int or None, default=None
        Stop when the validation score has not improved by ``tol`` for this many epochs, and keep
        the best parameters. None trains for ``max_epochs``.
    tol : float, default=1e-4
        Minimum absolute improvement that counts as progress.
    log_partition : {"auto", "exact", "ais"} or None, default="auto"
        How ``fit`` computes log Z of all lengths up to that of the longest document. "exact": a sum
        over the states of the hidden units (at most 14), for any length; "ais": annealed from
        length to length; "auto": exact up to 10 units, otherwise annealed; None: not at all.
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

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features_in_)
        Weights W.
    intercept_hidden_ : ndarray of shape (n_components,)
        Hidden biases c, for one word.
    intercept_visible_ : ndarray of shape (n_features_in_,)
        Biases b of the words.
    state_weights_ : ndarray of shape (2 ** n_components,) or None
        a(h) of all states of the hidden units if log Z is exact: log Z_D is the logarithm of the
        sum of exp(D a(h)). ``partial_fit`` clears it.
    log_partitions_ : ndarray of shape (n_lengths,) or None
        log Z in nats of the lengths 0, 1, ..., if it was annealed. Lengths in between are
        interpolated, longer documents extrapolated with a warning. ``partial_fit`` clears it.
    log_partition_intervals_ : ndarray of shape (n_lengths, 2) or None
        Estimates of growing and of shrinking chains, plus and minus three standard errors.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean energy of the batches minus that of the negatives, by epoch (nats); the mean
        negative log-likelihood for "maximum_likelihood".
    validation_scores_ : ndarray
        Held-out log p of a word given the others, by epoch, if ``validation_fraction`` is set; 0 if
        no held-out document has words.
    n_iter_ : int
        Number of epochs, or of ``partial_fit`` calls.
    feature_means_ : ndarray of shape (n_features_in_,)
        Mean of the training rows.
    longest_ : float
        Length of the longest document seen; 0 after ``from_parameters``, unless it is given there
        as ``longest``.
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
    LatentDirichletAllocation : Topics that divide the words of a document among themselves.
    BernoulliRBM : For binary rows.

    Notes
    -----
    Counts may be fractions, which weight words: the length of a document is their sum, and log Z is
    defined for any such length. For a negative of fractional length, the number of words is rounded
    up, and each word counts a little less than one. A step costs O(n_gibbs_steps batch_size d k);
    annealing O(n_chains longest (d k + longest)). Training runs in float32, log Z and row-wise
    methods in float64. csr rows are made dense batch by batch.

    "adam" divides each gradient by its size, which for few documents is mostly noise: chunks of
    ``partial_fit`` that are much smaller than ``batch_size`` therefore move the parameters less.
    With ``optimizer="sgd"``, steps add up to the same however rows are split into chunks.

    References
    ----------
    .. [1] R. Salakhutdinov and G. Hinton, "Replicated softmax: an undirected topic model", NIPS
       2009.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import ReplicatedSoftmax
    >>> X = np.array([[4, 5, 3, 0, 0, 0], [0, 0, 0, 3, 4, 3]] * 20)
    >>> model = ReplicatedSoftmax(2, learning_rate=0.05, batch_size=10, random_state=0).fit(X)
    >>> model.transform(X).shape
    (40, 2)
    >>> bool(model.perplexity(X) < 4)  # three words of six occur together
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **{k: v for k, v in GradientEstimator._parameter_constraints.items() if k != "strategy"},
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "objective": [StrOptions(set(_documents.OBJECTIVES)), Objective],
        "n_gibbs_steps": [Interval(Integral, 1, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "log_partition": [StrOptions({"auto", "exact", "ais"}), None],
    }
    _accepts_sparse = True
    _computes_in_double = True
    _pace = Pace(n_updates=300, least_epochs=15, most_epochs=150)

    state_weights_: np.ndarray[Any, Any] | None
    log_partitions_: np.ndarray[Any, Any] | None
    log_partition_intervals_: np.ndarray[Any, Any] | None

    def __init__(
        self,
        n_components: int = 50,
        *,
        objective: str | Objective = "cd",
        n_gibbs_steps: int = 5,
        learning_rate: float = 0.01,
        batch_size: int = 100,
        max_epochs: int | Literal["auto"] = "auto",
        optimizer: str = "adam",
        learning_rate_schedule: str | Schedule = "linear",
        validation_fraction: float | None = None,
        n_iter_no_change: int | None = None,
        tol: float = 1e-4,
        log_partition: Literal["auto", "exact", "ais"] | None = "auto",
        warm_start: bool = False,
        net_params: dict[str, Any] | None = None,
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
    ) -> None:
        self.n_components = n_components
        self.objective = objective
        self.n_gibbs_steps = n_gibbs_steps
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

    # ------------------------------------------------------------------ learning

    def _initial_energy(
        self, rows: Rows, means: torch.Tensor, generator: torch.Generator
    ) -> ReplicatedSoftmaxEnergy:
        return _documents.untrained(means, rows.total(), self.n_components, generator)

    def _objective(self, energy: Any) -> Objective:
        return _documents.objective(self, energy)

    def _check_rows(self, rows: Rows, *, learning: bool) -> None:
        need_counts(rows, type(self).__name__)

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        check_components(self)

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        generator = make_generator(seed, "validation", device=batch.x.device)
        found = energy.log_conditional(batch.x, generator).double()
        return float(found.mean()) if len(found) else 0.0

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        earlier = self.longest_ if self._resumes() else 0.0
        longest = max(_documents.longest_document(rows), earlier)
        if self.log_partition == "exact":
            _documents.need_few(int(self.n_components))
        state = {**super()._fit(rows, progress, **data), "longest_": longest}
        if self.log_partition is None:
            return state
        seed = int(state["training_state_"]["seed"])
        model = self._twin({**self._unfitted_dict(), **state})
        return {**state, **_documents.log_partitions(model, self.log_partition, longest, seed)}

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        longest = max(_documents.longest_document(rows), getattr(self, "longest_", 0.0))
        return {**super()._partial_fit(rows, progress, **data), "longest_": longest}

    def _export(self, energy: Any) -> dict[str, Any]:
        # Any change of the parameters invalidates earlier normalisers.
        return {**super()._export(energy), **_documents.UNKNOWN, "longest_": 0.0}

    # ------------------------------------------------------------------ fitted state

    def _state_spec(self) -> Spec:
        return {
            **super()._state_spec(),
            "components_": Array("f", ("n_components", "n_features_in_"), of="weights"),
            "intercept_hidden_": Array("f", ("n_components",), of="hidden_bias"),
            "intercept_visible_": Array("f", ("n_features_in_",), of="visible_bias"),
            "longest_": Scalar(float, 0.0),
            "state_weights_": Array("f", (None,), optional=True),
            "log_partitions_": Array("f", (None,), optional=True),
            "log_partition_intervals_": Array("f", (None, 2), optional=True),
        }

    def _rebuild(self, parameters: dict[str, torch.Tensor]) -> ReplicatedSoftmaxEnergy:
        biases = parameters["intercept_visible_"], parameters["intercept_hidden_"]
        return ReplicatedSoftmaxEnergy(*biases, parameters["components_"])

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        return {**super()._untrained_state(given), "longest_": 0.0}

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def _floats_per_row(self) -> int:
        n_states = 0 if self.state_weights_ is None else len(self.state_weights_)
        return 4 * int(self.n_features_in_) + 4 * len(self.components_) + 2 * n_states

    # ------------------------------------------------------------------ what it answers

    def transform(self, X: Any) -> Any:
        """Return the topics of each document: the means of its hidden units.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Counts of words.

        Returns
        -------
        H : array or tensor of shape (n_samples, n_components)
            p(h_k = 1 | v). Topics do not exclude each other.
        """
        return self._map_rows(X, lambda energy, x: energy.hidden_mean(x), "transform")

    def inverse_transform(self, X: Any) -> Any:
        """Return the probabilities of the words given hidden units.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_components)
            Hidden states or means.

        Returns
        -------
        P : array or tensor of shape (n_samples, n_features)
            p(word | h); each row sums to one.
        """

        def decode(energy: ReplicatedSoftmaxEnergy, h: torch.Tensor) -> torch.Tensor:
            return torch.softmax(energy.word_logits(h), dim=1)

        return self._map_rows(X, decode, "inverse_transform", latents=True)

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(v, h) of each document with its own hidden state.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Counts of words.
        Z : array-like or tensor of shape (n_samples, n_components)
            Hidden states.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In nats.
        """
        return self._pair_energies(X, Z)

    def free_energy(self, X: Any, beta: float = 1.0, *, normalised: bool = False) -> Any:
        r"""Return :math:`F_\beta(v) = -\frac1\beta \log \sum_h e^{-\beta E(v, h)}`.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Counts of words.
        beta : float, default=1.0
            Inverse temperature of the hidden units; the model itself is at 1.
        normalised : bool, default=False
            Whether to add log Z of the length of each document, which makes it -log p(v); for
            ``beta=1`` only.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In nats. Without log Z, only documents of one length can be compared.
        """
        check_beta(beta)
        if normalised:
            _documents.need_model_temperature(beta)
            _documents.need_log_partition(self, "free_energy(normalised=True)")
            return self._map_rows(X, partial(self._normalised, None), "free_energy")
        return self._map_rows(X, lambda energy, x: energy.free_energy(x, beta), "free_energy")

    def _normalised(
        self, end: int | None, energy: ReplicatedSoftmaxEnergy, x: torch.Tensor
    ) -> torch.Tensor:
        return energy.free_energy(x) + _documents.log_partition_of(self, x, end)

    def score_samples(self, X: Any) -> Any:
        """Return log p(v) of each document, an ordered sequence of words.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Counts of words.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            In nats; longer documents have lower scores. Exact or annealed, as log Z of the length
            is; ``-free_energy(X)`` while that is unknown.
        """
        check_is_fitted(self)
        return -self._map_rows(X, partial(self._normalised, None), "score_samples")

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log p of held-out documents, at the upper ends of the intervals of log Z.

        Scores on the same words can be compared between models of any size, however they were
        trained.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Held-out documents.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.

        Returns
        -------
        score : float
            Mean in nats per document.
        """
        _documents.need_log_partition(self, "score")
        return -float(self._map_rows(X, partial(self._normalised, 1), "score").mean())

    def perplexity(self, X: Any) -> float:
        """Return exp(-log p per word), the effective number of equally probable words.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Documents.

        Returns
        -------
        perplexity : float
            All words count equally; lower is better. 1 if there are no words.
        """
        _documents.need_log_partition(self, "perplexity")

        def both(energy: ReplicatedSoftmaxEnergy, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([self._normalised(None, energy, x), x.sum(dim=1)], dim=1)

        table = np.asarray(to_numpy(self._map_rows(X, both, "perplexity")), np.float64)
        total, n_words = table.sum(axis=0)
        return math.exp(total / n_words) if n_words else 1.0

    def sample(
        self,
        n_samples: int = 1,
        *,
        length: int | None = None,
        n_steps: int = 1000,
        random_state: RandomState = None,
    ) -> Any:
        """Draw documents, with one block Gibbs chain per document.

        Parameters
        ----------
        n_samples : int, default=1
            Number of documents.
        length : int or None, default=None
            Number of words of each document; None: the mean length of the training rows, rounded
            up.
        n_steps : int, default=1000
            Gibbs steps of every chain; draws are exact in the limit of many.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Counts, float32.
        """
        check_is_fitted(self)
        length = max(1, math.ceil(self.feature_means_.sum())) if length is None else length
        for name, value in (("n_samples", n_samples), ("length", length), ("n_steps", n_steps)):
            check_count(value, name)
        return _documents.sample_documents(
            self, n_samples, int(length), n_steps, draw_seed(random_state)
        )

    def estimate_log_partition(
        self,
        method: Literal["auto", "exact", "ais"] = "auto",
        *,
        longest: int | None = None,
        n_chains: int = 100,
        n_steps: int = 1,
        random_state: RandomState = None,
    ) -> Self:
        """Compute log Z of all lengths, which makes ``score_samples`` log probabilities.

        Parameters
        ----------
        method : {"auto", "exact", "ais"}, default="auto"
            See the parameter ``log_partition``.
        longest : int or None, default=None
            Number of words of the longest document for which log Z is annealed; None: of the
            longest seen. A machine of given parameters has seen none.
        n_chains : int, default=100
            Number of annealed chains.
        n_steps : int, default=1
            Gibbs steps of the chains at each length. More of them narrow the intervals of machines
            whose topics exclude each other.
        random_state : int, RandomState instance or None, default=None
            Seed for the chains.

        Returns
        -------
        self : object
            The estimator with log Z set.

        Raises
        ------
        ValueError
            If log Z is to be annealed, but neither ``longest`` nor ``longest_`` says how far.

        Warns
        -----
        UserWarning
            If growing and shrinking chains disagree, and for which length. The interval covers
            both.
        """
        found = _documents.estimate(self, method, longest, n_chains, n_steps, random_state)
        likelihood.keep(self, found)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        return tags
