"""Bridge from a training loop to scikit-learn's callbacks (progress bars, monitors) and to text.

A loop calls ``begin()`` before and ``end(state)`` after each pass over the data. Without callbacks
and ``verbose``, each costs one attribute look-up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cache
from inspect import signature
from typing import Any

from sklebm._shell.ranks import ALONE, Ranks

State = Mapping[str, Any]
Report = Callable[[], Mapping[str, float]]


class Progress:
    """The task tree of one ``fit``: a root task and at most ``max_steps`` steps below it.

    Parameters
    ----------
    estimator : EnergyEstimator
        The estimator being fitted.
    X : object
        The training data as passed by the caller; callbacks receive it unchanged.
    max_steps : int
        Upper bound on the number of ``begin`` calls; 0 for a closed-form fit.
    names : mapping
        ``n_features_in_`` and ``feature_names_in_``, which snapshots also need.
    step_name : str
        Name of a step in progress bars.
    ranks : Ranks
        The processes of the fit: they all stop when a callback in any of them requests it.
    y : object, default=None
        What models inside the estimator are fitted with beside X, if it is made of models.
    """

    def __init__(
        self,
        estimator: Any,
        X: object,
        max_steps: int,
        names: State,
        step_name: str,
        ranks: Ranks = ALONE,
        y: object = None,
    ) -> None:
        self._estimator = estimator
        self._X = X
        self._y = y
        self._names = names
        self._step_name = step_name
        self._root = estimator._init_callback_context(max_subtasks=max_steps)
        self._step: Any = None
        #: True once a callback has requested a stop.
        self.stopped = False
        self._callbacks = getattr(estimator, "_skl_callbacks", ())
        self._listening = bool(self._callbacks)
        # Only rank 0 prints, but the values may need sums over all ranks.
        self._verbose = bool(ranks.first(getattr(estimator, "verbose", 0)))
        self._n_steps = 0
        self._began = 0.0
        self._ranks = ranks
        self._shared = ranks.size > 1 and ranks.any(self._listening)
        self._models_are_read = self._shared and ranks.any(any(map(_reads_models, self._callbacks)))

    def begin_fit(self) -> None:
        """Announce the fit as a whole."""
        self._root.call_on_fit_task_begin(estimator=self._estimator, X=self._X, y=self._y)

    def end_fit(self, state: State) -> None:
        """Announce the end of the fit, before its result is committed to the estimator."""
        self._root.call_on_fit_task_end(
            estimator=self._estimator,
            X=self._X,
            y=self._y,
            reconstruction_attributes=self._whole(state),
        )

    def begin(self) -> None:
        """Announce one step (an epoch or an iteration)."""
        self._began = time.perf_counter()
        if self._listening:
            self._step = self._root.subcontext(task_name=self._step_name)
            self._step.call_on_fit_task_begin(estimator=self._estimator, X=self._X)

    def end(self, state: Callable[[], State], report: Report | None = None) -> bool:
        """Announce the end of a step; True if a callback requests a stop.

        ``state`` is called only if a callback wants a fitted estimator, and ``report`` (the
        objective keyed by its name) only with ``verbose``, so an unobserved loop pays for neither
        a snapshot nor an objective.
        """
        if self._shared:
            if self._models_are_read:
                # It may need sums over all ranks, so ranks whose callbacks do not ask take part.
                state = cache(state)
                state()
            self.stopped |= self._ranks.any(self._tell(state))
        elif self._listening:
            self.stopped |= self._tell(state)
        if report is not None and self._verbose:
            self.write(report())
        return self.stopped

    def held_out_score(self) -> float | None:
        """Return the score of this step from the last monitor that scores held-out rows."""
        scores = [
            getattr(callback, "latest_score", _no_score)(self._estimator)
            for callback in self._callbacks
        ]
        return next((score for score in reversed(scores) if score is not None), None)

    def _tell(self, state: Callable[[], State]) -> bool:
        """Call the callbacks of this process; True if one of them requests a stop."""
        if not self._listening:
            return False
        return bool(
            self._step.call_on_fit_task_end(
                estimator=self._estimator,
                X=self._X,
                reconstruction_attributes=lambda: self._whole(state()),
            )
        )

    def write(self, values: Mapping[str, float]) -> None:
        """With ``verbose``, print a line in skorch's style: step number, values, seconds."""
        if not self._verbose or self._ranks.rank > 0:
            return
        seconds, self._began = time.perf_counter() - self._began, time.perf_counter()
        score = self.held_out_score()
        if score is not None:
            values = {**values, "valid_score": score}
        self._n_steps += 1
        cells = {self._step_name: str(self._n_steps)}
        cells |= {name: f"{value:.6g}" for name, value in values.items()}
        cells["dur"] = f"{seconds:.4f}"
        widths = [max(len(name), 10) for name in cells]
        heading = [list(cells), ["-" * width for width in widths]] if self._n_steps == 1 else []
        for line in [*heading, list(cells.values())]:
            pairs = zip(line, widths, strict=True)
            text = "  ".join(f"{cell:>{width}}" for cell, width in pairs)
            print(text, flush=True)  # noqa: T201

    def _whole(self, state: State) -> State:
        """Attributes of a fitted copy: all of them, so that none of an earlier fit remain."""
        return {"__dict__": {**self._estimator._unfitted_dict(), **self._names, **state}}


def _reads_models(callback: Any) -> bool:
    return "fitted_estimator" in signature(callback.on_fit_task_end).parameters


def _no_score(estimator: Any) -> None:
    """Default for callbacks that record no held-out score."""
