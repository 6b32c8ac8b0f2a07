"""PLSA: a likelihood that never falls, the fixed points of KL-NMF, certified folding-in."""

import itertools

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.optimize import minimize
from sklearn.decomposition import NMF
from sklearn.model_selection import GridSearchCV

from sklebm import PLSA
from sklebm.inference.counts import count_table
from sklebm.inference.topic_em import em_step, fold_in
from tests.entries.topics import make_documents


def overlapping_documents(n_documents=60, n_words=12, seed=0):
    """Counts from three topics that share words, in shares that differ."""
    generator = np.random.default_rng(seed)
    topics = generator.dirichlet(np.full(n_words, 0.5), size=3)
    shares = generator.dirichlet(np.full(3, 0.7), size=n_documents)
    return generator.poisson(50 * shares @ topics).astype(np.float64)


def naive_step(x, theta, phi, beta):
    """EM with the posterior of every document, word and topic written out; phi is (W, K)."""
    joint = (theta[:, None, :] * phi[None, :, :]) ** beta
    posterior = joint / joint.sum(axis=2, keepdims=True)
    parts = x[:, :, None] * posterior
    new_theta, new_phi = parts.sum(axis=1), parts.sum(axis=0)
    bound = (x * np.log(joint.sum(axis=2))).sum() / beta / x.sum()
    return (
        new_theta / new_theta.sum(axis=1, keepdims=True),
        new_phi / new_phi.sum(axis=0),
        bound,
    )


@pytest.mark.parametrize("beta", [1.0, 0.7])
def test_a_step_is_that_of_the_written_out_posterior(beta):
    generator = np.random.default_rng(0)
    x = generator.poisson(1.0, size=(7, 5)).astype(np.float64)
    x[x.sum(axis=1) == 0, 0] = 1.0
    theta = generator.dirichlet(np.ones(3), size=7)
    phi = generator.dirichlet(np.ones(5), size=3).T
    step = em_step(
        count_table(torch.from_numpy(x)), torch.from_numpy(theta), torch.from_numpy(phi), beta
    )
    expected = naive_step(x, theta, phi, beta)
    np.testing.assert_allclose(step.theta.numpy(), expected[0], rtol=1e-12)
    np.testing.assert_allclose(step.phi.numpy(), expected[1], rtol=1e-12)
    assert step.bound == pytest.approx(expected[2], rel=1e-12)


@pytest.mark.parametrize("beta", [1.0, 0.6])
def test_the_objective_never_falls(beta):
    model = PLSA(3, beta=beta, max_iter=150, tol=0.0, random_state=0)
    with pytest.warns(UserWarning, match="did not converge"):
        model.fit(overlapping_documents())
    # A sum of some hundred logarithms rounds by less than 1e-13.
    assert np.diff(model.lower_bounds_).min() > -1e-13
    assert model.lower_bounds_[-1] > model.lower_bounds_[0] + 1e-3


def test_the_bound_is_the_log_likelihood_of_the_fitted_shares():
    x = overlapping_documents()
    model = PLSA(3, tol=1e-12, max_iter=5000, random_state=0).fit(x)
    # Shares that folding-in finds again, now for topics that stay.
    assert model.score_samples(x) @ x.sum(axis=1) / x.sum() == pytest.approx(
        model.lower_bounds_[-1], abs=2e-6
    )
    assert model.perplexity(x) == pytest.approx(np.exp(-model.lower_bounds_[-1]), rel=4e-6)


def test_fixed_points_are_those_of_nmf_with_the_kullback_leibler_divergence():
    x = overlapping_documents(30)
    model = PLSA(3, tol=0.0, max_iter=5000, fold_in_tol=1e-14, fold_in_iter=5000, random_state=0)
    with pytest.warns(UserWarning, match="did not converge"):
        model.fit(x)
    loads = model.transform(x) * x.sum(axis=1, keepdims=True)
    nmf = NMF(3, init="custom", beta_loss="kullback-leibler", solver="mu", max_iter=200, tol=0.0)
    W = nmf.fit_transform(x, W=loads.copy(), H=model.components_.copy())
    scale = nmf.components_.sum(axis=1)
    np.testing.assert_allclose(nmf.components_ / scale[:, None], model.components_, atol=1e-6)
    shares = W * scale
    shares /= shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, model.transform(x), atol=1e-6)


def test_folding_in_finds_the_optimum_of_each_document():
    model = PLSA(3, random_state=0, fold_in_tol=1e-9, fold_in_iter=100_000)
    model.fit(overlapping_documents())
    x = overlapping_documents(8, seed=1)
    for row, energy in zip(x, model.free_energy(x), strict=True):

        def cost(logits, row=row):
            shares = np.exp(logits - logits.max())
            words = shares / shares.sum() @ model.components_
            return -(row @ np.log(words)) / row.sum()

        best = min(
            minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12}).fun
            for start in (np.zeros(3), 2 * np.eye(3)[0], 2 * np.eye(3)[1])
        )
        # The gap bounds the error from above; a simplex search stops above the optimum itself.
        assert energy <= best + 1e-9
        assert energy >= best - 1e-6


@pytest.mark.parametrize("beta", [1.0, 0.75])
def test_the_gap_certifies_folding_in(beta):
    """No shares on a fine grid have a tempered energy lower by more than the tolerance."""
    generator = np.random.default_rng(0)
    phi = generator.dirichlet(np.ones(6), size=3).T
    x = generator.poisson(2.0, size=(5, 6)).astype(np.float64)
    theta = fold_in(
        count_table(torch.from_numpy(x)),
        torch.full((3,), 1 / 3, dtype=torch.float64),
        torch.from_numpy(phi),
        beta,
        1e-4,
        10_000,
    ).numpy()
    grid = np.array([p for p in itertools.product(range(61), repeat=3) if sum(p) == 60]) / 60

    def tempered(shares, row):
        return -(np.log(shares**beta @ phi.T**beta) @ row) / beta / row.sum()

    for row, found in zip(x, theta, strict=True):
        assert found.sum() == pytest.approx(1.0, abs=1e-12)
        assert tempered(found, row) <= tempered(grid, row).min() + 1e-4


def test_held_out_words_choose_the_temperature():
    """Documents of few words and many topics overfit; softer posteriors predict better."""
    generator = np.random.default_rng(0)
    topics = generator.dirichlet(np.full(30, 0.3), size=3)
    shares = generator.dirichlet(np.full(3, 0.5), size=80)
    x = generator.poisson(15 * shares @ topics).astype(np.float64)
    other = generator.poisson(15 * shares @ topics).astype(np.float64)
    auto = PLSA(12, beta="auto", random_state=0).fit(x)
    plain = PLSA(12, random_state=0).fit(x)
    assert auto.beta_ < 1
    assert auto.perplexity(other, given=x) < plain.perplexity(other, given=x)
    search = GridSearchCV(PLSA(12, random_state=0), {"beta": [1.0, 0.8]}, cv=2).fit(x)
    assert search.best_params_["beta"] in (1.0, 0.8)


def test_sparse_rows_answer_as_dense_ones():
    x = overlapping_documents()
    dense = PLSA(3, random_state=0).fit(x)
    for kind in (scipy.sparse.csr_array, scipy.sparse.csr_matrix):
        sparse = PLSA(3, random_state=0).fit(kind(x))
        np.testing.assert_array_equal(sparse.components_, dense.components_)
        np.testing.assert_array_equal(sparse.transform(kind(x)), dense.transform(x))


def test_documents_without_words_and_words_never_seen():
    x = overlapping_documents()
    x = np.hstack([x, np.zeros((len(x), 1))])
    x[5] = 0.0
    model = PLSA(3, random_state=0).fit(x)
    np.testing.assert_array_equal(model.components_[:, -1], 0.0)
    unknown = np.zeros((1, 13))
    unknown[0, -1] = 4.0
    for empty in (x[5:6], unknown):
        np.testing.assert_array_equal(model.transform(empty)[0], model.topic_weights_)
        assert model.score_samples(empty)[0] == 0.0
        assert model.free_energy(empty)[0] == 0.0
        assert model.perplexity(empty) == 1.0
    # A word never seen changes nothing beside other words.
    np.testing.assert_array_equal(model.score_samples(x[:1] + unknown), model.score_samples(x[:1]))
    nothing = PLSA(2, random_state=0).fit(np.zeros((3, 4)))
    np.testing.assert_allclose(nothing.components_, 0.25, rtol=1e-12)
    assert nothing.score(np.ones((1, 4))) == pytest.approx(-np.log(4), rel=1e-12)


def test_multiples_of_a_document_answer_alike():
    x = overlapping_documents()
    model = PLSA(3, random_state=0).fit(x)
    np.testing.assert_allclose(model.transform(1e300 * x[:9]), model.transform(x[:9]), rtol=1e-9)
    twice = PLSA(3, random_state=0).fit(2.0 * x)
    np.testing.assert_allclose(twice.components_, model.components_, rtol=1e-12)


def test_negative_counts_are_refused():
    x = overlapping_documents()
    model = PLSA(3, random_state=0).fit(x)
    x[3, 2] = -1.0
    for kind in (np.asarray, torch.from_numpy, scipy.sparse.csr_array):
        for call in (PLSA(3).fit, model.transform, model.score_samples, model.perplexity):
            with pytest.raises(ValueError, match="Negative values in data passed to PLSA"):
                call(kind(x))


def test_energy_of_given_shares():
    x = make_documents(20, 0)
    model = PLSA(3, random_state=0).fit(x)
    shares = np.random.default_rng(0).dirichlet(np.ones(3), size=20)
    expected = -(x * np.log(shares @ model.components_)).sum(axis=1) / x.sum(axis=1)
    np.testing.assert_allclose(model.energy(x, shares), expected, rtol=1e-12)
    assert (model.free_energy(x) <= expected + model.fold_in_tol).all()
    np.testing.assert_allclose(
        model.inverse_transform(shares), shares @ model.components_, rtol=1e-12
    )


def test_topics_are_found():
    model = PLSA(3, random_state=0).fit(make_documents(400, 0))
    tops = {tuple(np.sort(np.argsort(topic)[-10:])) for topic in model.components_}
    assert tops == {tuple(range(10)), tuple(range(10, 20)), tuple(range(20, 30))}


def test_from_parameters():
    x = make_documents(20, 0)
    fitted = PLSA(3, random_state=0).fit(x)
    made = PLSA.from_parameters(components=fitted.components_, topic_weights=fitted.topic_weights_)
    assert made.n_components == 3
    np.testing.assert_array_equal(made.transform(x), fitted.transform(x))
