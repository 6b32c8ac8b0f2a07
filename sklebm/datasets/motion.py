"""Moving pictures that need no download: digits that bounce or turn, and a pendulum.

Motion is sub-pixel, by bilinear interpolation, so that the change from frame to frame is smooth.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import affine_transform
from scipy.special import ellipj, ellipk
from sklearn.datasets import load_digits
from sklearn.utils import check_random_state

from sklebm._shell.random import RandomState, draw_seed
from sklebm.datasets.series import need_counts


def make_bouncing_digits(
    n_sequences: int = 100,
    n_steps: int = 20,
    *,
    size: int = 16,
    speed: float = 0.8,
    turn: float = 0.0,
    random_state: RandomState = None,
) -> tuple[Any, Any]:
    """Make digits of 8 x 8 pixels that move in a straight line and bounce off the borders.

    Parameters
    ----------
    n_sequences : int, default=100
        Number of sequences, each of a digit drawn at random.
    n_steps : int, default=20
        Frames of each.
    size : int, default=16
        Height and width of a frame, at least 8.
    speed : float, default=0.8
        Pixels per step.
    turn : float, default=0.0
        Probability, in every step, of changing to a random direction: an event that the past does
        not predict.
    random_state : int, RandomState instance or None, default=None
        Seed for digits, positions and directions.

    Returns
    -------
    X : ndarray of shape (n_sequences * n_steps, size ** 2)
        Frames in [0, 1], one sequence after the other.
    groups : ndarray of shape (n_sequences * n_steps,)
        Sequence of each frame.

    Examples
    --------
    >>> from sklebm.datasets import make_bouncing_digits
    >>> X, groups = make_bouncing_digits(2, 5, random_state=0)
    >>> X.shape, groups.tolist()
    ((10, 256), [0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    """
    need_counts(n_sequences=n_sequences, n_steps=n_steps, size=size)
    digits = load_digits().images / 16.0
    side = digits.shape[1]
    if size < side:
        raise ValueError(f"size={size} is smaller than a digit: it must be at least {side}.")
    if not 0.0 <= turn <= 1.0:
        raise ValueError(f"turn={turn!r} must be a probability.")
    random = check_random_state(draw_seed(random_state))
    reach = float(size - side)
    frames = []
    for _ in range(n_sequences):
        digit = digits[random.randint(len(digits))]
        place = random.uniform(0.0, reach, size=2)
        velocity = _direction(random) * speed
        for _ in range(n_steps):
            frames.append(
                affine_transform(
                    digit, np.eye(2), -place, (size, size), order=1, mode="grid-constant"
                )
            )
            if random.uniform() < turn:
                velocity = _direction(random) * speed
            place = place + velocity
            outside = (place < 0.0) | (place > reach)
            place = np.clip(
                np.where(place < 0.0, -place, np.where(place > reach, 2 * reach - place, place)),
                0.0,
                reach,
            )
            velocity = np.where(outside, -velocity, velocity)
    return _stacked(frames, n_sequences, n_steps)


def make_rotating_digits(
    n_sequences: int = 100,
    n_steps: int = 20,
    *,
    size: int = 12,
    speed: float = 0.2,
    random_state: RandomState = None,
) -> tuple[Any, Any]:
    """Make digits that turn around the centre of the frame at constant speed.

    Parameters
    ----------
    n_sequences : int, default=100
        Number of sequences, each of a random digit, from a random angle, in a random direction.
    n_steps : int, default=20
        Frames of each.
    size : int, default=12
        Height and width of a frame; 12 holds the corners of a digit at every angle.
    speed : float, default=0.2
        Radians per step.
    random_state : int, RandomState instance or None, default=None
        Seed for digits, angles and directions.

    Returns
    -------
    X : ndarray of shape (n_sequences * n_steps, size ** 2)
        Frames in [0, 1], one sequence after the other.
    groups : ndarray of shape (n_sequences * n_steps,)
        Sequence of each frame.

    Examples
    --------
    >>> from sklebm.datasets import make_rotating_digits
    >>> X, groups = make_rotating_digits(2, 5, random_state=0)
    >>> X.shape
    (10, 144)
    """
    need_counts(n_sequences=n_sequences, n_steps=n_steps, size=size)
    digits = load_digits().images / 16.0
    random = check_random_state(draw_seed(random_state))
    middle = np.full(2, (digits.shape[1] - 1) / 2.0)
    frames = []
    for _ in range(n_sequences):
        digit = digits[random.randint(len(digits))]
        angle, sign = random.uniform(0.0, 2.0 * np.pi), random.choice([-1.0, 1.0])
        for step in range(n_steps):
            turned = angle + sign * speed * step
            matrix = np.array([[np.cos(turned), -np.sin(turned)], [np.sin(turned), np.cos(turned)]])
            offset = middle - matrix @ np.full(2, (size - 1) / 2.0)
            frames.append(
                affine_transform(digit, matrix, offset, (size, size), order=1, mode="grid-constant")
            )
    return _stacked(frames, n_sequences, n_steps)


def make_pendulum(
    n_sequences: int = 100,
    n_steps: int = 50,
    *,
    time_step: float = 0.2,
    most_energy: float = 1.8,
    noise: float = 0.0,
    random_state: RandomState = None,
) -> tuple[Any, Any]:
    """Make swings of a pendulum of unit length, mass and gravity, seen as sine and cosine.

    Parameters
    ----------
    n_sequences : int, default=100
        Number of sequences, each with its own energy, and from a random moment of its period.
    n_steps : int, default=50
        Steps of each.
    time_step : float, default=0.2
        Time between steps; small swings take 2 pi.
    most_energy : float, default=1.8
        Energies are uniform between 0 and this value; above 2 the pendulum goes over the top.
    noise : float, default=0.0
        Standard deviation of Gaussian noise on the observations.
    random_state : int, RandomState instance or None, default=None
        Seed for energies, phases and noise.

    Returns
    -------
    X : ndarray of shape (n_sequences * n_steps, 2)
        Sine and cosine of the angle from the vertical.
    groups : ndarray of shape (n_sequences * n_steps,)
        Sequence of each step.

    Examples
    --------
    >>> from sklebm.datasets import make_pendulum
    >>> X, groups = make_pendulum(2, 5, random_state=0)
    >>> X.shape
    (10, 2)
    """
    need_counts(n_sequences=n_sequences, n_steps=n_steps)
    if not 0.0 < most_energy < np.inf:
        raise ValueError(f"most_energy={most_energy!r} must be a positive number.")
    if not 0.0 <= noise < np.inf:
        raise ValueError(f"noise={noise!r} is a standard deviation: it must be 0 or positive.")
    random = check_random_state(draw_seed(random_state))
    energy = random.uniform(0.0, most_energy, size=n_sequences)
    angle, velocity = _at_moment(energy, random.uniform(size=n_sequences))
    angles, n_inner = [], 20
    for _ in range(n_steps):
        angles.append(angle)
        for _ in range(n_inner):  # leapfrog
            dt = time_step / n_inner
            velocity = velocity - 0.5 * dt * np.sin(angle)
            angle = angle + dt * velocity
            velocity = velocity - 0.5 * dt * np.sin(angle)
    found = np.array(angles).T.reshape(-1)
    X = np.column_stack([np.sin(found), np.cos(found)])
    X = X + noise * random.standard_normal(X.shape)
    return X, np.repeat(np.arange(n_sequences), n_steps)


def _at_moment(energy: Any, moment: Any) -> tuple[Any, Any]:
    """Angle and velocity of a pendulum, at a part of its period that is in [0, 1).

    Above an energy of 2 it turns one way in the first half, and the other way in the second.
    """
    k = np.sqrt(0.5 * energy)
    over = k > 1.0
    m = np.where(over, 1.0 / k, k) ** 2
    m = np.minimum(m, 1.0 - 1e-12)  # at exactly 1 a period has no end
    sign = np.where(over & (moment >= 0.5), -1.0, 1.0)
    sine, cosine, delta, amplitude = ellipj(4.0 * moment * ellipk(m), m)
    angle = np.where(over, 2.0 * amplitude, 2.0 * np.arcsin(np.minimum(k, 1.0) * sine))
    return angle, sign * 2.0 * k * np.where(over, delta, cosine)


def _direction(random: np.random.RandomState) -> Any:
    angle = random.uniform(0.0, 2.0 * np.pi)
    return np.array([np.sin(angle), np.cos(angle)])


def _stacked(frames: list[Any], n_sequences: int, n_steps: int) -> tuple[Any, Any]:
    X = np.clip(np.array(frames).reshape(len(frames), -1), 0.0, 1.0)
    return X, np.repeat(np.arange(n_sequences), n_steps)
