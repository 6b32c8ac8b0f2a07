"""When fits of dictionaries end: not because their energy has risen; and what layers keep."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sklebm import DeconvolutionalNetwork, DeepSparseCoder
from sklebm.coding._passes import LayersPass, has_settled
from tests.coding.test_conv_sparse_coder import make_planted


class Scripted:
    """A learner whose passes have given energies."""

    def __init__(self, energies, n_layers=2):
        self.energies, self.n_layers, self.n_passes = energies, n_layers, 0
        self.search = SimpleNamespace(forget=lambda: None)

    def pass_over(self, x, order):
        assert sorted(order.tolist()) == list(range(len(x)))
        self.n_passes += 1
        return list(self.energies[self.n_passes - 1]), [1.0] * self.n_layers


def run_to_the_end(energies, tol=1e-2, n_layers=2):
    run = LayersPass(Scripted(energies, n_layers), torch.Generator().manual_seed(0))
    for _ in energies:
        run = run.go_on(torch.zeros(3, 2), tol)
        if run.settled:
            break
    return run


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ([2.0], [1.99], True),
        ([2.0], [2.0], True),
        ([2.0], [1.9], False),
        ([2.0], [2.001], False),  # a rise
        ([2.0], [3.0], False),
        ([5.0, 2.0], [5.01, 1.99], True),  # one below rises a little
        ([5.0, 2.0], [4.0, 1.99], False),  # one below still learns
        ([5.0, 2.0], [6.0, 1.99], False),
        ([5.0, 2.0], [5.0, 2.01], False),
        ([], [2.0], False),
        ([-2.0], [-2.01], True),
    ],
)
def test_a_fit_settles_on_a_small_fall(before, now, expected):
    assert has_settled(before, now, 1e-2) == expected
    assert not has_settled(before, now, 0.0)


def test_a_rise_ends_no_fit_and_the_lowest_pass_is_kept():
    run = run_to_the_end([[3.0], [2.0], [2.5], [2.2]])
    assert (run.settled, run.curve) == (False, (3.0, 2.0, 2.5, 2.2))
    assert (run.learner.n_passes, run.best().learner.n_passes) == (4, 2)
    run = run_to_the_end([[3.0], [2.0], [2.5], [1.0], [0.999], [9.0]])
    assert (run.settled, run.best().learner.n_passes) == (True, 5)


def test_five_passes_without_a_lower_energy_end_a_fit_unless_all_are_asked_for():
    energies = [[3.0], [1.0], *([2.0 + 0.1 * i] for i in range(9))]
    run = run_to_the_end(energies)
    assert (run.settled, len(run.curve), run.best().learner.n_passes) == (True, 7, 2)
    run = run_to_the_end(energies, tol=0.0)
    assert (run.settled, len(run.curve), run.best().learner.n_passes) == (False, 11, 2)


def test_a_single_layer_ends_as_a_coder_of_one_layer_does():
    run = run_to_the_end([[3.0], [2.0], [2.5], [1.0]], n_layers=1)
    assert (run.settled, run.curve) == (True, (3.0, 2.0, 2.5))
    assert run.best() is run
    assert not run_to_the_end([[3.0], [2.0], [2.5]], tol=0.0, n_layers=1).settled


def test_layers_below_settle_too():
    """What the highest layer's energy says alone would have ended this one after two passes."""
    run = run_to_the_end([[9.0, 1.0], [8.0, 0.999], [7.98, 0.998], [1.0, 0.1]])
    assert (run.settled, len(run.curve)) == (True, 3)


def test_a_coder_keeps_the_dictionaries_of_its_best_pass():
    """Layer by layer, the energy of both layers rises in the third pass, by more than 0.2 %."""
    X = load_digits().data[:400] / 16
    options = {"hidden_sizes": (30, 15), "alpha": (0.2, 0.1), "batch_size": 64, "random_state": 0}
    whole = DeepSparseCoder(max_iter=4, **options).fit(X)
    assert whole.n_iter_ == len(whole.energy_curve_) == 4
    best = int(whole.energy_curve_.argmin()) + 1
    assert best < 4
    short = DeepSparseCoder(max_iter=best, **options).fit(X)
    np.testing.assert_array_equal(whole.components_, short.components_)
    for name, array in short.upper_components_.items():
        np.testing.assert_array_equal(whole.upper_components_[name], array)
    for name, array in short.online_state_.items():
        np.testing.assert_array_equal(whole.online_state_[name], array)


def test_an_adaptive_network_goes_on_where_moving_switches_have_raised_its_energy():
    X, _ = make_planted(30)
    model = DeconvolutionalNetwork(
        (4, 4), (4, 3), alpha=(0.1, 0.02), batch_size=32, max_iter=11, image_shape=(12, 12),
        random_state=0,
    ).fit(X)  # fmt: skip
    curve = model.energy_curve_
    risen = np.flatnonzero(np.diff(curve) > 0)
    assert len(risen)
    assert len(curve) > risen[0] + 2
    assert curve[-1] < curve[risen[0]]  # it was worth while
