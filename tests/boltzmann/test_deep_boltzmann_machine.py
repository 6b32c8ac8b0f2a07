"""Deep Boltzmann machines against sums over all states of all layers."""

import itertools

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.special import logsumexp
from sklearn.datasets import load_digits
from skorch.callbacks import Callback

import sklebm
from sklebm import DeepBoltzmannMachine, likelihood
from sklebm._shell.state import fitted_attributes
from sklebm.boltzmann import _greedy
from sklebm.energies import Bernoulli, BilinearEnergy, LayeredEnergy
from sklebm.energies.copied_layers import CopiedBernoulli, CopiedBilinearEnergy
from sklebm.energies.gradients import dense
from sklebm.objectives import (
    Batch,
    ContrastiveDivergence,
    MaximumLikelihood,
    MeanFieldContrastiveDivergence,
    MeanFieldShortChains,
    PseudoLikelihood,
)
from sklebm.training.centring import Centring
from sklebm.training.layered_centring import LayeredCentring
from tests.machines import all_states, make_machine
from tests.registry import make_rows

FEW = {"max_epochs": 4, "batch_size": 20, "random_state": 0}


def make_bits(n_rows=200, seed=0):
    return (np.random.default_rng(seed).random((n_rows, 6)) < make_rows(n_rows, seed)).astype(float)


def given(widths, seed=0, scale=1.0):
    """A machine with random parameters, and these as lists of arrays."""
    rng = np.random.default_rng(seed)
    weights = [scale * rng.normal(size=(b, a)) for a, b in itertools.pairwise(widths)]
    intercepts = [scale * rng.normal(size=n) for n in widths]
    model = DeepBoltzmannMachine.from_parameters(weights=weights, intercepts=intercepts)
    return model, weights, intercepts


def joint_log_weights(weights, intercepts):
    """-E of every row with every state of the hidden layers, layer by layer in NumPy."""
    total = np.zeros(())
    for index, bias in enumerate(intercepts):
        states = all_states(len(bias))
        total = total[..., None] + states @ bias
        if index:
            total = total + all_states(len(intercepts[index - 1])) @ weights[index - 1].T @ states.T
    return total.reshape(len(total), -1)


def naive_log_density(weights, intercepts):
    joint = joint_log_weights(weights, intercepts)
    return logsumexp(joint, axis=1) - logsumexp(joint)


WIDTHS = [(4, 3), (4, 3, 2), (3, 2, 3, 2)]


@pytest.mark.parametrize("widths", WIDTHS)
def test_log_z_is_the_sum_over_all_states(widths):
    model, weights, intercepts = given(widths)
    truth = logsumexp(joint_log_weights(weights, intercepts))
    assert model.estimate_log_partition().log_partition_ == pytest.approx(truth, abs=1e-10)
    assert model.check_density(random_state=0).passed
    energy = model._energy(torch.device("cpu"))
    assert float(energy.exact_log_partition().detach()) == pytest.approx(truth, abs=1e-10)


@pytest.mark.parametrize("method", ["ais", "bridge"])
def test_annealing_both_ways_finds_log_z(method):
    model, _, _ = given((8, 6, 5), scale=0.7)
    model.estimate_log_partition("exact")
    truth = model.log_partition_
    effort = {"n_temperatures": 1500} if method == "ais" else {"n_steps": 150}
    model.estimate_log_partition(method, n_chains=200, random_state=0, **effort)
    low, high = model.log_partition_interval_
    assert low <= truth <= high
    assert model.log_partition_ == pytest.approx(truth, abs=0.02)


@pytest.mark.parametrize("widths", WIDTHS)
def test_the_bound_is_below_log_p_in_every_row(widths):
    model, weights, intercepts = given(widths)
    model.estimate_log_partition("exact")
    x, truth = all_states(widths[0]), naive_log_density(weights, intercepts)
    bound = model.score_samples(x)
    if len(widths) == 2:
        np.testing.assert_allclose(bound, truth, atol=1e-10)
    else:
        assert (bound < truth - 1e-6).all()
    weights[-1][:] = 0.0  # the top layer tells nothing any more
    model = DeepBoltzmannMachine.from_parameters(weights=weights, intercepts=intercepts)
    model.estimate_log_partition("exact")
    truth = naive_log_density(weights, intercepts)
    if len(widths) < 4:  # independent given the row: mean field is exact
        np.testing.assert_allclose(model.score_samples(x), truth, atol=1e-10)
    else:
        assert (model.score_samples(x) < truth).all()


def test_energies_are_those_of_the_equation():
    model, weights, intercepts = given((4, 3, 2))
    joint = joint_log_weights(weights, intercepts)
    z = np.array([[*a, *b] for a in all_states(3) for b in all_states(2)])
    for i, row in enumerate(all_states(4)[:5]):
        np.testing.assert_allclose(model.energy(np.tile(row, (len(z), 1)), z), -joint[i])


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("widths", WIDTHS)
def test_the_gradient_of_the_likelihood_is_that_of_enumeration(widths):
    model, weights, intercepts = given(widths)
    energy = model._energy(torch.device("cpu"))
    index = [0, 3, 3, 6]
    rows = all_states(widths[0])[index]
    loss, _ = MaximumLikelihood().loss(energy, Batch(torch.tensor(rows)), {}, torch.Generator())
    joint = joint_log_weights(weights, intercepts)
    p = np.exp(joint - logsumexp(joint))
    posterior = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    q = sum(posterior[i] * (np.arange(len(p)) == i)[:, None] for i in index) / len(index)
    gap = (p - q).ravel()
    layers = [
        np.array(layer) for layer in zip(*itertools.product(*map(all_states, widths)), strict=True)
    ]
    assert float(loss.detach()) == pytest.approx(
        -naive_log_density(weights, intercepts)[index].mean(), abs=1e-10
    )
    biases = torch.autograd.grad(loss, [layer.bias for layer in energy.layers], retain_graph=True)
    for found, states in zip(biases, layers, strict=True):
        np.testing.assert_allclose(found, gap @ states, atol=1e-8)
    matrices = torch.autograd.grad(loss, list(energy.couplings))
    for found, below, above in zip(matrices, layers[:-1], layers[1:], strict=True):
        np.testing.assert_allclose(found, (above * gap[:, None]).T @ below, atol=1e-8)


def test_gradients_in_closed_form_are_those_of_autograd():
    model, _, _ = given((4, 3, 2))
    energy = model._energy(torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    states = [torch.rand(7, n, generator=generator).double() for n in (4, 3, 2)]
    signs = torch.randn(7, generator=generator).double()
    value, gradients = energy.energy_gradients(states, signs)
    loss = signs @ energy.energy(states[0], torch.cat(states[1:], dim=1))
    assert float(value.detach()) == pytest.approx(float(loss.detach()))
    truth = torch.autograd.grad(loss, [parameter for parameter, _ in gradients])
    for (_, found), expected in zip(gradients, truth, strict=True):
        torch.testing.assert_close(dense(found).detach(), expected)


def test_chains_give_the_gradient_of_the_bound():
    """Mean field at the rows minus E_model: the derivative of the bound, whose m is stationary."""
    model, _, _ = given((4, 3, 2))
    energy = model._energy(torch.device("cpu"))
    rows = torch.tensor(all_states(4)[[1, 6, 6, 11]])
    mean = energy.mean_field(rows, 2000, 1e-13).detach()
    loss = energy.variational_free_energy(rows, mean).mean() + energy.exact_log_partition()
    parameters = list(energy.parameters())
    truth = torch.autograd.grad(loss, parameters)
    objective = MeanFieldContrastiveDivergence(2, n_chains=4000, n_mean_field_steps=200)
    generator, draws = torch.Generator().manual_seed(0), []
    state = objective.init_state(energy, 10, generator)
    for step in range(80):
        loss, state = objective.loss(energy, Batch(rows), state, generator)
        if step >= 10:
            draws.append(torch.autograd.grad(loss, parameters))
    for parts, expected in zip(zip(*draws, strict=True), truth, strict=True):
        # 280,000 correlated draws of numbers between 0 and 1, and a mean field good to 1e-3.
        assert float((torch.stack(parts).mean(dim=0) - expected).abs().max()) < 0.008


def test_long_chains_from_the_rows_give_the_same_gradient():
    """And one step from them another one: that of contrastive divergence is biased."""
    model, _, _ = given((4, 3, 2), scale=1.5)
    energy = model._energy(torch.device("cpu"))
    rows = torch.tensor(all_states(4)[[1, 6, 6, 11]])
    mean = energy.mean_field(rows, 2000, 1e-13).detach()
    loss = energy.variational_free_energy(rows, mean).mean() + energy.exact_log_partition()
    parameters = list(energy.parameters())
    truth = torch.autograd.grad(loss, parameters)
    errors = []
    for n_steps in (1, 50):
        objective = MeanFieldShortChains(n_steps, n_mean_field_steps=200)
        batch = Batch(rows.repeat(20_000, 1))
        loss, _ = objective.loss(energy, batch, {}, torch.Generator().manual_seed(0))
        found = torch.autograd.grad(loss, parameters)
        gaps = [float((a - b).abs().max()) for a, b in zip(found, truth, strict=True)]
        errors.append(max(gaps))
    # 80,000 independent draws of numbers between 0 and 1, and a mean field good to 1e-3.
    assert errors[1] < 0.01
    assert errors[0] > 0.03


def test_short_chains_of_one_hidden_layer_are_those_of_machines():
    machine = make_machine(4, 3)
    twin = LayeredEnergy(
        [Bernoulli(machine.visible.bias.detach()), Bernoulli(machine.hidden.bias.detach())],
        [machine.weights.detach()],
    )
    batch = Batch(torch.tensor(all_states(4)[[1, 6, 6, 11]]).repeat(20_000, 1))
    found = []
    for energy, kind in ((machine, ContrastiveDivergence), (twin, MeanFieldShortChains)):
        loss, _ = kind(1).loss(energy, batch, {}, torch.Generator().manual_seed(0))
        loss.backward()
        found.append({tuple(p.shape): p.grad for p in energy.parameters()})
    for shape, gradient in found[0].items():
        # Both are means of 80,000 draws of numbers between 0 and 1: six standard errors of 0.5.
        assert float((found[1][shape] - gradient).abs().max()) < 6 * 0.5 * (2 / 80_000) ** 0.5


def test_centring_of_two_layers_is_that_of_machines():
    machine = make_machine(4, 3)
    twin = LayeredEnergy(
        [Bernoulli(machine.visible.bias.detach()), Bernoulli(machine.hidden.bias.detach())],
        [machine.weights.detach()],
    )
    means = torch.linspace(0.2, 0.7, 4).double(), torch.linspace(0.6, 0.3, 3).double()
    rows = torch.tensor(all_states(4)[[1, 6, 6, 11]])
    field = machine.hidden_field(rows)
    signs = torch.tensor([0.5, 0.5, -0.3, -0.7]).double()
    with torch.no_grad():
        hidden = machine.hidden.mean(field)
        _, plain = machine.free_energy_gradients(rows, signs, field, hidden)
        _, layered = twin.energy_gradients([rows, hidden], signs)
    batch = Batch(rows[:2])
    for form in (lambda g: g, dense):
        one = Centring(machine, *means)
        other = LayeredCentring(twin, *means)
        expected, state = one.update([(p, form(g)) for p, g in plain], batch, one.init(), 1.0)
        found, twin_state = other.update([(p, form(g)) for p, g in layered], batch, other.init(), 1)
        by_shape = {tuple(p.shape): dense(g) for p, g in expected}
        for parameter, gradient in found:
            torch.testing.assert_close(dense(gradient), by_shape[tuple(parameter.shape)])
        torch.testing.assert_close(state["hidden_mean"], twin_state["hidden_mean"])


# ---------------------------------------------------------------- halves, learning


@pytest.mark.parametrize("widths", WIDTHS)
def test_two_halves_are_the_same_machine(widths):
    model, _, _ = given(widths)
    energy = model._energy(torch.device("cpu"))
    halves = BilinearEnergy.of_halves(energy)
    assert isinstance(halves, BilinearEnergy)
    generator = torch.Generator().manual_seed(0)
    layers = [(torch.rand(20, n, generator=generator) < 0.5).double() for n in widths]
    whole = energy.energy(layers[0], torch.cat(layers[1:], dim=1))
    found = halves.energy(torch.cat(layers[0::2], dim=1), torch.cat(layers[1::2], dim=1))
    torch.testing.assert_close(found, whole)


@pytest.mark.parametrize("objective", ["pcd", "cd", "maximum_likelihood"])
def test_training_raises_the_held_out_bound(objective):
    X, X_test = make_bits(300), make_bits(600, seed=1)
    settings = {"objective": objective, "batch_size": 10, "learning_rate": 0.3, "random_state": 0}
    learnt = DeepBoltzmannMachine((6, 4), max_epochs=15, **settings).fit(X)
    start = DeepBoltzmannMachine((6, 4), max_epochs=1, **{**settings, "learning_rate": 1e-12})
    mean = X.mean(axis=0)
    base_rate = (X_test * np.log(mean) + (1 - X_test) * np.log(1 - mean)).sum(axis=1).mean()
    assert learnt.score(X_test) > base_rate + 0.3
    assert learnt.score(X_test) > start.fit(X).score(X_test) + 0.3


def test_flipped_bits_change_the_bound_little():
    """Digits and their negatives: half a nat of 23."""
    X = (load_digits().data > 8).astype(np.float32)
    train, test = X[:1200], X[1200:]
    settings = {"max_epochs": 5, "learning_rate": 0.1, "batch_size": 50, "random_state": 0}
    scores = []
    for flip in (0.0, 1.0):
        model = DeepBoltzmannMachine((16, 12), **settings)
        scores.append(model.fit(np.abs(flip - train)).score(np.abs(flip - test)))
    assert abs(scores[1] - scores[0]) < 0.5


def test_samples_have_the_probabilities_of_the_machine():
    model, weights, intercepts = given((4, 3, 2))
    drawn = model.sample(20_000, n_steps=60, random_state=0)
    p = np.exp(naive_log_density(weights, intercepts))
    counts = np.bincount((drawn @ [8, 4, 2, 1]).astype(int), minlength=16) / len(drawn)
    assert (np.abs(counts - p) < 5 * np.sqrt(p * (1 - p) / len(drawn))).all()


def test_known_features_stay_and_the_others_follow_them():
    model, weights, intercepts = given((4, 3, 2))
    known = np.array([1.0, np.nan, 0.0, np.nan])
    drawn = model.sample(20_000, n_steps=60, clamped=known, init=np.zeros(4), random_state=0)
    assert (drawn[:, 0] == 1).all()
    assert (drawn[:, 2] == 0).all()
    x, log_p = all_states(4), naive_log_density(weights, intercepts)
    fits = (x[:, 0] == 1) & (x[:, 2] == 0)
    p = np.exp(log_p[fits] - logsumexp(log_p[fits]))
    counts = np.bincount((drawn[:, [1, 3]] @ [2, 1]).astype(int), minlength=4) / len(drawn)
    assert (np.abs(counts - p) < 5 * np.sqrt(p * (1 - p) / len(drawn))).all()


def test_means_decode_to_the_rows_they_came_from():
    X = make_bits()
    model = DeepBoltzmannMachine((8, 4), max_epochs=20, batch_size=10, learning_rate=0.5)
    model.set_params(random_state=0).fit(X)
    shown = model.inverse_transform(model.transform(X))
    wrong = (np.round(shown) != X).mean()
    assert wrong < 0.6 * (np.round(X.mean(axis=0)) != X).mean()


def test_chains_in_one_mode_are_told_whatever_deeper_layers_do():
    """40 units above that are on half of the time vary more than all rows together."""
    model = DeepBoltzmannMachine((3, 40), log_partition=None, **FEW).fit(make_bits())
    energy, state = model._energy(torch.device("cpu")), fitted_attributes(model)
    chains = state["training_state_"]["objective.visible"].copy()
    chains[:, :6] = 1.0
    training = {**state["training_state_"], "objective.visible": chains}
    assert chains[:, 6:].var(axis=0).sum() > make_bits().var(axis=0).sum()
    with pytest.warns(UserWarning, match=r"hold 0\.0% of the variance of the training rows"):
        likelihood.complete(model, energy, {**state, "training_state_": training}, 0)


# ---------------------------------------------------------------- saving, streams, errors


def test_saved_and_given_machines_answer_alike(tmp_path):
    X = make_bits()
    model = DeepBoltzmannMachine((5, 3), **FEW).fit(X)
    sklebm.save(model, tmp_path / "machine.safetensors")
    copy = sklebm.load(tmp_path / "machine.safetensors")
    np.testing.assert_array_equal(copy.score_samples(X), model.score_samples(X))
    twin = DeepBoltzmannMachine.from_parameters(
        weights=model.weights_, intercepts=model.intercepts_, random_state=0
    )
    assert twin.hidden_sizes == (5, 3)
    assert twin.log_partition_ is None
    np.testing.assert_array_equal(twin.transform(X), model.transform(X))
    assert np.isfinite(twin.partial_fit(X).score_samples(X)).all()
    with pytest.raises(ValueError, match=r"estimate_log_partition\(\) first"):
        twin.score(X)
    with pytest.raises(ValueError, match="hidden_sizes"):
        sklebm.save(model.set_params(hidden_sizes=(4, 3)), tmp_path / "machine.safetensors")


def test_parameters_that_do_not_fit_are_refused():
    _, weights, intercepts = given((4, 3, 2))
    with pytest.raises(TypeError, match="needs intercepts"):
        DeepBoltzmannMachine.from_parameters(weights=weights)
    with pytest.raises(ValueError, match="weights_ has shapes"):
        DeepBoltzmannMachine.from_parameters(weights=weights[::-1], intercepts=intercepts)


def test_objectives_that_do_not_work_name_those_that_do():
    with pytest.raises(ValueError, match="MaximumLikelihood"):
        DeepBoltzmannMachine((3, 2), objective=PseudoLikelihood()).fit(make_bits())
    with pytest.raises(ValueError, match="n_gibbs_steps does not apply"):
        DeepBoltzmannMachine((3, 2), objective="maximum_likelihood", n_gibbs_steps=2).fit(
            make_bits()
        )
    with pytest.raises(ValueError, match=r"2\^30 states"):
        DeepBoltzmannMachine((30, 40), objective="maximum_likelihood").fit(
            np.tile(make_bits(), (1, 6))
        )


def test_validation_follows_the_first_hidden_layer():
    X = make_bits(400)
    model = DeepBoltzmannMachine(
        (8, 4), validation_fraction=0.25, max_epochs=15, batch_size=10, learning_rate=0.3
    )
    scores = model.set_params(random_state=0).fit(X).validation_scores_
    assert len(scores) == 15
    assert scores[-1] > scores[0] + 0.3


# ---------------------------------------------------------------- the greedy start


@pytest.mark.parametrize(("n", "m"), [(2, 1), (1, 2), (2, 2)])
def test_copies_of_layers_are_a_machine_with_tied_weights(n, m):
    """Whose copies stand side by side: energies, means, gradients and draws."""
    plain = make_machine(3, 2)
    copied = CopiedBilinearEnergy(
        CopiedBernoulli(plain.visible.bias.detach(), n),
        CopiedBernoulli(plain.hidden.bias.detach(), m),
        plain.weights.detach(),
    )
    wide = BilinearEnergy(
        Bernoulli(plain.visible.bias.detach().repeat(n)),
        Bernoulli(plain.hidden.bias.detach().repeat(m)),
        plain.weights.detach().repeat(m, n),
    )
    v = torch.from_numpy(all_states(3 * n))
    h = torch.from_numpy(all_states(2 * m))[torch.arange(len(v)) % 4**m]
    means = v.view(-1, n, 3).mean(dim=1), h.view(-1, m, 2).mean(dim=1)
    torch.testing.assert_close(copied.energy(*means), wide.energy(v, h))
    torch.testing.assert_close(copied.free_energy(means[0]), wide.free_energy(v))
    torch.testing.assert_close(copied.hidden_mean(means[0]).repeat(1, m), wide.hidden_mean(v))
    signs = torch.linspace(-1.0, 1.0, len(v), dtype=torch.float64)
    parameters = list(copied.parameters())
    expected = torch.autograd.grad(signs @ copied.free_energy(means[0]), parameters)
    with torch.no_grad():
        field = copied.hidden_field(means[0])
        found = copied.free_energy_gradients(means[0], signs, field, torch.sigmoid(field))[1]
    known = {id(parameter): dense(gradient) for parameter, gradient in found}
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(known[id(parameter)], gradient)
    # Draws have the means and variances of such means.
    draws = copied.draw_visible(means[1][:1].expand(20_000, -1), torch.Generator().manual_seed(0))
    p = torch.sigmoid(copied.visible_field(means[1][:1]))[0]
    variance = copied.visible.variance(torch.logit(p))
    torch.testing.assert_close(variance, p * (1 - p) / n)
    # Five standard errors; that of a variance is at most its size times (2 / 20,000)^1/2 here.
    assert ((draws.mean(dim=0) - p).abs() < 5 * (variance / 20_000).sqrt()).all()
    assert ((draws.var(dim=0) - variance).abs() < 0.05 * variance + 1e-3).all()


def digits():
    X = (load_digits().data > 8).astype("float32")
    X = X[np.random.default_rng(0).permutation(len(X))]
    return X[:600], X[600:1000]


class Stopped(Exception):
    """Raised where joint training would begin."""


def bound_of_start(monkeypatch, model, train, test):
    """The held-out bound where joint training would begin."""
    starts = []

    def stop(model, energy, *_):
        starts.append(energy)
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(DeepBoltzmannMachine, "_train", stop)
        with pytest.raises(Stopped):
            model.fit(train)
    assert not hasattr(model, "weights_")
    biases = [layer.bias.detach().numpy() for layer in starts[0].layers]
    weights = [matrix.detach().numpy() for matrix in starts[0].couplings]
    begun = DeepBoltzmannMachine.from_parameters(weights=weights, intercepts=biases)
    return begun.estimate_log_partition("exact").score(test)


@pytest.mark.parametrize("sizes", [(16, 8), (10, 10, 6)])
def test_the_greedy_start_is_better_and_leads_at_least_as_far(monkeypatch, sizes):
    """log Z is a sum over the smaller half of the layers: bounds have no noise but training's."""
    (train, test), settings = digits(), {"batch_size": 20, "random_state": 0}
    greedy = DeepBoltzmannMachine(sizes, pretraining_epochs=3, max_epochs=3, **settings)
    random = DeepBoltzmannMachine(sizes, max_epochs=3, **settings)
    starts = [bound_of_start(monkeypatch, model, train, test) for model in (greedy, random)]
    ends = [model.fit(train).score(test) for model in (greedy, random)]
    assert starts[0] > starts[1] + 1.0
    # Chains and batches make fits with other seeds differ by some 0.1.
    assert ends[0] > max(starts[0], ends[1] - 0.1)


def test_only_a_new_fit_starts_greedily():
    X, greedy = make_bits(), {"hidden_sizes": (5, 3), "pretraining_epochs": 2, **FEW}
    model = DeepBoltzmannMachine(**greedy, warm_start=True).fit(X)
    again = DeepBoltzmannMachine(**greedy).fit(scipy.sparse.csr_array(X))
    np.testing.assert_array_equal(model.score_samples(X), again.score_samples(X))
    assert model.n_iter_ == len(model.loss_curve_) == FEW["max_epochs"]
    plain = DeepBoltzmannMachine((5, 3), **FEW)
    assert np.abs(plain.fit(X).score_samples(X) - model.score_samples(X)).max() > 1e-3
    before = model.score(X)
    still = model.set_params(learning_rate=1e-12).fit(X)
    assert still.score(X) == pytest.approx(before, abs=1e-4)  # single precision
    chunks = [DeepBoltzmannMachine(**greedy), DeepBoltzmannMachine((5, 3), **FEW)]
    chunks = [chunk.partial_fit(X).score_samples(X) for chunk in chunks]
    np.testing.assert_array_equal(*chunks)


def test_an_interrupted_start_leaves_the_machine_as_it_was(monkeypatch):
    X = make_bits()
    model = DeepBoltzmannMachine((5, 3), **FEW).fit(X)
    before, calls = model.score_samples(X), []

    def interrupted(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return learn(*args, **options)

    learn = _greedy.train
    monkeypatch.setattr(_greedy, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.set_params(pretraining_epochs=1).fit(X)
    np.testing.assert_array_equal(model.score_samples(X), before)


def test_held_out_rows_stay_unseen_in_the_greedy_start(monkeypatch):
    seen = []
    learn = _greedy.train

    def counted(training, rows, options, **given):
        seen.append(len(rows))
        return learn(training, rows, options, **given)

    monkeypatch.setattr(_greedy, "train", counted)
    epochs = []

    class Counting(Callback):
        def on_epoch_end(self, net, **given):
            epochs.append(net)

    model = DeepBoltzmannMachine(
        (5, 3),
        pretraining_epochs=1,
        validation_fraction=0.25,
        net_params={"callbacks": [Counting()]},
        **FEW,
    )
    assert len(model.fit(make_bits()).validation_scores_) == FEW["max_epochs"]
    assert seen == [150, 150]
    assert len(epochs) == FEW["max_epochs"]


def test_line_searches_cannot_start_greedily():
    search = {"objective": "maximum_likelihood", "optimizer": "lbfgs", "learning_rate": 1.0}
    with pytest.raises(ValueError, match="set pretraining_epochs=0"):
        DeepBoltzmannMachine((3, 2), pretraining_epochs=1, **search).fit(make_bits())
