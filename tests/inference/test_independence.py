"""Jumps of chains to draws of a reference density leave the model invariant."""

import math

import torch

from sklebm.energies.reference import ReferenceGaussian
from sklebm.inference.chains import energy_and_gradient
from sklebm.inference.independence import jump
from tests.inference.test_samplers import DoubleWell, drift, exact_draws

DOUBLE = torch.float64


class Wells(DoubleWell):
    """A double well with a Gaussian that covers both modes, off centre and too wide."""

    def __init__(self):
        mean, factor = torch.tensor([0.4], dtype=DOUBLE), torch.tensor([[1.5]], dtype=DOUBLE)
        self.reference = ReferenceGaussian(mean, factor)


def leap(energy, position, share, generator):
    """Positions after one attempt, and a check that energies and gradients belong to them."""
    state = jump(generator, position, torch.tensor(0.0), energy, share)
    value, gradient = energy_and_gradient(energy, state.position)
    torch.testing.assert_close(state.energy, value)
    torch.testing.assert_close(state.gradient, gradient)
    return state.position


def test_jumps_leave_the_model_invariant():
    energy, generator = Wells(), torch.Generator().manual_seed(0)
    start = exact_draws(energy, 1, 100_000)
    end = leap(energy, start, 1.0, generator)
    assert 0.2 < (end != start).double().mean() < 0.9
    assert drift(start, end) < 4.5


def test_jumps_carry_chains_from_one_mode_to_both():
    energy, generator = Wells(), torch.Generator().manual_seed(1)
    chains = torch.full((20_000, 1), -1.0, dtype=DOUBLE)
    for _ in range(200):
        chains = leap(energy, chains, 0.25, generator)
    truth = float((exact_draws(energy, 1, 400_000) > 0).double().mean())
    error = math.sqrt(truth * (1 - truth) / len(chains))
    assert abs(float((chains > 0).double().mean()) - truth) < 4.5 * error


def test_a_share_of_the_chains_proposes():
    energy, generator = Wells(), torch.Generator().manual_seed(2)
    chains = exact_draws(energy, 1, 1000)
    moved = (leap(energy, chains, 0.1, generator) != chains).sum()
    assert 0 < moved <= 100


def test_infinite_energies_are_refused():
    class Walled(Wells):
        def free_energy(self, x):
            return torch.where(x[:, 0] > 0, math.nan, 0.5 * x[:, 0] ** 2)

    generator = torch.Generator().manual_seed(3)
    chains = leap(Walled(), torch.full((500, 1), -1.0, dtype=DOUBLE), 1.0, generator)
    assert (chains <= 0).all()
    assert (chains != -1.0).any()
