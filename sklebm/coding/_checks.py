"""Checks of a dictionary and its rows, and warnings."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from torch import Tensor

from sklebm._shell.rows import Rows
from sklebm._shell.warning import warn
from sklebm.energies.penalty import Penalty
from sklebm.inference.sparse import solve_codes

# Fits expected to take more than this many seconds are announced. The estimate times a few rows; it
# is skipped when codes times entries of the dictionary stay below ``_SMALL``.
_LONG, _N_PROBES, _SMALL = 300.0, 4, 1e8


def given_dictionary(
    dictionary: Any,
    n_components: int | None,
    n_features: int,
    name: str = "dictionary",
    described: str = "X has {} features",
) -> Any:
    """Check the parameter ``dictionary``, or another like it, and return it as a float array.

    ``described`` says in messages what has the width of an atom.

    Raises
    ------
    ValueError
        If it is not a finite table, has the wrong width or height, or holds an atom of length zero.
    """
    atoms = np.asarray(dictionary)
    if atoms.dtype.kind not in "fiub":
        raise ValueError(f"{name} has dtype {atoms.dtype}, but must hold numbers.")
    atoms = atoms.astype(atoms.dtype if atoms.dtype == np.float32 else np.float64)
    if atoms.ndim != 2 or atoms.shape[1] != n_features or not len(atoms):
        raise ValueError(
            f"{name} has shape {atoms.shape}, but {described.format(n_features)}: its rows are "
            f"atoms, so it must have shape (n_components, {n_features})."
        )
    if n_components is not None and len(atoms) != n_components:
        raise ValueError(
            f"n_components={n_components}, but {name} holds {len(atoms)} atoms: leave "
            "n_components out, or pass as many atoms."
        )
    finite = np.isfinite(atoms).all(axis=1)
    for bad, what in ((~finite, "NaN or infinity"), (finite & ~atoms.any(axis=1), "only zeros")):
        if bad.any():
            places = ", ".join(str(place) for place in np.flatnonzero(bad)[:5])
            raise ValueError(
                f"{name} holds {what} in {int(bad.sum())} of {len(atoms)} atoms (first: "
                f"{places}): atoms must be finite and not zero, so drop these."
            )
    return atoms


def warn_if_codes_vanish(
    rows: Rows, atoms: Tensor, intercept: Tensor, penalty: Penalty, alpha: float
) -> None:
    """Warn if alpha is so large that the code of every row is zero.

    The row furthest from a zero code is solved first, chunk by chunk: if its code has an entry, the
    question is settled. The other rows are solved only if all of these codes are zero.
    """
    largest, atoms = 0.0, atoms.double()
    squared_lengths = atoms.square().sum(dim=1)

    def codes_of(x: Tensor) -> Tensor:
        return solve_codes(x, atoms, penalty, alpha, tol=1e-6, max_iter=1000).codes

    parts = rows.chunks(2 * rows.shape[1] + 4 * len(atoms))
    for part in parts:
        x = rows[part].double() - intercept
        critical = penalty.critical_alpha(x @ atoms.T, squared_lengths)
        largest = max(largest, float(critical.max()))
        if bool(codes_of(x[critical.argmax()][None]).any()):
            return
    for part in parts:
        if bool(codes_of(rows[part].double() - intercept).any()):
            return
    warn(
        f"alpha={alpha:.6g} is too large for X (for its rows and atoms, codes begin to differ from "
        f"zero at about {largest:.6g}), so that every code is zero. Lower alpha, or scale X."
    )


def warn_of_cost(
    x: Tensor, atoms: Tensor, intercept: Tensor, settings: Any, n_codes: float
) -> None:
    """Warn if ``n_codes`` codes like those of the first rows will take minutes on this machine.

    ``settings`` are those of a ``DictionaryLearner``. Small fits are not timed.
    """
    if n_codes * atoms.numel() < _SMALL:
        return
    gram, probes = atoms @ atoms.T, x[: 1 + _N_PROBES].double() - intercept
    seconds = 0.0
    for part in (probes[:1], probes[1:]):  # the first call may compile
        start = time.perf_counter()
        found = solve_codes(
            part, atoms, settings.penalty, settings.alpha, tol=settings.search.tol, gram=gram
        )
        seconds = n_codes * (time.perf_counter() - start) / max(len(part), 1)
    if seconds <= _LONG:
        return
    used = float((found.codes != 0).sum(dim=1).double().mean())
    warn(
        f"SparseCoder.fit may take about {seconds / 60:.0f} minutes: {n_codes:.3g} codes of "
        f"{used:.0f} non-zeros among {len(atoms)} atoms of {atoms.shape[1]} features. Raise "
        f"alpha={settings.alpha:.3g} for sparser codes, lower n_components or max_iter, or fit on "
        "fewer rows."
    )
