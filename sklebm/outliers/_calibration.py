"""Answers with an error rate: p-values from held-out rows, and decisions made with them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from sklearn.base import OutlierMixin
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples, check_is_fitted

from sklebm._shell.arrays import to_numpy
from sklebm._shell.random import draw_seed
from sklebm.outliers._conformal import (
    benjamini_hochberg,
    calibration_size,
    check_level,
    conformal_p_values,
)

Indices = NDArray[np.int64]


class CalibratedDetector(OutlierMixin):
    """Base of detectors with ``decision_function``, ``score_samples`` and calibration scores."""

    calibration_scores_: NDArray[np.float64]

    @abstractmethod
    def score_samples(self, X: Any) -> Any:
        """Return how typical each row of X is; higher is more typical."""

    @abstractmethod
    def decision_function(self, X: Any) -> Any:
        """Return ``score_samples(X) - offset_``: negative for outliers."""

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
        if alpha is None:
            return _labels(self.decision_function(X) >= 0)
        level = check_level("alpha", alpha, len(self._calibrated_scores()))
        return _labels(self.p_values(X) > level)

    def p_values(self, X: Any) -> Any:
        r"""Return a conformal p-value for each row: small for outliers.

        .. math:: p(x) = \frac{1 + |\{i : s(x_i) \le s(x)\}|}{n + 1}

        over the n calibration rows :math:`x_i`. For a row that is exchangeable with them,
        :math:`a - 1/(n + 1) < P(p \le a) \le a` whatever the estimator (the lower bound if scores
        are not tied), on average over calibration draws.

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
        scores = self.score_samples(X)
        values = conformal_p_values(to_numpy(scores).astype(np.float64), calibration)
        on_tensor = isinstance(scores, torch.Tensor)
        return torch.from_numpy(values).to(scores.device) if on_tensor else values

    def predict_fdr(self, X: Any, fdr: float = 0.1) -> Any:
        """Return -1 for rows among which a share of at most ``fdr`` is expected to be inliers.

        The procedure of Benjamini and Hochberg on the p-values: which rows are called outliers
        depends on all rows of X, although each p-value depends on its row alone. The rate holds on
        average over calibration draws, for rows that are independent, of which the inliers are
        distributed as the calibration rows are [1]_; a contaminated calibration set finds fewer.

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
            1 or -1. All 1 if no set of rows reaches the rate: k outliers among m rows need
            p-values of at most k fdr / m.

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
        p_values = self.p_values(X)
        inlier = ~benjamini_hochberg(to_numpy(p_values), level)
        on_tensor = isinstance(p_values, torch.Tensor)
        return _labels(torch.from_numpy(inlier).to(p_values.device) if on_tensor else inlier)

    def _calibrated_scores(self) -> NDArray[np.float64]:
        check_is_fitted(self)
        if not hasattr(self, "calibration_scores_"):
            raise ValueError(
                f"This {type(self).__name__} has no calibration rows, which p-values are counted "
                "among: fit it with calibration=0.2, say."
            )
        return self.calibration_scores_


def _labels(inlier: Any) -> Any:
    if isinstance(inlier, torch.Tensor):
        return torch.where(inlier, 1, -1)
    return np.where(inlier, 1, -1)


def split_rows(
    X: Any, calibration: float | None, random_state: Any
) -> tuple[Indices | None, Indices | None]:
    """Indices of the rows to fit and of those held out, ascending; None, None: all, and no others.

    What is held out is drawn from ``random_state``.
    """
    if calibration is None:
        return None, None
    n_rows = _num_samples(X)
    size = calibration_size(n_rows, calibration)
    order = np.random.default_rng(draw_seed(random_state)).permutation(n_rows)
    return np.sort(order[size:]), np.sort(order[:size])


def take_rows(X: Any, chosen: Indices | None) -> Any:
    """Rows of an array, frame, tensor, sparse matrix or list; all of them, the same, for None."""
    if X is None or chosen is None:
        return X
    if scipy.sparse.issparse(X):
        return X.tocsr()[chosen]
    if isinstance(X, torch.Tensor):
        return X[torch.from_numpy(chosen).to(X.device)]
    if not (isinstance(X, list) or hasattr(X, "__getitem__")):
        X = np.asarray(X)  # it can be turned into an array, but not indexed
    return _safe_indexing(X, chosen)
