"""Missing values: rows that keep them as NaN, and rows without them beside a mask."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from sklebm._shell.arrays import to_numpy
from sklebm._shell.refusal import explain, refusal_as, refuse_times
from sklebm._shell.rows import Rows, resolve_device
from sklebm._shell.tables import LazyTable, check_table, is_dask, read_table

_HALF = (torch.float16, torch.bfloat16)
#: Libraries of frames, and what their constructors call the names of columns.
_NAMES = {"pandas": "columns", "polars": "schema"}


def rows_with_gaps(estimator: Any, X: Any) -> Rows:
    """Validate X against a fitted estimator as ``open_rows`` does, but leave NaN where it is."""
    check_is_fitted(estimator)
    name = type(estimator).__name__
    if isinstance(X, torch.Tensor):
        filled = torch.nan_to_num(X, nan=0.0, posinf=math.inf, neginf=-math.inf)
        estimator._read(filled, estimator, reset=False)  # shape, dtype and infinities
        source: Any = validate_data(estimator, X.detach(), reset=False, skip_check_array=True)
        source = source.float() if source.dtype in _HALF else source
        source = source if source.dtype == torch.float32 else source.double()
    else:
        if isinstance(X, np.ma.MaskedArray) and X.dtype.kind in "biuf":
            single = X.dtype.kind == "f" and X.dtype.itemsize <= 4
            X = X.astype(np.float32 if single else np.float64)
            X = np.ma.filled(X, np.nan)  # what it hides is unknown
        check_table(X, estimator)
        refuse_times(X, name)
        if getattr(X, "dtype", None) == np.float16:
            X = X.astype(np.float32)
        kinds = [np.float64, np.float32]
        try:
            source = validate_data(
                estimator, X, reset=False, dtype=kinds, ensure_all_finite="allow-nan"
            )
        except TypeError as error:  # objects that are no numbers, such as pd.NA
            reason = explain(X, name)
            if reason is None:
                raise
            raise refusal_as(error, reason) from error
    return Rows(source, resolve_device(estimator.device, X, estimator._prefers_cuda))


def fill_gaps(X: Any, mask: Any = None) -> tuple[Any, Any]:
    """X with zeros for its missing values, if there are any, and ``mask`` without them.

    What is no table of numbers is left to the validation that follows, and so are dask arrays and
    large arrays on disk, which are read in parts and may hold no missing values.
    """
    if isinstance(X, torch.Tensor):
        if X.layout is not torch.strided or X.is_meta or not X.is_floating_point() or _is_finite(X):
            return X, mask
        gaps = X.isnan()
        return X.masked_fill(gaps, 0.0), _less(mask, to_numpy(gaps))
    # The values that a masked array hides would be read as numbers: validation refuses them.
    if isinstance(X, np.ma.MaskedArray):
        return X, mask
    try:
        if is_dask(X) or isinstance(read_table(X, ""), LazyTable):
            return X, mask
        if isinstance(X, np.ndarray) and X.dtype.kind in "biuf":
            if _is_finite(X):
                return X, mask
            if X.dtype == np.float16:
                X = X.astype(np.float32)  # as validation does
        refuse_times(X, "")
        with np.errstate(all="ignore"):
            array = check_array(
                X, dtype=[np.float64, np.float32], ensure_all_finite=False, copy=False
            )
    except (TypeError, ValueError):
        return X, mask
    missing = np.isnan(array)
    if not missing.any():
        return X, mask
    filled: Any = np.where(missing, array.dtype.type(0), array)
    kind = type(X).__module__.partition(".")[0]
    if hasattr(X, "columns") and kind in _NAMES:  # a frame keeps the names of its columns
        filled = type(X)(filled, **{_NAMES[kind]: list(X.columns)})
    return filled, _less(mask, missing)


def _is_finite(X: Any) -> bool:
    """Whether a finite sum proves that nothing is missing, without a mask as large as X."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(float(X.sum())))


def _less(mask: Any, missing: Any) -> Any:
    """What a mask shows, without missing values."""
    seen = np.float32(~missing)
    return seen if mask is None else seen * checked_mask(mask, missing.shape)


def checked_mask(
    mask: Any, shape: tuple[int, ...], name: str = "mask", where: str = "X is observed"
) -> Any:
    """A mask as an array of zeros and ones; ``where`` ends the sentence about its true values.

    Raises
    ------
    ValueError
        If its shape is not that of X, or it holds anything but zeros and ones.
    """
    array = to_numpy(mask)
    if array.shape != shape:
        raise ValueError(
            f"{name} has shape {array.shape}, but X has shape {shape}: pass one value "
            f"for each value of X, true where {where}."
        )
    if array.dtype.kind not in "biuf" or not ((array == 0) | (array == 1)).all():
        raise ValueError(f"{name} must hold booleans, or zeros and ones: true where {where}.")
    return array.astype(np.float32)
