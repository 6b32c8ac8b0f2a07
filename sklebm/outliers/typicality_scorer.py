r"""s(x) = -|log p(x) + H|, H = -E[log p]: how far a row's energy is from the typical one."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.arrays import to_numpy
from sklebm._shell.private import Interval
from sklebm._shell.state import Scalar, Spec
from sklebm.composite import MemberFits
from sklebm.outliers._base import EnergyScorer
from sklebm.outliers._calibration import split_rows, take_rows
from sklebm.outliers._members import checked_scores


class TypicalityScorer(EnergyScorer):
    r"""Score rows by how close their density is to that of typical rows.

    .. math:: s(x) = -\left| \log p(x) + \hat H \right|, \qquad
              \hat H = -\frac1n \sum_{i=1}^n \log p(x_i).

    In many dimensions almost all rows of a distribution have nearly the same log density, minus its
    entropy H: they form the *typical set*. A row near the mode has a higher density and is as
    atypical as one in the tail. Raw densities miss such rows, constant images in particular; this
    score ranks them last [1]_.

    Parameters
    ----------
    estimator : "auto" or estimator, default="auto"
        Any estimator whose ``score_samples`` is a log density or, up to a factor and a constant,
        minus an energy; from this library or scikit-learn, pipelines included. "auto" is a
        Gaussian, :class:`~sklebm.PCAWhitener`.
    calibration : float in (0, 1) or None, default=None
        Share of the rows to hold out for estimating the entropy. None uses the training scores,
        which are higher than those of new rows if the estimator fits its training rows closely.
    random_state : int, RandomState instance or None, default=None
        Seed for drawing the held-out rows.

    Attributes
    ----------
    entropy_ : float
        Minus the mean score, in nats if scores are log densities: the entropy, if the density is
        that of the rows.
    estimator_ : estimator
        The fitted estimator.
    named_estimators_ : dict
        The same under the name "estimator".
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    EnergyOutlierDetector : Adds a threshold, or p-values, to this score.
    InputComplexityScorer : Another remedy for images that are too simple.

    Notes
    -----
    The score is at most 0, in nats. It depends on the density only: a row that is atypical in
    another way but has a typical density is not detected. Nalisnick et al. test batches of rows by
    the mean of their log densities; here a batch is a single row, since a score depends only on its
    own row.

    Cost: that of the estimator, once for ``fit`` and once for the entropy; O(1) per row on top.

    References
    ----------
    .. [1] E. Nalisnick, A. Matsukawa, Y. W. Teh and B. Lakshminarayanan, "Detecting
       out-of-distribution inputs to deep generative models using typicality", arXiv:1906.02994,
       2019.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import TypicalityScorer
    >>> X = np.random.default_rng(0).normal(size=(2000, 100))
    >>> scorer = TypicalityScorer().fit(X)
    >>> mode, drawn = np.zeros((1, 100)), X[:1]
    >>> raw = scorer.estimator_.score_samples
    >>> bool(raw(mode) > raw(drawn)), bool(scorer.score_samples(mode) < scorer.score_samples(drawn))
    (True, True)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EnergyScorer._parameter_constraints,
        "calibration": [Interval(Real, 0, 1, closed="neither"), None],
        "random_state": ["random_state"],
    }

    entropy_: float

    def __init__(
        self,
        estimator: Any = "auto",
        *,
        calibration: float | None = None,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.calibration = calibration
        self.random_state = random_state

    def _fit(self, X: Any, members: MemberFits, **data: Any) -> dict[str, Any]:
        fitted, held_out = split_rows(X, self.calibration, self.random_state)
        rows, labels = take_rows(X, fitted), take_rows(data["y"], fitted)
        member = members.fit("estimator", self._density(), rows, labels)
        judged = checked_scores("estimator", member, take_rows(X, held_out), finite=True)
        entropy = -float(to_numpy(judged).astype(np.float64).mean())
        return {"named_estimators_": {"estimator": member}, "entropy_": entropy}

    def score_samples(self, X: Any) -> Any:
        """Return minus the distance of each row's score from the typical one.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            At most 0, in the units of the estimator's scores; higher is more typical.
        """
        check_is_fitted(self)
        self._check_names(X)
        return -abs(checked_scores("estimator", self.estimator_, X) + self.entropy_)

    def _state_spec(self) -> Spec:
        return {"entropy_": Scalar(float)}

    def _tagged_members(self) -> list[Any]:
        return [self._density()] if isinstance(self.estimator, str) else super()._tagged_members()
