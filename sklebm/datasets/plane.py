r"""Densities in the plane, with exact draws and exact logarithms.

Two dimensions are few enough to integrate over, so what a model has learnt can be measured without
estimation: KL(p || q) = int p(x) (log p(x) - log q(x)) dx, where an unnormalised q is normalised on
the same grid.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy.special import ive, logsumexp
from sklearn.utils import check_random_state

from sklebm._shell.random import RandomState, draw_seed


@dataclass(frozen=True)
class PlaneDensity(ABC):
    """A density in the plane; see the module's docstring."""

    @property
    @abstractmethod
    def limit(self) -> float:
        """Half the side of a square around the origin that holds all but 1e-6 of the mass."""

    def log_density(self, X: Any) -> Any:
        """Return log p(x) of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, 2)
            Points of the plane.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats; minus infinity where the density is 0.
        """
        X = np.asarray(X, np.float64)
        if X.ndim != 2 or X.shape[1] != 2:
            raise ValueError(f"X has shape {X.shape}, but must hold points of the plane: (n, 2).")
        return self._log_density(X)

    @abstractmethod
    def _log_density(self, X: Any) -> Any:
        """log p(x) of float64 points, (n_samples,)."""

    @abstractmethod
    def _draw(self, n_samples: int, random: np.random.RandomState) -> Any:
        """Independent points, (n_samples, 2)."""

    def sample(self, n_samples: int = 1, *, random_state: RandomState = None) -> Any:
        """Draw independent points.

        Parameters
        ----------
        n_samples : int, default=1
            Number of points.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, 2)
            The points.
        """
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples={n_samples!r} must be a positive integer.")
        return self._draw(int(n_samples), check_random_state(draw_seed(random_state)))

    def grid(self, n_points: int = 300) -> tuple[Any, float]:
        """Return the midpoints of square cells, and the area of one cell.

        Parameters
        ----------
        n_points : int, default=300
            Number of cells along a side.

        Returns
        -------
        X : ndarray of shape (n_points ** 2, 2)
            Midpoints, row by row from the lower left.
        area : float
            Area of a cell.
        """
        width = 2.0 * self.limit / n_points
        middles = width * (np.arange(n_points) + 0.5) - self.limit
        return np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2), width**2

    def kl_divergence(self, score_samples: Callable[[Any], Any], n_points: int = 300) -> float:
        """Return KL(p || q) in nats, for a model q that is normalised on the grid.

        Parameters
        ----------
        score_samples : callable
            ``score_samples(X)`` is log q up to a constant, such as the method of an estimator.
        n_points : int, default=300
            Number of cells along a side of the grid; O(n_points ** 2).

        Returns
        -------
        divergence : float
            0 if the model equals the density; otherwise its loss on fresh data, in nats per row.
            Mass that the model has outside the grid is not counted.

        Examples
        --------
        >>> from sklearn.mixture import GaussianMixture
        >>> from sklebm.datasets import GaussianCircle
        >>> density = GaussianCircle(n_modes=3)
        >>> X = density.sample(2000, random_state=0)
        >>> mixture = GaussianMixture(3, random_state=0).fit(X)
        >>> bool(density.kl_divergence(mixture.score_samples) < 0.02)
        True
        """
        X, area = self.grid(n_points)
        log_p = self.log_density(X)
        log_q = np.asarray(score_samples(X), np.float64)
        log_q = log_q - logsumexp(log_q) - math.log(area)
        p = np.exp(log_p) * area
        there = p > 0
        gaps = log_p[there] - log_q[there]
        return float(p[there] @ gaps / p.sum())


def _check_positive(density: PlaneDensity, *names: str) -> None:
    for name in names:
        value = getattr(density, name)
        if not (isinstance(value, Real) and 0.0 < float(value) < math.inf):
            kind = type(density).__name__
            raise ValueError(f"{kind}: {name}={value!r} must be a positive number.")


def _squared_distances(X: Any, points: Any) -> Any:
    """|x - c|^2 for all pairs, (n, k)."""
    return sum((X[:, i, None] - points[:, i]) ** 2 for i in range(2))


def _isotropic(squares: Any, noise: float, weights: Any) -> Any:
    """log of a weighted mean of round Gaussians at given squared distances, (n, k)."""
    terms = -0.5 * squares / noise**2 - math.log(2 * math.pi * noise**2)
    return logsumexp(terms, axis=1, b=weights)


@dataclass(frozen=True)
class Rings(PlaneDensity):
    """Circles around the origin, drawn uniformly, plus Gaussian noise.

    Parameters
    ----------
    radii : tuple of float, default=(1.0,)
        The circles' radii; each has the same mass.
    noise : float, default=0.1
        Standard deviation of the noise along each axis.
    """

    radii: tuple[float, ...] = (1.0,)
    noise: float = 0.1

    def __post_init__(self) -> None:
        _check_positive(self, "noise")
        if not self.radii or not all(0.0 < radius < math.inf for radius in self.radii):
            raise ValueError(f"Rings: radii={self.radii!r} must be positive numbers.")

    @property
    def limit(self) -> float:
        """Half the side of the square."""
        return max(self.radii) + 6.0 * self.noise

    def _log_density(self, X: Any) -> Any:
        """log p(x): each circle is a von Mises integral, hence a Bessel function."""
        r = np.hypot(*X.T)[:, None]
        radii = np.asarray(self.radii)
        # I_0(k) = exp(k) ive(0, k) keeps large arguments finite.
        terms = np.log(ive(0, r * radii / self.noise**2)) - 0.5 * ((r - radii) / self.noise) ** 2
        constant = math.log(2 * math.pi * self.noise**2 * len(radii))
        return logsumexp(terms, axis=1) - constant

    def _draw(self, n_samples: int, random: np.random.RandomState) -> Any:
        angle = 2 * np.pi * random.random_sample(n_samples)
        radius = np.asarray(self.radii)[random.randint(len(self.radii), size=n_samples)]
        circle = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return circle + self.noise * random.standard_normal((n_samples, 2))


@dataclass(frozen=True)
class Moons(PlaneDensity):
    """Two interleaved half circles of radius 1 plus Gaussian noise, centred.

    Parameters
    ----------
    noise : float, default=0.1
        Standard deviation of the noise along each axis.
    """

    noise: float = 0.1

    def __post_init__(self) -> None:
        _check_positive(self, "noise")

    @property
    def limit(self) -> float:
        """Half the side of the square."""
        return 1.5 + 6.0 * self.noise

    def _curve(self, angle: Any, lower: Any) -> Any:
        upper = np.stack([np.cos(angle) - 0.5, np.sin(angle) - 0.25], axis=1)
        return np.where(lower[:, None], -upper, upper)

    def _log_density(self, X: Any) -> Any:
        """log p(x), by quadrature along both curves."""
        # Gauss-Legendre nodes, several per noise width: exact to rounding.
        nodes, weights = np.polynomial.legendre.leggauss(30 + math.ceil(10 / self.noise))
        angle, weights = 0.5 * np.pi * (nodes + 1.0), np.tile(0.25 * weights, 2)
        points = self._curve(np.tile(angle, 2), np.repeat([False, True], len(nodes)))
        parts = [  # of bounded size: rows times points
            _isotropic(_squared_distances(part, points), self.noise, weights)
            for part in np.array_split(X, max(1, len(X) // 2000))
        ]
        return np.concatenate(parts)

    def _draw(self, n_samples: int, random: np.random.RandomState) -> Any:
        angle = np.pi * random.random_sample(n_samples)
        points = self._curve(angle, random.random_sample(n_samples) < 0.5)
        return points + self.noise * random.standard_normal((n_samples, 2))


@dataclass(frozen=True)
class GaussianCircle(PlaneDensity):
    """A mixture of round Gaussians, evenly spaced on a circle.

    Parameters
    ----------
    n_modes : int, default=5
        Number of Gaussians.
    radius : float, default=2.0
        Radius of the circle.
    noise : float, default=0.3
        Standard deviation of each Gaussian along each axis.
    weights : tuple of float or None, default=None
        Probability of each Gaussian, summing to 1; None gives all the same.
    """

    n_modes: int = 5
    radius: float = 2.0
    noise: float = 0.3
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _check_positive(self, "radius", "noise")
        if not isinstance(self.n_modes, Integral) or self.n_modes < 1:
            raise ValueError(f"GaussianCircle: n_modes={self.n_modes!r} must be at least 1.")
        w = self._weights()
        if w.shape != (self.n_modes,) or not (w > 0).all() or abs(w.sum() - 1) > 1e-9:
            raise ValueError(
                f"GaussianCircle: weights={self.weights!r} must be n_modes={self.n_modes} positive "
                "numbers that sum to 1."
            )

    def _weights(self) -> Any:
        if self.weights is None:
            return np.full(self.n_modes, 1.0 / self.n_modes)
        return np.asarray(self.weights, np.float64)

    @property
    def centres(self) -> Any:
        """Centres of the Gaussians, (n_modes, 2)."""
        angle = 2 * np.pi * np.arange(self.n_modes) / self.n_modes
        return self.radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    @property
    def limit(self) -> float:
        """Half the side of the square."""
        return self.radius + 6.0 * self.noise

    def _log_density(self, X: Any) -> Any:
        """log p(x)."""
        squares = _squared_distances(X, self.centres)
        return _isotropic(squares, self.noise, self._weights())

    def _draw(self, n_samples: int, random: np.random.RandomState) -> Any:
        mode = random.choice(self.n_modes, size=n_samples, p=self._weights())
        return self.centres[mode] + self.noise * random.standard_normal((n_samples, 2))


@dataclass(frozen=True)
class Checkerboard(PlaneDensity):
    """Uniform on every other square of a board around the origin, and 0 on the others.

    Parameters
    ----------
    n_squares : int, default=4
        Squares of side 1 along each side of the board, an even number.
    """

    n_squares: int = 4

    def __post_init__(self) -> None:
        n = self.n_squares
        if not isinstance(n, Integral) or n < 2 or n % 2:
            raise ValueError(f"Checkerboard: n_squares={n!r} must be an even number of at least 2.")

    @property
    def limit(self) -> float:
        """Half the side of the square that quadrature covers."""
        return self.n_squares / 2 + 1.0

    def _log_density(self, X: Any) -> Any:
        """log p(x)."""
        cells = np.floor(X + self.n_squares / 2)
        on_board = ((cells >= 0) & (cells < self.n_squares)).all(axis=1)
        is_dark = cells.sum(axis=1) % 2 == 0
        return np.where(on_board & is_dark, -math.log(self.n_squares**2 / 2), -math.inf)

    def _draw(self, n_samples: int, random: np.random.RandomState) -> Any:
        row = random.randint(self.n_squares, size=n_samples)
        column = 2 * random.randint(self.n_squares // 2, size=n_samples) + row % 2
        corner = np.stack([column, row], axis=1) - self.n_squares / 2
        return corner + random.random_sample((n_samples, 2))
