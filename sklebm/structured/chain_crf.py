r"""p(y | x) = exp(sum_t s_{y_t}(x_t) + sum_t T(y_{t-1}, y_t)) / Z(x): labels of whole sequences."""

from __future__ import annotations

from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.labels import decode, encode, read_labels, weigh
from sklebm._shell.private import Interval, StrOptions, fit_context
from sklebm._shell.progress import Progress
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Scalar, Spec
from sklebm._shell.warning import warn
from sklebm.energies.linear_scores import LinearScores
from sklebm.inference import linear_chain
from sklebm.inference.chain_learning import (
    LOSSES,
    chain_problem,
    minimize_batch,
    minimize_stochastic,
)
from sklebm.structured._base import StructuredClassifier
from sklebm.structured._chains import Watch, need_allowed, need_labelling, read_allowed, sequences


class ChainCRF(StructuredClassifier):
    r"""Classifier of the steps of sequences: a linear-chain conditional random field.

    .. math:: -E(y \mid x) = \sum_t s_{y_t}(x_t) + \sum_{t > 1} T(y_{t-1}, y_t), \qquad
              p(y \mid x) = \frac{e^{-E(y \mid x)}}{Z(x)}, \qquad s_k(x) = w_k^\top x + b_k

    with one weight vector for each label and a score for each transition between labels [1]_. A
    row of X is one step; ``groups`` says which rows form a sequence, in their order.

    ``fit`` minimises

    .. math:: \sum_i \ell_i + \frac{1}{C} \left( \rho |\theta|_1
              + \frac{1 - \rho}{2} \|\theta\|^2 \right), \qquad \theta = (w, T),

    with a loss :math:`\ell_i` for each sequence and :math:`\rho` = ``l1_ratio``. The penalty
    measures each feature in units of its range in the training rows, so that features that are 0 or
    1 are used as they are; intercepts are not penalised. For sequences of one step this is logistic
    regression.

    Parameters
    ----------
    loss : {"nll", "perceptron", "hinge"}, default="nll"
        "nll": :math:`-\log p(y \mid x)`, convex. "perceptron": E(y) minus the lowest energy, by
        averaged steps of size one without a penalty [2]_. "hinge": the same with a margin of one
        for each wrong label, as in a structured support vector machine [3]_.
    C : float, default=1.0
        Inverse strength of the penalty, as in scikit-learn's ``LogisticRegression``.
    l1_ratio : float, default=0.0
        Share of L1 in the penalty, from 0 to 1. With L1, many weights become exactly zero.
    solver : {"auto", "lbfgs", "sgd"}, default="auto"
        "lbfgs": quasi-Newton steps on all sequences, for "nll" only; l1 is handled by bounds on
        positive and negative parts. "sgd": averaged proximal AdaGrad on a few sequences at a time
        (the last iterate instead of the average with l1). "auto": "lbfgs" for "nll", otherwise
        "sgd".
    feature_weights : {"all", "observed"}, default="all"
        "observed": only pairs of a feature and a label that occur together in the training rows
        have a weight, others stay at 0. With many sparse features, such as words, this saves most
        of the memory and of the time.
    allowed : array-like of bool of shape (n_classes, n_classes) or None, default=None
        ``allowed[i][j]`` says whether ``classes_[j]`` may follow ``classes_[i]``. None allows all.
    decoding : {"auto", "marginal", "viterbi"}, default="auto"
        What ``predict`` returns. "marginal": the most probable label of each step, where
        ``predict_proba`` is largest; this minimises the expected number of errors. "viterbi": the
        labels of lowest energy, the jointly most probable sequence. "auto": "viterbi" with
        ``allowed``, because labels chosen step by step may not fit together, otherwise "marginal".
    class_weight : dict, "balanced" or None, default=None
        Weights by label. "nll" multiplies each term :math:`\log p(y_t \mid y_1 \dots y_{t-1}, x)`
        by the weight of :math:`y_t`; the other losses weight the scores of step t. With unequal
        weights "nll" is no longer convex.
    max_iter : int, default=200
        Maximum number of iterations of "lbfgs", or of passes of "sgd".
    tol : float, default=1e-6
        "lbfgs" stops when the objective has fallen by less than this fraction over ten iterations,
        "sgd" when it has not fallen by this fraction in five passes and fifty steps.
    learning_rate : float, default=0.1
        Step size of "sgd", for "nll" and "hinge".
    batch_size : int, default=8
        Number of sequences in a step of "sgd".
    random_state : int, RandomState instance or None, default=None
        Seed for the order of sequences in "sgd".
    verbose : int, default=0
        If positive, print the objective after each iteration.
    device : str or torch.device, default="auto"
        Where scores of labels are computed; learning and the recursions over labels are compiled
        and run on the CPU. "auto": the device of X if X is a tensor, otherwise the CPU.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels in ascending order.
    coef_ : ndarray of shape (n_classes, n_features_in_)
        Weights w, in units of X.
    intercept_ : ndarray of shape (n_classes,)
        Intercepts b.
    transitions_ : ndarray of shape (n_classes, n_classes)
        T, from the label in the row to the one in the column; 0 where a transition is not allowed.
    allowed_ : ndarray of shape (n_classes, n_classes) or None
        The transitions that are allowed; None if all are.
    objective_ : float
        What ``fit`` minimised, at the fitted parameters, in nats.
    n_iter_ : int
        Number of iterations or passes.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    window_features : Features of the steps before and after, as dictionaries.
    sklearn.linear_model.LogisticRegression : The same for rows without an order.

    Notes
    -----
    All methods take ``groups``: pass it to searches by metadata routing,
    ``set_fit_request(groups=True)`` and ``set_score_request(groups=True)``. Without ``groups`` all
    rows are one sequence. Rows of a group need not be adjacent. There is no ``sample_weight`` in
    ``fit``: a repeated row is another step of its sequence.

    Row-wise results add up over a sequence: ``score_samples`` to log Z(x), ``energy`` to E(y | x),
    ``conditional_log_density`` to log p(y | x).

    Cost: O(n (f + K^2)) per iteration, with f weights that apply to a row and K labels. Sequences
    are distributed over torch's threads, and results do not depend on their number.

    References
    ----------
    .. [1] J. Lafferty, A. McCallum and F. Pereira, "Conditional random fields: probabilistic models
       for segmenting and labeling sequence data", ICML 2001.
    .. [2] M. Collins, "Discriminative training methods for hidden Markov models", EMNLP 2002.
    .. [3] B. Taskar, C. Guestrin and D. Koller, "Max-margin Markov networks", NIPS 2003.

    Examples
    --------
    >>> from sklearn.feature_extraction import DictVectorizer
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklebm import ChainCRF, window_features
    >>> words = "the dog barks . a dog sees the cat .".split()
    >>> tags = ["D", "N", "V", ".", "D", "N", "V", "D", "N", "."]
    >>> sentences = [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    >>> steps = window_features([{"word": word} for word in words], sentences, window=1)
    >>> model = make_pipeline(DictVectorizer(), ChainCRF())
    >>> model = model.fit(steps, tags, chaincrf__groups=sentences)
    >>> new = window_features([{"word": word} for word in "the cat barks .".split()], window=1)
    >>> model.predict(new).tolist()
    ['D', 'N', 'V', '.']
    """

    _layout = "step"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "device": StructuredClassifier._parameter_constraints["device"],
        "loss": [StrOptions(set(LOSSES))],
        "C": [Interval(Real, 0, None, closed="neither")],
        "l1_ratio": [Interval(Real, 0, 1, closed="both")],
        "solver": [StrOptions({"auto", "lbfgs", "sgd"})],
        "feature_weights": [StrOptions({"all", "observed"})],
        "allowed": ["array-like", None],
        "decoding": [StrOptions({"auto", "marginal", "viterbi"})],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    allowed_: NDArray[np.bool_] | None
    objective_: float | None
    n_iter_: int

    def __init__(
        self,
        *,
        loss: Literal["nll", "perceptron", "hinge"] = "nll",
        C: float = 1.0,
        l1_ratio: float = 0.0,
        solver: Literal["auto", "lbfgs", "sgd"] = "auto",
        feature_weights: Literal["all", "observed"] = "all",
        allowed: Any = None,
        decoding: Literal["auto", "marginal", "viterbi"] = "auto",
        class_weight: Any = None,
        max_iter: int = 200,
        tol: float = 1e-6,
        learning_rate: float = 0.1,
        batch_size: int = 8,
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
    ) -> None:
        self.loss = loss
        self.C = C
        self.l1_ratio = l1_ratio
        self.solver = solver
        self.feature_weights = feature_weights
        self.allowed = allowed
        self.decoding = decoding
        self.class_weight = class_weight
        self.max_iter = max_iter
        self.tol = tol
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    # ------------------------------------------------------------------ learning

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Learn to label the steps of sequences.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Steps of all sequences, one per row.
        y : array-like of shape (n_samples,)
            Label of each step: integers, booleans or strings.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each row. None: all rows are one sequence.

        Returns
        -------
        self : object
            The fitted estimator. It is left unchanged by an exception or an interrupt.
        """
        labels = read_labels(y, type(self).__name__)
        classes = np.unique(labels)
        codes = encode(labels, classes, type(self).__name__)
        weight = weigh(None, self.class_weight, labels, classes)
        columns = {"target": codes, "weight": weight, "groups": groups}
        return self._learn(X, self._fit, columns=columns, classes=classes)

    def _max_steps(self, rows: Rows) -> int:
        return int(self.max_iter)

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        classes, solver = data["classes"], self._solver()
        order, starts = sequences(rows)
        x = rows.source if scipy.sparse.issparse(rows.source) else rows.to_numpy()
        codes = rows.columns["target"].cpu().numpy()[order]
        weight = rows.columns.get("weight")
        allowed = read_allowed(self.allowed, classes)
        need_allowed(allowed, codes, starts, order, classes)
        problem = chain_problem(
            x[order],
            codes,
            starts,
            np.ones((len(classes),) * 2, np.bool_) if allowed is None else allowed,
            weights=np.ones(len(codes)) if weight is None else weight.cpu().numpy()[order],
            loss=self.loss,
            strength=0.0 if self.loss == "perceptron" else 1.0 / self.C,
            l1_ratio=float(self.l1_ratio),
            observed=self.feature_weights == "observed",
        )

        def state(theta: Any, objective: float, n_iter: int) -> dict[str, Any]:
            names = ("coef_", "intercept_", "transitions_")
            values = dict(zip(names, problem.parameters(theta), strict=True))
            counts = {"objective_": float(objective), "n_iter_": n_iter}
            return {"classes_": classes, **values, "allowed_": allowed, **counts}

        watch = Watch(progress, state)
        if solver == "lbfgs":
            run: Any = partial(minimize_batch, problem)
        else:
            seed = draw_seed(self.random_state)
            run = partial(
                minimize_stochastic,
                problem,
                batch_size=int(self.batch_size),
                learning_rate=float(self.learning_rate),
                generator=make_generator(seed, "batches"),
            )
        theta, objective, n_iter, settled = run(
            max_iter=int(self.max_iter), tol=float(self.tol), begin=watch.begin, report=watch.end
        )
        watch.close(theta, objective)
        if not settled and not progress.stopped:
            warn(
                f"ChainCRF did not converge in max_iter={self.max_iter} iterations: increase "
                "max_iter or tol.",
                ConvergenceWarning,
            )
        return state(theta, objective, n_iter)

    def _solver(self) -> str:
        if self.loss == "perceptron" and self.l1_ratio > 0:
            raise ValueError(
                f'loss="perceptron" has no penalty, but l1_ratio={self.l1_ratio}: leave it at 0, '
                'or choose loss="nll" or "hinge".'
            )
        if self.solver == "auto":
            return "lbfgs" if self.loss == "nll" else "sgd"
        if self.solver == "lbfgs" and self.loss != "nll":
            raise ValueError(
                f'solver="lbfgs" needs a smooth loss, and loss={self.loss!r} is none: choose '
                'solver="sgd", or loss="nll".'
            )
        return self.solver

    def _state_spec(self) -> Spec:
        return {
            **super()._state_spec(),
            "transitions_": Array("f", (None, None), of="transitions"),
            "allowed_": Array("b", (None, None), optional=True),
            "objective_": Scalar(float, optional=True),
            "n_iter_": Scalar(int, 0),
        }

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        allowed = read_allowed(self.allowed, np.asarray(given["classes_"]))
        return {"n_iter_": 0, "objective_": None, "allowed_": allowed}

    def _rebuild(self, parameters: dict[str, torch.Tensor]) -> LinearScores:
        allowed = None if self.allowed_ is None else torch.from_numpy(self.allowed_)
        return LinearScores(
            parameters["coef_"], parameters["intercept_"], parameters["transitions_"], allowed
        )

    # ------------------------------------------------------------------ answers

    def _chains(self, X: Any, groups: Any, what: str, function: Any, y: Any = None) -> Any:
        """``function(scores, transitions, starts)``, and labels if given, in the order of rows."""

        def answer(rows: Rows, scores: Any, energy: Any) -> Any:
            order, starts = sequences(rows)
            need_labelling(self.allowed_, starts)
            labels = () if y is None else (self._codes(y, len(rows))[order],)
            transitions = energy.transition_scores().cpu().numpy()
            found = function(scores[order], transitions, starts, *labels)
            if what == "predict_log_proba" and rows.dtype is torch.float32:
                with np.errstate(divide="ignore"):  # so that the two agree to the last digit
                    found = np.log(np.exp(found).astype(np.float32))
            back = np.empty_like(found)
            back[order] = found
            return back

        return self._answer(X, what, answer, groups=groups)

    def predict(self, X: Any, groups: Any = None) -> Any:
        """Return the label of each step, as ``decoding`` says.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Steps.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each row. None: all rows are one sequence.

        Returns
        -------
        y : ndarray or tensor of shape (n_samples,)
            Labels; a tensor if X is one and the labels are numbers.
        """
        function: Any = linear_chain.best_labels
        if self.decoding == "marginal" or (self.decoding == "auto" and self._all_allowed()):
            function = linear_chain.likely_labels
        return decode(self._chains(X, groups, "predict", function), self.classes_)

    def _all_allowed(self) -> bool:
        check_is_fitted(self)
        return self.allowed_ is None

    def predict_proba(self, X: Any, groups: Any = None) -> Any:
        """Return the marginal probability of each label at each step.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Steps.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each row. None: all rows are one sequence.

        Returns
        -------
        probabilities : array or tensor of shape (n_samples, n_classes)
            p(y_t = k | x), given the whole sequence x; rows sum to 1.
        """
        return self._marginals(X, groups, "predict_proba")

    def _marginals(self, X: Any, groups: Any, what: str) -> Any:
        return self._chains(X, groups, what, lambda *a: np.exp(linear_chain.log_marginals(*a)))

    def predict_log_proba(self, X: Any, groups: Any = None) -> Any:
        """Return the logarithm of ``predict_proba``.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Steps.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each row. None: all rows are one sequence.

        Returns
        -------
        log_probabilities : array or tensor of shape (n_samples, n_classes)
            In nats, accurate for small probabilities too if X is in double precision; -inf for
            labels that ``allowed`` rules out.
        """
        return self._chains(X, groups, "predict_log_proba", linear_chain.log_marginals)

    def transform(self, X: Any, groups: Any = None) -> Any:
        """Return the marginal probabilities of the labels, the latent variables of the rows.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Steps.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each row. None: all rows are one sequence.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_classes)
            ``predict_proba(X, groups)``, with the container that ``set_output`` asks for.
        """
        return self._marginals(X, groups, "transform")

    def fit_transform(self, X: Any, y: Any, groups: Any = None) -> Any:
        """Fit, and return the marginal probabilities of the same rows.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Steps.
        y : array-like of shape (n_samples,)
            Label of each step.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each row. None: all rows are one sequence.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_classes)
            What ``transform(X, groups)`` returns.
        """
        return self.fit(X, y, groups).transform(X, groups)

    def energy(self, X: Any, y: Any, groups: Any = None) -> Any:
        """Return what each step adds to the energy of given labels.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Steps.
        y : array-like of shape (n_samples,)
            Label of each step.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each row. None: all rows are one sequence.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            Minus the score of the label and of the transition into it, in nats; adds up to
            E(y | x) over a sequence, and is inf where a transition is not allowed.
        """
        return self._chains(X, groups, "energy", linear_chain.path_energies, y)

    def conditional_log_density(self, X: Any, y: Any, groups: Any = None) -> Any:
        """Return the log probability of each label, given the labels before it and all of x.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Steps.
        y : array-like of shape (n_samples,)
            Label of each step.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each row. None: all rows are one sequence.

        Returns
        -------
        log_density : array or tensor of shape (n_samples,)
            In nats; adds up to log p(y | x) over a sequence, and is -inf from a transition that is
            not allowed.
        """
        function = linear_chain.log_conditionals
        return self._chains(X, groups, "conditional_log_density", function, y)

    def free_energy(self, X: Any, groups: Any = None) -> Any:
        """Return what each step adds to -log Z(x).

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Steps.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each row. None: all rows are one sequence.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            ``-score_samples(X, groups)``.
        """
        function = linear_chain.log_partition_steps
        return self._chains(X, groups, "free_energy", lambda *chain: -function(*chain))

    def score_samples(self, X: Any, groups: Any = None) -> Any:
        """Return what each step adds to log Z(x), the log of the partition sum of its sequence.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Steps.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each row. None: all rows are one sequence.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            In nats: log Z of the steps up to this one, minus that of the steps before it. x is
            given and not modelled, so this is not a log density of x.
        """
        return self._chains(X, groups, "score_samples", linear_chain.log_partition_steps)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None) -> float:
        """Return the fraction of steps with the correct label.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Steps.
        y : array-like of shape (n_samples,)
            Their labels.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights of the steps.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each row. None: all rows are one sequence.

        Returns
        -------
        score : float
            Accuracy of ``predict(X, groups)``.
        """
        return self._accuracy(y, self.predict(X, groups), sample_weight)
