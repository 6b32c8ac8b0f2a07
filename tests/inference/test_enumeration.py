"""log Z by enumeration: over either layer, in chunks, with its gradient."""

import numpy as np
import pytest
import torch

from sklebm.energies import BilinearEnergy
from sklebm.energies.binary_states import binary_states
from sklebm.inference import enumeration
from tests.machines import all_states, make_machine, naive_log_partition


def transposed(machine):
    """The same machine with its layers exchanged."""
    weights = machine.weights.detach().T.contiguous()
    return BilinearEnergy(machine.hidden, machine.visible, weights)


def log_partition(machine):
    with torch.no_grad():
        return float(enumeration.log_partition(machine))


@pytest.mark.parametrize("n_units", [1, 3, 5])
def test_binary_states_are_all_states_once(n_units):
    states = torch.cat(list(binary_states(n_units, torch.zeros(1))))
    assert states.dtype == torch.float32
    assert {tuple(row) for row in states.tolist()} == {tuple(row) for row in all_states(n_units)}
    assert len(states) == 2**n_units


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (5, 3), (6, 6), (2, 9), (9, 2)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 20.0])
def test_log_partition_is_the_sum_over_all_pairs_of_states(shape, scale):
    machine = make_machine(*shape, scale=scale)
    truth = naive_log_partition(machine)
    assert log_partition(machine) == pytest.approx(truth, rel=1e-12, abs=1e-10)


@pytest.mark.parametrize("shape", [(6, 4), (12, 9), (16, 7)])
def test_either_layer_gives_the_same_log_partition(shape):
    """Summed over the hidden layer, over the visible layer, and over the transposed machine."""
    machine = make_machine(*shape)
    hidden = log_partition(machine)
    assert log_partition(transposed(machine)) == pytest.approx(hidden, abs=1e-10)
    states = binary_states(shape[0], machine.weights)
    with torch.no_grad():
        parts = [torch.logsumexp(-machine.free_energy(v), dim=0) for v in states]
    assert float(torch.logsumexp(torch.stack(parts), dim=0)) == pytest.approx(hidden, abs=1e-10)


def test_probabilities_sum_to_one():
    """Over more than one chunk of states: 2^15 of them."""
    machine = make_machine(15, 8)
    with torch.no_grad():
        log_z = enumeration.log_partition(machine)
        total = sum(
            torch.exp(-machine.free_energy(v) - log_z).sum()
            for v in binary_states(15, machine.weights)
        )
    assert float(total) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("shape", [(4, 3), (3, 5), (16, 15)])
def test_gradient_is_minus_the_mean_energy_gradient(shape):
    """d log Z / d b_i = p(v_i = 1), and so on; the last machine needs two chunks."""
    machine = make_machine(*shape)
    log_z = enumeration.log_partition(machine)
    weights, hidden, visible = torch.autograd.grad(
        log_z, [machine.weights, machine.hidden.bias, machine.visible.bias]
    )
    with torch.no_grad():
        h_sum, v_sum, vh_sum = 0.0, 0.0, 0.0
        for v in binary_states(shape[0], machine.weights):
            p = torch.exp(-machine.free_energy(v) - log_z)
            mean = machine.hidden_mean(v)
            h_sum, v_sum = h_sum + p @ mean, v_sum + p @ v
            vh_sum = vh_sum + (mean * p[:, None]).T @ v
    torch.testing.assert_close(visible, v_sum, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(hidden, h_sum, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(weights, vh_sum, rtol=1e-10, atol=1e-12)


def test_too_many_units_are_refused_with_the_remedy():
    machine = make_machine(26, 27)
    with pytest.raises(ValueError, match=r"2\^26 states.*26 visible and 27 hidden.*\"ais\""):
        enumeration.log_partition(machine)


def test_float32_is_close_to_float64():
    single, double = make_machine(8, 6, dtype=torch.float32), make_machine(8, 6)
    value = log_partition(single)
    np.testing.assert_allclose(value, log_partition(double), rtol=1e-6)
