"""Rows, weights and chunks that are legitimate but unusual: tiny units, no weight, few rows."""

import numpy as np
import pytest
from sklearn.base import clone

from sklebm import (
    DeconvolutionalNetwork,
    DeepSparseCoder,
    EnergyGaussianMixture,
    EnergyKMeans,
    GaussianEnergy,
    PCAWhitener,
    SparseCoder,
)
from tests.registry import make_rows

RNG = np.random.default_rng(0)


# ---------------------------------------------------------------- shorter batches


def test_a_mixture_goes_on_with_shorter_blocks():
    """A block that is longer than the new size is full."""
    X = RNG.normal(size=(900, 2)) + 6.0 * RNG.integers(0, 2, size=(900, 1))
    model = EnergyGaussianMixture(2, batch_size=1024, random_state=0).fit(X[:200])
    model.partial_fit(X[200:500]).set_params(batch_size=100).partial_fit(X[500:])
    fitted = EnergyGaussianMixture(2, random_state=0).fit(X)
    assert (model.weights_ > 0.3).all()
    assert model.score(X) == pytest.approx(fitted.score(X), abs=0.05)


@pytest.mark.parametrize(
    "coder",
    [
        SparseCoder(4, batch_size=60, random_state=0),
        DeepSparseCoder((4, 3), batch_size=60, random_state=0),
        DeconvolutionalNetwork((2,), (3,), image_shape=(3, 4), batch_size=60, random_state=0),
    ],
    ids=lambda coder: type(coder).__name__,
)
@pytest.mark.parametrize("size", [50, 20])
def test_coders_go_on_with_shorter_batches(coder, size):
    X = np.hstack([make_rows(130), make_rows(130, seed=1)])
    long = clone(coder).partial_fit(X[:50])
    full = clone(coder).set_params(batch_size=50).partial_fit(X[:50])  # its step is done
    for model in (long, full):
        model.set_params(batch_size=size).partial_fit(X[50:])
    np.testing.assert_allclose(long.score_samples(X), full.score_samples(X), rtol=1e-6)


# ---------------------------------------------------------------- weights


def test_a_row_without_weight_may_lie_anywhere():
    X = np.random.default_rng(1).normal(size=(100, 3))
    X[0] = 1e12
    weights = np.r_[0.0, np.ones(99)]
    with np.errstate(all="raise"):
        model = PCAWhitener().fit(X, sample_weight=weights)
    alone = PCAWhitener().fit(X[1:])
    np.testing.assert_allclose(model.covariance_, alone.covariance_, rtol=1e-10)
    np.testing.assert_allclose(model.mean_, alone.mean_, atol=1e-12)


def test_chunks_of_little_weight_add_up():
    X = np.random.default_rng(1).normal(size=(60, 3))
    weights = np.full(60, 0.3)
    whole = PCAWhitener().fit(X, sample_weight=weights)
    parts = PCAWhitener()
    for rows in np.split(np.arange(60), 20):
        parts.partial_fit(X[rows], sample_weight=weights[rows])
    np.testing.assert_allclose(parts.covariance_, whole.covariance_, rtol=1e-10)
    one = PCAWhitener().partial_fit(X[:1], sample_weight=[1.0])
    assert one.n_samples_seen_ == 1
    light = PCAWhitener().partial_fit(X, sample_weight=np.full(60, 1e-3))
    np.testing.assert_allclose(light.covariance_, np.cov(X.T, ddof=0), rtol=1e-10)


@pytest.mark.parametrize("size", [1e-3, 1e-9])
def test_small_equal_weights_keep_the_variance_of_clusters(size):
    X = np.random.default_rng(1).normal(size=(1000, 2))
    plain = EnergyKMeans(3, random_state=0).partial_fit(X)
    light = EnergyKMeans(3, random_state=0).partial_fit(X, sample_weight=np.full(1000, size))
    # Without rows to count, no degree of freedom is taken off.
    assert light.noise_variance_ == pytest.approx(plain.noise_variance_, rel=0.01)


def test_tiny_weights_fit_the_same_mixture():
    X = np.random.default_rng(1).normal(size=(100, 2))
    plain = EnergyGaussianMixture(2, random_state=0).fit(X)
    light = EnergyGaussianMixture(2, random_state=0).fit(X, sample_weight=np.full(100, 1e-17))
    np.testing.assert_allclose(light.weights_, plain.weights_, rtol=1e-6)
    np.testing.assert_allclose(light.covariances_, plain.covariances_, rtol=1e-6)


def test_heavy_rows_still_seed_from_different_ones():
    """A batch of 1,000 copies holds one row: more batches than one must be drawn from."""
    X = np.random.default_rng(1).normal(size=(400, 2))
    settings = {"batch_size": 1000, "max_iter": 3, "random_state": 0}
    heavy = EnergyKMeans(20, **settings).fit(X, sample_weight=np.full(400, 5000.0))
    plain = EnergyKMeans(20, **settings).fit(X)
    assert len(np.unique(heavy.cluster_centers_, axis=0)) == 20
    assert heavy.inertia_ / 5000 < 1.5 * plain.inertia_


# ---------------------------------------------------------------- units and constant features


@pytest.mark.parametrize("scale", [1e-8, 1e-15])
@pytest.mark.parametrize("objective", ["maximum_likelihood", "noise_contrastive"])
def test_small_units_shift_gaussian_scores_by_a_constant(scale, objective):
    X = np.random.default_rng(1).normal(size=(500, 2)) @ [[1.0, 0.9], [0.0, 0.5]]
    if objective == "maximum_likelihood":
        X = np.c_[X, X[:, :1]]  # singular, so that the ridge counts
    settings = {"objective": objective, "random_state": 0}
    plain, small = (GaussianEnergy(**settings).fit(x) for x in (X, scale * X))
    gap = small.score_samples(scale * X) - plain.score_samples(X)
    np.testing.assert_allclose(gap, -X.shape[1] * np.log(scale), rtol=1e-4)


def test_a_constant_feature_is_constant_in_chunks_too():
    """Means of chunks differ in the last digit."""
    X = np.c_[np.random.default_rng(1).normal(size=(300, 2)), np.full(300, 0.1)]
    whole, parts = GaussianEnergy().fit(X), GaussianEnergy()
    for part in np.split(X, [7, 50, 143]):
        parts.partial_fit(part)
    np.testing.assert_allclose(parts.precision_, whole.precision_, rtol=1e-6)


def test_given_mixtures_in_small_units_go_on_in_them():
    X = 1e-15 * np.random.default_rng(1).normal(size=(300, 2))
    model = EnergyGaussianMixture.from_parameters(
        weights=[1.0], means=np.zeros((1, 2)), covariances=1e-30 * np.eye(2)[None]
    )
    model.partial_fit(X)
    np.testing.assert_allclose(model.covariances_[0], np.cov(X.T, ddof=0), rtol=0.2, atol=2e-31)


# ---------------------------------------------------------------- settings that changed after fit


def test_another_reg_covar_is_refused_when_learning_goes_on():
    X = make_rows()
    model = EnergyGaussianMixture(2, reg_covar=1e-3, random_state=0).fit(X)
    with pytest.raises(ValueError, match=r"reg_covar=1.0 differs"):
        model.set_params(reg_covar=1.0).partial_fit(X)
    model.set_params(reg_covar=1e-3).partial_fit(X)


def test_a_fitted_intercept_is_not_dropped_when_learning_goes_on():
    X = make_rows() + 3.0
    model = SparseCoder(4, fit_intercept=True, random_state=0).fit(X)
    with pytest.raises(ValueError, match="fit_intercept=False, but the fitted intercept_"):
        model.set_params(fit_intercept=False).partial_fit(X)


def test_information_criteria_take_sparse_rows():
    from scipy.sparse import csr_array

    X = make_rows()
    model = EnergyKMeans(3, random_state=0).fit(csr_array(X))
    assert model.bic(csr_array(X)) == pytest.approx(model.bic(X))
