"""What fits draw: later fits other numbers, held-out rows the same, other modules from the seed."""

import copy
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import sklebm
from sklebm import (
    VAE,
    Autoencoder,
    BernoulliRBM,
    DeepBeliefNetwork,
    DeepEnergyModel,
    DenoisingAutoencoder,
)
from sklebm._shell.rows import Rows
from sklebm.boltzmann._stack import drawn_hidden
from sklebm.callbacks import EnergyMonitor
from sklebm.training import architecture, module_draws
from sklebm.training import train as training
from sklebm.training.net import _is_raised_by_skorch
from tests.registry import make, make_rows

STILL = {"learning_rate": 1e-12}  # nothing but what is drawn differs


def make_bits(n_rows):
    return (np.random.default_rng(1).random((n_rows, 6)) < make_rows(n_rows)[:, :6]).astype(float)


# ---------------------------------------------------------------- warm starts


@pytest.mark.parametrize("name", ["DenoisingAutoencoder", "VAE"])
def test_every_warm_fit_draws_other_numbers(name):
    model = make(name, max_epochs=1, warm_start=True, random_state=0, **STILL)
    losses = [float(model.fit(make_rows()).loss_curve_[-1]) for _ in range(4)]
    assert len(set(np.round(losses, 5))) == 4


def test_the_order_of_batches_differs_between_warm_fits(monkeypatch):
    orders = []
    batches = training.Course._batches

    def watched(course, rows, device):
        options = batches(course, rows, device)
        state = options["iterator_train__generator"].get_state()
        orders.append(torch.randperm(20, generator=torch.Generator().set_state(state)).tolist())
        return options

    monkeypatch.setattr(training.Course, "_batches", watched)
    model = Autoencoder(2, max_epochs=1, warm_start=True, random_state=0)
    for _ in range(3):
        model.fit(make_rows())
    assert len({tuple(order) for order in orders}) == 3
    cold = Autoencoder(2, max_epochs=1, random_state=0)
    for _ in range(2):
        cold.fit(make_rows())
    assert orders[3] == orders[4] == orders[0]


@pytest.mark.parametrize("seed", [0, None])
def test_warm_fits_hold_out_the_same_rows(monkeypatch, seed):
    """Rows that were trained on would make the validation scores optimistic."""
    held_out = []
    score = Autoencoder._validation_score

    def watched(model, energy, batch, seed):
        held_out.append(batch.x.numpy().copy())
        return score(model, energy, batch, seed)

    monkeypatch.setattr(Autoencoder, "_validation_score", watched)
    model = Autoencoder(
        2, max_epochs=1, validation_fraction=0.25, warm_start=True, random_state=seed
    )
    for _ in range(3):
        model.fit(make_rows())
        model.partial_fit(make_rows(40, seed=1))  # chunks hold nothing out, and keep the seeds
    assert len(held_out) == 3
    np.testing.assert_array_equal(held_out[1], held_out[0])
    np.testing.assert_array_equal(held_out[2], held_out[0])


def test_bits_that_score_held_out_rows_are_those_of_the_first_fit():
    """Scores of one model by one set of rows: only what is drawn could change them."""
    model = BernoulliRBM(
        3, max_epochs=1, validation_fraction=0.25, warm_start=True, random_state=0, **STILL
    )
    scores = [float(model.fit(make_rows()).validation_scores_[-1]) for _ in range(3)]
    assert scores[1] == pytest.approx(scores[0], abs=1e-9)
    assert scores[2] == pytest.approx(scores[0], abs=1e-9)


def test_a_model_that_grows_holds_out_the_rows_of_the_layers_below(monkeypatch):
    held_out, seeds = [], []
    split = DeepEnergyModel._split

    def watched(model, energy, start, *, whole):
        kept, held = split(model, energy, start, whole=whole)
        held_out.append(held.x.numpy().copy())
        seeds.append(start.seed)
        return kept, held

    monkeypatch.setattr(DeepEnergyModel, "_split", watched)
    settings = {"validation_fraction": 0.25, "layer_training": "greedy", "max_epochs": 1}
    model = DeepEnergyModel(4, hidden_sizes=(5,), log_partition=None, warm_start=True, **settings)
    model.fit(make_rows())
    n_before = len(held_out)
    model.set_params(hidden_sizes=(5, 4), n_components=3).fit(make_rows())
    assert len(held_out) > n_before
    for held in held_out:
        np.testing.assert_array_equal(held, held_out[0])
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("way", ["in place", "saved", "snapshot"])
def test_a_stored_model_goes_on_as_the_one_in_memory(way, tmp_path):
    """The third fit of all draws the same numbers, and holds out the same rows."""
    X = make_rows()
    snapshots = []

    def keep(model, X):
        snapshots.append(copy.deepcopy(model))
        return 0.0

    model = DenoisingAutoencoder(
        2, max_epochs=1, warm_start=True, validation_fraction=0.25, random_state=0, **STILL
    )
    model.fit(X)
    model.set_callbacks(EnergyMonitor(X[:5], scoring=keep)).fit(X)
    later = {"in place": copy.deepcopy(model), "snapshot": snapshots[-1]}.get(way)
    if later is None:
        sklebm.save(model, tmp_path / "model.safetensors")
        later = sklebm.load(tmp_path / "model.safetensors")
    state = {name: later.training_state_[name] for name in ("split_seed", "n_fits")}
    assert state == {"split_seed": model.training_state_["split_seed"], "n_fits": 2}
    loss = float(later.set_callbacks().fit(X).loss_curve_[-1])
    assert loss == pytest.approx(float(model.set_callbacks().fit(X).loss_curve_[-1]), abs=1e-12)
    assert later.training_state_["n_fits"] == 3


# ---------------------------------------------------------------- chunks


@pytest.mark.parametrize("name", ["DenoisingAutoencoder", "VAE"])
def test_every_chunk_has_noise_of_its_own(name):
    model = make(name, **STILL)
    for _ in range(3):
        model.partial_fit(make_rows())
    assert model.loss_curve_.shape == (3,)
    assert len(set(np.round(model.loss_curve_, 5))) == 3


def test_hidden_states_of_every_chunk_are_drawn_anew():
    X, draws = make_bits(60), []
    model = DeepBeliefNetwork((5, 3), batch_size=20, random_state=0, **STILL)
    for _ in range(2):
        bottom = model.partial_fit(X).named_estimators_["layer1"]
        draws.append(drawn_hidden(bottom, Rows(X, torch.device("cpu"))).all())
    assert not torch.equal(*draws)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_chunks_follow_no_schedule(schedule):
    X = make_bits(80)
    one, other = (
        BernoulliRBM(3, learning_rate_schedule=name, random_state=0).partial_fit(X).partial_fit(X)
        for name in (schedule, "constant")
    )
    np.testing.assert_array_equal(one.components_, other.components_)


# ---------------------------------------------------------------- modules of users


class Dropping(nn.Sequential):
    """An encoder that draws in training."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__(
            nn.Linear(n_inputs, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, n_outputs)
        )


def fit_dropping(**settings):
    model = Autoencoder(2, encoder=Dropping, max_epochs=3, batch_size=20, random_state=0)
    return model.set_params(**settings)


def test_dropout_of_a_given_module_follows_random_state():
    X = make_rows()
    torch.manual_seed(1)
    one = fit_dropping().fit(X).loss_curve_
    torch.manual_seed(2)
    before = torch.get_rng_state()
    np.testing.assert_array_equal(fit_dropping().fit(X).loss_curve_, one)
    assert torch.equal(torch.get_rng_state(), before)
    assert not np.array_equal(fit_dropping(random_state=1).fit(X).loss_curve_, one)


def test_dropout_differs_between_chunks():
    model = fit_dropping(**STILL)
    for _ in range(3):
        model.partial_fit(make_rows())
    assert len(set(np.round(model.loss_curve_, 5))) == 3


def test_dropout_of_a_chunk_is_not_that_of_the_warm_fit_before(monkeypatch):
    seeds = []
    purpose_seed = module_draws.purpose_seed
    monkeypatch.setattr(
        module_draws,
        "purpose_seed",
        lambda *arguments: seeds.append(purpose_seed(*arguments)) or seeds[-1],
    )
    model = fit_dropping(warm_start=True, **STILL)
    for call in (model.fit, model.partial_fit, model.fit, model.partial_fit, model.partial_fit):
        call(make_rows())
    assert len(set(seeds)) == len(seeds) == 5


def test_other_models_can_be_used_while_layers_draw():
    """The lock is held for an epoch, and not while callbacks run."""
    X, other = make_rows(), fit_dropping().fit(make_rows())

    def score_elsewhere(model, X):
        with ThreadPoolExecutor(1) as pool:
            return float(pool.submit(other.score, X).result(timeout=60))

    monitor = EnergyMonitor(X[:20], scoring=score_elsewhere)
    fit_dropping().set_callbacks(monitor).fit(X)
    assert len(monitor.get_logs().data) == 3


def test_callbacks_leave_the_draws_of_layers_alone():
    def draw(model, X):
        return float(torch.rand(1))

    X = make_rows()
    watched = fit_dropping().set_callbacks(EnergyMonitor(X[:20], scoring=draw)).fit(X)
    np.testing.assert_array_equal(watched.loss_curve_, fit_dropping().fit(X).loss_curve_)


def test_fits_in_threads_do_not_disturb_each_others_dropout():
    X, found = make_rows(), {}
    expected = fit_dropping().fit(X).loss_curve_

    def fit(index):
        found[index] = fit_dropping().fit(X).loss_curve_

    threads = [threading.Thread(target=fit, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for curve in found.values():
        np.testing.assert_array_equal(curve, expected)


def test_a_monitor_may_score_a_module_that_is_being_trained():
    monitor = EnergyMonitor(make_rows(20, seed=1))
    fit_dropping().set_callbacks(monitor).fit(make_rows())
    assert len(monitor.get_logs().data) == 3


def test_built_in_networks_lock_nothing(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("locked")

    monkeypatch.setattr(module_draws, "LayerDraws", refuse)
    monkeypatch.setattr(architecture, "seeded", refuse)
    for model in (VAE(2, random_state=0), DenoisingAutoencoder(2, random_state=0)):
        model.set_params(max_epochs=1, hidden_sizes=(4,)).fit(make_rows())


class Normalising(nn.Sequential):
    """An encoder that cannot learn from a single row."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__(
            nn.Linear(n_inputs, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, n_outputs)
        )


def test_a_batch_of_one_row_is_named_where_a_network_cannot_take_it():
    X = make_rows(41)
    model = Autoencoder(2, encoder=Normalising, max_epochs=1, batch_size=20, random_state=0)
    with pytest.raises(ValueError, match=r"Autoencoder: batch normalisation .* batch_size=20"):
        model.fit(X)
    assert not hasattr(model, "n_iter_")
    model.fit(X[:40])
    assert model.n_iter_ == 1


# ---------------------------------------------------------------- stopping


@pytest.mark.parametrize(
    ("module", "statement", "asked"),
    [
        ("skorch.callbacks.training", "raise KeyboardInterrupt", True),
        ("skorch.callbacks.logging", "stop(2, None)", False),  # Ctrl-C while it prints
        ("program", "raise KeyboardInterrupt", False),
    ],
)
def test_ctrl_c_is_no_request_of_a_callback(module, statement, asked):
    names = {"__name__": module, "stop": signal.default_int_handler}
    exec(f"def call():\n    {statement}", names)  # noqa: S102 (its module has to be another one)
    with pytest.raises(KeyboardInterrupt) as caught:
        names["call"]()
    assert _is_raised_by_skorch(caught.value) is asked
