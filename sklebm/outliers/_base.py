"""Bases of detectors and of scores beyond raw likelihood: one score per row."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import OutlierMixin, clone
from sklearn.utils import ClassifierTags
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.arrays import to_numpy
from sklebm._shell.available import available_if
from sklebm._shell.private import HasMethods, StrOptions, fit_context
from sklebm._shell.state import (
    Estimators,
    Spec,
    check_attributes,
    check_input_names,
    fitted_attributes,
)
from sklebm.composite import CompositeEstimator
from sklebm.linear import PCAWhitener
from sklebm.outliers._calibration import discoveries, labels_of, p_values_of
from sklebm.outliers._conformal import check_level
from sklebm.outliers._members import checked_scores, require_scores


def _is_calibrated(detector: Any) -> bool:
    if detector.calibration is not None:
        return True
    raise AttributeError(
        "it needs calibration rows: set calibration=0.2, for example, and fit again."
    )


class CalibratedDetector(OutlierMixin, CompositeEstimator):
    """Base of detectors with a threshold, ``offset_``, and scores of held-out rows."""

    calibration: float | None
    offset_: float
    training_scores_: NDArray[Any]
    calibration_scores_: NDArray[np.float64]

    @property
    def estimator_(self) -> Any:
        """The fitted estimator, if there is only one."""
        if len(self.named_estimators_) != 1:
            raise AttributeError(
                f"This {type(self).__name__} combines {len(self.named_estimators_)} estimators: "
                "see named_estimators_."
            )
        return self.estimators_[0]

    @property
    def labels_(self) -> Any:
        """1 or -1 for the rows given to ``fit``."""
        if not hasattr(self, "training_scores_"):
            raise AttributeError(
                f"This {type(self).__name__} keeps no labels of training rows, because it is not "
                "fitted or saw too many of them: call predict(X)."
            )
        return labels_of(self.training_scores_ - self.offset_ >= 0)

    @abstractmethod
    def score_samples(self, X: Any) -> Any:
        """Return how typical each row of X is; higher is more typical."""

    @abstractmethod
    def decision_function(self, X: Any) -> Any:
        """Return ``score_samples(X) - offset_``: negative for outliers."""

    def _labels(self, X: Any, alpha: float | None) -> Any:
        """1 for inliers and -1 for outliers, by the threshold or at a level of the p-values."""
        if alpha is None:
            return labels_of(self.decision_function(X) >= 0)
        level = check_level("alpha", alpha, len(self._calibrated_scores()))
        return labels_of(self.p_values(X) > level)

    def p_values(self, X: Any) -> Any:
        r"""Return a conformal p-value for each row: small for outliers.

        .. math:: p(x) = \frac{1 + |\{i : s(x_i) \le s(x)\}|}{n + 1}

        over the n calibration rows :math:`x_i`. For a row that is exchangeable with them, :math:`a
        - 1/(n + 1) < P(p \le a) \le a` whatever the estimator (the lower bound if scores are not
        tied), on average over calibration draws.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to judge.

        Returns
        -------
        p_values : array or tensor of shape (n_samples,)
            In [1 / (n + 1), 1].

        Raises
        ------
        ValueError
            If the detector was fitted with ``calibration=None``.
        """
        calibration = self._calibrated_scores()
        return p_values_of(self.score_samples(X), calibration)

    @available_if(_is_calibrated)
    def predict_proba(self, X: Any) -> Any:
        """Return 1 - p and p for each row, where p is its conformal p-value.

        The first column is the share of calibration rows that are more typical than the row, not
        the probability that the row is an outlier, which depends on how common outliers are.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to judge.

        Returns
        -------
        probabilities : array or tensor of shape (n_samples, 2)
            Outlier (-1) and inlier (1), in the sorted order of the classes; rows sum to 1.

        Raises
        ------
        AttributeError
            With ``calibration=None``.
        """
        p_values = self.p_values(X)
        if isinstance(p_values, torch.Tensor):
            return torch.stack([1 - p_values, p_values], dim=1)
        return np.stack([1 - p_values, p_values], axis=1)

    def predict_fdr(self, X: Any, fdr: float = 0.1) -> Any:
        """Return -1 for rows of which at most a share ``fdr`` are expected to be inliers.

        This is the Benjamini-Hochberg procedure on the p-values: which rows are called outliers
        depends on all rows of X, although each p-value depends only on its own row. The rate holds
        on average over calibration draws, for independent rows whose inliers are distributed like
        the calibration rows [1]_; with a contaminated calibration set, fewer outliers are found.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to judge together.
        fdr : float, default=0.1
            Expected share of inliers among the rows called outliers, in
            [1 / (n_calibration + 1), 1).

        Returns
        -------
        labels : array or tensor of shape (n_samples,)
            1 or -1. All 1 if no set of rows reaches the rate: to call k of m rows outliers, their
            p-values must be at most k fdr / m.

        Raises
        ------
        ValueError
            If the detector was not calibrated, or ``fdr`` is smaller than the smallest p-value.

        References
        ----------
        .. [1] S. Bates, E. Candes, L. Lei, Y. Romano and M. Sesia, "Testing for outliers with
           conformal p-values", Annals of Statistics 51, 2023.
        """
        level = check_level("fdr", fdr, len(self._calibrated_scores()))
        return discoveries(self.p_values(X), level)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Whatever has predict_proba must know its number of classes: inliers and outliers.
        tags.classifier_tags = ClassifierTags(multi_class=False)
        return tags

    def _calibrated_scores(self) -> NDArray[np.float64]:
        check_is_fitted(self)
        if not hasattr(self, "calibration_scores_"):
            raise ValueError(
                f"This {type(self).__name__} has no calibration rows, which p-values need: set "
                "calibration=0.2, for example, and fit again."
            )
        return self.calibration_scores_

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean of ``score_samples(X)``.

        It is comparable between detectors only if the scores of their estimators are; otherwise
        choose with :func:`~sklebm.metrics.make_ood_scorer`.

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


class EnergyScorer(CompositeEstimator):
    """Base of meta-estimators that turn fitted estimators into a new ``score_samples``."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [StrOptions({"auto"}), HasMethods("fit")]
    }

    @property
    def estimator_(self) -> Any:
        """The fitted estimator."""
        return self.named_estimators_["estimator"]

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the underlying estimators.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Training rows, in any form that the estimators accept.
        y : object, default=None
            Passed to the estimators' ``fit``, which ignores it if they are unsupervised.

        Returns
        -------
        self : object
            The fitted scorer. An exception or an interrupt leaves it as it was before.
        """
        return self._learn(X, self._fit, y=y)  # type: ignore[no-any-return]

    def _density(self) -> Any:
        """A clone of the requested estimator with log densities."""
        if isinstance(self.estimator, str):
            return PCAWhitener()  # a Gaussian with all correlations
        require_scores("estimator", self.estimator, type(self).__name__)
        return clone(self.estimator)

    def _map_values(self, X: Any, score: Callable[[Any], Any]) -> Any:
        """``score`` of whatever the inner estimators see of X, chunk by chunk, as the kind of X."""
        check_is_fitted(self)

        def apply(chunk: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(np.asarray(score(_plain(chunk)))).to(chunk.device)

        return self._stream(X, apply)

    def _scores_of(self, name: str, values: Any) -> Any:
        member = self.named_estimators_[name]
        return to_numpy(checked_scores(name, member, values)).astype(np.float64)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean of ``score_samples(X)``.

        To choose parameters, use :func:`~sklebm.metrics.make_ood_scorer`: mean scores are
        comparable neither between estimators nor between scorers.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.

        Returns
        -------
        score : float
            Mean over the rows.
        """
        return float(self.score_samples(X).mean())

    def _state_spec(self) -> Spec:
        """What the subclass stores besides its estimators."""
        return {}

    def _check_state(self) -> None:
        """Raise ValueError if a fitted scorer's attributes are inconsistent."""
        if fitted_attributes(self):
            check_input_names(self)
            members: Spec = {"named_estimators_": Estimators(self.n_features_in_)}
            check_attributes(self, {**members, **self._state_spec()})


def _plain(values: torch.Tensor) -> Any:
    """Rows in a form any estimator accepts: NumPy on the CPU, tensors on another device."""
    return values.numpy() if values.device.type == "cpu" else values
