"""K-means and mixture: restarts differ, tolerances have no units, moved centres start again."""

import math

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from sklebm import EnergyGaussianMixture, EnergyKMeans

CROWD, _ = make_blobs(240, n_features=2, centers=12, cluster_std=0.4, random_state=0)
SQUARE = np.random.default_rng(0).uniform(size=(150, 2))


# ---------------------------------------------------------------- restarts


@pytest.mark.parametrize("init", ["kmeans", "random"])
def test_restarts_of_the_mixture_differ(init):
    """Rows without clusters have many optima: further starts find better ones."""
    options = {"covariance_type": "spherical", "init": init, "tol": 0.1, "reg_covar": 1e-3}
    gains = []
    for seed in range(3):
        bounds = [
            EnergyGaussianMixture(9, n_init=n, random_state=seed, **options).fit(SQUARE)
            for n in (1, 6)
        ]
        gains.append(bounds[1].lower_bound_ - bounds[0].lower_bound_)
    assert min(gains) >= 0.0
    assert max(gains) > 1e-3


def test_restarts_of_k_means_differ():
    inertias = np.array(
        [
            [EnergyKMeans(12, n_init=n, random_state=seed).fit(CROWD).inertia_ for n in (1, 10)]
            for seed in range(5)
        ]
    )
    assert (inertias[:, 1] <= inertias[:, 0]).all()
    assert (inertias[:, 1] < 0.99 * inertias[:, 0]).any()


# ---------------------------------------------------------------- tolerances


@pytest.mark.parametrize(("n_clusters", "batch_size"), [(7, None), (40, None), (7, 100)])
def test_the_tolerance_of_lloyd_has_no_units(n_clusters, batch_size):
    """Rows in other units (powers of two: without rounding) take the same iterations."""
    options = {"batch_size": batch_size, "random_state": 0}
    X, _ = make_blobs(600, n_features=3, centers=5, cluster_std=3.0, random_state=1)
    init = X[:n_clusters]
    iterations = {
        scale: EnergyKMeans(n_clusters, init=scale * init, tol=0.05, **options)
        .fit(scale * X)
        .n_iter_
        for scale in (2.0**-12, 1.0, 2.0**12)
    }
    exact = EnergyKMeans(n_clusters, init=init, tol=0.0, **options).fit(X).n_iter_
    assert len(set(iterations.values())) == 1
    assert 1 < iterations[1.0] < exact  # the tolerance is what ends it


# ---------------------------------------------------------------- degrees of freedom


def test_the_variance_after_partial_fit_is_that_of_the_noise():
    """Few rows for each centre: divided by n, three rows a cluster would give 2/3 of it."""
    rng, sigma, n_features = np.random.default_rng(0), 0.5, 4
    corners = 100.0 * np.array([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    found = []
    for _ in range(60):
        X = np.repeat(corners, 3, axis=0) + sigma * rng.standard_normal((12, n_features))
        model = EnergyKMeans(4, init=corners).partial_fit(X[::2]).partial_fit(X[1::2])
        freedom = n_features * (len(X) - 4)
        assert model.noise_variance_ == pytest.approx(model.inertia_ / freedom)
        found.append(model.noise_variance_)
    # A mean of 60 times freedom squares: its relative error is sqrt(2 / (60 * 32)).
    error = math.sqrt(2 / (60 * 4 * (12 - 4)))
    assert np.mean(found) == pytest.approx(sigma**2, rel=4 * error)


# ---------------------------------------------------------------- centres that moved


def naive_passes(X, centers, n_passes):
    """Passes of one batch each: a centre is the mean of what it won since it was last moved."""
    centers, won, weight = centers.copy(), np.zeros_like(centers), np.zeros(len(centers))
    for _ in range(n_passes):
        labels = ((X[:, None] - centers) ** 2).sum(axis=2).argmin(axis=1)
        for k in range(len(centers)):
            won[k] += X[labels == k].sum(axis=0)
            weight[k] += (labels == k).sum()
            if (labels == k).any():
                centers[k] = won[k] / weight[k]
        idle = [k for k in range(len(centers)) if not (labels == k).any()]
        for k in idle:
            others = np.delete(centers, idle, axis=0)
            far = ((X[:, None] - others) ** 2).sum(axis=2).min(axis=1).argmax()
            centers[k], won[k], weight[k] = X[far], 0.0, 0.0
    return centers, idle


def test_a_centre_that_moved_forgets_what_it_had_won():
    """The one in the middle wins twenty rows at first, none in the second pass, and moves."""
    left, right = np.array([-1.4, -1.5]), np.array([1.4, 1.55])
    middle = np.concatenate([-1.0 - np.linspace(0, 0.1, 10), 1.0 + np.linspace(0, 0.1, 10)])
    X = np.concatenate([left, right, middle])[:, None]
    start = np.array([[-2.5], [0.0], [2.5]])
    assert naive_passes(X, start, 2)[1] == [1]
    for n_passes in (2, 3, 4):
        model = EnergyKMeans(3, init=start, batch_size=100, max_iter=n_passes, tol=0.0).fit(X)
        assert model.n_iter_ == n_passes
        expected, _ = naive_passes(X, start, n_passes)
        np.testing.assert_allclose(model.cluster_centers_, expected, rtol=1e-12)


# ---------------------------------------------------------------- values at the edge of the range


def test_rows_are_refused_for_their_own_length_not_for_the_sum_of_all():
    rows = np.random.default_rng(0).normal(size=(40, 2))
    model = EnergyGaussianMixture(2, random_state=0).fit(rows)
    long = np.vstack([rows, [[1e200, 0.0]]])
    for call in (model.predict, EnergyGaussianMixture(2, random_state=0).fit):
        with pytest.raises(FloatingPointError, match=r"magnitude 1e\+200, whose squares overflow"):
            call(long)
    # Two squares of 1e308 overflow together, not alone: each row goes to the nearer component.
    far = np.array([[1e154, 0.0], [-1e154, 0.0]])
    squares = np.square(far).sum(axis=1)
    assert np.isfinite(squares).all()
    with np.errstate(over="ignore"):
        assert not np.isfinite(squares.sum())
    covariances = np.stack([1e306 * np.eye(2)] * 2)
    wide = EnergyGaussianMixture.from_parameters(
        weights=[0.5, 0.5], means=far, covariances=covariances
    )
    np.testing.assert_array_equal(wide.predict(far), [0, 1])
