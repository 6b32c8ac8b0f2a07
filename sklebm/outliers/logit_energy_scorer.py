r"""F(x) = -T log sum_k exp(f_k(x) / T): the free energy of a classifier with logits f."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.private import Interval
from sklebm._shell.state import Scalar, Spec
from sklebm.composite import MemberFits
from sklebm.outliers._base import EnergyScorer
from sklebm.outliers._logits import logits, require_logits
from sklebm.outliers._members import checked_vector, require_instance


class LogitEnergyScorer(EnergyScorer):
    r"""Score rows by the free energy of a classifier: no model of the rows is needed.

    .. math:: F(x) = -T \log \sum_{k=1}^K e^{f_k(x) / T}, \qquad s(x) = -F(x),

    with the K logits f of the classifier. Probabilities depend only on differences of logits; their
    common level, which cancels in the softmax, is high where the classifier saw training rows, and
    is the score [1]_. A binary decision function f is taken as the logits (0, f).

    Parameters
    ----------
    estimator : "auto" or classifier, default="auto"
        A classifier whose logits come from the first of these that exists: its method ``logits``;
        its ``decision_function``; its ``predict_joint_log_proba``, log p(x, class), with which the
        score is log p(x); the output of a skorch net trained with ``CrossEntropyLoss`` or
        ``BCEWithLogitsLoss``. Pipelines and searches that end in one are included. Pass a
        classifier that is already in service as ``FrozenEstimator(classifier)``: nothing is
        refitted. "auto" is a :class:`~sklearn.linear_model.LogisticRegression`.
    temperature : float, default=1.0
        T, in units of the logits. As T approaches 0, the score becomes the largest logit.

    Attributes
    ----------
    temperature_ : float
        The temperature at the time of ``fit``.
    estimator_ : estimator
        The fitted classifier.
    named_estimators_ : dict
        The same under the name "estimator".
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    EnergyOutlierDetector : Adds a threshold, or p-values, to this score.
    sklearn.frozen.FrozenEstimator : Leaves an already fitted classifier unchanged.

    Notes
    -----
    Classifiers that give only probabilities are rejected: these sum to one, so the score would be
    log 1 for every row. Training does not constrain the level of the logits; if they grow with the
    distance from the origin, as those of linear models do along their weights, a distant row can
    score high. Evaluate the score on rows that you know to be outliers.

    Cost: that of the classifier, plus O(n K).

    References
    ----------
    .. [1] W. Liu, X. Wang, J. D. Owens and Y. Li, "Energy-based out-of-distribution detection",
       NeurIPS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.svm import SVC
    >>> from sklebm import EnergyOutlierDetector, LogitEnergyScorer
    >>> images, digits = load_digits(return_X_y=True)
    >>> known = digits < 5
    >>> scorer = LogitEnergyScorer(SVC()).fit(images[known][:600], digits[known][:600])
    >>> new, other = scorer.score_samples(images[known][600:]), scorer.score_samples(images[~known])
    >>> bool(new.mean() > other.mean())
    True
    >>> detector = EnergyOutlierDetector(scorer, calibration=0.3, random_state=0)  # with p-values
    >>> detector.fit(images[known], digits[known]).p_values(images[:5]).shape
    (5,)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EnergyScorer._parameter_constraints,
        "temperature": [Interval(Real, 0, None, closed="neither")],
    }

    temperature_: float

    def __init__(self, estimator: Any = "auto", *, temperature: float = 1.0) -> None:
        self.estimator = estimator
        self.temperature = temperature

    def _fit(self, X: Any, members: MemberFits, **data: Any) -> dict[str, Any]:
        if isinstance(self.estimator, str):
            member = _default_classifier()
        else:
            require_instance("estimator", self.estimator)
            require_logits(self.estimator)
            member = clone(self.estimator)
        members.fit("estimator", member, X, data["y"])
        require_logits(member)
        fitted: dict[str, Any] = {"named_estimators_": {"estimator": member}}
        if not hasattr(member, "n_features_in_"):  # not every classifier counts its features
            fitted["n_features_in_"] = int(np.shape(X)[1])
        return {**fitted, "temperature_": float(self.temperature)}

    def free_energy(self, X: Any) -> Any:
        """Return the free energy of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In units of the logits; lower is more typical.
        """
        return -self.score_samples(X)

    def score_samples(self, X: Any) -> Any:
        """Return minus the free energy of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            In units of the logits; higher is more typical.
        """
        check_is_fitted(self)
        self._check_names(X)
        values = logits(self.estimator_, X)
        scores = self.temperature_ * torch.logsumexp(values / self.temperature_, dim=1)
        checked_vector("estimator", self.estimator_, scores)
        return scores if isinstance(X, torch.Tensor) else scores.cpu().numpy()

    def _state_spec(self) -> Spec:
        return {"temperature_": Scalar(float, minimum=0.0)}

    def _tagged_members(self) -> list[Any]:
        return [_default_classifier()] if isinstance(self.estimator, str) else [self.estimator]


def _default_classifier() -> LogisticRegression:
    return LogisticRegression(max_iter=1000)
