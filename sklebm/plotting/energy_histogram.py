"""Scores of named groups as histograms on one scale, with each group's AUROC against the first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.arrays import to_numpy
from sklebm.plotting._canvas import COLOURS, need_names, new_axes


class EnergyHistogramDisplay:
    """Distributions of scores, showing which groups a model can tell from its data.

    Parameters
    ----------
    scores : mapping of str to array-like of shape (n_rows,)
        Scores by group, higher for more typical rows. The first group is the reference, such as
        held-out rows of the training distribution.
    score_name : str, default="score"
        Label of the horizontal axis, with its unit.

    Attributes
    ----------
    auroc_ : dict of str to float
        For every group but the first: the probability that a reference row scores higher than one
        of the group, with ties counted half.
    ax_ : matplotlib Axes
        The axes of the last plot.
    figure_ : matplotlib Figure
        The figure of the last plot.

    Raises
    ------
    TypeError
        If the groups have no names.
    ValueError
        If there is no group, or a group is empty or contains values that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import GaussianEnergy
    >>> from sklebm.plotting import EnergyHistogramDisplay
    >>> rng = np.random.default_rng(0)
    >>> model = GaussianEnergy().fit(rng.normal(size=(500, 3)))
    >>> groups = {"held out": rng.normal(size=(200, 3)), "wider": rng.normal(size=(200, 3)) * 3}
    >>> display = EnergyHistogramDisplay.from_estimator(model, groups)
    >>> round(display.auroc_["wider"], 2)
    0.93
    """

    def __init__(self, scores: Mapping[str, Any], score_name: str = "score") -> None:
        self.scores = scores
        self.score_name = score_name

    @classmethod
    def from_estimator(
        cls, estimator: Any, groups: Mapping[str, Any], *, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Score groups of rows and draw the scores.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with ``score_samples``.
        groups : mapping of str to array-like of shape (n_rows, n_features)
            Rows by group; the first is the reference.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            Passed on to ``plot``.

        Returns
        -------
        display : EnergyHistogramDisplay
            The display, drawn.
        """
        check_is_fitted(estimator)
        need_names(groups, "groups", "rows")
        scores = {name: estimator.score_samples(rows) for name, rows in groups.items()}
        return cls(scores, f"score_samples of {type(estimator).__name__}").plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls, scores: Mapping[str, Any], *, score_name: str = "score", ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw scores that were computed before.

        Parameters
        ----------
        scores : mapping of str to array-like of shape (n_rows,)
            Scores by group; the first is the reference.
        score_name : str, default="score"
            Label of the horizontal axis, with its unit.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            Passed on to ``plot``.

        Returns
        -------
        display : EnergyHistogramDisplay
            The display, drawn.
        """
        return cls(scores, score_name).plot(ax=ax, **kwargs)

    def plot(self, ax: Any = None, *, n_bins: int = 60, clip: float = 0.01) -> Self:
        """Draw one outline per group.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        n_bins : int, default=60
            Number of bins, the same for every group.
        clip : float, default=0.01
            Fraction of each group's lowest scores that the axis may leave out; they are counted in
            the first bin. Otherwise a single far outlier would flatten everything else.

        Returns
        -------
        self : EnergyHistogramDisplay
            The display.
        """
        scores = self._checked()
        low = min(np.quantile(values, clip) for values in scores.values())
        high = max(values.max() for values in scores.values())
        edges = np.linspace(low, high if high > low else low + 1.0, n_bins + 1)
        reference = next(iter(scores.values()))
        self.auroc_ = {}
        ax, highest = new_axes(ax, 6.4, 3.6), 0.0
        for index, (name, values) in enumerate(scores.items()):
            label = name
            if index:
                truth = np.r_[np.ones(len(reference)), np.zeros(len(values))]
                self.auroc_[name] = float(roc_auc_score(truth, np.r_[reference, values]))
                label = f"{name} (AUROC {self.auroc_[name]:.3f})"
            colour, style = COLOURS[index % len(COLOURS)], ("-", "--", ":")[index // 8 % 3]
            heights = np.histogram(np.maximum(values, low), edges)[0] / len(values)
            highest = max(highest, float(heights.max()))
            ax.stairs(heights, edges, color=colour, linestyle=style, linewidth=1.6, label=label)
            ax.stairs(heights, edges, color=colour, alpha=0.15, fill=True)
        columns = 1 if len(scores) <= 10 else 2
        room = 1.05 + 0.07 * math.ceil(len(scores) / columns)  # for the legend above the outlines
        ax.set(xlabel=self.score_name, ylabel="fraction of the group", ylim=(0, room * highest))
        ax.legend(frameon=False, fontsize="small", ncols=columns)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _checked(self) -> dict[str, Any]:
        need_names(self.scores, "scores", "scores")
        scores = {name: to_numpy(values).astype(float) for name, values in self.scores.items()}
        if not scores:
            raise ValueError("There is no group to draw: pass at least one, by name.")
        for name, values in scores.items():
            if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
                raise ValueError(
                    f"The scores of group {name!r} must be a non-empty vector of finite numbers; "
                    f"their shape is {values.shape}, {np.sum(~np.isfinite(values))} are not finite."
                )
        return scores
