"""Parallel tempering: its stationary distribution, its exchanges, and that it finds every mode."""

import numpy as np
import pytest
import torch

from sklebm.inference import gibbs, parallel_tempering
from sklebm.inference.tempered_path import TemperedPath
from tests.energies.test_gaussian_bilinear import make_gaussian_machine
from tests.inference.test_gibbs import transition_matrix
from tests.machines import (
    all_states,
    exact_rows,
    make_machine,
    naive_visible_probabilities,
    parameters,
)


def machine_at(machine, base, t):
    """The machine on the path at t, written out."""
    weights, hidden_bias, visible_bias = (torch.tensor(p) for p in parameters(machine))
    return machine.with_parameters(t * weights, (1 - t) * base + t * visible_bias, t * hidden_bias)


def counts(rows):
    return np.bincount(
        np.asarray(rows, int) @ (1 << np.arange(rows.shape[1])[::-1]), minlength=2 ** rows.shape[1]
    )


@pytest.mark.parametrize("n_steps", [1, 6])
def test_every_temperature_stays_at_its_own_distribution(n_steps):
    """Started exactly at p_t everywhere; steps and exchanges leave all marginals as they are."""
    machine, n = make_machine(2, 3, scale=1.5), 20_000
    base = torch.tensor([0.7, -0.4], dtype=torch.float64)
    path = TemperedPath(machine, base)
    temperatures = parallel_tempering.temperatures(4, base)
    machines = [machine_at(machine, base, float(t)) for t in temperatures]
    start = torch.stack([torch.tensor(exact_rows(m, n, i)) for i, m in enumerate(machines)])
    state = parallel_tempering.TemperingState(start, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(n_steps):
            state, info = parallel_tempering.step(generator, state, path)
    for rows, m in zip(state.visible.numpy(), machines, strict=True):
        p = naive_visible_probabilities(m)
        floor = 0.5 * np.sqrt(2 / np.pi * p * (1 - p) / n).sum()
        assert 0.5 * np.abs(counts(rows) / n - p).sum() < 4 * floor
    assert np.nanmax(info.acceptance.numpy()) > 0.3
    # The ends of the path differ: leaving the exchanges' correction out would show.
    ends = [naive_visible_probabilities(m) for m in (machines[0], machines[-1])]
    assert 0.5 * np.abs(ends[0] - ends[1]).sum() > 0.1


@pytest.mark.parametrize("start", [(0, 3), (1, 0)])
def test_a_step_is_gibbs_and_then_an_exchange_in_detailed_balance(start):
    """The joint states of two neighbours after a step, against the product of exact matrices."""
    machine, n = make_machine(2, 3, scale=1.5), 40_000
    base = torch.tensor([0.7, -0.4], dtype=torch.float64)
    machines = [machine_at(machine, base, t) for t in (1.0, 0.0)]
    cold, hot = (naive_visible_probabilities(m) for m in machines)
    before = np.outer(*(transition_matrix(m)[i] for m, i in zip(machines, start, strict=True)))
    accept = np.minimum(1.0, (cold[None, :] * hot[:, None]) / (cold[:, None] * hot[None, :]))
    # Detailed balance of what is expected, then the expectation itself.
    flow = np.outer(cold, hot) * accept
    np.testing.assert_allclose(flow, flow.T, rtol=1e-12)
    expected = before * (1 - accept) + (before * accept).T
    states = torch.tensor(all_states(2))
    visible = torch.stack([states[i].expand(n, -1) for i in start])
    with torch.no_grad():
        after, info = parallel_tempering.step(
            torch.Generator().manual_seed(0),
            parallel_tempering.TemperingState(visible, 0),
            TemperedPath(machine, base),
        )
    numbers = after.visible.numpy().astype(int) @ [2, 1]
    found = np.bincount(4 * numbers[0] + numbers[1], minlength=16).reshape(4, 4) / n
    error = np.sqrt(expected * (1 - expected) / n)
    assert (np.abs(found - expected) < 4.5 * error + 1e-9).all()
    share = (before * accept).sum()
    assert float(info.acceptance[0]) == pytest.approx(share, abs=4.5 * 0.5 / np.sqrt(n))
    for wrong in (before, before.T):  # never and always exchanged
        assert (np.abs(found - wrong) > 9 * error).any()


def test_columns_of_temperatures_weigh_rows_like_single_ones():
    for machine in (make_machine(3, 2), make_gaussian_machine(3, 2)):
        path = TemperedPath(machine, torch.tensor([0.1, -1.0, 0.5], dtype=torch.float64))
        v = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            field = machine.hidden_field(v)
            columns = [torch.full((5, 1), t, dtype=torch.float64) for t in (0.2, 0.7)]
            torch.testing.assert_close(
                path.log_weight(v, field, *columns), path.log_weight(v, field, 0.2, 0.7)
            )
            whole = -machine.free_energy(v) + machine.visible.energy(v, path.base)
            found = path.log_weight(v, field, 0.0, 1.0)
            torch.testing.assert_close(found, whole - 2 * np.log(2.0))


def test_tempered_chains_visit_modes_that_gibbs_steps_do_not():
    """Two patterns, each held in place by strong weights."""
    machine = make_machine(6, 2, scale=0.0)
    strength = 14.0
    machine.weights.data = strength * torch.tensor([[1.0] * 6, [-1.0] * 6], dtype=torch.float64)
    machine.visible.bias.data -= machine.weights.data.sum(0) / 2
    machine.hidden.bias.data -= machine.weights.data.sum(1) / 2
    start = torch.ones(200, 6, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        plain = gibbs.init(generator, start, machine)
        path = TemperedPath(machine, torch.zeros(6))
        state = parallel_tempering.TemperingState(start.expand(20, -1, -1), 0)
        for _ in range(200):
            plain = gibbs.step(generator, plain, machine)
            state, _ = parallel_tempering.step(generator, state, path)
    assert plain.visible.mean() > 0.99
    # Each of 200 chains shows one of two patterns of equal probability: four standard errors.
    assert abs(float(state.visible[0].mean()) - 0.5) < 4 * 0.5 / np.sqrt(200)


def test_draws_repeat_with_their_generator():
    machine, draws = make_machine(4, 3), []
    path = TemperedPath(machine, torch.zeros(4))
    for seed in (0, 0, 1):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            state = parallel_tempering.init(generator, path, 3, 50)
            assert state.visible.shape == (3, 50, 4)
            draws.append(parallel_tempering.step(generator, state, path)[0].visible)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
