"""LDA: scikit-learn's answers, a bound that never falls, and log p(x) by enumeration."""

import itertools

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.optimize import minimize
from scipy.special import digamma, gammaln
from sklearn import decomposition

from sklebm import LatentDirichletAllocation
from sklebm.inference._topic_kernels import digamma_parts
from sklebm.inference.counts import count_table
from sklebm.inference.variational_topics import (
    Precision,
    best_prior,
    geometric_mean,
    infer_shares,
    settle_batches,
)
from tests.topics.test_plsa import overlapping_documents

STARTED = np.random.default_rng(3).gamma(100.0, 0.01, size=(3, 12))
# scikit-learn draws where the posteriors of documents begin, anew in every pass. Under this prior
# they have one optimum each, and settle there to rounding, so that the start does not matter.
PRECISE = {"mean_change_tol": 1e-12, "max_doc_update_iter": 5000, "doc_topic_prior": 2.0}


def peer(learning_method, X, n_passes, **options):
    """scikit-learn's model after some passes from ``STARTED``."""
    model = decomposition.LatentDirichletAllocation(
        3, learning_method=learning_method, random_state=0, **options, **PRECISE
    )
    model._init_latent_vars(X.shape[1])
    model.components_ = STARTED.copy()
    expected_log = digamma(STARTED) - digamma(STARTED.sum(axis=1, keepdims=True))
    model.exp_dirichlet_component_ = np.exp(expected_log)
    model.n_features_in_ = X.shape[1]
    batches = [X]
    if learning_method == "online":
        size = options["batch_size"]
        batches = [X[i : i + size] for i in range(0, len(X), size)]
    for _ in range(n_passes):
        for batch in batches:
            model._em_step(
                batch,
                total_samples=len(X),
                batch_update=learning_method == "batch",
            )
    return model


def test_twenty_batch_iterations_are_those_of_scikit_learn():
    X = overlapping_documents(40)
    theirs = peer("batch", X, 20)
    with pytest.warns(UserWarning, match="did not converge"):
        ours = LatentDirichletAllocation(
            3, components_init=STARTED, max_iter=20, tol=0.0, **PRECISE
        ).fit(X)
    np.testing.assert_allclose(ours.components_, theirs.components_, rtol=1e-6)
    np.testing.assert_allclose(ours.transform(X), theirs.transform(X), rtol=1e-6)
    # Theirs is one bound of all, with the divergence of the topics that the fit ended with.
    topics = ours.components_
    log_topics = digamma(topics) - digamma(topics.sum(axis=1, keepdims=True))
    eta = ours.topic_word_prior_
    of_topics = ((eta - topics) * log_topics + gammaln(topics) - gammaln(eta)).sum()
    of_topics += (gammaln(12 * eta) - gammaln(topics.sum(axis=1))).sum()
    assert ours.score_samples(X).sum() + of_topics == pytest.approx(theirs.score(X), rel=1e-9)


def test_online_passes_are_those_of_scikit_learn():
    X = overlapping_documents(40)
    options = {"batch_size": 16, "learning_decay": 0.6, "learning_offset": 3.0}
    theirs = peer("online", X, 3, **options)
    ours = LatentDirichletAllocation(
        3, components_init=STARTED, learning_method="online", max_iter=3, **options, **PRECISE
    ).fit(X)
    assert ours.n_batch_iter_ == 9
    np.testing.assert_allclose(ours.components_, theirs.components_, rtol=1e-6)


def test_partial_fits_are_those_of_scikit_learn():
    """Two chunks, of three batches and of one, as parts of 500 documents; then a batch fit's."""
    X = overlapping_documents(40)
    options = {"batch_size": 10, "learning_decay": 0.6, "learning_offset": 3.0}
    theirs = peer("online", X, 0, total_samples=500, **options)
    ours = LatentDirichletAllocation(
        3, components_init=STARTED, total_samples=500, **options, **PRECISE
    )
    for chunk in (X[:30], X[30:]):
        theirs.partial_fit(chunk)
        ours.partial_fit(scipy.sparse.csr_array(chunk))
    assert (ours.n_batch_iter_, ours.n_iter_) == (4, 2)
    assert len(ours.lower_bounds_) == 2
    np.testing.assert_allclose(ours.components_, theirs.components_, rtol=1e-6)
    with pytest.warns(UserWarning, match="did not converge"):
        ours.set_params(max_iter=4, tol=0.0).fit(X)
    theirs.components_, theirs.n_batch_iter_ = ours.components_.copy(), 5
    log_topics = digamma(ours.components_) - digamma(ours.components_.sum(axis=1, keepdims=True))
    theirs.exp_dirichlet_component_ = np.exp(log_topics)
    theirs.partial_fit(X)
    ours.partial_fit(X)
    np.testing.assert_allclose(ours.components_, theirs.components_, rtol=1e-6)


def test_a_stream_is_learnt_as_well_as_the_whole():
    X, test = overlapping_documents(400, seed=0), overlapping_documents(100, seed=1)
    whole = LatentDirichletAllocation(3, random_state=0).fit(X)
    stream = LatentDirichletAllocation(3, random_state=0, batch_size=20, total_samples=400)
    for start in range(0, 400, 50):
        stream.partial_fit(X[start : start + 50])
    first = LatentDirichletAllocation.from_parameters(
        components=STARTED, doc_topic_prior=np.full(3, 1 / 3)
    )
    gained = first.perplexity(test) - whole.perplexity(test)
    assert first.perplexity(test) - stream.perplexity(test) > 0.8 * gained > 0.4
    # The bound of a chunk is that of all documents, were they like it: .01 to .04 lower with four
    # other sets of documents, by what the stream has yet to learn and by which 50 come last.
    assert stream.lower_bounds_[-1] == pytest.approx(whole.lower_bounds_[-1], abs=0.05)


def test_other_topics_or_words_are_not_gone_on_with():
    X = overlapping_documents(30)
    model = LatentDirichletAllocation(3, random_state=0).partial_fit(X)
    before = model.components_.copy()
    with pytest.raises(ValueError, match="n_components=4 differs from the 3 fitted topics"):
        model.set_params(n_components=4).partial_fit(X)
    with pytest.raises(ValueError, match="12 features"):
        model.set_params(n_components=3).partial_fit(X[:, :11])
    np.testing.assert_array_equal(model.components_, before)


@pytest.mark.parametrize("prior", [None, "auto", [0.2, 1.0, 3.0]])
def test_the_bound_never_falls(prior):
    X = overlapping_documents(40)
    model = LatentDirichletAllocation(
        3, doc_topic_prior=prior, max_iter=60, tol=0.0, random_state=0
    )
    with pytest.warns(UserWarning, match="did not converge"):
        model.fit(X)
    # Log gammas of some thousand tokens cancel: 1e-12 of a bound per token of about 2.
    assert np.diff(model.lower_bounds_).min() > -1e-11
    assert model.lower_bounds_[-1] > model.lower_bounds_[0] + 0.05


def exact_log_probability(x, topics, alpha):
    """Sum over the topic of every token of p(words, topics), shares integrated in closed form."""
    words = np.repeat(np.arange(len(x)), x.astype(int))
    terms = []
    for choice in itertools.product(range(len(alpha)), repeat=len(words)):
        counts = np.bincount(choice, minlength=len(alpha))
        shares = gammaln(alpha + counts).sum() - gammaln(alpha).sum()
        shares += gammaln(alpha.sum()) - gammaln(alpha.sum() + len(words))
        terms.append(shares + np.log(topics[list(choice), words]).sum())
    return np.logaddexp.reduce(terms)


@pytest.mark.parametrize("alpha", [[0.3, 0.3], [2.0, 0.5]])
def test_bounds_and_estimates_against_enumeration(alpha):
    """Two topics, three words, documents of up to seven tokens."""
    components = np.array([[5.0, 2.0, 1.0], [0.5, 2.0, 6.0]])
    model = LatentDirichletAllocation.from_parameters(
        components=components, doc_topic_prior=np.array(alpha)
    )
    X = np.array([[1, 0, 0], [2, 1, 0], [0, 3, 2], [3, 0, 4], [1, 1, 1], [0, 0, 0]], dtype=float)
    topics = components / components.sum(axis=1, keepdims=True)
    exact = np.array([exact_log_probability(x, topics, np.array(alpha)) for x in X])
    assert (model.score_samples(X) <= exact + 1e-12).all()
    np.testing.assert_array_equal(model.free_energy(X), -model.score_samples(X))
    found = np.asarray(model._importance(X, 4000, 0, "importance_score_samples"))
    # The last document is empty: log 1, without error.
    assert found[-1, 0] == pytest.approx(0.0, abs=1e-12)
    assert (np.abs(found[:-1, 0] - exact[:-1]) < 3 * found[:-1, 1]).all()
    assert (found[:-1, 1] < 0.05).all()
    np.testing.assert_array_equal(
        model.importance_score_samples(X, n_samples=4000, random_state=0), found[:, 0]
    )


def test_the_energy_integrates_to_the_probability():
    """exp(-E(x, theta)) over a fine grid of shares of two topics is p(x)."""
    components = np.array([[5.0, 2.0, 1.0], [0.5, 2.0, 6.0]])
    alpha = np.array([2.0, 3.0])
    model = LatentDirichletAllocation.from_parameters(components=components, doc_topic_prior=alpha)
    x = np.array([2.0, 1.0, 3.0])
    share = (np.arange(2000) + 0.5) / 2000  # the midpoint rule errs by 1 / 2000^2
    Z = np.stack([share, 1 - share], axis=1)
    integral = np.exp(-model.energy(np.tile(x, (2000, 1)), Z)).mean()
    topics = components / components.sum(axis=1, keepdims=True)
    assert np.log(integral) == pytest.approx(exact_log_probability(x, topics, alpha), abs=1e-5)


def test_importance_samples_do_not_depend_on_the_company():
    X = overlapping_documents(12)
    model = LatentDirichletAllocation(3, random_state=0).fit(X)
    whole = model.importance_score_samples(X, random_state=0)
    part = model.importance_score_samples(X[[7, 2]], random_state=0)
    np.testing.assert_allclose(part, whole[[7, 2]], rtol=1e-10)
    assert not np.array_equal(model.importance_score_samples(X, random_state=1), whole)
    for n_samples in (0, 2.5, "many"):
        with pytest.raises(ValueError, match="n_samples"):
            model.importance_score_samples(X, n_samples=n_samples)


def test_perplexities():
    X = overlapping_documents(40)
    model = LatentDirichletAllocation(3, random_state=0).fit(X)
    bound = model.perplexity(X)
    assert bound == pytest.approx(np.exp(-model.score_samples(X).sum() / X.sum()), rel=1e-12)
    sampled = model.perplexity(X, method="importance", random_state=0)
    # The best shares of a document are likelier than the average over the prior.
    assert model.perplexity(X, given=X) < sampled < bound
    with pytest.raises(ValueError, match="method"):
        model.perplexity(X, method="exact")


def test_the_learnt_prior_is_the_maximum():
    shares = np.random.default_rng(0).dirichlet([0.3, 1.0, 4.0], size=2000)
    mean_log = np.log(shares).mean(axis=0)
    found = best_prior(torch.ones(3, dtype=torch.float64), torch.from_numpy(mean_log)).numpy()

    def cost(logs):
        alpha = np.exp(logs)
        return gammaln(alpha).sum() - gammaln(alpha.sum()) - alpha @ mean_log

    best = minimize(cost, np.zeros(3), method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose(found, np.exp(best.x), rtol=1e-5)
    # Where the slope vanishes: E log theta is what was seen.
    np.testing.assert_allclose(digamma(found) - digamma(found.sum()), mean_log, atol=1e-7)


def test_a_rare_topic_gets_a_small_prior():
    generator = np.random.default_rng(0)
    topics = np.kron(np.eye(2), np.full(4, 0.25))
    shares = generator.dirichlet([4.0, 0.5], size=200)
    X = np.array([generator.multinomial(60, row) for row in shares @ topics]).astype(float)
    plain = LatentDirichletAllocation(2, random_state=0).fit(X)
    # From the same topics, so that both are near the same local optimum.
    model = LatentDirichletAllocation(
        2, doc_topic_prior="auto", components_init=plain.components_
    ).fit(X)
    common = int(np.argmax(model.components_[:, 0]))
    assert model.doc_topic_prior_[common] > 2 * model.doc_topic_prior_[1 - common]
    assert model.lower_bounds_[-1] > plain.lower_bounds_[-1]


def test_the_compiled_digamma_is_that_of_scipy():
    """Over all concentrations, from the least prior to millions of tokens, across the seam."""
    x = np.concatenate([np.logspace(-3, 8, 300), np.linspace(999, 1001, 21)])
    y, t = np.array([digamma_parts(value) for value in x]).T
    # The series errs by 2e-15, and t, which is at most 1 / x, is rounded a few times.
    np.testing.assert_allclose(np.log(y) + t, digamma(x), rtol=2e-15, atol=4e-15)
    p = torch.from_numpy(np.random.default_rng(0).gamma(0.5, 1.0, size=(6, 4)) + 1e-3)
    for dim in (0, 1):
        expected = np.exp(digamma(p.numpy()) - digamma(p.numpy().sum(axis=dim, keepdims=True)))
        found = geometric_mean(p, dim).numpy()
        # exp magnifies the error of the largest exponent, 1000.
        np.testing.assert_allclose(found, np.maximum(expected, 1e-100), rtol=1e-12)


def test_batches_of_documents_settle_where_single_ones_do():
    """What runs on other devices, against the compiled kernels; also without any word."""
    X = torch.from_numpy(overlapping_documents(40))
    X[7] = 0.0
    topics = geometric_mean(torch.from_numpy(STARTED.T.copy()), dim=0)
    for rows in (X, torch.zeros(3, 12, dtype=torch.float64)):
        counts, known = count_table(rows).of_known_words()
        start, prior = torch.ones(len(rows), 3), torch.tensor([0.2, 1.0, 3.0])
        arguments = counts, start.double(), prior.double(), topics[known], Precision(1e-13, 5000)
        one = infer_shares(*arguments)
        torch.testing.assert_close(settle_batches(*arguments), one, rtol=1e-10, atol=0)
        empty = one[rows.sum(dim=1) == 0]
        torch.testing.assert_close(empty, prior.double().expand_as(empty))


def test_threads_and_company_change_nothing(set_threads):
    X = overlapping_documents(90)
    one = LatentDirichletAllocation(3, random_state=0).fit(X)
    set_threads(3)
    three = LatentDirichletAllocation(3, random_state=0).fit(X)
    np.testing.assert_array_equal(three.components_, one.components_)
    whole = one.transform(X)
    np.testing.assert_array_equal(one.transform(X[[50, 3]]), whole[[50, 3]])


def test_sparse_rows_answer_as_dense_ones():
    X = overlapping_documents(30)
    dense = LatentDirichletAllocation(3, random_state=0).fit(X)
    sparse = LatentDirichletAllocation(3, random_state=0).fit(scipy.sparse.csr_array(X))
    np.testing.assert_array_equal(sparse.components_, dense.components_)
    np.testing.assert_array_equal(sparse.transform(scipy.sparse.csr_array(X)), dense.transform(X))


def test_documents_without_words_and_words_never_seen():
    X = np.hstack([overlapping_documents(30), np.zeros((30, 1))])
    X[5] = 0.0
    for method in ("batch", "online"):
        model = LatentDirichletAllocation(
            3, doc_topic_prior=[0.5, 1.0, 2.5], learning_method=method, batch_size=1, random_state=0
        ).fit(X)
        np.testing.assert_allclose(model.transform(X[5:6])[0], [0.125, 0.25, 0.625], rtol=1e-9)
        assert model.score_samples(X[5:6])[0] == pytest.approx(0.0, abs=1e-12)
        assert model.perplexity(X[5:6]) == 1.0
        unknown = np.eye(13)[-1:]
        assert np.isfinite(model.score_samples(unknown)).all()
    batch = LatentDirichletAllocation(3, random_state=0).fit(X)
    np.testing.assert_allclose(batch.components_[:, -1], batch.topic_word_prior_, rtol=1e-12)
    nothing = LatentDirichletAllocation(2, random_state=0).fit(np.zeros((3, 4)))
    np.testing.assert_allclose(nothing.inverse_transform([[0.3, 0.7]]), 0.25, rtol=1e-12)


def test_negative_counts_are_refused():
    X = overlapping_documents(30)
    model = LatentDirichletAllocation(3, random_state=0).fit(X)
    X[3, 2] = -1.0
    for call in (LatentDirichletAllocation(3).fit, model.transform, model.importance_score_samples):
        with pytest.raises(ValueError, match="Negative values in data passed to LatentDirichlet"):
            call(X)


def test_wrong_starts_and_priors_are_named():
    X = overlapping_documents(30)
    for given in (STARTED[:2], -STARTED):
        with pytest.raises(ValueError, match="components_init"):
            LatentDirichletAllocation(3, components_init=given).fit(X)
    for prior in ([1.0, 2.0], [1.0, 0.0, 1.0]):
        with pytest.raises(ValueError, match="doc_topic_prior"):
            LatentDirichletAllocation(3, doc_topic_prior=prior).fit(X)


def test_topics_are_found_as_well_as_by_scikit_learn():
    """Ten bars of a 5 x 5 square; each document begins anew, or it is caught in a poor optimum."""
    generator = np.random.default_rng(0)
    bars = np.zeros((10, 5, 5))
    for i in range(5):
        bars[i, i] = bars[5 + i, :, i] = 0.2
    shares = generator.dirichlet(np.full(10, 0.3), size=200)
    X = np.array([generator.multinomial(60, row) for row in shares @ bars.reshape(10, -1)])
    ours = LatentDirichletAllocation(10, random_state=0).fit(X)
    theirs = decomposition.LatentDirichletAllocation(10, max_iter=40, random_state=0).fit(X)
    judge = LatentDirichletAllocation.from_parameters(
        components=theirs.components_, doc_topic_prior=np.full(10, 0.1)
    )
    # Two seeds of either differ by half a per cent; a poor optimum is at 15 %.
    assert ours.perplexity(X) < 1.02 * judge.perplexity(X)
    assert np.diff(ours.lower_bounds_).min() > -1e-11
