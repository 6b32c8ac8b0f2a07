"""Rows of which some entries are missing, for methods that fill these in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted, validate_data

from sklebm._shell.refusal import refuse_times
from sklebm._shell.rows import Rows, resolve_device


def rows_with_gaps(estimator: Any, X: Any) -> Rows:
    """Validate X against a fitted estimator as ``open_rows`` does, but leave NaN where it is."""
    check_is_fitted(estimator)
    if isinstance(X, torch.Tensor):
        filled = torch.nan_to_num(X, nan=0.0, posinf=math.inf, neginf=-math.inf)
        estimator._read(filled, estimator, reset=False)  # shape, dtype and infinities
        source: Any = validate_data(estimator, X.detach(), reset=False, skip_check_array=True)
        source = source if source.dtype == torch.float32 else source.double()
    else:
        refuse_times(X, type(estimator).__name__)
        kinds = [np.float64, np.float32]
        source = validate_data(
            estimator, X, reset=False, dtype=kinds, ensure_all_finite="allow-nan"
        )
    return Rows(source, resolve_device(estimator.device, X, estimator._prefers_cuda))
