"""Variational noise-contrastive estimation: a bound of the plain objective, tight at the posterior.

The sums over hidden states are exact in all comparisons; only what is said to be sampled is.
"""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from sklebm import BernoulliRBM, DeepEnergyModel
from sklebm.energies.deep import DeepEnergy
from sklebm.energies.reference import ReferenceGaussian
from sklebm.objectives import (
    Batch,
    NoiseContrastive,
    ReferenceNoiseContrastive,
    VariationalNoiseContrastive,
    VariationalReferenceNoiseContrastive,
)
from sklebm.objectives.noise_contrastive import logistic_loss
from sklebm.objectives.variational_noise_contrastive import log_ratio
from tests.machines import all_states, balanced_machine, exact_rows, make_machine

N_HIDDEN = 4


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def deep_energy(n_visible=3):
    """Four hidden units on a small network."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(n_visible, 5), torch.nn.Sigmoid(), torch.nn.Linear(5, N_HIDDEN)
    )
    reference = ReferenceGaussian(torch.zeros(n_visible), torch.eye(n_visible))
    zero = torch.zeros(())
    return DeepEnergy(network, torch.randn(n_visible), zero, reference, zero.clone()).double()


ENERGIES = {"machine": lambda: make_machine(6, N_HIDDEN), "deep": deep_energy}


def rows_for(energy, n_rows=20):
    if energy.domain == "binary":
        return torch.tensor(exact_rows(make_machine(6, 4, seed=1), n_rows))
    return torch.randn(n_rows, 3, generator=generator(), dtype=torch.float64)


def loss_with(energy, x, y, mean, log_odds=0.7):
    """The loss with the expectation over z ~ q as a sum over all states, and its plain value."""
    total = torch.zeros(len(x), dtype=torch.float64)
    for state in torch.tensor(all_states(N_HIDDEN)):
        z = state.expand(len(x), -1)
        q = torch.where(z > 0, mean, 1 - mean).prod(dim=1)
        total += q * softplus(log_odds - log_ratio(energy, x, z, mean))
    noise = -energy.free_energy(y) - log_odds
    variational = total.mean() + softplus(noise).sum() / len(x)
    plain = logistic_loss((-energy.free_energy(x) - log_odds)[None], noise)
    return float(variational.detach()), float(plain.detach())


@pytest.mark.parametrize("name", ENERGIES)
def test_it_is_a_bound_and_tight_at_the_posterior(name):
    """J_VNCE <= J_NCE, losses being -J; equal exactly where q is p(z | x)."""
    energy = ENERGIES[name]()
    x = rows_for(energy)
    posterior = energy.hidden_mean(x).detach()
    variational, plain = loss_with(energy, x, x, posterior)
    assert variational == pytest.approx(plain, abs=1e-12)
    gaps = []
    for share in (0.1, 0.3, 1.0):
        other = torch.lerp(posterior, torch.full_like(posterior, 0.5), share)
        variational, plain = loss_with(energy, x, x, other)
        gaps.append(variational - plain)
    assert 1e-5 < gaps[0] < gaps[1] < gaps[2]


@pytest.mark.parametrize("name", ENERGIES)
def test_the_ratio_is_the_marginal_whichever_state_is_drawn(name):
    energy = ENERGIES[name]()
    x, mean = rows_for(energy), energy.hidden_mean(rows_for(energy))
    for state in torch.tensor(all_states(N_HIDDEN)[[0, 5, 15]]):
        found = log_ratio(energy, x, state.expand(len(x), -1), mean)
        torch.testing.assert_close(found, -energy.free_energy(x))


PAIRS = {
    "machine": (NoiseContrastive(3), VariationalNoiseContrastive),
    "deep": (ReferenceNoiseContrastive(3), VariationalReferenceNoiseContrastive),
}


@pytest.mark.parametrize("inner_sum", ["exact", "sampled"])
@pytest.mark.parametrize("name", ENERGIES)
def test_losses_and_mean_gradients_are_those_of_the_plain_objective(name, inner_sum):
    """With the exact posterior, through ``loss`` with its own noise and draws."""
    energy = ENERGIES[name]()
    x = rows_for(energy)
    plain, kind = PAIRS[name]
    state = plain.init_state(energy, len(x), generator())
    parameters = [p for p in energy.parameters() if p.requires_grad]

    def run(objective, seed):
        loss, _ = objective.loss(energy, Batch(x), state, generator(seed))
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        flat = [torch.zeros(1) if g is None else g.flatten() for g in gradients]
        return float(loss.detach()), torch.cat(flat)

    value, gradient = run(plain, 1)
    differences = []
    for seed in range(1, 101):  # the same noise rows, which are drawn first
        own_plain = run(plain, seed)
        own = run(kind(3, 4, inner_sum), seed)
        assert own[0] == pytest.approx(own_plain[0], abs=1e-10)
        differences.append(own[1] - own_plain[1])
    differences = torch.stack(differences)
    error = differences.std(dim=0) / math.sqrt(len(differences))
    assert (differences.mean(dim=0).abs() <= 4.5 * error + 1e-12).all()
    assert gradient.norm() > 0.01
    assert math.isfinite(value)


class Coarse:
    """A machine whose hidden_mean is half way to chance: a q that is not the posterior."""

    def __init__(self, machine):
        self.machine = machine

    def hidden_mean(self, x):
        return torch.lerp(self.machine.hidden_mean(x), torch.tensor(0.5).double(), 0.5)

    def __getattr__(self, name):
        return getattr(self.machine, name)


def test_sampling_the_inner_sum_biases_the_noise_term():
    """The loss falls below the exact one on average, and the less the more draws there are."""
    energy = Coarse(make_machine(6, N_HIDDEN))
    y = torch.tensor(np.repeat(all_states(6), 300, axis=0))
    exact = float(softplus(-energy.free_energy(y)).mean().detach())
    biases = []
    for n_draws in (1, 4, 16):
        objective = VariationalNoiseContrastive(1, n_draws, "sampled")
        _, of_noise, _ = objective.log_masses(energy, y[:1], y, generator())
        biases.append(exact - float(softplus(of_noise).mean().detach()))
    assert biases[0] > biases[1] > biases[2] > 0.0
    assert biases[0] > 4 * biases[2]


def test_a_machine_learns_by_it():
    truth = balanced_machine(9, 8, scale=2.5)
    rows, held_out = exact_rows(truth, 4000), exact_rows(truth, 10_000, seed=1)
    settings = {"n_components": 8, "learning_rate": 0.5, "max_epochs": 15, "random_state": 0}
    scores = [
        BernoulliRBM(objective=objective, **settings).fit(rows).score(held_out)
        for objective in ("noise_contrastive", "variational_noise_contrastive")
    ]
    assert scores[1] > -9 * np.log(2) + 0.5
    assert abs(scores[1] - scores[0]) < 0.05


def test_a_deep_energy_learns_by_it_and_its_normaliser():
    rng = np.random.default_rng(0)
    X = rng.choice([-2.0, 2.0], size=(1500, 1)) + rng.normal(size=(1500, 1))
    model = DeepEnergyModel(
        n_components=8, objective="variational_noise_contrastive", max_epochs=30, random_state=0
    ).fit(X)
    grid = np.linspace(-12, 12, 4001)[:, None]
    mass = np.exp(model.score_samples(grid).astype(float)).sum() * (grid[1, 0] - grid[0, 0])
    assert mass == pytest.approx(1.0, abs=0.1)
    normal = -0.5 * (1 + np.log(2 * np.pi * X.var()))
    assert model.score_samples(X).mean() > normal + 0.05


def test_settings_are_checked():
    with pytest.raises(ValueError, match="n_draws=0"):
        VariationalNoiseContrastive(n_draws=0)
    with pytest.raises(ValueError, match="inner_sum='none' must be one of 'exact', 'sampled'"):
        VariationalReferenceNoiseContrastive(inner_sum="none")
    with pytest.raises(ValueError, match="n_noise"):
        VariationalNoiseContrastive(0)
