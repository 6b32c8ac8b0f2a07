"""Whiteners: the identity they promise, null directions, shrinkage, and streaming."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from sklebm import PCAWhitener, ZCAWhitener

both = pytest.mark.parametrize("whitener", [PCAWhitener, ZCAWhitener])

# Rounding of the rows is relative to their size, and is amplified where the variance is small.
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-10}


def border_images(n_rows=3000, seed=0):
    """Like scanned digits: pixels that never move, pixels that moved once, and collinear ones.

    Variances span nine orders of magnitude besides the null directions.
    """
    rng = np.random.default_rng(seed)
    smooth = rng.standard_normal((n_rows, 30)) @ rng.standard_normal((30, 30))
    rare = np.zeros((n_rows, 20))
    rare[rng.choice(n_rows, 20, replace=False), np.arange(20)] = 10.0 ** -rng.uniform(0, 1.5, 20)
    still = np.tile(rng.uniform(size=5), (n_rows, 1))
    return np.hstack([smooth, rare, still, smooth[:, :3] - smooth[:, 3:6]])


def digits():
    """64 pixels, three of them constant."""
    return load_digits().data


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [border_images, digits])
def test_covariance_of_the_output_is_the_identity_on_the_kept_subspace(whitener, dtype, make):
    X = make().astype(dtype)
    model = whitener(ridge=0).fit(X)
    Z = model.transform(X)
    assert Z.dtype == dtype
    rank = np.count_nonzero(model.explained_variance_)
    assert rank == {border_images: 50, digits: 61}[make]
    kept = model.components_[:rank]
    expected = np.eye(rank) if whitener is PCAWhitener else kept.T @ kept
    covariance = np.cov(Z.astype(np.float64).T)
    if whitener is PCAWhitener:
        assert (Z[:, rank:] == 0).all()
        covariance = covariance[:rank, :rank]
    np.testing.assert_allclose(covariance, expected, rtol=0, atol=TOLERANCE[dtype])


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_identity_on_scanned_digits(whitener, dtype, data_dir):
    X = np.load(data_dir / "mnist.npz")["x_train"][:10_000].reshape(10_000, 784) / dtype(255)
    model = whitener(ridge=0).fit(X)
    rank = np.count_nonzero(model.explained_variance_)
    assert rank < 784
    Z = model.transform(X).astype(np.float64)
    if whitener is ZCAWhitener:
        Z = Z @ model.components_.T
    np.testing.assert_allclose(np.cov(Z[:, :rank].T), np.eye(rank), rtol=0, atol=TOLERANCE[dtype])
    assert np.abs(Z[:, rank:]).max() < 1e-6


@both
def test_movement_along_null_directions_vanishes_from_codes_but_not_from_scores(whitener):
    X = border_images()
    model = whitener(ridge=0).fit(X)
    null = np.linalg.svd(X - X.mean(axis=0), full_matrices=True)[2][50:]
    step = 0.1 * null[0]
    codes = model.transform(X[:20])
    np.testing.assert_allclose(model.transform(X[:20] + step), codes, rtol=0, atol=1e-6)
    # Along that direction the density is a Gaussian of variance noise_variance_, no more.
    drop = model.score_samples(X[:20]) - model.score_samples(X[:20] + step)
    np.testing.assert_allclose(drop, 0.5 * 0.01 / model.noise_variance_, rtol=1e-6)
    assert (drop > 100).all()


def test_filters_are_what_transform_multiplies_with():
    X = digits()
    pca, zca = PCAWhitener(10, ridge=0.1).fit(X), ZCAWhitener(10, ridge=0.1).fit(X)
    np.testing.assert_allclose((X - pca.mean_) @ pca.filters_.T, pca.transform(X), atol=1e-10)
    np.testing.assert_allclose((X - zca.mean_) @ zca.filters_.T, zca.transform(X), atol=1e-10)
    np.testing.assert_allclose(zca.filters_, zca.filters_.T, atol=1e-14)


def test_zca_changes_the_rows_least_of_all_whitenings():
    X = digits()[:, 18:40]
    X = X - X.mean(axis=0)
    zca = ZCAWhitener(ridge=0).fit(X).transform(X)
    generator = np.random.default_rng(0)
    for _ in range(20):
        rotation = np.linalg.qr(generator.standard_normal((22, 22)))[0]
        assert ((zca @ rotation - X) ** 2).sum() > ((zca - X) ** 2).sum()


def test_codes_and_densities_are_those_of_scikit_learn():
    X = digits()
    for n_components in (5, 20):
        ours = PCAWhitener(n_components).fit(X)
        theirs = PCA(n_components, whiten=True, svd_solver="full").fit(X)
        signs = np.sign((ours.components_ * theirs.components_).sum(axis=1))
        np.testing.assert_allclose(ours.transform(X), signs * theirs.transform(X), atol=1e-9)
        # of the plain PCA: with whiten=True scikit-learn scales the components a second time
        plain = PCA(n_components, svd_solver="full").fit(X)
        np.testing.assert_allclose(ours.score_samples(X), plain.score_samples(X), rtol=1e-9)


@both
@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0, "ledoit_wolf"])
def test_shrinkage_mixes_the_covariance_with_the_identity(whitener, shrinkage):
    X = digits()[:100]
    model = whitener(shrinkage=shrinkage, ridge=0.05).fit(X)
    weight = shrinkage
    if shrinkage == "ledoit_wolf":
        weight = ledoit_wolf(X)[1]
        assert 0 < weight < 1
    assert model.shrinkage_ == pytest.approx(weight, rel=1e-12)
    C = np.cov(X.T)
    mean_variance = np.trace(C) / 64
    mixed = (1 - weight) * C + (weight + 0.05) * mean_variance * np.eye(64)
    expected = multivariate_normal(X.mean(axis=0), mixed).logpdf(X)
    np.testing.assert_allclose(model.score_samples(X), expected, rtol=1e-9)
    W = model.filters_
    np.testing.assert_allclose(W @ mixed @ W.T, np.eye(64), atol=1e-9)
    np.testing.assert_allclose(model.inverse_transform(model.transform(X)), X, atol=1e-9)


@both
def test_ledoit_wolf_has_no_partial_fit_and_says_why(whitener):
    model = whitener(shrinkage="ledoit_wolf")
    assert not hasattr(model, "partial_fit")
    with pytest.raises(AttributeError) as caught:
        model.partial_fit(digits())
    assert "needs all rows at once" in str(caught.value.__cause__)
    assert hasattr(model.set_params(shrinkage=0.2), "partial_fit")


@both
@pytest.mark.parametrize("shrinkage", [-0.1, 1.5, "lasso"])
def test_bad_shrinkage_is_refused(whitener, shrinkage):
    with pytest.raises(ValueError, match="shrinkage"):
        whitener(shrinkage=shrinkage).fit(digits())


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_chunks_do_not_matter(whitener, dtype):
    """Also when they come sorted and far from the origin, where sums of squares would cancel."""
    X = (border_images(500)[:, :40] + 100.0).astype(dtype)
    X = X[np.argsort(X[:, 0])]
    whole = whitener(shrinkage=0.01).fit(X)
    for sizes in ([500], [41, 459], [60, *[1] * 40, 400], [100] * 5):
        model = whitener(shrinkage=0.01)
        for chunk in np.split(X, np.cumsum(sizes)[:-1]):
            model.partial_fit(chunk)
        assert model.n_samples_seen_ == 500
        scale = np.sqrt(np.outer(*[np.diag(whole.covariance_)] * 2)) + 1e-300
        assert (np.abs(model.covariance_ - whole.covariance_) / scale).max() < 1e-10
        np.testing.assert_allclose(model.score_samples(X), whole.score_samples(X), rtol=1e-10)
        np.testing.assert_allclose(
            np.abs(model.transform(X)),
            np.abs(whole.transform(X)),
            rtol=1e-10 if dtype is np.float64 else 1e-6,
            atol=1e-9 if dtype is np.float64 else 1e-6,
        )


@both
def test_small_variances_are_exact(whitener):
    """Known spectrum over ten orders of magnitude, hidden by scales of the features."""
    generator = np.random.default_rng(0)
    scales = np.logspace(0, -5, 30)
    X = generator.standard_normal((4000, 30)) * scales
    model = whitener(ridge=0).fit(X)
    # The reference: singular values, whose rounding is relative to the square root
    exact = np.linalg.svd(X - X.mean(axis=0), compute_uv=False) ** 2 / 3999
    np.testing.assert_allclose(model.explained_variance_, exact, rtol=1e-10)


@both
@pytest.mark.parametrize("scale", [1e-8, 1e-15, 1e-20, 1e-30, 1e-60])
@pytest.mark.parametrize("seed", range(3))
def test_columns_of_any_smaller_scale_are_whitened_too(whitener, scale, seed):
    """Small columns correlate with a large one, and directions near zero must balance both."""
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((6, 6)) + 2.0 * np.eye(6)
    X = generator.standard_normal((40, 6)) @ mixing * np.where(np.arange(6) == 0, 1.0, scale)
    whitened = whitener(ridge=0).fit(X).transform(X)
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(6), atol=1e-9)


def test_directions_that_are_rounding_do_not_disturb_the_others():
    """Of pixels that first chunks hardly hold, small variances are rounding."""
    X = load_digits().data[np.random.default_rng(0).permutation(1500)] / 16.0
    whole = PCAWhitener(n_components=20).fit(X).score_samples(X)
    for size in (10, 30, 100):
        model = PCAWhitener(n_components=20)
        for start in range(0, 1500, size):
            model.partial_fit(X[start : start + size])
        np.testing.assert_allclose(model.score_samples(X), whole, rtol=0, atol=1e-9)
