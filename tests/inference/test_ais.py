"""Annealed importance sampling against enumeration."""

import math

import numpy as np
import pytest
import torch

from sklebm.inference import ais
from sklebm.inference.tempered_path import TemperedPath
from tests.machines import exact_rows, make_machine, naive_log_partition


def machine_and_base(seed=0, scale=1.5):
    """A machine with several modes, and the base rate of rows drawn from it."""
    machine = make_machine(9, 6, scale=scale, seed=seed)
    mean = torch.tensor(exact_rows(machine, 1000).mean(axis=0))
    return machine, ais.base_rate_bias(mean)


def estimate(machine, base, seed, **options):
    with torch.no_grad():
        path = TemperedPath(machine, base)
        return ais.forward(path, torch.Generator().manual_seed(seed), **options)


def test_the_interval_holds_the_truth_in_95_of_100_seeds():
    machine, base = machine_and_base()
    truth = naive_log_partition(machine)
    estimates = [
        estimate(machine, base, seed, n_chains=100, n_temperatures=100) for seed in range(100)
    ]
    inside = sum(e.low <= truth <= e.high for e in estimates)
    assert inside >= 95
    # An interval of any width would pass that; this one is narrow.
    assert np.median([e.high - e.low for e in estimates]) < 0.5


def test_the_estimate_of_z_is_unbiased():
    """Few temperatures make the weights vary a lot; their mean is Z nevertheless."""
    machine, base = machine_and_base(scale=0.7)
    truth = math.exp(naive_log_partition(machine))
    values = [
        math.exp(estimate(machine, base, seed, n_chains=50, n_temperatures=5).value)
        for seed in range(400)
    ]
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert abs(np.mean(values) - truth) < 3 * error
    assert error < 0.05 * truth
    # Hence log Z itself is too low on average.
    assert np.mean(np.log(values)) < math.log(truth)


def test_more_temperatures_narrow_the_interval():
    machine, base = machine_and_base()
    widths = [
        np.median(
            [
                estimate(machine, base, seed, n_temperatures=steps).log_weights.std().item()
                for seed in range(5)
            ]
        )
        for steps in (10, 100, 1000)
    ]
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_independent_units_are_exact():
    """Without weights annealing only has to know the partition function of the base."""
    machine = make_machine(7, 4)
    machine.weights.data.zero_()
    result = estimate(machine, machine.visible.bias.detach(), 0, n_chains=3, n_temperatures=2)
    # Each hidden unit still goes from log 2 to log(1 + e^c), in weights that are all equal.
    assert result.value == pytest.approx(naive_log_partition(machine), abs=1e-12)
    assert result.high - result.low < 1e-12


def test_the_value_is_the_log_of_the_mean_weight_and_its_error_that_of_the_jackknife():
    rng = np.random.default_rng(0)
    log_weights = torch.tensor(rng.normal(size=40))
    result = ais.summarise(log_weights, 5.0, log_weights)
    weights = np.exp(log_weights.numpy())
    assert result.value == pytest.approx(5.0 + math.log(weights.mean()), abs=1e-12)
    left_out = [np.log(np.delete(weights, np.arange(g, 40, 10)).mean()) for g in range(10)]
    error = math.sqrt(0.9 * np.sum((left_out - np.mean(left_out)) ** 2))
    assert result.high - result.value == pytest.approx(3 * error, rel=1e-9)
    assert result.value - result.low == pytest.approx(3 * error, rel=1e-9)


def test_one_weight_that_dwarfs_the_others_leaves_a_wide_interval():
    """A relative error of one has no end of its own: nothing is cut off."""
    log_weights = torch.zeros(100, dtype=torch.float64)
    log_weights[0] = 60.0
    result = ais.summarise(log_weights, 0.0, log_weights)
    assert result.high - result.low > 100.0


def test_weights_of_any_magnitude_do_not_overflow():
    log_weights = torch.tensor([5000.0, 5001.0, 5000.5], dtype=torch.float64)
    result = ais.summarise(log_weights, 0.0, log_weights)
    assert result.value == pytest.approx(5000 + math.log(np.exp([0.0, 1.0, 0.5]).mean()), abs=1e-9)


def test_base_rate_is_the_log_odds_of_the_mean_drawn_to_one_half():
    mean = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    bias = ais.base_rate_bias(mean)
    naive = [math.log(p / (1 - p)) for p in (0.5 / 1001, 250.5 / 1001, 1000.5 / 1001)]
    np.testing.assert_allclose(bias.numpy(), naive, rtol=1e-12)
    assert torch.equal(ais.base_rate_bias(torch.tensor([-3.0, 7.0])).isfinite(), torch.ones(2) > 0)
