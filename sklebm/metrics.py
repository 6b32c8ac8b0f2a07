"""Measures of detectors, of conditional densities and of the paths of codes, and tuning by them.

A detector is fitted to inliers; outliers are known only for its evaluation. ``make_ood_scorer`` and
``InlierTrainSplit`` make ``GridSearchCV`` work that way.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import BaseCrossValidator, check_cv
from sklearn.utils import check_consistent_length, column_or_1d

from sklebm._paths import curvature, slowness
from sklebm._shell.groups import is_missing
from sklebm._shell.labels import plain_label
from sklebm._shell.warning import warn

__all__ = [
    "InlierTrainSplit",
    "curvature",
    "fpr_at_tpr",
    "make_ood_scorer",
    "score_conditional_density",
    "slowness",
]

_METRICS = ("roc_auc", "average_precision", "fpr_at_95_tpr")


def fpr_at_tpr(y_true: Any, scores: Any, tpr: float = 0.95) -> float:
    r"""Return the false-positive rate at the threshold that reaches a true-positive rate.

    .. math:: \min_t \{ \mathrm{FPR}(t) : \mathrm{TPR}(t) \ge \text{tpr} \},

    .. math:: \mathrm{TPR}(t) = \frac{|\{i : y_i = 1, s_i \ge t\}|}{|\{i : y_i = 1\}|}, \quad
              \mathrm{FPR}(t) = \frac{|\{i : y_i = 0, s_i \ge t\}|}{|\{i : y_i = 0\}|}.

    The threshold is one of the scores of positive rows, and a row whose score equals it counts as
    positive: ties are never split, and rates are not interpolated.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Two different labels; the greater one is positive, as in
        :func:`~sklearn.metrics.roc_auc_score`. With scikit-learn's convention of 1 for inliers and
        -1 for outliers, the result is the rate of outliers that pass as inliers.
    scores : array-like of shape (n_samples,)
        Higher for the positive label, such as ``score_samples``. Infinities are allowed.
    tpr : float, default=0.95
        True-positive rate to reach, in (0, 1].

    Returns
    -------
    fpr : float
        False-positive rate in [0, 1]; lower is better.

    Raises
    ------
    ValueError
        If there are not exactly two labels, a score is NaN, the lengths differ, or ``tpr`` is
        outside (0, 1].

    Examples
    --------
    >>> from sklebm.metrics import fpr_at_tpr
    >>> y_true = [1, 1, 1, 1, -1, -1, -1, -1]
    >>> scores = [9, 8, 7, 3, 6, 3, 2, 1]
    >>> fpr_at_tpr(y_true, scores, tpr=0.75)
    0.0
    >>> fpr_at_tpr(y_true, scores)  # the threshold is 3
    0.5
    """
    if not isinstance(tpr, numbers.Real) or not 0 < tpr <= 1:
        raise ValueError(f"tpr={tpr!r} must be a rate in (0, 1].")
    labels, values = column_or_1d(y_true), column_or_1d(scores).astype(np.float64)
    check_consistent_length(labels, values)
    if np.isnan(values).any():
        raise ValueError(f"scores holds NaN, first at position {int(np.isnan(values).argmax())}.")
    kinds = np.unique(labels)
    if len(kinds) != 2:
        raise ValueError(
            f"y_true must hold two different labels, the greater for the positive rows, but holds "
            f"{len(kinds)}: {kinds[:5].tolist()}."
        )
    positive = labels == kinds[1]
    ranked = np.sort(values[positive])[::-1]
    count = math.ceil(tpr * len(ranked))
    # tpr * n may be rounded up past an integer; the rate itself decides.
    if count > 1 and (count - 1) / len(ranked) >= tpr:
        count -= 1
    return float((values[~positive] >= ranked[count - 1]).mean())


def make_ood_scorer(
    metric: str = "roc_auc", X_ood: Any = None, outlier_label: Any = -1
) -> OutlierScorer:
    """Make a scorer that measures how well ``score_samples`` separates known outliers.

    Parameters
    ----------
    metric : {"roc_auc", "average_precision", "fpr_at_95_tpr"}, default="roc_auc"
        "roc_auc" is the probability that an inlier scores higher than an outlier. For
        "average_precision" the outliers are the positive class. "fpr_at_95_tpr" is the rate of
        outliers that pass when 95 % of the inliers do; the scorer returns minus this rate, because
        searches maximise.
    X_ood : array-like of shape (n_outliers, n_features), default=None
        Outliers to detect in addition to those labelled in ``y``, such as rows of another data set.
        They are never used for fitting.
    outlier_label : object, default=-1
        Rows with this label in ``y`` are outliers, all others inliers.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y=None)`` returns a float; higher is better. It can be pickled and
        passed as ``scoring`` to :class:`~sklearn.model_selection.GridSearchCV`.

    See Also
    --------
    InlierTrainSplit : Keeps the labelled outliers out of the training folds.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import make_blobs
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklebm import EnergyKMeans
    >>> from sklebm.metrics import InlierTrainSplit, make_ood_scorer
    >>> X, _ = make_blobs(300, centers=[[0, 0], [4, 0], [0, 4]], random_state=0)
    >>> X = np.vstack([X, [[2, 2], [4, 4], [-3, 3]] * 10])
    >>> y = np.repeat([1, -1], [300, 30])
    >>> search = GridSearchCV(
    ...     EnergyKMeans(random_state=0),
    ...     {"n_clusters": [1, 3]},
    ...     scoring=make_ood_scorer(),
    ...     cv=InlierTrainSplit(3),
    ...     refit=False,
    ... )
    >>> search.fit(X, y).best_params_
    {'n_clusters': 3}
    """
    if metric not in _METRICS:
        raise ValueError(f"metric must be one of {', '.join(map(repr, _METRICS))}; got {metric!r}.")
    return OutlierScorer(metric, X_ood, outlier_label)


class OutlierScorer:
    """The scorer that ``make_ood_scorer`` returns: a callable with readable attributes."""

    def __init__(self, metric: str, X_ood: Any, outlier_label: Any) -> None:
        self.metric = metric
        self.X_ood = X_ood
        self.outlier_label = outlier_label

    def __repr__(self) -> str:
        rows = "None" if self.X_ood is None else f"<{len(self.X_ood)} rows>"
        return (
            f"make_ood_scorer(metric={self.metric!r}, X_ood={rows}, "
            f"outlier_label={self.outlier_label!r})"
        )

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
        """Score the rows of X and those of ``X_ood``, and compare."""
        if not hasattr(estimator, "score_samples"):
            raise TypeError(
                f"{type(estimator).__name__} has no score_samples, which the scorer of detectors "
                "ranks rows by."
            )
        values = [_as_vector(estimator.score_samples(X))]
        if y is None:
            inlier = np.ones(len(values[0]), dtype=bool)
        else:
            inlier = np.asarray(y) != self.outlier_label
        if self.X_ood is not None:
            values.append(_as_vector(estimator.score_samples(self.X_ood)))
            inlier = np.append(inlier, np.zeros(len(values[1]), dtype=bool))
        if inlier.all() or not inlier.any():
            missing = "outlier" if inlier.all() else "inlier"
            stratify = "stratify the folds (InlierTrainSplit with a number of folds does)"
            strange = _without_outliers(y, self.outlier_label) if inlier.all() else ""
            if strange:
                raise ValueError(
                    f"{strange}: set outlier_label to the label of the outliers. If only this fold "
                    f"has no outlier, give X_ood or {stratify}."
                )
            raise ValueError(
                f"There is no {missing} among the rows to score: outliers are the rows of X_ood "
                f"and those that y labels {_shown(self.outlier_label)}. Give X_ood, or {stratify}."
            )
        return self._compare(inlier, np.concatenate(values))

    def _compare(self, inlier: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
        if np.isnan(scores).any():
            raise ValueError("Scores contain NaN, which has no place among the others.")
        scores = rankdata(scores)  # scores may be infinite, which scikit-learn refuses
        if self.metric == "roc_auc":
            return float(roc_auc_score(inlier, scores))
        if self.metric == "average_precision":
            return float(average_precision_score(~inlier, -scores))
        return -fpr_at_tpr(inlier, scores, 0.95)


def score_conditional_density(estimator: Any, X: Any, y: Any) -> float:
    """Return the mean log p(y | x) of held-out rows with their targets.

    It can be passed as ``scoring`` to ``GridSearchCV``, and is comparable between any densities of
    the same y.

    Parameters
    ----------
    estimator : estimator
        A fitted estimator with ``conditional_log_density``, or a pipeline that ends in one.
    X : array-like of shape (n_samples, n_features)
        Held-out rows.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Their targets.

    Returns
    -------
    score : float
        In nats per row; higher is better.

    Examples
    --------
    >>> from sklebm import EnergyRegressor
    >>> from sklebm.datasets import Trumpet
    >>> from sklebm.metrics import score_conditional_density
    >>> X, y = Trumpet().sample(500, random_state=0)
    >>> gaussian = EnergyRegressor(()).fit(X, y)
    >>> model = EnergyRegressor((16,), max_epochs=20, random_state=0).fit(X, y)
    >>> score_conditional_density(model, X, y) > score_conditional_density(gaussian, X, y)
    True
    """
    *before, model = [part for _, part in getattr(estimator, "steps", [("", estimator)])]
    for step in before:
        X = X if step is None or step == "passthrough" else step.transform(X)
    return float(_as_vector(model.conditional_log_density(X, y)).mean())


def _without_outliers(y: Any, outlier_label: Any) -> str:
    """Say which labels there are instead of ``outlier_label``; empty for a single label.

    A single label may mean that all rows are inliers.
    """
    values = () if y is None else map(plain_label, np.asarray(y).ravel().tolist())
    found = {label for label in values if not is_missing(label)}
    if len(found) < 2:
        return ""
    labels = sorted(found, key=lambda label: (type(label).__name__, label))  # they may be mixed
    named = [repr(label) for label in labels[:5]]
    last = f"{len(labels) - 5} more" if len(labels) > 5 else named.pop()
    return f"y contains {', '.join(named)} and {last} but no {_shown(outlier_label)}"


def _shown(label: Any) -> str:
    return repr(plain_label(label))


def _as_vector(scores: Any) -> NDArray[np.float64]:
    if hasattr(scores, "detach"):  # a torch tensor, perhaps on a GPU
        scores = scores.detach().cpu()
    return np.asarray(scores, dtype=np.float64)


class InlierTrainSplit(BaseCrossValidator):  # type: ignore[misc, unused-ignore]
    """Cross-validation whose training folds contain no labelled outliers.

    Test folds keep them, so that detection is measured on rows that were not fitted. A search with
    ``refit=True`` finally fits all rows, outliers included: use ``refit=False`` and fit the best
    parameters to the inliers yourself.

    Parameters
    ----------
    cv : int, cross-validation splitter or iterable, default=5
        The splits before outliers are dropped. An integer gives folds with equal shares of outliers
        (:class:`~sklearn.model_selection.StratifiedKFold`); a splitter is used as it is.
    outlier_label : object, default=-1
        Rows with this label in ``y`` are outliers, all others inliers.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm.metrics import InlierTrainSplit
    >>> X, y = np.zeros((6, 2)), [1, 1, -1, 1, 1, -1]
    >>> for train, test in InlierTrainSplit(2).split(X, y):
    ...     print(train, test)
    [3 4] [0 1 2]
    [0 1] [3 4 5]
    """

    def __init__(self, cv: Any = 5, *, outlier_label: Any = -1) -> None:
        is_splitter = hasattr(cv, "split") or cv is None or isinstance(cv, numbers.Integral)
        self.cv = cv if is_splitter else list(cv)  # a generator of splits can be used only once
        self.outlier_label = outlier_label

    def _prepare(self, y: Any) -> tuple[Any, Any, NDArray[np.bool_] | None]:
        """The splitter, the labels it stratifies by, and which rows are outliers."""
        outlier = None if y is None else np.asarray(y) == self.outlier_label
        labels = y if hasattr(self.cv, "split") else outlier
        return check_cv(self.cv, outlier, classifier=True), labels, outlier

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[Any, Any]]:
        """Generate the indices of training rows, without outliers, and of test rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples,)
            Labels; ``outlier_label`` marks the outliers.
        groups : array-like of shape (n_samples,), default=None
            Passed to ``cv``.

        Yields
        ------
        train : ndarray
            Indices of the inliers in the training fold.
        test : ndarray
            Indices of the test fold.

        Raises
        ------
        ValueError
            If ``y`` is missing or leaves a training fold without inliers.

        Warns
        -----
        UserWarning
            If ``y`` holds several labels but not ``outlier_label``: every row counts as an inlier.
        """
        splitter, labels, outlier = self._prepare(y)
        if outlier is None:
            raise ValueError(
                f"InlierTrainSplit needs y, with outliers labelled {_shown(self.outlier_label)}."
            )
        strange = "" if outlier.any() else _without_outliers(y, self.outlier_label)
        if strange:
            warn(
                f"{strange}, so every row counts as an inlier. If some are outliers, set "
                "outlier_label to their label."
            )
        for train, test in splitter.split(X, labels, groups):
            kept = np.asarray(train)[~outlier[train]]
            if not len(kept):
                raise ValueError("A training fold holds outliers only: y marks too many rows.")
            yield kept, test

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of splits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), default=None
            Passed to ``cv``.
        y : array-like of shape (n_samples,), default=None
            Passed to ``cv``.
        groups : array-like of shape (n_samples,), default=None
            Passed to ``cv``.

        Returns
        -------
        n_splits : int
            Number of pairs that ``split`` generates.
        """
        splitter, labels, _ = self._prepare(y)
        return int(splitter.get_n_splits(X, labels, groups))
