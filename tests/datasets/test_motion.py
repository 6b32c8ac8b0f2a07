"""Moving pictures: what moves keeps its shape, and moves as it is said to."""

import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest

from sklebm.datasets import make_bouncing_digits, make_pendulum, make_rotating_digits


def centres(X, size):
    frames = X.reshape(-1, size, size)
    mass = frames.sum(axis=(1, 2))
    rows = (frames.sum(axis=2) * np.arange(size)).sum(axis=1) / mass
    columns = (frames.sum(axis=1) * np.arange(size)).sum(axis=1) / mass
    return np.stack([rows, columns], axis=1)


def test_digits_move_at_constant_speed_between_the_borders():
    X, groups = make_bouncing_digits(20, 15, size=24, speed=0.7, random_state=0)
    assert X.shape == (300, 576)
    assert X.min() >= 0.0
    assert X.max() <= 1.0
    assert np.unique(groups).tolist() == list(range(20))
    steps = np.diff(centres(X, 24).reshape(20, 15, 2), axis=1)
    speeds = np.linalg.norm(steps, axis=2)
    # Interpolation moves the centre of mass exactly while no digit leaves the frame; a step in
    # which it bounces is shorter.
    assert np.median(speeds) == pytest.approx(0.7, abs=1e-6)
    assert speeds.max() <= 0.7 + 1e-6


def test_turns_are_unpredictable_only_if_asked_for():
    straight, _ = make_bouncing_digits(50, 3, size=40, speed=0.5, random_state=0)
    turning, _ = make_bouncing_digits(50, 3, size=40, speed=0.5, turn=1.0, random_state=0)
    for X, least, most in ((straight, 0.9, 1.0), (turning, 0.0, 0.4)):
        steps = np.diff(centres(X, 40).reshape(50, 3, 2), axis=1)
        same = np.linalg.norm(steps[:, 1] - steps[:, 0], axis=1) < 1e-6
        assert least <= same.mean() <= most


def test_rotation_goes_around():
    n_steps = 17
    X, _ = make_rotating_digits(5, n_steps, speed=2 * np.pi / 16, random_state=0)
    frames = X.reshape(5, n_steps, -1)
    # Sixteen steps are a whole turn, up to rounding; eight are half of one, another picture.
    np.testing.assert_allclose(frames[:, 16], frames[:, 0], atol=1e-9)
    quarter = np.rot90(frames[:, 0].reshape(5, 12, 12), axes=(1, 2))
    turned = np.minimum(
        np.abs(frames[:, 4].reshape(5, 12, 12) - quarter).max(axis=(1, 2)),
        np.abs(frames[:, 12].reshape(5, 12, 12) - quarter).max(axis=(1, 2)),
    )
    np.testing.assert_allclose(turned, 0.0, atol=1e-9)


def test_the_pendulum_keeps_its_energy():
    X, groups = make_pendulum(10, 60, time_step=0.2, random_state=0)
    np.testing.assert_allclose((X**2).sum(axis=1), 1.0, atol=1e-12)
    angles = np.arctan2(X[:, 0], X[:, 1]).reshape(10, 60)
    # Central differences are off by h^2 / 6 times the third derivative of the angle, which is
    # below 2 for energies below 1.8: speeds of up to 1.9 by .013, energies by .026.
    speeds = (angles[:, 2:] - angles[:, :-2]) / 0.4
    energies = 0.5 * speeds**2 + 1.0 - np.cos(angles[:, 1:-1])
    assert np.ptp(energies, axis=1).max() < 0.06
    assert np.ptp(energies[:, 0]) > 0.5
    noisy, _ = make_pendulum(10, 60, noise=0.1, random_state=0)
    assert np.std(noisy - X) == pytest.approx(0.1, rel=0.1)
    assert len(np.unique(groups)) == 10


def test_energies_above_two_turn_over_the_top():
    X, _ = make_pendulum(200, 3, time_step=0.02, most_energy=3.0, random_state=0)
    angles = np.unwrap(np.arctan2(X[:, 0], X[:, 1]).reshape(200, 3), axis=1)
    speeds = (angles[:, 2] - angles[:, 0]) / 0.04
    energies = 0.5 * speeds**2 + 1.0 - np.cos(angles[:, 1])
    # Uniform between 0 and 3: a third is above 2, give or take .033 (twice as much is allowed).
    # Central differences are off by 2e-4.
    assert np.mean(energies > 2.001) == pytest.approx(1 / 3, abs=0.07)


@pytest.mark.parametrize("most_energy", [0.02, 1.8, 4.0])
def test_pendulums_start_at_any_moment_of_their_period(most_energy):
    """The first step is distributed as any other: all sines and cosines, and both directions."""
    n = 1000
    X, _ = make_pendulum(n, 22, most_energy=most_energy, random_state=0)
    X = X.reshape(n, 22, 2)
    turned = X[:, 1:, 0] * X[:, :-1, 1] - X[:, :-1, 0] * X[:, 1:, 1]  # sine of the change
    for values in (X[..., 0], X[..., 1], turned):
        assert ks_2samp(values[:, 0], values[:, 20]).pvalue > 1e-3
    # Standard errors are .016 at most; four of them are allowed.
    assert np.mean(X[:, 0, 0] > 0.0) == pytest.approx(0.5, abs=0.064)
    assert np.mean(turned[:, 0] > 0.0) == pytest.approx(0.5, abs=0.064)
    if most_energy < 0.1:  # a harmonic oscillation: the phase is uniform
        phase = np.arctan2(X[:, 0, 0], turned[:, 0] / 0.2 + 0.1 * X[:, 0, 0])
        assert kstest(phase / (2.0 * np.pi) + 0.5, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("make", [make_bouncing_digits, make_rotating_digits, make_pendulum])
def test_draws_repeat(make):
    first, groups = make(2, 4, random_state=0)
    assert len(first) == len(groups) == 8
    np.testing.assert_array_equal(make(2, 4, random_state=0)[0], first)
    assert not np.array_equal(make(2, 4, random_state=1)[0], first)
    with pytest.raises(ValueError, match="n_steps"):
        make(2, 0)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="smaller than a digit"):
        make_bouncing_digits(1, 1, size=7)
    with pytest.raises(ValueError, match="probability"):
        make_bouncing_digits(1, 1, turn=2.0)
    for most_energy in (-1.0, 0.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"most_energy=.* positive"):
            make_pendulum(1, 1, most_energy=most_energy)
    for noise in (-0.1, np.nan):
        with pytest.raises(ValueError, match=r"noise=.* standard deviation"):
            make_pendulum(1, 1, noise=noise)
