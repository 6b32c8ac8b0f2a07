"""L(x): bits of a row in a lossless code, from a general-purpose compressor.

Images first pass through the filters of PNG (a pixel minus a prediction from its neighbours on the
left and above), and the shortest code counts.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

# A raw LZMA stream, without the headers of a file.
_LZMA_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6}]


def _deflate(data: bytes) -> int:
    packer = zlib.compressobj(level=9, wbits=-15)  # no header, no checksum
    return len(packer.compress(data)) + len(packer.flush())


COMPRESSORS: dict[str, Callable[[bytes], int]] = {
    "zlib": _deflate,
    "bz2": lambda data: len(bz2.compress(data)),
    "lzma": lambda data: len(lzma.compress(data, lzma.FORMAT_RAW, filters=_LZMA_FILTERS)),
}


def quantise(values: Any, low: float, high: float, n_levels: int) -> Bytes:
    """The nearest of ``n_levels`` values that divide [low, high] evenly; others are clipped."""
    # Halve first: the difference of two doubles may overflow.
    share = (values / 2 - low / 2) / ((high / 2 - low / 2) or 1.0)
    # Rounded to single precision, so that rows get the same level in either precision.
    share = np.clip(np.asarray(share, np.float64), 0.0, 1.0).astype(np.float32)
    return np.rint(share * np.float32(n_levels - 1)).astype(np.uint8)


def code_lengths(levels: Bytes, compressor: str, image_shape: Any) -> Any:
    """Bits of each row, shape (n_rows,)."""
    measure = COMPRESSORS[compressor]
    views = [levels] if image_shape is None else filtered(levels.reshape(-1, *image_shape))
    lengths = [[measure(row.tobytes()) for row in view] for view in views]
    return 8.0 * np.min(lengths, axis=0)


def filtered(images: Bytes) -> list[Bytes]:
    """The five filters of PNG over images of shape (n, height, width[, channels]).

    Residuals are modulo 256 and fit in a byte each; every filter is invertible, so no information
    is lost.
    """
    padding = [(0, 0), (1, 0), (1, 0), *[(0, 0)] * (images.ndim - 3)]
    padded = np.pad(images, padding).astype(np.int16)
    pixel, left = padded[:, 1:, 1:], padded[:, 1:, :-1]
    above, corner = padded[:, :-1, 1:], padded[:, :-1, :-1]
    predictions = (0, left, above, (left + above) // 2, _paeth(left, above, corner))
    return [(pixel - prediction).astype(np.uint8) for prediction in predictions]


def _paeth(left: Any, above: Any, corner: Any) -> Any:
    """Of the three neighbours, the one nearest to left + above - corner."""
    estimate = left + above - corner
    distances = [abs(estimate - item) for item in (left, above, corner)]
    nearest_two = np.where(distances[0] <= distances[1], left, above)
    return np.where(np.minimum(*distances[:2]) <= distances[2], nearest_two, corner)
