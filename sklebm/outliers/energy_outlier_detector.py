r"""An inlier has s(x) >= t, a quantile of training scores; s = (log u_(1) + log u_(2)) / 2."""

from __future__ import annotations

import warnings
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.private import HasMethods, Interval, StrOptions, fit_context
from sklebm._shell.state import (
    Array,
    Estimators,
    Scalar,
    Spec,
    check_attributes,
    check_input_names,
    fitted_attributes,
)
from sklebm.outliers._calibration import CalibratedDetector, split_rows, take_rows
from sklebm.outliers._ensemble import EnergyEnsemble
from sklebm.outliers._members import checked_scores

_AUTO_CONTAMINATION = 0.005


class EnergyOutlierDetector(CalibratedDetector, EnergyEnsemble):
    r"""Outlier detection with any energy, or with several on one scale.

    A row is an inlier if its score reaches ``offset_``, a quantile of the scores of the training
    rows. One estimator keeps its own scores. Several are combined by how surprising a row is to
    each of them,

    .. math:: s(x) = \tfrac12 \left( \log u_{(1)} + \log u_{(2)} \right), \qquad
              u_m = \frac1n \sum_{i=1}^n [s_m(x_i) \le s_m(x)],

    where :math:`u_m` is the share of the n training rows that member m scores as low, and
    :math:`u_{(1)} \le u_{(2)}` are the two lowest. In nats: 0 for the most typical row, -4.6 if one
    training row in a hundred is as atypical. Members that see nothing odd in a row cannot outvote
    two that do, and one that errs alone is halved. Below the training scores, u falls
    exponentially with their mean excess over the last decile, and 1 - u does so above them, so
    that the order of rows never saturates.

    Parameters
    ----------
    estimator : "auto", estimator or list of (str, estimator), default="auto"
        Any estimator with ``score_samples``, of this library or scikit-learn's, pipelines
        included; or a list of named ones to combine. "auto" combines five energies: one of each
        feature alone, the sum of their absolute normal scores (:class:`~sklebm.EnergyKMeans` of
        their signed roots), and, of features scaled by median and interquartile range, a Gaussian
        (:class:`~sklebm.PCAWhitener`), a Gaussian of the three quarters of the rows on which it is
        narrow, a mixture of at most 8 (:class:`~sklebm.EnergyGaussianMixture`), and at most 64
        clusters.
    contamination : "auto" or float in (0, 0.5], default="auto"
        Share of the training rows that ``predict`` calls outliers; "auto" is 0.005.
    trim : float in [0, 0.5], default=0
        Share of the rows, the least typical in a first fit, that a second fit leaves out. For
        training rows that hold many outliers; it costs a second fit.
    calibration : float in (0, 1) or None, default=None
        Share of the rows that is held out, for ``p_values``, ``predict(X, alpha=...)`` and
        ``predict_fdr``. It should hold no outliers. None fits all rows.
    random_state : int, RandomState instance or None, default=None
        Draws the rows that are held out.

    Attributes
    ----------
    offset_ : float
        The threshold: the ``100 * contamination`` percentile of the scores of all rows given to
        ``fit``.
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
    feature_quantiles_ : ndarray of shape (n_features_in_, n_quantiles)
        At most 1,000 ascending training values of each feature; only under "auto".
    calibration_scores_ : ndarray of shape (n_calibration,)
        Ascending scores of the rows held out; only with ``calibration``.
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
    depends on its row alone, and ``fit`` is deterministic if the estimators and ``random_state``
    are. Calibrated, the error rate is guaranteed; the price is the rows held out, and that no
    p-value is below 1 / (n_calibration + 1).

    Under "auto" a fit costs O(n d^2 + d^3) for the Gaussian, six
    times O(k d^2 + d^3) for that of the core, O(k d^2) for each of the at most 50
    EM steps on k = min(n, 20,000) rows per component, and O(n d log q) for q quantiles, which come
    from at most 100,000 rows. The mixture has a component for each 2 d rows, at most 8, and fewer
    in tables so wide that an EM step would take 2e9 products; there is a cluster for each 20 rows.
    The core, the mixture and the clusters are fitted to at most 20,000 rows.

    References
    ----------
    P. J. Rousseeuw and K. Van Driessen, "A fast algorithm for the minimum covariance determinant
    estimator", Technometrics 41, 1999 (the core).

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
        "trim": [Interval(Real, 0, 0.5, closed="both")],
        "calibration": [Interval(Real, 0, 1, closed="neither"), None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any = "auto",
        *,
        contamination: str | float = "auto",
        trim: float = 0,
        calibration: float | None = None,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.contamination = contamination
        self.trim = trim
        self.calibration = calibration
        self.random_state = random_state

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
        return self._commit(self._fit(X, y))

    def _n_fits(self) -> int:
        return (2 if self.trim else 1) * self._n_members()

    def _learn(self, X: Any, y: Any, context: Any) -> None:
        if isinstance(self.estimator, str):
            self._open_rows(X, reset=True)
        fitted, held_out = split_rows(X, self.calibration, self.random_state)
        rows, labels = take_rows(X, fitted), take_rows(y, fitted)
        self._fit_energies(rows, labels, context)
        if self.trim:
            kept = self._most_typical(rows)
            self._fit_energies(take_rows(rows, kept), take_rows(labels, kept), context)
        if held_out is not None:
            scores = self._member_scores(take_rows(X, held_out), finite=True)
            self.calibration_scores_ = np.sort(self._combine(scores).astype(np.float64))
        self._set_threshold(X)

    def _most_typical(self, X: Any) -> NDArray[np.int64]:
        """Indices of the rows that a trimmed fit keeps, ascending; at least two."""
        scores = self._combine(self._member_scores(X, finite=True))
        n_left_out = min(int(self.trim * len(scores)), len(scores) - 2)
        return np.sort(np.argsort(scores, kind="stable")[max(n_left_out, 0) :])

    def _set_threshold(self, X: Any) -> None:
        """Set the threshold from the scores of all rows."""
        scores = self._member_scores(X, finite=True)
        for name, column in zip(self.named_estimators_, scores.T, strict=True):
            if len(column) > 1 and column.min() == column.max():
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
            Higher is more typical: the estimator's own scores if there is one, else the mean of
            the two lowest log shares of training rows that are as atypical, in nats.
        """
        check_is_fitted(self)
        self._check_names(X)
        if len(self.named_estimators_) == 1:
            ((name, member),) = self.named_estimators_.items()
            return checked_scores(name, member, X)
        if hasattr(self, "location_"):
            return self._map_default(X, self._combine)  # no matrix of all members' scores
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

    def _check_state(self) -> None:
        """Raise ValueError if a fitted detector's attributes do not fit each other."""
        if not fitted_attributes(self):
            return
        check_input_names(self)
        width, members = self.n_features_in_, getattr(self, "named_estimators_", {})
        automatic = hasattr(self, "location_")
        per_feature = {name: Array("f", (width,)) for name in ("location_", "scale_")}
        per_feature["feature_quantiles_"] = Array("f", (width, None))
        calibrated = {"calibration_scores_": Array("f", (None,))}
        spec: Spec = {
            "named_estimators_": Estimators(width),
            "training_quantiles_": Array("f", (len(members), None)),
            "offset_": Scalar(float),
            **(per_feature if automatic else {}),
            **(calibrated if hasattr(self, "calibration_scores_") else {}),
        }
        check_attributes(self, spec)
        for name in ("training_quantiles_", "calibration_scores_", "feature_quantiles_"):
            values = getattr(self, name, None)
            if values is not None and (not values.size or (np.diff(values) < 0).any()):
                raise ValueError(f"{name} must ascend.")
        if automatic and not (self.scale_ > 0).all():
            raise ValueError("scale_ must be positive.")
