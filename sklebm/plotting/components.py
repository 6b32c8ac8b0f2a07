"""Filters, atoms, prototypes or weights of an estimator as a grid of image tiles."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sklebm.plotting._canvas import import_pyplot
from sklebm.plotting._tiles import check_image_shape

Scale = Literal["own", "shared"]
#: Where models keep what looks like their rows. Of a full gated machine, components_ is no table.
_ATTRIBUTES = (
    "cluster_centers_",
    "filters_",
    "components_",
    "means_",
    "patterns_",
    "left_factors_",
)


class ComponentsDisplay:
    """A grid of image tiles, one per row of a weight matrix.

    Parameters
    ----------
    components : array-like of shape (n_components, n_pixels)
        One flattened image per row.
    image_shape : tuple of int
        Height and width of a tile.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the last plot.
    figure_ : matplotlib Figure
        The figure of the last plot.
    image_ : matplotlib AxesImage
        The grid as drawn, a single image.

    See Also
    --------
    sklebm.EnergyKMeans : Its ``cluster_centers_`` are prototypes.
    sklebm.ZCAWhitener : Its ``filters_`` are centre-surround filters.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import EnergyKMeans
    >>> from sklebm.plotting import ComponentsDisplay
    >>> model = EnergyKMeans(10, random_state=0).fit(load_digits().data)
    >>> display = ComponentsDisplay.from_estimator(model, image_shape=(8, 8))
    >>> display.ax_.get_title()
    'cluster_centers_ of EnergyKMeans'
    """

    def __init__(self, components: Any, image_shape: tuple[int, int]) -> None:
        self.components = components
        self.image_shape = image_shape

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        image_shape: tuple[int, int] | None = None,
        attribute: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the components of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with ``cluster_centers_``, ``filters_``, ``components_``, ``means_``,
            ``patterns_`` or ``left_factors_``.
        image_shape : tuple of int, default=None
            Height and width of a tile; None assumes square images.
        attribute : str, default=None
            Name of the fitted attribute to draw; None takes the first of those above.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            Passed on to ``plot``.

        Returns
        -------
        display : ComponentsDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If there is no such attribute, or if it does not fit ``image_shape``; for a pipeline,
            whose steps change what a column means.
        """
        check_is_fitted(estimator)
        if isinstance(estimator, Pipeline):
            raise ValueError(
                "The components of a Pipeline are those of its last step, in the columns that the "
                "steps before it produce: pass the step, pipeline[-1]."
            )
        name = attribute or _find_attribute(estimator)
        components = getattr(estimator, name, None)
        if components is None:
            raise ValueError(
                f"{type(estimator).__name__} has no fitted attribute {name!r}: pass the name of a "
                "2-D fitted attribute as attribute=."
            )
        components = np.asarray(components)
        if components.ndim != 2:
            raise ValueError(
                f"{name} of {type(estimator).__name__} has shape {components.shape}, but a row for "
                "each image is drawn: pass the name of a 2-D fitted attribute as attribute=."
            )
        if image_shape is None:
            image_shape = check_image_shape(components.shape[1], None)
        display = cls(components, image_shape)
        kwargs.setdefault("title", f"{name} of {type(estimator).__name__}")
        return display.plot(ax=ax, **kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        n_columns: int | None = None,
        max_components: int = 100,
        scale: Scale = "own",
        order: Literal["given", "norm"] = "given",
        cmap: str | None = None,
        title: str | None = None,
    ) -> Self:
        """Draw the tiles.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure whose size fits the grid.
        n_columns : int, default=None
            Tiles per row; None makes the grid about as wide as it is high.
        max_components : int, default=100
            At most this many tiles are drawn.
        scale : {"own", "shared"}, default="own"
            Whether every tile uses the full range of greys, or all share one range.
        order : {"given", "norm"}, default="given"
            Keep the order, or sort by descending Euclidean norm.
        cmap : str, default=None
            Colour map; None takes grey for one-signed tiles and a diverging map, white at zero,
            for tiles of both signs.
        title : str, default=None
            Title of the axes.

        Returns
        -------
        self : ComponentsDisplay
            The display.
        """
        plt = import_pyplot()
        tiles = self._tiles(order, max_components)
        signed = _is_signed(tiles)
        columns = n_columns or math.ceil(math.sqrt(len(tiles)))
        grid = _grid(_normalise(tiles, scale, signed), columns)
        if ax is None:
            height = max(1.2, 0.55 * math.ceil(len(tiles) / columns))
            _, ax = plt.subplots(
                figsize=(max(2.4, 0.55 * columns), height + 0.4), layout="constrained"
            )
        limits = {"vmin": -1.0, "vmax": 1.0} if signed else {"vmin": 0.0, "vmax": 1.0}
        self.image_ = ax.imshow(
            grid, cmap=cmap or ("RdBu_r" if signed else "gray"), interpolation="nearest", **limits
        )
        ax.set_axis_off()
        if title:
            ax.set_title(title, fontsize="medium")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _tiles(self, order: str, max_components: int) -> Any:
        components = np.asarray(self.components, dtype=np.float64)
        height, width = self.image_shape
        if components.ndim != 2 or components.shape[1] != height * width:
            raise ValueError(
                f"image_shape={self.image_shape} means {height * width} pixels, but the "
                f"components have shape {components.shape}: the product must be the number of "
                "columns."
            )
        if order == "norm":
            ranking = np.argsort(-np.linalg.norm(components, axis=1), kind="stable")
            components = components[ranking]
        return components[:max_components].reshape(-1, height, width)


def _find_attribute(estimator: Any) -> str:
    for name in _ATTRIBUTES:
        value: Any = getattr(estimator, name, None)
        if np.ndim(value) == 2:
            return name
    raise ValueError(
        f"{type(estimator).__name__} has none of the attributes {', '.join(_ATTRIBUTES)} as a "
        "table; name another one with attribute=."
    )


def _is_signed(tiles: Any) -> bool:
    """Whether there are values of both signs, beyond the rounding of values that are zero."""
    low, high = float(tiles.min()), float(tiles.max())
    return min(-low, high) > 1e-6 * max(-low, high)


def _normalise(tiles: Any, scale: Scale, signed: bool) -> Any:
    """Map tiles to [-1, 1] with 0 fixed if they have both signs, else to [0, 1]."""
    axes = (1, 2) if scale == "own" else None
    tiny = np.finfo(np.float64).tiny
    if signed:
        return tiles / np.maximum(np.abs(tiles).max(axis=axes, keepdims=True), tiny)
    low = tiles.min(axis=axes, keepdims=True)
    return (tiles - low) / np.maximum(tiles.max(axis=axes, keepdims=True) - low, tiny)


def _grid(tiles: Any, columns: int) -> Any:
    """One large image with a transparent line between tiles."""
    n_tiles, height, width = tiles.shape
    rows = math.ceil(n_tiles / columns)
    grid = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for index, tile in enumerate(tiles):
        top, left = (index // columns) * (height + 1), (index % columns) * (width + 1)
        grid[top : top + height, left : left + width] = tile
    return grid
