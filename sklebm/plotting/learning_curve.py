"""Objective and held-out score by epoch or iteration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sklebm.plotting._canvas import COLOURS, need_names, new_axes

#: Where estimators keep their objective, and what a step of it is called.
_CURVES = {
    "loss_curve_": "epoch",
    "energy_curve_": "iteration",
    "lower_bounds_": "iteration",
}


class LearningCurveDisplay:
    """What a fit recorded, epoch by epoch or iteration by iteration.

    Not to be confused with scikit-learn's display of this name, which shows scores by training-set
    size.

    Parameters
    ----------
    loss : array-like of shape (n_epochs,)
        The objective's mean loss in each epoch. Epochs can be compared only for objectives that say
        so: the loss of contrastive divergence cannot.
    scores : mapping of str to array-like of shape (n_epochs,), default=None
        Scores by name, such as a held-out score; higher is better.
    loss_name : str, default="loss"
        Label of the left axis.
    step : str, default="epoch"
        Label of the horizontal axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the loss.
    score_ax_ : matplotlib Axes or None
        The axes of the scores, on the right; None without scores.
    figure_ : matplotlib Figure
        The figure of the last plot.

    Raises
    ------
    TypeError
        If the scores have no names.
    ValueError
        If nothing was recorded.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import BernoulliRBM
    >>> from sklebm.plotting import LearningCurveDisplay
    >>> X = (load_digits().data > 8).astype("float32")
    >>> model = BernoulliRBM(8, max_epochs=5, validation_fraction=0.2, random_state=0).fit(X)
    >>> display = LearningCurveDisplay.from_estimator(model)
    >>> len(display.loss)
    5
    """

    def __init__(
        self,
        loss: Any,
        scores: Mapping[str, Any] | None = None,
        loss_name: str = "loss",
        step: str = "epoch",
    ) -> None:
        self.loss = loss
        self.scores = scores
        self.loss_name = loss_name
        self.step = step

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        scores: Mapping[str, Any] | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw what the last fit recorded.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with ``loss_curve_`` (trained by gradient), ``energy_curve_``
            (dictionaries) or ``lower_bounds_`` (expectation maximisation; higher is better), and
            ``validation_scores_`` if it held out rows; or a pipeline that ends in one.
        scores : mapping of str to array-like of shape (n_epochs,), default=None
            Further scores, such as those of an EnergyMonitor.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            Passed on to ``plot``.

        Returns
        -------
        display : LearningCurveDisplay
            The display, drawn.
        """
        check_is_fitted(estimator)
        if scores is not None:
            need_names(scores, "scores", "scores")
        if isinstance(estimator, Pipeline):
            estimator = estimator[-1]
        curve = next((name for name in _CURVES if hasattr(estimator, name)), None)
        if curve is None:
            raise ValueError(
                f"{type(estimator).__name__} has none of {', '.join(_CURVES)}: it records no "
                "learning curve. An EnergyMonitor records the score of held-out rows."
            )
        curves = {} if scores is None else dict(scores.items())
        held_out = np.asarray(getattr(estimator, "validation_scores_", ()))
        if len(held_out):
            curves = {"validation_scores_": held_out, **curves}
        name = f"{curve} of {type(estimator).__name__}"
        return cls(getattr(estimator, curve), curves, name, _CURVES[curve]).plot(ax=ax, **kwargs)

    def plot(self, ax: Any = None) -> Self:
        """Draw the loss on the left axis and the scores on the right one.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        self : LearningCurveDisplay
            The display.
        """
        loss = np.asarray(self.loss, dtype=float)
        if not loss.size:
            raise ValueError(f"There is no {self.step} to draw: the curve is empty.")
        if self.scores is not None:
            need_names(self.scores, "scores", "scores")
        curves = {} if self.scores is None else dict(self.scores.items())
        ax = new_axes(ax, 6.4, 3.4)
        style = {"marker": "o", "markersize": 3} if len(loss) <= 30 else {}
        lines = ax.plot(_epochs(loss), loss, color="black", label=self.loss_name, **style)
        ax.set(xlabel=self.step, ylabel=self.loss_name)
        ax.xaxis.get_major_locator().set_params(integer=True)
        self.score_ax_ = None
        if curves:
            self.score_ax_ = ax.twinx()
            for index, (name, values) in enumerate(curves.items()):
                colour, curve = COLOURS[index % 7], np.asarray(values, dtype=float)
                lines += self.score_ax_.plot(
                    _epochs(curve), curve, color=colour, label=name, **style
                )
            self.score_ax_.set_ylabel("score (higher is better)")
            ax.legend(handles=lines, frameon=False, fontsize="small", loc="center right")
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _epochs(curve: Any) -> Any:
    return np.arange(1, len(curve) + 1)
