"""What a sampler visits: the states of a few chains after increasing numbers of steps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.arrays import to_numpy
from sklebm._shell.random import draw_seed
from sklebm.plotting._tiles import check_image_shape, draw_table


class SampleChainDisplay:
    """Chains over time: a row of images for each chain, a column for each number of steps.

    Parameters
    ----------
    states : array-like of shape (n_times, n_chains, n_pixels)
        States of the chains, flattened images.
    steps : sequence of int of length n_times
        Steps taken before each state.
    image_shape : tuple of int, default=None
        Height and width; None assumes square images.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the last plot.
    figure_ : matplotlib Figure
        The figure of the last plot.

    Raises
    ------
    ValueError
        If shapes do not fit, ``steps`` do not ascend, or the estimator has no ``gibbs``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import BernoulliRBM
    >>> from sklebm.plotting import SampleChainDisplay
    >>> X = (load_digits().data > 8).astype("float32")
    >>> model = BernoulliRBM(16, max_epochs=2, random_state=0).fit(X)
    >>> display = SampleChainDisplay.from_estimator(model, X[:4], steps=(0, 1, 10), random_state=0)
    >>> display.states.shape
    (3, 4, 64)
    """

    def __init__(
        self, states: Any, steps: Sequence[int], image_shape: tuple[int, int] | None = None
    ) -> None:
        self.states = states
        self.steps = steps
        self.image_shape = image_shape

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        steps: Sequence[int] = (0, 1, 3, 10, 30, 100, 300, 1000),
        image_shape: tuple[int, int] | None = None,
        random_state: Any = None,
        ax: Any = None,
    ) -> Self:
        """Run chains from rows and draw them.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with ``gibbs(X, n_steps)``.
        X : array-like of shape (n_chains, n_pixels)
            Where the chains start.
        steps : sequence of int, default=(0, 1, 3, 10, 30, 100, 300, 1000)
            Numbers of steps after which to draw the states, ascending.
        image_shape : tuple of int, default=None
            Height and width; None assumes square images.
        random_state : int, RandomState instance or None, default=None
            Seed for the chains.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : SampleChainDisplay
            The display, drawn.
        """
        check_is_fitted(estimator)
        if not hasattr(estimator, "gibbs"):
            raise ValueError(
                f"{type(estimator).__name__} has no gibbs: run its chains yourself and pass their "
                "states to SampleChainDisplay."
            )
        rng = np.random.RandomState(draw_seed(random_state))  # the global one stays as it is
        states, state, taken = [], to_numpy(X), 0
        for step in _checked(steps):
            if step > taken:
                seed = rng.randint(2**31 - 1)
                state = to_numpy(estimator.gibbs(state, step - taken, random_state=seed))
                taken = step
            states.append(state)
        return cls(np.stack(states), steps, image_shape).plot(ax=ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the chains.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        self : SampleChainDisplay
            The display.
        """
        states, steps = np.asarray(self.states, dtype=float), _checked(self.steps)
        if states.ndim != 3 or len(states) != len(steps) or not states.size:
            raise ValueError(
                f"states has shape {states.shape}: it must be (n_times, n_chains, n_pixels) with "
                f"n_times={len(steps)}, the number of steps."
            )
        shape = check_image_shape(states.shape[2], self.image_shape)
        n_chains = states.shape[1]
        table = [[state[chain].reshape(shape) for state in states] for chain in range(n_chains)]
        greys = {"cmap": "gray", "vmin": states.min(), "vmax": states.max()}
        names = [f"chain {chain + 1}" for chain in range(n_chains)]
        ax = draw_table(table, names, [str(step) for step in steps], [greys] * n_chains, ax)
        ax.set_xlabel("steps")
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _checked(steps: Sequence[int]) -> list[int]:
    numbers = list(steps)
    if not numbers or numbers[0] < 0 or any(b <= a for a, b in itertools.pairwise(numbers)):
        raise ValueError(f"steps={steps!r} must ascend from 0 or more.")
    return numbers
