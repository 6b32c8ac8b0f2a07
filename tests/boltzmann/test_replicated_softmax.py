"""Replicated softmax against sums over all sequences of words and all hidden states."""

import itertools
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.special import logsumexp, softmax

import sklebm
from sklebm import ReplicatedSoftmax
from sklebm.energies.replicated_softmax import ReplicatedSoftmaxEnergy, draw_words
from sklebm.inference import length_annealing
from sklebm.objectives import (
    Batch,
    ContrastiveDivergence,
    LengthLikelihood,
    MaximumLikelihood,
    PersistentContrastiveDivergence,
)
from tests.machines import all_states

EXACT = {"objective": "maximum_likelihood", "n_gibbs_steps": 5}
BRIEF = {"max_epochs": 5, "n_gibbs_steps": 1, "batch_size": 20, "random_state": 0}


def given(n_words=4, n_hidden=3, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return ReplicatedSoftmax.from_parameters(
        components=scale * rng.normal(size=(n_hidden, n_words)),
        intercept_hidden=scale * rng.normal(size=n_hidden),
        intercept_visible=scale * rng.normal(size=n_words),
    )


def naive_log_weights(model, sequences):
    """-E of every sequence of words with every hidden state, word by word."""
    h = all_states(len(model.components_))
    each = h @ model.components_ + model.intercept_visible_  # of a word given h
    each = each + (h @ model.intercept_hidden_)[:, None]
    return np.array([each[:, list(words)].sum(axis=1) for words in sequences])


def counts_of(sequences, n_words):
    return np.array([np.bincount(words, minlength=n_words) for words in sequences], float)


def make_documents(n_rows=200, seed=0, length=30):
    """Two topics of four words each; a document mixes them."""
    rng = np.random.default_rng(seed)
    topics = np.array([[8, 4, 2, 1, 0.2, 0.2, 0.2, 0.2], [0.2, 0.2, 0.2, 0.2, 1, 2, 4, 8]])
    topics /= topics.sum(axis=1, keepdims=True)
    share = rng.dirichlet([0.3, 0.3], size=n_rows)
    lengths = rng.integers(length // 2, 2 * length, size=n_rows)
    return np.array([rng.multinomial(n, p) for n, p in zip(lengths, share @ topics, strict=True)])


# ---------------------------------------------------------------- exact


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_probabilities_are_those_of_all_sequences(length):
    """Four words and three hidden units: p of every sequence, whatever the order of its words."""
    model = given().estimate_log_partition("exact")
    sequences = list(itertools.product(range(4), repeat=length))
    joint = naive_log_weights(model, sequences)
    truth = logsumexp(joint, axis=1) - logsumexp(joint)
    X = counts_of(sequences, 4)
    np.testing.assert_allclose(model.score_samples(X), truth, atol=1e-10)
    np.testing.assert_allclose(model.free_energy(X, normalised=True), -truth, atol=1e-10)
    np.testing.assert_allclose(model.free_energy(X), -logsumexp(joint, axis=1), atol=1e-10)
    assert np.exp(model.score_samples(X)).sum() == pytest.approx(1.0, abs=1e-10)
    posterior = softmax(joint, axis=1) @ all_states(3)
    np.testing.assert_allclose(model.transform(X), posterior, atol=1e-10)
    assert model.perplexity(X) == pytest.approx(np.exp(-truth.sum() / (len(X) * length)))


def test_one_word_is_a_mixture():
    model = given(6, 3).estimate_log_partition("exact")
    h = all_states(3)
    logits = h @ model.components_ + model.intercept_visible_
    shares = softmax(h @ model.intercept_hidden_ + logsumexp(logits, axis=1))
    truth = shares @ softmax(logits, axis=1)
    np.testing.assert_allclose(np.exp(model.score_samples(np.eye(6))), truth, rtol=1e-12)


def test_energies_are_those_of_the_equation():
    model = given()
    sequences = [(0, 0, 2), (1, 3), (2,)]
    joint, h = naive_log_weights(model, sequences), all_states(3)
    for row, expected in zip(counts_of(sequences, 4), joint, strict=True):
        found = model.energy(np.tile(row, (8, 1)), h)
        np.testing.assert_allclose(found, -expected, atol=1e-12)
    np.testing.assert_allclose(
        model.free_energy(counts_of(sequences, 4)), -logsumexp(joint, axis=1)
    )


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_the_free_energy_at_a_temperature_is_a_sum_over_the_topics(beta):
    model = given()
    sequences = [(0, 0, 2), (1, 3), (2,), ()]
    truth = -logsumexp(beta * naive_log_weights(model, sequences), axis=1) / beta
    found = model.free_energy(counts_of(sequences, 4), beta)
    np.testing.assert_allclose(found, truth, atol=1e-12)


def test_a_temperature_has_no_log_z():
    model = given().estimate_log_partition("exact")
    with pytest.raises(ValueError, match=r"is at beta=1, not at beta=0\.5: leave out"):
        model.free_energy(np.eye(4), 0.5, normalised=True)


def test_fractions_lie_between_whole_lengths():
    """log Z is a convex function of the length; an empty document has probability 1."""
    model = given().estimate_log_partition("exact")
    x = np.array([[0.5, 0.25, 0.0, 0.75]])
    h = all_states(3)
    weights = h @ model.intercept_hidden_
    weights = weights + logsumexp(h @ model.components_ + model.intercept_visible_, axis=1)
    free = -(x @ model.intercept_visible_)
    free = free - np.logaddexp(0, x @ model.components_.T + 1.5 * model.intercept_hidden_).sum(1)
    truth = -free - logsumexp(1.5 * weights)
    np.testing.assert_allclose(model.score_samples(x), truth, atol=1e-12)
    assert model.score_samples(np.zeros((1, 4)))[0] == pytest.approx(0.0, abs=1e-12)


def test_a_word_given_the_others_has_the_probability_of_enumeration():
    """p(w | the others) from all sequences of three words; fractions count as so much of a word."""
    model = given()
    energy = model._energy(torch.device("cpu"))
    for sequence in [(0, 0, 0), (1, 1, 1), (2, 2, 2)]:  # whichever word is drawn is known
        rivals = [(*sequence[:2], word) for word in range(4)]
        joint = logsumexp(naive_log_weights(model, rivals), axis=1)
        truth = joint[sequence[2]] - logsumexp(joint)
        x = torch.tensor(counts_of([sequence, ()], 4))  # a document without words is left out
        found = energy.log_conditional(x, torch.Generator().manual_seed(0))
        np.testing.assert_allclose(found.detach(), [truth], atol=1e-12)
    x, h = torch.tensor([[0.0, 0.5, 0.0, 0.0]]).double(), all_states(3)
    found = energy.log_conditional(x, torch.Generator().manual_seed(0))
    halves = 0.5 * (h @ model.components_ + model.intercept_visible_)
    joint = logsumexp(halves + 0.5 * (h @ model.intercept_hidden_)[:, None], axis=0)
    np.testing.assert_allclose(found.detach(), [joint[1] - logsumexp(joint)], atol=1e-12)


# ---------------------------------------------------------------- annealing


def test_annealing_finds_log_z_of_every_length():
    model = given(8, 6, scale=0.5)
    energy = model._energy(torch.device("cpu"))
    with torch.no_grad():
        truth = energy.exact_log_partition(torch.arange(26).double())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        found = length_annealing.estimate(energy, 25, generator, n_chains=2000)
    assert (found.low <= truth).all()
    assert (truth <= found.high).all()
    # Three standard errors of 2000 chains whose log weights differ by about one nat, here and
    # below: scores are wrong by the error of log Z alone.
    assert float((found.value - truth).abs().max()) < 0.1
    model.estimate_log_partition("ais", longest=25, n_chains=2000, random_state=0)
    np.testing.assert_allclose(model.log_partitions_, truth, atol=0.1)
    exact = given(8, 6, scale=0.5).estimate_log_partition("exact")
    X = make_documents(20, length=8)[:, :8].clip(0, 3)
    np.testing.assert_allclose(model.score_samples(X), exact.score_samples(X), atol=0.1)
    assert model.score(X) <= model.score_samples(X).mean() + 1e-12


def test_log_z_of_longer_documents_is_extrapolated_with_a_warning():
    """Along the last slope: log Z is convex, and nearly linear for lengths like these."""
    model = given(8, 4, scale=0.5).estimate_log_partition("ais", longest=60, random_state=0)
    exact = given(8, 4, scale=0.5).estimate_log_partition("exact")
    X = np.full((1, 8), 9.0)
    with pytest.warns(UserWarning, match=r"has 72 words, but log Z was annealed for up to 60"):
        found = model.score_samples(X)
    slope = model.log_partitions_[-1] - model.log_partitions_[-2]
    log_z = model.log_partitions_[-1] + 12 * slope
    np.testing.assert_allclose(found, -model.free_energy(X) - log_z, rtol=1e-12)
    # Twelve times the error of a slope of 100 chains, whose a(h) differ by a tenth of a nat.
    np.testing.assert_allclose(found, exact.score_samples(X), atol=12 * 5 * 0.1 / 10)


def test_long_documents_are_annealed_in_steps_of_a_share_of_their_length():
    lengths = length_annealing.ladder(10_000)
    assert lengths[:1000] == list(range(1000))
    assert lengths[-1] == 10_000
    steps = np.diff(lengths)
    assert (steps <= np.maximum(1, np.array(lengths[:-1]) / 1000)).all()
    assert len(lengths) < 1000 * (1 + 2 * np.log(10))  # at most twice those of a smooth ladder
    model = given(3, 2, scale=0.3)
    model.estimate_log_partition("ais", longest=1300, n_chains=10, random_state=0)
    exact = given(3, 2, scale=0.3).estimate_log_partition("exact")
    X = np.array([[400.0, 400.0, 401.0]])
    low, high = (model.log_partition_intervals_[1201, end] for end in (0, 1))
    truth = -exact.score_samples(X)[0] - model.free_energy(X)[0]
    assert low <= truth <= high


def test_gibbs_steps_leave_the_machine_invariant():
    """Documents of three words drawn from p stay there."""
    model, n = given().estimate_log_partition("exact"), 20_000
    sequences = list(itertools.product(range(4), repeat=3))
    p = np.exp(model.score_samples(counts_of(sequences, 4)))
    index = np.random.default_rng(0).choice(len(p), size=n, p=p / p.sum())
    v = torch.tensor(counts_of(sequences, 4)[index])
    energy, generator = model._energy(torch.device("cpu")), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(4):
            v = energy.draw_visible(energy.draw_hidden(v, generator), generator)
    tables, places = np.unique(counts_of(sequences, 4), axis=0, return_inverse=True)
    expected = np.bincount(places.ravel(), weights=p)
    found = np.array([(v.numpy() == table).all(axis=1).mean() for table in tables])
    assert (np.abs(found - expected) < 5 * np.sqrt(expected / n)).all()
    drawn = model.sample(n, length=3, n_steps=40, random_state=0)
    found = np.array([(drawn == table).all(axis=1).mean() for table in tables])
    assert (np.abs(found - expected) < 5 * np.sqrt(expected / n)).all()


def test_drawn_words_have_their_length_and_their_probabilities():
    logits, generator = torch.log(torch.tensor([0.5, 0.3, 0.2])), torch.Generator().manual_seed(0)
    lengths = torch.tensor([0.0, 1.0, 2.5]).repeat(1000)
    counts = draw_words(logits.expand(3000, -1), lengths, generator)
    torch.testing.assert_close(counts.sum(dim=1), lengths)
    share = counts[1::3].mean(dim=0)  # of 1000 words: five standard errors
    assert float((share - torch.tensor([0.5, 0.3, 0.2])).abs().max()) < 5 * 0.5 / 1000**0.5
    counts = draw_words(logits[None], torch.tensor([20_000.0]), generator)
    assert float(counts.sum()) == pytest.approx(20_000.0, rel=1e-5)


@pytest.mark.parametrize(("scale", "disagree"), [(0.0, False), (0.3, False), (4.0, True)])
def test_annealing_says_whether_growing_and_shrinking_chains_agree(scale, disagree):
    """Strong couplings part them by hundreds of nats; without any, log Z is known."""
    model = given(8, 12, scale=scale)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.estimate_log_partition("ais", longest=60, random_state=0)
    truth = given(8, 12, scale=scale).estimate_log_partition("exact").state_weights_
    truth = logsumexp(60 * truth)
    low, high = model.log_partition_intervals_[60]
    if not disagree:
        assert not caught
        assert low - 1e-9 <= truth <= high + 1e-9
        return
    (said,) = (str(warning.message) for warning in caught)
    assert abs(model.log_partitions_[60] - truth) > 5.0
    assert f"log Z of documents of 60 words is uncertain, between {low:.4g} and {high:.4g}" in said
    assert "with more chains or steps" in said


def test_machines_of_given_parameters_are_told_how_long_documents_are():
    """Twelve units against all sequences: no log Z of documents without words stands for others."""
    model = given(4, 12, scale=0.3)
    with pytest.raises(ValueError, match=r"has seen no document with words.*: pass longest="):
        model.estimate_log_partition(random_state=0)
    assert model.log_partitions_ is None
    sequences = list(itertools.product(range(4), repeat=3))
    joint = naive_log_weights(model, sequences)
    truth = logsumexp(joint, axis=1) - logsumexp(joint)
    X = counts_of(sequences, 4)
    model.estimate_log_partition(longest=3, n_chains=1000, random_state=0)
    # Three standard errors of 1000 chains whose log weights differ by about one nat.
    np.testing.assert_allclose(model.score_samples(X), truth, atol=0.1)
    perplexity = np.exp(-truth.mean() / 3)
    assert model.perplexity(X) == pytest.approx(perplexity, rel=0.1 / 3)
    np.testing.assert_allclose(
        given(4, 12, scale=0.3).estimate_log_partition("exact").score_samples(X), truth, atol=1e-10
    )


def test_the_longest_document_can_be_given_with_the_parameters():
    named = ("components", "intercept_hidden", "intercept_visible")
    values = {name: getattr(given(4, 12, scale=0.3), f"{name}_") for name in named}
    model = ReplicatedSoftmax.from_parameters(**values, longest=7.0).estimate_log_partition()
    assert len(model.log_partitions_) == 8
    few = given(4, 3).estimate_log_partition()  # exact, for any length
    assert few.log_partitions_ is None
    assert len(few.state_weights_) == 8


def test_a_machine_that_saw_only_empty_documents_scores_no_others():
    model = ReplicatedSoftmax(12, **BRIEF).fit(np.zeros((20, 4)))
    np.testing.assert_allclose(model.score_samples(np.zeros((1, 4))), 0.0, atol=1e-5)
    with pytest.raises(ValueError, match=r"call estimate_log_partition\(longest="):
        model.score_samples(np.ones((1, 4)))
    with pytest.raises(ValueError, match="pass longest="):
        model.estimate_log_partition()


# ---------------------------------------------------------------- learning


def enumerated_gradients(model, energy, X):
    """Gradients of the mean of -log p of documents of three words, by name."""
    sequences = list(itertools.product(range(4), repeat=3))
    joint = naive_log_weights(model, sequences)
    p = np.exp(joint - logsumexp(joint))
    V, H = counts_of(sequences, 4), all_states(3)
    mean = energy.hidden_mean(X).detach().numpy()
    return {
        "weights": H.T @ p.T @ V - mean.T @ X.numpy() / len(X),
        "hidden_bias": 3 * (p.sum(axis=0) @ H - mean.mean(axis=0)),
        "visible_bias": p.sum(axis=1) @ V - X.numpy().mean(axis=0),
    }


def test_the_exact_gradient_is_that_of_enumeration():
    model = given()
    energy = model._energy(torch.device("cpu"))
    X = torch.tensor([[2.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]]).double()
    loss, _ = LengthLikelihood().loss(energy, Batch(X), {}, torch.Generator())
    for name, expected in enumerated_gradients(model, energy, X).items():
        (found,) = torch.autograd.grad(loss, [getattr(energy, name)], retain_graph=True)
        np.testing.assert_allclose(found, expected, atol=1e-8)


def test_the_gradient_of_long_chains_is_that_of_enumeration():
    """Contrastive divergence of many copies of two documents, with chains that have mixed."""
    model, n_copies = given(scale=0.5), 20_000
    energy = model._energy(torch.device("cpu"))
    X = torch.tensor([[2.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]]).double()
    batch, generator = Batch(X.repeat(n_copies, 1)), torch.Generator().manual_seed(0)
    loss, _ = ContrastiveDivergence(20).loss(energy, batch, {}, generator)
    for name, expected in enumerated_gradients(model, energy, X).items():
        (found,) = torch.autograd.grad(loss, [getattr(energy, name)], retain_graph=True)
        # Five standard errors: what each chain adds is between 0 and 3, the number of its words.
        np.testing.assert_allclose(found, expected, atol=5 * 1.5 / (2 * n_copies) ** 0.5)
        assert np.abs(expected).max() > 0.2


def test_negatives_have_the_lengths_of_their_documents():
    model = given(5, 3)
    energy = model._energy(torch.device("cpu"))
    x = torch.tensor([[3.0, 0, 0, 1, 0], [0, 2, 0, 0, 0], [0.5, 0.5, 0.75, 0, 0]]).double()
    generator = torch.Generator().manual_seed(0)
    v, _ = ContrastiveDivergence(3).negatives(energy, Batch(x), {}, generator)
    torch.testing.assert_close(v.sum(dim=1), x.sum(dim=1))


@pytest.mark.parametrize("settings", [{"n_gibbs_steps": 1}, EXACT])
def test_topics_beat_independent_words(settings):
    X, X_test = make_documents(400), make_documents(200, seed=1)
    model = ReplicatedSoftmax(3, learning_rate=0.05, max_epochs=40, batch_size=20, **settings)
    model.set_params(random_state=0).fit(X)
    p = X.sum(axis=0) / X.sum()
    independent = np.exp(-(X_test * np.log(p)).sum() / X_test.sum())
    assert model.perplexity(X_test) < 0.85 * independent
    start = ReplicatedSoftmax(3, learning_rate=1e-12, max_epochs=1, random_state=0).fit(X)
    assert model.score(X_test) > start.score(X_test) + 2.0
    # Documents of either kind have topics of their own.
    kinds = X_test[:, :4].sum(axis=1) / X_test.sum(axis=1)
    codes = model.transform(X_test)
    assert np.abs(np.corrcoef(codes.T, kinds)[-1, :-1]).max() > 0.8


def test_few_documents_get_as_many_updates_as_many():
    """Subjects that multiply, in documents of which all fit into one batch."""
    factors = np.random.default_rng(0).normal(scale=1.2, size=(4, 40))

    def draw(n_rows, seed):
        rng = np.random.default_rng(seed)
        p = softmax((rng.random((n_rows, 4)) < 0.4) @ factors, axis=1)
        return np.array([rng.multinomial(50, row) for row in p])

    X, test = draw(80, 1), draw(100, 2)
    independent = -np.mean(test @ np.log(X.sum(axis=0) + 0.5) / 50) + np.log(X.sum() + 20)
    model = ReplicatedSoftmax(8, random_state=0).fit(X)
    passes = ReplicatedSoftmax(8, max_epochs=15, random_state=0).fit(X)
    found, brief = (np.log(m.perplexity(test)) for m in (model, passes))
    assert found < brief - 0.1 < independent - 0.1
    assert model.n_iter_ == 150


def test_plain_descent_does_not_depend_on_chunks():
    """Small steps of single rows add up to those of batches; Adam's fall short, by the noise."""
    X = make_documents(140)
    settings = {"objective": "maximum_likelihood", "batch_size": 20, "random_state": 0}

    def change(optimizer, rate, size):
        model = ReplicatedSoftmax(3, optimizer=optimizer, learning_rate=rate, **settings)
        model.partial_fit(X[:40])
        start = model.components_.copy()
        for chunk in range(40, 140, size):
            model.partial_fit(X[chunk : chunk + size])
        return model.components_ - start

    whole = change("sgd", 1e-5, 100)
    for size in (7, 1):
        # The second order in the rate, and float32 rounding of weights of 0.1.
        np.testing.assert_allclose(change("sgd", 1e-5, size), whole, atol=0.02 * abs(whole).max())
    whole, single = change("adam", 1e-3, 100), change("adam", 1e-3, 1)
    assert np.linalg.norm(single) < 0.8 * np.linalg.norm(whole)


def test_the_validation_score_sees_topics_and_overfitting():
    settings = {"learning_rate": 0.05, "batch_size": 10, "max_epochs": 30, "random_state": 0}
    settings |= {"validation_fraction": 0.3, "log_partition": None, "n_gibbs_steps": 1}
    scores = ReplicatedSoftmax(3, **settings).fit(make_documents(120)).validation_scores_
    assert scores[-1] > scores[0] + 0.1
    # Words that have nothing to do with each other: more passes learn the documents by heart.
    X = np.random.default_rng(0).poisson(0.3, (400, 30))
    settings |= {"validation_fraction": 0.8, "max_epochs": 60}
    scores = ReplicatedSoftmax(8, **settings).fit(X).validation_scores_
    assert scores[-1] < scores.max() - 0.02


def test_held_out_documents_without_words_score_zero():
    """Their log p is 0; one with words gives the rest their score."""
    X = np.zeros((40, 4))
    settings = {**BRIEF, "validation_fraction": 0.1, "max_epochs": 2}
    model = ReplicatedSoftmax(2, **settings).fit(X)
    np.testing.assert_array_equal(model.validation_scores_, [0.0, 0.0])
    model = ReplicatedSoftmax(2, **settings).fit(X + 1)
    assert (model.validation_scores_ < 0.0).all()


def test_csr_and_dense_documents_teach_and_score_alike():
    X = make_documents(100).astype(float)
    dense = ReplicatedSoftmax(4, **BRIEF).fit(X)
    sparse = ReplicatedSoftmax(4, **BRIEF).fit(scipy.sparse.csr_array(X))
    np.testing.assert_allclose(sparse.score_samples(X), dense.score_samples(X), rtol=1e-6)
    np.testing.assert_allclose(
        dense.score_samples(scipy.sparse.csr_matrix(X)), dense.score_samples(X), rtol=1e-10
    )


# ---------------------------------------------------------------- streams, files, errors


def test_log_z_is_unknown_after_partial_fit_and_lengths_are_remembered():
    X = make_documents(60)
    model = ReplicatedSoftmax(12, **BRIEF).fit(X)
    assert len(model.log_partitions_) == X.sum(axis=1).max() + 1
    model.partial_fit(2 * X)
    assert model.log_partitions_ is None
    assert model.longest_ == 2 * X.sum(axis=1).max()
    with pytest.raises(ValueError, match=r"estimate_log_partition\(\) first"):
        model.score(X)
    model.estimate_log_partition(n_chains=20, random_state=0)
    assert np.isfinite(model.score(2 * X))


def test_negative_counts_are_refused_everywhere_by_the_name_of_the_model():
    X = make_documents(30)
    model = ReplicatedSoftmax(3, **BRIEF).fit(X)
    for method in (model.fit, model.partial_fit, model.transform, model.score_samples):
        for rows in (-X, scipy.sparse.csr_array(-X.astype(float))):
            with pytest.raises(ValueError, match="data passed to ReplicatedSoftmax"):
                method(rows)


def test_saved_models_answer_alike(tmp_path):
    X = make_documents(60)
    for n_units in (3, 12):
        model = ReplicatedSoftmax(n_units, **BRIEF).fit(X)
        sklebm.save(model, tmp_path / "model.safetensors")
        copy = sklebm.load(tmp_path / "model.safetensors")
        np.testing.assert_array_equal(copy.score_samples(X), model.score_samples(X))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**EXACT, "n_components": 15}, r"over 2\^15 states"),
        ({"log_partition": "exact", "n_components": 15}, r"sum over 2\^15 states"),
        ({**EXACT, "n_gibbs_steps": 1}, "does not apply"),
    ],
)
def test_settings_that_do_not_work(settings, message):
    with pytest.raises(ValueError, match=message):
        ReplicatedSoftmax(**{**BRIEF, "n_components": 3, **settings}).fit(make_documents(30))


@pytest.mark.parametrize("objective", [PersistentContrastiveDivergence(), MaximumLikelihood()])
def test_objectives_of_rows_of_one_length_are_refused(objective):
    X, model = make_documents(30), ReplicatedSoftmax(3, objective=objective, max_epochs=1)
    for learn in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=r'does not suit .*: use "cd", .*LengthLikelihood\(\)'):
            learn(X)


def test_objects_of_the_objectives_learn_what_their_names_do():
    X = make_documents(30)
    settings = {"max_epochs": 2, "random_state": 0}
    same_by_name = {"cd": ContrastiveDivergence(5), "maximum_likelihood": LengthLikelihood()}
    for name, same in same_by_name.items():
        named = ReplicatedSoftmax(3, objective=name, **settings).fit(X)
        given_as_object = ReplicatedSoftmax(3, objective=same, **settings).fit(X)
        np.testing.assert_array_equal(named.components_, given_as_object.components_)


def test_energy_parameters_are_named_as_in_the_equation():
    energy = ReplicatedSoftmaxEnergy(torch.zeros(4), torch.zeros(2), torch.zeros(2, 4))
    assert dict(energy.named_parameters()).keys() == {"visible_bias", "hidden_bias", "weights"}
    lengths = torch.tensor([0.0, 1.0, 3.0])
    expected = 2 * np.log(2.0) + lengths * np.log(4.0)
    torch.testing.assert_close(energy.exact_log_partition(lengths).detach(), expected)


def test_one_chain_has_no_error_and_is_refused():
    model = ReplicatedSoftmax(3, **BRIEF).fit(make_documents(40))
    before = model.log_partition_interval_ if hasattr(model, "log_partition_interval_") else None
    with pytest.raises(ValueError, match="n_chains=1 must be an integer of at least 2"):
        model.estimate_log_partition("ais", n_chains=1)
    assert np.isfinite(model.score_samples(make_documents(5))).all()
    after = model.log_partition_interval_ if hasattr(model, "log_partition_interval_") else None
    assert before is after
