"""Which pixels of images are observed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sklebm._shell.gaps import checked_mask, fill_gaps
from sklebm._shell.rows import Rows


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


class _MaskedCodes(Rows):
    """Codes with the mask of each image on their right, joined for the rows that are asked for.

    Codes are many times as large as images: a copy of all of them may not fit in memory.
    """

    def __init__(self, codes: Rows, seen: Rows) -> None:
        super().__init__(codes.source, seen.device)
        self.codes, self.seen = codes, seen
        self.shape = len(codes), codes.shape[1] + seen.shape[1]

    def __getitem__(self, index: Any) -> Tensor:
        """Both at ``index``, in the dtype of the codes."""
        codes = self.codes[index].to(self.device)
        return torch.cat([codes, self.seen[index].to(codes.dtype)], dim=1)


def beside_masks(codes: Rows, seen: Rows) -> Rows:
    """Codes with the mask of each image on their right; ``map_energy`` needs as many as images."""
    return codes if len(codes) != len(seen) else _MaskedCodes(codes, seen)


def seen_energies(energy: Any, x: Tensor, codes_and_mask: Tensor) -> Tensor:
    """E(x, z) of the pixels that are seen; see ``beside_masks``."""
    both, n_pixels = codes_and_mask.to(x.dtype), x.shape[1]
    z = both[:, :-n_pixels].contiguous()
    value: Tensor = energy.masked_energy(x, z, both[:, -n_pixels:])
    return value


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
