"""Rows with the codes that an encoder should predict, and the dictionary of these codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.arrays import to_numpy
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import warn_of_unequal_spans
from sklebm._shell.warning import silenced
from sklebm.coding._checks import given_dictionary, warn_if_codes_vanish
from sklebm.coding._search import CodeSearch
from sklebm.coding.sparse_coder import SparseCoder
from sklebm.energies import L1

_CODE_TOL = 1e-10


class CodedRows(Rows):
    """Rows with their target codes beside them, and the dictionary of these codes."""

    def __init__(self, rows: Rows, atoms: Tensor, codes: Tensor) -> None:
        super().__init__(rows.source, rows.device)
        self.limits, self.ranks = rows.limits, rows.ranks
        self.columns = {**rows.columns, "target": codes}
        self.atoms = atoms


def coded_rows(model: Any, rows: Rows, seed: int, *, resume: bool, codes: Any = None) -> CodedRows:
    """The rows with a dictionary and target codes, either of which may be given.

    Parameters
    ----------
    model : LISTAEncoder
        The encoder whose parameters apply.
    rows : Rows
        The rows.
    seed : int
        Seed of the dictionary, if one is learnt.
    resume : bool
        Whether to continue with the fitted dictionary.
    codes : array-like, optional
        Target codes.
    """
    if not resume:
        warn_of_unequal_spans(type(model).__name__, rows)
    atoms = _known_atoms(model, rows, resume)
    if codes is not None:
        width = model.n_components if atoms is None else len(atoms)
        targets = given_codes(codes, rows, width)
        if atoms is None:
            rows.need_one_process("finding a dictionary for given codes")
            atoms = fitted_dictionary(rows, targets)
        return CodedRows(rows, atoms, targets)
    x, alpha = rows.all(), float(model.alpha)
    if atoms is None:  # the warnings of the coder are this encoder's too
        coder = SparseCoder(
            model.n_components, alpha=alpha, random_state=seed, strategy=model.strategy
        )
        # But for this one, given above with the names of columns.
        with silenced("The columns of X differ in scale"):
            coder.fit(x)
        atoms = torch.from_numpy(coder.components_).to(rows.device)
    elif not resume:
        zero = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
        warn_if_codes_vanish(rows, atoms, zero, L1(), alpha)
    with CodeSearch(type(model).__name__, _CODE_TOL) as search:
        targets = search.solve(x, atoms.to(x.dtype), L1(), alpha).codes
    return CodedRows(rows, atoms, targets)


def _known_atoms(model: Any, rows: Rows, resume: bool) -> Tensor | None:
    """The fitted dictionary, the given one, or None."""
    given = None
    if model.dictionary is not None:
        given = given_dictionary(model.dictionary, model.n_components, rows.shape[1])
    if resume:
        model._check_resumable(rows)
        fitted = model.components_
        if given is not None and not np.array_equal(given.astype(fitted.dtype), fitted):
            raise ValueError(
                "dictionary differs from the fitted components_ that training would continue "
                "from: set it back, or fit with warm_start=False."
            )
        given = fitted
    return None if given is None else torch.from_numpy(given).to(rows.device)


def given_codes(codes: Any, rows: Rows, n_components: int | None) -> Tensor:
    """The checked argument ``codes`` as a tensor beside the rows.

    Raises
    ------
    ValueError
        If it is not a finite table with one code per row, or has the wrong width.
    """
    array = to_numpy(codes)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"codes has dtype {array.dtype}, but must hold numbers.")
    if array.ndim != 2 or len(array) != len(rows) or not array.shape[1]:
        raise ValueError(
            f"codes has shape {array.shape}, but X has {len(rows)} rows: pass one code for each "
            "row, an array of shape (n_samples, n_components)."
        )
    if n_components is not None and array.shape[1] != n_components:
        raise ValueError(
            f"codes has {array.shape[1]} columns, but the dictionary has {n_components} atoms: "
            "pass codes for this dictionary."
        )
    if not np.isfinite(array).all():
        raise ValueError("codes contains NaN or infinity: drop such rows from X and codes.")
    kind = np.float32 if array.dtype == np.float32 else np.float64
    return torch.from_numpy(array.astype(kind)).to(rows.device)


def fitted_dictionary(rows: Rows, codes: Tensor) -> Tensor:
    """The dictionary with the least squared error for given codes, float64.

    Raises
    ------
    ValueError
        If an entry of the codes is never used, so that nothing is known about its atom.
    """
    unused = (codes == 0).all(dim=0)
    if bool(unused.any()):
        raise ValueError(
            f"codes has {int(unused.sum())} columns of zeros (first: "
            f"{int(unused.nonzero()[0, 0])}), and no atom can be found for them: pass dictionary."
        )
    # The minimum-norm driver, because codes may have fewer rows than columns.
    solved = torch.linalg.lstsq(codes.double().cpu(), rows.all().double().cpu(), driver="gelsd")
    atoms: Tensor = solved.solution.to(rows.device)
    if not bool(atoms.any(dim=1).all()):
        raise ValueError(
            "codes explain nothing of X for some atoms (their least-squares solution is zero): "
            "pass dictionary."
        )
    return atoms
