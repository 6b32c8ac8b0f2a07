r"""S_g = sum_{i in g} v_i in fixed point: v = a 2^p + b 2^q up to 2^(q - 1), with integers a and b.

Integers add to the same sum in any order. So a GPU, whose atomic additions come in no fixed order,
gives the same answer every time, and a row that leaves a group takes away what it brought, exactly.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_BITS = 61  # of an int64, less its sign and one bit for rows that are in two groups for a moment


class FixedPointSums:
    """Sums of the rows of groups, between which rows may move.

    Parameters
    ----------
    n_groups : int
        Number of groups.
    magnitudes : Tensor of shape (n_columns,), float64
        Sum of the absolute values of each column over all rows, finite.
    n_rows : int
        Number of rows.

    Notes
    -----
    With n rows the last digit kept is 2^(log2(n) - 122) of a column's magnitude: nothing that a
    double-precision sum could show is lost.
    """

    def __init__(self, n_groups: int, magnitudes: Tensor, n_rows: int) -> None:
        # The exponents are worked out on the host: not every device has exact powers of two.
        exponents = np.frexp(magnitudes.cpu().numpy())[1]
        coarse = np.ldexp(1.0, np.maximum(exponents, -800) - _BITS)
        fine = np.ldexp(coarse, n_rows.bit_length() - _BITS)
        self._units = torch.from_numpy(np.stack([coarse, fine])).to(magnitudes.device)
        shape = (2, n_groups, len(magnitudes))
        self._totals = torch.zeros(shape, dtype=torch.int64, device=magnitudes.device)

    def add(self, groups: Tensor, rows: Tensor, *, sign: int = 1) -> None:
        """Add rows, float64, to their groups; ``sign=-1`` takes away. O(n_rows n_columns)."""
        rest = rows
        for total, unit in zip(self._totals, self._units, strict=True):
            whole = torch.round(rest / unit)
            total.index_add_(0, groups, whole.long(), alpha=sign)
            rest = rest - whole * unit

    def value(self) -> Tensor:
        """The sums, shape (n_groups, n_columns), float64."""
        return (self._totals * self._units[:, None]).sum(dim=0)
