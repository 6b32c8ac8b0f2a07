"""Deep belief networks against sums over all hidden states."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp
from scipy.stats import multivariate_normal

import sklebm
from sklebm import (
    BernoulliRBM,
    BoltzmannMachine,
    DeepBeliefNetwork,
    GaussianRBM,
    SemiRestrictedBM,
)
from sklebm.boltzmann._belief_state import untied
from sklebm.boltzmann._stack import transposed
from sklebm.energies import Bernoulli, BilinearEnergy, DeepBeliefEnergy
from sklebm.inference import belief_bounds, enumeration
from sklebm.objectives import Batch, UpDown
from tests.machines import all_states
from tests.registry import make_rows

FEW = {"max_epochs": 4, "batch_size": 20, "learning_rate": 0.3, "random_state": 0}


def make_bits(n_rows=200, seed=0):
    return (np.random.default_rng(seed).random((n_rows, 6)) < make_rows(n_rows, seed)).astype(float)


def given_machine(n_visible, n_hidden, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    machine = BernoulliRBM.from_parameters(
        components=scale * rng.normal(size=(n_hidden, n_visible)),
        intercept_hidden=scale * rng.normal(size=n_hidden),
        intercept_visible=scale * rng.normal(size=n_visible),
    )
    return machine.estimate_log_partition("exact")


def given_machines(widths, scale=1.0):
    pairs = enumerate(itertools.pairwise(widths))
    return [given_machine(d, k, seed, scale) for seed, (d, k) in pairs]


def log_bernoulli(u, field):
    """log p(u | field) of all pairs."""
    return u @ field.T - np.logaddexp(0.0, field).sum(axis=1)


def naive_log_density(network, x):
    """log p(x) of a network of two or three machines, layer by layer in NumPy."""
    *lower, top = network.named_estimators_.values()
    states = all_states(top.n_features_in_)
    fields = states @ top.components_.T + top.intercept_hidden_
    log_p = states @ top.intercept_visible_ + np.logaddexp(0.0, fields).sum(axis=1)
    log_p = log_p - logsumexp(log_p)
    for index, machine in reversed(list(enumerate(lower, start=1))):
        weights, bias = machine.components_, machine.intercept_visible_
        if network.generative_ is not None:
            weights, bias = (network.generative_[f"layer{index}.{n}"] for n in ("weights", "bias"))
        below = all_states(machine.n_features_in_) if index > 1 else x
        log_p = logsumexp(log_bernoulli(below, states @ weights + bias) + log_p, axis=1)
        states = below
    return log_p


def known_density(network, X):
    """The score without the single precision of fitted parameters in log Z."""
    network.estimate_log_partition("exact")
    return network.score_samples(X, bound="importance")


# ---------------------------------------------------------------- one layer


@pytest.mark.parametrize("n_units", [5, 22])
def test_one_layer_is_the_machine_to_the_bit(n_units):
    X = make_bits()
    settings = {**FEW, "n_gibbs_steps": 2, "objective": "cd"}
    machine = BernoulliRBM(n_units, **settings).fit(X)
    network = DeepBeliefNetwork((n_units,), **settings).fit(X)
    for method in ("transform", "free_energy", "score_samples"):
        np.testing.assert_array_equal(getattr(network, method)(X), getattr(machine, method)(X))
    assert network.log_partition_ == machine.log_partition_
    assert network.score(X) == machine.score(X)
    drawn = [model.sample(20, n_steps=30, random_state=1) for model in (network, machine)]
    np.testing.assert_array_equal(*drawn)


def test_one_gaussian_layer_is_the_machine_to_the_bit():
    X = 3.0 * make_rows() + 100.0
    machine = GaussianRBM(6, max_epochs=3, random_state=0).fit(X)
    bottom = GaussianRBM(2, max_epochs=3)
    network = DeepBeliefNetwork((6,), bottom=bottom, random_state=0).fit(X)
    np.testing.assert_array_equal(network.score_samples(X), machine.score_samples(X))
    assert bottom.n_components == 2  # parameters are never written


# ---------------------------------------------------------------- the density and its bounds


@pytest.mark.parametrize("sizes", [(4, 3), (3, 4, 3)])
def test_the_bound_is_below_log_p_and_the_estimate_is_log_p_in_every_row(sizes):
    widths = (5, *sizes)
    machines = given_machines(widths)
    network = DeepBeliefNetwork.from_parameters(machines=machines)
    x = all_states(5)
    truth = naive_log_density(network, x)
    assert logsumexp(truth) == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(known_density(network, x), truth, atol=1e-10)
    bound = network.score_samples(x)
    assert (bound < truth - 1e-4).all()  # q is not the posterior


@pytest.mark.parametrize("sizes", [(9, 4), (7, 6, 4)])
def test_draws_agree_with_sums(sizes, monkeypatch):
    """Means over many draws, within five standard errors of what the sum over states gives."""
    widths = (5, *sizes)
    machines = given_machines(widths, 0.7)
    network = DeepBeliefNetwork.from_parameters(machines=machines)
    x = all_states(5)[::3]
    monkeypatch.setattr(belief_bounds, "MAX_SUMMED_UNITS", 13)
    exact = {bound: network.free_energy(x, bound) for bound in belief_bounds.BOUNDS}
    monkeypatch.setattr(belief_bounds, "MAX_SUMMED_UNITS", 2)
    drawn = {bound: network.free_energy(x, bound, 4096) for bound in belief_bounds.BOUNDS}
    with torch.no_grad():
        w = belief_bounds._drawn(network._energy(torch.device("cpu")), torch.tensor(x), 4096)
    error = w.std(dim=0).numpy() / 64.0
    assert (np.abs(drawn["variational"] - exact["variational"]) < 5 * error).all()
    relative = torch.exp(w - w.max(dim=0).values)
    error = (relative.std(dim=0) / relative.mean(dim=0)).numpy() / 64.0
    assert (np.abs(drawn["importance"] - exact["importance"]) < 5 * error).all()
    assert (drawn["importance"] < drawn["variational"]).all()


def test_a_row_has_draws_of_its_own_in_any_dtype():
    machines = [given_machine(5, 12, 0), given_machine(12, 4, 1)]
    network = DeepBeliefNetwork.from_parameters(machines=machines)
    x = all_states(5)
    whole = network.free_energy(x)
    np.testing.assert_allclose(network.free_energy(x[7:8]), whole[7:8], rtol=1e-12)
    np.testing.assert_allclose(network.free_energy(x.astype(np.float32)), whole, rtol=1e-4)


@pytest.mark.parametrize("fine_tuning_epochs", [0, 2])
@pytest.mark.parametrize(
    "bottom",
    [
        GaussianRBM(objective="cd", max_epochs=3, variance="diagonal"),
        SemiRestrictedBM(objective="pcd", max_epochs=3),
    ],
    ids=lambda bottom: type(bottom).__name__,
)
def test_a_gaussian_bottom_is_a_mixture(bottom, fine_tuning_epochs):
    """log p(x) as the sum over states of the hidden layer, far from zero."""
    X = make_rows(60) + 50.0
    network = DeepBeliefNetwork((4, 3), bottom=bottom, fine_tuning_epochs=fine_tuning_epochs, **FEW)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=r".*outside \[0, 1\]")  # these are no bits
        network.fit(X)
    first, top = network.named_estimators_.values()
    states = all_states(4)
    fields = states @ top.components_.T.astype(float) + top.intercept_hidden_
    log_p = states @ top.intercept_visible_ + np.logaddexp(0.0, fields).sum(axis=1)
    log_p = log_p - logsumexp(log_p)
    down = network.generative_ or {
        "layer1.weights": first.components_,
        "layer1.bias": first.intercept_visible_,
    }
    means = down["layer1.bias"] + states @ down["layer1.weights"].astype(float)
    if fine_tuning_epochs:  # around the offset that training subtracted
        means = means + first.offset_
    if isinstance(first, GaussianRBM):
        covariance = np.diag(np.exp(first.log_variance_.astype(float)))
    else:
        covariance = np.linalg.inv(first.precision_.astype(float))
    each = [multivariate_normal(mean, covariance).logpdf(X) for mean in means]
    truth = logsumexp(log_p + np.transpose(each), axis=1)
    np.testing.assert_allclose(known_density(network, X), truth, atol=1e-5)
    assert (network.score_samples(X) <= truth + 1e-5).all()
    # Five standard errors of the mean of 4000 draws of this mixture.
    p = np.exp(log_p)
    mean = p @ means
    variance = covariance.diagonal() + p @ (means - mean) ** 2
    drawn = network.sample(4000, n_steps=30, random_state=0).astype(float)
    assert (np.abs(drawn.mean(axis=0) - mean) < 5 * np.sqrt(variance / 4000)).all()
    np.testing.assert_allclose(drawn.var(axis=0), variance, rtol=5 * np.sqrt(2 / 4000))
    codes = network.transform(X)
    above = expit(codes @ top.components_.astype(float) + top.intercept_visible_)
    expected = above @ down["layer1.weights"].astype(float) + means[0]
    np.testing.assert_allclose(network.inverse_transform(codes), expected, rtol=1e-5)


def test_a_bottom_machine_keeps_its_own_number_of_passes():
    """BernoulliRBM says "auto": 3000 updates, but at least 20 passes."""
    X = make_bits(60)
    bottom = BernoulliRBM(batch_size=1)
    network = DeepBeliefNetwork((4, 3), bottom=bottom, **FEW).fit(X)
    machines = network.named_estimators_.values()
    assert [machine.n_iter_ for machine in machines] == [50, FEW["max_epochs"]]
    with pytest.raises(ValueError, match="must be a BernoulliRBM, a GaussianRBM or a SemiRestr"):
        network.set_params(bottom=SemiRestrictedBM(visible="bernoulli")).fit(X)


# ---------------------------------------------------------------- what a second layer does


def test_a_layer_that_starts_as_the_transpose_leaves_log_p_as_it_is():
    X, settings = make_bits(), {**FEW, "learning_rate": 1e-12}
    first = BernoulliRBM(4, **FEW).fit(X)
    network = DeepBeliefNetwork((4, 6), init="transpose", **FEW).fit(X)
    machine = network.named_estimators_["layer1"]
    np.testing.assert_array_equal(machine.components_, first.components_)
    still = network.named_estimators_["layer2"].set_params(**settings, warm_start=False)
    still.components_ = first.components_.T
    still.intercept_hidden_, still.intercept_visible_ = (
        first.intercept_visible_,
        first.intercept_hidden_,
    )
    network = DeepBeliefNetwork.from_parameters(machines=[first, still])
    network.estimate_log_partition("exact")
    x = all_states(6)
    truth = first.score_samples(x)
    # q is then the posterior: the bound is log p, too. Weights are single, sums double precision.
    np.testing.assert_allclose(naive_log_density(network, x), truth, atol=1e-6)
    np.testing.assert_allclose(network.score_samples(x), truth, atol=1e-6)
    np.testing.assert_allclose(network.score_samples(x, "importance"), truth, atol=1e-6)


def test_units_beyond_the_transpose_change_log_p_little():
    """To second order 16 units add about 16 x 1e-4 / 8 to log p(h); four states differ by less."""
    X = make_bits()
    settings = {**FEW, "learning_rate": 1e-12, "max_epochs": 1}
    first = BernoulliRBM(4, **FEW).fit(X)
    top = BernoulliRBM(22, **settings)
    wide = transposed(top, first)
    network = DeepBeliefNetwork.from_parameters(machines=[first, wide])
    network.estimate_log_partition("exact")
    x = all_states(6)
    np.testing.assert_allclose(naive_log_density(network, x), first.score_samples(x), atol=1e-3)
    # They differ, so that they can learn different things.
    assert np.linalg.matrix_rank(wide.components_[6:]) == 4


def test_first_updates_do_not_lead_a_transpose_astray():
    """Two modes: chains of independent units know of one, and an epoch by them costs 2.5 nats."""
    rng = np.random.default_rng(0)
    X = ((rng.random((400, 1)) < 0.5) ^ (rng.random((400, 12)) < 0.02)).astype(np.float32)
    first = BernoulliRBM(4, **{**FEW, "learning_rate": 0.1, "max_epochs": 100}).fit(X)
    H = (rng.random((400, 4)) < first.transform(X)).astype(np.float32)
    top = BernoulliRBM(12, **{**FEW, "learning_rate": 0.02, "max_epochs": 1})
    start = transposed(top, first).estimate_log_partition("exact")
    assert transposed(top, first).fit(H).score(H) > start.score(H)


def test_transposes_that_do_not_fit_are_refused():
    X = make_bits()
    with pytest.raises(ValueError, match="hidden_sizes asks for 5 above BernoulliRBM with 6"):
        DeepBeliefNetwork((4, 5), init="transpose", **FEW).fit(X)
    network = DeepBeliefNetwork((4, 6), init="transpose", bottom=GaussianRBM(max_epochs=1), **FEW)
    with pytest.raises(ValueError, match="which must be binary"):
        network.fit(X)


def test_the_greedy_bound_never_falls_with_an_exact_expectation():
    """Ascent on E_q log p(h) over all states raises the bound at every step, from log p on."""
    X = make_bits(60)
    first = given_machine(6, 4, 0)  # not that of the rows: a poor prior over its states
    below = first._energy(torch.device("cpu")).double()
    top = BilinearEnergy(
        Bernoulli(below.hidden.bias.detach().clone()),
        Bernoulli(below.visible.bias.detach().clone()),
        below.weights.detach().T.clone(),
    )
    x, states = torch.tensor(X), torch.tensor(all_states(4))
    with torch.no_grad():
        mean = below.hidden_mean(x)
        log_q = mean.log() @ states.T + torch.log1p(-mean) @ (1 - states).T
        share = log_q.exp().mean(dim=0)
    energy, bounds = DeepBeliefEnergy([below, top]), []
    for _ in range(100):
        with torch.no_grad():
            log_z = enumeration.log_partition(top)
            bounds.append(float((-belief_bounds.free_energy(energy, x) - log_z).mean()))
        loss = share @ top.free_energy(states) + enumeration.log_partition(top)
        gradients = torch.autograd.grad(loss, list(top.parameters()))
        for parameter, gradient in zip(top.parameters(), gradients, strict=True):
            parameter.data -= 0.1 * gradient
    assert bounds[0] == pytest.approx(first.score(X), abs=1e-10)
    assert (np.diff(bounds) > 0).all()
    assert bounds[-1] > bounds[0] + 0.01


@pytest.mark.parametrize("seed", [0, 1])
def test_a_second_layer_raises_the_held_out_likelihood(seed):
    """Of a machine that has learnt too briefly for the prior over its states to be good."""
    X, X_test = make_bits(400), make_bits(1000, seed=1)
    settings = {**FEW, "max_epochs": 5, "random_state": seed}
    first = BernoulliRBM(8, **settings).fit(X)
    long = {"max_epochs": 20, "batch_size": 10, "random_state": seed, "learning_rate": 0.3}
    network = DeepBeliefNetwork((8, 6), bottom=first, init="transpose", **long).fit(X)
    assert network.score(X_test, bound="importance") > first.score(X_test) + 0.005


# ---------------------------------------------------------------- fine-tuning


def test_the_gradient_of_the_up_down_passes_is_that_of_its_expectations():
    """Wake and top terms follow the bound for this q, sleep terms E log q at rows of the model."""
    widths = (4, 3, 2)
    machines = [machine._energy(torch.device("cpu")) for machine in given_machines(widths)]
    energy = untied(DeepBeliefEnergy(machines)).double()
    rows = torch.tensor(all_states(4)[[1, 6, 6, 11]])
    objective, generator = UpDown(2), torch.Generator().manual_seed(0)
    states = torch.tensor(all_states(3))
    parameters = [p for p in energy.parameters() if p.requires_grad]
    with torch.no_grad():
        _, log_q = energy.weigh_states(rows, states)
        log_prior = -energy.top.free_energy(states)
        prior = torch.softmax(log_prior, 0)
    layer, machine = energy.generative[0], energy.machines[0]
    wake = -(log_q.exp() * layer.log_densities(rows, states)).sum() / len(rows)
    top = (log_q.exp() @ energy.top.free_energy(states)).mean() - prior @ energy.top.free_energy(
        states
    )
    x = torch.tensor(all_states(4))
    with torch.no_grad():
        joint = (layer.log_densities(x, states) + prior.log()).exp()
    field = machine.hidden_field(x)
    up = field @ states.T - machine.hidden.cumulant(field).sum(dim=1, keepdim=True)
    truth = torch.autograd.grad(wake + top - (joint * up).sum(), parameters)
    many = Batch(rows.repeat(1000, 1))
    state, found = objective.init_state(energy, 4000, generator), []
    for step in range(60):
        loss, state = objective.loss(energy, many, state, generator)
        if step >= 10:
            found.append(torch.autograd.grad(loss, parameters))
    for parts, expected in zip(zip(*found, strict=True), truth, strict=True):
        # 200,000 draws of numbers between 0 and 1: five standard errors of .5 / sqrt(2e5) each,
        # and consecutive chains are correlated.
        assert float((torch.stack(parts).mean(dim=0) - expected).abs().max()) < 0.012


def test_fine_tuning_unties_the_layers_and_raises_the_bound():
    """A poor greedy stack, whose top layer hardly learnt, leaves much to gain."""
    X, X_test = make_bits(400), make_bits(600, seed=1)
    settings = {**FEW, "max_epochs": 2, "learning_rate": 0.1}
    greedy = DeepBeliefNetwork((8, 6), **settings).fit(X)
    tuned = DeepBeliefNetwork((8, 6), fine_tuning_epochs=30, fine_tuning_rate=0.2, **settings).fit(
        X
    )
    assert greedy.generative_ is None
    assert len(tuned.fine_tuning_curve_) == 30
    assert tuned.n_iter_ == 34
    assert not np.array_equal(
        tuned.generative_["layer1.weights"], tuned.named_estimators_["layer1"].components_
    )
    for bound in belief_bounds.BOUNDS:
        assert tuned.score(X_test, bound=bound) > greedy.score(X_test, bound=bound) + 0.05
    x = all_states(6)
    np.testing.assert_allclose(known_density(tuned, x), naive_log_density(tuned, x), atol=1e-5)
    below = tuned.generative_["layer1.weights"].copy()
    tuned.partial_fit(X[:100])  # one more pass
    assert len(tuned.fine_tuning_curve_) == 31
    assert tuned.log_partition_ is None
    assert not np.array_equal(tuned.generative_["layer1.weights"], below)
    np.testing.assert_allclose(tuned.feature_means_, np.r_[X, X[:100]].mean(axis=0))
    assert tuned.drop_training_state().fine_tuning_state_ == {}


def test_chains_of_fine_tuning_go_on_between_chunks(monkeypatch):
    X = make_bits(100)
    model = DeepBeliefNetwork((5, 3), fine_tuning_epochs=1, **FEW).fit(X)

    def annealed(*arguments):
        raise AssertionError("chains start again")

    monkeypatch.setattr("sklebm.boltzmann._stack.settling.annealed", annealed)
    model.partial_fit(X[:20])
    with pytest.raises(AssertionError, match="start again"):
        model.drop_training_state().partial_fit(X[:20])


@pytest.mark.parametrize("sizes", [(5, 3), (5,)])
def test_fine_tuning_does_not_depend_on_the_units_of_real_rows(sizes):
    """Powers of two round nothing."""
    X = make_rows(100)
    settings = {**FEW, "learning_rate": 0.1, "fine_tuning_epochs": 5, "log_partition": "exact"}
    bottom = GaussianRBM(objective="cd", max_epochs=3)
    scores = []
    for unit in (2.0**-10, 1.0, 2.0**10):
        network = DeepBeliefNetwork(sizes, bottom=bottom, **settings).fit(unit * X)
        assert len(network.fine_tuning_curve_) == 5
        scores.append(network.score_samples(unit * X) + X.shape[1] * np.log(unit))
    # Variances are logarithms in single precision.
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)
    np.testing.assert_allclose(scores[2], scores[1], atol=1e-3)


def test_samples_have_the_moments_of_the_network():
    machines = [given_machine(4, 3, 0), given_machine(3, 2, 1)]
    network = DeepBeliefNetwork.from_parameters(machines=machines)
    drawn = network.sample(20_000, n_steps=60, random_state=0)
    x = all_states(4)
    p = np.exp(naive_log_density(network, x))
    counts = np.bincount((drawn @ [8, 4, 2, 1]).astype(int), minlength=16) / len(drawn)
    floor = np.sqrt(p * (1 - p) / len(drawn))
    assert (np.abs(counts - p) < 5 * floor).all()


# ---------------------------------------------------------------- saving, streams, errors


def test_saved_networks_answer_alike(tmp_path):
    X = make_bits()
    network = DeepBeliefNetwork((5, 3), fine_tuning_epochs=1, **FEW).fit(X)
    sklebm.save(network, tmp_path / "network.safetensors")
    copy = sklebm.load(tmp_path / "network.safetensors")
    np.testing.assert_array_equal(copy.score_samples(X), network.score_samples(X))
    network.set_params(hidden_sizes=(4, 3))
    with pytest.raises(ValueError, match="hidden_sizes"):
        sklebm.save(network, tmp_path / "network.safetensors")


def test_given_machines_have_to_stand_on_each_other():
    with pytest.raises(TypeError, match="needs machines"):
        DeepBeliefNetwork.from_parameters(hidden_sizes=(3,))
    with pytest.raises(ValueError, match="stand"):
        DeepBeliefNetwork.from_parameters(machines=[given_machine(4, 3, 0), given_machine(4, 2, 1)])
    given = [given_machine(4, 3, 0), given_machine(3, 2, 1)]
    with pytest.raises(ValueError, match="generative_ has shapes"):
        DeepBeliefNetwork.from_parameters(machines=given, generative={"layer1.bias": np.zeros(3)})
    network = DeepBeliefNetwork.from_parameters(machines=given)
    before = network.score_samples(all_states(4))
    assert np.isfinite(network.partial_fit(all_states(4)).score_samples(all_states(4))).all()
    np.testing.assert_array_equal(
        DeepBeliefNetwork.from_parameters(machines=given).score_samples(all_states(4)), before
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bottom": DeepBeliefNetwork((3,))}, "must be a BernoulliRBM, a GaussianRBM or"),
        ({"bottom": BoltzmannMachine(2)}, "must be a BernoulliRBM, a GaussianRBM or"),
        ({"hidden_sizes": ()}, "at least one"),
        ({"objective": "score_matching"}, "binary"),
    ],
)
def test_settings_that_make_no_network(settings, message):
    network = DeepBeliefNetwork(**{"hidden_sizes": (3, 2), **settings})
    with pytest.raises(ValueError, match=message):
        network.fit(make_bits())


def test_bounds_and_sizes_that_there_are_not():
    network = DeepBeliefNetwork((3, 2), **FEW).fit(make_bits())
    with pytest.raises(ValueError, match='must be "variational" or "importance"'):
        network.score_samples(make_bits(), bound="upper")
    with pytest.raises(ValueError, match="n_draws"):
        network.score_samples(make_bits(), n_draws=0)
    with pytest.raises(ValueError, match=r"hidden_sizes=\(4, 2\) differs from the fitted \[3, 2\]"):
        network.set_params(hidden_sizes=(4, 2)).partial_fit(make_bits())


def test_learning_goes_on_with_the_same_kind_of_bottom_and_layers():
    X = np.random.default_rng(0).normal(size=(60, 4))
    network = DeepBeliefNetwork((5, 3), bottom=GaussianRBM(max_epochs=1), max_epochs=1)
    network.fit(X).set_params(bottom=None)
    with pytest.raises(ValueError, match=r"bottom is a BernoulliRBM, but .* is a GaussianRBM"):
        network.partial_fit(make_bits(60)[:, :4])
    tuned = DeepBeliefNetwork((5, 3), fine_tuning_epochs=1, **FEW).fit(make_bits())
    with pytest.raises(ValueError, match=r"hidden_sizes=\(5, 3, 2\) differs from the fitted"):
        tuned.set_params(hidden_sizes=(5, 3, 2)).partial_fit(make_bits())
