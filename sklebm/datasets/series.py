r"""Series whose likelihood is known step by step: autoregressive and switching processes.

``log_density(X, groups)`` is log p(x_t | x_1 ... x_{t-1}) of each row, so that what a model of
sequences has learnt can be measured against the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_discrete_lyapunov
from scipy.special import logsumexp
from sklearn.utils import check_random_state

from sklebm._shell.groups import need_side_by_side, number_groups, read_groups
from sklebm._shell.random import RandomState, draw_seed

_LOG_2_PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True)
class AutoregressiveProcess:
    r"""Stationary Gaussian process x_t = sum_k phi_k x_{t-k} + noise.

    Parameters
    ----------
    coefficients : float or tuple of float, default=0.9
        The phi_k from k = 1 on; the process must be stationary.
    noise : float, default=1.0
        Standard deviation of the noise.

    Examples
    --------
    >>> from sklebm.datasets import AutoregressiveProcess
    >>> process = AutoregressiveProcess(0.5)
    >>> X, groups = process.sample(3, 100, random_state=0)
    >>> X.shape, groups.shape
    ((300, 1), (300,))
    >>> process.log_density(X, groups).shape
    (300,)
    """

    coefficients: float | tuple[float, ...] = 0.9
    noise: float = 1.0

    def __post_init__(self) -> None:
        if not self.noise > 0.0:
            raise ValueError(f"noise={self.noise!r} must be positive.")
        radius = float(np.abs(np.linalg.eigvals(self._companion())).max())
        if not radius < 1.0:
            raise ValueError(
                f"coefficients={self.coefficients!r} give a process that is not stationary: the "
                f"largest root has modulus {radius:.3g} and must be below 1."
            )

    def _phi(self) -> NDArray[np.float64]:
        return np.atleast_1d(np.asarray(self.coefficients, dtype=np.float64))

    def _companion(self) -> NDArray[np.float64]:
        """The process as one of order 1 of the last p values, the latest first."""
        phi = self._phi()
        return np.vstack([phi, np.eye(len(phi) - 1, len(phi))])

    def _autocovariance(self) -> NDArray[np.float64]:
        """Covariance of p values in a row."""
        noise = np.zeros((len(self._phi()),) * 2)
        noise[0, 0] = self.noise**2
        return np.asarray(solve_discrete_lyapunov(self._companion(), noise))

    def sample(
        self, n_sequences: int = 1, n_steps: int = 100, *, random_state: RandomState = None
    ) -> tuple[Any, Any]:
        """Draw independent sequences from the stationary process.

        Parameters
        ----------
        n_sequences : int, default=1
            Number of sequences.
        n_steps : int, default=100
            Steps of each.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        X : ndarray of shape (n_sequences * n_steps, 1)
            The steps of all sequences, one sequence after the other.
        groups : ndarray of shape (n_sequences * n_steps,)
            Sequence of each step.
        """
        need_counts(n_sequences=n_sequences, n_steps=n_steps)
        random = check_random_state(draw_seed(random_state))
        phi, covariance = self._phi(), self._autocovariance()
        past = random.multivariate_normal(np.zeros(len(phi)), covariance, size=n_sequences)
        steps = []
        for _ in range(n_steps):
            new = past @ phi + self.noise * random.standard_normal(n_sequences)
            past = np.column_stack([new, past[:, :-1]])
            steps.append(new)
        return np.array(steps).T.reshape(-1, 1), np.repeat(np.arange(n_sequences), n_steps)

    def log_density(self, X: Any, groups: Any = None) -> Any:
        """Return log p(x_t | x_1 ... x_{t-1}) of each step, exactly.

        Parameters
        ----------
        X : array-like of shape (n_samples, 1)
            The steps.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each step; the steps of a sequence lie side by side. None: one sequence.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats.
        """
        return _by_sequence(self._log_densities, X, groups)

    def _log_densities(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        phi, covariance = self._phi(), self._autocovariance()
        means, variances = np.zeros(len(x)), np.full(len(x), self.noise**2)
        for t in range(len(x)):
            seen = min(t, len(phi))
            past = x[t - seen : t][::-1]
            if seen == len(phi):
                means[t] = past @ phi
            else:
                # Fewer values than coefficients: condition the stationary joint density.
                order = slice(1, seen + 1)
                weights = np.linalg.solve(covariance[order, order], covariance[order, 0])
                means[t] = weights @ past
                variances[t] = covariance[0, 0] - weights @ covariance[order, 0]
        return np.asarray(-0.5 * ((x - means) ** 2 / variances + np.log(variances) + _LOG_2_PI))


@dataclass(frozen=True)
class SwitchingProcess:
    r"""Autoregressive process of order 1 whose regime follows a hidden Markov chain.

    In regime k, x_t = m_k + phi_k (x_{t-1} - m_k) + noise; x_0 is N(m_k, 1). The chain starts in
    any regime with the same probability, and stays in its regime with probability ``stay``.

    Parameters
    ----------
    coefficients : tuple of float, default=(0.95, -0.8)
        The phi_k of each regime.
    means : tuple of float, default=(0.0, 0.0)
        The m_k.
    noise : tuple of float, default=(0.3, 0.3)
        Standard deviation of the noise in each regime.
    stay : float, default=0.98
        Probability that the regime remains.

    Examples
    --------
    >>> from sklebm.datasets import SwitchingProcess
    >>> process = SwitchingProcess()
    >>> X, groups = process.sample(2, 200, random_state=0)
    >>> process.log_density(X, groups).shape
    (400,)
    """

    coefficients: tuple[float, ...] = (0.95, -0.8)
    means: tuple[float, ...] = (0.0, 0.0)
    noise: tuple[float, ...] = (0.3, 0.3)
    stay: float = 0.98

    def __post_init__(self) -> None:
        lengths = {len(self.coefficients), len(self.means), len(self.noise)}
        if len(lengths) != 1 or lengths == {1}:
            raise ValueError(
                "coefficients, means and noise need one entry per regime, for two regimes or more."
            )
        if not min(self.noise) > 0.0:
            raise ValueError(f"noise={self.noise!r} must be positive.")
        if not (isinstance(self.stay, Real) and 0.0 < self.stay < 1.0):
            raise ValueError(f"stay={self.stay!r} must be between 0 and 1.")

    def _transitions(self) -> NDArray[np.float64]:
        n_regimes = len(self.means)
        moves = np.full((n_regimes, n_regimes), (1.0 - self.stay) / (n_regimes - 1))
        np.fill_diagonal(moves, self.stay)
        return moves

    def sample(
        self, n_sequences: int = 1, n_steps: int = 100, *, random_state: RandomState = None
    ) -> tuple[Any, Any]:
        """Draw independent sequences.

        Parameters
        ----------
        n_sequences : int, default=1
            Number of sequences.
        n_steps : int, default=100
            Steps of each.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        X : ndarray of shape (n_sequences * n_steps, 1)
            The steps of all sequences, one sequence after the other.
        groups : ndarray of shape (n_sequences * n_steps,)
            Sequence of each step.
        """
        need_counts(n_sequences=n_sequences, n_steps=n_steps)
        random = check_random_state(draw_seed(random_state))
        phi, mean, noise = map(np.array, (self.coefficients, self.means, self.noise))
        regime = random.randint(len(mean), size=n_sequences)
        x = mean[regime] + random.standard_normal(n_sequences)
        steps = [x]
        for _ in range(n_steps - 1):
            leaves = random.uniform(size=n_sequences) > self.stay
            step = random.randint(1, len(mean), size=n_sequences)
            regime = np.where(leaves, (regime + step) % len(mean), regime)
            drawn = noise[regime] * random.standard_normal(n_sequences)
            x = mean[regime] + phi[regime] * (x - mean[regime]) + drawn
            steps.append(x)
        return np.array(steps).T.reshape(-1, 1), np.repeat(np.arange(n_sequences), n_steps)

    def log_density(self, X: Any, groups: Any = None) -> Any:
        """Return log p(x_t | x_1 ... x_{t-1}) of each step, with the regimes summed out.

        Parameters
        ----------
        X : array-like of shape (n_samples, 1)
            The steps.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each step; the steps of a sequence lie side by side. None: one sequence.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats, by the forward recursion: exact.
        """
        return _by_sequence(self._log_densities, X, groups)

    def _log_densities(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        phi, mean, noise = map(np.array, (self.coefficients, self.means, self.noise))
        log_moves = np.log(self._transitions())
        belief = np.full(
            len(mean), -np.log(len(mean))
        )  # of the regime of this step, given the past
        found = np.empty(len(x))
        for t, value in enumerate(x):
            expected = mean if t == 0 else mean + phi * (x[t - 1] - mean)
            scale = np.ones_like(noise) if t == 0 else noise
            logs = -0.5 * (((value - expected) / scale) ** 2 + _LOG_2_PI) - np.log(scale)
            found[t] = logsumexp(belief + logs)
            posterior = belief + logs - found[t]
            belief = logsumexp(posterior[:, None] + log_moves, axis=0)
        return found


def need_counts(**counts: Any) -> None:
    """Raise ValueError unless all are positive integers."""
    for name, value in counts.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}={value!r} must be a positive integer.")


def _by_sequence(function: Any, X: Any, groups: Any) -> NDArray[np.float64]:
    X = np.asarray(X, dtype=np.float64)
    if X.ndim != 2 or X.shape[1] != 1:
        raise ValueError(f"X has shape {X.shape}, but must hold one value per step: (n, 1).")
    numbers = np.zeros(len(X), dtype=np.int64)
    if groups is not None:
        numbers = number_groups(read_groups(groups, len(X), column=True))
        need_side_by_side(numbers)
    borders = np.flatnonzero(numbers[1:] != numbers[:-1]) + 1
    return np.concatenate([function(part[:, 0]) for part in np.split(X, borders)])
