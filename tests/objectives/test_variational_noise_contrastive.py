"""Variational noise-contrastive estimation: a bound of the plain objective, tight at the posterior.

The sums over hidden states are exact in all comparisons; only what is said to be sampled is.
"""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from sklebm import BernoulliRBM, DeepEnergyModel
from sklebm.energies import AmortizedEnergy, Bernoulli, BernoulliPosterior
from sklebm.energies.deep import DeepEnergy
from sklebm.energies.reference import ReferenceGaussian, ReferenceUnits
from sklebm.objectives import (
    Batch,
    NoiseContrastive,
    ReferenceNoiseContrastive,
    VariationalNoiseContrastive,
    VariationalReferenceNoiseContrastive,
)
from sklebm.objectives.noise_contrastive import logistic_loss
from sklebm.objectives.variational_noise_contrastive import log_ratio
from tests.energies.test_layered import make_layers
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
    # The logarithm has a standard error of about sqrt(2 / 1500) = .037, from rows and from noise.
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


# ---------------------------------------------------------------- a posterior with parameters


class Table:
    """q(z | x) as a table over all states: any distribution, the exact posterior too."""

    def __init__(self, states, log_q):
        self.states, self.log_q = states, log_q

    def draw(self, noise):
        index = torch.searchsorted(self.log_q.exp().cumsum(1), noise[..., 0].T.contiguous())
        return self.states[index.T.clamp(max=len(self.states) - 1)]

    def log_density(self, z):
        same = (z[:, :, None] == self.states).all(dim=-1)
        return (same * self.log_q).sum(dim=-1)

    def detach(self):
        return Table(self.states, self.log_q.detach())


class DeepBoltzmann(torch.nn.Module):
    """Three layers of bits, whose posterior is not of independent bits; q by a table or encoder."""

    is_reparametrized = False

    def __init__(self, exact):
        super().__init__()
        self.model = make_layers((4, 3, 2), scale=1.5)
        self.states = torch.tensor(all_states(5))
        self.log_partition = torch.nn.Parameter(self.model.exact_log_partition().detach())
        self.reference = ReferenceUnits(Bernoulli(torch.zeros(4, dtype=torch.float64)))
        self.exact = exact

    def energy(self, x, z):
        return self.model.energy(x, z)

    def free_energy(self, x):
        return self.model.free_energy(x)

    def log_joint(self, x):
        rows = x.repeat_interleave(len(self.states), dim=0)
        return -self.energy(rows, self.states.repeat(len(x), 1)).view(len(x), -1)

    def posterior(self, x):
        log_p = torch.log_softmax(self.log_joint(x).detach(), dim=1)
        if self.exact:
            return Table(self.states, log_p)
        uniform = torch.full_like(log_p, -math.log(len(self.states)))
        return Table(self.states, torch.log_softmax(0.5 * (log_p + uniform), dim=1))

    def draw_noise(self, *shape, generator, like):
        return like.new_empty(*shape, 1).uniform_(generator=generator)


VISIBLE = torch.tensor(all_states(4))


def gap_by_enumeration(energy, log_q, n_noise):
    """E_x of the f-divergence between q and p(z | x), from the definition, in NumPy."""
    joint = energy.log_joint(VISIBLE).detach().numpy()
    q = np.exp(log_q.detach().numpy())
    mass = np.exp(joint - float(energy.log_partition.detach()))
    marginal = mass.sum(axis=1, keepdims=True)
    odds = marginal / (n_noise / 16)
    posterior = mass / marginal
    inner = np.log1p(q / (posterior * odds)) - np.log1p(1 / odds)
    return (q * inner).sum(axis=1)


def test_the_gap_is_the_divergence_between_q_and_the_posterior():
    """By many draws at every row: nothing where q is exact, the f-divergence elsewhere."""
    x = VISIBLE.repeat(20, 1)
    losses = {}
    for exact in (True, False):
        energy = DeepBoltzmann(exact)
        plain = NoiseContrastive(2)
        variational = VariationalNoiseContrastive(2, 200)
        losses[exact] = [
            float(o.loss(energy, Batch(x), {}, generator(3))[0].detach())
            for o in (plain, variational)
        ]
    assert losses[True][1] == pytest.approx(losses[True][0], abs=1e-10)
    truth = gap_by_enumeration(energy, energy.posterior(VISIBLE).log_q, 2)
    assert (truth > 0).all()
    found = losses[False][1] - losses[False][0]
    # 64,000 draws of terms of a spread of about one
    assert found == pytest.approx(truth.mean(), abs=4.5 / math.sqrt(64_000))
    assert truth.mean() > 10 / math.sqrt(64_000)


def test_q_learns_and_the_gap_shrinks_to_that_of_the_best_independent_bits():
    """The energy stands still; only phi moves, by the score function of the draws."""
    table = DeepBoltzmann(True)
    encoder = torch.nn.Sequential(
        torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 5)
    ).double()
    energy = AmortizedEnergy(
        table.model, encoder, table.reference, table.log_partition.detach().clone()
    )

    def gap():
        q = energy.posterior(VISIBLE[:, None]).log_density(table.states[None].expand(16, -1, -1))
        return gap_by_enumeration(table, q, 2).mean()

    def best_gap():
        """By gradient steps on the gap itself, from the mean-field means."""
        logits = torch.logit(table.model.mean_field(VISIBLE).detach()).requires_grad_()
        joint = table.log_joint(VISIBLE).detach() - table.log_partition.detach()
        odds = torch.logsumexp(joint, dim=1, keepdim=True) - math.log(2 / 16)
        log_p = torch.log_softmax(joint, dim=1)
        step = torch.optim.LBFGS([logits], max_iter=500, line_search_fn="strong_wolfe")

        def closure():
            step.zero_grad()
            log_q = BernoulliPosterior(logits[:, None], logits[0]).log_density(table.states[None])
            inner = softplus(log_q - log_p - odds) - softplus(-odds)
            value = (log_q.exp() * inner).sum(dim=1).mean()
            value.backward()
            return value

        return float(step.step(closure) and closure().detach())

    start = gap()
    objective = VariationalNoiseContrastive(2, 8)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.02)
    draws = generator(1)
    for _ in range(400):
        optimizer.zero_grad()
        loss, _ = objective.loss(energy, Batch(VISIBLE), {}, draws)
        loss.backward()
        optimizer.step()
    least = best_gap()
    assert least > 1e-4  # independent bits are not the posterior
    assert gap() < least + 0.15 * (start - least)


def test_the_gradient_of_q_is_that_of_the_sum_over_states():
    table = DeepBoltzmann(True)
    torch.manual_seed(0)
    encoder = torch.nn.Linear(4, 5).double()
    log_z = table.log_partition.detach().clone()
    energy = AmortizedEnergy(table.model, encoder, table.reference, log_z)
    row = VISIBLE[6:7]
    q = energy.posterior(row)
    log_q = q.log_density(table.states[:, None])[:, 0]
    odds = table.log_joint(row)[0].detach() - log_q - log_z - math.log(2 / 16)
    parameters = list(encoder.parameters())
    truth = torch.autograd.grad((log_q.exp() * softplus(-odds)).sum(), parameters)
    objective, n = VariationalNoiseContrastive(2, 4), 20_000
    loss, _ = objective.loss(energy, Batch(row.expand(n, -1)), {}, generator(2))
    found = torch.autograd.grad(loss, parameters)
    for one, other in zip(found, truth, strict=True):
        torch.testing.assert_close(one, other, atol=4.5 / math.sqrt(4 * n), rtol=0)
    assert max(float(g.abs().max()) for g in truth) > 3 * 4.5 / math.sqrt(4 * n)


class LinearGaussian(torch.nn.Module):
    """E(x, z) = |x - z A|^2 / 2 + |z|^2 / 2 with orthogonal rows of A: all is known."""

    def __init__(self):
        super().__init__()
        self.atoms = torch.nn.Parameter(
            torch.tensor([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0]], dtype=torch.float64)
        )

    def energy(self, x, z):
        return 0.5 * (x - z @ self.atoms).square().sum(dim=1) + 0.5 * z.square().sum(dim=1)

    def free_energy(self, x):
        """-log of the integral of exp(-E) over z: the normaliser of a Gaussian."""
        covariance = torch.eye(3).double() + self.atoms.T @ self.atoms
        white = torch.linalg.solve(covariance, x.T).T
        constant = 0.5 * torch.logdet(covariance) - math.log(2 * math.pi)
        return 0.5 * (white * x).sum(dim=1) + constant


def test_real_latents_with_a_learnt_posterior():
    """Equal to the plain objective at the exact q, above it elsewhere, and q finds its way."""
    model, encoder = LinearGaussian(), torch.nn.Linear(3, 4).double()
    reference = ReferenceGaussian(torch.zeros(3).double(), 2.0 * torch.eye(3).double())
    log_z = torch.tensor(0.5 * 5 * math.log(2 * math.pi)).double()
    energy = AmortizedEnergy(model, encoder, reference, log_z, is_binary=False)
    x = torch.randn(4000, 3, generator=generator(), dtype=torch.float64)
    x = x + torch.randn(4000, 2, generator=generator(1), dtype=torch.float64) @ model.atoms.detach()
    plain = NoiseContrastive(2)

    def losses(objective, seed=5):
        found = [o.loss(energy, Batch(x), {}, generator(seed))[0] for o in (plain, objective)]
        return [float(value.detach()) for value in found]

    exact = VariationalNoiseContrastive(2, 3)
    start = losses(exact)
    assert start[1] > start[0] + 0.05
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.03)
    for seed in range(300):
        optimizer.zero_grad()
        part = x[(seed * 100) % 4000 :][:100]
        loss, _ = exact.loss(energy, Batch(part), {}, generator(100 + seed))
        loss.backward()
        optimizer.step()
    learnt = losses(exact)
    assert 0.0 < learnt[1] - learnt[0] < 0.15 * (start[1] - start[0])
    with torch.no_grad():  # the posterior is N(A x / 3, I / 3)
        encoder.weight.copy_(torch.cat([model.atoms / 3, torch.zeros(2, 3)]))
        scale = -0.5 * math.log(3)
        encoder.bias.copy_(torch.tensor([0.0, 0.0, scale, scale], dtype=torch.float64))
    for inner_sum in ("exact", "sampled"):
        found = losses(VariationalNoiseContrastive(2, 2, inner_sum))
        assert found[1] == pytest.approx(found[0], abs=1e-10)


def test_bits_with_a_learnt_posterior_need_two_draws():
    table = DeepBoltzmann(True)
    encoder = torch.nn.Linear(4, 5).double()
    energy = AmortizedEnergy(table.model, encoder, table.reference, torch.zeros(()).double())
    with pytest.raises(ValueError, match="n_draws=1 must be at least 2"):
        VariationalNoiseContrastive().loss(energy, Batch(VISIBLE), {}, generator())
