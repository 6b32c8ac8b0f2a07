r"""p(y | x) = exp(sum_i s_{y_i}(x_i) + sum_ij T_d(y_i, y_j; x_i, x_j)) / Z(x): pixels of images."""

from __future__ import annotations

from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.labels import decode, encode, read_labels, weigh
from sklebm._shell.private import Interval, StrOptions, fit_context
from sklebm._shell.progress import Progress
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Scalar, Spec
from sklebm._shell.warning import warn
from sklebm.energies.linear_scores import PairScores
from sklebm.inference import grid_labels
from sklebm.inference.chain_learning import minimize_batch
from sklebm.inference.grid_graph import DIRECTIONS
from sklebm.inference.grid_learning import LOSSES
from sklebm.structured._base import StructuredClassifier
from sklebm.structured._chains import Watch
from sklebm.structured._grids import (
    INFERENCE,
    Learning,
    best_labels,
    grid_scores,
    log_marginals,
    log_partition,
    read_interaction,
)


class GridMRF(StructuredClassifier):
    r"""Classifier of the pixels of images: a Markov random field on a grid.

    .. math:: -E(y \mid x) = \sum_i s_{y_i}(x_i) + \sum_{(i, j)} T_{d}(y_i, y_j; x_i, x_j), \qquad
              p(y \mid x) = \frac{e^{-E(y \mid x)}}{Z(x)}, \qquad s_k(x) = w_k^\top x + b_k

    with the pairs (i, j) of neighbours on a grid [1]_. A row of X is one pixel; ``groups`` names
    its image, and ``positions`` its row and column there.

    T may depend on the direction d from i to j and on the features of both pixels; it is learnt or
    given. ``fit`` minimises

    .. math:: \ell + \frac{1}{2 C} \lVert \theta \rVert^2, \qquad \theta = (w, T),

    with :math:`\ell = -\log p(y \mid x)` or a sum that avoids Z. The penalty measures each feature
    in units of its range in the training rows; intercepts are not penalised. Without neighbours
    this is logistic regression.

    Parameters
    ----------
    interaction : str, float or array-like of shape (n_classes, n_classes), default="full"
        "full": T is learnt, a score for each pair of labels, without a part that favours single
        labels, which is left to the intercepts. "potts": only whether the labels are equal matters.
        A number: T is not learnt, but is this number for equal labels and 0 for others. An array: T
        itself, which is not learnt either.
    pairwise_features : {"constant", "contrast", "features"}, default="constant"
        What T depends on besides the labels. "contrast": T has a part that is multiplied by
        exp(-|x_i - x_j|^2 / 2), where the mean of |x_i - x_j|^2 over the neighbours in the training
        rows is 1; a given T is multiplied as a whole. "features": T is linear in x_i and x_j.
    directed : bool, default=False
        Whether each direction (right, down, and both diagonals) has its own T. Otherwise one T
        serves all, and T(k, l; x_i, x_j) = T(l, k; x_j, x_i).
    n_neighbours : {4, 8}, default=4
        Neighbours of a pixel: those at its sides, or those at its corners too.
    learning : {"likelihood", "pseudo_likelihood", "piecewise"}, default="likelihood"
        All are convex. "likelihood": log p(y | x), with the upper bound on log Z by reweighted
        trees [2]_, exact where pairs form no loop. "pseudo_likelihood": each pixel given the labels
        of its neighbours [3]_; many times faster, but it overrates neighbours where labels form
        large areas. "piecewise": pixels alone and pairs alone [4]_, which overrates neighbours even
        more.
    inference : str, default="reweighted_trees"
        How labels are found; may be changed after ``fit``. "reweighted_trees": messages with a
        single fixed point, and the marginals that "likelihood" uses. "belief_propagation":
        sum-product messages, whose result may depend on where they start. Both are exact where
        pairs form no loop. "mean_field": independent pixels. "gibbs": the mean of conditional
        probabilities over sweeps. "exact": sums over all labels, for images a few pixels wide.
        These five predict the most probable label of each pixel. "icm": labels that no change of
        one pixel improves. "cut": the labels of lowest energy, for two labels that prefer to be
        equal.
    n_gibbs_steps : int, default=200
        Number of sweeps of "gibbs", after half as many burn-in sweeps.
    C : float, default=1.0
        Inverse strength of the penalty, as in scikit-learn's ``LogisticRegression``.
    class_weight : dict, "balanced" or None, default=None
        Weights of pixels by label; not for "likelihood", whose terms are whole images.
    max_iter : int, default=200
        Maximum number of iterations.
    tol : float, default=1e-6
        ``fit`` stops when the objective has fallen by less than this fraction over ten iterations.
    verbose : int, default=0
        If positive, print the objective after each iteration.
    device : str or torch.device, default="auto"
        Where scores of labels are computed; learning and inference run on the CPU. "auto": the
        device of X if X is a tensor, otherwise the CPU.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels in ascending order.
    coef_ : ndarray of shape (n_classes, n_features_in_)
        Weights w, in units of X.
    intercept_ : ndarray of shape (n_classes,)
        Intercepts b.
    transitions_ : ndarray of shape (n_classes, n_classes, n_directions)
        The constant part of T, from the label of the left or upper pixel to that of the other;
        ``n_directions`` is 1 unless ``directed``, else right, down, down right, down left.
    transition_coef_ : ndarray of shape (n_classes, n_classes, n_directions, m) or None
        The part of T that multiplies the contrast (m = 1), or the features of the first pixel and
        then of the second (m = 2 n_features_in_).
    contrast_scale_ : ndarray of shape (n_features_in_,) or None
        Units of the features in \|x_i - x_j\|.
    n_neighbours_ : int
        4 or 8.
    objective_ : float
        What ``fit`` minimised, at the fitted parameters, in nats.
    n_iter_ : int
        Number of iterations.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    ChainCRF : Sequences, where everything is exact.
    sklearn.linear_model.LogisticRegression : The same without neighbours.

    Notes
    -----
    All methods take ``groups`` and ``positions``: pass them to searches by metadata routing,
    ``set_fit_request(groups=True, positions=True)`` and the same for ``score``. Without positions
    pixels have no neighbours. There is no ``sample_weight`` in ``fit``: a repeated row would be
    another pixel at the same position.

    Row-wise results add up over an image: ``score_samples`` to log Z(x), ``energy`` to E(y | x),
    ``conditional_log_density`` to log p(y | x). They do not depend on the pixels of other images.

    Cost: an iteration takes O(n K (d + m)) with m features of pairs, with "piecewise" O(n K^2 m),
    and with "likelihood" a few dozen sweeps more; a sweep of any inference takes O(n K^2).
    Messages, and a T that depends on features, take memory of the order of K^2 numbers for each
    pair.

    References
    ----------
    .. [1] S. Geman and D. Geman, "Stochastic relaxation, Gibbs distributions, and the Bayesian
       restoration of images", IEEE TPAMI 6, 1984.
    .. [2] M. Wainwright, "Estimating the wrong graphical model: benefits in the computation-limited
       setting", JMLR 7, 2006.
    .. [3] J. Besag, "Statistical analysis of non-lattice data", The Statistician 24, 1975.
    .. [4] C. Sutton and A. McCallum, "Piecewise training for undirected models", UAI 2005.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import GridMRF
    >>> rng = np.random.default_rng(0)
    >>> truth = np.zeros((30, 30), int)
    >>> truth[8:22, 8:22] = 1
    >>> positions = np.argwhere(truth >= 0)
    >>> X = truth.reshape(-1, 1) + rng.normal(size=(900, 1))
    >>> y = truth.ravel()
    >>> model = GridMRF().fit(X, y, positions=positions)
    >>> alone = GridMRF().fit(X, y)
    >>> bool(model.score(X, y, positions=positions) > alone.score(X, y) + 0.1)
    True
    """

    _layout = "pixel"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "device": StructuredClassifier._parameter_constraints["device"],
        "interaction": [StrOptions({"full", "potts"}), Real, "array-like"],
        "pairwise_features": [StrOptions({"constant", "contrast", "features"})],
        "directed": ["boolean"],
        "n_neighbours": [Interval(Integral, 4, 8, closed="both")],
        "learning": [StrOptions(set(LOSSES))],
        "inference": [StrOptions(set(INFERENCE))],
        "n_gibbs_steps": [Interval(Integral, 1, None, closed="left")],
        "C": [Interval(Real, 0, None, closed="neither")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
    }

    transition_coef_: NDArray[np.float64] | None
    contrast_scale_: NDArray[np.float64] | None
    n_neighbours_: int
    objective_: float | None
    n_iter_: int

    def __init__(
        self,
        *,
        interaction: Any = "full",
        pairwise_features: Literal["constant", "contrast", "features"] = "constant",
        directed: bool = False,
        n_neighbours: int = 4,
        learning: Literal["likelihood", "pseudo_likelihood", "piecewise"] = "likelihood",
        inference: str = "reweighted_trees",
        n_gibbs_steps: int = 200,
        C: float = 1.0,
        class_weight: Any = None,
        max_iter: int = 200,
        tol: float = 1e-6,
        verbose: int = 0,
        device: str | torch.device = "auto",
    ) -> None:
        self.interaction = interaction
        self.pairwise_features = pairwise_features
        self.directed = directed
        self.n_neighbours = n_neighbours
        self.learning = learning
        self.inference = inference
        self.n_gibbs_steps = n_gibbs_steps
        self.C = C
        self.class_weight = class_weight
        self.max_iter = max_iter
        self.tol = tol
        self.verbose = verbose
        self.device = device

    # ------------------------------------------------------------------ learning

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, groups: Any = None, positions: Any = None) -> Self:
        """Learn to label the pixels of images.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Pixels of all images, one per row.
        y : array-like of shape (n_samples,)
            Label of each pixel: integers, booleans or strings.
        groups : array-like of shape (n_samples,) or None, default=None
            Image of each row. None: all rows are one image.
        positions : array-like of int of shape (n_samples, 2) or None, default=None
            Row and column of each pixel in its image. None: pixels have no neighbours.

        Returns
        -------
        self : object
            The fitted estimator. It is left unchanged by an exception or an interrupt.
        """
        labels = read_labels(y, type(self).__name__)
        classes = np.unique(labels)
        codes = encode(labels, classes, type(self).__name__)
        weight = weigh(None, self.class_weight, labels, classes)
        columns = {"target": codes, "weight": weight, "groups": groups, "positions": positions}
        return self._learn(X, self._fit, columns=columns, classes=classes)

    def _max_steps(self, rows: Rows) -> int:
        return int(self.max_iter)

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        if self.n_neighbours not in DIRECTIONS:
            raise ValueError(f"n_neighbours={self.n_neighbours!r} must be 4 or 8.")
        classes = data["classes"]
        learning = Learning(self, rows, classes)

        def state(theta: Any, objective: float, n_iter: int) -> dict[str, Any]:
            counts = {"objective_": float(objective), "n_iter_": n_iter}
            return {"classes_": classes, **learning.attributes(theta), **counts}

        watch = Watch(progress, state)
        theta, objective, n_iter, settled = minimize_batch(
            learning.problem,
            max_iter=int(self.max_iter),
            tol=float(self.tol),
            begin=watch.begin,
            report=watch.end,
        )
        watch.close(theta, objective)
        if not settled and not progress.stopped:
            warn(
                f"GridMRF did not converge in max_iter={self.max_iter} iterations: increase "
                "max_iter or tol.",
                ConvergenceWarning,
            )
        return state(theta, objective, n_iter)

    def _state_spec(self) -> Spec:
        return {
            **super()._state_spec(),
            "transitions_": Array("f", (None, None, None), of="transitions"),
            "transition_coef_": Array(
                "f", (None, None, None, None), optional=True, of="transition_coef"
            ),
            "contrast_scale_": Array("f", ("n_features_in_",), optional=True, of="contrast_scale"),
            "n_neighbours_": Scalar(int, 4),
            "objective_": Scalar(float, optional=True),
            "n_iter_": Scalar(int, 0),
        }

    def _check_state(self) -> None:
        super()._check_state()
        if not self._is_fitted():
            return
        given, of_features = self.transitions_.shape, self.transition_coef_
        width = 0 if of_features is None else of_features.shape[3]
        expected = 1 if self.contrast_scale_ is not None else 2 * self.n_features_in_
        tables = (1, len(DIRECTIONS.get(self.n_neighbours_, ())))
        if of_features is not None and of_features.shape != (*given, expected):
            raise ValueError(
                f"GridMRF.transition_coef_ has {width} numbers for each entry of transitions_, of "
                f"shape {given}, but must have {expected}."
            )
        if given[2] not in tables or self.n_neighbours_ not in DIRECTIONS:
            raise ValueError(
                f"GridMRF.transitions_ has {given[2]} directions for n_neighbours_="
                f"{self.n_neighbours_}: there must be one, or 2 for 4 neighbours and 4 for 8."
            )

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        read_interaction(self.interaction, np.asarray(given["classes_"]), self.pairwise_features)
        return {"n_iter_": 0, "objective_": None, "n_neighbours_": int(self.n_neighbours)}

    def _rebuild(self, parameters: dict[str, torch.Tensor]) -> PairScores:
        return PairScores(
            parameters["coef_"],
            parameters["intercept_"],
            parameters["transitions_"],
            parameters.get("transition_coef_"),
            parameters.get("contrast_scale_"),
        )

    # ------------------------------------------------------------------ answers

    def _pixels(
        self, X: Any, what: str, groups: Any, positions: Any, function: Any, y: Any = None
    ) -> Any:
        """``function(scores of the grid)``, and labels if given, in the order of the rows."""

        def answer(rows: Rows, scores: Any, energy: Any) -> Any:
            given = grid_scores(rows, scores, energy, self.n_neighbours_)
            order = given.grid.order
            labels = () if y is None else (self._codes(y, len(rows))[order],)
            found = function(given, *labels)
            if what == "predict_log_proba" and rows.dtype is torch.float32:
                with np.errstate(divide="ignore"):  # so that the two agree to the last digit
                    found = np.log(np.exp(found).astype(np.float32))
            back = np.empty_like(found)
            back[order] = found
            return back

        return self._answer(X, what, answer, groups=groups, positions=positions)

    def predict(self, X: Any, groups: Any = None, positions: Any = None) -> Any:
        """Return the label of each pixel, as ``inference`` says.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Pixels.
        groups : array-like of shape (n_samples,) or None, default=None
            Image of each row. None: all rows are one image.
        positions : array-like of int of shape (n_samples, 2) or None, default=None
            Row and column of each pixel. None: pixels have no neighbours.

        Returns
        -------
        y : ndarray or tensor of shape (n_samples,)
            Labels; a tensor if X is one and the labels are numbers.
        """
        found = self._pixels(X, "predict", groups, positions, partial(best_labels, self))
        return decode(found, self.classes_)

    def predict_proba(self, X: Any, groups: Any = None, positions: Any = None) -> Any:
        """Return the probability of each label at each pixel.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Pixels.
        groups : array-like of shape (n_samples,) or None, default=None
            Image of each row. None: all rows are one image.
        positions : array-like of int of shape (n_samples, 2) or None, default=None
            Row and column of each pixel. None: pixels have no neighbours.

        Returns
        -------
        probabilities : array or tensor of shape (n_samples, n_classes)
            p(y_i = k | x), given the whole image, as ``inference`` finds it. "icm" and "cut" find a
            single labelling: with them, the probability given the labels found for the neighbours.
        """
        return self._probabilities(X, "predict_proba", groups, positions)

    def _probabilities(self, X: Any, what: str, groups: Any, positions: Any) -> Any:
        return self._pixels(X, what, groups, positions, lambda g: np.exp(log_marginals(self, g)))

    def predict_log_proba(self, X: Any, groups: Any = None, positions: Any = None) -> Any:
        """Return the logarithm of ``predict_proba``.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Pixels.
        groups : array-like of shape (n_samples,) or None, default=None
            Image of each row. None: all rows are one image.
        positions : array-like of int of shape (n_samples, 2) or None, default=None
            Row and column of each pixel. None: pixels have no neighbours.

        Returns
        -------
        log_probabilities : array or tensor of shape (n_samples, n_classes)
            In nats.
        """
        return self._pixels(X, "predict_log_proba", groups, positions, partial(log_marginals, self))

    def transform(self, X: Any, groups: Any = None, positions: Any = None) -> Any:
        """Return the probabilities of the labels, the latent variables of the rows.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Pixels.
        groups : array-like of shape (n_samples,) or None, default=None
            Image of each row. None: all rows are one image.
        positions : array-like of int of shape (n_samples, 2) or None, default=None
            Row and column of each pixel. None: pixels have no neighbours.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_classes)
            ``predict_proba(X, groups, positions)``, with the container that ``set_output`` asks
            for.
        """
        return self._probabilities(X, "transform", groups, positions)

    def fit_transform(self, X: Any, y: Any, groups: Any = None, positions: Any = None) -> Any:
        """Fit, and return the probabilities of the labels of the same rows.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Pixels.
        y : array-like of shape (n_samples,)
            Label of each pixel.
        groups : array-like of shape (n_samples,) or None, default=None
            Image of each row. None: all rows are one image.
        positions : array-like of int of shape (n_samples, 2) or None, default=None
            Row and column of each pixel. None: pixels have no neighbours.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_classes)
            What ``transform(X, groups, positions)`` returns.
        """
        return self.fit(X, y, groups, positions).transform(X, groups, positions)

    def energy(self, X: Any, y: Any, groups: Any = None, positions: Any = None) -> Any:
        """Return what each pixel adds to the energy of given labels.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Pixels.
        y : array-like of shape (n_samples,)
            Label of each pixel.
        groups : array-like of shape (n_samples,) or None, default=None
            Image of each row. None: all rows are one image.
        positions : array-like of int of shape (n_samples, 2) or None, default=None
            Row and column of each pixel. None: pixels have no neighbours.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            Minus the score of its label, and minus half of those of its pairs, in nats; adds up to
            E(y | x) over an image.
        """
        return self._pixels(X, "energy", groups, positions, grid_labels.label_energies, y)

    def conditional_log_density(
        self, X: Any, y: Any, groups: Any = None, positions: Any = None
    ) -> Any:
        """Return what each pixel adds to log p(y | x).

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Pixels.
        y : array-like of shape (n_samples,)
            Label of each pixel.
        groups : array-like of shape (n_samples,) or None, default=None
            Image of each row. None: all rows are one image.
        positions : array-like of int of shape (n_samples, 2) or None, default=None
            Row and column of each pixel. None: pixels have no neighbours.

        Returns
        -------
        log_density : array or tensor of shape (n_samples,)
            Minus ``energy`` minus ``score_samples``, in nats; adds up to log p(y | x) over an
            image, or to a lower bound where log Z is a bound.
        """

        def log_density(given: grid_labels.GridScores, labels: Any) -> Any:
            return -grid_labels.label_energies(given, labels) - log_partition(given)

        return self._pixels(X, "conditional_log_density", groups, positions, log_density, y)

    def free_energy(self, X: Any, groups: Any = None, positions: Any = None) -> Any:
        """Return what each pixel adds to -log Z(x).

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Pixels.
        groups : array-like of shape (n_samples,) or None, default=None
            Image of each row. None: all rows are one image.
        positions : array-like of int of shape (n_samples, 2) or None, default=None
            Row and column of each pixel. None: pixels have no neighbours.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            ``-score_samples(X, groups, positions)``.
        """
        return self._pixels(
            X, "free_energy", groups, positions, lambda given: -log_partition(given)
        )

    def score_samples(self, X: Any, groups: Any = None, positions: Any = None) -> Any:
        """Return what each pixel adds to log Z(x), the log of the partition sum of its image.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Pixels.
        groups : array-like of shape (n_samples,) or None, default=None
            Image of each row. None: all rows are one image.
        positions : array-like of int of shape (n_samples, 2) or None, default=None
            Row and column of each pixel. None: pixels have no neighbours.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            In nats; ``inference`` has no effect. Exact for images of a few pixels and where pairs
            form no loop; otherwise the upper bound of reweighted trees. x is given and not
            modelled, so this is not a log density of x.
        """
        return self._pixels(X, "score_samples", groups, positions, log_partition)

    def score(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        groups: Any = None,
        positions: Any = None,
    ) -> float:
        """Return the fraction of pixels with the correct label.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Pixels.
        y : array-like of shape (n_samples,)
            Their labels.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights of the pixels.
        groups : array-like of shape (n_samples,) or None, default=None
            Image of each row. None: all rows are one image.
        positions : array-like of int of shape (n_samples, 2) or None, default=None
            Row and column of each pixel. None: pixels have no neighbours.

        Returns
        -------
        score : float
            Accuracy of ``predict(X, groups, positions)``.
        """
        check_is_fitted(self)
        return self._accuracy(y, self.predict(X, groups, positions), sample_weight)
