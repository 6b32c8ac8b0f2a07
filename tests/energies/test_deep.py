"""The deep energy: its equation, its derivatives in closed form, and its kin."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import nn

from sklebm.energies.derivatives import is_expandable
from sklebm.energies.reference import ReferenceGaussian
from sklebm.inference import ais
from sklebm.inference.hamiltonian_path import HamiltonianPath
from sklebm.objectives.score_matching import gradient_and_laplacian
from tests.deep.models import ACTIVATIONS, make_energy, make_points

DEPTHS = [(), (4,), (4, 6)]


def test_free_energy_sums_the_hidden_units_out():
    """-log sum_z exp(-E(x, z)) over all states of five units."""
    energy, x = make_energy(), make_points()
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 5)
    each = torch.stack([energy.energy(x, z.expand(len(x), -1)) for z in states])
    torch.testing.assert_close(energy.free_energy(x), -torch.logsumexp(-each, dim=0))
    posterior = torch.softmax(-each, dim=0)
    torch.testing.assert_close(energy.hidden_mean(x), posterior.T @ states)


def test_shallow_energy_is_the_gaussian_boltzmann_machine():
    """log p = -|x - a|^2 / 2 s^2 + x'Wz / s^2 + c'z after b = a / s^2, w_k -> w_k / s^2.

    The constant |a|^2 / 2 s^2 is all that differs.
    """
    energy, x = make_energy(hidden_sizes=()), make_points()
    s2 = math.exp(2 * energy.log_sigma.item())
    layer = energy.network[0]
    a = s2 * energy.visible_bias.detach().numpy()
    W, c = s2 * layer.weight.detach().numpy(), layer.bias.detach().numpy()
    rows = x.numpy()
    machine = ((rows - a) ** 2).sum(axis=1) / (2 * s2)
    machine -= np.logaddexp(0.0, rows @ W.T / s2 + c).sum(axis=1)
    rest = machine - energy.free_energy(x).detach().numpy()
    np.testing.assert_allclose(rest, (a @ a) / (2 * s2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden_sizes", DEPTHS)
def test_closed_derivatives_are_those_of_autograd(hidden_sizes, activation):
    energy = make_energy(hidden_sizes=hidden_sizes, activation=activation)
    x = make_points()
    assert energy.has_closed_derivatives
    slope, laplacian = energy.gradient_and_laplacian(x)
    expected = gradient_and_laplacian(energy, x)
    torch.testing.assert_close(slope, expected[0], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(laplacian, expected[1], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("hidden_sizes", DEPTHS)
def test_closed_derivatives_are_finite_differences(hidden_sizes):
    energy, x = make_energy(hidden_sizes=hidden_sizes), make_points()
    slope, laplacian = energy.gradient_and_laplacian(x)
    h = 1e-3
    there, twice = torch.zeros_like(x), torch.zeros_like(laplacian)
    with torch.no_grad():
        middle = energy.free_energy(x)
        for i in range(x.shape[1]):
            step = h * torch.eye(x.shape[1], dtype=torch.float64)[i]
            f = {k: energy.free_energy(x + k * step) for k in (-2, -1, 1, 2)}
            there[:, i] = (8 * (f[1] - f[-1]) - (f[2] - f[-2])) / (12 * h)
            twice += (16 * (f[1] + f[-1]) - (f[2] + f[-2]) - 30 * middle) / (12 * h**2)
    torch.testing.assert_close(slope, there, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(laplacian, twice, rtol=1e-6, atol=1e-6)


def test_networks_with_other_layers_are_left_to_autograd():
    assert is_expandable(nn.Sequential(nn.Linear(2, 2), nn.Tanh()))
    assert not is_expandable(nn.Sequential(nn.Linear(2, 2), nn.GELU()))
    assert not is_expandable(nn.Sequential(nn.Conv2d(1, 1, 3)))
    assert not is_expandable(nn.Linear(2, 2))


def test_the_reference_is_the_gaussian():
    reference = make_energy().reference
    mean, covariance = reference.mean.numpy(), (reference.factor @ reference.factor.T).numpy()
    x = make_points()
    expected = multivariate_normal(mean, covariance).logpdf(x.numpy())
    np.testing.assert_allclose(reference.log_density(x).numpy(), expected, rtol=1e-12)
    draws = reference.draw(200_000, torch.Generator().manual_seed(0)).numpy()
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.02)
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.05)
    assert float(reference.scale()) == pytest.approx(math.sqrt(np.trace(covariance) / 3))


def exact_log_partition(energy):
    """log Z of a shallow energy: a Gaussian integral for each state of the hidden units."""
    layer = energy.network[0]
    W, c = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    b, s2 = energy.visible_bias.detach().numpy(), math.exp(2 * energy.log_sigma.item())
    states = np.array([[int(bit) for bit in f"{i:0{len(c)}b}"] for i in range(2 ** len(c))])
    linear = b + states @ W
    terms = states @ c + 0.5 * s2 * (linear**2).sum(axis=1)
    return logsumexp(terms) + 0.5 * len(b) * math.log(2 * math.pi * s2)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_annealing_brackets_the_exact_normaliser(seed):
    energy = make_energy(n_features=3, hidden_sizes=(), n_components=6, seed=seed)
    start = energy.visible_bias.detach() * math.exp(2 * energy.log_sigma.item())
    reference = ReferenceGaussian(start, 3.0 * torch.eye(3).double())
    generator = torch.Generator().manual_seed(seed)
    path = HamiltonianPath(energy, reference, generator)
    estimate = ais.forward(path, generator, n_chains=400, n_temperatures=200)
    exact = exact_log_partition(energy)
    assert estimate.low <= exact <= estimate.high
    # Three standard errors: half of the interval, which is .22 wide at most.
    assert estimate.value == pytest.approx(exact, abs=0.11)
    assert estimate.high - estimate.low < 0.25
