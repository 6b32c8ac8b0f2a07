"""Rows with the codes that an encoder shall predict, and the dictionary of these codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.rows import Rows
from sklebm.energies import L1
from sklebm.inference.sparse import solve_codes

_CODE_TOL = 1e-10


class CodedRows(Rows):
    """Rows with a target code each.

    Parameters
    ----------
    rows : Rows
        The rows.
    atoms : Tensor of shape (n_components, n_features)
        The dictionary.
    codes : Tensor of shape (n_rows, n_components)
        Target codes.
    """

    def __init__(self, rows: Rows, atoms: Tensor, codes: Tensor) -> None:
        super().__init__(rows.source, rows.device)
        self.limits, self.ranks = rows.limits, rows.ranks
        self.atoms = atoms
        self.columns = {**rows.columns, "target": codes}


def solver_codes(rows: Rows, atoms: Tensor, alpha: float) -> Tensor:
    """The optimal L1 codes of the rows."""
    x = rows.all()
    return solve_codes(x, atoms.to(x.dtype), L1(), alpha, tol=_CODE_TOL).codes


def given_codes(codes: Any, rows: Rows, n_components: int | None) -> Tensor:
    """The checked argument ``codes`` as a tensor beside the rows.

    Raises
    ------
    ValueError
        If it is no finite table of one code for each row, or of another width than asked for.
    """
    array = codes.detach().cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
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
    """The dictionary of least squared error for given codes, float64.

    Raises
    ------
    ValueError
        If an entry of the codes is never used, so that nothing is known of its atom.
    """
    unused = (codes == 0).all(dim=0)
    if bool(unused.any()):
        raise ValueError(
            f"codes has {int(unused.sum())} columns of zeros (first: "
            f"{int(unused.nonzero()[0, 0])}), and no atom can be found for them: pass dictionary."
        )
    # The driver of least norm: codes may have fewer rows than columns.
    solved = torch.linalg.lstsq(codes.double().cpu(), rows.all().double().cpu(), driver="gelsd")
    atoms: Tensor = solved.solution.to(rows.device)
    if not bool(atoms.any(dim=1).all()):
        raise ValueError(
            "codes explain nothing of X for some atoms (their least-squares solution is zero): "
            "pass dictionary."
        )
    return atoms
