"""Rows as a model sees them: the input, its code, and the reconstruction from the code."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.arrays import to_numpy
from sklebm.plotting._tiles import check_image_shape, draw_table, near_square


class ReconstructionDisplay:
    """Images above their codes and their reconstructions.

    Parameters
    ----------
    X : array-like of shape (n_rows, n_pixels)
        The images, flattened.
    reconstructions : array-like of shape (n_rows, n_pixels)
        The model's reconstructions of them.
    codes : array-like of shape (n_rows, n_components), default=None
        Their codes, drawn as small maps, blue below zero and red above; None leaves them out.
    image_shape : tuple of int, default=None
        Height and width; None assumes square images.

    Attributes
    ----------
    errors_ : ndarray of shape (n_rows,)
        Squared error of each row, the sum over its pixels.
    ax_ : matplotlib Axes
        The axes of the last plot.
    figure_ : matplotlib Figure
        The figure of the last plot.

    Raises
    ------
    ValueError
        If the shapes do not fit, or the estimator cannot reconstruct.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import PCAWhitener
    >>> from sklebm.plotting import ReconstructionDisplay
    >>> X = load_digits().data / 16
    >>> model = PCAWhitener(n_components=16).fit(X)
    >>> display = ReconstructionDisplay.from_estimator(model, X[:10])
    >>> display.codes.shape
    (10, 16)
    """

    def __init__(
        self,
        X: Any,
        reconstructions: Any,
        codes: Any = None,
        image_shape: tuple[int, int] | None = None,
    ) -> None:
        self.X = X
        self.reconstructions = reconstructions
        self.codes = codes
        self.image_shape = image_shape

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        image_shape: tuple[int, int] | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Encode, decode and draw rows.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with ``transform`` and ``inverse_transform``.
        X : array-like of shape (n_rows, n_pixels)
            The images, flattened.
        image_shape : tuple of int, default=None
            Height and width; None assumes square images.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            Passed on to ``plot``.

        Returns
        -------
        display : ReconstructionDisplay
            The display, drawn.
        """
        check_is_fitted(estimator)
        if not hasattr(estimator, "inverse_transform"):
            raise ValueError(
                f"{type(estimator).__name__} has no inverse_transform, so its codes cannot be "
                "decoded."
            )
        codes = estimator.transform(X)
        decoded = to_numpy(estimator.inverse_transform(codes))
        display = cls(to_numpy(X), decoded, to_numpy(codes), image_shape)
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Any = None, *, max_rows: int = 200, n_columns: int = 16) -> Self:
        """Draw a column of tiles for each row.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        max_rows : int, default=200
            At most this many rows are drawn.
        n_columns : int, default=16
            Rows of X drawn side by side before a new line begins.

        Returns
        -------
        self : ReconstructionDisplay
            The display.
        """
        given = np.asarray(self.X, dtype=float)
        made = np.asarray(self.reconstructions, dtype=float)
        if given.ndim != 2 or given.shape != made.shape or not len(given):
            raise ValueError(
                f"The rows have shape {given.shape} and their reconstructions {made.shape}: both "
                "must be (n_rows, n_pixels) with at least one row."
            )
        shape = check_image_shape(given.shape[1], self.image_shape)
        self.errors_ = np.square(given - made).sum(axis=1)
        given, made = given[:max_rows], made[:max_rows]
        # A single grey scale for both, so that a loss of contrast is visible.
        greys = {"cmap": "gray", "vmin": given.min(), "vmax": given.max()}
        bands = [
            ("input", [image.reshape(shape) for image in given], greys),
            ("output", [image.reshape(shape) for image in made], greys),
        ]
        if self.codes is not None:
            codes = np.asarray(self.codes, dtype=float)[:max_rows]
            largest = max(float(np.abs(codes).max()), np.finfo(float).tiny)
            style = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
            bands.insert(1, ("code", [near_square(code) for code in codes], style))
        starts = range(0, len(given), n_columns)
        drawn = [
            (name, images[start : start + n_columns], style)
            for start in starts
            for name, images, style in bands
        ]
        names, table, styles = zip(*drawn, strict=True)
        ax = draw_table(table, names, None, styles, ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self
