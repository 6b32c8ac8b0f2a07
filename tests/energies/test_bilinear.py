"""The bilinear energy against sums over all hidden states."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from sklebm.energies.gradients import dense, descend
from tests.machines import all_states, make_machine, minus_joint_energy, parameters


def test_energy_of_every_pair_of_states():
    machine = make_machine(4, 3)
    v, h = torch.tensor(all_states(4)), torch.tensor(all_states(3))
    naive = minus_joint_energy(machine)
    for index in range(len(h)):
        energies = machine.energy(v, h[index].expand(len(v), -1)).detach()
        np.testing.assert_allclose(-energies.numpy(), naive[:, index], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("beta", [1.0, 0.25, 8.0])
def test_free_energy_sums_over_all_hidden_states(beta):
    machine = make_machine(5, 4)
    v = torch.tensor(all_states(5))
    naive = -logsumexp(beta * minus_joint_energy(machine), axis=1) / beta
    np.testing.assert_allclose(machine.free_energy(v, beta).detach(), naive, rtol=1e-12, atol=1e-12)


def test_free_energy_of_probabilities_is_that_of_the_equation():
    machine = make_machine(6, 3)
    weights, hidden_bias, visible_bias = parameters(machine)
    v = np.random.default_rng(0).random((20, 6))
    naive = -(v @ visible_bias) - np.logaddexp(0, hidden_bias + v @ weights.T).sum(axis=1)
    np.testing.assert_allclose(machine.free_energy(torch.tensor(v)).detach(), naive, rtol=1e-12)


def test_free_energy_survives_enormous_weights():
    machine = make_machine(6, 3, scale=1e4)
    values = machine.free_energy(torch.tensor(all_states(6))).detach().numpy()
    assert np.isfinite(values).all()
    # At such weights the sum is its largest term.
    np.testing.assert_allclose(values, -minus_joint_energy(machine).max(axis=1), rtol=1e-9)


@pytest.mark.parametrize("layer", ["hidden", "visible"])
def test_conditional_means_are_those_of_the_joint_distribution(layer):
    machine = make_machine(4, 3)
    joint = minus_joint_energy(machine)
    if layer == "visible":
        given, other = torch.tensor(all_states(3)), all_states(4)
        means = machine.visible.mean(machine.visible_field(given))
        p = np.exp(joint - logsumexp(joint, axis=0)).T
    else:
        given, other = torch.tensor(all_states(4)), all_states(3)
        means = machine.hidden_mean(given)
        p = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    np.testing.assert_allclose(means.detach().numpy(), p @ other, rtol=1e-12)


def test_draws_have_the_conditional_means():
    machine = make_machine(4, 3)
    n, generator = 40_000, torch.Generator().manual_seed(0)
    v = torch.tensor([[1.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    h = torch.tensor([[0.0, 1.0, 1.0]], dtype=torch.float64)
    with torch.no_grad():
        for draws, mean in [
            (machine.draw_hidden(v.expand(n, -1), generator), machine.hidden_mean(v)),
            (
                machine.draw_visible(h.expand(n, -1), generator),
                machine.visible.mean(machine.visible_field(h)),
            ),
        ]:
            error = (mean * (1 - mean) / n).sqrt()
            assert ((draws.mean(dim=0) - mean).abs() < 4 * error + 1e-12).all()


def products_of(machine, v):
    with torch.no_grad():
        field = machine.hidden_field(v)
        return field, machine.hidden.mean(field)


def test_gradients_in_closed_form_are_those_of_the_free_energy():
    """For any signs and rows in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    for seed in range(5):
        machine = make_machine(7, 5, seed=seed)
        v = torch.rand(9, 7, generator=generator, dtype=torch.float64)
        signs = torch.randn(9, generator=generator, dtype=torch.float64)
        _, gradients = machine.free_energy_gradients(v, signs, *products_of(machine, v))
        truth = signs @ machine.free_energy(v)
        assert {id(p) for p, _ in gradients} == {id(p) for p in machine.parameters()}
        for parameter, gradient in gradients:
            (expected,) = torch.autograd.grad(truth, parameter, retain_graph=True)
            torch.testing.assert_close(dense(gradient), expected, rtol=1e-12, atol=1e-12)
            moved = parameter.detach().clone()
            descend(moved, gradient, 0.3)
            step = parameter.detach() - 0.3 * expected
            torch.testing.assert_close(moved, step, rtol=1e-12, atol=1e-12)


def test_the_value_beside_the_gradients_is_the_energy_at_the_mean():
    machine = make_machine(7, 5)
    v = torch.rand(9, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    signs = torch.linspace(-1, 1, 9, dtype=torch.float64)
    field, mean = products_of(machine, v)
    with torch.no_grad():
        value, _ = machine.free_energy_gradients(v, signs, field, mean)
        truth = signs @ machine.energy(v, mean)
    torch.testing.assert_close(value, truth, rtol=1e-12, atol=1e-12)
