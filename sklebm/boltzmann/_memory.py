"""The rows of an associative memory: values of its states, values too large, and known ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from sklebm._shell.arrays import to_numpy
from sklebm._shell.gaps import checked_mask
from sklebm._shell.rows import Rows
from sklebm._shell.value_range import apply_value_range, values_outside
from sklebm.energies.associative import AssociativeMemory


def check_energies_fit(memory: AssociativeMemory, before: dict[str, Any], rows: Rows) -> None:
    """Refuse rows of which an energy would overflow, in their dtype.

    It is computed in double precision, of overlaps divided by the number of units, so that no power
    of states between -1 and 1 is too large.
    """
    continuous, chunks = before["is_continuous_"], rows.chunks(4 * rows.shape[1])
    largest = 0.0
    for part in chunks:
        x = rows[part].double()
        largest = max(largest, float((x if continuous else memory.encode(x)).abs().max()))
    # |E| is below n d max_i |s_i|^power; an exponential memory multiplies overlaps by beta.
    dense, exponent = before["rule_"] == "dense", before["exponent_"]
    factor = 4.0 * (before["n_patterns_"] + len(rows)) * rows.shape[1]
    if dense and not exponent:
        factor *= max(1.0, before["beta_"])
    power = exponent if dense and exponent else 2
    size = math.log(factor) + power * math.log(max(1.0, largest))
    if size > math.log(torch.finfo(rows.dtype).max):
        most = max(float(rows[part].abs().max()) for part in chunks)
        low, high = before["state_values_"]
        states = f' to states of {low:g} and {high:g}, or set value_range="clip"'
        raise FloatingPointError(
            f"X holds values up to {most:.3g}, whose energies overflow. Scale X"
            f"{', for example with StandardScaler' if continuous else states}."
        )


def state_values(rows: Rows, states: str) -> Any:
    """The values that stand for -1 and +1 in the rows."""
    bits = states == "bits" or (states == "auto" and values_outside(rows, 0.0, 1.0) is None)
    return np.array([0.0, 1.0] if bits else [-1.0, 1.0])


def keep_between_states(model: Any, rows: Rows, values: Any, *, learning: bool) -> None:
    """Clip, reject or warn about values outside those of the two states."""
    low, high = sorted(map(float, values))
    apply_value_range(
        rows,
        model.value_range,
        owner=type(model).__name__,
        learning=learning,
        remedy='set value_range="clip", or states="continuous" with rule="dense" and '
        'interaction="exponential"',
        limits=(low, high),
        meaning=f"has states of {low:g} and {high:g}",
        outcome="They are rounded to the nearer state.",
    )


def seen_and_held(rows: Rows, seen: Any, known: Any) -> Rows:
    """Which entries of the rows are no gaps, and on their right which of them stay as they are.

    Parameters
    ----------
    rows : Rows
        The rows without gaps.
    seen : ndarray of shape (n_rows, n_features) or None
        Zero at gaps; None if there are none.
    known : array-like or None
        What the caller knows of every row, or of each; None for all that is seen.

    Raises
    ------
    ValueError
        If the shape of ``known`` is neither, or it is true at a gap.
    """
    seen = np.ones(rows.shape, np.float32) if seen is None else seen
    held = seen
    if known is not None:
        known = to_numpy(known)
        if known.shape == rows.shape[1:]:
            known = np.broadcast_to(known, rows.shape)
        held = checked_mask(known, rows.shape, "known", "X stays as it is")
        if (held > seen).any():
            raise ValueError("known is True where X is NaN: unknown features cannot be held fixed.")
    return Rows(np.hstack([seen, held]), torch.device("cpu"))


def need_diagonal(rule: str, diagonal: Any, owner: str) -> None:
    """Refuse to go on from a projection without its diagonal, which others may not share."""
    if rule == "pseudo_inverse" and diagonal is None:
        raise ValueError(
            f'{owner}: rule="pseudo_inverse" needs self_couplings beside couplings: the diagonal '
            "of the projection onto the stored rows, without which no more can be stored."
        )
