"""One-hot rows: columns per categorical feature, and validation of the rows."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import torch

from sklebm._shell.rows import Rows

# Tolerance of a block's sum around 0 or 1; probabilities in single precision are closer.
_TOLERANCE = 1e-3


def block_sizes(n_categories: Any, n_features: int) -> list[int]:
    """Columns of each block, from the parameter ``n_categories``.

    Raises
    ------
    ValueError
        If they are not positive integers that add up to ``n_features``.
    """
    if n_categories is None:
        raise ValueError(
            'likelihood="categorical" needs n_categories: the number of one-hot columns of each '
            "feature, such as [len(c) for c in encoder.categories_] of a OneHotEncoder."
        )
    if isinstance(n_categories, Integral):
        size = int(n_categories)
        sizes = [size] * (n_features // size)
    else:
        values = list(n_categories)
        good = all(isinstance(size, Integral) and not isinstance(size, bool) for size in values)
        sizes = [int(size) for size in values] if good else []
    if not sizes or min(sizes) < 1 or sum(sizes) != n_features:
        raise ValueError(
            f"n_categories={n_categories!r} does not fit X with {n_features} features: it must be "
            "positive integers that add up to them, or one that divides them."
        )
    return sizes


def check_one_hot(rows: Rows, sizes: list[int], owner: str) -> None:
    """Raise ValueError unless blocks are one-hot, probabilities, or all zero (missing)."""
    ends = np.cumsum(sizes) - 1
    starts = torch.from_numpy(np.append(0, ends[:-1] + 1)).to(rows.device)
    place = torch.repeat_interleave(
        torch.arange(len(sizes), device=rows.device), torch.tensor(sizes, device=rows.device)
    )
    for part in rows.chunks(3 * rows.shape[1]):
        x = rows[part]
        sums = x.new_zeros(len(x), len(sizes)).index_add_(1, place, x)
        apart = torch.minimum(sums.abs(), (sums - 1.0).abs()) > _TOLERANCE
        bad = apart | (x.new_zeros(apart.shape).index_add_(1, place, (x < 0).to(x.dtype)) > 0)
        if bool(bad.any()):
            row, block = (int(i) for i in bad.nonzero()[0])
            first = int(starts[block])
            raise ValueError(
                f"{owner} takes columns {first} to {int(ends[block])} of X for one categorical "
                f"feature, but in row {part.start + row} they are "
                f"{x[row, first : int(ends[block]) + 1].tolist()[:8]}: they must be one-hot (as "
                "OneHotEncoder makes them) or probabilities, or all 0 where it is missing."
            )
