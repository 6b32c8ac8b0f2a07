"""Layers of units against sums over all of their states, and block Gibbs on any number of them."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from sklebm.energies import Bernoulli, Gaussian, LayeredEnergy
from sklebm.inference.gibbs import BlockGibbs
from sklebm.objectives import Batch, ContrastiveDivergence, PersistentContrastiveDivergence
from tests.machines import all_states, make_machine, minus_joint_energy

WIDTHS = [(3, 4), (3, 4, 2), (3, 2, 4), (2, 3, 2, 2), (3, 2, 2, 3, 2)]


def make_layers(widths, seed=0, real=False, scale=1.0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)

    layers = [Bernoulli(draw(n)) for n in widths]
    if real:
        layers[0] = Gaussian(draw(widths[0]), 0.5 * draw(widths[0]), True)
    pairs = itertools.pairwise(widths)
    return LayeredEnergy(layers, [draw(above, below) for below, above in pairs])


def naive_energies(energy, v, z):
    """E of every row with every hidden state, from the equation, unit by unit; NumPy."""
    found = np.zeros((len(v), len(z)))
    cuts = np.cumsum(energy.widths[1:])[:-1]
    biases = [layer.bias.detach().numpy() for layer in energy.layers]
    weights = [matrix.detach().numpy() for matrix in energy.couplings]
    for i, j in itertools.product(range(len(v)), range(len(z))):
        states = [v[i], *np.split(z[j], cuts)]
        sent = list(states)
        if energy.domain == "real":
            variance = np.exp(energy.layers[0].log_variance.detach().numpy())
            found[i, j] = ((v[i] - biases[0]) ** 2 / (2 * variance)).sum()
            sent[0] = v[i] / variance
        else:
            found[i, j] = -biases[0] @ v[i]
        for index in range(1, len(states)):
            found[i, j] -= biases[index] @ states[index]
            found[i, j] -= states[index] @ weights[index - 1] @ sent[index - 1]
    return found


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("real", [False, True])
def test_energy_and_free_energy_are_their_sums(widths, real):
    energy = make_layers(widths, real=real)
    z = all_states(sum(widths[1:]))
    v = np.random.default_rng(0).normal(size=(4, widths[0])) if real else all_states(widths[0])
    naive = naive_energies(energy, v, z)
    rows = torch.tensor(v)
    for j in (0, len(z) // 3, len(z) - 1):
        found = energy.energy(rows, torch.tensor(z[j]).expand(len(v), -1))
        np.testing.assert_allclose(found.detach(), naive[:, j], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        energy.free_energy(rows).detach(), -logsumexp(-naive, axis=1), rtol=1e-12
    )
    if not real:
        found = float(energy.exact_log_partition().detach())
        assert found == pytest.approx(logsumexp(-naive), rel=1e-12)


def test_the_sum_over_a_gaussian_bottom_is_its_integral():
    energy = make_layers((1, 3, 2), real=True)
    grid = torch.linspace(-40.0, 40.0, 80_001, dtype=torch.float64)[:, None]
    integral = torch.logsumexp(-energy.free_energy(grid), 0) + math.log(float(grid[1] - grid[0]))
    assert float(energy.exact_log_partition().detach()) == pytest.approx(
        float(integral.detach()), abs=1e-9
    )


def test_a_machine_is_the_case_of_two_layers():
    machine = make_machine(4, 3)
    twin = LayeredEnergy(
        [Bernoulli(machine.visible.bias.detach()), Bernoulli(machine.hidden.bias.detach())],
        [machine.weights.detach()],
    )
    v = torch.tensor(all_states(4))
    torch.testing.assert_close(machine.free_energy(v), twin.free_energy(v))
    torch.testing.assert_close(machine.hidden_mean(v), twin.hidden_mean(v))
    assert isinstance(machine, LayeredEnergy)
    truth = logsumexp(minus_joint_energy(machine))
    assert float(machine.exact_log_partition().detach()) == pytest.approx(truth)


@pytest.mark.parametrize("widths", [(3, 2), (3, 2, 2), (2, 2, 2, 2)])
def test_even_and_odd_gibbs_stays_at_p(widths):
    """Chains that start at the joint distribution of all layers stay there."""
    energy, n = make_layers(widths), 20_000
    states = torch.tensor(all_states(sum(widths)))
    with torch.no_grad():
        p = torch.softmax(-energy.energy(states[:, : widths[0]], states[:, widths[0] :]), 0).numpy()
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    drawn = states[torch.tensor(rng.choice(len(p), size=n, p=p))]
    parts = torch.split(drawn, list(widths), dim=1)
    sampler = BlockGibbs()
    kept = {"visible": torch.cat(parts[0::2], 1), "hidden": torch.cat(parts[1::2], 1)}
    with torch.no_grad():
        state = sampler.restore(kept, energy)
        for _ in range(4):
            state, info = sampler.step(generator, state, energy)
    assert info.moved.all()
    even, odd = (
        torch.split(half, list(widths[parity::2]), dim=1)
        for parity, half in enumerate((state.visible, state.hidden))
    )
    layers = [(even, odd)[i % 2][i // 2] for i in range(len(widths))]
    joined = torch.cat(layers, dim=1).numpy().astype(int)
    powers = 2 ** np.arange(joined.shape[1])[::-1]
    found = np.bincount(joined @ powers, minlength=len(p)) / n
    floor = 0.5 * np.sqrt(2 / np.pi * p * (1 - p) / n).sum()
    assert 0.5 * np.abs(found - p).sum() < 4 * floor
    uniform = np.full(len(p), 1 / len(p))
    assert 0.5 * np.abs(uniform - p).sum() > 4 * floor


@pytest.mark.parametrize("widths", [(3, 4, 2), (2, 3, 2, 2)])
def test_mean_field_is_a_stationary_bound(widths):
    energy = make_layers(widths)
    v = torch.tensor(all_states(widths[0]))
    mean = energy.mean_field(v, n_steps=2000, tol=1e-13).detach()
    with torch.no_grad():
        gap = energy.variational_free_energy(v, mean) - energy.free_energy(v)
        assert (gap > 1e-4).all()  # independent units are not the posterior
        first = energy.mean_field(v, n_steps=0)
        assert (gap <= energy.variational_free_energy(v, first) - energy.free_energy(v)).all()
    logits = torch.logit(mean).requires_grad_()
    bound = energy.variational_free_energy(v, torch.sigmoid(logits)).sum()
    (slope,) = torch.autograd.grad(bound, logits)
    assert float(slope.abs().max()) < 1e-8


def test_mean_field_is_exact_without_weights_between_hidden_layers():
    energy = make_layers((3, 4, 2))
    energy.couplings[1].data.zero_()
    v = torch.tensor(all_states(3))
    bound = energy.variational_free_energy(v, energy.mean_field(v))
    torch.testing.assert_close(bound, energy.free_energy(v))


def test_persistent_chains_give_the_gradient_of_the_likelihood():
    energy = make_layers((3, 3, 2))
    rows = torch.tensor(all_states(3)[[1, 3, 3, 6]])
    loss = energy.free_energy(rows).mean() + energy.exact_log_partition()
    parameters = list(energy.parameters())
    truth = torch.autograd.grad(loss, parameters)
    objective = PersistentContrastiveDivergence(2, n_chains=4000)
    generator = torch.Generator().manual_seed(0)
    state = objective.init_state(energy, 10, generator)
    draws = []
    for step in range(120):
        loss, state = objective.loss(energy, Batch(rows), state, generator)
        if step >= 20:
            draws.append(torch.autograd.grad(loss, parameters))
    for parts, expected in zip(zip(*draws, strict=True), truth, strict=True):
        mean = torch.stack(parts).mean(dim=0)
        assert float((mean - expected).abs().max()) < 0.006
    short, _ = ContrastiveDivergence(1).loss(energy, Batch(rows), {}, generator)
    assert torch.isfinite(short)


def test_wrong_layers_are_refused():
    zeros = torch.zeros
    with pytest.raises(ValueError, match="need at least two of them and weights"):
        LayeredEnergy([Bernoulli(zeros(2))], [])
    with pytest.raises(ValueError, match=r"weights\[0\] has shape \(2, 3\)"):
        LayeredEnergy([Bernoulli(zeros(2)), Bernoulli(zeros(3))], [zeros(2, 3)])
    with pytest.raises(ValueError, match="Layer 1 is real-valued"):
        LayeredEnergy([Bernoulli(zeros(2)), Gaussian(zeros(3), zeros(1))], [zeros(3, 2)])
    large = make_layers((2, 30, 30))
    with pytest.raises(ValueError, match=r"over 2\^30 states"):
        large.free_energy(torch.zeros(1, 2).double())
