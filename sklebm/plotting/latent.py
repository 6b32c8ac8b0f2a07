"""Codes of rows as points in the plane, coloured by a label or a number."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.arrays import to_numpy
from sklebm.plotting._canvas import new_axes


class LatentDisplay:
    """A scatter plot of two components of the codes.

    Parameters
    ----------
    codes : array-like of shape (n_rows, n_components)
        Codes with at least two components.
    y : array-like of shape (n_rows,), default=None
        Labels, shown in a legend, or continuous numbers, shown on a colour bar.
    components : tuple of int, default=(0, 1)
        The two components to draw.
    name : str, default="component"
        Name of a component on the axes.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the last plot.
    figure_ : matplotlib Figure
        The figure of the last plot.

    Raises
    ------
    ValueError
        If these two components do not exist, or ``y`` has a different length.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import PCAWhitener
    >>> from sklebm.plotting import LatentDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> display = LatentDisplay.from_estimator(PCAWhitener(n_components=2).fit(X), X, y)
    >>> display.ax_.get_xlabel()
    'component 0 of PCAWhitener'
    """

    def __init__(
        self,
        codes: Any,
        y: Any = None,
        components: tuple[int, int] = (0, 1),
        name: str = "component",
    ) -> None:
        self.codes = codes
        self.y = y
        self.components = components
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        components: tuple[int, int] = (0, 1),
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Transform rows and draw their codes.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with ``transform``.
        X : array-like of shape (n_rows, n_features)
            Rows to encode.
        y : array-like of shape (n_rows,), default=None
            Labels or continuous numbers.
        components : tuple of int, default=(0, 1)
            The two components to draw.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            Passed on to ``plot``.

        Returns
        -------
        display : LatentDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the estimator has no ``transform``, or its codes lack one of the components.
        """
        check_is_fitted(estimator)
        if not hasattr(estimator, "transform"):
            raise ValueError(
                f"{type(estimator).__name__} has no transform, so there are no codes to draw."
            )
        display = cls(to_numpy(estimator.transform(X)), y, components)
        return display.plot(ax=ax, estimator_name=type(estimator).__name__, **kwargs)

    def plot(
        self, ax: Any = None, *, estimator_name: str | None = None, size: float | None = None
    ) -> Self:
        """Draw the points.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        estimator_name : str, default=None
            Name of the model in the axis labels.
        size : float, default=None
            Area of a marker in squared points; None chooses a smaller size the more rows there are.

        Returns
        -------
        self : LatentDisplay
            The display.
        """
        points = self._points()
        ax = new_axes(ax, 5.6, 4.4)
        area = float(np.clip(2e4 / len(points), 3, 40)) if size is None else size
        style = {"s": area, "linewidths": 0, "alpha": 0.8}
        if self.y is None:
            ax.scatter(*points.T, color="#0072B2", **style)
        elif type_of_target(self.y) in {"binary", "multiclass"}:
            _draw_labels(ax, points, np.asarray(self.y), style)
        else:
            drawn = ax.scatter(*points.T, c=np.asarray(self.y, dtype=float), **style)
            ax.figure.colorbar(drawn, ax=ax, label="y")
        of = f" of {estimator_name}" if estimator_name else ""
        first, second = (f"{self.name} {index}{of}" for index in self.components)
        ax.set(xlabel=first, ylabel=second)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _points(self) -> Any:
        codes = np.asarray(self.codes, dtype=float)
        if codes.ndim != 2 or codes.shape[1] <= max(*self.components, 1) or not len(codes):
            raise ValueError(
                f"components={self.components} cannot be drawn: the codes have shape {codes.shape}."
            )
        if self.y is not None and len(self.y) != len(codes):
            raise ValueError(f"y has {len(self.y)} values for {len(codes)} rows of codes.")
        return codes[:, list(self.components)]


def _draw_labels(ax: Any, points: Any, y: Any, style: dict[str, Any]) -> None:
    from matplotlib import colormaps

    labels = np.unique(y)
    # Lightness increases along viridis, so labels differ even without colour; three alternating
    # markers tell neighbours apart.
    colours = colormaps["viridis"](np.linspace(0, 0.95, len(labels)))
    for index, (label, colour) in enumerate(zip(labels, colours, strict=True)):
        kept, marker = y == label, "osD"[index % 3]
        ax.scatter(*points[kept].T, color=colour, label=str(label), marker=marker, **style)
    if len(labels) <= 30:
        ax.legend(
            loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, markerscale=2,
            ncols=1 + len(labels) // 16, fontsize="small",
        )  # fmt: skip
