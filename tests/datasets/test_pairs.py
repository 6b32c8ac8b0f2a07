"""Pairs of images: the second is the first, transformed as said."""

import numpy as np
import pytest

from sklebm.datasets import (
    make_random_dots,
    make_rotated_pairs,
    make_scaled_pairs,
    make_shifted_pairs,
)


def test_dots_have_the_density_that_was_asked_for():
    X = make_random_dots(400, (10, 25), density=0.3, random_state=0)
    assert X.shape == (400, 250)
    assert set(np.unique(X)) == {0.0, 1.0}
    # five standard errors of the mean of independent bits
    assert abs(X.mean() - 0.3) <= 5 * (0.21 / X.size) ** 0.5


def test_shifts_wrap_around():
    X, shifts = make_shifted_pairs(300, (5, 7), max_shift=(1, 3), random_state=0)
    assert {tuple(shift) for shift in shifts} == {(i, j) for i in (-1, 0, 1) for j in range(-3, 4)}
    for row, shift in zip(X, shifts, strict=True):
        first, second = row.reshape(2, 5, 7)
        np.testing.assert_array_equal(second, np.roll(first, tuple(shift), axis=(0, 1)))


@pytest.mark.parametrize("make", [make_rotated_pairs, make_scaled_pairs])
def test_nothing_asked_for_is_nothing_done(make):
    none = {"max_angle": 0.0} if make is make_rotated_pairs else {"max_factor": 1.0}
    X, amount = make(20, (6, 9), random_state=0, **none)
    np.testing.assert_array_equal(amount, 0.0 if make is make_rotated_pairs else 1.0)
    np.testing.assert_allclose(X[:, :54], X[:, 54:], atol=1e-12)


def test_pixels_come_from_where_rotation_takes_them():
    """Interpolation is exact where a quarter turn maps pixels on pixels."""
    X, angles = make_rotated_pairs(4000, (7, 7), max_angle=90.0, random_state=0)
    for target, turns in ((90.0, 1), (-90.0, -1)):
        nearest = np.abs(angles - target).argmin()
        assert abs(angles[nearest] - target) < 0.5
        first, second = X[nearest].reshape(2, 7, 7)
        turned = np.rot90(first, turns)  # counter-clockwise, the first row at the top
        # half a degree moves a corner, four pixels from the centre, by less than 0.04 pixels
        assert np.abs(turned - second).max() <= 2 * 0.04 + 1e-12


def test_pixels_come_from_where_scaling_takes_them():
    """At a factor of 2, every other pixel of the second image is one of the first."""
    X, factors = make_scaled_pairs(2000, (9, 9), max_factor=2.0, random_state=0)
    nearest = factors.argmax()
    assert factors[nearest] > 1.99
    first, second = X[nearest].reshape(2, 9, 9)
    # the outermost of these pixels, two from the centre, comes from within 0.01 pixels of its place
    np.testing.assert_allclose(second[::2, ::2], first[2:7, 2:7], atol=2 * 0.02)
    assert factors.min() >= 0.5


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (make_random_dots, {"n_samples": 0}, "n_samples=0"),
        (make_random_dots, {"image_shape": (3,)}, "image_shape"),
        (make_random_dots, {"density": 1.0}, "density=1.0"),
        (make_shifted_pairs, {"max_shift": -1}, "max_shift=-1"),
        (make_shifted_pairs, {"max_shift": (1, 2, 3)}, "max_shift"),
        (make_rotated_pairs, {"max_angle": -1.0}, "max_angle"),
        (make_scaled_pairs, {"max_factor": 0.9}, "max_factor"),
    ],
)
def test_invalid_arguments_are_named(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@pytest.mark.parametrize(
    "make", [make_random_dots, make_shifted_pairs, make_rotated_pairs, make_scaled_pairs]
)
def test_seeds_repeat_draws(make):
    def draw(seed):
        found = make(5, (4, 4), random_state=seed)
        return found[0] if isinstance(found, tuple) else found

    np.testing.assert_array_equal(draw(3), draw(3))
    assert not np.array_equal(draw(3), draw(4))
