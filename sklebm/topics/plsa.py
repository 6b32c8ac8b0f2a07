r"""E(x, theta) = -1/n sum_w x_w log sum_k theta_k p(w | k); F(x) = min_theta E(x, theta)."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Flag, Scalar, Spec
from sklebm.base import EnergyEstimator
from sklebm.energies import TopicEnergy
from sklebm.inference.counts import Counts, count_table
from sklebm.inference.topic_em import em_step, fold_in
from sklebm.iterative import Draw
from sklebm.topics._base import TopicEstimator, read_counts

# What beta="auto" tries, and the share of the non-zeros that it holds out.
BETAS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6)
_HELD_OUT = 0.1


class PLSARun(NamedTuple):
    """A run of EM: p(topic | document), p(word | topic), and -F_beta per token at every step."""

    theta: Tensor
    phi: Tensor
    beta: float
    bounds: tuple[float, ...] = ()
    settled: bool = False

    def step(self, counts: Counts, tol: float) -> PLSARun:
        """One step of EM; settled if the bound changed by less than ``tol`` nats per token."""
        theta, phi, bound = em_step(counts, self.theta, self.phi, self.beta)
        settled = bool(self.bounds) and abs(bound - self.bounds[-1]) < tol
        return PLSARun(theta, phi, self.beta, (*self.bounds, bound), settled)


class PLSAProblem(NamedTuple):
    """The non-zeros of all documents."""

    counts: Counts

    def report(self, run: PLSARun) -> dict[str, float]:
        """The objective before the last step."""
        return {"lower_bound": run.bounds[-1]}

    def state(self, run: PLSARun, n_iter: int) -> dict[str, Any]:
        """Every fitted attribute after a run."""
        tokens = self.counts.tokens()
        weights = tokens @ run.theta if float(tokens.sum()) > 0 else run.theta.sum(dim=0)
        weights = weights / weights.sum()
        return {
            "components_": run.phi.T.contiguous().cpu().numpy().copy(),
            "topic_weights_": weights.cpu().numpy().copy(),
            "beta_": run.beta,
            "converged_": run.settled,
            "n_iter_": n_iter,
            "lower_bounds_": np.asarray(run.bounds),
        }


class PLSA(TopicEstimator[PLSAProblem, PLSARun]):
    r"""Probabilistic latent semantic analysis: each document is a mixture of topics.

    .. math:: E(x, \theta) = -\frac{1}{n} \sum_w x_w \log \sum_{k=1}^K \theta_k\, p(w \mid k),
        \qquad n = \sum_w x_w,

    .. math:: F(x) = \min_\theta E(x, \theta), \text{ in nats per token.}

    The topic of every token is summed over. The latent is :math:`\theta`, the shares of the topics
    in the document; it is minimised over, which is called folding-in.

    Parameters
    ----------
    n_components : int, default=10
        Number K of topics.
    beta : float in (0, 1] or "auto", default=1.0
        Inverse temperature of tempered EM. 1 maximises the likelihood; less than 1 makes the
        posteriors of topics softer, against overfitting. "auto" holds out a tenth of the non-zeros,
        fits at each of 1, .95, .9, .85, .8, .7 and .6, takes the value under which the held-out
        words are most probable, and fits again with all words.
    max_iter : int, default=200
        Maximum number of steps of EM.
    tol : float, default=1e-5
        EM ends when its objective changes by less than this, in nats per token.
    fold_in_iter : int, default=1000
        Maximum number of steps of folding-in, for each document.
    fold_in_tol : float, default=1e-6
        Folding-in of a document ends when its energy is at most this far above the minimum, in nats
        per token, as bounded by a duality gap.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial topics, and of the words that ``beta="auto"`` holds out.
    verbose : int, default=0
        Whether to print a line for each step of EM: the objective and seconds.
    device : str or torch.device, default="auto"
        Where to compute; "auto" is the device of X if it is a tensor, else the CPU.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features_in_)
        p(word | topic); each row sums to one.
    topic_weights_ : ndarray of shape (n_components,)
        p(topic) in the training documents.
    beta_ : float
        Inverse temperature of the fit.
    converged_ : bool
        Whether EM ended because of ``tol``.
    n_iter_ : int
        Steps of EM.
    lower_bounds_ : ndarray of shape (n_iter_,)
        Minus the tempered free energy per token, before every step: with ``beta=1`` the log
        likelihood of a training token. It never falls.
    n_features_in_ : int
        Size of the vocabulary.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    LatentDirichletAllocation : Topics with priors, and log probabilities of documents.
    SparseCoder : Codes of rows that are sums of parts, not counts.

    Notes
    -----
    With :math:`\phi_{kw} = p(w \mid k)`, tempered EM [1]_ lowers
    :math:`-\frac{1}{\beta} \sum_{dw} x_{dw} \log \sum_k (\theta_{dk} \phi_{kw})^\beta`. With
    ``beta=1``, it has the fixed points of non-negative matrix factorisation with the
    Kullback-Leibler divergence. A step takes O(nnz K) time for nnz non-zeros, and O((n + W) K)
    memory for n documents and W words. Folding-in is a convex problem for each document, and does
    not depend on other documents.

    Counts may be fractions, which weight words; multiplying a document by a number changes none of
    its results. A word that no training document holds is ignored everywhere. A document without
    words has the shares ``topic_weights_`` and the energy and score 0; if all training documents
    are empty, every word is as probable as any other.

    The training likelihood rises with K. Compare numbers of topics by ``perplexity(X, given=...)``
    on words that the folding-in has not seen.

    References
    ----------
    .. [1] Hofmann, T., "Unsupervised learning by probabilistic latent semantic analysis",
       *Machine Learning* 42, 2001.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import PLSA
    >>> X = np.array([[4, 5, 3, 0, 0, 0], [0, 0, 0, 3, 4, 3], [2, 3, 2, 3, 2, 2]])
    >>> model = PLSA(n_components=2, random_state=0).fit(X)
    >>> shares = model.transform(X)
    >>> print(np.sort(shares, axis=1).round(2))
    [[0.  1. ]
     [0.  1. ]
     [0.5 0.5]]
    >>> print(f"{model.perplexity(X):.1f} words to choose from, of {X.shape[1]}")
    3.9 words to choose from, of 6
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "device": EnergyEstimator._parameter_constraints["device"],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "beta": [Interval(Real, 0, 1, closed="right"), StrOptions({"auto"})],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "fold_in_iter": [Interval(Integral, 1, None, closed="left")],
        "fold_in_tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_components: int = 10,
        *,
        beta: float | Literal["auto"] = 1.0,
        max_iter: int = 200,
        tol: float = 1e-5,
        fold_in_iter: int = 1000,
        fold_in_tol: float = 1e-6,
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
    ) -> None:
        self.n_components = n_components
        self.beta = beta
        self.max_iter = max_iter
        self.tol = tol
        self.fold_in_iter = fold_in_iter
        self.fold_in_tol = fold_in_tol
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    # ------------------------------------------------------------------ learning

    def _prepare(self, rows: Rows, **data: Any) -> PLSAProblem:
        counts = read_counts(rows)
        # In units of the largest, which change no step: sums do not overflow.
        largest = float(counts.values.max()) if len(counts.values) else 1.0
        return PLSAProblem(counts._replace(values=counts.values / largest))

    def _start(self, problem: PLSAProblem, draw: Draw) -> PLSARun:
        beta = self.beta
        if beta == "auto":
            beta = self._chosen_beta(problem.counts, draw)
        return self._first_topics(problem.counts, draw, float(beta))

    def _step(self, problem: PLSAProblem, run: PLSARun) -> PLSARun:
        return run.step(problem.counts, self.tol)

    def _first_topics(self, counts: Counts, draw: Draw, beta: float) -> PLSARun:
        """Topics that are random weights of the words of the corpus, in equal shares."""
        (n_documents, n_words), values = counts.shape, counts.values
        uniform = torch.rand(
            n_words, self.n_components, generator=draw("topics"), dtype=torch.float64
        )
        frequencies = values.new_zeros(n_words).index_add_(0, counts.words, values)
        if not len(values):
            frequencies, uniform = frequencies + 1.0, torch.ones_like(uniform)
        # Weights from 1/2 to 3/2: topics that differ, and none that a word is lost to.
        phi = frequencies[:, None] * (0.5 + uniform).to(values.device)
        theta = values.new_full((n_documents, self.n_components), 1.0 / self.n_components)
        return PLSARun(theta, phi / phi.sum(dim=0), beta)

    def _chosen_beta(self, counts: Counts, draw: Draw) -> float:
        """The inverse temperature under which held-out words are most probable."""
        uniform = torch.rand(len(counts.values), generator=draw("held out"), dtype=torch.float64)
        held_out = (uniform < _HELD_OUT).to(counts.values.device)
        kept = counts.where(~held_out)
        # Only words and documents that are still there can be predicted.
        known = torch.zeros(counts.shape[1], dtype=torch.bool, device=held_out.device)
        known[kept.words] = True
        test = counts.where(held_out & known[counts.words] & (kept.tokens() > 0)[counts.documents])
        if not len(test.values):
            return 1.0
        scores = []
        for beta in BETAS:
            run = self._first_topics(kept, draw, beta)
            while len(run.bounds) < self.max_iter and not run.settled:
                run = run.step(kept, self.tol)
            scores.append(float(test.values @ test.reconstruct(run.theta, run.phi).log()))
        return BETAS[int(np.argmax(scores))]

    def _state_spec(self) -> Spec:
        return {
            "components_": Array("f", ("n_components", "n_features_in_"), of="components"),
            "topic_weights_": Array("f", ("n_components",), of="topic_weights"),
            "beta_": Scalar(float, 0.0),
            "converged_": Flag(),
            "n_iter_": Scalar(int, 0),
            "lower_bounds_": Array("f", (None,)),
        }

    # ------------------------------------------------------------------ what it answers

    def _rebuild(self, parameters: dict[str, torch.Tensor]) -> TopicEnergy:
        return TopicEnergy(parameters["components_"], parameters["topic_weights_"])

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        beta = 1.0 if self.beta == "auto" else float(self.beta)
        return {"beta_": beta, "converged_": False, "n_iter_": 0, "lower_bounds_": np.empty(0)}

    def _shares(self, energy: TopicEnergy, x: Tensor) -> Tensor:
        """p(topic | document), by folding-in."""
        counts, phi = count_table(energy.known(x)), energy.components.T.contiguous()
        tol, max_iter = self.fold_in_tol, self.fold_in_iter
        return fold_in(counts, energy.topic_weights, phi, self.beta_, tol, max_iter)

    def _free_energies(self, energy: TopicEnergy, x: Tensor) -> Tensor:
        return energy.energy(x, self._shares(energy, x))

    def _score_and_tokens(self, energy: TopicEnergy, x: Tensor, given: Tensor) -> Tensor:
        score = -energy.energy(x, self._shares(energy, given))
        return torch.stack([score, energy.tokens(x)], dim=1)

    def transform(self, X: Any) -> Any:
        """Return the topics of each document, by folding-in with ``beta_``.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Counts of words.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components)
            p(topic | document); each row sums to one.
        """
        return self._map_rows(X, self._shares, "transform")

    def inverse_transform(self, Z: Any) -> Any:
        """Return p(word | document) for given shares of topics.

        Parameters
        ----------
        Z : array-like or tensor of shape (n_samples, n_components)
            Shares of topics, such as ``transform`` gives.

        Returns
        -------
        X : array or tensor of shape (n_samples, n_features)
            p(word | document); each row sums to one.
        """
        return self._map_rows(
            Z, lambda energy, z: z @ energy.components, "inverse_transform", latents=True
        )

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, theta): minus the log likelihood of a token of x, for given shares of topics.

        The topic of each token is summed over; the shares are those given.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Counts of words.
        Z : array-like or tensor of shape (n_samples, n_components)
            Shares theta of the topics; each row sums to one.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In nats per token. At most 230, the energy of a word of probability zero.
        """
        return self._pair_energies(X, Z)

    def free_energy(self, X: Any) -> Any:
        """Return F(x): the energy at the shares of topics that folding-in finds.

        The topic of each token is summed over. With ``beta_`` 1, the shares are those of lowest
        energy; with less, those of lowest tempered energy.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Counts of words.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In nats per token.
        """
        return self._map_rows(X, self._free_energies, "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return the log likelihood of each document per token, at its own topics.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Counts of words.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            Minus the free energy, in nats per token; 0 for a document without known words. Their
            mean is ``score``, in which all documents count equally.
        """
        return self._map_rows(X, lambda e, x: -self._free_energies(e, x), "score_samples")
