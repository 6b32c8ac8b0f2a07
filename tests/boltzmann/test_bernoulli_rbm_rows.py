"""BernoulliRBM: what it draws and decodes, and what rows it takes."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from scipy.special import expit
from sklearn.utils.extmath import softmax

from sklebm import BernoulliRBM
from sklebm.objectives import PersistentContrastiveDivergence
from tests.machines import (
    all_states,
    balanced_machine,
    exact_rows,
    naive_visible_probabilities,
)
from tests.registry import fitted_state, freeze

TRUTH = balanced_machine(9, 8, scale=2.5)
ROWS, TEST_ROWS = exact_rows(TRUTH, 10_000), exact_rows(TRUTH, 10_000, seed=1)


def make(**settings):
    return BernoulliRBM(**{"n_components": 8, "batch_size": 20, "random_state": 0, **settings})


def machine_of(model):
    """The fitted energy in float64."""
    return model._energy(torch.device("cpu")).double()


@pytest.fixture(scope="module")
def model():
    return make(max_epochs=4, learning_rate=0.3).fit(ROWS)


# ---------------------------------------------------------------- samples


def test_samples_have_the_moments_of_the_model(model):
    """Means and second moments of 20,000 draws, within Monte-Carlo error of the enumerated ones."""
    n = 20_000
    draws = model.sample(n, n_steps=100, random_state=0)
    assert draws.dtype == np.float32
    assert set(np.unique(draws)) == {0.0, 1.0}
    p, states = naive_visible_probabilities(machine_of(model)), all_states(9)
    for function in (lambda v: v, lambda v: v[:, :, None] * v[:, None]):
        truth = np.tensordot(p, function(states), axes=1)
        found = function(draws.astype(float)).mean(axis=0)
        assert (np.abs(found - truth) < 4.5 * np.sqrt(truth * (1 - truth) / n)).all()
    # The training rows' own base rate, where the chains start, is far from these moments.
    base = np.outer(model.feature_means_, model.feature_means_)
    second = np.tensordot(p, states[:, :, None] * states[:, None], axes=1)
    assert np.abs(base - second)[~np.eye(9, dtype=bool)].max() > 0.05


def test_clamped_features_stay_and_the_others_follow_them(model):
    """Means of the free features given the known ones, against enumeration."""
    n, known = 20_000, {0: 1.0, 3: 0.0, 4: 1.0}
    clamped = np.full(9, np.nan)
    clamped[list(known)] = list(known.values())
    draws = model.sample(n, n_steps=60, clamped=clamped, random_state=0).astype(float)
    states, p = all_states(9), naive_visible_probabilities(machine_of(model))
    fits = (states[:, list(known)] == list(known.values())).all(axis=1)
    truth = p[fits] @ states[fits] / p[fits].sum()
    error = np.sqrt((truth * (1 - truth)).clip(0) / n)
    assert (np.abs(draws.mean(axis=0) - truth) <= 4.5 * error + 1e-9).all()
    # The known features matter: without them the means are others.
    assert np.abs(truth - p @ states)[np.isnan(clamped)].max() > 0.1


def test_every_chain_has_its_own_known_features_and_start(model):
    clamped = np.where(np.random.default_rng(0).random((30, 9)) < 0.5, np.nan, TEST_ROWS[:30])
    draws = model.sample(30, n_steps=2, clamped=clamped, random_state=0)
    known = ~np.isnan(clamped)
    np.testing.assert_array_equal(draws[known], clamped[known])
    same = model.sample(30, n_steps=1, clamped=TEST_ROWS[:30], random_state=0)
    np.testing.assert_array_equal(same, TEST_ROWS[:30])
    starts = [
        model.sample(5000, n_steps=1, init=row, random_state=0).mean(axis=0)
        for row in (TEST_ROWS[0], 1 - TEST_ROWS[0])
    ]
    assert np.abs(starts[0] - starts[1]).max() > 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clamped": np.zeros(8)}, r"clamped has shape \(8,\), but must be one row of 9 features"),
        ({"clamped": np.zeros((2, 9))}, r"clamped has shape \(2, 9\).* or 3 of them"),
        ({"clamped": np.full(9, 2.0)}, "clamped must hold values in .* or NaN"),
        ({"init": np.full(9, np.nan)}, "init must hold values in"),
    ],
)
def test_unusable_chains_are_refused(model, settings, message):
    with pytest.raises(ValueError, match=message):
        model.sample(3, **settings)


@pytest.mark.parametrize("n_steps", [1, 5])
def test_gibbs_leaves_the_model_invariant(model, n_steps):
    p, n = naive_visible_probabilities(machine_of(model)), 20_000
    start = exact_rows(machine_of(model), n)
    moved = model.gibbs(start, n_steps, random_state=0)
    assert moved.shape == start.shape
    found = np.bincount(moved.astype(int) @ (1 << np.arange(9)[::-1]), minlength=512) / n
    floor = 0.5 * np.sqrt(2 / np.pi * p * (1 - p) / n).sum()
    assert 0.5 * np.abs(found - p).sum() < 4 * floor
    assert (moved != start).any()


def test_one_gibbs_step_has_the_conditional_means(model):
    row, n = TEST_ROWS[:1], 40_000
    moved = model.gibbs(np.repeat(row, n, axis=0), 1, random_state=0)
    machine = machine_of(model)
    h = all_states(8)
    mean = model.transform(row)[0]
    weights = np.prod(np.where(h == 1, mean, 1 - mean), axis=1)
    to_visible = expit(machine.visible_field(torch.tensor(h)).detach().numpy())
    truth = weights @ to_visible
    assert (np.abs(moved.mean(axis=0) - truth) < 4.5 * np.sqrt(truth * (1 - truth) / n)).all()


def test_draws_repeat_with_their_seed(model):
    for draw in (
        lambda seed: model.gibbs(TEST_ROWS[:50], 2, random_state=seed),
        lambda seed: model.sample(50, n_steps=2, random_state=seed),
    ):
        np.testing.assert_array_equal(draw(0), draw(0))
        assert (draw(0) != draw(1)).any()


@pytest.mark.parametrize("value", [0, -1, 2.5])
def test_counts_of_draws_are_checked(model, value):
    with pytest.raises(ValueError, match=f"n_steps={value} must be a positive integer"):
        model.gibbs(TEST_ROWS, value)
    with pytest.raises(ValueError, match=f"n_samples={value} must be a positive integer"):
        model.sample(value)
    with pytest.raises(ValueError, match=f"n_steps={value} must be a positive integer"):
        model.sample(3, n_steps=value)


# ---------------------------------------------------------------- decoding and energies


def test_inverse_transform_is_the_visible_mean(model):
    codes = np.random.default_rng(0).random((20, 8))
    truth = expit(model.intercept_visible_.astype(float) + codes @ model.components_.astype(float))
    np.testing.assert_allclose(model.inverse_transform(codes), truth, rtol=1e-10)
    certain = (model.transform(TEST_ROWS) > 0.5).astype(float)
    agreement = ((model.inverse_transform(certain) > 0.5) == TEST_ROWS).mean()
    assert agreement > 0.75


def test_energy_sums_to_the_free_energy(model):
    x, h = TEST_ROWS[:1], all_states(8)
    energies = model.energy(np.repeat(x, len(h), axis=0), h)
    truth = -np.log(np.exp(-energies).sum())
    assert model.free_energy(x)[0] == pytest.approx(truth, abs=1e-9)
    # The posterior of each hidden unit is that of transform.
    posterior = softmax(-energies[None])[0]
    np.testing.assert_allclose(posterior @ h, model.transform(x)[0], rtol=1e-9)


def test_energy_needs_one_latent_per_row(model):
    with pytest.raises(ValueError, match="X has 3 rows and Z has 2"):
        model.energy(TEST_ROWS[:3], np.zeros((2, 8)))


# ---------------------------------------------------------------- input


def test_values_outside_the_range_warn_and_are_used_as_they_are():
    rows = ROWS[:200] * 16.0 - 1.0
    with pytest.warns(UserWarning, match=r"min=-1, max=15.*MinMaxScaler.*clip.*unchanged") as seen:
        fitted = make(max_epochs=1).fit(rows)
    assert [warning.filename for warning in seen] == [__file__]  # the line that called fit
    np.testing.assert_allclose(fitted.feature_means_, rows.mean(axis=0), rtol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted.transform(rows)  # said once, when it mattered
        make(max_epochs=1).fit(ROWS[:200])


def test_partial_fit_warns_too():
    with pytest.warns(UserWarning, match=r"min=0, max=16"):
        make().partial_fit(ROWS[:100] * 16)


def test_values_outside_the_range_can_be_refused():
    strict = make(max_epochs=1, value_range="raise")
    with pytest.raises(ValueError, match=r"outside \[0, 1\] \(min=0, max=2\)"):
        strict.fit(ROWS[:200] * 2)
    assert not fitted_state(strict)
    strict.fit(ROWS[:200])
    with pytest.raises(ValueError, match="min=-1"):
        strict.transform(-ROWS[:10])


@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_matrix])
def test_values_outside_the_range_can_be_clipped(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wide = make(max_epochs=3, value_range="clip", validation_fraction=0.2)
        wide.fit(kind(ROWS[:500] * 7.0))
        narrow = make(max_epochs=3, value_range="clip", validation_fraction=0.2)
        narrow.fit(kind(ROWS[:500]))
    assert freeze(fitted_state(wide)) == freeze(fitted_state(narrow))
    np.testing.assert_array_equal(
        wide.score_samples(kind(TEST_ROWS[:50] * 3)), narrow.score_samples(kind(TEST_ROWS[:50]))
    )


@pytest.mark.parametrize("settings", [{}, {"validation_fraction": 0.2}, {"objective": "cd"}])
def test_sparse_rows_give_what_dense_rows_give(settings):
    dense = make(max_epochs=3, **settings).fit(ROWS[:700])
    sparse = make(max_epochs=3, **settings).fit(scipy.sparse.csr_matrix(ROWS[:700]))
    assert freeze(fitted_state(dense)) == freeze(fitted_state(sparse))
    matrix = scipy.sparse.csr_matrix(TEST_ROWS[:100])
    for method in ("transform", "score_samples", "free_energy"):
        np.testing.assert_array_equal(
            getattr(sparse, method)(matrix), getattr(dense, method)(TEST_ROWS[:100])
        )
    dense.partial_fit(ROWS[:150])
    sparse.partial_fit(scipy.sparse.csr_matrix(ROWS[:150]))
    assert freeze(fitted_state(dense)) == freeze(fitted_state(sparse))


def test_frames_with_names_raise_no_warning():
    frame = pd.DataFrame(ROWS[:200], columns=list("abcdefghi"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = make(max_epochs=1).fit(frame)
        fitted.estimate_log_partition()
        fitted.sample(3, n_steps=2)
        fitted.gibbs(frame)
        fitted.partial_fit(frame)
    assert list(fitted.feature_names_in_) == list("abcdefghi")


def test_two_fits_are_equal_to_the_last_bit():
    fits = [make(max_epochs=2, validation_fraction=0.1).fit(ROWS) for _ in range(2)]
    assert freeze(fitted_state(fits[0])) == freeze(fitted_state(fits[1]))
    other = make(max_epochs=2, validation_fraction=0.1, random_state=1).fit(ROWS)
    assert not np.array_equal(other.components_, fits[0].components_)


def test_flat_parameters_and_objects_exclude_each_other():
    with pytest.raises(ValueError, match="must be set on it instead of on the estimator"):
        make(objective=PersistentContrastiveDivergence(), n_gibbs_steps=2).fit(ROWS[:100])
    with pytest.raises(ValueError, match="not apply to objective='maximum_likelihood'"):
        make(objective="maximum_likelihood", n_gibbs_steps=2).fit(ROWS[:100])
