"""Bridging over a ladder, the reverse annealing that starts from it, and Ising machines."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import expit

from sklebm.energies import Bernoulli, BilinearEnergy
from sklebm.inference import ais, bridge, enumeration, parallel_tempering, ratios
from sklebm.inference.tempered_path import TemperedPath
from tests.energies.test_gaussian_bilinear import make_gaussian_machine
from tests.machines import exact_rows, make_machine, naive_log_partition
from tests.sampling import FULL

# Kaufman's solution of the two-dimensional Ising model on a torus: (size, coupling) -> log Z.
KAUFMAN = {
    (4, 0.2): 11.7714703585,
    (4, 0.4406868): 15.5219156213,
    (4, 0.6): 20.0565328843,
    (16, 0.2): 188.0398879560,
    (16, 0.4406868): 238.6422590494,
    (16, 0.6): 310.4870385899,
}


def ising_machine(size, coupling):
    """The torus with spins -1 and 1 as a machine, and what its log Z lacks of the model's.

    Neighbours lie on fields of different colours of a chequerboard: black ones are visible units,
    white ones hidden. With s = 2 u - 1, K s s' = 4 K u u' - 2 K (u + u') + K.
    """
    fields = [(i, j) for i in range(size) for j in range(size)]
    black = {field: n for n, field in enumerate(f for f in fields if sum(f) % 2 == 0)}
    white = [field for field in fields if sum(field) % 2]
    weights = torch.zeros(len(white), len(black), dtype=torch.float64)
    for n, (i, j) in enumerate(white):
        for near in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            weights[n, black[near[0] % size, near[1] % size]] += 4 * coupling
    bias = torch.full((len(white),), -8 * coupling, dtype=torch.float64)
    machine = BilinearEnergy(Bernoulli(bias.clone()), Bernoulli(bias.clone()), weights)
    return machine, 2 * coupling * size**2


def run(machine, base, seed=0, *, n_temperatures=20, n_ladders=100, n_steps=100):
    """Ladders that start at the base, after half as many steps to forget it."""
    path, generator = TemperedPath(machine, base), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        state = parallel_tempering.init(generator, path, n_temperatures, n_ladders)
        state = bridge.run_ladder(path, state, generator, n_steps=n_steps // 2).state
        return bridge.run_ladder(path, state, generator, n_steps=n_steps)


def base_of(machine, n_rows=1000):
    return ais.base_rate_bias(torch.tensor(exact_rows(machine, n_rows).mean(axis=0)))


@pytest.mark.parametrize("coupling", [0.2, 0.4406868, 0.6])
def test_ising_machines_of_16_spins(coupling):
    machine, offset = ising_machine(4, coupling)
    truth, base = KAUFMAN[4, coupling] - offset, torch.zeros(8)
    with torch.no_grad():
        assert float(enumeration.log_partition(machine)) == pytest.approx(truth, abs=1e-9)
        forward = ais.forward(
            TemperedPath(machine, base),
            torch.Generator().manual_seed(0),
            n_chains=500,
            n_temperatures=500,
        )
    ladder = run(machine, base, n_temperatures=8, n_ladders=200)
    bridged = bridge.log_partition(ladder, TemperedPath(machine, base).log_z0())
    for estimate in (forward, bridged):
        assert abs(estimate.value - truth) < 0.05
        assert estimate.low < truth < estimate.high


@pytest.mark.skipif(not FULL, reason="large: runs with SKLEBM_TEST_FULL=1")
@pytest.mark.parametrize("coupling", [0.2, 0.4406868, 0.6])
def test_ising_machines_of_256_spins(coupling):
    machine, offset = ising_machine(16, coupling)
    with torch.no_grad():
        estimate = ais.forward(
            TemperedPath(machine, torch.zeros(128)),
            torch.Generator().manual_seed(0),
            n_chains=500,
            n_temperatures=20_000 if coupling == 0.6 else 5000,
        )
    assert abs(estimate.value - KAUFMAN[16, coupling] + offset) < 0.05


def test_forward_is_low_reverse_from_exact_rows_is_high_bridging_is_neither():
    """Few temperatures make the biases large; means over seeds show their signs."""
    machine = make_machine(7, 5, scale=1.5)
    base, truth = torch.zeros(7), naive_log_partition(machine)
    forward, reverse, bridged = [], [], []
    for seed in range(400):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            forward.append(
                ais.forward(
                    TemperedPath(machine, base), generator, n_chains=5, n_temperatures=3
                ).value
            )
            rows = torch.tensor(exact_rows(machine, 5, seed))
            reverse.append(
                ais.reverse(TemperedPath(machine, base), rows, generator, n_temperatures=3).value
            )
        if seed >= 40:
            continue
        ladder = run(machine, base, seed, n_temperatures=5, n_ladders=5, n_steps=20)
        z0 = TemperedPath(machine, base).log_z0()
        bridged.append(bridge.log_partition(ladder, z0).value)
    errors = [np.std(v, ddof=1) / math.sqrt(len(v)) for v in (forward, reverse, bridged)]
    assert np.mean(forward) < truth - 3 * errors[0]
    assert np.mean(reverse) > truth + 3 * errors[1]
    assert abs(np.mean(bridged) - truth) < 3 * errors[2] + 0.01
    assert errors[2] < errors[0]


def test_the_reverse_weights_are_unbiased_for_the_inverse():
    machine = make_machine(5, 4, scale=0.8)
    base, truth = base_of(machine), naive_log_partition(machine)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        rows = torch.tensor(exact_rows(machine, 20_000))
        result = ais.reverse(TemperedPath(machine, base), rows, generator, n_temperatures=4)
        path = TemperedPath(machine, base)
        values = torch.exp(result.log_weights - path.log_z0() + truth).numpy()
    assert abs(values.mean() - 1.0) < 3 * values.std() / math.sqrt(len(values))


@pytest.mark.parametrize("make", [make_machine, make_gaussian_machine])
def test_the_bridged_interval_holds_the_truth(make):
    machine = make(6, 4)
    base = machine.visible.bias.detach() * 0.5
    with torch.no_grad():
        truth = float(enumeration.log_partition(machine))
    z0, inside, widths = TemperedPath(machine, base).log_z0(), 0, []
    for seed in range(20):
        ladder = run(machine, base, seed, n_temperatures=6, n_ladders=40, n_steps=40)
        estimate = bridge.log_partition(ladder, z0)
        inside += estimate.low <= truth <= estimate.high
        widths.append(estimate.high - estimate.low)
    assert inside >= 18
    assert np.median(widths) < 0.5


def test_gaussian_machines_anneal_to_their_exact_normaliser():
    machine = make_gaussian_machine(4, 5)
    base = machine.visible.bias.detach() + 0.3
    with torch.no_grad():
        truth = float(enumeration.log_partition(machine))
        estimate = ais.forward(TemperedPath(machine, base), torch.Generator().manual_seed(0))
    assert estimate.low < truth < estimate.high
    assert estimate.high - estimate.low < 0.3


def test_ratios_solve_bennetts_equation():
    rng = np.random.default_rng(0)
    up, down = rng.normal(size=(1, 30, 4)), rng.normal(1.0, 1.0, size=(1, 30, 4))

    def excess(r):
        return expit(up - r).sum() - expit(r - down).sum()

    found = ratios.log_ratios(torch.tensor(up), torch.tensor(down))
    assert found.item() == pytest.approx(brentq(excess, -10, 10, xtol=1e-14), abs=1e-10)


def test_the_error_of_ratios_is_that_of_solving_again_without_each_group():
    """One step of Newton's method from the solution is off by the square of what it moves by."""
    rng = np.random.default_rng(0)
    up = torch.tensor(rng.normal(0.3, 1.0, size=(3, 400, 5)))
    down = torch.tensor(rng.normal(1.3, 1.0, size=(3, 400, 5)))
    found = ratios.log_ratio_error(up, down, ratios.log_ratios(up, down))
    group = np.arange(400) % 10
    again = [
        float(ratios.log_ratios(up[:, group != g], down[:, group != g]).sum()) for g in range(10)
    ]
    assert found == pytest.approx(3 * np.std(again), rel=0.02)  # (10 - 1) / 10 sum = 9 var


@pytest.mark.skipif(not FULL, reason="large: runs with SKLEBM_TEST_FULL=1")
def test_unbiased_over_10000_tiny_runs():
    machine = make_machine(5, 4, scale=0.8)
    base, truth = base_of(machine), naive_log_partition(machine)
    generator, values = torch.Generator().manual_seed(0), []
    with torch.no_grad():
        for _ in range(10_000):
            result = ais.forward(
                TemperedPath(machine, base), generator, n_chains=2, n_temperatures=3
            )
            values.append(math.exp(result.value - truth))
    assert abs(np.mean(values) - 1.0) < 3 * np.std(values, ddof=1) / 100
