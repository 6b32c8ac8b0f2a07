"""Bridge from a training loop to scikit-learn's callbacks (progress bars, monitors).

A loop calls ``begin()`` before and ``end(state)`` after each pass over the data. Without
callbacks both cost one attribute look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

State = Mapping[str, Any]


class Progress:
    """The task tree of one ``fit``: a root task and at most ``max_steps`` steps below it.

    Parameters
    ----------
    estimator : EnergyEstimator
        The estimator being fitted.
    X : object
        The training data as the caller gave it; callbacks receive it untouched.
    max_steps : int
        Upper bound on the number of ``begin`` calls; 0 for a closed-form fit.
    names : mapping
        ``n_features_in_`` and ``feature_names_in_``, which the snapshots need as well.
    step_name : str
        What one step is called in a progress bar.
    """

    def __init__(
        self, estimator: Any, X: object, max_steps: int, names: State, step_name: str
    ) -> None:
        self._estimator = estimator
        self._X = X
        self._names = names
        self._step_name = step_name
        self._root = estimator._init_callback_context(max_subtasks=max_steps)
        self._step: Any = None
        #: True once a callback has asked the fit to stop.
        self.stopped = False
        self._listening = bool(getattr(estimator, "_skl_callbacks", ()))

    def begin_fit(self) -> None:
        """Announce the fit as a whole."""
        self._root.call_on_fit_task_begin(estimator=self._estimator, X=self._X)

    def end_fit(self, state: State) -> None:
        """Announce the end of the fit, before its result is committed to the estimator."""
        self._root.call_on_fit_task_end(
            estimator=self._estimator,
            X=self._X,
            reconstruction_attributes=self._whole(state),
        )

    def begin(self) -> None:
        """Announce one step (an epoch or an iteration)."""
        if self._listening:
            self._step = self._root.subcontext(task_name=self._step_name)
            self._step.call_on_fit_task_begin(estimator=self._estimator, X=self._X)

    def end(self, state: Callable[[], State], **metadata: Any) -> bool:
        """Announce the end of a step; True when a callback asks the fit to stop.

        ``state`` is called only if some callback wants a fitted estimator, so that a loop
        nobody watches never pays for a snapshot.
        """
        if not self._listening:
            return False
        self.stopped |= bool(
            self._step.call_on_fit_task_end(
                estimator=self._estimator,
                X=self._X,
                metadata=metadata,
                reconstruction_attributes=lambda: self._whole(state()),
            )
        )
        return self.stopped

    def _whole(self, state: State) -> State:
        """What makes a fitted copy: all of its attributes, so that none of an earlier fit stay."""
        return {"__dict__": {**self._estimator._unfitted_dict(), **self._names, **state}}
