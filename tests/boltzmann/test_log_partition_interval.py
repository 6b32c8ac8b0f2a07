"""The interval of log Z of a machine that annealing does not do justice: both directions count."""

import numpy as np
import pytest

from sklebm import BernoulliRBM

N_VISIBLE, N_SEEDS = 16, 12


def first_order_machine(strength=4.0, log_odds=5.0):
    """One hidden unit that switches all visible ones on; on, it weighs e^5 times as much as off.

    Halfway to the model the two phases are far apart and off is the heavier one: most annealed
    chains stay there, so that their weights agree with each other and are too small. Returns the
    machine and its log Z in closed form.
    """
    off = N_VISIBLE * np.log(2.0)
    bias = off + log_odds - N_VISIBLE * np.log1p(np.exp(strength))
    X = np.random.default_rng(0).integers(0, 2, (20, N_VISIBLE)).astype(float)
    machine = BernoulliRBM(1, max_epochs=1, log_partition=None, random_state=0).fit(X)
    machine.components_ = np.full((1, N_VISIBLE), strength)
    machine.intercept_hidden_ = np.array([bias])
    machine.intercept_visible_ = np.zeros(N_VISIBLE)
    machine.feature_means_ = np.full(N_VISIBLE, 0.5)
    return machine, off + np.log1p(np.exp(log_odds))


@pytest.fixture(scope="module")
def intervals():
    """Intervals around the truth for as many seeds, of few short chains."""
    machine, truth = first_order_machine()
    found = []
    for seed in range(N_SEEDS):
        effort = {"method": "ais", "n_chains": 20, "n_temperatures": 5}
        machine.estimate_log_partition(**effort, random_state=seed)
        found.append([*(machine.log_partition_interval_ - truth), machine.log_partition_ - truth])
    return np.array(found)


def test_the_closed_form_is_the_sum_over_all_states():
    machine, truth = first_order_machine()
    assert machine.estimate_log_partition(method="exact").log_partition_ == pytest.approx(truth)


def test_the_interval_holds_the_truth_for_every_seed(intervals):
    """Short annealing alone says it is known to a few tenths of a nat, and is wrong by several."""
    low, high, _ = intervals.T
    assert ((low <= 0.0) & (high >= 0.0)).sum() >= N_SEEDS - 1


def test_score_takes_the_end_that_flatters_least():
    machine, truth = first_order_machine()
    machine.estimate_log_partition(method="ais", n_chains=10, n_temperatures=5, random_state=0)
    rows = np.ones((3, N_VISIBLE))
    exact = -machine.free_energy(rows).mean() - truth
    assert machine.score(rows) <= exact
    expected = -machine.free_energy(rows).mean() - machine.log_partition_interval_[1]
    assert machine.score(rows) == pytest.approx(expected)
