"""Annealing between smooth energies: the interval needs the way back as well."""

import math

import pytest
import torch

from sklebm.energies.reference import ReferenceGaussian
from sklebm.inference import annealing
from sklebm.inference.ais import summarise

DOUBLE = torch.float64
N_SEEDS = 12


class NeedleInAHaystack:
    """A standard normal of mass 1 and, at its centre, a narrow one of mass e^5: log Z is known."""

    def __init__(self, n_features=6, log_mass=5.0, width=0.3):
        self.n_features, self.log_mass, self.width = n_features, log_mass, width
        self.log_z = math.log1p(math.exp(log_mass))
        self.reference = ReferenceGaussian(
            torch.zeros(n_features, dtype=DOUBLE), torch.eye(n_features, dtype=DOUBLE)
        )

    def free_energy(self, x):
        half, constant = 0.5 * x.square().sum(dim=1), 0.5 * self.n_features * math.log(2 * math.pi)
        narrow = self.log_mass - half / self.width**2 - self.n_features * math.log(self.width)
        return constant - torch.logaddexp(-half, narrow)


@pytest.fixture(scope="module")
def estimates():
    energy = NeedleInAHaystack()
    return energy.log_z, [
        annealing.log_partition(
            energy,
            energy.reference,
            torch.Generator().manual_seed(seed),
            n_chains=10,
            n_temperatures=4,
        )
        for seed in range(N_SEEDS)
    ]


def test_the_interval_holds_what_the_way_there_misses(estimates):
    log_z, found = estimates
    assert all(estimate.low <= log_z <= estimate.high for estimate in found)
    there = [summarise(estimate.log_weights, 0.0) for estimate in found]
    missed = [not estimate.low <= log_z <= estimate.high for estimate in there]
    assert sum(missed) >= N_SEEDS // 4  # about half of all seeds


def test_the_ends_are_those_of_the_two_directions(estimates):
    """``low`` is that of the way there; the way back can raise ``high`` and nothing else."""
    for estimate in estimates[1]:
        there = summarise(estimate.log_weights, 0.0)
        assert estimate.value == there.value
        assert estimate.low == there.low
        assert estimate.high >= there.high
