"""The loop shared by models that iterate until convergence, from one start or several.

.. code-block:: text

    problem = _prepare(rows)                     once:  checked weights, chunks, given parameters
    for each of _n_starts():
        run = _start(problem, draw)              draw(purpose) is a generator for this start only
        until run.settled, max_iter or a callback that asks to stop:
            run = _step(problem, run)
        state = problem.state(run, n_iter)       every fitted attribute
    the state with the lowest _cost(state)

K-means, mixtures and similar models define these hooks; restarts, seeds, progress, verbose output,
early stopping and the warning about ``max_iter`` are handled here. Hooks return new values and do
not modify the estimator, so an interrupted fit leaves it unchanged.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import torch
from sklearn.exceptions import ConvergenceWarning

from sklebm._shell.progress import Progress
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import Rows
from sklebm._shell.warning import warn
from sklebm.base import EnergyEstimator

R_contra = TypeVar("R_contra", bound="Run", contravariant=True)
_ROUNDING = 1e-11  # of a cost, relative
#: ``draw(purpose)``: a random generator for one purpose within one start.
Draw = Callable[[str], torch.Generator]


class Run(Protocol):
    """State of one run: whatever the model needs for its next step."""

    @property
    def settled(self) -> bool:
        """Whether the last step ended the run."""


class Problem(Protocol[R_contra]):
    """Inputs common to all runs: rows with their weights, chunks, checked parameters."""

    def state(self, run: R_contra, n_iter: int) -> dict[str, Any]:
        """Every fitted attribute after ``n_iter`` steps."""

    def report(self, run: R_contra) -> Mapping[str, float]:
        """The objective keyed by its name, for ``verbose``."""


R = TypeVar("R", bound=Run)
P = TypeVar("P", bound=Problem[Any])


class IterativeEstimator(EnergyEstimator, Generic[P, R]):
    """Base class of models fitted by repeated steps over all rows, from random starts.

    A subclass defines the hooks below and has the parameters ``max_iter`` and ``random_state``, and
    ``n_init`` if it starts more than once. ``P`` is the shared problem, ``R`` the state of a run.
    """

    max_iter: int
    random_state: RandomState

    @abstractmethod
    def _prepare(self, rows: Rows, **data: Any) -> P:
        """Prepare the shared problem; check what the user passed with the rows."""

    @abstractmethod
    def _start(self, problem: P, draw: Draw) -> R:
        """Initial state of a run, before its first step."""

    @abstractmethod
    def _step(self, problem: P, run: R) -> R:
        """One iteration: the new state, and whether the run has converged."""

    def _cost(self, state: Mapping[str, Any]) -> float:
        """Cost of a run; the run with the lowest is kept. Needed with more than one start."""
        return 0.0

    def _finish(self, problem: P, run: R, state: dict[str, Any]) -> None:
        """Warn about problems found in the best run."""

    def _n_starts(self) -> int:
        """Number of runs."""
        return int(getattr(self, "n_init", 1))

    def _advice(self) -> str:
        """Message if the best run has not converged; empty if that is acceptable."""
        return (
            f"{type(self).__name__} did not converge in max_iter={self.max_iter} iterations: "
            "increase max_iter or tol."
        )

    def _max_steps(self, rows: Rows) -> int:
        return self._n_starts() * self.max_iter

    def _fit(self, rows: Rows, progress: Progress | None, **data: Any) -> dict[str, Any]:
        watch = progress or _Nobody()
        problem = self._prepare(rows, **data)
        seed = rows.ranks.first(draw_seed(self.random_state))
        best: tuple[R, dict[str, Any]] | None = None
        for index in range(self._n_starts()):
            run = self._start(problem, partial(make_generator, seed, index=index))
            run, state = self._iterate(problem, run, watch)
            if best is None or self._is_better(state, best[1]):
                best = run, state
            if watch.stopped:
                break
        if best is None:
            raise ValueError(f"{type(self).__name__} needs at least one start.")
        advice = "" if best[0].settled or watch.stopped else self._advice()
        if advice:
            warn(advice, ConvergenceWarning)
        self._finish(problem, *best)
        return best[1]

    def _is_better(self, state: dict[str, Any], best: dict[str, Any]) -> bool:
        """Whether a later run is better by more than rounding, which may vary between machines."""
        cost, least = self._cost(state), self._cost(best)
        return cost < least - _ROUNDING * abs(least)

    def _iterate(
        self, problem: P, run: R, progress: Progress | _Nobody
    ) -> tuple[R, dict[str, Any]]:
        """Take steps until the run converges or reaches the limit."""
        for n_iter in range(1, self.max_iter + 1):
            progress.begin()
            run = self._step(problem, run)
            state = partial(problem.state, run, n_iter)
            if progress.end(state, partial(problem.report, run)) or run.settled:
                break
        return run, state()


class _Nobody:
    """No callbacks: they see the first chunk of ``partial_fit`` as one step."""

    stopped = False

    def begin(self) -> None:
        """Do nothing at the start of a step."""

    def end(self, state: Callable[[], Any], report: Callable[[], Any]) -> bool:
        """Do nothing at the end of a step; never request a stop."""
        return False
