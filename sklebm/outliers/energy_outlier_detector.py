r"""An inlier has s(x) >= t, a quantile of training scores; s = (log u_(1) + log u_(2)) / 2."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.arrays import count_rows, to_numpy
from sklebm._shell.private import (
    HasMethods,
    Interval,
    StrOptions,
    check_sample_weight,
    fit_context,
)
from sklebm._shell.rows import Rows
from sklebm._shell.state import (
    Array,
    Estimators,
    Scalar,
    Spec,
    check_attributes,
    check_input_names,
    fitted_attributes,
)
from sklebm._shell.warning import warn
from sklebm.composite import MemberFits
from sklebm.outliers._base import CalibratedDetector
from sklebm.outliers._calibration import split_rows, take_rows
from sklebm.outliers._default import FITTED_ROWS, default_members, drawn_rows, fit_default
from sklebm.outliers._ensemble import Ensemble
from sklebm.outliers._members import given_members
from sklebm.outliers._surprise import after_lowest, percentile
from sklebm.outliers._views import View

_AUTO_CONTAMINATION = 0.005
_VIEW = ("location_", "scale_", "feature_quantiles_", "one_hot_blocks_", "category_scores_")
_SCORED_ROWS = 30_000  # the default's threshold is based on at most this many rows
_KEPT_SCORES = 100_000  # with more rows, training scores are not kept


class EnergyOutlierDetector(CalibratedDetector):
    r"""Outlier detection with any energy, or with several on one scale.

    A row is an inlier if its score is at least ``offset_``, a quantile of the training rows'
    scores. A single estimator keeps its own scores. Several are combined by how surprising each of
    them finds the row,

    .. math:: s(x) = \tfrac12 \left( \log u_{(1)} + \log u_{(2)} \right), \qquad
              u_m = \frac1n \sum_{i=1}^n [s_m(x_i) \le s_m(x)],

    where :math:`u_m` is the share of the n training rows that member m scores as low or lower, and
    :math:`u_{(1)} \le u_{(2)}` are the two lowest shares. In nats: 0 for the most typical row, -4.6
    if one training row in a hundred is as atypical. Beyond the training scores, shares follow an
    exponential tail, so that the ranking never saturates.

    Parameters
    ----------
    estimator : "auto", estimator or list of (str, estimator), default="auto"
        Any estimator with ``score_samples``, from this library or scikit-learn, pipelines included;
        or a list of named ones to combine. "auto" combines four energies of a table: of single
        features (``marginals``), of a Gaussian fitted to the most compact three quarters of the
        rows (``core``), of groups (``mixture``, up to 8 Gaussians) and of neighbourhoods
        (``neighbours``, which **stores up to 2,000 rows**).
    contamination : "auto" or float in (0, 0.5], default="auto"
        Share of the training rows that ``predict`` calls outliers; "auto" is 0.005.
    trim : float in [0, 0.5], default=0
        Share of the rows to leave out of a second fit, those least typical in a first fit. For
        training rows that contain many outliers. A weight of m counts as m rows.
    calibration : float in (0, 1) or None, default=None
        Share of the rows to hold out for ``p_values``, ``predict(X, alpha=...)``, ``predict_fdr``
        and ``predict_proba``. They should contain no outliers. None fits all rows.
    random_state : int, RandomState instance or None, default=None
        Seed for drawing the held-out rows.

    Attributes
    ----------
    offset_ : float
        The threshold: the ``100 * contamination`` percentile of the scores of all rows given to
        ``fit``; with "auto", of at most 30,000 of them.
    training_scores_ : ndarray of shape (n_samples,)
        Scores of the rows given to ``fit``. Not set if only some of the rows were scored, or there
        were more than 100,000.
    labels_ : ndarray of shape (n_samples,)
        1 or -1 for the same rows: what ``fit_predict`` returns.
    named_estimators_ : dict
        The fitted estimators by name. With "auto" they expect the scaled features.
    estimator_ : estimator
        The fitted estimator, if there is only one.
    training_quantiles_ : ndarray of shape (n_estimators, n_quantiles)
        Sorted quantiles of each estimator's training scores, at most 1,000.
    location_, scale_ : ndarray of shape (n_features_in_,)
        Median and interquartile range of the features; only with "auto".
    feature_quantiles_ : ndarray of shape (n_features_in_, n_quantiles)
        At most 1,000 sorted training values of each feature; only with "auto".
    one_hot_blocks_ : ndarray of shape (n_blocks, 2)
        First column of each one-hot block and the one after its last; only with "auto".
    category_scores_ : ndarray of shape (n_features_in_,)
        How rare each category is, 0 for columns outside blocks; only with "auto".
    calibration_scores_ : ndarray of shape (n_calibration,)
        Sorted scores of the rows held out; only with ``calibration``.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    sklebm.metrics.make_ood_scorer : Measures a detector on known outliers, for a search.

    Notes
    -----
    The threshold marks a share of the training rows and does not guarantee an error rate: new rows
    fall below it more often if the estimator fits its training rows closely. With calibration, the
    error rate is guaranteed. Every score depends only on its own row.

    With "auto", a fit costs O(k d^2) for each of at most 50 EM steps on k = min(n, 10,000) rows.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import EnergyOutlierDetector
    >>> X = np.random.default_rng(0).normal(size=(500, 2)) @ [[1.0, 0.9], [0.0, 0.1]]
    >>> detector = EnergyOutlierDetector(contamination=0.01).fit(X)
    >>> detector.predict([[1.0, 0.9], [1.0, -0.9]])  # the correlation is broken in the second
    array([ 1, -1])
    """

    # Weights are passed on, as in scikit-learn's meta-estimators: they can be requested.
    __metadata_request__fit: ClassVar[dict[str, Any]] = {"sample_weight": None}

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

    @property
    def _reads_numbers(self) -> bool:
        return isinstance(self.estimator, str)

    _accepts_sparse = True
    _min_rows_fit = 2

    # ------------------------------------------------------------------ learning

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> Self:
        """Fit the estimators and set the threshold.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Training rows, in any form that the estimators accept.
        y : object, default=None
            Passed to the estimators' ``fit``, which ignores it if they are unsupervised.
        **fit_params : dict
            ``sample_weight`` of shape (n_samples,): weights of the rows, for the estimators and the
            threshold. Weights have no effect on held-out rows: each is drawn with the same
            probability and counts once.

        Returns
        -------
        self : object
            The fitted detector. An exception or an interrupt leaves it as it was before.
        """
        unknown = sorted(set(fit_params) - {"sample_weight"})
        if unknown:
            raise TypeError(f"fit takes X, y and sample_weight, but got {', '.join(unknown)}.")
        weight = fit_params.get("sample_weight")
        return self._learn(X, self._fit, y=y, sample_weight=weight)  # type: ignore[no-any-return]

    def _max_steps(self, X: Any) -> int:
        automatic = isinstance(self.estimator, str)
        inside = default_members(2, 1) if automatic else self.estimator
        return (2 if self.trim else 1) * (len(inside) if isinstance(inside, list) else 1)

    def _fit(self, X: Any, members: MemberFits, **data: Any) -> dict[str, Any]:
        weights = data["sample_weight"]
        if weights is not None:
            shape = np.empty((count_rows(X), 1))
            weights = check_sample_weight(
                weights, shape, dtype=np.float64, ensure_non_negative=True
            )
        fitted, held_out = split_rows(X, self.calibration, self.random_state)
        rows, labels, seen = (take_rows(part, fitted) for part in (X, data["y"], weights))
        ensemble = self._fit_energies(rows, labels, seen, members)
        if self.trim:
            scores = to_numpy(ensemble.scores(rows, finite=True))
            kept, seen = after_lowest(scores, float(self.trim), seen)
            rows, labels = (take_rows(part, kept) for part in (rows, labels))
            ensemble = self._fit_energies(rows, labels, seen, members)
        state = self._threshold(X, weights, ensemble)
        if held_out is not None:
            scores = to_numpy(ensemble.scores(take_rows(X, held_out), finite=True))
            state["calibration_scores_"] = np.sort(scores.astype(np.float64))
        return state

    def _fit_energies(self, X: Any, y: Any, weights: Any, members: MemberFits) -> Ensemble:
        """All estimators, fitted to these rows and compared by their scores of them."""
        if isinstance(X, Rows):
            some = take_rows(X, drawn_rows(len(X), FITTED_ROWS, weights))
            return fit_default(some, members).with_scale(some)
        named = given_members(self.estimator, type(self).__name__)
        self._validate_names([name for name, _ in named])
        inside = {name: members.fit(name, member, X, y, weights) for name, member in named}
        return Ensemble(inside).with_scale(X, weights)

    def _threshold(self, X: Any, weights: Any, ensemble: Ensemble) -> dict[str, Any]:
        """All fitted attributes except the calibration's; the threshold counts all rows."""
        some = drawn_rows(len(X), _SCORED_ROWS) if isinstance(X, Rows) else None
        table = ensemble.member_scores(take_rows(X, some), finite=True)
        for name, column in zip(ensemble.members, table.T, strict=True):
            if len(column) > 1 and column.min() == column.max():
                warn(f"{name!r} gives all training rows the same score: it cannot tell them apart.")
        scores = ensemble.combine(table)
        share = _AUTO_CONTAMINATION if isinstance(self.contamination, str) else self.contamination
        state: dict[str, Any] = {
            "named_estimators_": ensemble.members,
            "training_quantiles_": ensemble.quantiles,
            "offset_": percentile(scores, float(share), take_rows(weights, some)),
        }
        if some is None and len(scores) <= _KEPT_SCORES:
            state["training_scores_"] = scores
        if ensemble.view is not None:
            named = zip(_VIEW, ensemble.view, strict=True)
            state |= {name: value for name, value in named if value is not None}
        return state

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
            Higher is more typical: a single estimator's own scores, or else the mean of the two
            lowest log shares of training rows that are as atypical, in nats.
        """
        check_is_fitted(self)
        self._check_names(X)
        view = None
        if hasattr(self, "location_"):
            found: list[Any] = [getattr(self, name, None) for name in _VIEW]
            view = View(*found)
            X = self._open(X, self, reset=False)
        return Ensemble(self.named_estimators_, self.training_quantiles_, view).scores(X)

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

    def predict(self, X: Any, alpha: float | None = None) -> Any:
        """Return 1 for inliers and -1 for outliers.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to judge.
        alpha : float, default=None
            Share of inliers that may be called outliers, in [1 / (n_calibration + 1), 1): a row is
            an outlier if its p-value is at most ``alpha``. None: if its ``decision_function`` is
            negative.

        Returns
        -------
        labels : array or tensor of shape (n_samples,)
            1 or -1.

        Raises
        ------
        ValueError
            If ``alpha`` is given and the detector was not calibrated, or ``alpha`` is smaller than
            the smallest p-value.
        """
        return self._labels(X, alpha)

    def _check_state(self) -> None:
        """Raise ValueError if a fitted detector's attributes are inconsistent."""
        if not fitted_attributes(self):
            return
        check_input_names(self)
        width, members = self.n_features_in_, getattr(self, "named_estimators_", {})
        automatic = hasattr(self, "location_")
        seen = {name: Array("f", (width,)) for name in ("location_", "scale_")}
        seen |= {
            "feature_quantiles_": Array("f", (width, None)),
            "one_hot_blocks_": Array("i", (None, 2), optional=True),
            "category_scores_": Array("f", (width,), optional=True),
        }
        spec: Spec = {
            "named_estimators_": Estimators(width),
            "training_quantiles_": Array("f", (len(members), None)),
            "offset_": Scalar(float),
            "training_scores_": Array("f", (None,), optional=True),
            "calibration_scores_": Array("f", (None,), optional=True),
            **(seen if automatic else {}),
        }
        check_attributes(self, spec)
        for name in ("training_quantiles_", "calibration_scores_", "feature_quantiles_"):
            values = getattr(self, name, None)
            if values is not None and (not values.size or (np.diff(values) < 0).any()):
                raise ValueError(f"{name} must ascend.")
        if automatic and not (self.scale_ > 0).all():
            raise ValueError("scale_ must be positive.")
