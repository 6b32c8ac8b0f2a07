"""Images arranged in the cells of a labelled table, all in one axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklebm.plotting._canvas import new_axes


def check_image_shape(n_pixels: int, image_shape: tuple[int, int] | None) -> tuple[int, int]:
    """The given shape, if it fits; a square if none is given."""
    if image_shape is None:
        side = math.isqrt(n_pixels)
        if side * side != n_pixels:
            raise ValueError(
                f"{n_pixels} pixels do not make a square image: pass image_shape=(height, width)."
            )
        return side, side
    if image_shape[0] * image_shape[1] != n_pixels:
        raise ValueError(
            f"image_shape={image_shape} means {image_shape[0] * image_shape[1]} pixels, but the "
            f"rows have {n_pixels}."
        )
    return image_shape


def near_square(vector: NDArray[Any]) -> NDArray[Any]:
    """The values of a code as a roughly square image, padded with empty cells."""
    columns = math.ceil(math.sqrt(len(vector)))
    cells = np.full(math.ceil(len(vector) / columns) * columns, np.nan)
    cells[: len(vector)] = vector
    return cells.reshape(-1, columns)


def draw_table(
    table: Sequence[Sequence[NDArray[Any]]],
    row_names: Sequence[str],
    column_names: Sequence[str] | None,
    styles: Sequence[dict[str, Any]],
    ax: Any,
) -> Any:
    """Draw ``table[row][column]``; each row of the table has its own ``imshow`` style.

    Rows may have fewer images than the longest one.
    """
    n_rows, n_columns = len(table), max(len(images) for images in table)
    size = 0.75 if n_columns <= 16 else 12.0 / n_columns
    ax = new_axes(ax, max(2.5, size * n_columns + 1.0), max(1.4, size * n_rows + 0.5))
    for row, (images, style) in enumerate(zip(table, styles, strict=True)):
        for column, image in enumerate(images):
            extent = (column - 0.46, column + 0.46, row + 0.46, row - 0.46)
            ax.imshow(image, extent=extent, interpolation="nearest", **style)
    ax.set(xlim=(-0.5, n_columns - 0.5), ylim=(n_rows - 0.5, -0.5), aspect="equal")
    ax.set_yticks(range(n_rows), row_names)
    if column_names is None:
        ax.set_xticks([])
    else:
        ax.set_xticks(range(n_columns), column_names)
        ax.xaxis.tick_top()
        ax.xaxis.set_label_position("top")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax
