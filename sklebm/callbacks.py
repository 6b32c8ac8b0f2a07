"""Monitors for scikit-learn's callback API that need no labels.

``estimator.set_callbacks(EnergyMonitor(X_val))`` records a held-out score after every epoch;
``sklearn.callback.ProgressBar`` can be used with it.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

from sklearn.callback import ScoringMonitor

__all__ = ["EnergyMonitor"]


def _recorded(estimator: Any, value: float, y: Any) -> float:
    """Scorer in ScoringMonitor's form for a score that was computed before."""
    return float(value)


def _need_groups(estimator: Any) -> None:
    """Raise ValueError if the score of a model does not use groups."""
    if "groups" not in signature(estimator._monitor_score).parameters:
        raise ValueError(
            "EnergyMonitor was given groups, but what it records of "
            f"{type(estimator).__name__} does not depend on them: leave groups out."
        )


class EnergyMonitor(ScoringMonitor):
    """Score of held-out rows after every epoch or iteration, with early stopping.

    scikit-learn's own ScoringMonitor scores the training data and records nothing without y. This
    monitor scores separate rows and needs no y.

    Parameters
    ----------
    X_val : array-like of shape (n_samples, n_features)
        Held-out rows.
    groups : array-like of shape (n_samples,) or None, default=None
        Sequence of each held-out row, for models whose own score looks at other rows of the
        sequence, such as SequenceEnergy. None: all of them are one sequence.
    scoring : callable or None, default=None
        ``scoring(fitted_estimator, X_val)`` returns a float; higher is better. None uses the score
        that the estimator itself can compare between epochs: ``score`` or, for models without a
        normaliser during training, their held-out objective (for BernoulliRBM, the log
        pseudo-likelihood in nats).
    patience : int or None, default=None
        Stop the fit when the score has not improved for this many steps; None never stops it.
    tol : float, default=0.0
        Minimum absolute improvement that counts as progress, in the units of the score.

    Raises
    ------
    ValueError
        If ``groups`` is given with ``scoring``, which must know the groups itself, or, at the start
        of ``fit``, for a model whose score does not use groups.

    See Also
    --------
    sklearn.callback.ScoringMonitor : The same for supervised scores on the training data.

    Notes
    -----
    Each step costs a snapshot of the fitted parameters and one evaluation of ``scoring``.
    ``get_logs()`` returns the scores by step, including those from the worker processes of a
    search.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import BernoulliRBM
    >>> from sklebm.callbacks import EnergyMonitor
    >>> X = (load_digits().data > 8).astype("float32")
    >>> monitor = EnergyMonitor(X[1500:], patience=2)
    >>> rbm = BernoulliRBM(16, max_epochs=3, random_state=0).set_callbacks(monitor)
    >>> rbm = rbm.fit(X[:1500])
    >>> scores = [row["score"] for row in monitor.get_logs().data]
    >>> len(scores), scores[-1] > scores[0]
    (3, True)
    """

    def __init__(
        self,
        X_val: Any,
        *,
        groups: Any = None,
        scoring: Callable[[Any, Any], float] | None = None,
        patience: int | None = None,
        tol: float = 0.0,
    ) -> None:
        if patience is not None and patience < 1:
            raise ValueError(f"patience={patience} must be at least 1, or None.")
        if groups is not None and scoring is not None:
            raise ValueError(
                "groups is passed to the score of the model, not to a function: leave groups out, "
                "and let scoring use the groups itself, or leave scoring out."
            )
        super().__init__(scoring={"score": _recorded})
        self.X_val = X_val
        self.groups = groups
        self.patience = patience
        self.tol = tol
        self._score = scoring
        self._courses: dict[int, tuple[float, int]] = {}
        self._latest: dict[int, float] = {}

    def setup(self, estimator: Any, context: Any) -> None:
        """Begin a new run: forget the best score of an earlier fit."""
        if self.groups is not None:
            _need_groups(estimator)
        super().setup(estimator, context)
        self._courses[id(estimator)] = (float("-inf"), 0)

    def teardown(self, estimator: Any, context: Any) -> None:
        """End the run."""
        super().teardown(estimator, context)
        self._courses.pop(id(estimator), None)
        self._latest.pop(id(estimator), None)

    def on_fit_task_end(
        self,
        estimator: Any,
        context: Any,
        *,
        fitted_estimator: Any = None,
    ) -> bool:
        """Score the model after this step; return True to request that the fit stops."""
        is_whole_fit = context.task_name in ("fit", "partial_fit")
        if fitted_estimator is None or is_whole_fit:
            return False
        if self._score is not None:
            value = float(self._score(fitted_estimator, self.X_val))
        else:
            beside = {} if self.groups is None else {"groups": self.groups}
            value = float(fitted_estimator._monitor_score(self.X_val, **beside))
        super().on_fit_task_end(
            estimator, context, X=value, y=value, fitted_estimator=fitted_estimator
        )
        self._latest[id(estimator)] = value
        best, waited = self._courses[id(estimator)]
        best, waited = (value, 0) if value > best + self.tol else (best, waited + 1)
        self._courses[id(estimator)] = (best, waited)
        return self.patience is not None and waited >= self.patience

    def latest_score(self, estimator: Any) -> float | None:
        """Return the score after the latest step of a fit in progress.

        Parameters
        ----------
        estimator : object
            The estimator being fitted.

        Returns
        -------
        score : float or None
            The value that ``verbose`` prints next to the objective; None before the end of the
            first step.
        """
        return self._latest.get(id(estimator))
