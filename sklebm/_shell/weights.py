"""Weights of rows, as one tensor beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sklebm._shell.private import check_sample_weight
from sklebm._shell.rows import Rows


def row_weights(rows: Rows, sample_weight: Any = None) -> torch.Tensor:
    """Validated weights on the device of the rows, double precision; ones for None.

    Raises
    ------
    ValueError
        If they are negative, not finite, or not one a row.
    """
    if sample_weight is None:
        return torch.ones(len(rows), dtype=torch.float64, device=rows.device)
    if isinstance(sample_weight, torch.Tensor):
        sample_weight = sample_weight.detach().cpu().numpy()
    # The check wants rows to compare lengths with; a view of one zero takes no memory.
    like = np.broadcast_to(np.zeros(1), (len(rows), 1))
    weights = check_sample_weight(
        sample_weight, like, dtype=np.float64, ensure_non_negative=True, copy=True
    )
    return torch.from_numpy(weights).to(rows.device)
