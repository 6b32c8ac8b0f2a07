"""Sequences among the rows, constraints on transitions, and iterations as steps of progress."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklebm._shell.progress import Progress
from sklebm._shell.rows import Rows
from sklebm.inference import linear_chain


def sequences(rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows sorted by sequence, and where the sequences start among them."""
    groups = rows.columns.get("groups")
    return linear_chain.sequence_order(None if groups is None else groups.cpu().numpy(), len(rows))


def read_allowed(given: Any, classes: NDArray[Any]) -> NDArray[np.bool_] | None:
    """The transitions that may occur, as an array of their own; None if all may."""
    if given is None:
        return None
    allowed = np.asarray(given)
    if allowed.shape != (len(classes),) * 2 or allowed.dtype.kind != "b":
        raise ValueError(
            f"allowed has shape {allowed.shape} and dtype {allowed.dtype}, but must hold True "
            f"or False for each pair of the {len(classes)} labels {classes.tolist()}."
        )
    return allowed.copy()


def need_allowed(allowed: Any, codes: Any, starts: Any, order: Any, classes: NDArray[Any]) -> None:
    """Refuse training sequences that ``allowed`` makes impossible."""
    if allowed is None:
        return
    broken = ~allowed[codes[:-1], codes[1:]]
    broken[starts[1:-1] - 1] = False
    if broken.any():
        place = int(np.flatnonzero(broken)[0])
        before, after = classes[codes[place : place + 2]].tolist()
        raise ValueError(
            f"Row {order[place + 1]} of X has the label {after!r} after {before!r}, which allowed "
            "rules out: allow this transition, or correct y."
        )


class Watch:
    """Iterations as a solver reports them, as steps of the progress of a fit."""

    def __init__(self, progress: Progress, state: Any) -> None:
        self._progress, self._state = progress, state
        self._is_open, self._n_iter = False, 0

    def begin(self) -> None:
        """An iteration begins, unless one has begun already."""
        if not self._is_open:
            self._progress.begin()
            self._is_open = True

    def end(self, theta: Any, objective: float) -> bool:
        """An iteration ends; True if a callback asks to stop."""
        self._n_iter, self._is_open = self._n_iter + 1, False
        state = partial(self._state, theta, objective, self._n_iter)
        return self._progress.end(state, lambda: {"objective": objective})

    def close(self, theta: Any, objective: float) -> None:
        """End an iteration that found nothing better."""
        if self._is_open:
            self.end(theta, objective)


def need_labelling(allowed: NDArray[np.bool_] | None, starts: NDArray[np.int64]) -> None:
    """Refuse sequences so long that ``allowed`` leaves no labels for them."""
    length = int(np.diff(starts).max(initial=0))
    if allowed is None or (most := linear_chain.longest_possible(allowed, length)) == length:
        return
    raise ValueError(
        f"A sequence has {length} steps, but allowed lets labels follow each other for {most} at "
        "most, so that it has no labels: allow what may follow every label, or pass shorter "
        "sequences."
    )
