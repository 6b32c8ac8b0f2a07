"""The gradient of -log p: naive enumeration, finite differences, autograd."""

import numpy as np
import pytest
import torch

from sklebm.objectives import Batch, MaximumLikelihood
from tests.machines import make_machine, naive_gradient, naive_log_partition, parameters


def loss_of(machine, rows):
    loss, _ = MaximumLikelihood().loss(machine, Batch(torch.tensor(rows)), {}, torch.Generator())
    return loss


def gradient_of(machine, rows):
    tensors = [machine.weights, machine.hidden.bias, machine.visible.bias]
    return [g.numpy() for g in torch.autograd.grad(loss_of(machine, rows), tensors)]


def rows_for(n_visible, seed=0):
    return np.random.default_rng(seed).integers(2, size=(13, n_visible)).astype(float)


def test_the_loss_is_the_mean_of_minus_log_p():
    machine, rows = make_machine(6, 4), rows_for(6)
    weights, hidden_bias, visible_bias = parameters(machine)
    free = -(rows @ visible_bias) - np.logaddexp(0, hidden_bias + rows @ weights.T).sum(axis=1)
    truth = (free + naive_log_partition(machine)).mean()
    assert loss_of(machine, rows).item() == pytest.approx(truth, abs=1e-10)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (6, 6), (9, 8)])
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_gradient_is_the_enumerated_one(shape, scale):
    machine, rows = make_machine(*shape, scale=scale), rows_for(shape[0])
    for ours, truth in zip(gradient_of(machine, rows), naive_gradient(machine, rows), strict=True):
        np.testing.assert_allclose(ours, truth, rtol=0, atol=1e-8)


def test_gradient_is_that_of_finite_differences():
    machine, rows = make_machine(5, 4), rows_for(5)
    analytic, step = gradient_of(machine, rows), 1e-4
    for tensor, gradient in zip(
        [machine.weights, machine.hidden.bias, machine.visible.bias], analytic, strict=True
    ):
        flat = tensor.data.view(-1)
        for index in range(len(flat)):
            value = flat[index].item()
            sides = []
            for offset in (-2, -1, 1, 2):
                flat[index] = value + offset * step
                sides.append(loss_of(machine, rows).item())
            flat[index] = value
            # Central differences of fourth order.
            difference = (sides[0] - 8 * sides[1] + 8 * sides[2] - sides[3]) / (12 * step)
            assert gradient.reshape(-1)[index] == pytest.approx(difference, abs=1e-8)


def test_gradient_vanishes_at_the_model_itself():
    """On all states, weighted by p: here a machine without weights and even biases."""
    machine = make_machine(3, 2, scale=0.0)
    rows = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)], float)
    for gradient in gradient_of(machine, rows):
        np.testing.assert_allclose(gradient, 0.0, atol=1e-12)


def test_says_what_training_may_do_with_it():
    objective = MaximumLikelihood()
    assert objective.loss_is_comparable
    assert not objective.is_stochastic
    assert objective.init_state(None, 10, torch.Generator()) == {}
