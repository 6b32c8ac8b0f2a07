"""Densities in the plane: they integrate to 1, and draws follow them."""

import math

import numpy as np
import pytest

from sklebm.datasets import Checkerboard, GaussianCircle, Moons, Rings

DENSITIES = [
    Rings(),
    Rings(radii=(0.5, 1.5), noise=0.2),
    Moons(),
    Moons(noise=0.4),
    GaussianCircle(),
    GaussianCircle(n_modes=2, weights=(0.8, 0.2)),
    Checkerboard(),
    Checkerboard(n_squares=2),
]
every = pytest.mark.parametrize("density", DENSITIES, ids=repr)


@every
def test_densities_integrate_to_one(density):
    X, area = density.grid(300)
    assert float(np.exp(density.log_density(X)).sum() * area) == pytest.approx(1.0, abs=2e-6)


@every
def test_draws_follow_the_density(density):
    """Counts in 16 x 16 boxes against the masses by quadrature, as chi squared."""
    n_boxes, n_draws = 16, 40_000
    X, area = density.grid(n_boxes * 18)
    mass = np.exp(density.log_density(X)) * area
    mass = mass.reshape(n_boxes, 18, n_boxes, 18).sum(axis=(1, 3)).ravel()
    drawn = density.sample(n_draws, random_state=0)
    edges = np.linspace(-density.limit, density.limit, n_boxes + 1)
    counts = np.histogram2d(drawn[:, 1], drawn[:, 0], bins=[edges, edges])[0].ravel()
    common = mass * n_draws >= 5
    expected = mass[common] * n_draws
    statistic = ((counts[common] - expected) ** 2 / expected).sum()
    n = common.sum()
    assert abs(statistic - n) < 5 * math.sqrt(2 * n)
    assert counts[~common].sum() <= 5 + 2 * mass[~common].sum() * n_draws


@every
def test_divergence_is_zero_for_the_density_and_its_multiples(density):
    assert density.kl_divergence(density.log_density) == pytest.approx(0.0, abs=1e-5)
    shifted = density.kl_divergence(lambda X: density.log_density(X) + 7.0)
    assert shifted == pytest.approx(0.0, abs=1e-5)


def test_divergence_of_gaussians_is_the_closed_form():
    density = GaussianCircle(n_modes=1, radius=1.0, noise=0.5)

    def wider(X):
        return -0.5 * ((X - [1.3, 0.0]) ** 2).sum(axis=1) / 0.7**2

    ratio = 0.5**2 / 0.7**2
    truth = 0.5 * (2 * ratio - 2 - 2 * math.log(ratio) + 0.3**2 / 0.7**2)
    assert density.kl_divergence(wider, 600) == pytest.approx(truth, abs=2e-3)


@every
def test_draws_are_reproducible(density):
    first = density.sample(10, random_state=3)
    np.testing.assert_array_equal(density.sample(10, random_state=3), first)
    assert not np.array_equal(density.sample(10, random_state=4), first)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Rings(noise=0.0), "noise"),
        (lambda: Rings(radii=()), "radii"),
        (lambda: Rings(radii=(1.0, -1.0)), "radii"),
        (lambda: Moons(noise=-1.0), "noise"),
        (lambda: GaussianCircle(n_modes=0), "n_modes"),
        (lambda: GaussianCircle(n_modes=2, weights=(0.5, 0.6)), "weights"),
        (lambda: Checkerboard(n_squares=3), "n_squares"),
        (lambda: Rings().sample(0), "n_samples"),
    ],
)
def test_settings_are_checked(make, name):
    with pytest.raises(ValueError, match=name):
        make()


def test_points_are_of_the_plane():
    with pytest.raises(ValueError, match="plane"):
        Rings().log_density(np.zeros((3, 3)))
