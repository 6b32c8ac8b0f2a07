"""Which entries of a precision matrix are free: full, diagonal, a pixel neighbourhood, a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

# With at least this many features and at most this share of the entries free, sparse forms are
# faster.
_LARGE, _SPARSE = 100, 0.1


def make_mask(structure: Any, n_features: int, image_shape: Any, radius: int) -> Any:
    """Return the symmetric boolean matrix of free entries, (n_features, n_features).

    Raises
    ------
    ValueError
        If the mask or the image shape does not match the features.
    """
    if not isinstance(structure, str):
        return _given_mask(structure, n_features)
    if structure == "full":
        return np.ones((n_features, n_features), dtype=bool)
    if structure == "diagonal":
        return np.eye(n_features, dtype=bool)
    _, width = _image_sides(image_shape, n_features)
    row, column = np.divmod(np.arange(n_features), width)
    near_rows = np.abs(row[:, None] - row) <= radius
    return near_rows & (np.abs(column[:, None] - column) <= radius)


def _image_sides(image_shape: Any, n_features: int) -> tuple[int, int]:
    if image_shape is None:
        return 1, n_features
    sides = tuple(int(side) for side in image_shape)
    if len(sides) != 2 or min(sides) < 1 or sides[0] * sides[1] != n_features:
        raise ValueError(
            f"image_shape={image_shape!r} does not fit X with {n_features} features: give "
            "(height, width) with height * width = n_features, or None for features on a line."
        )
    return sides[0], sides[1]


def _given_mask(structure: Any, n_features: int) -> Any:
    mask = np.asarray(structure)
    if mask.dtype != bool or mask.shape != (n_features, n_features):
        raise ValueError(
            f"structure has shape {mask.shape} and dtype {mask.dtype}, but a mask must be boolean "
            f"of shape {(n_features, n_features)}, True where the precision may differ from 0."
        )
    if not (mask == mask.T).all() or not mask.diagonal().all():
        raise ValueError(
            "structure is not the mask of a precision: it must be symmetric, with True on its "
            "diagonal. Use mask | mask.T | numpy.eye(len(mask), dtype=bool)."
        )
    return mask


class Entries:
    """The free entries of a symmetric matrix as a vector, one for each pair i >= j."""

    def __init__(self, mask: Any, device: torch.device) -> None:
        rows, columns = np.nonzero(np.tril(mask))
        self.n_features = len(mask)
        self.rows = torch.from_numpy(rows).to(device)
        self.columns = torch.from_numpy(columns).to(device)
        self.is_diagonal = self.rows == self.columns

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def is_sparse(self) -> bool:
        """Whether a sparse form pays off for products with the matrix."""
        few = len(self) < _SPARSE * self.n_features**2
        return few and self.n_features >= _LARGE and self.rows.device.type == "cpu"

    def sparse(self, vector: Tensor) -> csr_array:
        """``matrix(vector)`` in sparse form, on the CPU."""
        values, mixed = vector.numpy(), ~self.is_diagonal.numpy()
        rows, columns = self.rows.numpy(), self.columns.numpy()
        data = np.concatenate([values, values[mixed]])
        places = (
            np.concatenate([rows, columns[mixed]]),
            np.concatenate([columns, rows[mixed]]),
        )
        matrix = csr_array((data, places), shape=(self.n_features, self.n_features))
        matrix.sort_indices()
        return matrix

    def matrix(self, vector: Tensor) -> Tensor:
        """The symmetric matrix with these entries, zero elsewhere."""
        matrix = vector.new_zeros(self.n_features, self.n_features)
        matrix[self.rows, self.columns] = vector
        matrix[self.columns, self.rows] = vector
        return matrix

    def gradient(self, matrix: Tensor) -> Tensor:
        """Derivatives by the entries of a function whose derivative by the matrix is ``matrix``.

        An off-diagonal entry appears twice, so its derivatives add up.
        """
        vector = matrix[self.rows, self.columns]
        return torch.where(self.is_diagonal, vector, 2.0 * vector)
