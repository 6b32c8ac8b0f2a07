"""What a dictionary and its rows must be like, and what is worth a warning."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.rows import Rows
from sklebm._shell.warning import warn
from sklebm.energies.penalty import Penalty
from sklebm.inference.sparse import SparseSolution, solve_codes

# Spans of columns that differ by more make the smaller ones invisible to squared errors.
_LARGEST_RATIO = 1e3
# A fit that is expected to take longer is announced: seconds, at so many operations a second.
_LONG, _OPERATIONS_PER_SECOND = 300.0, 2e9
# Rows whose codes tell what the others will cost.
_N_PROBES = 8


def given_dictionary(
    dictionary: Any, n_components: int | None, n_features: int, name: str = "dictionary"
) -> Any:
    """The checked parameter ``dictionary``, or another of this kind, as a float array.

    Raises
    ------
    ValueError
        If it is no finite table, of another width or height, or holds an atom of length zero.
    """
    atoms = np.asarray(dictionary)
    if atoms.dtype.kind not in "fiub":
        raise ValueError(f"{name} has dtype {atoms.dtype}, but must hold numbers.")
    atoms = atoms.astype(atoms.dtype if atoms.dtype == np.float32 else np.float64)
    if atoms.ndim != 2 or atoms.shape[1] != n_features or not len(atoms):
        raise ValueError(
            f"{name} has shape {atoms.shape}, but X has {n_features} features: its rows are "
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

    The row that is furthest from a zero code is solved first, chunk by chunk: where its code has
    an entry, the answer is there. Only if all of these are zero are the other rows solved.
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


def warn_of_unequal_scales(name: str, rows: Rows) -> None:
    """Warn, with the numbers, if the spans of two columns differ by more than 1e3.

    A squared error adds up squared units. Constant columns do not count: no scale would help them.
    The span, largest less smallest value, does not take a pixel that is mostly off for one that is
    faint, as the standard deviation would.
    """
    low = torch.full((rows.shape[1],), torch.inf, dtype=torch.float64, device=rows.device)
    high = -low
    for part in rows.chunks(3 * rows.shape[1]):
        x = rows[part].double()
        low, high = torch.minimum(low, x.amin(dim=0)), torch.maximum(high, x.amax(dim=0))
    span = high - low
    used = (span > 0).nonzero()[:, 0]
    if len(used) < 2:
        return
    widest, narrowest = (used[place(span[used])] for place in (torch.argmax, torch.argmin))
    ratio = float(span[widest] / span[narrowest])
    if ratio > _LARGEST_RATIO:
        warn(
            f"Columns of X differ in scale by a factor of {ratio:.2g}: the values of column "
            f"{int(widest)} span {float(span[widest]):.3g}, those of column {int(narrowest)} "
            f"{float(span[narrowest]):.3g}. {name} measures squared differences, so columns of "
            "small scale hardly count. Scale X first, for example with StandardScaler."
        )


def warn_of_cost(
    x: Tensor, atoms: Tensor, intercept: Tensor, settings: Any, n_codes: float
) -> None:
    """Warn if ``n_codes`` codes like those of the first rows will take minutes.

    ``settings`` are those of a ``DictionaryLearner``. The estimate counts operations, so that the
    same rows are answered alike on every machine.
    """
    probes = x[:_N_PROBES].double() - intercept
    chosen = settings.penalty, settings.alpha
    found = solve_codes(probes, atoms, *chosen, tol=settings.search.tol, max_iter=1000)
    seconds = n_codes * _operations(found, atoms) / _OPERATIONS_PER_SECOND
    if seconds <= _LONG:
        return
    used = float((found.codes != 0).sum(dim=1).double().mean())
    warn(
        f"SparseCoder.fit may take about {seconds / 60:.0f} minutes on one core: {n_codes:.3g} "
        f"codes of {used:.0f} non-zeros among {len(atoms)} atoms of {atoms.shape[1]} features. "
        f"Raise alpha={settings.alpha:.3g} for sparser codes, lower n_components or max_iter, or "
        "fit on fewer rows."
    )


def _operations(found: SparseSolution, atoms: Tensor) -> float:
    """Mean operations for a code: its products with the atoms, then its rounds."""
    k, d = atoms.shape
    used = (found.codes != 0).sum(dim=1).double()
    rounds = found.n_iter.double()
    if int(found.n_iter.max()) > 100:  # steps of a batched method, over all pairs of atoms
        return 2.0 * k * d + 2.0 * k * k * float(rounds.mean())
    return 2.0 * k * d + float((rounds * (2.0 * k * used + used**3)).mean())
