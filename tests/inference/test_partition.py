"""Intervals of log Z over machines that mix badly, and what the two ends of a path are for."""

import functools
from itertools import pairwise

import numpy as np
import pytest
import torch

from sklebm.inference import ais, enumeration, partition
from sklebm.inference.hamiltonian_path import HamiltonianPath
from sklebm.inference.pace import PacedPath, paced
from sklebm.inference.partition import Effort
from sklebm.inference.tempered_path import TemperedPath
from tests.hard_machines import HARD, magnet
from tests.machines import make_gaussian_machine, make_machine, naive_log_partition
from tests.sampling import FULL, SEED

N_RUNS = 5 if FULL else 1
if FULL:
    CHOSEN = list(HARD)
else:
    CHOSEN = list(np.random.default_rng(SEED).choice(list(HARD), 3, replace=False))


@functools.cache
def hard_machine(name):
    """The energy in float64, its log Z, and (of a trained one) the estimator."""
    made = HARD[name]()
    model = None
    if isinstance(made, tuple):
        model, _ = made
        made = model._energy(torch.device("cpu"))
    energy = made.double()
    with torch.no_grad():
        return energy, float(enumeration.log_partition(energy)), model


def estimate(name, method, seed):
    energy, _, model = hard_machine(name)
    if model is not None:
        low, high = model.estimate_log_partition(method, random_state=seed).log_partition_interval_
        return model.log_partition_, low, high
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        path = TemperedPath(energy, torch.zeros_like(energy.visible.bias))
        return partition.estimate(path, generator, Effort(), method=method)[:3]


@pytest.mark.timeout(3600)  # a hundred estimates, in the full suite
@pytest.mark.filterwarnings("ignore:.*log Z is uncertain")
@pytest.mark.parametrize("method", ["ais", "bridge"])
def test_intervals_hold_the_truth_in_95_of_100_runs_over_machines_that_mix_badly(method):
    """All machines, five seeds each, in the full suite; four machines, one seed, elsewhere."""
    inside, widths = 0, []
    for name in CHOSEN:
        for seed in range(N_RUNS):
            _, low, high = estimate(name, method, seed)
            inside += low <= hard_machine(name)[1] <= high
            widths.append(high - low)
    assert inside >= 0.95 * len(widths)
    assert np.median(widths) <= 1.0


def test_ends_that_do_not_agree_are_both_in_the_interval_and_said_to_disagree():
    """Two modes of equal mass that nothing leads between: the base finds one, rows show the other.

    Chains from the base cannot know of the mass at the far mode, the effort is too small to cross.
    The value between the ends errs to either side, so that without the far end half would miss.
    """
    machine = magnet(30, 15, 3.0, 0.0)
    with torch.no_grad():
        truth = float(enumeration.log_partition(machine))
        path = TemperedPath(machine, torch.full((30,), -3.0, dtype=torch.float64))
        rows = torch.ones(50, 30, dtype=torch.float64)
        effort = Effort(n_chains=50, n_temperatures=10, n_steps=5, doublings=0)
        found = [
            partition.estimate(path, torch.Generator().manual_seed(seed), effort, rows=rows)
            for seed in range(6)
        ]
    assert all(one.low <= truth <= one.high for one in found)
    assert not any(one.settled for one in found)
    assert any(one.value < truth for one in found)


@pytest.mark.parametrize("make", [make_machine, make_gaussian_machine])
def test_a_paced_path_has_the_same_ends_and_unbiased_weights(make):
    machine = make(6, 4)
    base = torch.zeros_like(machine.visible.bias.detach())
    with torch.no_grad():
        truth = float(enumeration.log_partition(machine))
        path = paced(TemperedPath(machine, base), torch.Generator().manual_seed(0))
        assert path.at(0.0) == 0.0
        assert path.at(1.0) == 1.0
        assert bool((path.knots.diff() > 0).all())
        column = torch.tensor([[0.0], [0.3], [1.0]], dtype=torch.float64)
        numbers = [path.at(float(t)) for t in column]
        np.testing.assert_allclose(path.at(column)[:, 0].numpy(), numbers, atol=1e-12)
        found = ais.forward(path, torch.Generator().manual_seed(1))
    assert found.low - 0.05 <= truth <= found.high + 0.05


def test_a_base_as_wide_as_the_model_is_a_density_and_anneals_to_the_truth():
    """Gaussian units with variances of their own at the base."""
    machine = make_gaussian_machine(3, 4)
    base = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    variance = torch.tensor([4.0, 9.0, 2.0], dtype=torch.float64)
    with torch.no_grad():
        path = TemperedPath(machine, base, variance)
        x = path.draw_base(200_000, torch.Generator().manual_seed(0))
        for have, want in ((x.mean(0), base), (x.var(0), variance)):
            assert float((have - want).abs().max()) < 0.1
        density = torch.distributions.Normal(base, variance.sqrt())
        expected = density.log_prob(x[:5]).sum(dim=1)
        np.testing.assert_allclose(
            path.log_base_density(x[:5]).numpy(), expected.numpy(), atol=1e-10
        )
        found = ais.forward(path, torch.Generator().manual_seed(0), n_chains=400)
        truth = float(enumeration.log_partition(machine))
    assert found.low <= truth <= found.high


def test_weights_along_the_path_add_up_to_its_ends():
    """log p*_1 - log p*_0 in one step is the sum over any steps, by either kind of path."""
    machine = make_gaussian_machine(3, 4)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        paths = [
            TemperedPath(machine, torch.zeros(3)),
            TemperedPath(machine, torch.zeros(3), torch.full((3,), 7.0)),
            HamiltonianPath(machine, _Normal(), generator),
        ]
        for path in [
            *paths,
            *(PacedPath(p, torch.tensor([0.0, 0.1, 1.0]).double()) for p in paths),
        ]:
            x = path.draw_base(10, generator)
            seen = path.observe(x)
            whole = path.log_weight(x, seen, 0.0, 1.0)
            cuts = [0.0, 0.2, 0.7, 1.0]
            parts = sum(path.log_weight(x, seen, a, b) for a, b in pairwise(cuts))
            np.testing.assert_allclose(whole.numpy(), parts.numpy(), atol=1e-10)
            columns = [torch.full((10, 1), t, dtype=torch.float64) for t in (0.0, 1.0)]
            by_row = path.log_weight(x, seen, *columns)
            np.testing.assert_allclose(whole.numpy(), by_row.numpy(), atol=1e-10)


class _Normal:
    """A standard normal density as a reference."""

    def draw(self, n_rows, generator):
        return torch.randn(n_rows, 3, generator=generator, dtype=torch.float64)

    def free_energy(self, x):
        return 0.5 * x.square().sum(dim=1) + 1.5 * np.log(2 * np.pi)

    def scale(self):
        return torch.tensor(1.0, dtype=torch.float64)


def test_bridges_between_annealed_ends_solve_for_the_ratio():
    """With exact rows at both ends Bennett's value lies between forward and reverse."""
    machine = make_machine(6, 5, scale=1.2)
    truth = naive_log_partition(machine)
    with torch.no_grad():
        path = TemperedPath(machine, torch.zeros(6))
        found = [
            partition.estimate(path, torch.Generator().manual_seed(seed), Effort(50, 50, 20, 0))
            for seed in range(20)
        ]
    values = np.array([f.value for f in found])
    assert abs(values.mean() - truth) < 4 * values.std(ddof=1) / np.sqrt(len(values)) + 0.01
