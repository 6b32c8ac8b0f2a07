r"""An inlier has s(x) >= t, t a quantile of the training scores; s = mean_m log u_m(s_m(x))."""

from __future__ import annotations

import copy
import warnings
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import OutlierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from sklebm._private import HasMethods, Interval, StrOptions, fit_context
from sklebm._rows import Rows, open_rows, resolve_device
from sklebm._state import (
    Array,
    Estimators,
    Scalar,
    Spec,
    check_attributes,
    check_input_names,
    fitted_attributes,
)
from sklebm.outliers._composition import MemberComposition
from sklebm.outliers._default import apply_scale, default_members, robust_scale
from sklebm.outliers._members import checked_scores, given_members, to_numpy
from sklebm.outliers._surprise import log_rank, training_quantiles

_AUTO_CONTAMINATION = 0.005


class EnergyOutlierDetector(OutlierMixin, MemberComposition):
    r"""Outlier detection with any energy, or with several on one scale.

    A row is an inlier if its score reaches ``offset_``, a quantile of the scores of the training
    rows. One estimator keeps its own scores. Several are combined by how surprising a row is to
    each of them,

    .. math:: s(x) = \frac1M \sum_{m=1}^M \log u_m(s_m(x)), \qquad
              u_m(s) = \text{share of the training rows that member } m \text{ scores } s
              \text{ or less},

    in nats: 0 for the most typical row, -4.6 if one training row in a hundred is as atypical.
    Below the training scores, u falls exponentially with their mean excess over the last decile,
    and 1 - u does so above them, so that the order of rows never saturates.

    Parameters
    ----------
    estimator : "auto", estimator or list of (str, estimator), default="auto"
        Any estimator with ``score_samples``, of this library or scikit-learn's, pipelines
        included; or a list of named ones to combine. "auto" combines three energies of the
        features, scaled by median and interquartile range: a Gaussian with correlations
        (:class:`~sklebm.PCAWhitener`), one without, and clusters (:class:`~sklebm.EnergyKMeans`).
    contamination : "auto" or float in (0, 0.5], default="auto"
        Share of the training rows that ``predict`` calls outliers; "auto" is 0.005.

    Attributes
    ----------
    offset_ : float
        The threshold: the ``100 * contamination`` percentile of the training rows' scores.
    named_estimators_ : dict
        The fitted estimators by name. Under "auto" they know the scaled features.
    estimators_ : list of estimators
        The same without names.
    estimator_ : estimator
        The fitted estimator, if there is only one.
    training_quantiles_ : ndarray of shape (n_estimators, n_quantiles)
        Ascending quantiles of each estimator's training scores, at most 1,000. They are scores: no
        row of X is kept.
    location_, scale_ : ndarray of shape (n_features_in_,)
        Median and interquartile range of the features; only under "auto".
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    sklebm.metrics.make_ood_scorer : Measures a detector on known outliers, for a search.
    sklearn.ensemble.IsolationForest : The same methods, from random trees.

    Notes
    -----
    The threshold is a share of the training rows, no guaranteed error rate: when the estimator
    fits its training rows more closely than new ones, more new rows fall below it. Every score
    depends on its row alone, and ``fit`` is deterministic if the estimators are. Under "auto" it
    costs O(n d k) per iteration of k-means with k = min(128, n / 10) clusters, at most 50, and
    O(n d^2 + d^3) for the Gaussian.

    References
    ----------
    R. A. Fisher, "Statistical methods for research workers", 1932 (the mean of log p-values).
    J. Pickands, "Statistical inference using extreme order statistics", Annals of Statistics 3,
    1975 (the tail).

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import EnergyOutlierDetector
    >>> X = np.random.default_rng(0).normal(size=(500, 2)) @ [[1.0, 0.9], [0.0, 0.1]]
    >>> detector = EnergyOutlierDetector(contamination=0.01).fit(X)
    >>> detector.predict([[1.0, 0.9], [1.0, -0.9]])  # the correlation is broken in the second
    array([ 1, -1])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [StrOptions({"auto"}), HasMethods("fit"), list],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
    }

    def __init__(self, estimator: Any = "auto", *, contamination: str | float = "auto") -> None:
        self.estimator = estimator
        self.contamination = contamination

    # ------------------------------------------------------------------ learning

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the estimators and set the threshold.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Training rows, in any form that the estimators accept.
        y : object, default=None
            Handed to the estimators' ``fit``, which ignores it if they are unsupervised.

        Returns
        -------
        self : object
            The fitted detector. An exception or an interrupt leaves it as it was before.
        """
        state = self._fit(X, y)
        self.__dict__ = {**self._unfitted_dict(), **state}
        return self

    def _fit(self, X: Any, y: Any) -> dict[str, Any]:
        """Return every fitted attribute; change nothing on ``self``."""
        probe = copy.copy(self)
        probe.__dict__ = self._unfitted_dict()
        if isinstance(self.estimator, str):
            rows = probe._open_rows(X, reset=True)
            probe.location_, probe.scale_ = robust_scale(rows.to_numpy())
            members, training, labels = default_members(len(rows)), probe._scaled(rows), None
        else:
            members, training, labels = given_members(self.estimator), X, y
            self._validate_names([name for name, _ in members])
        context = self._init_callback_context(max_subtasks=len(members))
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        with warnings.catch_warnings():
            if isinstance(self.estimator, str):
                # "Lower n_clusters" is no advice to somebody who did not choose it.
                warnings.simplefilter("ignore", ConvergenceWarning)
            self._fit_members(members, training, labels, context)
        probe.named_estimators_ = dict(members)
        probe._set_threshold(X)
        state = {k: v for k, v in vars(probe).items() if k not in self._unfitted_dict()}
        context.call_on_fit_task_end(estimator=self, X=X, y=y, reconstruction_attributes=state)
        return state

    def _set_threshold(self, X: Any) -> None:
        """Set what follows from the scores of the training rows."""
        first = self.estimators_[0]
        for name in ("n_features_in_", "feature_names_in_"):
            if not hasattr(self, name) and hasattr(first, name):
                setattr(self, name, getattr(first, name))
        scores = self._member_scores(X, finite=True)
        self.training_quantiles_ = np.stack([training_quantiles(column) for column in scores.T])
        for name, quantiles in zip(self.named_estimators_, self.training_quantiles_, strict=True):
            if len(scores) > 1 and quantiles[0] == quantiles[-1]:
                warnings.warn(
                    f"{name!r} gives all training rows the same score: it tells nothing apart.",
                    UserWarning,
                    stacklevel=6,
                )
        share = _AUTO_CONTAMINATION if isinstance(self.contamination, str) else self.contamination
        self.offset_ = float(np.percentile(self._combine(scores).astype(np.float64), 100 * share))

    # ------------------------------------------------------------------ scores

    def score_samples(self, X: Any) -> Any:
        """Return how typical each row of X is.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            Higher is more typical: the estimator's own scores if there is one, else the mean log
            share of training rows that are as atypical, in nats.
        """
        check_is_fitted(self)
        if len(self.named_estimators_) == 1:
            ((name, member),) = self.named_estimators_.items()
            return checked_scores(name, member, X)
        scores = self._combine(self._member_scores(X))
        return torch.from_numpy(scores).to(X.device) if isinstance(X, torch.Tensor) else scores

    def decision_function(self, X: Any) -> Any:
        """Return ``score_samples(X) - offset_``: negative for outliers.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to judge.

        Returns
        -------
        decision : array or tensor of shape (n_samples,)
            Distance of the score from the threshold.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> Any:
        """Return 1 for inliers and -1 for outliers.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to judge.

        Returns
        -------
        labels : array or tensor of shape (n_samples,)
            1 where ``decision_function`` is at least 0, else -1.
        """
        inlier = self.decision_function(X) >= 0
        return (
            torch.where(inlier, 1, -1)
            if isinstance(inlier, torch.Tensor)
            else (np.where(inlier, 1, -1))
        )

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean of ``score_samples(X)``.

        It compares detectors only if their estimators' scores are comparable; to choose
        between others use :func:`~sklebm.metrics.make_ood_scorer`.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Held-out rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.

        Returns
        -------
        score : float
            Mean over the rows.
        """
        return float(self.score_samples(X).mean())

    def _open_rows(self, X: Any, *, reset: bool) -> Rows:
        device = resolve_device("auto", X, prefers_cuda=False)
        return open_rows(self, X, device=device, reset=reset, min_rows=2 if reset else 1)

    def _scaled(self, rows: Rows) -> Any:
        return rows.map(
            lambda x: apply_scale(x, self.location_, self.scale_),
            floats_per_row=2 * rows.shape[1],
            what="EnergyOutlierDetector.fit",
        )

    def _member_scores(self, X: Any, *, finite: bool = False) -> NDArray[Any]:
        """Scores of all members, one column each."""
        members = self.named_estimators_.items()
        if not hasattr(self, "location_"):
            columns = [to_numpy(checked_scores(k, m, X, finite=finite)) for k, m in members]
            return np.stack(columns, axis=1)

        def score(x: torch.Tensor) -> torch.Tensor:
            scaled = apply_scale(x, self.location_, self.scale_)
            return torch.stack([member.score_samples(scaled) for _, member in members], dim=1)

        rows = self._open_rows(X, reset=False)
        scores: NDArray[Any] = rows.map(
            score,
            floats_per_row=4 * rows.shape[1],
            what="EnergyOutlierDetector.score_samples",
            as_numpy=True,
        )
        return scores

    def _combine(self, scores: NDArray[Any]) -> NDArray[Any]:
        """One score a row, in the dtype of the members' scores."""
        if scores.shape[1] == 1:
            return scores[:, 0]
        columns = zip(scores.T.astype(np.float64), self.training_quantiles_, strict=True)
        ranks = [log_rank(column, quantiles) for column, quantiles in columns]
        combined: NDArray[Any] = np.mean(ranks, axis=0).astype(scores.dtype, copy=False)
        return combined

    def _check_state(self) -> None:
        """Raise ValueError if a fitted detector's attributes do not fit each other."""
        if not fitted_attributes(self):
            return
        check_input_names(self)
        width, members = self.n_features_in_, getattr(self, "named_estimators_", {})
        automatic = hasattr(self, "location_")
        per_feature = {name: Array("f", (width,)) for name in ("location_", "scale_")}
        spec: Spec = {
            "named_estimators_": Estimators(width),
            "training_quantiles_": Array("f", (len(members), None)),
            "offset_": Scalar(float),
            **(per_feature if automatic else {}),
        }
        check_attributes(self, spec)
        quantiles = self.training_quantiles_
        if not quantiles.size or (np.diff(quantiles) < 0).any():
            raise ValueError("training_quantiles_ must ascend.")
        if automatic and not (self.scale_ > 0).all():
            raise ValueError("scale_ must be positive.")
