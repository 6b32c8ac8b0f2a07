"""Block Gibbs: the kernel leaves p invariant, exactly and in the draws."""

import numpy as np
import pytest
import torch

from sklebm.inference import gibbs
from tests.machines import (
    all_states,
    exact_rows,
    make_machine,
    naive_visible_probabilities,
    parameters,
)


def bernoulli_table(fields, states):
    """p(state | field) for all pairs, from the equation."""
    mean = 1.0 / (1.0 + np.exp(-fields))
    return np.prod(np.where(states[None] == 1, mean[:, None], 1 - mean[:, None]), axis=2)


def transition_matrix(machine):
    """p(v' | v) = sum_h p(v' | h) p(h | v), explicitly."""
    weights, hidden_bias, visible_bias = parameters(machine)
    v, h = all_states(len(visible_bias)), all_states(len(hidden_bias))
    to_hidden = bernoulli_table(hidden_bias + v @ weights.T, h)
    to_visible = bernoulli_table(visible_bias + h @ weights, v)
    return to_hidden @ to_visible


def counts(rows):
    """How often each visible state occurs, in the order of ``all_states``."""
    n_units = rows.shape[1]
    numbers = np.asarray(rows, int) @ (1 << np.arange(n_units)[::-1])
    return np.bincount(numbers, minlength=2**n_units)


def total_variation(rows, p):
    return 0.5 * np.abs(counts(rows) / len(rows) - p).sum()


@pytest.mark.parametrize("shape", [(2, 3), (3, 3), (5, 4)])
def test_the_reference_leaves_p_invariant(shape):
    """The matrix that the kernel is held against is itself the right one."""
    machine = make_machine(*shape)
    matrix = transition_matrix(machine)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, rtol=1e-12)
    p = naive_visible_probabilities(machine)
    np.testing.assert_allclose(p @ matrix, p, atol=1e-12)
    # Detailed balance: the flow between any two states is the same both ways.
    flow = p[:, None] * matrix
    np.testing.assert_allclose(flow, flow.T, atol=1e-14)


@pytest.mark.parametrize("shape", [(2, 3), (3, 3), (4, 2)])
def test_the_stationary_vector_of_the_kernel_is_p(shape):
    """The matrix of the kernel itself, row by row from many steps out of each state."""
    machine, n = make_machine(*shape), 10_000
    p, states = naive_visible_probabilities(machine), all_states(shape[0])
    start = torch.tensor(np.repeat(states, n, axis=0))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        state = gibbs.step(generator, gibbs.init(generator, start, machine), machine)
    moved = state.visible.numpy().reshape(len(p), n, -1)
    matrix = np.array([counts(rows) / n for rows in moved])
    error = np.sqrt(p[:, None] ** 2 * matrix * (1 - matrix) / n)  # of p_i P_ij
    assert (np.abs(p @ matrix - p) < 4.5 * np.sqrt((error**2).sum(axis=0)) + 1e-12).all()
    flow = p[:, None] * matrix
    assert (np.abs(flow - flow.T) < 4.5 * np.hypot(error, error.T) + 4.5 / n).all()
    # Another machine has another stationary vector: the bound would notice.
    other = naive_visible_probabilities(make_machine(*shape, seed=1))
    assert (np.abs(other @ matrix - other) > 9 * np.sqrt((error**2).sum(axis=0))).any()


@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (5, 4)])
def test_one_step_moves_as_the_transition_matrix_says(shape):
    machine = make_machine(*shape)
    matrix = transition_matrix(machine)
    n, generator = 20_000, torch.Generator().manual_seed(0)
    for number in (0, 5):
        start = torch.tensor(all_states(shape[0])[number]).expand(n, -1)
        with torch.no_grad():
            state = gibbs.init(generator, start, machine)
            moved = gibbs.step(generator, state, machine).visible.numpy()
        p = matrix[number]
        # The expected total variation of n exact draws.
        floor = 0.5 * np.sqrt(2 / np.pi * p * (1 - p) / n).sum()
        assert total_variation(moved, p) < 2 * floor


@pytest.mark.parametrize("shape", [(3, 3), (4, 4), (5, 4)])
@pytest.mark.parametrize("n_steps", [1, 4, 16])
def test_chains_that_start_at_p_stay_at_p(shape, n_steps):
    machine = make_machine(*shape)
    p, n = naive_visible_probabilities(machine), 20_000
    generator = torch.Generator().manual_seed(n_steps)
    with torch.no_grad():
        state = gibbs.init(generator, torch.tensor(exact_rows(machine, n)), machine)
        for _ in range(n_steps):
            state = gibbs.step(generator, state, machine)
    floor = 0.5 * np.sqrt(2 / np.pi * p * (1 - p) / n).sum()
    assert total_variation(state.visible.numpy(), p) < 4 * floor
    # Such a bound can fail: chains from another machine are far outside it.
    other = exact_rows(make_machine(*shape, seed=1), n)
    assert total_variation(other, p) > 4 * floor


def test_the_hidden_state_belongs_to_the_visible():
    """After init and after every step, h is a draw given v: strong weights make it certain."""
    machine = make_machine(4, 3, scale=200.0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        state = gibbs.init(generator, torch.tensor(all_states(4)), machine)
        for _ in range(4):
            field = machine.hidden_field(state.visible)
            certain = field.abs() > 40
            assert certain.double().mean() > 0.7
            assert torch.equal(state.hidden[certain] == 1, field[certain] > 0)
            state = gibbs.step(generator, state, machine)
