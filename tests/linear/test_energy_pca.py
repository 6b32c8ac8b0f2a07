"""EnergyPCA against scikit-learn's PCA, least squares, and the density that it stands for."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest, multivariate_normal
from sklearn.covariance import ledoit_wolf
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from sklebm import EnergyPCA
from sklebm.energies import QuadraticEnergy, SubspaceEnergy


def table(n_rows=300, n_features=8, seed=0):
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((n_features, n_features))
    return generator.standard_normal((n_rows, n_features)) @ mixing + 2.0


@pytest.mark.parametrize("n_components", [1, 5, 20, None])
@pytest.mark.parametrize("make", [table, lambda: load_digits().data])
def test_it_is_scikit_learns(make, n_components):
    X = make()
    if n_components is not None and n_components > X.shape[1]:
        n_components = X.shape[1]
    ours = EnergyPCA(n_components).fit(X)
    theirs = PCA(n_components, svd_solver="full").fit(X)
    np.testing.assert_allclose(ours.mean_, theirs.mean_, rtol=1e-12)
    total = theirs.explained_variance_.sum()
    np.testing.assert_allclose(
        ours.explained_variance_, theirs.explained_variance_, rtol=1e-8, atol=1e-14 * total
    )
    np.testing.assert_allclose(
        ours.explained_variance_ratio_, theirs.explained_variance_ratio_, atol=1e-12
    )
    rank = np.count_nonzero(ours.explained_variance_)
    signs = np.sign((ours.components_ * theirs.components_).sum(axis=1))[:rank, None]
    np.testing.assert_allclose(
        ours.components_[:rank], signs * theirs.components_[:rank], atol=1e-8
    )
    if rank == X.shape[1] or n_components is not None:  # theirs is infinite without variance
        assert ours.noise_variance_ == pytest.approx(theirs.noise_variance_, rel=1e-8)
        np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-8)
        np.testing.assert_allclose(ours.get_covariance(), theirs.get_covariance(), atol=1e-8)
    codes = ours.transform(X)[:, :rank]
    np.testing.assert_allclose(codes, signs.T * theirs.transform(X)[:, :rank], atol=1e-8)


def test_few_rows_are_projected_as_scikit_learn_does():
    X = table(20, 50)
    ours, theirs = EnergyPCA(4).fit(X), PCA(4, svd_solver="full").fit(X)
    signs = np.sign((ours.components_ * theirs.components_).sum(axis=1))
    np.testing.assert_allclose(ours.transform(X), signs * theirs.transform(X), atol=1e-10)
    # The maximum of the likelihood spreads what is left over all 46 directions, not over 16.
    left = np.trace(np.cov(X.T)) - ours.explained_variance_.sum()
    assert ours.noise_variance_ == pytest.approx(left / 46, rel=1e-10)
    C = ours.get_covariance()
    density = multivariate_normal(X.mean(axis=0), C).logpdf(X)
    np.testing.assert_allclose(ours.score_samples(X), density, rtol=1e-9)


def test_no_other_noise_has_a_larger_likelihood():
    X = table(500, 6)
    model = EnergyPCA(2).fit(X)
    model.explained_variance_ *= 499 / 500  # the divisor n of maximum likelihood
    best = model.noise_variance_ * 499 / 500
    scores = {}
    for factor in (0.9, 1.0, 1.1):
        model.noise_variance_ = factor * best
        scores[factor] = model.score(X)
    assert max(scores, key=scores.get) == 1.0


def test_the_free_energy_is_the_least_energy():
    X = table()
    model = EnergyPCA(3).fit(X)
    Z, F = model.transform(X), model.free_energy(X)
    np.testing.assert_allclose(model.energy(X, Z), F, rtol=1e-12)
    error = 0.5 * ((X - model.inverse_transform(Z)) ** 2).sum(axis=1)
    np.testing.assert_allclose(F, error, rtol=1e-10)
    theirs = PCA(3, svd_solver="full").fit(X)
    gaps = X - theirs.inverse_transform(theirs.transform(X))
    np.testing.assert_allclose(F, 0.5 * (gaps**2).sum(axis=1), rtol=1e-8)
    step = 1e-6
    for direction in np.eye(3):  # central differences of a quadratic: exact but for rounding
        slope = model.energy(X, Z + step * direction) - model.energy(X, Z - step * direction)
        np.testing.assert_allclose(slope / (2 * step), 0.0, atol=1e-8 * (1 + F.max()))


def test_gradient_of_the_energy():
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(4, 2, generator=generator).double())[0].T
    mean, variances = torch.arange(4.0).double(), torch.tensor([3.0, 2.0]).double()
    energy = SubspaceEnergy(mean, directions, QuadraticEnergy(mean, directions, variances, 0.5))
    x = torch.randn(5, 4, generator=generator).double().requires_grad_()
    assert torch.autograd.gradcheck(energy.free_energy, x)
    assert torch.autograd.gradcheck(energy.log_density, x)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_energies_do_not_depend_on_an_offset(offset):
    X = np.round(table(), 6)
    here, there = EnergyPCA(3).fit(X), EnergyPCA(3).fit(X + offset)
    np.testing.assert_allclose(there.free_energy(X + offset), here.free_energy(X), atol=1e-7)
    np.testing.assert_allclose(there.score_samples(X + offset), here.score_samples(X), atol=1e-7)


@pytest.mark.parametrize("shrinkage", [0.3, "ledoit_wolf"])
def test_shrinkage_is_that_of_the_covariance(shrinkage):
    X = table(40)
    model = EnergyPCA(shrinkage=shrinkage).fit(X)
    weight = ledoit_wolf(X)[1] if shrinkage == "ledoit_wolf" else shrinkage
    C = np.cov(X.T)
    mixed = (1 - weight) * C + weight * np.trace(C) / 8 * np.eye(8)
    expected = multivariate_normal(X.mean(axis=0), mixed).logpdf(X)
    np.testing.assert_allclose(model.score_samples(X), expected, rtol=1e-9)
    np.testing.assert_allclose(model.free_energy(X), 0.0, atol=1e-20 + 1e-24 * (X**2).max())


@pytest.mark.parametrize("sizes", [[3, 3, 94], [50, 50], [99, 1]])
def test_chunks_do_not_matter(sizes):
    X = table(100)
    whole, model = EnergyPCA(3, shrinkage="oas").fit(X), EnergyPCA(3, shrinkage="oas")
    for chunk in np.split(X, np.cumsum(sizes)[:-1]):
        model.partial_fit(chunk)
    np.testing.assert_allclose(model.score_samples(X), whole.score_samples(X), rtol=1e-10)
    np.testing.assert_allclose(model.free_energy(X), whole.free_energy(X), rtol=1e-9)


def test_draws_follow_the_density():
    model = EnergyPCA(2).fit(table())
    drawn = model.sample(20_000, random_state=0)
    # twice the probabilistic energy of a draw is chi-squared with d degrees of freedom, and the
    # squared distance to the plane is so with d - k, in units of the noise
    energy = 2 * model.free_energy(drawn, form="probabilistic")
    assert kstest(energy, "chi2", args=(8,)).pvalue > 1e-3
    distance = 2 * model.free_energy(drawn) / model.noise_variance_
    assert kstest(distance, "chi2", args=(6,)).pvalue > 1e-3


def test_form_is_checked():
    model = EnergyPCA(2).fit(table())
    with pytest.raises(ValueError, match=r"form='exact'.*probabilistic"):
        model.free_energy(table(), form="exact")
