"""What every gradient-trained estimator inherits, seen through BernoulliRBM."""

import copy
import json
import random

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback

from sklebm import BernoulliRBM
from sklebm._shell.random import draw_seed, make_generator
from sklebm.gradient import GradientEstimator
from sklebm.objectives import PersistentContrastiveDivergence
from tests.machines import balanced_machine, exact_rows
from tests.registry import fitted_state, freeze, make_brief, make_rows

STRONG = balanced_machine(8, 5)
INDEPENDENT = -8 * np.log(2)  # mean log-likelihood of the best model without dependence
ROWS, TEST_ROWS = exact_rows(STRONG, 400), exact_rows(STRONG, 1000, seed=1)


def make(**settings):
    return BernoulliRBM(**{"n_components": 5, "random_state": 0, "batch_size": 20, **settings})


def exact_likelihood(**settings):
    return make(objective="maximum_likelihood", **settings)


class Watch(Callback):
    """Counts the hooks that it is called with."""

    def __init__(self):
        self.calls = {}

    def _count(self, name):
        self.calls[name] = self.calls.get(name, 0) + 1

    def on_train_begin(self, net, **kwargs):
        self._count("train_begin")

    def on_epoch_end(self, net, **kwargs):
        self._count("epoch_end")

    def on_batch_begin(self, net, batch=None, **kwargs):
        self._count("batch_begin")
        assert batch.shape[1] == 8

    def on_batch_end(self, net, loss=None, **kwargs):
        self._count("batch_end")
        assert loss.ndim == 0

    def on_grad_computed(self, net, named_parameters, **kwargs):
        self._count("grad_computed")
        assert all(parameter.grad is not None for _, parameter in named_parameters)

    def on_train_end(self, net, **kwargs):
        self._count("train_end")


# ---------------------------------------------------------------- validation and early stopping


def stopped_at(monkeypatch, scores, **settings):
    """Fit with prescribed validation scores; the model and the weights after every epoch."""
    course = iter(scores)
    seen = []

    def score(self, energy, batch, seed):
        seen.append(energy.weights.detach().numpy().copy())
        return next(course)

    monkeypatch.setattr(BernoulliRBM, "_validation_score", score)
    settings = {"max_epochs": len(scores), "validation_fraction": 0.25, **settings}
    return make(**settings).fit(ROWS), seen


def test_stops_when_negative_scores_no_longer_rise(monkeypatch):
    """A rule relative to the sign, such as (1 - tol) * best, would stop here at once."""
    scores = [-100.0, -90.0, -80.0, -80.5, -79.99, -81.0, -70.0, -60.0]
    model, weights = stopped_at(monkeypatch, scores, n_iter_no_change=3, tol=0.1)
    assert model.n_iter_ == 6
    np.testing.assert_array_equal(model.validation_scores_, scores[:6])
    np.testing.assert_array_equal(model.components_, weights[2])  # the best epoch's parameters
    assert not np.array_equal(weights[2], weights[5])


def test_positive_scores_follow_the_same_rule(monkeypatch):
    scores = [1.0, 2.0, 2.05, 2.05, 5.0]
    model, weights = stopped_at(monkeypatch, scores, n_iter_no_change=2, tol=0.1)
    assert model.n_iter_ == 4
    np.testing.assert_array_equal(model.components_, weights[1])


def test_a_slow_rise_adds_up(monkeypatch):
    """Each epoch alone rises by less than tol, but all of them against the best by more."""
    scores = [-10.0, -9.94, -9.88, -9.82, -9.76, -9.70]
    model, _ = stopped_at(monkeypatch, scores, n_iter_no_change=2, tol=0.1)
    assert model.n_iter_ == 6


def test_what_centring_learnt_is_that_of_the_best_epoch_too(monkeypatch):
    settings = {"learning_rate_schedule": "constant", "centering": True}
    stopped, _ = stopped_at(monkeypatch, [1.0, 2.0, 0.0, 0.0], n_iter_no_change=2, **settings)
    best, _ = stopped_at(monkeypatch, [1.0, 2.0], **settings)
    assert stopped.n_iter_ == 4
    np.testing.assert_array_equal(stopped.components_, best.components_)
    np.testing.assert_array_equal(stopped.hidden_means_, best.hidden_means_)


def test_without_patience_all_epochs_run_and_the_last_counts(monkeypatch):
    model, weights = stopped_at(monkeypatch, [-1.0, -2.0, -3.0], n_iter_no_change=None)
    assert model.n_iter_ == 3
    np.testing.assert_array_equal(model.components_, weights[2])


def test_the_exact_likelihood_stops_on_its_own_loss():
    settings = {"learning_rate": 0.2, "learning_rate_schedule": "constant", "max_epochs": 5000}
    model = exact_likelihood(n_iter_no_change=3, tol=1e-3, **settings).fit(ROWS)
    assert 3 < model.n_iter_ < 1000
    assert model.validation_scores_.shape == (0,)


def test_a_loss_that_cannot_be_compared_needs_validation():
    with pytest.raises(ValueError, match=r"needs validation_fraction: the loss of Persistent"):
        make(n_iter_no_change=3).fit(ROWS)


def test_held_out_rows_are_not_trained_on():
    """Forty different rows: the same twelve are left out of every pass, and scored after each."""
    rows = np.array([[number >> bit & 1 for bit in range(6)] for number in range(40)], float)
    seen = []

    class Collect(Callback):
        def on_epoch_begin(self, net, **kwargs):
            seen.append([])

        def on_batch_begin(self, net, batch=None, **kwargs):
            seen[-1].extend(np.asarray(getattr(batch, "x", batch)).astype(int) @ 2 ** np.arange(6))

    model = exact_likelihood(
        validation_fraction=0.3,
        max_epochs=3,
        learning_rate=0.5,
        net_params={"callbacks": [Collect()]},
    ).fit(rows)
    kept = set(seen[0])
    assert len(seen) == 3
    assert len(kept) == 40 - 12
    assert all(sorted(numbers) == sorted(kept) for numbers in seen)  # each row once
    assert model.n_samples_seen_ == 40
    held_out = rows[sorted(set(range(40)) - kept)]
    trained = rows[sorted(kept)]
    gap = -model.score_samples(held_out).mean() + model.score_samples(trained).mean()
    # The record compares 12 of the 28 training rows with those held out: four standard errors.
    spread = model.score_samples(trained).std()
    error = 4 * spread * np.sqrt(1 / 12 - 1 / 28)
    assert model.free_energy_gaps_[-1] == pytest.approx(gap, abs=error)


def test_validation_may_not_take_all_rows():
    with pytest.raises(ValueError, match=r"validation_fraction=0.9 leaves no training row"):
        make(validation_fraction=0.9).fit(ROWS[:2])


def test_validation_scores_follow_the_true_likelihood():
    """They rise with training, on rows that the model never saw."""
    model = make(validation_fraction=0.25, max_epochs=40, learning_rate=0.2).fit(ROWS)
    assert len(model.validation_scores_) == 40
    assert model.validation_scores_[-1] > model.validation_scores_[0] + 0.3


@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_matrix])
def test_the_free_energy_gap_is_that_of_likelihoods(kind):
    """Recorded by epoch; the normaliser cancels, so that it is exact without one."""
    model = make(validation_fraction=0.5, max_epochs=3).fit(kind(ROWS))
    assert model.free_energy_gaps_.shape == (3,)
    # With half of the rows held out, the sample is the other half.
    order = torch.randperm(400, generator=make_generator(draw_seed(0), "validation"))
    held_out, rest = (model.score_samples(ROWS[part]).mean() for part in order.split(200))
    assert model.free_energy_gaps_[-1] == pytest.approx(rest - held_out, abs=1e-5)


def test_the_free_energy_gap_tells_learning_by_heart():
    few = {"max_epochs": 200, "learning_rate": 0.5, "n_components": 30}
    gaps = [
        make(validation_fraction=0.5, **few).fit(rows).free_energy_gaps_[-1]
        for rows in (ROWS[:40], exact_rows(STRONG, 4000)[:2000])
    ]
    assert gaps[0] > 1.0
    assert abs(gaps[1]) < 0.2


def test_a_gap_needs_rows_held_out():
    assert make(max_epochs=1).fit(ROWS).free_energy_gaps_.shape == (0,)
    trained = make(max_epochs=2, validation_fraction=0.25).fit(ROWS)
    assert trained.partial_fit(ROWS[:40]).free_energy_gaps_.shape == (0,)


# ---------------------------------------------------------------- going on


def test_warm_start_goes_on_where_fit_ended():
    settings = {"learning_rate": 0.1, "learning_rate_schedule": "constant"}
    model = make(warm_start=True, max_epochs=1, **settings)
    scores = [model.fit(ROWS).score(TEST_ROWS) for _ in range(40)]
    assert scores[-1] > scores[0] + 0.2
    cold = make(max_epochs=1, **settings)
    assert cold.fit(ROWS).score(TEST_ROWS) == cold.fit(ROWS).score(TEST_ROWS)


@pytest.mark.parametrize(
    ("change", "rows", "message"),
    [
        ({"n_components": 3}, ROWS, r"n_components=3 differs from the 5 fitted"),
        ({}, ROWS[:, :4], r"X has 4 features, .* from has 8: set warm_start=False"),
    ],
)
def test_warm_start_refuses_another_shape(change, rows, message):
    model = make(warm_start=True, max_epochs=1).fit(ROWS).set_params(**change)
    before = freeze(vars(model))
    with pytest.raises(ValueError, match=message):
        model.fit(rows)
    assert freeze(vars(model)) == before


def test_partial_fit_refuses_another_number_of_components():
    model = make(max_epochs=1).fit(ROWS).set_params(n_components=3)
    with pytest.raises(ValueError, match="n_components=3 differs"):
        model.partial_fit(ROWS)


def test_training_state_can_be_dropped():
    model = make(max_epochs=2).fit(ROWS)
    scores, samples = model.score_samples(ROWS), model.sample(5, n_steps=3, random_state=0)
    assert model.drop_training_state() is model
    assert model.training_state_ == {}
    np.testing.assert_array_equal(model.score_samples(ROWS), scores)
    np.testing.assert_array_equal(model.sample(5, n_steps=3, random_state=0), samples)
    model.partial_fit(ROWS)
    assert model.training_state_["objective.hidden"].shape == (20, 5)


def test_chains_go_on_between_chunks_and_are_new_for_another_objective():
    model = make().partial_fit(ROWS[:20])
    chains = model.training_state_["objective.hidden"]
    model.set_params(learning_rate=1e-30).partial_fit(ROWS[:20])
    assert model.training_state_["n_calls"] == 2
    assert chains.shape == model.training_state_["objective.hidden"].shape
    model.set_params(objective=PersistentContrastiveDivergence(n_chains=7)).partial_fit(ROWS)
    assert model.training_state_["objective.hidden"].shape == (7, 5)


CHAINS = [
    ("BernoulliRBM", "pcd"),
    ("BernoulliRBM", "fast_pcd"),
    ("BernoulliRBM", "tempered_pcd"),
    ("GaussianRBM", "pcd"),
    ("GaussianRBM", "tempered_pcd"),
    ("BoltzmannMachine", "pcd"),
    ("SemiRestrictedBM", "pcd"),
    ("GatedBM", "pcd"),
    ("MeanCovarianceRBM", "pcd"),
    ("DeepBoltzmannMachine", None),
    ("DeepEnergyModel", "pcd"),
]


@pytest.mark.parametrize(("name", "objective"), CHAINS)
@pytest.mark.parametrize("call", ["partial_fit", "fit"])
def test_what_an_objective_keeps_goes_on(monkeypatch, name, objective, call):
    """Chains that started again would look alike in shape and nearly alike in score."""
    X = (make_rows(60) > 0.5).astype(float)
    changes = {} if objective is None else {"objective": objective}
    changes |= {"conditional": False} if name == "GatedBM" else {}
    changes |= {} if name == "DeepEnergyModel" else {"log_partition": None}
    model = make_brief(name, warm_start=True, **changes)
    getattr(model, call)(X)
    kept = [key for key in model.training_state_ if key.startswith("objective.")]
    assert kept
    started = []
    for kind in {type(o) for o in objectives_of(model, monkeypatch, X)}:
        init_state = kind.init_state
        monkeypatch.setattr(
            kind,
            "init_state",
            lambda *a, init_state=init_state, **k: started.append(1) or init_state(*a, **k),
        )
    getattr(model, call)(X)
    assert not started
    model.drop_training_state()
    getattr(model, call)(X)
    assert started


def objectives_of(model, monkeypatch, X):
    """The objectives that a call to ``partial_fit`` of a copy uses."""
    seen = []
    with monkeypatch.context() as patch:
        player = GradientEstimator._player

        def watched(model, energy, objective, start, **options):
            seen.append(objective)
            return player(model, energy, objective, start, **options)

        patch.setattr(GradientEstimator, "_player", watched)
        copy.deepcopy(model).partial_fit(X)
    return seen


# ---------------------------------------------------------------- net_params


def test_callbacks_of_skorch_get_every_hook():
    watch = Watch()
    make(max_epochs=3, net_params={"callbacks": [watch]}).fit(ROWS)
    assert watch.calls == {
        "train_begin": 1,
        "batch_begin": 60,
        "grad_computed": 60,
        "batch_end": 60,
        "epoch_end": 3,
        "train_end": 1,
    }


class WatchBatches(Callback):
    """Hears of batches, not of gradients."""

    n_batches = 0

    def on_batch_end(self, net, **kwargs):
        self.n_batches += 1


def test_callbacks_that_watch_change_no_number():
    watch = WatchBatches()
    plain, watched = make(max_epochs=3), make(max_epochs=3, net_params={"callbacks": [watch]})
    assert freeze(fitted_state(plain.fit(ROWS))) == freeze(fitted_state(watched.fit(ROWS)))
    assert watch.n_batches == 60


def test_callbacks_that_read_gradients_change_rounding_alone():
    """For them the gradients are written out before they are subtracted."""
    plain, watched = make(max_epochs=3), make(max_epochs=3, net_params={"callbacks": [Watch()]})
    plain.fit(ROWS)
    watched.fit(ROWS)
    np.testing.assert_allclose(plain.components_, watched.components_, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(plain.loss_curve_, watched.loss_curve_, rtol=1e-4, atol=1e-6)


def test_gradients_can_be_clipped():
    from skorch.callbacks import GradientNormClipping

    clip = {"callbacks": [GradientNormClipping(gradient_clip_value=1e-9)]}
    clipped = make(max_epochs=2, learning_rate=1.0, net_params=clip).fit(ROWS)
    start = make(max_epochs=1, learning_rate=1e-30).fit(ROWS)
    np.testing.assert_allclose(clipped.components_, start.components_, atol=1e-7)
    free = make(max_epochs=2, learning_rate=1.0).fit(ROWS)
    assert np.abs(free.components_ - start.components_).max() > 1e-2


def test_weight_decay_shrinks_the_weights():
    settings = {"max_epochs": 30, "learning_rate": 0.1}
    plain = make(**settings).fit(ROWS)
    decayed = make(net_params={"optimizer__weight_decay": 0.1}, **settings).fit(ROWS)
    assert np.linalg.norm(decayed.components_) < 0.7 * np.linalg.norm(plain.components_)
    # partial_fit honours it too.
    before = np.linalg.norm(decayed.components_)
    decayed.set_params(net_params={"optimizer__weight_decay": 10.0}).partial_fit(ROWS)
    assert np.linalg.norm(decayed.components_) < 0.7 * before


def test_torch_data_loader_may_replace_the_batches():
    from torch.utils.data import DataLoader

    model = make(max_epochs=30, learning_rate=0.5, net_params={"iterator_train": DataLoader})
    assert model.fit(ROWS).score(TEST_ROWS) > INDEPENDENT + 0.5


def test_early_stopping_of_skorch_ends_training_and_no_search():
    """It asks to stop by an interrupt of its own; a Ctrl-C is another thing, below."""
    from skorch.callbacks import EarlyStopping

    stop = EarlyStopping("train_loss", patience=2, threshold=1e6, threshold_mode="abs")
    model = make(max_epochs=50, net_params={"callbacks": [stop]}).fit(ROWS)
    assert model.n_iter_ == 3  # no epoch improves on the first by so much
    search = GridSearchCV(model, {"learning_rate": [0.01, 0.1]}, cv=2).fit(ROWS)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_checkpoints_of_skorch_find_the_loss_of_held_out_rows(tmp_path):
    from skorch.callbacks import Checkpoint

    kept = Checkpoint(
        dirname=tmp_path, f_optimizer=None, f_criterion=None, f_history="history.json"
    )
    model = make(max_epochs=4, validation_fraction=0.25, net_params={"callbacks": [kept]})
    model.fit(ROWS)
    rows = json.loads((tmp_path / "history.json").read_text())
    assert [row["valid_loss"] for row in rows] == [
        -score for score in model.validation_scores_[: len(rows)]
    ]
    assert rows[-1]["valid_loss_best"]


def test_partial_fit_hears_of_net_params_like_fit():
    watch = Watch()
    model = make(net_params={"callbacks": [watch]}).partial_fit(ROWS[:60])
    assert watch.calls["batch_end"] == 3
    assert watch.calls["epoch_end"] == 1
    with pytest.raises(ValueError, match="net_params sets lr"):
        model.set_params(net_params={"lr": 1.0}).partial_fit(ROWS[:60])


@pytest.mark.parametrize(
    ("name", "instead"), [("lr", "learning_rate"), ("optimizer", "optimizer"), ("device", "device")]
)
def test_what_the_estimator_decides_is_refused(name, instead):
    with pytest.raises(ValueError, match=f"net_params sets {name}, .* use {instead} instead"):
        make(net_params={name: 1}).fit(ROWS)


def test_unknown_net_params_are_named():
    with pytest.raises(ValueError, match="learing_rate"):
        make(net_params={"learing_rate": 1}).fit(ROWS)


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize("was_fitted", [False, True])
def test_a_loss_that_diverges_names_epoch_objective_and_knob(was_fitted):
    model = make(optimizer="gradient_descent")
    if was_fitted:
        model.fit(ROWS)
    model.set_params(learning_rate=1e38, max_epochs=30)
    before = freeze(vars(model))
    message = (
        r"loss of PersistentContrastiveDivergence became \S+ in epoch \d+.*learning_rate=1e\+38"
    )
    with pytest.raises(FloatingPointError, match=message):
        model.fit(ROWS)
    assert freeze(vars(model)) == before


def test_a_chunk_that_diverges_leaves_the_model_as_it_was():
    model = make(max_epochs=1).fit(ROWS).set_params(learning_rate=1e38)
    before = freeze(vars(model))
    with pytest.raises(FloatingPointError, match=r"in epoch 2 \(last finite loss: "):
        model.partial_fit(ROWS)
    assert freeze(vars(model)) == before


class Interrupt(Callback):
    """Ctrl-C in the second epoch."""

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 2:
            raise KeyboardInterrupt


def test_an_interrupt_leaves_fit_and_search():
    """skorch itself swallows it and returns a half-trained net."""
    model = make(max_epochs=5, net_params={"callbacks": [Interrupt()]})
    with pytest.raises(KeyboardInterrupt):
        model.fit(ROWS)
    assert not fitted_state(model)
    with pytest.raises(KeyboardInterrupt):
        GridSearchCV(model, {"learning_rate": [0.01, 0.1]}, cv=2).fit(ROWS)


def test_global_random_numbers_are_neither_read_nor_moved():
    def states():
        numpy_state = np.random.get_state()  # noqa: NPY002
        return freeze([numpy_state, random.getstate(), torch.get_rng_state().numpy()])

    fits = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        before = states()
        model = make(max_epochs=2, validation_fraction=0.2).fit(ROWS)
        model.partial_fit(ROWS).estimate_log_partition("ais", n_temperatures=5, random_state=0)
        model.sample(3, n_steps=2, random_state=0)
        assert states() == before
        fits.append(freeze(fitted_state(model)))
    assert fits[0] == fits[1]


def test_a_line_per_epoch_if_asked(capsys):
    make(max_epochs=3, verbose=1, validation_fraction=0.2).fit(ROWS)
    lines = capsys.readouterr().out.strip().splitlines()
    assert "train_loss" in lines[0]
    assert "valid_score" in lines[0]
    assert len(lines) == 2 + 3
    make(max_epochs=3).fit(ROWS)
    assert capsys.readouterr().out == ""
