"""BernoulliRBM: what it learns, its likelihood, its samples, and scikit-learn's as a yardstick."""

import numpy as np
import pytest
import sklearn.neural_network
import torch
from sklearn.datasets import load_digits

from sklebm import BernoulliRBM
from sklebm.objectives import PersistentContrastiveDivergence
from tests.machines import (
    all_states,
    balanced_machine,
    exact_rows,
    naive_log_partition,
    naive_visible_probabilities,
)
from tests.registry import freeze

TRUTH = balanced_machine(9, 8, scale=2.5)
ROWS, TEST_ROWS = exact_rows(TRUTH, 10_000), exact_rows(TRUTH, 10_000, seed=1)


def make(**settings):
    return BernoulliRBM(**{"n_components": 8, "batch_size": 20, "random_state": 0, **settings})


def machine_of(model):
    """The fitted energy in float64."""
    return model._energy(torch.device("cpu")).double()


def peer(model):
    """scikit-learn's estimator with the same parameters."""
    other = sklearn.neural_network.BernoulliRBM(model.n_components)
    other.components_ = model.components_.astype(np.float64)
    other.intercept_hidden_ = model.intercept_hidden_.astype(np.float64)
    other.intercept_visible_ = model.intercept_visible_.astype(np.float64)
    other.n_features_in_ = model.n_features_in_
    return other


@pytest.fixture(scope="module")
def model():
    return make(max_epochs=4, learning_rate=0.3).fit(ROWS)


# ---------------------------------------------------------------- learning


def test_persistent_chains_come_close_to_exact_likelihood():
    """Trained on the same 10,000 rows of a 9 x 8 machine, within 0.05 nat of each other."""
    settings = {"n_components": 8, "random_state": 0}
    exact = BernoulliRBM(
        objective="maximum_likelihood",
        optimizer="lbfgs",
        learning_rate=1.0,
        learning_rate_schedule="constant",
        max_epochs=30,
        **settings,
    ).fit(ROWS)
    chains = BernoulliRBM(learning_rate=0.2, max_epochs=60, batch_size=50, **settings).fit(ROWS)
    entropy = np.log(naive_visible_probabilities(TRUTH)) @ naive_visible_probabilities(TRUTH)
    assert exact.score(TEST_ROWS) > entropy - 0.05
    assert exact.score(ROWS) > chains.score(ROWS)
    assert exact.score(ROWS) - chains.score(ROWS) < 0.05
    assert exact.score(TEST_ROWS) - chains.score(TEST_ROWS) < 0.05


@pytest.mark.table(5)
@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "cd"},
        {"objective": "cd", "n_gibbs_steps": 5},
        {"n_gibbs_steps": 3},
        {"objective": PersistentContrastiveDivergence(2, n_chains=17)},
        {"objective": "maximum_likelihood"},
    ],
)
def test_every_objective_beats_independent_units(settings):
    fitted = make(learning_rate=0.3, max_epochs=15, **settings).fit(ROWS[:2000])
    assert fitted.score(TEST_ROWS) > -9 * np.log(2) + 0.5


def test_every_parameter_moves():
    start = make(max_epochs=1, learning_rate=1e-30).fit(ROWS)
    end = make(max_epochs=1).fit(ROWS)
    for name in ("components_", "intercept_hidden_", "intercept_visible_"):
        assert (getattr(start, name) != getattr(end, name)).all(), name


def test_starts_at_the_base_rate():
    """Without training the model is the independent one, up to its tiny weights."""
    rows = (np.random.default_rng(0).random((500, 6)) < [0.05, 0.2, 0.4, 0.6, 0.8, 1.0]).astype(
        float
    )
    start = make(max_epochs=1, learning_rate=1e-30).fit(rows)
    p = np.clip(rows.mean(axis=0), 0.0005, 0.9995)
    independent = (rows * np.log(p) + (1 - rows) * np.log(1 - p)).sum(axis=1).mean()
    assert start.score(rows) == pytest.approx(independent, abs=0.02)


def test_bars_and_stripes_are_learnt():
    """The patterns of a 3 x 3 grid with whole rows or whole columns on: 14 of 512 states."""
    lines = all_states(3)
    bars = np.vstack([np.repeat(lines, 3, axis=1), np.tile(lines, 3)])
    patterns = np.unique(bars, axis=0)
    assert len(patterns) == 14
    fitted = make(
        n_components=20,
        objective="maximum_likelihood",
        optimizer="lbfgs",
        learning_rate=1.0,
        learning_rate_schedule="constant",
        max_epochs=60,
    ).fit(patterns)
    # No model can give each of them more than 1/14.
    assert -np.log(14) - 0.01 < fitted.score(patterns) <= -np.log(14) + 1e-6


@pytest.mark.parametrize(("settings", "gain"), [({}, 2.3), ({"batch_size": 20}, 4.3)])
def test_digits_are_learnt(settings, gain):
    """By the defaults in 300 updates, and in five times as many."""
    X = (load_digits().data > 8).astype(np.float32)
    fitted = BernoulliRBM(16, random_state=0, **settings).fit(X[:1500])
    p = np.clip(X[:1500].mean(axis=0), 1e-3, 1 - 1e-3)
    independent = (X[1500:] * np.log(p) + (1 - X[1500:]) * np.log(1 - p)).sum(axis=1).mean()
    assert fitted.score(X[1500:]) > independent + gain


# ---------------------------------------------------------------- the same as scikit-learn


def test_attributes_and_names_are_those_of_scikit_learn(model):
    other = sklearn.neural_network.BernoulliRBM(8, n_iter=1).fit(ROWS)
    for name in ("components_", "intercept_hidden_", "intercept_visible_"):
        assert getattr(model, name).shape == getattr(other, name).shape
    names = [f"bernoullirbm{i}" for i in range(8)]
    assert list(model.get_feature_names_out()) == names == list(other.get_feature_names_out())
    for method in ("fit", "partial_fit", "transform", "gibbs", "score_samples", "fit_transform"):
        assert hasattr(model, method)
        assert hasattr(other, method)


def test_free_energy_and_transform_are_those_of_scikit_learn(model):
    rows = np.vstack([TEST_ROWS[:500], np.random.default_rng(0).random((100, 9))])
    other = peer(model)
    np.testing.assert_allclose(model.free_energy(rows), other._free_energy(rows), rtol=1e-12)
    np.testing.assert_allclose(model.transform(rows), other.transform(rows), rtol=1e-12)
    single = rows.astype(np.float32)
    np.testing.assert_allclose(model.transform(single), other.transform(rows), rtol=2e-5)


def run_chunks(estimator, n_calls=300, chunk=200):
    """The experiment: chunks that are not ``batch_size`` rows."""
    X = (load_digits().data > 8).astype(np.float64)
    rng = np.random.default_rng(0)
    for _ in range(n_calls):
        estimator.partial_fit(X[rng.integers(len(X), size=chunk)])
    return estimator, X


def test_scikit_learn_diverges_on_chunks_and_we_do_not():
    """Its gradient sums over the chunk but is scaled by batch_size; ours is a mean."""
    theirs, X = run_chunks(sklearn.neural_network.BernoulliRBM(32, random_state=0))
    assert theirs.transform(X).mean() > 0.999
    assert np.abs(theirs.intercept_visible_).mean() > 3
    ours, X = run_chunks(BernoulliRBM(32, batch_size=10, learning_rate=0.1, random_state=0))
    assert 0.05 < ours.transform(X).mean() < 0.95
    assert ours.transform(X).std(axis=0).mean() > 0.1
    ours.estimate_log_partition("ais", random_state=0)
    assert ours.score(X) > -26


@pytest.mark.table(1)
@pytest.mark.parametrize("settings", [{}, {"objective": "cd"}, {"optimizer": "momentum"}])
def test_chunks_of_any_size_end_alike(settings):
    """Exact held-out likelihoods differ by no more than those of five seeds do."""
    rows = np.vstack([ROWS[:2000]] * 3)
    rate = 0.03 if "optimizer" in settings else 0.2

    def learn(size, seed=0):
        fitted = make(random_state=seed, learning_rate=rate, **settings)
        for start in range(0, len(rows), size):
            fitted.partial_fit(rows[start : start + size])
        return fitted.estimate_log_partition().score(TEST_ROWS)

    seeds = [learn(1000, seed) for seed in range(5)]
    spread = max(seeds) - min(seeds)
    untrained = -9 * np.log(2)
    assert np.median(seeds) > untrained + 0.3
    for size in (7, 100):
        score = learn(size)
        assert min(seeds) - spread <= score <= max(seeds) + spread, size


def test_single_rows_end_like_chunks():
    """Even the first chunk may be a single row: it must not pin the biases."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(2, size=(800, 1))
    rows = (kinds ^ (rng.random((800, 6)) < 0.1)).astype(float)

    def learn(size, seed=0):
        fitted = make(n_components=2, random_state=seed, batch_size=10, learning_rate=0.3)
        for start in range(0, len(rows), size):
            fitted.partial_fit(rows[start : start + size])
        return fitted.estimate_log_partition().score(rows)

    seeds = [learn(500, seed) for seed in range(6)]
    spread = max(seeds) - min(seeds)
    assert np.median(seeds) > -6 * np.log(2) + 0.5
    assert min(seeds) - spread <= learn(1) <= max(seeds) + spread


# ---------------------------------------------------------------- likelihood


def test_score_is_the_exact_mean_log_likelihood(model):
    machine = machine_of(model)
    assert model.log_partition_ == pytest.approx(naive_log_partition(machine), abs=1e-10)
    np.testing.assert_array_equal(model.log_partition_interval_, [model.log_partition_] * 2)
    log_p = np.log(naive_visible_probabilities(machine))
    states = all_states(9)
    np.testing.assert_allclose(model.score_samples(states), log_p, atol=1e-9)
    numbers = TEST_ROWS.astype(int) @ (1 << np.arange(9)[::-1])
    assert model.score(TEST_ROWS) == pytest.approx(log_p[numbers].mean(), abs=1e-9)


def test_probabilities_of_all_rows_sum_to_one(model):
    assert np.exp(model.score_samples(all_states(9))).sum() == pytest.approx(1.0, abs=1e-12)


def test_partial_fit_forgets_the_normaliser(model):
    changed = make(max_epochs=1).fit(ROWS[:500]).partial_fit(ROWS[500:600])
    assert changed.log_partition_ is None
    assert changed.log_partition_interval_ is None
    np.testing.assert_array_equal(changed.score_samples(TEST_ROWS), -changed.free_energy(TEST_ROWS))
    with pytest.raises(ValueError, match=r"call estimate_log_partition\(\) first"):
        changed.score(TEST_ROWS)
    assert changed.estimate_log_partition() is changed
    assert changed.score(TEST_ROWS) == pytest.approx(changed.score_samples(TEST_ROWS).mean())


def test_no_normaliser_if_none_is_asked_for():
    fitted = make(max_epochs=1, log_partition=None).fit(ROWS[:500])
    assert fitted.log_partition_ is None
    with pytest.raises(ValueError, match="log_partition=None"):
        fitted.score(TEST_ROWS)


def test_estimated_and_exact_normalisers_agree():
    fitted = make(max_epochs=3, learning_rate=0.3).fit(ROWS)
    exact = fitted.log_partition_
    fitted.estimate_log_partition("ais", random_state=0)
    low, high = fitted.log_partition_interval_
    assert low < exact < high
    assert high - low < 0.3
    assert fitted.log_partition_ != exact
    # A search compares models by the pessimistic end.
    assert fitted.score(TEST_ROWS) == pytest.approx(
        -fitted.free_energy(TEST_ROWS).mean() - high, abs=1e-9
    )
    assert fitted.estimate_log_partition("exact").log_partition_ == exact
    assert fitted.estimate_log_partition("auto").log_partition_ == exact


def test_estimates_repeat_with_their_seed():
    fitted = make(max_epochs=1).fit(ROWS[:500])
    values = [
        fitted.estimate_log_partition("ais", n_temperatures=50, random_state=seed).log_partition_
        for seed in (0, 0, 1)
    ]
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "guess"}, 'method=.guess. must be one of "auto"'),
        ({"n_chains": 1}, "n_chains=1 must be an integer of at least 2"),
        ({"n_temperatures": 2.5}, "n_temperatures=2.5 must be an integer"),
    ],
)
def test_estimate_log_partition_refuses(arguments, message):
    fitted = make(max_epochs=1).fit(ROWS[:500])
    before = freeze(vars(fitted))
    with pytest.raises(ValueError, match=message):
        fitted.estimate_log_partition(**arguments)
    assert freeze(vars(fitted)) == before


def test_the_exact_sum_refuses_large_machines():
    rows = np.random.default_rng(0).integers(2, size=(50, 30)).astype(np.float32)
    with pytest.raises(ValueError, match=r'"exact" would sum over 2\^28 states: use "ais"'):
        make(n_components=28, log_partition="exact", max_epochs=1).fit(rows)
    fitted = make(n_components=28, log_partition=None, max_epochs=1).fit(rows)
    with pytest.raises(
        ValueError, match=r'smaller of 30 visible and 28 hidden units.*method="ais"'
    ):
        fitted.estimate_log_partition("exact")
