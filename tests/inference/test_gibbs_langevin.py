"""Gibbs-Langevin against the mixture in closed form: exact, corrected, and how wrong without."""

import math

import numpy as np
import pytest
import torch
from scipy.special import expit

from sklebm.inference.chains import run
from sklebm.inference.gibbs import GibbsState
from sklebm.inference.gibbs_langevin import GibbsLangevin
from sklebm.inference.langevin import Langevin
from sklebm.objectives import (
    Batch,
    ContrastiveDivergence,
    PersistentContrastiveDivergence,
    check_needs,
)
from tests.machines import all_states, make_gaussian_machine, make_machine, mixture

KINDS = ["exact", "metropolis", "none"]


def component_weights(machine):
    log_mass, _, _ = mixture(machine)
    return np.exp(log_mass - np.logaddexp.reduce(log_mass))


def exact_rows(machine, n_rows, seed=0):
    """Rows drawn independently from the mixture: a component by its weight, then a point."""
    rng = np.random.default_rng(seed)
    _, means, deviation = mixture(machine)
    chosen = rng.choice(len(means), size=n_rows, p=component_weights(machine))
    return torch.tensor(means[chosen] + deviation * rng.normal(size=(n_rows, len(deviation))))


def moments(machine):
    """Mean and covariance of the visible units, mean of the hidden, from the components."""
    p = component_weights(machine)
    _, means, deviation = mixture(machine)
    mean = p @ means
    covariance = (means - mean).T * p @ (means - mean) + np.diag(deviation**2)
    return mean, covariance, p @ all_states(machine.weights.shape[0])


def statistics(machine, v):
    """Of every row: the visible units, their products, and the hidden means."""
    v = v.numpy()
    weights, bias = machine.weights.detach().numpy(), machine.hidden.bias.detach().numpy()
    variance = np.exp(machine.visible.log_variance.detach().numpy())
    products = (v[:, :, None] * v[:, None, :]).reshape(len(v), -1)
    return np.hstack([v, products, expit(bias + (v / variance) @ weights.T)])


def expected(machine):
    mean, covariance, hidden = moments(machine)
    return np.concatenate([mean, (covariance + np.outer(mean, mean)).ravel(), hidden])


def move(machine, sampler, v, n_steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        state = sampler.init(generator, v, machine)
        for _ in range(n_steps):
            state, info = sampler.step(generator, state, machine)
    return state, info


def largest_error(machine, v):
    """Of the means of all statistics."""
    return np.abs(statistics(machine, v).mean(axis=0) - expected(machine)).max()


def largest_z(machine, v):
    """The same in standard errors."""
    found = statistics(machine, v)
    error = found.std(axis=0) / math.sqrt(len(v))
    return (np.abs(found.mean(axis=0) - expected(machine)) / error).max()


MACHINES = [
    make_gaussian_machine(1, 2),
    make_gaussian_machine(3, 3, seed=1),
    make_gaussian_machine(2, 4, seed=2, shared=True),
]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    "sampler",
    [
        GibbsLangevin(),
        GibbsLangevin(1.5, 1),
        GibbsLangevin(3.0, 2),
        GibbsLangevin(0.5, 3, "metropolis"),
        GibbsLangevin(1.2, 1, "metropolis"),
    ],
    ids=repr,
)
def test_exact_and_corrected_steps_leave_the_mixture_invariant(machine, sampler):
    start = exact_rows(machine, 50_000)
    assert largest_z(machine, start) < 4.5
    state, info = move(machine, sampler, start, 8)
    assert info.moved.double().mean() > 0.4
    assert largest_z(machine, state.visible) < 4.5
    hidden = state.hidden.mean(dim=0).numpy()
    assert np.abs(hidden - moments(machine)[2]).max() < 4.5 * 0.5 / math.sqrt(50_000)


@pytest.mark.parametrize("sampler", [GibbsLangevin(), GibbsLangevin(1.0, 4, "metropolis")])
def test_chains_that_start_elsewhere_come_to_the_mixture(sampler):
    machine = MACHINES[1]
    start = torch.full((20_000, 3), 5.0, dtype=torch.float64)
    assert largest_error(machine, start) > 5.0
    assert largest_z(machine, move(machine, sampler, start, 150)[0].visible) < 4.5


def test_the_error_of_plain_steps_is_seen_and_shrinks_with_their_square():
    machine, errors = MACHINES[1], []
    for step_size in (1.6, 0.8, 0.4):
        sampler = GibbsLangevin(step_size, 8, "none")
        state, _ = move(machine, sampler, exact_rows(machine, 200_000), 30)
        errors.append(largest_error(machine, state.visible))
        assert largest_z(machine, state.visible) > 9
    assert errors[0] > 4 * errors[1] > 12 * errors[2]


@pytest.mark.parametrize("step_size", [0.4, 1.3])
@pytest.mark.parametrize("n_steps", [1, 5])
def test_one_draw_is_as_many_langevin_steps(step_size, n_steps):
    """Given h, next to the plain Langevin sampler on the energy of the same Gaussian."""
    machine, n = MACHINES[1], 100_000
    with torch.no_grad():
        h = torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64).expand(n, -1)
        mean, deviation = machine.visible_field(h), (0.5 * machine.visible.log_variance).exp()
        start = mean + 2.0 * deviation
        generator = torch.Generator().manual_seed(0)
        sampler = GibbsLangevin(step_size, n_steps, "none")
        found, _ = sampler.move_visible(generator, GibbsState(start, h), machine)

    class Normal:
        def free_energy(self, u):
            return 0.5 * u.square().sum(dim=1)

    chain = Langevin(step_size)
    state = chain.init(generator, torch.full((n, 3), 2.0, dtype=torch.float64), Normal())
    u = run(chain, generator, state, Normal(), n_steps).position
    ours = (found - mean) / deviation
    error = 4.5 * math.sqrt(2 / n)
    np.testing.assert_allclose(ours.mean(dim=0), u.mean(dim=0), atol=error * float(u.std()))
    np.testing.assert_allclose(ours.var(dim=0), u.var(dim=0), rtol=2 * error)


def test_exact_steps_are_the_limit_of_many_small_ones():
    machine = MACHINES[1]
    state = GibbsState(exact_rows(machine, 1000) + 3.0, torch.ones(1000, 3, dtype=torch.float64))
    ends = []
    for sampler in (GibbsLangevin(0.8, 2), GibbsLangevin(0.8 / 100, 2 * 100**2, "none")):
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            ends.append(sampler.move_visible(generator, state, machine)[0])
    # The same noise: what differs is how much of the start is kept, and how far the noise goes.
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-3, atol=1e-3)


def test_where_nothing_couples_plain_steps_are_too_noisy_by_a_known_factor():
    machine = make_gaussian_machine(2, 1)
    machine.weights.data *= 0.0
    start = exact_rows(machine, 100_000)
    for kind, factor in (("none", 1.0 / (1.0 - 0.25)), ("metropolis", 1.0), ("exact", 1.0)):
        state, _ = move(machine, GibbsLangevin(1.0, 30, kind), start, 3)
        variance = machine.visible.log_variance.exp().detach().numpy()
        np.testing.assert_allclose(state.visible.var(dim=0), factor * variance, rtol=0.03)


def test_block_gibbs_is_the_limit_and_mixes_no_slower():
    """What a step keeps of the visible units can only make neighbours more alike."""
    machine = MACHINES[1]
    start = exact_rows(machine, 50_000)
    likeness = []
    for n_steps in (1, 4, 1000):
        end = move(machine, GibbsLangevin(0.7, n_steps), start, 1)[0].visible
        likeness.append(np.corrcoef(start[:, 0], end[:, 0])[0, 1])
    assert likeness[0] > likeness[1] + 0.05 > likeness[2] + 0.1
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        end = machine.draw_visible(machine.draw_hidden(start, generator), generator)
    assert likeness[2] == pytest.approx(np.corrcoef(start[:, 0], end[:, 0])[0, 1], abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_known_features_stay_and_the_others_have_their_conditional_distribution(kind):
    """Given v_0, v_1 is a mixture whose weights the density of v_0 changes."""
    machine, n = MACHINES[2], 50_000
    value = 0.8
    _, means, deviation = mixture(machine)
    p = component_weights(machine) * np.exp(-0.5 * ((value - means[:, 0]) / deviation[0]) ** 2)
    truth = p @ means[:, 1] / p.sum()
    known = torch.tensor([[True, False]]).expand(n, -1)
    state = GibbsState(torch.full((n, 2), value, dtype=torch.float64), None)
    sampler, generator = GibbsLangevin(0.6, 4, kind), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(100):
            state = state._replace(hidden=machine.draw_hidden(state.visible, generator))
            v, _ = sampler.move_visible(generator, state, machine, known)
            state = state._replace(visible=v)
    assert (v[:, 0] == value).all()
    limit = 0.05 if kind == "none" else 4.5 / math.sqrt(n)
    assert abs(float(v[:, 1].mean()) - truth) < limit * float(v[:, 1].std())


def test_only_the_correction_refuses_and_does_so_with_many_features():
    machine = make_gaussian_machine(784, 1, scale=0.1)
    rows = exact_rows(machine, 2000)
    _, info = move(machine, GibbsLangevin(2.0 / 784**0.25, 100, "metropolis"), rows, 2)
    # The log ratio is normal with mean -1/2 and deviation 1, whose acceptance is 2 Phi(-1/2).
    assert float(info.acceptance.mean()) == pytest.approx(0.617, abs=0.05)
    for kind in ("exact", "none"):
        _, info = move(machine, GibbsLangevin(0.5, 10, kind), rows[:100], 2)
        assert info.moved.all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_proposal_that_is_no_number_is_a_rejection(kind):
    machine = make_gaussian_machine(2, 2)
    v = torch.tensor([[1.0, 2.0], [math.inf, 0.0]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        state = GibbsState(v, torch.ones(2, 2, dtype=torch.float64))
        after, info = GibbsLangevin(0.5, 2, kind).move_visible(generator, state, machine)
    assert torch.equal(after[1], v[1])
    assert not info.moved[1]
    assert torch.isfinite(info.acceptance).all()


def test_steps_are_pure():
    machine, sampler = MACHINES[1], GibbsLangevin()
    start = exact_rows(machine, 20)
    before = start.clone()
    runs = [move(machine, sampler, start, 2, seed)[0] for seed in (0, 0, 1)]
    assert torch.equal(runs[0].visible, runs[1].visible)
    assert not torch.equal(runs[0].visible, runs[2].visible)
    assert torch.equal(start, before)


# ---------------------------------------------------------------- as part of an objective


def naive_gradient(machine, rows):
    """Gradient of the mean of F over ``rows``, by autograd."""
    tensors = [machine.weights, machine.hidden.bias, machine.visible.bias]
    return torch.autograd.grad(machine.free_energy(rows).mean(), tensors)


@pytest.mark.parametrize("sampler", [GibbsLangevin(), GibbsLangevin(0.8, 2, "metropolis")])
@pytest.mark.parametrize("kind", [ContrastiveDivergence, PersistentContrastiveDivergence])
def test_gradients_of_rows_of_the_model_vanish(kind, sampler):
    """Rows and chains have the model's distribution, before and after steps that keep it."""
    machine, n = MACHINES[2], 100_000
    rows = exact_rows(machine, n)
    objective, generator = kind(2, sampler=sampler), torch.Generator().manual_seed(0)
    state = {}
    if kind is PersistentContrastiveDivergence:
        start = exact_rows(machine, n, seed=1)
        with torch.no_grad():
            state = {"visible": start, "hidden": machine.draw_hidden(start, generator)}
    loss, after = objective.loss(machine, Batch(rows), state, generator)
    tensors = [machine.weights, machine.hidden.bias, machine.visible.bias]
    for gradient in torch.autograd.grad(loss, tensors):
        assert gradient.abs().max() < 0.06
    # Rows of another machine have a gradient.
    other = exact_rows(make_gaussian_machine(2, 4, seed=5), 1000)
    assert max(g.abs().max() for g in naive_gradient(machine, other)) > 0.2
    assert set(after) == set(state)


def test_persistent_chains_go_on_from_where_they_were():
    machine, sampler = MACHINES[1], GibbsLangevin(0.3, 1)
    objective = PersistentContrastiveDivergence(n_chains=7, sampler=sampler, reset_above=None)
    generator = torch.Generator().manual_seed(0)
    state = objective.init_state(machine, 100, generator)
    replay = generator.get_state()
    _, after = objective.loss(machine, Batch(exact_rows(machine, 10)), state, generator)
    twin = torch.Generator()
    twin.set_state(replay)
    with torch.no_grad():
        v, _ = sampler.move_visible(twin, GibbsState(state["visible"], state["hidden"]), machine)
        h = machine.draw_hidden(v, twin)
    assert torch.equal(after["visible"], v)
    assert torch.equal(after["hidden"], h)
    assert (v - state["visible"]).abs().mean() < (v - state["visible"].flip(0)).abs().mean()


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("value", [0.0, -1.0, 2.0, math.nan, math.inf, "small"])
@pytest.mark.parametrize("kind", KINDS)
def test_step_sizes_are_checked(kind, value):
    if (kind, value) == ("exact", 2.0):
        assert GibbsLangevin(2.0).step_size == 2.0
        return
    with pytest.raises(ValueError, match=r"step_size=.* must be a positive number"):
        GibbsLangevin(value, correction=kind)


def test_other_settings_are_checked():
    with pytest.raises(ValueError, match="n_langevin_steps=0 must be a positive integer"):
        GibbsLangevin(n_langevin_steps=0)
    with pytest.raises(
        ValueError, match=r'correction=True must be "exact", "metropolis" or "none"'
    ):
        GibbsLangevin(correction=True)
    for kind in (ContrastiveDivergence, PersistentContrastiveDivergence):
        with pytest.raises(ValueError, match=r"sampler='langevin' must be a sampler, such as HMC"):
            kind(sampler="langevin")


def test_bits_do_not_move_by_langevin_steps():
    objective = ContrastiveDivergence(sampler=GibbsLangevin())
    with pytest.raises(ValueError, match="needs real rows, because it moves them by Langevin"):
        check_needs(objective, make_machine(2, 2), [ContrastiveDivergence()])
    check_needs(objective, MACHINES[0], [])
    objective = ContrastiveDivergence(sampler=Langevin())
    with pytest.raises(ValueError, match="needs real rows, because it moves them along the grad"):
        check_needs(objective, make_machine(2, 2), [])
    check_needs(objective, MACHINES[0], [])
