"""Which pixels of images are observed: masks, and missing values as masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_array, check_is_fitted
from torch import Tensor

from sklebm._shell.arrays import to_numpy
from sklebm._shell.refusal import refuse_times
from sklebm._shell.rows import Rows
from sklebm._shell.tables import LazyTable, is_dask, read_table

#: Libraries of frames, and what their constructors call the names of columns.
_NAMES = {"pandas": "columns", "polars": "schema"}


def open_images(model: Any, X: Any, mask: Any) -> tuple[Any, Rows | None]:
    """X without gaps, and what is seen of it: ``mask`` of a row-wise method, less missing values.

    Raises
    ------
    ValueError
        If its shape is not that of X, or it holds anything but zeros and ones.
    """
    check_is_fitted(model)
    X, mask = fill_gaps(X, mask)
    if mask is None:
        return X, None
    return X, Rows(checked_mask(mask, tuple(np.shape(X))), torch.device("cpu"))


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
    # The values that a masked array hides would be read as pixels: validation refuses them.
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


def beside_masks(codes: Rows, seen: Rows) -> Rows:
    """Codes with the mask of each image on their right; ``map_energy`` needs as many as images."""
    if len(codes) != len(seen):
        return codes
    return Rows(torch.cat([codes.all().cpu(), seen.all().to(codes.dtype)], dim=1), seen.device)


def seen_energies(energy: Any, x: Tensor, codes_and_mask: Tensor) -> Tensor:
    """E(x, z) of the pixels that are seen; see ``beside_masks``."""
    both, n_pixels = codes_and_mask.to(x.dtype), x.shape[1]
    z = both[:, :-n_pixels].contiguous()
    value: Tensor = energy.masked_energy(x, z, both[:, -n_pixels:])
    return value


def checked_mask(mask: Any, shape: tuple[int, ...]) -> Any:
    """A mask as an array of zeros and ones.

    Raises
    ------
    ValueError
        If its shape is not that of X, or it holds anything but zeros and ones.
    """
    array = to_numpy(mask)
    if array.shape != shape:
        raise ValueError(
            f"mask has shape {array.shape}, but X has shape {shape}: pass one value "
            "for each value of X, true where it is observed."
        )
    if array.dtype.kind not in "biuf" or not ((array == 0) | (array == 1)).all():
        raise ValueError("mask must hold booleans, or zeros and ones: true where X is observed.")
    return array.astype(np.float32)


def useful_mask(mask: Any, rows: Rows) -> Tensor | None:
    """The checked mask of a fit beside the rows, if any; ValueError if it hides every pixel."""
    if mask is None:
        return None
    seen = checked_mask(mask, rows.shape)
    if not seen.any():
        raise ValueError(
            "mask hides every pixel of X, or all of them are NaN: it must be true where X is "
            "observed."
        )
    return torch.from_numpy(seen).to(rows.device)
