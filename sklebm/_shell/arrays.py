"""Arrays of any library as NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_numpy(values: Any) -> NDArray[Any]:
    """A NumPy array on the CPU, also from a tensor on a GPU or with a gradient."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":  # which NumPy lacks
            values = values.float()
    return np.asarray(values)


def count_rows(X: Any) -> int:
    """The number of rows of anything that ``fit`` accepts."""
    return int(X.shape[0]) if hasattr(X, "shape") else len(X)
