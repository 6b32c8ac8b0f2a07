"""The free energy of a two-feature model as a contour map."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.arrays import to_numpy
from sklebm.plotting._canvas import new_axes


class EnergyLandscapeDisplay:
    """A map of the energy over two features, with data, samples and the downhill direction.

    Parameters
    ----------
    x, y : array-like of shape (n_columns,) and (n_rows,)
        Coordinates of the grid, ascending.
    energy : array-like of shape (n_rows, n_columns)
        Energy at each point of the grid, low where the model expects data.
    energy_name : str, default="energy"
        Label of the colour bar, with its unit.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the last plot.
    figure_ : matplotlib Figure
        The figure of the last plot.
    surface_ : matplotlib QuadContourSet
        The contours that were drawn.

    Raises
    ------
    ValueError
        If the estimator was not fitted on two features, or the grid does not fit the energy.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklebm import EnergyGaussianMixture
    >>> from sklebm.plotting import EnergyLandscapeDisplay
    >>> X = make_moons(300, noise=0.05, random_state=0)[0]
    >>> model = EnergyGaussianMixture(8, random_state=0).fit(X)
    >>> display = EnergyLandscapeDisplay.from_estimator(model, X, grid_resolution=50)
    >>> display.energy.shape
    (50, 50)
    """

    def __init__(self, x: Any, y: Any, energy: Any, energy_name: str = "energy") -> None:
        self.x = x
        self.y = y
        self.energy = energy
        self.energy_name = energy_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        grid_resolution: int = 150,
        margin: float = 0.2,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Evaluate the energy around rows and draw it. O(grid_resolution^2) rows are scored.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator of two features with ``free_energy`` or ``score_samples`` (whose
            negative is drawn).
        X : array-like of shape (n_rows, 2)
            Rows that set the range of the map and are drawn as points.
        grid_resolution : int, default=150
            Points along each axis.
        margin : float, default=0.2
            Margin around the rows, as a fraction of their range.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            Passed on to ``plot``.

        Returns
        -------
        display : EnergyLandscapeDisplay
            The display, drawn.
        """
        check_is_fitted(estimator)
        rows = to_numpy(X)
        if rows.ndim != 2 or rows.shape[1] != 2:
            raise ValueError(
                f"A map has two axes, but X has shape {rows.shape}: fit the estimator on two "
                "features, for example the first two of a PCAWhitener."
            )
        # The map lies between the rows, whose integers or half precision it would be rounded to.
        rows = rows if rows.dtype in (np.float32, np.float64) else rows.astype(np.float64)
        low, high = rows.min(axis=0), rows.max(axis=0)
        room = margin * np.where(high > low, high - low, 1.0)
        x, y = np.linspace(low - room, high + room, grid_resolution).T
        grid = np.stack([axis.ravel() for axis in np.meshgrid(x, y)], axis=1).astype(rows.dtype)
        name = "free_energy" if hasattr(estimator, "free_energy") else "score_samples"
        sign = 1.0 if name == "free_energy" else -1.0
        energy = sign * to_numpy(getattr(estimator, name)(grid)).reshape(len(y), len(x))
        label = f"{'' if sign > 0 else '−'}{name} of {type(estimator).__name__}"
        return cls(x, y, energy, label).plot(ax=ax, data=rows, **kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        data: Any = None,
        samples: Any = None,
        gradient: bool = False,
        n_levels: int = 24,
        depth: float | None = None,
        cmap: str = "viridis_r",
        colorbar: bool = True,
    ) -> Self:
        """Draw the map.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        data, samples : array-like of shape (n_rows, 2), default=None
            Points to draw: rows as dots, draws of the model as crosses.
        gradient : bool, default=False
            Draw arrows down the gradient, of equal length.
        n_levels : int, default=24
            Number of levels.
        depth : float, default=None
            Range of energies above the lowest that the colours resolve; higher ones share the last
            colour. None stops at the median of the map, because steep regions far from the data
            would use up all the colours.
        cmap : str, default="viridis_r"
            Colour map; dark is high.
        colorbar : bool, default=True
            Draw the scale beside the map.

        Returns
        -------
        self : EnergyLandscapeDisplay
            The display.
        """
        energy, x, y = self._checked()
        low = float(energy.min())
        high = float(np.median(energy)) if depth is None else low + depth
        levels = np.linspace(low, high if high > low else low + 1.0, n_levels)
        ax = new_axes(ax, 5.2, 4.2)
        self.surface_ = ax.contourf(x, y, energy, levels=levels, cmap=cmap, extend="max")
        if colorbar:
            bar = ax.figure.colorbar(self.surface_, ax=ax, label=self.energy_name)
            bar.set_ticks(_round_ticks(levels[0], levels[-1]))
        if gradient:
            _draw_arrows(ax, x, y, energy)
        # White edges: points must be visible on light and dark backgrounds.
        style = {"edgecolors": "white", "linewidths": 0.4}
        if data is not None:
            ax.scatter(*to_numpy(data).T, s=12, c="#D55E00", label="data", **style)
        if samples is not None:
            ax.scatter(*to_numpy(samples).T, s=16, c="black", marker="X", label="samples", **style)
        if data is not None and samples is not None:
            ax.legend(fontsize="small", loc="upper right")
        ax.set(xlabel="feature 0", ylabel="feature 1")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _checked(self) -> tuple[Any, Any, Any]:
        energy, x, y = (np.asarray(part, dtype=float) for part in (self.energy, self.x, self.y))
        if energy.shape != (len(y), len(x)):
            raise ValueError(
                f"energy has shape {energy.shape}, but the grid has {len(y)} rows and {len(x)} "
                "columns."
            )
        if not np.isfinite(energy).all():
            raise ValueError("The energy is not finite on the whole grid: draw a smaller range.")
        return energy, x, y


def _round_ticks(low: float, high: float) -> Any:
    """Round numbers within the levels: a colour bar would draw others at its ends."""
    from matplotlib.ticker import MaxNLocator

    ticks = np.asarray(MaxNLocator(6).tick_values(low, high))
    return ticks[(ticks >= low) & (ticks <= high)]


def _draw_arrows(ax: Any, x: Any, y: Any, energy: Any) -> None:
    slope_y, slope_x = np.gradient(energy, y, x)
    length = np.hypot(slope_x, slope_y) + np.finfo(float).tiny
    step = max(1, len(x) // 16)
    part = (slice(step // 2, None, step),) * 2
    ax.quiver(
        x[part[1]],
        y[part[0]],
        -(slope_x / length)[part],
        -(slope_y / length)[part],
        color="white",
        alpha=0.7,
        scale=28,
        width=0.004,
    )
