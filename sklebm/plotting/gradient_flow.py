"""How far back a recurrent network learns: gradient norms by the distance from the loss."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.arrays import to_numpy
from sklebm.plotting._canvas import COLOURS, new_axes


class GradientFlowDisplay:
    """Norms of the gradient of a sequence's last loss with respect to its earlier states.

    A network whose curve falls fast cannot learn from steps far back (vanishing gradients); where
    the curve rises with the lag, far steps outweigh near ones (exploding gradients).

    Parameters
    ----------
    lags : array-like of shape (n_lags,)
        Steps between a state and the loss.
    norms : array-like of shape (n_lags,)
        Mean norm over the sequences.
    name : str, default="gradient"
        Label of the curve.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the last plot.
    figure_ : matplotlib Figure
        Its figure.

    Raises
    ------
    ValueError
        If there is nothing to draw.

    Examples
    --------
    >>> from sklebm import SequenceEnergy
    >>> from sklebm.datasets import make_pendulum
    >>> from sklebm.plotting import GradientFlowDisplay
    >>> X, groups = make_pendulum(5, 20, random_state=0)
    >>> model = SequenceEnergy(4, max_epochs=2, random_state=0).fit(X, groups=groups)
    >>> display = GradientFlowDisplay.from_estimator(model, X, groups)
    >>> display.lags[:3].tolist()
    [1, 2, 3]
    """

    def __init__(self, lags: Any, norms: Any, name: str = "gradient") -> None:
        self.lags = lags
        self.norms = norms
        self.name = name

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, groups: Any = None, *, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Compute the norms and draw them.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with ``gradient_flow``, such as SequenceEnergy.
        X : array-like or tensor of shape (n_samples, n_features)
            The steps of all sequences.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each step; None: one sequence.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure. Pass the same axes to compare several models.
        **kwargs : dict
            Passed on to ``plot``.

        Returns
        -------
        display : GradientFlowDisplay
            The display, drawn.
        """
        check_is_fitted(estimator)
        norms = to_numpy(estimator.gradient_flow(X, groups))
        sequences = np.zeros(len(norms)) if groups is None else to_numpy(groups)
        borders = np.flatnonzero(sequences[1:] != sequences[:-1]) + 1
        backwards = [part[-2::-1] for part in np.split(norms, borders)]  # from the last loss on
        longest = max(len(part) for part in backwards)
        means = [np.mean([p[lag] for p in backwards if lag < len(p)]) for lag in range(longest)]
        label = kwargs.pop("name", getattr(estimator, "cell", type(estimator).__name__))
        return cls(np.arange(1, longest + 1), np.array(means), label).plot(ax=ax, **kwargs)

    def plot(self, ax: Any = None, *, colour: str | None = None) -> Self:
        """Draw one curve on a logarithmic scale.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        colour : str or None, default=None
            Colour of the curve; None takes the next one that the axes have not used.

        Returns
        -------
        self : GradientFlowDisplay
            The display.
        """
        norms = np.asarray(self.norms, dtype=float)
        if not norms.size:
            raise ValueError("There is no gradient to draw: no sequence has more than one step.")
        ax = new_axes(ax, 6.4, 3.4)
        colour = colour or COLOURS[len(ax.lines) % len(COLOURS)]
        ax.plot(self.lags, np.maximum(norms, 1e-30), color=colour, label=self.name)
        ax.set(xlabel="steps before the loss", ylabel="norm of the gradient", yscale="log")
        ax.legend(frameon=False, fontsize="small")
        self.ax_, self.figure_ = ax, ax.figure
        return self
