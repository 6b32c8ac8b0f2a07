"""What a program has set in torch around a call changes no answer of an estimator."""

import contextlib
import threading

import numpy as np
import pytest
import torch

import sklebm
from sklebm import BernoulliRBM
from sklebm._shell.surroundings import sheltered
from tests.registry import NAMES, freeze, make_brief, make_rows

every = pytest.mark.parametrize("name", NAMES)


@contextlib.contextmanager
def double_by_default():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def meta_by_default():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


SURROUNDINGS = {
    "default_dtype": double_by_default,
    "default_device": meta_by_default,
    "device_block": lambda: torch.device("meta"),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


def answers(name):
    """What a model says after each way to learn, in the order of the contract."""
    X = make_rows()
    model = make_brief(name).fit(X)
    found = [model.score_samples(X)]
    if hasattr(model, "transform"):
        found.append(model.transform(X))
    if hasattr(model, "partial_fit"):
        found.append(model.partial_fit(X[:50]).score_samples(X))
    if hasattr(model, "sample"):
        drawn = model.sample(3, random_state=0)
        found.extend(drawn if isinstance(drawn, tuple) else [drawn])
    return [np.asarray(value) for value in found]


@every
@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_surroundings_change_no_answer(name, surroundings):
    expected = answers(name)
    with SURROUNDINGS[surroundings]():
        found = answers(name)
    assert [freeze(value) for value in found] == [freeze(value) for value in expected]


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_surroundings_change_no_given_or_stored_model(surroundings, tmp_path):
    weights = np.random.default_rng(0).normal(size=(3, 6))
    X = (make_rows() > 0.5).astype(float)

    def scores():
        given = BernoulliRBM.from_parameters(
            components=weights, intercept_hidden=np.zeros(3), intercept_visible=np.ones(6)
        )
        sklebm.save(given, tmp_path / "model.safetensors")
        return sklebm.load(tmp_path / "model.safetensors").score_samples(X)

    expected = scores()
    with SURROUNDINGS[surroundings]():
        found = scores()
    np.testing.assert_array_equal(found, expected)


@every
def test_tensors_of_inference_mode_are_rows_like_others(name):
    X = make_rows(dtype=np.float32)
    with torch.inference_mode():
        tensor = torch.from_numpy(X) * 1.0
    assert tensor.is_inference()
    model = make_brief(name).fit(tensor)
    expected = make_brief(name).fit(torch.from_numpy(X))
    assert torch.equal(model.score_samples(tensor), expected.score_samples(torch.from_numpy(X)))
    if hasattr(model, "partial_fit"):
        model.partial_fit(tensor[:50])


def test_the_program_finds_its_surroundings_as_it_left_them():
    """Also when calls of two threads overlap, and after an error."""
    inside, release, seen = threading.Event(), threading.Event(), []

    @sheltered
    def wait():
        inside.set()
        release.wait(10)
        seen.append(torch.get_default_dtype())

    with double_by_default():
        other = threading.Thread(target=wait)
        other.start()
        inside.wait(10)
        with pytest.raises(ValueError, match="NaN"):
            make_brief("VAE").fit(np.full((4, 2), np.nan))
        release.set()  # the call that came first leaves last
        other.join()
        assert seen == [torch.float32]
        assert torch.get_default_dtype() is torch.float64
    assert torch.get_default_dtype() is torch.float32


def test_nested_calls_put_the_dtype_back_last():
    seen = []

    @sheltered
    def inner():
        seen.append(torch.get_default_dtype())

    @sheltered
    def outer():
        inner()
        seen.append(torch.get_default_dtype())

    with double_by_default():
        outer()
        assert torch.get_default_dtype() is torch.float64
    assert seen == [torch.float32, torch.float32]
