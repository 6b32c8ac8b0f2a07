"""Annealing between smooth energies: the interval needs the way back as well."""

import math

import pytest
import torch

from sklebm import likelihood
from sklebm.energies.deep import DeepEnergy
from sklebm.energies.reference import ReferenceGaussian
from sklebm.inference import partition
from sklebm.inference.hamiltonian_path import HamiltonianPath, nearest_base

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
def needle():
    """The energy, with a path to it from the wide density."""
    energy = NeedleInAHaystack()
    return energy, HamiltonianPath(energy, energy.reference, torch.Generator().manual_seed(0))


def test_the_interval_holds_what_the_way_there_misses(needle):
    """Four temperatures: the way there alone is too low for several seeds; rows lead back."""
    energy, path = needle
    effort = partition.Effort(n_chains=10, n_temperatures=4, doublings=0)
    held = 0
    for seed in range(N_SEEDS):
        generator = torch.Generator().manual_seed(seed)
        rows = energy.width * energy.reference.draw(10, generator)
        found = partition.estimate(path, generator, effort, rows=rows)
        assert found.low <= found.value <= found.high
        held += found.low <= energy.log_z <= found.high
    assert held >= N_SEEDS - 1


def test_chains_do_not_start_inside_one_of_several_modes():
    """Which is nearer to the model than the Gaussian of all of them, and holds a quarter of it."""
    shift, d = 10.0, 64
    network = torch.nn.Linear(d, 2).double()
    with torch.no_grad():
        network.weight.copy_(shift * torch.eye(d, dtype=DOUBLE)[:2])
        network.bias.fill_(-0.5 * shift**2)
    mean, variance = torch.zeros(d, dtype=DOUBLE), torch.ones(d, dtype=DOUBLE)
    mean[:2], variance[:2] = 0.5 * shift, 1.0 + 0.25 * shift**2
    reference, zero = ReferenceGaussian(mean, torch.diag(variance.sqrt())), torch.tensor(0.0)
    energy = DeepEnergy(network, 0.0 * mean, zero.double(), reference, zero)
    log_z = math.log(4) + 0.5 * d * math.log(2 * math.pi)
    generator = torch.Generator().manual_seed(0)
    assert nearest_base(energy, generator, covering=False) is not reference
    path = likelihood.path_to(energy, None, generator)
    assert path.reference is reference
    with torch.no_grad():
        found = partition.estimate(path, generator, partition.Effort(50, 100, doublings=0))
    assert found.low <= log_z <= found.high
    # Half of the modes would be log 2 too few; one of them, where chains started before, log 4.
    assert abs(found.value - log_z) < math.log(2)
