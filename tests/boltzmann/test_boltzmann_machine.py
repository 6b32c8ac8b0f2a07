"""BoltzmannMachine: sums over all states, Kaufman's torus, and what it learns from exact rows."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp

from sklebm import BernoulliRBM, BoltzmannMachine
from sklebm.boltzmann._structure import coupled_pairs
from sklebm.energies import Bernoulli, PairwiseEnergy
from sklebm.energies.pairwise import colour_classes
from sklebm.inference import variational_partition
from sklebm.inference.gibbs_sweeps import GibbsSweeps, sweep
from sklebm.inference.pairwise_path import PairwisePath
from sklebm.objectives import (
    Batch,
    ContrastiveDivergence,
    MaximumLikelihood,
    MinimumProbabilityFlow,
    NoiseContrastive,
    PersistentContrastiveDivergence,
    PseudoLikelihood,
    RatioMatching,
)
from sklebm.training.pairwise_centring import PairwiseCentring
from tests.machines import all_states

LINE_SEARCH = {"optimizer": "lbfgs", "learning_rate": 1.0, "learning_rate_schedule": "constant"}


def random_machine(n_visible, n_hidden=0, scale=1.0, seed=0, mask=None):
    """A machine with random couplings in float64."""
    rng = np.random.default_rng(seed)
    n_units = n_visible + n_hidden
    weights = np.triu(scale * rng.standard_normal((n_units, n_units)), 1)
    if mask is not None:
        weights = weights * mask
    biases = scale * rng.standard_normal(n_units)
    visible, hidden = (torch.tensor(part) for part in np.split(biases, [n_visible]))
    return PairwiseEnergy(Bernoulli(visible), Bernoulli(hidden), torch.tensor(weights + weights.T))


def minus_energies(machine):
    """-E(s) of all states, pair by pair, (2^n_visible, 2^n_hidden)."""
    W, b = machine.couplings().detach().numpy(), machine.biases().detach().numpy()
    states = all_states(len(b))
    total = states @ b
    for i in range(len(b)):
        for j in range(i):
            total = total + W[i, j] * states[:, i] * states[:, j]
    return total.reshape(2**machine.n_visible, -1)


def exact_rows(machine, n_rows, seed=0):
    """Rows drawn independently from p(x)."""
    joint = minus_energies(machine)
    p = np.exp(logsumexp(joint, axis=1) - logsumexp(joint))
    states = all_states(machine.n_visible)
    return states[np.random.default_rng(seed).choice(len(p), size=n_rows, p=p)]


def torus(side, K):
    """Spins of +-1 with coupling K between neighbours on a torus, as bits."""
    row, column = np.divmod(np.arange(side**2), side)
    W = np.zeros((side**2, side**2))
    for i, (r, c) in enumerate(zip(row, column, strict=True)):
        for j in (r * side + (c + 1) % side, (r + 1) % side * side + c):
            W[i, j] += 4 * K
            W[j, i] += 4 * K
    return BoltzmannMachine.from_parameters(
        couplings=W, intercept_visible=np.full(side**2, -8.0 * K)
    )


SHAPES = [(5, 0), (4, 3), (2, 4)]


# ---------------------------------------------------------------- sums


@pytest.mark.parametrize(("n_visible", "n_hidden"), SHAPES)
@pytest.mark.parametrize("structure", ["full", "grid"])
def test_free_energy_log_z_and_means_are_sums_over_all_states(n_visible, n_hidden, structure):
    mask = coupled_pairs(structure, None, n_visible, n_hidden, "").numpy()
    machine = random_machine(n_visible, n_hidden, mask=mask)
    joint, v = minus_energies(machine), torch.tensor(all_states(n_visible))
    free = machine.free_energy(v).detach().numpy()
    # Double precision rounds numbers of size 10 at 1e-15.
    np.testing.assert_allclose(-free, logsumexp(joint, axis=1), atol=1e-12)
    assert float(machine.exact_log_partition().detach()) == pytest.approx(
        logsumexp(joint), abs=1e-12
    )
    posterior = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    with torch.no_grad():
        found = machine.hidden_mean(v).numpy()
        flips = machine.flip_differences(v).numpy()
    if n_hidden:
        np.testing.assert_allclose(found, posterior @ all_states(n_hidden), atol=1e-12)
    else:
        assert found.shape == (2**n_visible, 0)
    for i in range(n_visible):
        flipped = v.clone()
        flipped[:, i] = 1 - flipped[:, i]
        expected = machine.free_energy(flipped).detach().numpy() - free
        np.testing.assert_allclose(flips[:, i], expected, atol=1e-12)


def test_sums_in_blocks_are_sums_at_once(monkeypatch):
    machine, v = random_machine(4, 5), torch.tensor(all_states(4))
    whole = machine.free_energy(v), machine.exact_log_partition()
    monkeypatch.setattr("sklebm.energies.pairwise._BLOCK", 64)
    parts = machine.free_energy(v), machine.exact_log_partition()
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)
        gradients = [torch.autograd.grad(x.sum(), machine.weights)[0] for x in (one, other)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("n_visible", "n_hidden"), SHAPES)
def test_gradient_of_the_likelihood_is_that_of_the_enumeration(n_visible, n_hidden):
    """Data minus model expectations of every pair and unit, to 1e-8."""
    machine = random_machine(n_visible, n_hidden)
    rows = exact_rows(random_machine(n_visible, n_hidden, seed=1), 50)
    loss, _ = MaximumLikelihood().loss(machine, Batch(torch.tensor(rows)), {}, None)
    loss.backward()
    joint = minus_energies(machine).ravel()
    p, states = np.exp(joint - logsumexp(joint)), all_states(n_visible + n_hidden)
    model = states.T @ (p[:, None] * states)
    data = np.zeros_like(model)
    for row in rows:
        at = (states[:, :n_visible] == row).all(axis=1)
        given = np.exp(joint[at] - logsumexp(joint[at]))
        data += states[at].T @ (given[:, None] * states[at]) / len(rows)
    gap = model - data
    found = machine.weights.grad.numpy()
    # Either entry of a pair holds half of its derivative.
    np.testing.assert_allclose(found, 0.5 * (gap - np.diag(np.diag(gap))), atol=1e-8)
    biases = torch.cat([machine.visible.bias.grad, machine.hidden.bias.grad]).numpy()
    np.testing.assert_allclose(biases, np.diag(gap), atol=1e-8)
    assert float(loss.detach()) == pytest.approx(
        -np.mean([logsumexp(joint[(states[:, :n_visible] == row).all(axis=1)]) for row in rows])
        + logsumexp(joint),
        abs=1e-12,
    )


def test_pseudo_likelihood_and_its_relatives_are_their_definitions():
    """Over all states, weighted by a random density: conditionals from the table of p(x)."""
    machine, n = random_machine(4, 2), 4
    joint = minus_energies(machine)
    log_p = logsumexp(joint, axis=1) - logsumexp(joint)
    states = all_states(n)
    numbers = states @ (1 << np.arange(n)[::-1])
    losses = dict.fromkeys(("pl", "rm", "mpf"), 0.0)
    for at, _row in enumerate(states):
        for i in range(n):
            other = int(numbers[at]) ^ (1 << (n - 1 - i))
            ratio = log_p[at] - log_p[other]
            losses["pl"] += np.logaddexp(0, -ratio) / len(states)
            losses["rm"] += expit(-ratio) ** 2 / len(states)
            losses["mpf"] += np.exp(-0.5 * ratio) / len(states)
    batch, generator = Batch(torch.tensor(states)), torch.Generator()
    for name, objective in (
        ("pl", PseudoLikelihood()),
        ("rm", RatioMatching()),
        ("mpf", MinimumProbabilityFlow()),
    ):
        loss, _ = objective.loss(machine, batch, {}, generator)
        assert float(loss.detach()) == pytest.approx(losses[name], rel=1e-12), name


def test_pseudo_likelihood_is_likelihood_with_two_units():
    """With one coupling, both are maximal at the moments of the data; rounding of float32."""
    rows = exact_rows(random_machine(2, scale=1.5), 500)
    fits = [
        BoltzmannMachine(objective=name, max_epochs=20, **LINE_SEARCH).fit(rows)
        for name in ("pseudo_likelihood", "maximum_likelihood")
    ]
    np.testing.assert_allclose(fits[0].couplings_, fits[1].couplings_, atol=2e-3)
    counts = np.array([(rows == state).all(axis=1).mean() for state in all_states(2)])
    for model in fits:
        p = np.exp(model.score_samples(all_states(2)))
        np.testing.assert_allclose(p, counts, atol=2e-4)


# ---------------------------------------------------------------- bounds and approximations


def test_mean_field_is_a_bound_and_bethe_is_close_and_exact_on_trees():
    for seed in range(4):
        machine = random_machine(7, scale=0.7, seed=seed)
        truth = float(machine.exact_log_partition().detach())
        arguments = machine.couplings().detach(), machine.biases().detach()
        bound = variational_partition.mean_field(*arguments, machine.classes)
        close = variational_partition.bethe(*arguments)
        assert bound.settled
        assert close.settled
        assert bound.value < truth
        assert abs(close.value - truth) < 0.2 * (truth - bound.value) + 0.01
        # A tree: every unit is coupled to one of those before it.
        rng = np.random.default_rng(seed)
        mask = np.zeros((7, 7), dtype=bool)
        for i in range(1, 7):
            mask[rng.integers(i), i] = True
        tree = random_machine(7, scale=2.0, seed=seed, mask=mask)
        found = variational_partition.bethe(tree.couplings().detach(), tree.biases().detach())
        assert found.value == pytest.approx(float(tree.exact_log_partition().detach()), abs=1e-10)
        joint = minus_energies(tree)[:, 0]
        means = np.exp(joint - logsumexp(joint)) @ all_states(7)
        np.testing.assert_allclose(found.means.numpy(), means, atol=1e-10)


@pytest.mark.parametrize("size", [20.0, 40.0, 100.0, 800.0, -800.0])
def test_belief_propagation_is_exact_on_a_tree_of_large_couplings(size):
    """p p' rounds to 1, e^W overflows: two units that exclude, or need, each other."""
    couplings = torch.tensor([[0.0, -2.0 * size], [-2.0 * size, 0.0]], dtype=torch.float64)
    biases = torch.tensor([size, size + 0.5], dtype=torch.float64)
    found = variational_partition.bethe(couplings, biases)
    truth = np.logaddexp.reduce([0.0, size, size + 0.5, 0.5])
    assert found.settled
    assert found.value == pytest.approx(truth, abs=1e-10)


def test_mean_field_of_a_row_does_not_depend_on_the_others():
    """Some rows need more sweeps: those that have settled wait."""
    machine = random_machine(6, scale=1.5, seed=1)
    W, b, classes = machine.couplings().detach(), machine.biases().detach(), machine.classes
    start = torch.rand(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    together, _ = variational_partition.mean_field_means(W, b, classes, start, tol=1e-3)
    alone = [
        variational_partition.mean_field_means(W, b, classes, row[None], tol=1e-3)[0]
        for row in start
    ]
    np.testing.assert_allclose(together.numpy(), torch.cat(alone).numpy(), atol=1e-14)


def test_the_bound_of_mean_field_is_stationary_and_rises_with_every_sweep():
    machine = random_machine(6, seed=3)
    W, b = machine.couplings().detach(), machine.biases().detach()

    def bound(m):
        value = 0.5 * ((m @ W) * m).sum(dim=1) + m @ b + variational_partition.entropy(m)
        return float(value)

    m = torch.full((1, 6), 0.5, dtype=torch.float64)
    values = [bound(m)]
    for _ in range(30):
        m = sweep(m, W, b, machine.classes, None)
        values.append(bound(m))
    assert (np.diff(values) > -1e-12).all()
    assert values[-1] > values[0]
    found = variational_partition.mean_field(W, b, machine.classes)
    assert found.value == pytest.approx(values[-1], abs=1e-6)


def test_variational_log_partition_is_that_of_the_fitted_machine(monkeypatch):
    model = torus(4, 0.2)
    # By symmetry, spins of mean zero and pairs of independent neighbours: no bound on the truth of
    # 11.7714703585 - 6.4, which mean field is.
    mean_field, bethe = 16 * np.log(2.0), 16 * np.log(2.0) + 32 * np.log(np.cosh(0.2))
    found = model.variational_log_partition("mean_field")
    assert found == pytest.approx(mean_field - 32 * 0.2, abs=1e-8)
    assert model.variational_log_partition() == pytest.approx(bethe - 32 * 0.2, abs=1e-8)
    with pytest.raises(ValueError, match='must be "mean_field" or "bethe"'):
        model.variational_log_partition("kikuchi")
    one_round = partial(variational_partition.bethe, max_iter=1)
    monkeypatch.setattr("sklebm.boltzmann._completion.bethe", one_round)
    with pytest.warns(UserWarning, match="did not converge"):
        model.variational_log_partition()


# ---------------------------------------------------------------- the torus


@pytest.mark.parametrize(
    ("K", "truth"), [(0.2, 11.7714703585), (0.4406868, 15.5219156213), (0.6, 20.0565328843)]
)
def test_log_z_of_the_small_torus_is_kaufmans(K, truth):
    model = torus(4, K).estimate_log_partition("exact")
    assert model.log_partition_ + 32 * K == pytest.approx(truth, abs=1e-8)
    assert model._energy(torch.device("cpu")).summed_units == 8


@pytest.mark.parametrize("method", ["ais", "bridge"])
def test_log_z_of_the_large_torus_is_within_its_interval(method):
    """16 x 16 spins at K = 0.2; benchmarks/bench_ising_torus.py has the colder ones."""
    truth = 188.0398879560 - 512 * 0.2
    settings = {"n_temperatures": 100} if method == "ais" else {"n_steps": 20}
    model = torus(16, 0.2).estimate_log_partition(method, n_chains=50, random_state=0, **settings)
    low, high = model.log_partition_interval_
    assert low <= truth <= high
    assert abs(model.log_partition_ - truth) < 0.05


def test_annealing_agrees_with_the_sum_on_a_frustrated_graph():
    model = BoltzmannMachine.from_parameters(
        couplings=random_machine(8, seed=5).couplings().detach().numpy(),
        intercept_visible=random_machine(8, seed=5).biases().detach().numpy(),
    )
    truth = model.estimate_log_partition("exact").log_partition_
    model.estimate_log_partition("ais", n_temperatures=50, random_state=0)
    low, high = model.log_partition_interval_
    assert low <= truth <= high
    assert high - low < 0.8


def test_the_path_is_the_marginal_of_the_machine_at_either_end():
    machine = random_machine(4, 2)
    path = PairwisePath.to(machine, torch.zeros(4, dtype=torch.float64))
    s = torch.tensor(all_states(6))
    with torch.no_grad():
        weight = path.log_weight(s, path.observe(s), 0.0, 1.0)
        log_p = path.log_base_density(s) + path.log_z0() + weight
    joint = minus_energies(machine).ravel()
    states = all_states(6)
    for at in range(0, 64, 7):
        same = (states[:, path.kept.numpy()] == states[at, path.kept.numpy()]).all(axis=1)
        assert float(log_p[at]) == pytest.approx(logsumexp(joint[same]), abs=1e-12)
    assert path.log_z0() == pytest.approx(6 * np.log(2))


@pytest.mark.parametrize("t", [1.0, 0.4])
def test_a_step_of_the_path_leaves_its_density_invariant(t):
    """From exact draws at t, a step more leaves every state its share, within sampling error."""
    machine = random_machine(3, 1, seed=2)
    path = PairwisePath.to(machine, torch.zeros(3, dtype=torch.float64))
    joint = t * minus_energies(machine).ravel()
    p, states = np.exp(joint - logsumexp(joint)), all_states(4)
    n = 40_000
    start = states[np.random.default_rng(0).choice(16, size=n, p=p)]
    s, generator = torch.tensor(start), torch.Generator().manual_seed(0)
    temperature = torch.full((n, 1), t, dtype=torch.float64) if t < 1 else t
    with torch.no_grad():
        s = path.move(s, path.observe(s), temperature, generator)
    shares = np.bincount((s.numpy() @ [8, 4, 2, 1]).astype(int), minlength=16) / n
    # Five standard errors of a share.
    assert (np.abs(shares - p) < 5 * np.sqrt(p * (1 - p) / n)).all()


def test_classes_have_no_couplings_inside():
    mask = coupled_pairs("grid", (4, 5), 20, 3, "")
    classes = colour_classes(mask)
    assert sorted(torch.cat(classes).tolist()) == list(range(23))
    assert all(not mask[units][:, units].any() for units in classes)
    assert len(classes) == 3  # two colours of the board, and the hidden units
    assert len(colour_classes(coupled_pairs("full", None, 6, 0, ""))) == 6
    path = PairwisePath(mask.double(), torch.zeros(23), torch.zeros(23), classes)
    assert len(path.summed) == 10


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize(
    ("objective", "slack"),
    [
        ("maximum_likelihood", 1.0),
        # Their variance exceeds that of maximum likelihood by less than a half here.
        ("pseudo_likelihood", 1.5),
        ("minimum_probability_flow", 2.0),
        ("ratio_matching", 2.0),
    ],
)
def test_objectives_recover_the_machine_that_made_the_rows(objective, slack):
    """The held-out gap is that of 15 parameters from 4000 rows: 15 / 8000 on average."""
    truth = random_machine(5, scale=0.7, seed=4)
    rows, tests = exact_rows(truth, 4000), torch.tensor(all_states(5))
    model = BoltzmannMachine(objective=objective, max_epochs=10, **LINE_SEARCH).fit(rows)
    joint = minus_energies(truth)[:, 0]
    log_p = joint - logsumexp(joint)
    gap = float(np.exp(log_p) @ (log_p - model.score_samples(tests.numpy())))
    # The sum of 15 squares of mean 1 / 8000 is below 31 / 8000 in 99 of 100 cases.
    assert 0 <= gap < slack * 31 / 8000


@pytest.mark.parametrize(
    ("objective", "structure", "n_components"),
    [
        (PersistentContrastiveDivergence(2, n_chains=100), "full", 2),
        ("cd", "grid", 3),
        (NoiseContrastive(), "full", 0),
        ("pcd", "full", 0),
    ],
)
def test_stochastic_objectives_beat_independent_units(objective, structure, n_components):
    truth = random_machine(5, scale=1.5, seed=7)
    rows, tests = exact_rows(truth, 2000), exact_rows(truth, 4000, seed=1)
    model = BoltzmannMachine(
        n_components, objective=objective, structure=structure, learning_rate=0.3,
        max_epochs=5, random_state=0,
    ).fit(rows)  # fmt: skip
    p = rows.mean(axis=0).clip(1e-3, 1 - 1e-3)
    independent = (tests * np.log(p) + (1 - tests) * np.log(1 - p)).sum(axis=1).mean()
    joint = minus_energies(truth)[:, 0]
    best = np.exp(joint - logsumexp(joint)) @ (joint - logsumexp(joint))
    assert model.score(tests) > independent + 0.5 * (best - independent)


@pytest.mark.parametrize("kind", [ContrastiveDivergence, PersistentContrastiveDivergence])
def test_long_chains_give_the_gradient_of_the_likelihood(kind):
    """And one sweep from the rows another one: that of contrastive divergence is biased."""
    machine = random_machine(4, 2, scale=1.5, seed=3)
    rows = torch.tensor(all_states(4)[[1, 6, 6, 11]]).repeat(20_000, 1)
    parameters = list(machine.parameters())
    exact, _ = MaximumLikelihood().loss(machine, Batch(rows), {}, torch.Generator())
    truth = torch.autograd.grad(exact, parameters)
    errors = []
    for n_steps in (1, 50):
        generator = torch.Generator().manual_seed(0)
        if kind is ContrastiveDivergence:
            objective, state = kind(n_steps), {}
        else:
            objective = kind(n_steps, n_chains=len(rows))
            state = objective.init_state(machine, len(rows), generator)
        loss, _ = objective.loss(machine, Batch(rows), state, generator)
        found = torch.autograd.grad(loss, parameters)
        errors.append(max(float((a - b).abs().max()) for a, b in zip(found, truth, strict=True)))
    # 80,000 independent draws of numbers between 0 and 1, and of the weights either half.
    assert errors[1] < 5 * 0.5 / 80_000**0.5
    assert errors[0] > 0.03


def test_flow_recovers_couplings_of_many_spins():
    """J ~ N(0, 1 / n) between n = 20 spins: the error of 190 couplings from 10,000 rows.

    benchmarks/bench_minimum_probability_flow.py has the hundred spins of the paper.
    """
    n, n_rows = 20, 10_000
    J = np.triu(np.random.default_rng(0).standard_normal((n, n)) / np.sqrt(n), 1)
    J = J + J.T
    source = BoltzmannMachine.from_parameters(couplings=4 * J, intercept_visible=-2 * J.sum(axis=0))
    rows = source.sample(n_rows, n_steps=60, random_state=0)
    model = BoltzmannMachine(
        objective="minimum_probability_flow", max_epochs=5, log_partition=None, **LINE_SEARCH
    ).fit(rows)
    error = np.square(np.triu(model.couplings_ / 4 - J)).sum()
    # Cramer and Rao: no unbiased estimate of all couplings and fields has a smaller expected
    # error. The flow needs little more: a fifth of the error for its inefficiency and for chance,
    # sqrt(2 / 190) of a sum of 190 squares.
    spins = 2 * rows - 1
    pairs = np.triu_indices(n, 1)
    statistics = np.hstack([spins[:, pairs[0]] * spins[:, pairs[1]], spins])
    least = np.trace(np.linalg.inv(np.cov(statistics.T))[: len(pairs[0]), : len(pairs[0])]) / n_rows
    assert error < 1.2**2 * least
    assert error < 0.02 * np.square(np.triu(J)).sum()


def test_centred_steps_do_not_depend_on_which_state_is_one():
    rows = exact_rows(random_machine(4, scale=1.5), 300)
    flipped = rows.copy()
    flipped[:, [0, 2]] = 1 - flipped[:, [0, 2]]
    settings = {"max_epochs": 5, "random_state": 0}
    plain, other = (BoltzmannMachine(**settings).fit(x) for x in (rows, flipped))
    # The order of batches is that of the seed; what remains is rounding in float32.
    np.testing.assert_allclose(other.score_samples(flipped), plain.score_samples(rows), atol=1e-4)
    plain, other = (BoltzmannMachine(centering=False, **settings).fit(x) for x in (rows, flipped))
    assert abs(other.score_samples(flipped) - plain.score_samples(rows)).max() > 1e-2


def test_a_centred_step_is_one_of_the_centred_parameters():
    """A step down the gradient in (W, b + W m) by autograd, back in W and b, by its definition."""
    machine = random_machine(3, 2, seed=1)
    rows = torch.tensor(exact_rows(random_machine(3, scale=1.5), 40))
    m = torch.tensor([0.3, 0.8, 0.5, 0.1, 0.6], dtype=torch.float64)
    W, b = (part.detach().clone() for part in (machine.couplings(), machine.biases()))
    pairs = torch.triu_indices(5, 5, offset=1)
    couplings = W[pairs[0], pairs[1]].requires_grad_()
    centred = (b + W @ m).requires_grad_()

    def plain(couplings, centred):
        half = torch.zeros(5, 5, dtype=torch.float64).index_put((pairs[0], pairs[1]), couplings)
        weights = half + half.T
        return weights, centred - weights @ m

    def exponents(weights, biases):
        s = torch.tensor(all_states(5))
        return (s @ weights * s).sum(dim=1) / 2 + s @ biases

    joint = exponents(*plain(couplings, centred)).reshape(8, 4)  # visible by hidden states
    seen = (rows @ rows.new_tensor([4, 2, 1])).long()
    loss = torch.logsumexp(joint.flatten(), 0) - torch.logsumexp(joint, 1)[seen].mean()
    of_couplings, of_centred = torch.autograd.grad(loss, (couplings, centred))
    rate = 0.1
    expected = plain(couplings - rate * of_couplings, centred - rate * of_centred)

    transform = PairwiseCentring(machine, m[:3], m[3:], follows=False)
    own, _ = MaximumLikelihood().loss(machine, Batch(rows), {}, torch.Generator())
    gradients = torch.autograd.grad(own, list(machine.parameters()))
    moved, _ = transform.update(
        list(zip(machine.parameters(), gradients, strict=True)),
        Batch(rows),
        transform.init(),
        1.0,
    )
    with torch.no_grad():
        for parameter, gradient in moved:
            parameter -= rate * gradient
    for ours, truth in zip((machine.couplings(), machine.biases()), expected, strict=True):
        torch.testing.assert_close(ours, truth, rtol=0, atol=1e-12)


def test_couplings_stay_in_the_structure():
    rows = exact_rows(random_machine(6, scale=1.5), 200)
    mask = coupled_pairs("grid", (2, 3), 6, 0, "").numpy()
    for settings in ({"structure": "grid", "image_shape": (2, 3)}, {"structure": mask}):
        model = BoltzmannMachine(max_epochs=3, optimizer="adam", random_state=0, **settings)
        W = model.fit(rows).couplings_
        assert ((W != 0) == mask).all()
        np.testing.assert_array_equal(W, W.T)
    model.partial_fit(rows)
    assert ((model.couplings_ != 0) == mask).all()


# ---------------------------------------------------------------- sampling and completion


def test_draws_have_the_shares_of_their_states():
    machine = random_machine(3, 1, seed=1)
    model = BoltzmannMachine.from_parameters(
        couplings=machine.couplings().detach().numpy(),
        intercept_visible=machine.visible.bias.detach().numpy(),
        intercept_hidden=machine.hidden.bias.detach().numpy(),
    )
    joint = minus_energies(machine)
    p = np.exp(logsumexp(joint, axis=1) - logsumexp(joint))
    draws = model.sample(20_000, n_steps=40, random_state=0)
    moved = model.gibbs(draws, 2, random_state=1)
    for rows in (draws, moved):
        shares = np.bincount((rows @ [4, 2, 1]).astype(int), minlength=8) / len(rows)
        assert (np.abs(shares - p) < 5 * np.sqrt(p * (1 - p) / len(rows))).all()
    clamped = model.sample(20_000, n_steps=40, clamped=[np.nan, 1.0, np.nan], random_state=2)
    assert (clamped[:, 1] == 1).all()
    given = p.reshape(2, 2, 2)[:, 1] / p.reshape(2, 2, 2)[:, 1].sum()
    shares = np.bincount((clamped[:, [0, 2]] @ [2, 1]).astype(int), minlength=4) / 20_000
    assert (np.abs(shares - given.ravel()) < 5 * np.sqrt(0.25 / 20_000)).all()


@pytest.mark.parametrize("n_hidden", [0, 2])
def test_conditional_means_are_those_of_the_enumeration(n_hidden):
    machine = random_machine(4, n_hidden, seed=6)
    model = BoltzmannMachine.from_parameters(
        couplings=machine.couplings().detach().numpy(),
        intercept_visible=machine.visible.bias.detach().numpy(),
        intercept_hidden=machine.hidden.bias.detach().numpy(),
    )
    rows = np.array([[1, np.nan, 0, np.nan], [np.nan] * 4, [0, 1, 1, 0], [0, np.nan, 1, np.nan]])
    found = model.conditional_mean(rows)
    joint, states = minus_energies(machine), all_states(4)
    log_p = logsumexp(joint, axis=1)
    for row, mean in zip(rows, found, strict=True):
        fits = ((states == row) | np.isnan(row)).all(axis=1)
        p = np.exp(log_p[fits] - logsumexp(log_p[fits]))
        np.testing.assert_allclose(mean, p @ states[fits], atol=1e-12)
    # One chain a row over 1000 sweeps, of which at least 100 are as good as independent: twice
    # the standard error of their mean is 2 x 0.5 / 10.
    averaged = model.conditional_mean(rows, "chains", n_steps=1000, random_state=0)
    np.testing.assert_allclose(averaged, found, atol=0.1)
    # Mean field solves its equations, to its tolerance of 1e-8 a sweep. Nothing bounds how far the
    # solution is from the truth: that it is near, for weak couplings, is all that can be asked.
    field, known = model.conditional_mean(rows, "mean_field"), ~np.isnan(rows)
    W, b = machine.couplings().detach().numpy(), machine.biases().detach().numpy()
    for row, mean, given in zip(rows, field, known, strict=True):
        s = np.r_[mean, np.full(n_hidden, 0.5)]
        for _ in range(1000):
            s[4:] = expit(W[4:] @ s + b[4:])
        np.testing.assert_allclose(mean, np.where(given, row, expit(W @ s + b)[:4]), atol=1e-7)
    assert np.abs(field - found).max() < 0.1
    for filled in (found, averaged, field):
        np.testing.assert_array_equal(filled[known], rows[known])


def given(couplings, hidden=0, **settings):
    """A machine of these couplings; biases centre the units that are not hidden."""
    d = len(couplings) - hidden
    bias = -0.5 * couplings.sum(axis=1)
    return BoltzmannMachine.from_parameters(
        couplings=couplings, intercept_visible=bias[:d], intercept_hidden=bias[d:], **settings
    )


def random_couplings(n_units, scale, seed=0):
    weights = np.triu(np.random.default_rng(seed).normal(scale=scale, size=(n_units, n_units)), 1)
    return weights + weights.T


def test_completion_says_when_it_takes_mean_field():
    model = given(np.full((25, 25), 0.02) - 0.02 * np.eye(25))
    row = np.full((1, 25), np.nan)
    with pytest.warns(UserWarning, match="the states of up to 24 unknown units would have to be"):
        np.testing.assert_allclose(model.conditional_mean(row), 0.5, atol=1e-6)
    row[0, :6] = 1.0
    assert (model.conditional_mean(row, "exact")[0, 6:] > 0.5).all()
    with pytest.raises(ValueError, match="method='sum' must be one of"):
        model.conditional_mean(row, "sum")
    with pytest.raises(ValueError, match="X has 3 features, but"):
        model.conditional_mean(row[:, :3])
    wide = given(random_couplings(28, 0.1))
    with pytest.raises(
        ValueError, match=r'list 2\^27 states .* use method="chains" or "mean_field"'
    ):
        wide.conditional_mean(np.full((1, 28), np.nan), "exact")


def test_completion_is_exact_where_few_states_have_to_be_listed():
    """25 hidden units that are not coupled to each other are summed over in closed form."""
    d, k = 4, 25
    couplings = random_couplings(d + k, 1.0)
    couplings[d:, d:] = 0.0
    model = given(couplings, k)
    W, b, c = couplings[:d, d:], model.intercept_visible_, model.intercept_hidden_
    states = all_states(d)
    log_p = states @ b + 0.5 * np.einsum("si,ij,sj->s", states, couplings[:d, :d], states)
    log_p = log_p + np.logaddexp(0.0, states @ W + c).sum(axis=1)
    rows = np.array([[1.0, np.nan, 0.0, np.nan], [np.nan] * 4])
    for row, found in zip(rows, model.conditional_mean(rows), strict=True):
        fits = ((states == row) | np.isnan(row)).all(axis=1)
        p = np.exp(log_p[fits] - logsumexp(log_p[fits]))
        np.testing.assert_allclose(found, p @ states[fits], atol=1e-10)


def test_how_a_row_is_completed_does_not_depend_on_the_others():
    model = given(random_couplings(25, 0.5))
    rows = np.full((2, 25), np.nan)
    rows[0, 8:] = 1.0
    with pytest.warns(UserWarning, match="of up to 24 unknown units"):
        together = model.conditional_mean(rows)
    np.testing.assert_allclose(together[:1], model.conditional_mean(rows[:1]), atol=1e-14)
    np.testing.assert_allclose(together[:1], model.conditional_mean(rows[:1], "exact"), atol=1e-14)


def test_rows_to_complete_come_through_the_same_door_as_others():
    pandas = pytest.importorskip("pandas")
    X = np.random.default_rng(0).integers(2, size=(40, 3)).astype(float)
    frame = pandas.DataFrame(X, columns=["a", "b", "c"])
    model = BoltzmannMachine(max_epochs=2, random_state=0).fit(frame)
    gaps = frame.mask(np.eye(3, dtype=bool)[np.arange(40) % 3])
    filled = model.conditional_mean(gaps)
    with pytest.raises(ValueError, match="feature names should match"):
        model.conditional_mean(gaps[["c", "b", "a"]])
    single = gaps.astype("float32")
    np.testing.assert_allclose(model.conditional_mean(single), filled, rtol=1e-6)
    assert model.conditional_mean(single).dtype == np.float32
    model, gaps = BoltzmannMachine(max_epochs=2, random_state=0).fit(X), gaps.to_numpy().copy()
    np.testing.assert_array_equal(model.conditional_mean(torch.from_numpy(gaps)).numpy(), filled)
    with pytest.raises(ValueError, match=r"Expected 2D array, got 1D array"):
        model.conditional_mean(gaps[0])
    # Scaling to [0, 1] may overshoot by rounding errors.
    rounded = np.float32(gaps) * np.nextafter(np.float32(1.0), np.float32(2.0))
    np.testing.assert_allclose(model.conditional_mean(rounded), filled, rtol=1e-5)
    # "clip" takes back what is more, as in the other methods.
    beyond = gaps * (1.0 + 1e-7)
    with pytest.raises(ValueError, match=r'values in \[0, 1\] or NaN.*value_range="clip"'):
        model.conditional_mean(beyond)
    model.set_params(value_range="clip")
    np.testing.assert_array_equal(model.conditional_mean(beyond), filled)


def test_transform_without_hidden_units_is_the_mean_given_the_others():
    model = torus(4, 0.3)
    X = np.random.default_rng(0).integers(2, size=(5, 16)).astype(float)
    for rows in (X, np.random.default_rng(1).random((5, 16))):  # bits, and probabilities of bits
        expected = expit(model.intercept_visible_ + rows @ model.couplings_)
        np.testing.assert_allclose(model.transform(rows), expected, rtol=1e-10)
    assert not hasattr(model, "energy")
    with pytest.raises(AttributeError, match="there are no hidden units to decode from"):
        model.inverse_transform  # noqa: B018
    with pytest.raises(AttributeError, match="depend on each other even given Z"):
        BoltzmannMachine(2).inverse_transform  # noqa: B018
    assert hasattr(BernoulliRBM(), "inverse_transform")


def test_chains_start_from_draws_and_hold_all_units():
    machine = random_machine(3, 2)
    sampler, generator = GibbsSweeps(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        state = sampler.start(generator, 7, machine)
        kept = sampler.keep(state)
        state, info = sampler.step(generator, sampler.restore(kept, machine), machine)
    assert state.position.shape == (7, 5)
    assert info.moved.all()
    assert set(state.position.unique().tolist()) <= {0.0, 1.0}


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_components": 25}, r"25 hidden units that are coupled to each other .* 2\^24"),
        ({"structure": np.ones((2, 2))}, r"structure has shape \(2, 2\)"),
        ({"structure": np.triu(np.ones((6, 6), dtype=bool))}, "must be symmetric"),
        ({"structure": np.full((6, 6), 0.5)}, "must hold True or False"),
        ({"structure": "grid", "image_shape": (2, 2)}, "does not fit X with 6 features"),
        ({"structure": "grid", "image_shape": (2, 1, 3)}, r"must be \(height, width\)"),
        ({"image_shape": (2, 3)}, 'applies only to structure="grid"'),
        ({"objective": "fast_pcd"}, "'pseudo_likelihood'"),
        ({"n_gibbs_steps": 3}, "n_gibbs_steps does not apply"),
    ],
)
def test_what_does_not_work_is_refused_with_what_does(settings, message):
    with pytest.raises(ValueError, match=message):
        BoltzmannMachine(**settings).fit(np.eye(6))


@pytest.mark.parametrize(
    ("couplings", "message"),
    [
        ([[0.0, 1.0], [2.0, 0.0]], "must be symmetric"),
        ([[1.0, 2.0], [2.0, 0.0]], "zero on the diagonal"),
        (np.zeros((3, 3)), "there are 2 units"),
    ],
)
def test_couplings_that_make_no_machine_are_refused(couplings, message):
    with pytest.raises(ValueError, match=message):
        BoltzmannMachine.from_parameters(couplings=couplings, intercept_visible=[0.0, 0.0])


def test_many_uncoupled_hidden_units_are_summed_in_closed_form():
    rows = exact_rows(random_machine(5), 60)
    model = BoltzmannMachine(40, structure="grid", max_epochs=1, random_state=0).fit(rows)
    assert model.transform(rows).shape == (60, 40)
    assert np.exp(model.score_samples(all_states(5))).sum() == pytest.approx(1.0, abs=1e-9)


def test_warm_start_refuses_another_number_of_hidden_units():
    rows = exact_rows(random_machine(4), 40)
    model = BoltzmannMachine(2, max_epochs=1, warm_start=True, random_state=0).fit(rows)
    with pytest.raises(ValueError, match="differs from the 2 fitted hidden units"):
        model.set_params(n_components=3).fit(rows)
    assert model.n_units_ == 6


def test_a_bridge_of_few_chains_is_refused_and_changes_nothing():
    model = BoltzmannMachine(2, max_epochs=1, random_state=0).fit(np.eye(4))
    before = model.log_partition_
    for n_chains in (2, 3):
        with pytest.raises(
            ValueError, match=f"n_chains={n_chains} must be an integer of at least 4"
        ):
            model.estimate_log_partition("bridge", n_chains=n_chains)
    assert model.log_partition_ == before
    model.estimate_log_partition("bridge", n_chains=4, random_state=0)
    assert np.isfinite(model.log_partition_interval_).all()


def test_too_many_coupled_hidden_units_are_refused_when_learning_goes_on():
    """Given or fitted with a structure that leaves them uncoupled, then with all pairs."""
    rows = np.random.default_rng(0).integers(0, 2, size=(20, 3)).astype(float)
    n = 33
    given = BoltzmannMachine.from_parameters(
        couplings=np.zeros((n, n)), intercept_visible=np.zeros(3), intercept_hidden=np.zeros(30)
    )
    with pytest.raises(ValueError, match=r"30 hidden units .* structure=\"grid\""):
        given.partial_fit(rows)


def test_energies_need_the_hidden_units_that_were_fitted():
    rows = np.random.default_rng(0).integers(0, 2, size=(20, 3)).astype(float)
    model = BoltzmannMachine(2, max_epochs=1, random_state=0).fit(rows).set_params(n_components=0)
    assert model.energy(rows, np.zeros((20, 2))).shape == (20,)
    model = BoltzmannMachine(0, max_epochs=1, random_state=0).fit(rows).set_params(n_components=2)
    assert not hasattr(model, "energy")
