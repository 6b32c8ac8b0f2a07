"""Whiteners against NumPy's formulas: ridge, fractions of variance, and normalised densities."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from sklebm import PCAWhitener, ZCAWhitener

both = pytest.mark.parametrize("whitener", [PCAWhitener, ZCAWhitener])


def correlated(n_rows=500, n_features=6, seed=0):
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((n_features, n_features))
    return generator.standard_normal((n_rows, n_features)) @ mixing + 5.0


@both
def test_ridge_is_a_fraction_of_the_mean_variance(whitener):
    X = correlated()
    model = whitener(ridge=0.3).fit(X)
    variances = np.linalg.eigvalsh(np.cov(X.T))
    ridge = 0.3 * variances.mean()
    assert model.ridge_ == pytest.approx(ridge, rel=1e-12)
    codes = model.transform(X)
    # every variance l becomes l / (l + r)
    spectrum = np.linalg.eigvalsh(np.cov(codes.T))
    np.testing.assert_allclose(spectrum, variances / (variances + ridge), rtol=1e-9)
    gaussian = multivariate_normal(X.mean(axis=0), np.cov(X.T) + ridge * np.eye(6))
    np.testing.assert_allclose(model.score_samples(X), gaussian.logpdf(X), rtol=1e-10)


@both
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
def test_a_fraction_keeps_the_fewest_components_that_explain_it(whitener, share):
    X = correlated()
    model = whitener(share, ridge=0).fit(X)
    shares = np.cumsum(np.linalg.eigvalsh(np.cov(X.T))[::-1])
    shares /= shares[-1]
    assert model.n_components_ == 1 + np.count_nonzero(shares <= share)
    assert model.components_.shape == (model.n_components_, 6)
    np.testing.assert_allclose(
        np.cumsum(model.explained_variance_ratio_), shares[: model.n_components_], rtol=1e-10
    )


@both
@pytest.mark.parametrize("n_components", [None, 1])
def test_the_density_integrates_to_one(whitener, n_components):
    X = correlated(n_features=2)
    model = whitener(n_components, ridge=0).fit(X)
    spread = 9 * np.sqrt(np.linalg.eigvalsh(np.cov(X.T))[-1])
    x, y = (np.linspace(m - spread, m + spread, 700) for m in X.mean(axis=0))
    density = np.exp(model.score_samples(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)))
    # Sums over an even grid converge exponentially for Gaussians.
    assert density.sum() * (x[1] - x[0]) * (y[1] - y[0]) == pytest.approx(1.0, abs=1e-9)


@both
def test_transform_and_back(whitener):
    X = correlated()
    model = whitener(ridge=0).fit(X)
    np.testing.assert_allclose(model.inverse_transform(model.transform(X)), X, rtol=1e-10)
    few = whitener(3, ridge=0).fit(X)
    back = few.inverse_transform(few.transform(X))
    centred = X - X.mean(axis=0)
    projection = centred @ few.components_.T @ few.components_ + X.mean(axis=0)
    np.testing.assert_allclose(back, projection, rtol=1e-10)


def test_zca_filters_are_the_inverse_square_root_of_the_covariance():
    X = correlated()
    filters = ZCAWhitener(ridge=0).fit(X).filters_
    np.testing.assert_allclose(filters, filters.T, atol=1e-12)
    np.testing.assert_allclose(filters @ np.cov(X.T) @ filters, np.eye(6), atol=1e-10)
    assert (np.linalg.eigvalsh(filters) > 0).all()


@both
def test_more_components_than_features_are_refused(whitener):
    with pytest.raises(ValueError, match="n_components=7 is larger than the number of features, 6"):
        whitener(7, ridge=0).fit(correlated())


@both
@pytest.mark.parametrize("value", [0.0, 2.5, 7.7, 1e-40, -1e6 / 3])
def test_constant_rows_whiten_to_zero_and_score_high(whitener, value):
    """The mean of equal numbers may be off by a rounding error, which is no variance."""
    X = np.full((27, 3), value)
    model = whitener(ridge=0).fit(X)
    np.testing.assert_array_equal(model.transform(X), 0.0)
    assert (model.score_samples(X) > model.score_samples(X + 0.01)).all()
    np.testing.assert_array_equal(model.partial_fit(X).transform(X), 0.0)
