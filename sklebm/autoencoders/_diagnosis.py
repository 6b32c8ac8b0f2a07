"""Detection of uninformative latents by their variances over the training rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sklebm._shell.rows import Rows, row_slices
from sklebm._shell.warning import warn

#: Maximum number of rows to examine.
_MAX_ROWS = 2_000


def pick_rows(rows: Rows, n_rows: int) -> NDArray[np.intp]:
    """Evenly spaced indices of at most ``n_rows`` rows."""
    return np.linspace(0, len(rows) - 1, min(len(rows), n_rows)).astype(np.intp)


def latent_variances(energy: Any, rows: Rows, floats_per_row: int) -> NDArray[np.float64]:
    """Variance of each code over a subset of the rows of all processes."""
    chosen = pick_rows(rows, _MAX_ROWS)
    parts = row_slices(len(chosen), floats_per_row)
    with torch.no_grad():
        parts_of = [energy.encode(rows[chosen[part]]).double().cpu() for part in parts]
    codes, ranks = torch.cat(parts_of), rows.ranks
    n_codes = ranks.total(len(codes))
    mean = ranks.sum(codes.sum(dim=0)) / n_codes
    variances: NDArray[np.float64] = (
        ranks.sum((codes - mean).square().sum(dim=0)) / n_codes
    ).numpy()
    return variances


def warn_of_dead(variances: NDArray[np.float64], owner: str) -> None:
    """Warn about codes that are the same for all training rows."""
    n_dead, n_codes = int((variances <= 0.0).sum()), len(variances)
    if n_dead == n_codes:
        warn(
            f"The code of {owner} has collapsed: none of its {n_codes} latents differs between the "
            "training rows. Check that the rows differ, lower learning_rate, or raise max_epochs."
        )
    elif n_dead:
        warn(
            f"{n_dead} of {n_codes} latents of {owner} are dead: they are the same for all "
            "training rows. Lower learning_rate or n_components."
        )


def warn_of_collapse(variances: NDArray[np.float64], least: float, owner: str) -> None:
    """Warn if no latent of a variational model has a variance above ``least``."""
    if (variances > least).any():
        return
    warn(
        f"The posterior of {owner} has collapsed: none of its {len(variances)} latents "
        f"carries information about a row (the variances of their means are below {least}). Lower "
        "beta, set beta_warmup or free_bits, raise max_epochs, or check that the rows differ."
    )
