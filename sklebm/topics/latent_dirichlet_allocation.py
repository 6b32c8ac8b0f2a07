r"""E(x, theta) = -sum_w x_w log sum_k theta_k phi_kw - log Dirichlet(theta; alpha), in nats."""

from __future__ import annotations

from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.arrays import to_numpy
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Flag, Scalar, Spec
from sklebm.base import EnergyEstimator
from sklebm.energies import DirichletTopicEnergy
from sklebm.inference.counts import count_table
from sklebm.inference.variational_topics import (
    Precision,
    document_bounds,
    geometric_mean,
    infer_shares,
)
from sklebm.iterative import Draw
from sklebm.topics._base import TopicEstimator
from sklebm.topics._dirichlet import (
    DirichletProblem,
    DirichletRun,
    given_components,
    importance,
    learn_online,
    make_problem,
)


class LatentDirichletAllocation(TopicEstimator[DirichletProblem, DirichletRun]):
    r"""Latent Dirichlet allocation: topics of documents, with priors on both, by variational Bayes.

    .. math:: E(x, \theta) = -\sum_w x_w \log \sum_{k=1}^K \theta_k \phi_{kw}
        - \log \operatorname{Dirichlet}(\theta; \alpha),

    .. math:: F(x) = -\log \int e^{-E(x, \theta)} \, d\theta = -\log p(x), \text{ in nats.}

    The topic of every token is summed over in E, and the shares :math:`\theta` of the topics in the
    document are integrated out in F. The integral has no closed form: ``free_energy`` is a
    variational upper bound on F, and ``importance_score_samples`` an estimate of -F.

    Parameters
    ----------
    n_components : int, default=10
        Number K of topics.
    doc_topic_prior : float, array-like of shape (n_components,), "auto" or None, default=None
        Concentrations alpha of the shares of topics: one for all topics or one for each. None is
        1 / K; "auto" starts there and learns one for each topic.
    topic_word_prior : float or None, default=None
        Concentration eta of the words of a topic; None is 1 / K.
    learning_method : {"batch", "online"}, default="batch"
        Whether topics are updated after all documents or after every ``batch_size`` of them.
    learning_decay : float in (0.5, 1], default=0.7
        Power by which the steps of online learning shrink.
    learning_offset : float, default=10.0
        Makes early steps of online learning smaller; at least 0.
    max_iter : int, default=100
        Maximum number of passes over the documents.
    batch_size : int, default=128
        Number of documents in a step of online learning, in the order of X.
    total_samples : float, default=1e6
        Total number of documents, of which each call of ``partial_fit`` gets a part.
    tol : float, default=1e-4
        Batch learning ends when the bound changes by less than this, in nats per token.
    mean_change_tol : float, default=1e-3
        The posterior of a document has converged when its concentrations change by less than this
        on average.
    max_doc_update_iter : int, default=100
        Maximum number of steps to that posterior.
    components_init : array-like of shape (n_components, n_features), default=None
        Positive ``components_`` to start from; None draws them.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial topics.
    verbose : int, default=0
        Whether to print a line for each pass: bound per token and seconds.
    device : str or torch.device, default="auto"
        Where to compute; "auto" is the device of X if it is a tensor, else the CPU.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features_in_)
        Concentrations lambda of the posterior of each topic: expected counts plus the prior.
        Divided by their row sums they are phi, the mean of p(word | topic).
    doc_topic_prior_ : ndarray of shape (n_components,)
        Concentrations alpha, given or learnt.
    topic_word_prior_ : float
        Concentration eta.
    converged_ : bool
        Whether batch learning ended because of ``tol``.
    n_iter_ : int
        Passes over the documents, and calls of ``partial_fit``.
    n_batch_iter_ : int
        Steps of online learning, or passes of batch learning.
    lower_bounds_ : ndarray of shape (n_iter_,)
        Bound on the log evidence per training token, before the topics change in each pass. It
        never falls in batch learning. In online learning, each document is counted when it is
        processed; in ``partial_fit``, those of the call stand for all ``total_samples``.
    n_features_in_ : int
        Size of the vocabulary.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    PLSA : The same topics without priors, by maximum likelihood.

    Notes
    -----
    The posterior [1]_ is approximated by Dirichlet distributions of the shares of each document and
    of the words of each topic, and by a distribution of the topic of each word of a document. A
    step of the posteriors of all documents takes O(nnz K) time, and a pass takes as many steps as
    they need to converge; memory is O((n + W) K) for n documents and W words. With a prior below 1,
    a document may have several local optima. Batch learning starts each document afresh in every
    pass. Where this would lower the bound, documents that fit better under their posterior from the
    pass before continue from it, so that no pass lowers the bound. Online learning follows [2]_; so
    does ``partial_fit``, which can also continue after any ``fit``, with the priors of that fit. It
    takes a step for every ``batch_size`` documents of a call, and one for the remainder. Each step
    is smaller than the one before, so that topics depend on how the documents are divided into
    calls. Learnt priors are at least 1e-3.

    Counts may be fractions, which weight words. A word that no training document holds keeps the
    concentration ``topic_word_prior_`` in every topic (in online learning, plus what is left of its
    initial concentration). A document without words has the shares of the prior, and score 0, which
    is log 1.

    References
    ----------
    .. [1] Blei, D. M., Ng, A. Y. and Jordan, M. I., "Latent Dirichlet allocation", *JMLR* 3, 2003.
    .. [2] Hoffman, M. D., Blei, D. M. and Bach, F., "Online learning for latent Dirichlet
       allocation", *NIPS* 23, 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import LatentDirichletAllocation
    >>> X = np.array([[4, 5, 3, 0, 0, 0], [0, 0, 0, 3, 4, 3], [2, 3, 2, 3, 2, 2]])
    >>> model = LatentDirichletAllocation(n_components=2, random_state=0).fit(X)
    >>> print(np.sort(model.transform(X), axis=1).round(2))
    [[0.04 0.96]
     [0.05 0.95]
     [0.5  0.5 ]]
    >>> bound, estimate = model.score_samples(X), model.importance_score_samples(X, random_state=0)
    >>> bool((bound <= estimate).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "device": EnergyEstimator._parameter_constraints["device"],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "doc_topic_prior": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"auto"}),
            "array-like",
            None,
        ],
        "topic_word_prior": [Interval(Real, 0, None, closed="neither"), None],
        "learning_method": [StrOptions({"batch", "online"})],
        "learning_decay": [Interval(Real, 0.5, 1, closed="right")],
        "learning_offset": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "total_samples": [Interval(Real, 0, None, closed="neither")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "mean_change_tol": [Interval(Real, 0, None, closed="left")],
        "max_doc_update_iter": [Interval(Integral, 1, None, closed="left")],
        "components_init": ["array-like", None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_components: int = 10,
        *,
        doc_topic_prior: Any = None,
        topic_word_prior: float | None = None,
        learning_method: Literal["batch", "online"] = "batch",
        learning_decay: float = 0.7,
        learning_offset: float = 10.0,
        max_iter: int = 100,
        batch_size: int = 128,
        total_samples: float = 1e6,
        tol: float = 1e-4,
        mean_change_tol: float = 1e-3,
        max_doc_update_iter: int = 100,
        components_init: Any = None,
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
    ) -> None:
        self.n_components = n_components
        self.doc_topic_prior = doc_topic_prior
        self.topic_word_prior = topic_word_prior
        self.learning_method = learning_method
        self.learning_decay = learning_decay
        self.learning_offset = learning_offset
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.total_samples = total_samples
        self.tol = tol
        self.mean_change_tol = mean_change_tol
        self.max_doc_update_iter = max_doc_update_iter
        self.components_init = components_init
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    # ------------------------------------------------------------------ learning

    def _prepare(self, rows: Rows, **data: Any) -> DirichletProblem:
        given_components(self, rows.shape[1])
        return make_problem(self, rows, len(rows))

    def _start(self, problem: DirichletProblem, draw: Draw) -> DirichletRun:
        first = given_components(self, problem.counts.shape[1])
        return problem.start(first, self.n_components, draw("topics"))

    def _partial_fit(self, rows: Rows, progress: Any, **data: Any) -> dict[str, Any]:
        return learn_online(self, rows, partial(make_generator, draw_seed(self.random_state)))

    def _step(self, problem: DirichletProblem, run: DirichletRun) -> DirichletRun:
        return problem.step(run, self.tol)

    def _advice(self) -> str:
        # Online learning is given its number of passes.
        return super()._advice() if self.learning_method == "batch" else ""

    def _state_spec(self) -> Spec:
        return {
            "components_": Array("f", ("n_components", "n_features_in_"), of="components"),
            "doc_topic_prior_": Array("f", ("n_components",), of="prior"),
            "topic_word_prior_": Scalar(float, 0.0),
            "converged_": Flag(),
            "n_iter_": Scalar(int, 0),
            "n_batch_iter_": Scalar(int, 0),
            "lower_bounds_": Array("f", (None,)),
        }

    # ------------------------------------------------------------------ what it answers

    def _rebuild(self, parameters: dict[str, Tensor]) -> DirichletTopicEnergy:
        return DirichletTopicEnergy(parameters["components_"], parameters["doc_topic_prior_"])

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        eta = self.topic_word_prior
        return {
            "topic_word_prior_": 1.0 / len(given["components_"]) if eta is None else float(eta),
            "converged_": False,
            "n_iter_": 0,
            "n_batch_iter_": 0,
            "lower_bounds_": np.empty(0),
        }

    def _posterior(self, energy: DirichletTopicEnergy, x: Tensor) -> tuple[Tensor, Tensor]:
        """Concentrations of the shares of each document, and its bound."""
        counts, prior = count_table(x), energy.prior
        topics = geometric_mean(energy.components, dim=1).T.contiguous()
        start = torch.ones(len(x), len(prior), dtype=topics.dtype, device=x.device)
        precision = Precision(self.mean_change_tol, self.max_doc_update_iter)
        gamma = infer_shares(counts, start, prior, topics, precision)
        return gamma, document_bounds(counts, gamma, prior, topics)

    def _shares(self, energy: DirichletTopicEnergy, x: Tensor) -> Tensor:
        gamma = self._posterior(energy, x)[0]
        return gamma / gamma.sum(dim=1, keepdim=True)

    def _bounds(self, energy: DirichletTopicEnergy, x: Tensor) -> Tensor:
        return self._posterior(energy, x)[1]

    def transform(self, X: Any) -> Any:
        """Return the topics of each document: the mean of the posterior of its shares.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Counts of words.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components)
            E p(topic | document); each row sums to one.
        """
        return self._map_rows(X, self._shares, "transform")

    def inverse_transform(self, Z: Any) -> Any:
        """Return p(word | document) for given shares of topics.

        Parameters
        ----------
        Z : array-like or tensor of shape (n_samples, n_components)
            Shares of topics.

        Returns
        -------
        X : array or tensor of shape (n_samples, n_features)
            p(word | document) under the mean of each topic; each row sums to one.
        """
        return self._map_rows(
            Z, lambda energy, z: z @ energy.topics(), "inverse_transform", latents=True
        )

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, theta) = -log p(x, theta), with the topics at their means.

        The topic of each token is summed over; the shares are those given.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Counts of words.
        Z : array-like or tensor of shape (n_samples, n_components)
            Shares theta of the topics; each row sums to one. Shares below 1e-100 are raised to
            1e-100.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In nats.
        """
        return self._pair_energies(X, Z)

    def free_energy(self, X: Any) -> Any:
        """Return an upper bound on F(x) = -log p(x), with the shares of topics integrated out.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Counts of words.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            Minus the evidence lower bound of each document, in nats.
        """
        return -self._map_rows(X, self._bounds, "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return a lower bound on the log probability of each document, as a sequence of words.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Counts of words.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            Evidence lower bounds in nats, at the posterior of the topics; they are also below log
            p(x) with the topics at their means. Longer documents have lower scores.
        """
        return self._map_rows(X, self._bounds, "score_samples")

    def importance_score_samples(
        self, X: Any, *, n_samples: int = 200, random_state: RandomState = None
    ) -> Any:
        """Estimate the log probability of each document by importance sampling over its shares.

        Half of the proposals come from the prior and half from the variational posterior, so that
        no weight is larger than twice the likelihood.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Counts of words.
        n_samples : int, default=200
            Proposals for each document, rounded up to an even number.
        random_state : int, RandomState instance or None, default=None
            Seed; with the same seed, the draws for a document do not depend on the other documents.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            log p(x) in nats, with the topics at their means. Its exponential is unbiased.
        """
        return self._importance(X, n_samples, random_state, "importance_score_samples")[..., 0]

    def _importance(self, X: Any, n_samples: int, random_state: RandomState, what: str) -> Any:
        """Estimates and their standard errors, (n_documents, 2)."""
        if not isinstance(n_samples, Integral) or n_samples < 4:
            raise ValueError(f"n_samples={n_samples!r} must be an integer of at least 4.")
        seed = draw_seed(random_state)

        def estimate(energy: DirichletTopicEnergy, x: Tensor) -> Tensor:
            return importance(energy, x, self._posterior(energy, x)[0], int(n_samples), seed)

        return self._map_rows(X, estimate, what)

    def perplexity(
        self,
        X: Any,
        *,
        given: Any = None,
        method: Literal["bound", "importance"] = "bound",
        n_samples: int = 200,
        random_state: RandomState = None,
    ) -> float:
        """Return exp(-log likelihood per token), the effective number of equally probable words.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Documents.
        given : array-like, tensor or csr matrix of shape (n_samples, n_features), default=None
            Other words of the same documents: X is then scored under the mean shares that these
            imply, in closed form, as ``PLSA.perplexity`` does. None scores X under the prior of the
            shares.
        method : {"bound", "importance"}, default="bound"
            Without ``given``: by ``score_samples``, which overestimates the perplexity, or by
            ``importance_score_samples``.
        n_samples : int, default=200
            As in ``importance_score_samples``.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws of shares.

        Returns
        -------
        perplexity : float
            All tokens count equally; lower is better. 1 if there is no token.
        """
        if method not in ("bound", "importance"):
            raise ValueError(f"method={method!r} must be 'bound' or 'importance'.")
        if given is not None:
            return super().perplexity(X, given=given)
        if method == "bound":
            scores = self.score_samples(X)
        else:
            scores = self.importance_score_samples(
                X, n_samples=n_samples, random_state=random_state
            )
        tokens = self._map_rows(X, lambda _, x: x.sum(dim=1), "perplexity")
        total = float(np.asarray(to_numpy(tokens), np.float64).sum())
        return float(np.exp(-np.asarray(to_numpy(scores), np.float64).sum() / (total or 1.0)))

    def _score_and_tokens(self, energy: DirichletTopicEnergy, x: Tensor, given: Tensor) -> Tensor:
        words, tokens = self._shares(energy, given) @ energy.topics(), x.sum(dim=1)
        scores = (x * words.log()).sum(dim=1) / torch.where(tokens > 0, tokens, 1.0)
        return torch.stack([scores, tokens], dim=1)
