"""Whiteners: rows in fewer numbers than features, columns of any scale, weights, sparse rows."""

import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.stats import kstest, multivariate_normal
from sklearn.covariance import ledoit_wolf, oas
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from sklebm import PCAWhitener, ZCAWhitener
from sklebm.linear._spectrum import spectrum_of

both = pytest.mark.parametrize("whitener", [PCAWhitener, ZCAWhitener])


def table(n_rows, n_features, seed=0):
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((n_features, n_features))
    return generator.standard_normal((n_rows, n_features)) @ mixing / n_features**0.5


# ---------------------------------------------------------------- fewer rows than features


@pytest.mark.parametrize("n_components", [1, 5, 30])
def test_codes_of_few_rows_are_those_of_scikit_learn(n_components):
    X = table(60, 300) + 3.0
    ours = PCAWhitener(n_components).fit(X)
    theirs = PCA(n_components, whiten=True, svd_solver="full").fit(X)
    signs = np.sign((ours.components_ * theirs.components_).sum(axis=1))
    np.testing.assert_allclose(ours.transform(X), signs * theirs.transform(X), atol=1e-9)
    np.testing.assert_allclose(ours.singular_values_, theirs.singular_values_, rtol=1e-10)
    # no matrix of 300 x 300 is kept
    assert max(np.size(value) for value in vars(ours).values()) <= 60 * 300
    np.testing.assert_allclose(ours.covariance_, np.cov(X.T), atol=1e-12)


@both
@pytest.mark.parametrize("duplicates", [0, 5])
def test_density_of_few_rows_is_the_gaussian(whitener, duplicates):
    X = table(20, 50)
    X[:duplicates] = X[10 : 10 + duplicates]
    model = whitener(ridge=0.1).fit(X)
    C = np.cov(X.T) + model.ridge_ * np.eye(50)
    expected = multivariate_normal(X.mean(axis=0), C).logpdf(X)
    np.testing.assert_allclose(model.score_samples(X), expected, rtol=1e-10)
    np.testing.assert_allclose(model.get_covariance(), C, atol=1e-12)
    np.testing.assert_allclose(model.inverse_transform(model.transform(X)), X, atol=1e-11)


def test_zca_of_few_rows_is_the_inverse_root_of_the_whole_covariance():
    X = table(20, 50)
    model = ZCAWhitener(ridge=0.1).fit(X)
    variances, vectors = np.linalg.eigh(np.cov(X.T) + model.ridge_ * np.eye(50))
    root = (vectors / np.sqrt(variances)) @ vectors.T
    Y = table(10, 50, seed=1)  # also along directions in which no row moved
    np.testing.assert_allclose(model.transform(Y), (Y - X.mean(axis=0)) @ root, atol=1e-10)
    np.testing.assert_allclose(model.filters_, root, atol=1e-10)
    np.testing.assert_allclose(model.inverse_transform(model.transform(Y)), Y, atol=1e-10)


@both
@pytest.mark.parametrize("sizes", [[10, 10, 10, 70], [39, 1, 60], [2] * 50, [100]])
def test_chunks_may_begin_with_fewer_rows_than_features(whitener, sizes):
    X = table(100, 40) + 100.0
    whole, model = whitener(ridge=0.1).fit(X), whitener(ridge=0.1)
    for chunk in np.split(X, np.cumsum(sizes)[:-1]):
        model.partial_fit(chunk)
    assert model.n_samples_seen_ == 100
    np.testing.assert_allclose(model.covariance_, whole.covariance_, atol=1e-11)
    np.testing.assert_allclose(model.score_samples(X), whole.score_samples(X), rtol=1e-10)


def test_more_components_than_the_rows_move_in_have_no_variance():
    X = table(4, 30)
    model = PCAWhitener(6).fit(X)
    assert model.components_.shape == (6, 30)
    np.testing.assert_allclose(model.components_ @ model.components_.T, np.eye(6), atol=1e-12)
    np.testing.assert_array_equal(model.explained_variance_[3:], 0.0)
    np.testing.assert_array_equal(model.transform(X)[:, 3:], 0.0)


def test_few_of_many_components_are_those_of_the_whole_spectrum():
    """By Lanczos' method where that is cheaper, with the residual checked."""
    C = np.cov(table(2000, 600).T)
    some = spectrum_of(torch.from_numpy(C), 1e-12, n_wanted=10)
    assert some.is_part
    whole = np.linalg.eigvalsh(C)[::-1]
    np.testing.assert_allclose(some.variances, whole[:10], rtol=1e-12)
    assert some.rest(10) == pytest.approx(whole[10:].sum(), rel=1e-11)
    residual = some.directions @ C - some.variances[:, None] * some.directions
    assert np.abs(residual).max() < 1e-12 * whole[0]
    # where the rest is rounding, all are computed
    flat = np.diag(np.r_[np.linspace(2, 1, 10), np.full(590, 1e-9)])
    assert not spectrum_of(torch.from_numpy(flat), 1e-12, n_wanted=10).is_part


# ---------------------------------------------------------------- scales and offsets


@both
@pytest.mark.parametrize("smallest", [1e-3, 1e-6, 1e-7, 1e-9, 1e-12])
def test_no_column_is_too_small_to_count(whitener, smallest):
    """log p of rescaled rows is that of the rows minus the log of the scales."""
    X, scales = table(500, 6), np.geomspace(1, smallest, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is dropped
        model = whitener(ridge=0).fit(X * scales)
    expected = multivariate_normal(X.mean(axis=0), np.cov(X.T)).logpdf(X) - np.log(scales).sum()
    np.testing.assert_allclose(model.score_samples(X * scales), expected, rtol=1e-9)
    Z = model.transform(X * scales)
    Z = Z if whitener is PCAWhitener else Z @ model.components_.T
    np.testing.assert_allclose(np.cov(Z.T), np.eye(6), atol=1e-9)
    assert len(model.dropped_features_) == 0
    # an impossible rate beside a time stamp is told
    odd = (X * scales)[:1] + 20 * np.eye(6)[5] * scales
    assert model.score_samples(odd)[0] < model.score_samples((X * scales)[:1])[0] - 50


def test_small_columns_count_with_fewer_rows_than_features():
    X = table(20, 50) * np.geomspace(1, 1e-9, 50)
    Z = PCAWhitener().fit(X).transform(X)
    assert Z.shape == (20, 19)
    np.testing.assert_allclose(np.cov(Z.T), np.eye(19), atol=1e-10)


def test_small_columns_that_repeat_each_other_are_told_apart_from_small_columns():
    X = table(500, 4)
    X = np.column_stack([X, X[:, 3]]) * [1.0, 1e-3, 1e-8, 1e-9, 1e-9]
    with pytest.warns(UserWarning, match=r"1 direction without .*columns 3, 4 of X"):
        model = PCAWhitener().fit(X)
    np.testing.assert_array_equal(model.dropped_features_, [3, 4])
    assert np.count_nonzero(model.explained_variance_) == 4
    # moving one of the twins alone, by ten times its deviation, is impossible
    odd = X[:5] + 1e-8 * np.eye(5)[3]
    assert (model.score_samples(odd) < model.score_samples(X[:5]) - 1e4).all()


@pytest.mark.parametrize("size", [1e-3, 1e-10, 1e-40, 1e-100])
@pytest.mark.parametrize("n_rows", [3, 4, 9])
def test_rounding_of_columns_that_repeat_each_other_hides_no_small_column(size, n_rows):
    X = np.zeros((n_rows, 3))
    X[0] = [1.0, 1.0, 0.0]
    X[1, 2] = size
    with pytest.warns(UserWarning, match="columns 0, 1 of X|vary in only 2"):
        model = PCAWhitener().fit(X)
    np.testing.assert_allclose(
        np.linalg.eigvalsh(np.cov(model.transform(X).T))[-2:], 1.0, rtol=1e-9
    )
    # What is left of the third column, given the first two, has this variance.
    truth = size**2 * (n_rows - 2) / (n_rows - 1) ** 2
    assert model.explained_variance_[1] == pytest.approx(truth, rel=1e-6, abs=0)


def test_what_is_dropped_is_named():
    X = load_digits().data
    with pytest.warns(UserWarning, match=r"3 directions without .*columns 0, 32, 39 of X"):
        model = PCAWhitener().fit(X)
    np.testing.assert_array_equal(model.dropped_features_, np.flatnonzero(X.var(axis=0) == 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # with a ridge nothing is left out of the codes
        PCAWhitener(ridge=0.1).fit(X)
        PCAWhitener(61).fit(X)


@both
@pytest.mark.parametrize("offset", [1500.0, 1e6])
@pytest.mark.parametrize("n_rows", [300, 5])
def test_scores_do_not_depend_on_an_offset(whitener, offset, n_rows):
    # Rows near 1e6 are rounded to 1e-10 of a deviation, and an energy is at most n_rows.
    X = np.round(table(n_rows, 8), 6)
    there = whitener().fit(X + offset).score_samples(X + offset)
    np.testing.assert_allclose(there, whitener().fit(X).score_samples(X), atol=1e-6)


def test_units_of_all_columns_do_not_matter():
    X = np.column_stack([table(200, 5), np.zeros(200)])
    for unit in (1e-9, 1e9):
        here, there = PCAWhitener().fit(X), PCAWhitener().fit(unit * X)
        expected = here.score_samples(X) - 6 * np.log(unit)
        np.testing.assert_allclose(there.score_samples(unit * X), expected, rtol=1e-9)
        np.testing.assert_allclose(
            there.explained_variance_ratio_, here.explained_variance_ratio_, rtol=1e-9
        )


# ---------------------------------------------------------------- weights, sparse rows, draws


@both
@pytest.mark.parametrize("shape", [(60, 8), (12, 30)])
def test_a_weight_is_as_many_copies(whitener, shape):
    X, weights = table(*shape), np.random.default_rng(0).integers(0, 4, shape[0])
    copies = np.repeat(X, weights, axis=0)
    weighted = whitener().fit(X, sample_weight=weights)
    repeated = whitener().fit(copies)
    assert weighted.n_samples_seen_ == weights.sum()
    np.testing.assert_allclose(weighted.covariance_, np.cov(copies.T), atol=1e-12)
    np.testing.assert_allclose(weighted.score_samples(X), repeated.score_samples(X), rtol=1e-8)
    half = shape[0] // 2
    streamed = whitener().partial_fit(X[:half], sample_weight=weights[:half])
    streamed.partial_fit(X[half:], sample_weight=weights[half:])
    np.testing.assert_allclose(streamed.covariance_, np.cov(copies.T), atol=1e-12)


@both
def test_ledoit_wolf_takes_weights(whitener):
    X, weights = table(60, 8), np.random.default_rng(0).integers(0, 4, 60)
    model = whitener(shrinkage="ledoit_wolf").fit(X, sample_weight=weights)
    expected = ledoit_wolf(np.repeat(X, weights, axis=0))[1]
    assert 0 < expected < 1
    assert model.shrinkage_ == pytest.approx(expected, rel=1e-12)


@both
def test_weights_that_cannot_be_copies_are_refused(whitener):
    X = table(20, 3)
    with pytest.raises(ValueError, match=r"adds up to 1.*mean of 1"):
        whitener().fit(X, sample_weight=np.full(20, 1 / 20))


@both
@pytest.mark.parametrize("shape", [(100, 20), (10, 20)])
def test_sparse_rows_are_rows(whitener, shape):
    S = scipy.sparse.random(*shape, 0.3, random_state=0, format="csr")
    dense, sparse = whitener().fit(S.toarray()), whitener().fit(S)
    np.testing.assert_array_equal(sparse.transform(S), dense.transform(S.toarray()))
    np.testing.assert_array_equal(sparse.score_samples(S), dense.score_samples(S.toarray()))


@both
@pytest.mark.parametrize("n_components", [None, 2])
def test_draws_follow_the_density(whitener, n_components):
    model = whitener(n_components, ridge=0).fit(table(300, 5) + 4.0)
    drawn = model.sample(20_000, random_state=0)
    # twice the free energy of a draw is chi-squared with d degrees of freedom
    assert kstest(2 * model.free_energy(drawn), "chi2", args=(5,)).pvalue > 1e-3
    C = model.get_covariance()
    error = np.sqrt((C**2 + np.outer(np.diag(C), np.diag(C))) / 20_000)
    assert (np.abs(np.cov(drawn.T) - C) / error).max() < 5
    deviation = np.sqrt(np.diag(C) / 20_000)
    assert (np.abs(drawn.mean(axis=0) - model.mean_) / deviation).max() < 5
    np.testing.assert_allclose(C @ model.get_precision(), np.eye(5), atol=1e-10)
    np.testing.assert_array_equal(drawn, model.sample(20_000, random_state=0))


def test_covariance_and_precision_are_those_of_scikit_learn():
    X = table(200, 7)
    for n_components in (1, 4, 7):
        ours, theirs = PCAWhitener(n_components).fit(X), PCA(n_components).fit(X)
        np.testing.assert_allclose(ours.get_covariance(), theirs.get_covariance(), rtol=1e-9)
        np.testing.assert_allclose(ours.get_precision(), theirs.get_precision(), rtol=1e-7)


# ---------------------------------------------------------------- how many components


@pytest.mark.parametrize("seed", range(5))
def test_evidence_chooses_what_scikit_learn_chooses(seed):
    generator = np.random.default_rng(seed)
    signal = generator.standard_normal((200, 4)) @ generator.standard_normal((4, 15))
    X = 0.5 * seed * signal + generator.standard_normal((200, 15))
    assert PCAWhitener("mle").fit(X).n_components_ == PCA("mle").fit(X).n_components_


def test_every_part_of_the_evidence_counts_where_rows_are_few():
    """Numbers between the extremes, which every wrong constant moves."""
    generator, chosen = np.random.default_rng(0), []
    for _ in range(40):
        signal = generator.standard_normal((14, 3)) @ generator.standard_normal((3, 6))
        X = 0.8 * signal + generator.standard_normal((14, 6))
        chosen.append((PCAWhitener("mle").fit(X).n_components_, PCA("mle").fit(X).n_components_))
    ours, theirs = np.transpose(chosen)
    np.testing.assert_array_equal(ours, theirs)
    assert len(set(ours.tolist())) > 2


def test_held_out_rows_choose_the_number_of_components():
    generator = np.random.default_rng(0)
    X = 3 * generator.standard_normal((200, 4)) @ generator.standard_normal((4, 15))
    X += generator.standard_normal((200, 15))
    model = PCAWhitener("held_out").fit(X)
    folds = np.arange(200) % 5
    scores = [
        sum(PCAWhitener(k).fit(X[folds != f]).score_samples(X[folds == f]).sum() for f in range(5))
        for k in range(1, 16)
    ]
    assert model.n_components_ == 1 + int(np.argmax(scores)) == 4
    assert not hasattr(PCAWhitener("held_out"), "partial_fit")


# ---------------------------------------------------------------- the default of ZCA


def test_default_of_zca_shrinks_by_the_formula_of_chen():
    X = table(50, 12)
    model = ZCAWhitener().fit(X)
    # theirs divides by n where we divide by n - 1, which cancels
    assert model.shrinkage_ == pytest.approx(oas(X)[1], rel=1e-9)
    exact = ZCAWhitener(ridge=0).fit(X)
    assert exact.shrinkage_ == exact.ridge_ == 0.0
    chunks = ZCAWhitener()
    for part in np.split(X, 5):
        chunks.partial_fit(part)
    assert chunks.shrinkage_ == pytest.approx(model.shrinkage_, rel=1e-10)


def test_pixels_that_hardly_move_are_not_blown_up():
    """One that moved in a single training row, and moves in three of a hundred others."""
    generator = np.random.default_rng(0)
    train, test = generator.standard_normal((2, 500, 10))
    train[:, 0], test[:, 0] = 0.0, 0.0
    train[0, 0], test[:15, 0] = 0.05, 1.0
    assert ZCAWhitener(ridge=0).fit(train).transform(test).var(axis=0).max() > 1000
    assert ZCAWhitener().fit(train).transform(test).var(axis=0).max() < 10


# ---------------------------------------------------------------- from parameters


def test_whiteners_from_parameters_are_the_gaussian_of_these():
    components = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0][:2]
    mean, variances = np.arange(4.0), np.array([3.0, 2.0])
    model = PCAWhitener.from_parameters(
        mean=mean, components=components, explained_variance=variances, noise_variance=0.5
    )
    C = (components.T * (variances - 0.5)) @ components + 0.5 * np.eye(4)
    X = table(10, 4)
    np.testing.assert_allclose(model.score_samples(X), multivariate_normal(mean, C).logpdf(X))
    np.testing.assert_allclose(model.covariance_, C)
    np.testing.assert_allclose(
        model.transform(X), (X - mean) @ components.T / np.sqrt(variances), rtol=1e-12
    )
    model.partial_fit(X)  # whose rows are the first
    np.testing.assert_array_equal(model.mean_, PCAWhitener(2).fit(X).mean_)
    whole = ZCAWhitener.from_parameters(
        mean=[1.0, 0.0], components=np.eye(2), explained_variance=[4.0, 1.0]
    )
    np.testing.assert_array_equal(whole.transform([[3.0, 3.0]]), [[1.0, 3.0]])
    with pytest.raises(TypeError, match="noise_variance"):
        PCAWhitener.from_parameters(mean=mean, components=components, explained_variance=variances)
