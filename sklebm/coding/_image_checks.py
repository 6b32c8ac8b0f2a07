"""What speaks against coding images as they are: units, and a constant that outweighs all else."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sklebm._shell.layouts import warn_of_channels
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import warn_of_unequal_spans
from sklebm._shell.warning import warn
from sklebm.coding._convolution import block_sides

# The share of the squares of pixels in their mean from which a warning says so.
_CONSTANT_SHARE = 0.5


def check_images(model: Any, rows: Rows, mask: Tensor | None = None) -> None:
    """Warn of columns in different units, or of a constant that outweighs what images differ in.

    Raise ValueError if ``pool_size`` does not fit images, which only ``transform`` may need.
    """
    block_sides(model.pool_size, model.image_shape)
    if model.image_shape is None:  # pixels have the same unit
        warn_of_unequal_spans(type(model).__name__, rows)
    else:
        warn_of_channels(model.image_shape, last=True)
    if getattr(model, "low_pass", 0.0):
        return  # it takes a constant off
    count, total, squares = 0.0, 0.0, 0.0
    for part in rows.chunks(3 * rows.shape[1]):
        x = rows[part].double()
        seen = torch.ones_like(x) if mask is None else mask[part].double()
        count += float(seen.sum())
        total += float((seen * x).sum())
        squares += float((seen * x.square()).sum())
    mean, length = total / max(count, 1.0), squares / max(count, 1.0)
    if not mean * mean > _CONSTANT_SHARE * length or not math.isfinite(length):
        return
    remedy = ", or set low_pass, which subtracts it" if hasattr(model, "low_pass") else ""
    warn(
        f"The mean of all pixels, {mean:.3g}, is larger than their standard deviation, "
        f"{max(length - mean * mean, 0.0) ** 0.5:.3g}: {type(model).__name__} adds up squared "
        "distances from zero, so its kernels describe this constant before anything else. "
        f"Subtract it, for example with X - X.mean(axis=1, keepdims=True){remedy}."
    )
