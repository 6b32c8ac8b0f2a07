"""One feature and a target whose conditional density is known exactly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from sklebm._checks import check_number
from sklebm._shell.random import RandomState


class ConditionalDensity(ABC):
    """A density p(y | x) for x uniform in (-1, 1); base class of the curves."""

    @abstractmethod
    def conditional_log_density(self, X: Any, y: Any) -> Any:
        """Return log p(y | x) of each row with a target.

        Parameters
        ----------
        X : array-like of shape (n_samples, 1)
            Rows.
        y : array-like of shape (n_samples,)
            Targets.

        Returns
        -------
        log_p : ndarray of shape (n_samples,)
            In nats.
        """

    @abstractmethod
    def _draw(self, x: Any, random: np.random.RandomState) -> Any:
        """One target for each x."""

    def sample(self, n_samples: int = 1, *, random_state: RandomState = None) -> Any:
        """Draw rows with their targets.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, 1)
            Rows.
        y : ndarray of shape (n_samples,)
            Targets.
        """
        if random_state is None:
            random_state = np.random.RandomState()
        random = check_random_state(random_state)
        x = random.uniform(-1.0, 1.0, size=n_samples)
        return x[:, None], self._draw(x, random)


def _log_normal(y: Any, mean: Any, scale: Any) -> Any:
    return -0.5 * ((y - mean) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)


def _columns(X: Any, y: Any) -> tuple[Any, Any]:
    x, y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != 1 or y.shape != (len(x),):
        raise ValueError(
            f"X has shape {x.shape} and y {y.shape}: pass X of shape (n, 1) and y of shape (n,)."
        )
    return x[:, 0], y


@dataclass(frozen=True)
class TwoBranches(ConditionalDensity):
    """Two branches, y = +-(1 + x) / 2 plus Gaussian noise: one mode that becomes two.

    Either sign has probability 1/2.

    Parameters
    ----------
    noise : float, default=0.1
        Standard deviation of the noise.
    """

    noise: float = 0.1

    def __post_init__(self) -> None:
        check_number(self.noise, "noise", self)

    def conditional_log_density(self, X: Any, y: Any) -> Any:
        """Return log p(y | x) of each row with a target.

        Parameters
        ----------
        X : array-like of shape (n_samples, 1)
            Rows.
        y : array-like of shape (n_samples,)
            Targets.

        Returns
        -------
        log_p : ndarray of shape (n_samples,)
            In nats.
        """
        x, y = _columns(X, y)
        branch = 0.5 * (1.0 + x)
        both = (_log_normal(y, sign * branch, self.noise) for sign in (1.0, -1.0))
        return np.logaddexp(*both) - np.log(2.0)

    def _draw(self, x: Any, random: np.random.RandomState) -> Any:
        sign = random.choice([-1.0, 1.0], size=len(x))
        return 0.5 * sign * (1.0 + x) + self.noise * random.normal(size=len(x))


@dataclass(frozen=True)
class Trumpet(ConditionalDensity):
    """A curve, y = sin(3 x), plus Gaussian noise that grows from left to right.

    Parameters
    ----------
    narrow, wide : float, default=0.05, 1.0
        Standard deviations at x = -1 and x = 1; between them the logarithm is linear.
    """

    narrow: float = 0.05
    wide: float = 1.0

    def __post_init__(self) -> None:
        check_number(self.narrow, "narrow", self)
        check_number(self.wide, "wide", self)

    def _scale(self, x: Any) -> Any:
        return self.narrow * (self.wide / self.narrow) ** (0.5 * (1.0 + x))

    def conditional_log_density(self, X: Any, y: Any) -> Any:
        """Return log p(y | x) of each row with a target.

        Parameters
        ----------
        X : array-like of shape (n_samples, 1)
            Rows.
        y : array-like of shape (n_samples,)
            Targets.

        Returns
        -------
        log_p : ndarray of shape (n_samples,)
            In nats.
        """
        x, y = _columns(X, y)
        return _log_normal(y, np.sin(3.0 * x), self._scale(x))

    def _draw(self, x: Any, random: np.random.RandomState) -> Any:
        return np.sin(3.0 * x) + self._scale(x) * random.normal(size=len(x))
