"""Gaussian visible units: the mixture of 2^k Gaussians, derivatives, gradients in closed form."""

import itertools

import numpy as np
import pytest
import torch

from sklebm.energies.gradients import dense
from sklebm.inference import enumeration
from tests.machines import make_gaussian_machine, naive_log_density


@pytest.mark.parametrize(("d", "k"), [(1, 3), (3, 5), (6, 2), (2, 16)])
@pytest.mark.parametrize("shared", [False, True])
def test_log_density_is_that_of_the_mixture(d, k, shared):
    machine = make_gaussian_machine(d, k, shared=shared, scale=0.7)
    v = np.random.default_rng(0).normal(size=(50, d)) * 3
    with torch.no_grad():
        ours = -machine.free_energy(torch.tensor(v)) - enumeration.log_partition(machine)
    np.testing.assert_allclose(ours, naive_log_density(machine, v), rtol=0, atol=1e-10)


def test_the_density_integrates_to_one():
    machine = make_gaussian_machine(1, 4)
    grid = torch.linspace(-60.0, 60.0, 200_001, dtype=torch.float64)
    with torch.no_grad():
        density = torch.exp(
            -machine.free_energy(grid.unsqueeze(1)) - enumeration.log_partition(machine)
        )
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1.0, abs=1e-10)


def test_score_is_the_derivative_of_the_log_density():
    machine = make_gaussian_machine(4, 3)
    v = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    v.requires_grad_()
    (first,) = torch.autograd.grad(-machine.free_energy(v).sum(), v, create_graph=True)
    second = torch.stack(
        [torch.autograd.grad(first[:, i].sum(), v, retain_graph=True)[0][:, i] for i in range(4)], 1
    )
    ours = machine.score(v)
    torch.testing.assert_close(ours[0], first, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours[1], second, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shared", [False, True])
def test_gradients_in_closed_form_are_those_of_autograd(shared):
    machine = make_gaussian_machine(4, 3, shared=shared)
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(20, 4, dtype=torch.float64, generator=generator)
    signs = torch.randn(20, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        field = machine.hidden_field(v)
        mean = machine.hidden.mean(field)
        value, gradients = machine.free_energy_gradients(v, signs, field, mean)
        torch.testing.assert_close(value, signs @ machine.energy(v, mean))
    truth = torch.autograd.grad(signs @ machine.free_energy(v), [p for p, _ in gradients])
    assert len(gradients) == 4
    for (_, ours), theirs in zip(gradients, truth, strict=True):
        torch.testing.assert_close(dense(ours), theirs, rtol=1e-11, atol=1e-11)


def test_energy_of_every_hidden_state_sums_to_the_free_energy():
    machine = make_gaussian_machine(3, 4)
    v = torch.randn(1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    states = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=torch.float64)
    with torch.no_grad():
        energies = machine.energy(v.expand(16, -1), states)
        torch.testing.assert_close(-torch.logsumexp(-energies, 0), machine.free_energy(v)[0])


def test_draws_have_the_conditional_mean_and_variance():
    machine, n = make_gaussian_machine(3, 2), 40_000
    h = torch.tensor([[1.0, 1.0]], dtype=torch.float64).expand(n, -1)
    with torch.no_grad():
        v = machine.draw_visible(h, torch.Generator().manual_seed(0))
        mean = machine.visible.bias + machine.weights.sum(dim=0)
        variance = torch.exp(machine.visible.log_variance)
        assert ((v.mean(0) - mean).abs() < 4 * (variance / n).sqrt()).all()
        assert ((v.var(0) / variance - 1).abs() < 4 * (2 / n) ** 0.5).all()


def test_a_variance_without_bound_has_no_finite_normaliser():
    machine = make_gaussian_machine(3, 2)
    machine.visible.log_variance.data[1] = torch.inf
    with torch.no_grad():
        assert float(machine.visible.log_partition(machine.visible.bias).sum()) == float("inf")
