"""Pairs of related images: one row holds an image and the same image shifted, rotated or scaled.

Images are dots at random positions. Shifts wrap around and are exact, so that the two images of a
pair differ by the shift only. Rotated and scaled images are computed by bilinear interpolation of a
canvas twice as large, of which the centre is kept, so that new dots enter at the border instead of
empty space.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates
from sklearn.utils import check_random_state

from sklebm._shell.random import RandomState, draw_seed


def make_random_dots(
    n_samples: int = 100,
    image_shape: Sequence[int] = (13, 13),
    *,
    density: float = 0.1,
    random_state: RandomState = None,
) -> Any:
    """Draw images of white dots at random positions on black.

    Parameters
    ----------
    n_samples : int, default=100
        Number of images.
    image_shape : tuple of int, default=(13, 13)
        Height and width.
    density : float, default=0.1
        Probability that a pixel is a dot.
    random_state : int, RandomState instance or None, default=None
        Seed for the draws.

    Returns
    -------
    X : ndarray of shape (n_samples, height * width)
        Images as flat rows of 0 and 1.

    Examples
    --------
    >>> from sklebm.datasets import make_random_dots
    >>> make_random_dots(2, (1, 8), density=0.5, random_state=0)
    array([[1., 0., 0., 1., 0., 0., 1., 0.],
           [0., 0., 0., 0., 1., 1., 1., 1.]])
    """
    height, width = _checked(n_samples, image_shape, density)
    random = check_random_state(draw_seed(random_state))
    return (random.uniform(size=(n_samples, height * width)) < density).astype(np.float64)


def make_shifted_pairs(
    n_samples: int = 100,
    image_shape: Sequence[int] = (13, 13),
    *,
    max_shift: int | tuple[int, int] = 3,
    density: float = 0.1,
    random_state: RandomState = None,
) -> tuple[Any, Any]:
    """Draw pairs of dot images, the second shifted with wrap-around.

    Parameters
    ----------
    n_samples : int, default=100
        Number of pairs.
    image_shape : tuple of int, default=(13, 13)
        Height and width of an image.
    max_shift : int or tuple of int, default=3
        Largest shift in pixels, down and to the right or up and to the left; a pair of numbers is
        for rows and columns.
    density : float, default=0.1
        Probability that a pixel is a dot.
    random_state : int, RandomState instance or None, default=None
        Seed for the draws.

    Returns
    -------
    X : ndarray of shape (n_samples, 2 * height * width)
        Both images side by side, flat.
    shifts : ndarray of shape (n_samples, 2)
        Pixels down and to the right, uniform over all whole numbers within ``max_shift``.

    Examples
    --------
    >>> from sklebm.datasets import make_shifted_pairs
    >>> X, shifts = make_shifted_pairs(1, (1, 6), max_shift=(0, 2), density=0.3, random_state=1)
    >>> X.reshape(2, 6)
    array([[1., 0., 0., 0., 0., 1.],
           [0., 1., 1., 0., 0., 0.]])
    >>> shifts
    array([[0, 2]])
    """
    shape = _checked(n_samples, image_shape, density)
    limits: Any = (max_shift,) * 2 if isinstance(max_shift, Integral) else max_shift
    if len(tuple(limits)) != 2 or not all(isinstance(m, Integral) and int(m) >= 0 for m in limits):
        raise ValueError(f"max_shift={max_shift!r} must be a number of pixels, or two, at least 0.")
    random = check_random_state(draw_seed(random_state))
    images = (random.uniform(size=(n_samples, *shape)) < density).astype(np.float64)
    shifts = np.column_stack([random.randint(-m, m + 1, size=n_samples) for m in limits])
    rows, columns = (
        (np.arange(size) - shifts[:, axis, None]) % size for axis, size in enumerate(shape)
    )
    moved = images[np.arange(n_samples)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return np.hstack([images.reshape(n_samples, -1), moved.reshape(n_samples, -1)]), shifts


def make_rotated_pairs(
    n_samples: int = 100,
    image_shape: Sequence[int] = (13, 13),
    *,
    max_angle: float = 180.0,
    density: float = 0.1,
    random_state: RandomState = None,
) -> tuple[Any, Any]:
    """Draw pairs of dot images, the second rotated about the centre.

    Parameters
    ----------
    n_samples : int, default=100
        Number of pairs.
    image_shape : tuple of int, default=(13, 13)
        Height and width of an image.
    max_angle : float, default=180.0
        Largest angle in degrees, either way.
    density : float, default=0.1
        Probability that a pixel of the canvas is a dot.
    random_state : int, RandomState instance or None, default=None
        Seed for the draws.

    Returns
    -------
    X : ndarray of shape (n_samples, 2 * height * width)
        Both images side by side, flat, with values in [0, 1].
    angles : ndarray of shape (n_samples,)
        Degrees counter-clockwise, for an image whose first row is at the top.

    Examples
    --------
    >>> from sklebm.datasets import make_rotated_pairs
    >>> X, angles = make_rotated_pairs(5, (9, 9), max_angle=30, random_state=0)
    >>> X.shape, bool((abs(angles) <= 30).all())
    ((5, 162), True)
    """
    shape = _checked(n_samples, image_shape, density)
    if not (isinstance(max_angle, Real) and max_angle >= 0.0):
        raise ValueError(f"max_angle={max_angle!r} must be a number of degrees, at least 0.")
    random = check_random_state(draw_seed(random_state))
    angles = random.uniform(-max_angle, max_angle, size=n_samples)
    cosine, sine = np.cos(np.deg2rad(angles)), np.sin(np.deg2rad(angles))
    # Where a pixel (down, right) of the rotated image comes from.
    maps = np.stack([np.stack([cosine, sine], 1), np.stack([-sine, cosine], 1)], axis=1)
    return _transformed(random, shape, density, maps, 2.0), angles


def make_scaled_pairs(
    n_samples: int = 100,
    image_shape: Sequence[int] = (13, 13),
    *,
    max_factor: float = 1.5,
    density: float = 0.1,
    random_state: RandomState = None,
) -> tuple[Any, Any]:
    """Draw pairs of dot images, the second scaled about the centre.

    Parameters
    ----------
    n_samples : int, default=100
        Number of pairs.
    image_shape : tuple of int, default=(13, 13)
        Height and width of an image.
    max_factor : float, default=1.5
        Largest magnification; the smallest is its inverse.
    density : float, default=0.1
        Probability that a pixel of the canvas is a dot.
    random_state : int, RandomState instance or None, default=None
        Seed for the draws.

    Returns
    -------
    X : ndarray of shape (n_samples, 2 * height * width)
        Both images side by side, flat, with values in [0, 1].
    factors : ndarray of shape (n_samples,)
        Magnifications, uniform in their logarithm; above 1 the second image is larger.

    Examples
    --------
    >>> from sklebm.datasets import make_scaled_pairs
    >>> X, factors = make_scaled_pairs(5, (9, 9), max_factor=1.2, random_state=0)
    >>> X.shape, bool((abs(factors - 1) <= 0.2).all())
    ((5, 162), True)
    """
    shape = _checked(n_samples, image_shape, density)
    if not (isinstance(max_factor, Real) and max_factor >= 1.0):
        raise ValueError(f"max_factor={max_factor!r} must be a number of at least 1.")
    random = check_random_state(draw_seed(random_state))
    limit = np.log(max_factor)
    factors = np.exp(random.uniform(-limit, limit, size=n_samples))
    maps = np.eye(2) / factors[:, None, None]
    return _transformed(random, shape, density, maps, float(max_factor)), factors


def _checked(n_samples: Any, image_shape: Sequence[int], density: Any) -> tuple[int, int]:
    """Height and width; raise ValueError unless all arguments are valid."""
    if not isinstance(n_samples, Integral) or n_samples < 1:
        raise ValueError(f"n_samples={n_samples!r} must be a positive integer.")
    shape = tuple(image_shape)
    if len(shape) != 2 or not all(isinstance(side, Integral) and side >= 1 for side in shape):
        raise ValueError(f"image_shape={image_shape!r} must be (height, width), at least 1 each.")
    if not isinstance(density, Real) or not 0.0 < float(density) < 1.0:
        raise ValueError(f"density={density!r} must be a number between 0 and 1.")
    return int(shape[0]), int(shape[1])


def _transformed(
    random: np.random.RandomState, shape: tuple[int, int], density: float, maps: Any, reach: float
) -> Any:
    """Pairs of an image and itself, seen at ``maps`` of its pixels around the centre."""
    # Wide enough for what any map of the pixels reaches.
    half = int(np.ceil(reach * max(shape) / 2.0)) + 1
    size = 2 * half + 1
    down, right = np.meshgrid(
        *(np.arange(side) - (side - 1) / 2.0 for side in shape), indexing="ij"
    )
    places = np.stack([down.ravel(), right.ravel()])
    pairs = []
    for matrix in maps:
        canvas = (random.uniform(size=(size, size)) < density).astype(np.float64)
        pair = [
            map_coordinates(canvas, half + moved, order=1) for moved in (places, matrix @ places)
        ]
        pairs.append(np.concatenate(pair))
    return np.array(pairs)
