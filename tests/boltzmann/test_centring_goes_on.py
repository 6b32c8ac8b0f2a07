"""Learning that goes on is centred at the offsets that it had, against steps in plain float64."""

import warnings

import numpy as np
import pytest

from sklebm import BernoulliRBM, GaussianRBM
from tests.machines import balanced_machine, exact_rows, make_machine, naive_gradient

RATE, N_ROWS = 0.1, 40
FIRST = exact_rows(make_machine(6, 3, scale=1.5, seed=3), 300)
NEXT = exact_rows(balanced_machine(6, 3, seed=1), N_ROWS)


def fitted(kind=BernoulliRBM, **changes):
    """A machine trained without any randomness, with offsets far from those of any new fit."""
    settings = {
        "objective": "maximum_likelihood",
        "optimizer": "sgd",
        "learning_rate": RATE,
        "batch_size": 300,
        "max_epochs": 20,
        "log_partition": None,
        "random_state": 0,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a machine of these sizes may well be a dull one
        model = kind(3, **{**settings, **changes}).fit(FIRST)
    model.hidden_means_ = np.array([0.9, 0.2, 0.35], dtype=np.float32)
    return model


def go_on(model, how, batch_size):
    """One update on all rows of NEXT."""
    model.set_params(batch_size=batch_size)
    if how == "partial_fit":
        return model.partial_fit(NEXT)
    schedule = {"learning_rate_schedule": "constant"}
    return model.set_params(warm_start=True, max_epochs=1, **schedule).fit(NEXT)


def machine_of(model):
    """The same machine in float64."""
    machine = make_machine(6, 3)
    for tensor, array in (
        (machine.weights, model.components_),
        (machine.hidden.bias, model.intercept_hidden_),
        (machine.visible.bias, model.intercept_visible_),
    ):
        tensor.data = tensor.new_tensor(array)
    return machine


@pytest.mark.parametrize("how", ["partial_fit", "warm_start"])
@pytest.mark.parametrize("share", [1.0, 0.25])
def test_the_next_step_is_centred_at_the_offsets_of_the_last(how, share):
    """W, b, c after one update, by the change of variables around the fitted means."""
    model = fitted()
    m, offset = model.feature_means_.copy(), model.hidden_means_.copy()
    assert np.abs(m - NEXT.mean(axis=0)).max() > 0.1
    g_w, g_c, g_b = naive_gradient(machine_of(model), NEXT)
    g_w = g_w - np.outer(g_c, m) - np.outer(offset, g_b)
    g_b, g_c = g_b - g_w.T @ offset, g_c - g_w @ m
    expected = [
        array - share * RATE * step
        for array, step in (
            (model.components_, g_w),
            (model.intercept_visible_, g_b),
            (model.intercept_hidden_, g_c),
        )
    ]
    go_on(model, how, round(N_ROWS / share))
    found = (model.components_, model.intercept_visible_, model.intercept_hidden_)
    for ours, truth in zip(found, expected, strict=True):
        # Single precision: parameters of the order of one.
        np.testing.assert_allclose(ours, truth, rtol=0, atol=3e-6)


@pytest.mark.parametrize("kind", [BernoulliRBM, GaussianRBM])
@pytest.mark.parametrize("how", ["partial_fit", "warm_start"])
@pytest.mark.parametrize("objective", ["maximum_likelihood", "cd"])  # by autograd, in closed form
def test_hidden_offsets_move_from_where_they_were_by_the_share_of_the_batch(kind, how, objective):
    """A quarter of a batch moves them a quarter as far, on the line to the mean of the batch."""
    steps = {}
    for share in (1.0, 0.25):
        model = fitted(kind, objective=objective)
        before, goal = model.hidden_means_.copy(), model.transform(NEXT).mean(axis=0)
        go_on(model, how, round(N_ROWS / share))
        steps[share] = model.hidden_means_ - before
        gap = goal - before
        assert np.abs(gap).max() > 0.05
        part = steps[share] @ gap / (gap @ gap)
        np.testing.assert_allclose(steps[share], part * gap, rtol=0, atol=1e-6)
        assert 0.0 < part < 0.2  # an average over many batches, not the last one
    np.testing.assert_allclose(steps[0.25], 0.25 * steps[1.0], rtol=0, atol=1e-6)
