"""Compiled steps of a machine are those that the engine takes with torch."""

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from sklebm import BernoulliRBM
from sklebm.boltzmann import _compiled_pass
from sklebm.inference.contrast_steps import sigmoid
from sklebm.objectives import ContrastiveDivergence, PersistentContrastiveDivergence


def make_bits(n_rows=103, n_features=12, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((n_rows, n_features)) < rng.random(n_features)).astype(np.float32)


def test_sigmoid_to_single_precision():
    x = np.linspace(-87.0, 87.0, 100_001, dtype=np.float32)
    out, scratch = np.empty_like(x), np.empty(len(x), np.int32)
    sigmoid(x, out, scratch)
    exact = 1.0 / (1.0 + np.exp(-x.astype(np.float64)))
    # Two roundings of single precision, 1.2e-7 each.
    np.testing.assert_allclose(out, exact, rtol=2.4e-7)
    far = np.array([-1e30, 1e30, -200.0, 200.0], np.float32)
    sigmoid(far, out[:4], scratch[:4])
    np.testing.assert_allclose(out[:4], [0.0, 1.0, 0.0, 1.0], atol=1e-37)


SETTINGS = {
    "pcd": {},
    "plain gradients": {"centering": False},
    "cd": {"objective": "cd"},
    "cd, plain, three steps": {"objective": "cd", "centering": False, "n_gibbs_steps": 3},
    "two steps, other chains": {
        "objective": PersistentContrastiveDivergence(n_steps=2, n_chains=7),
    },
    "cd, two steps, larger batches": {
        "objective": ContrastiveDivergence(n_steps=2),
        "batch_size": 50,
    },
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=list(SETTINGS))
@pytest.mark.parametrize("n_epochs", [1, 3])
def test_compiled_steps_are_those_of_torch(settings, n_epochs, monkeypatch):
    """Batches of 20 rows and a last one of 3; sums of single precision in another order.

    A draw would differ if a probability and a random number agreed to the rounding of the
    former, which for these thousands of draws has a probability of 1e-3.
    """
    settings = {"batch_size": 20, **settings}
    model = BernoulliRBM(5, random_state=0, max_epochs=n_epochs, log_partition=None, **settings)
    X = make_bits()
    called = []
    run = _compiled_pass.CompiledPass.run
    monkeypatch.setattr(_compiled_pass.CompiledPass, "run", lambda *a: called.append(1) or run(*a))
    compiled = model.fit(X)
    assert len(called) == n_epochs
    names = ("components_", "intercept_hidden_", "intercept_visible_", "loss_curve_")
    first = {name: getattr(compiled, name).copy() for name in names}
    offsets = compiled.hidden_means_
    monkeypatch.setattr(_compiled_pass.CompiledPass, "suits", lambda *a: False)
    plain = model.fit(X)
    assert len(called) == n_epochs
    for name in names:
        np.testing.assert_allclose(first[name], getattr(plain, name), atol=1e-5, err_msg=name)
    if offsets is not None:
        np.testing.assert_allclose(offsets, plain.hidden_means_, atol=1e-6)


def test_chains_and_steps_go_on_in_partial_fit(monkeypatch):
    X = make_bits()

    def learnt():
        model = BernoulliRBM(5, random_state=0, batch_size=20)
        for part in (X[:40], X[40:73], X[73:]):
            model.partial_fit(part)
        return model

    compiled = learnt()
    monkeypatch.setattr(_compiled_pass.CompiledPass, "suits", lambda *a: False)
    plain = learnt()
    np.testing.assert_allclose(compiled.components_, plain.components_, atol=1e-5)
    np.testing.assert_allclose(compiled.hidden_means_, plain.hidden_means_, atol=1e-6)


def test_calls_of_few_steps_are_one_pass(monkeypatch):
    X = make_bits()
    whole = BernoulliRBM(5, random_state=0, batch_size=20, max_epochs=2).fit(X)
    monkeypatch.setattr(_compiled_pass, "_NUMBERS", 1)
    parts = BernoulliRBM(5, random_state=0, batch_size=20, max_epochs=2).fit(X)
    np.testing.assert_array_equal(whole.components_, parts.components_)


def test_a_diverging_compiled_pass_is_named():
    model = BernoulliRBM(3, random_state=0, learning_rate=1e30, max_epochs=9, batch_size=20)
    with pytest.raises(FloatingPointError, match="Lower learning_rate"):
        model.fit(1e10 * make_bits())
    assert not hasattr(model, "components_")


class Listener(Callback):
    """Reads every batch."""

    def __init__(self):
        self.n_batches = 0

    def on_batch_end(self, net, **kwargs):
        self.n_batches += 1


def test_a_callback_sees_every_batch_and_changes_no_number():
    X, listener = make_bits(), Listener()
    alone = BernoulliRBM(5, random_state=0, batch_size=20, max_epochs=2).fit(X)
    watched = BernoulliRBM(
        5, random_state=0, batch_size=20, max_epochs=2, net_params={"callbacks": [listener]}
    ).fit(X)
    assert listener.n_batches == 2 * 6
    for name in ("components_", "intercept_visible_", "hidden_means_"):
        np.testing.assert_array_equal(getattr(watched, name), getattr(alone, name))


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adam"},
        {"objective": "fast_pcd"},
        {"objective": "pseudo_likelihood"},
    ],
)
def test_other_settings_take_single_steps(settings, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("compiled steps cannot serve these settings")

    monkeypatch.setattr(_compiled_pass.CompiledPass, "advance", refuse)
    BernoulliRBM(3, random_state=0, max_epochs=1, **settings).fit(make_bits())


def test_global_random_numbers_are_untouched():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    BernoulliRBM(3, random_state=0, max_epochs=1).fit(make_bits())
    assert torch.equal(torch.rand(3), expected)
