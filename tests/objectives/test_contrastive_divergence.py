"""Contrastive divergence: its gradient in expectation, its chains, its limits."""

import numpy as np
import pytest
import torch

from sklebm.energies import Bernoulli, Gaussian, GaussianBilinearEnergy
from sklebm.objectives import Batch, ContrastiveDivergence, PersistentContrastiveDivergence
from sklebm.objectives.contrastive_divergence import caught_up
from tests.machines import (
    all_states,
    exact_rows,
    make_machine,
    naive_gradient,
    naive_visible_probabilities,
    parameters,
)


def gradient_of(machine, objective, rows, state, generator):
    """Gradient in the order weights, hidden biases, visible biases; and the new state."""
    loss, state = objective.loss(machine, Batch(torch.as_tensor(rows)), state, generator)
    tensors = [machine.weights, machine.hidden.bias, machine.visible.bias]
    return [g.numpy() for g in torch.autograd.grad(loss, tensors)], state


def free_energy_gradient(machine, rows, weights_of_rows):
    """Gradient of the weighted sum of F over rows, from the equation."""
    weights, hidden_bias, _ = parameters(machine)
    mean = 1.0 / (1.0 + np.exp(-(hidden_bias + rows @ weights.T)))
    signed = mean * weights_of_rows[:, None]
    return [-signed.T @ rows, -signed.sum(axis=0), -weights_of_rows @ rows]


def bernoulli_table(fields, states):
    mean = 1.0 / (1.0 + np.exp(-fields))
    return np.prod(np.where(states[None] == 1, mean[:, None], 1 - mean[:, None]), axis=2)


def kernel(machine):
    """p(v' | v) of one block Gibbs step."""
    weights, hidden_bias, visible_bias = parameters(machine)
    v, h = all_states(len(visible_bias)), all_states(len(hidden_bias))
    return bernoulli_table(hidden_bias + v @ weights.T, h) @ bernoulli_table(
        visible_bias + h @ weights, v
    )


def number_of(row):
    return int("".join(str(int(bit)) for bit in row), 2)


def assert_unbiased(draws, truth):
    """The mean of independent gradient estimates is the truth, within four standard errors."""
    for parts, expected in zip(zip(*draws, strict=True), truth, strict=True):
        stacked = np.stack(parts)
        error = stacked.std(axis=0, ddof=1) / np.sqrt(len(stacked))
        assert (np.abs(stacked.mean(axis=0) - expected) <= 4.5 * error + 1e-9).all()
        assert error.max() < 0.05


@pytest.mark.parametrize("n_gibbs_steps", [1, 3])
def test_cd_gradient_in_expectation(n_gibbs_steps):
    """The mean over draws is dF(data) - E[dF] after k exact steps of the kernel."""
    machine, row = make_machine(4, 3), np.array([1.0, 0.0, 1.0, 1.0])
    n = 200
    after = np.linalg.matrix_power(kernel(machine), n_gibbs_steps)[number_of(row)]
    states = np.vstack([row, all_states(4)])
    truth = free_energy_gradient(machine, states, np.concatenate([[1.0], -after]))
    objective, generator = ContrastiveDivergence(n_gibbs_steps), torch.Generator().manual_seed(0)
    rows = np.tile(row, (n, 1))
    draws = [gradient_of(machine, objective, rows, {}, generator)[0] for _ in range(200)]
    assert_unbiased(draws, truth)


@pytest.mark.parametrize("n_gibbs_steps", [1, 4])
def test_pcd_gradient_in_expectation(n_gibbs_steps):
    """Chains that are at p give the gradient of -log p, whatever the number of steps."""
    machine = make_machine(5, 4)
    rows = exact_rows(make_machine(5, 4, seed=1), 50)
    truth = naive_gradient(machine, rows)
    objective = PersistentContrastiveDivergence(n_gibbs_steps)
    generator, draws = torch.Generator().manual_seed(0), []
    for seed in range(200):
        with torch.no_grad():
            start = torch.tensor(exact_rows(machine, 300, seed))
            state = {"hidden": machine.draw_hidden(start, generator)}
        draws.append(gradient_of(machine, objective, rows, state, generator)[0])
    assert_unbiased(draws, truth)


def test_chains_go_on_from_where_they_were():
    """A step renews the visible units given the old hidden ones, then the hidden ones."""
    machine = make_machine(4, 3)
    objective = PersistentContrastiveDivergence(n_chains=6)
    generator = torch.Generator().manual_seed(0)
    state = objective.init_state(machine, 100, generator)
    assert state["hidden"].shape == (6, 3)
    replay = generator.get_state()
    rows = torch.tensor(exact_rows(machine, 10))
    _, after = objective.loss(machine, Batch(rows), state, generator)
    with torch.no_grad():
        # The same draws by hand.
        twin = torch.Generator()
        twin.set_state(replay)
        v = machine.draw_visible(state["hidden"], twin)
        h = machine.draw_hidden(v, twin)
    assert torch.equal(after["hidden"], h)
    assert not after["hidden"].requires_grad


def test_chains_stay_at_p_while_the_parameters_do():
    machine, n = make_machine(4, 3), 20_000
    generator = torch.Generator().manual_seed(0)
    objective = PersistentContrastiveDivergence(n_gibbs_steps=2, n_chains=n)
    with torch.no_grad():
        state = {"hidden": machine.draw_hidden(torch.tensor(exact_rows(machine, n)), generator)}
        for _ in range(5):
            _, state = objective.loss(machine, Batch(torch.zeros(1, 4).double()), state, generator)
        v = machine.draw_visible(state["hidden"], generator).numpy().astype(int)
    p = naive_visible_probabilities(machine)
    found = np.bincount(v @ [8, 4, 2, 1], minlength=16) / n
    floor = 0.5 * np.sqrt(2 / np.pi * p * (1 - p) / n).sum()
    assert 0.5 * np.abs(found - p).sum() < 4 * floor


def test_chains_begin_at_the_base_rate_and_know_no_row():
    machine = make_machine(3, 2)
    machine.visible.bias.data = torch.tensor([-40.0, 0.0, 40.0], dtype=torch.float64)
    machine.weights.data = torch.tensor([[0.0, 80.0, 0.0], [0.0, -80.0, 0.0]], dtype=torch.float64)
    machine.hidden.bias.data = torch.tensor([-40.0, 40.0], dtype=torch.float64)
    state = PersistentContrastiveDivergence().init_state(
        machine, 4000, torch.Generator().manual_seed(0)
    )
    # Hidden unit 0 copies visible unit 1, which is on half of the time; unit 1 negates it.
    assert state["hidden"].shape == (4000, 2)
    assert torch.equal(state["hidden"].sum(dim=1), torch.ones(4000).double())
    assert abs(float(state["hidden"][:, 0].mean()) - 0.5) < 0.04


@pytest.mark.parametrize("objective", [ContrastiveDivergence(), PersistentContrastiveDivergence()])
def test_the_size_of_the_batch_does_not_scale_the_gradient(objective):
    """The loss is a mean over rows: twice the same rows give the same expected gradient."""
    machine = make_machine(4, 3)
    row = np.array([[1.0, 1.0, 0.0, 1.0]])
    generator = torch.Generator().manual_seed(0)
    state = objective.init_state(machine, 50, generator)
    data_parts = []
    for n in (1, 64):
        rows = torch.tensor(np.tile(row, (n, 1)))
        replay = torch.Generator().manual_seed(1)
        loss, _ = objective.loss(machine, Batch(rows), state, replay)
        (bias,) = torch.autograd.grad(loss, [machine.visible.bias])
        data_parts.append(bias.numpy() + row[0])  # what is left is the mean of the negatives
    for part in data_parts:
        assert (part >= -1e-12).all()
        assert (part <= 1 + 1e-12).all()


@pytest.mark.parametrize("objective", [ContrastiveDivergence(), PersistentContrastiveDivergence()])
def test_the_loss_is_a_function_of_its_generator(objective):
    machine, rows = make_machine(4, 3), exact_rows(make_machine(4, 3), 10)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    losses = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(5)
        state = objective.init_state(machine, 10, generator)
        losses.append(
            objective.loss(machine, Batch(torch.tensor(rows)), state, generator)[0].item()
        )
    assert losses[0] == losses[1]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_settings_that_are_no_counts_are_refused(value):
    for part in (ContrastiveDivergence, PersistentContrastiveDivergence):
        with pytest.raises(ValueError, match=r"n_gibbs_steps=.* must be a positive integer"):
            part(n_gibbs_steps=value)
    with pytest.raises(ValueError, match="n_chains"):
        PersistentContrastiveDivergence(n_chains=value)


# ---------------------------------------------------------------- chains that are left behind


def far_and_near(weight=None):
    """A machine of two distant clusters; rows in one of them; chains near the rows and far away."""
    machine = GaussianBilinearEnergy(
        Gaussian(torch.zeros(3).double(), torch.zeros(1).double()),
        Bernoulli(torch.tensor([-2.0, -60.0]).double()),
        torch.tensor([[2.0, 0.0, 0.0], [0.0, 9.0, 0.0]]).double(),
    )
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, dtype=torch.float64, generator=generator)
    hidden = torch.zeros(6, 2).double()
    hidden[3:, 1] = 1.0  # 60 - 81 / 2 = 19.5 nats less likely
    return machine, Batch(x, weight=weight), {"hidden": hidden}, generator


@pytest.mark.parametrize("weighted", [False, True])
def test_chains_far_above_the_rows_continue_from_one_of_them(weighted):
    weight = torch.zeros(40).double()
    weight[7] = 1.0
    machine, batch, state, generator = far_and_near(weight if weighted else None)
    if weighted:  # the one row that counts, and no other, can be continued from
        batch.x[7] = torch.tensor([5.0, 0.0, 0.0])
    kept, reset = (
        PersistentContrastiveDivergence(reset_above=bound).loss(machine, batch, state, generator)[1]
        for bound in (None, 5.0)
    )
    assert kept["hidden"][3:, 1].all()  # a chain alone hardly ever leaves
    assert not reset["hidden"][3:, 1].any()
    if weighted:
        assert reset["hidden"][3:, 0].all()


def test_chains_that_are_draws_of_the_model_are_seldom_reset():
    """The rows are such draws too: a tenth of the chains lies above nine in ten, few by 5 nats."""
    machine, _, _, generator = far_and_near()
    rows = machine.draw_visible(
        (torch.rand(4000, 2, generator=generator) < 0.1).double(), generator
    )
    rows[:, 1] -= 9.0 * (rows[:, 1] > 4.5)
    free = machine.free_energy(rows)
    source = caught_up(Batch(rows[:2000]), free, 5.0, generator)
    assert torch.equal(source[source >= 2000], torch.arange(2000, 4000)[source >= 2000])
    assert float((source < 2000).double().mean()) < 0.02


def test_states_stored_before_chains_were_reset_continue():
    former = (
        "PersistentContrastiveDivergence(n_steps=1, sampler=None, n_chains=None, restart=0.0, "
        "jump=None)"
    )
    for bound in (5.0, 2.0, None):
        assert PersistentContrastiveDivergence(reset_above=bound).continues(former)
        assert not PersistentContrastiveDivergence(2, reset_above=bound).continues(former)
