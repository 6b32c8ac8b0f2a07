"""Surprise of steps: likelihoods in closed form, causality, ragged batches, gradients in time."""

import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy.special import expit, logsumexp
from scipy.stats import multivariate_normal
from scipy.stats import norm as normal
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline
from torch.utils._python_dispatch import TorchDispatchMode

from sklebm import SequenceEnergy
from sklebm._shell.rows import Rows
from sklebm.datasets import AutoregressiveProcess, SwitchingProcess
from sklebm.energies import step_machine
from sklebm.energies.cells import CELLS
from sklebm.energies.step_machine import MachineOutput
from sklebm.energies.step_outputs import OUTPUTS, LatentGaussianOutput
from sklebm.objectives import Batch
from sklebm.objectives.sequence_likelihood import with_dropout
from sklebm.training.sequences import SequenceRows

QUICK = {"n_components": 6, "batch_size": 50, "max_epochs": 2, "n_latents": 3, "random_state": 0}


def ragged(lengths=(5, 1, 12, 3, 9, 9), n_features=4, seed=0):
    """Bits with a name for each sequence."""
    random = np.random.default_rng(seed)
    X = (random.uniform(size=(sum(lengths), n_features)) < 0.4).astype(np.float64)
    groups = np.repeat([f"song {i}" for i in range(len(lengths))], lengths)
    return X, groups


def linear_model(phi, noise, offset=None, scale=None, start=0.0):
    """The linear cell whose steps are an autoregressive process of order 1.

    The first step is N(start, noise^2); that of the process is as spread out as all others.
    """
    weights = {
        "cell.weight": [[phi]],
        "cell.recurrent": [[0.0]],
        "cell.bias": [0.0],
        "cell.start": [start],
        "readout.weight": [[1.0], [0.0]],
        # a scale s is exp(7 tanh(r / 7))
        "readout.bias": [0.0, 7.0 * np.arctanh(np.log(noise) / 7.0)],
    }
    return SequenceEnergy.from_parameters(
        weights={name: np.array(value) for name, value in weights.items()},
        cell="linear",
        n_components=1,
        feature_means=np.zeros(1),
        offset=offset,
        scale=scale,
    )


# ---------------------------------------------------------------- exact likelihoods


def test_a_linear_cell_has_the_likelihood_of_an_autoregressive_process():
    process = AutoregressiveProcess(0.8, noise=0.5)
    X, groups = process.sample(4, 30, random_state=0)
    model = linear_model(0.8, 0.5, start=0.7)
    found = model.score_samples(X, groups=groups)
    first = np.r_[True, groups[1:] != groups[:-1]]
    truth = np.where(first, normal(0.7, 0.5).logpdf(X[:, 0]), process.log_density(X, groups))
    np.testing.assert_allclose(found, truth, rtol=1e-6)
    # Standardised rows: the same process in other units, where it has the same noise.
    scaled = linear_model(0.8, 0.5, np.array([3.0]), np.array([10.0]), start=0.7)
    there = scaled.score_samples(10.0 * X + 3.0, groups=groups)
    np.testing.assert_allclose(there, found - np.log(10.0), rtol=1e-6)


def test_a_fit_comes_close_to_the_true_likelihood():
    process = AutoregressiveProcess(0.9)
    X, groups = process.sample(60, 50, random_state=0)
    model = SequenceEnergy(2, cell="linear", learning_rate=0.03, max_epochs=15, random_state=0)
    X_test, groups_test = process.sample(40, 50, random_state=1)
    score = model.fit(X, groups=groups).score(X_test, groups=groups_test)
    truth = process.log_density(X_test, groups_test).mean()
    independent = -0.5 * np.log(2 * np.pi * np.e / (1 - 0.81))
    # Twenty parameters learnt from 3000 steps cost about 20 / 6000 nats a step; allow ten times.
    assert truth - 0.03 < score < truth + 0.03
    assert score > independent + 0.5


def test_regimes_are_recognised():
    """A recurrent network hears which regime it is in; one linear map for all cannot."""
    process = SwitchingProcess()
    X, groups = process.sample(40, 60, random_state=0)
    X_test, groups_test = process.sample(20, 60, random_state=1)
    scores = []
    for cell in ("gru", "linear"):
        model = SequenceEnergy(16, cell=cell, learning_rate=0.03, max_epochs=20, random_state=0)
        scores.append(model.fit(X, groups=groups).score(X_test, groups=groups_test))
    truth = process.log_density(X_test, groups_test).mean()
    # The mean difference of 1200 steps has a standard error of about .015.
    assert scores[1] + 0.05 < scores[0] < truth


def test_a_latent_output_is_a_gaussian_with_common_factors():
    output = LatentGaussianOutput(5, 2)
    output.to_empty(device="cpu").double()
    random = np.random.default_rng(0)
    V = random.standard_normal((5, 2))
    output.loadings.data = torch.from_numpy(V)
    parameters, y = random.standard_normal((7, 10)), random.standard_normal((7, 5))
    given = torch.from_numpy(y), torch.from_numpy(parameters)
    log_p, z = output.log_density(*given), output.latents(*given)
    for row in range(7):
        mean, scale = parameters[row, :5], np.exp(7 * np.tanh(parameters[row, 5:] / 7))
        covariance = V @ V.T + np.diag(scale**2)
        truth = multivariate_normal(mean, covariance).logpdf(y[row])
        assert float(log_p[row].detach()) == pytest.approx(truth, rel=1e-10)
        posterior = V.T @ np.linalg.solve(covariance, y[row] - mean)
        np.testing.assert_allclose(z[row].detach(), posterior, rtol=1e-10)


def machine(n_features=4, n_hidden=3, seed=0):
    output = MachineOutput(n_features, n_hidden).to_empty(device="cpu").double()
    random = np.random.default_rng(seed)
    output.weights.data = torch.from_numpy(random.standard_normal((n_hidden, n_features)))
    return output, torch.from_numpy(random.standard_normal((6, n_features + n_hidden)))


def all_bits(n):
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(float)


def test_a_machine_per_step_sums_to_one_over_all_rows():
    output, parameters = machine()
    rows = torch.from_numpy(all_bits(4))
    for row in range(len(parameters)):
        own = parameters[row].expand(16, -1)
        log_p = output.log_density(rows, own).detach().numpy()
        assert logsumexp(log_p) == pytest.approx(0.0, abs=1e-12)
        mean = output.mean(parameters[row][None])[0].numpy()
        np.testing.assert_allclose(mean, np.exp(log_p) @ all_bits(4), rtol=1e-10)


def test_an_annealed_machine_comes_close_to_the_sum():
    output, parameters = machine(6, 4)
    exact = output.log_partition(parameters)
    output.is_exact = False
    annealed = output.log_partition(parameters)
    # The log weights of 20 chains along 200 temperatures scatter by about .1 for these weights.
    np.testing.assert_allclose(annealed.detach(), exact.detach(), atol=0.15)
    alone = torch.cat([output.log_partition(row[None]) for row in parameters])
    np.testing.assert_allclose(alone.detach(), annealed.detach(), rtol=1e-12)


def test_means_of_a_machine_do_not_keep_all_states_of_all_rows():
    output, _ = machine(8, 13)
    parameters = torch.from_numpy(np.random.default_rng(0).standard_normal((100, 21)))
    kept, largest = [], Largest()
    watched = torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t)
    with watched, largest:
        mean = output.mean(parameters)
    assert not kept
    assert largest.size <= step_machine._MAX_ENTRIES < 100 * 2**13 * 8
    for row in (0, 50, 99):
        own = parameters[row].expand(256, -1)
        p = torch.exp(output.log_density(torch.from_numpy(all_bits(8)), own)).detach().numpy()
        np.testing.assert_allclose(mean[row], p @ all_bits(8), rtol=1e-10)


class Largest(TorchDispatchMode):
    """Number of values in the largest tensor that any operation returns."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.size = max(self.size, found.numel())
        return found


def test_means_of_annealed_chains_come_close_to_enumeration():
    output, parameters = machine(6, 4)
    exact = output.mean(parameters)
    output.is_exact = False
    found = output.mean(parameters)
    # 20 chains of 100 sweeps: if sweeps were independent, a standard error of .5 / sqrt(2000).
    np.testing.assert_allclose(found, exact, atol=0.05)
    alone = torch.cat([output.mean(row[None]) for row in parameters])
    np.testing.assert_allclose(alone, found, rtol=1e-12)


def test_means_of_annealed_chains_do_not_choose_one_of_two_modes():
    """Two bits that are both on or both off, as likely: mean field finds .018 for both."""
    output = MachineOutput(2, 21).to_empty(device="cpu").double()
    output.weights.data = torch.zeros(21, 2, dtype=torch.float64)
    output.weights.data[0] = 8.0
    parameters = torch.zeros(1, 23, dtype=torch.float64)
    parameters[0, :2], parameters[0, 2] = -4.0, -8.0
    # Three standard errors of a share of 20 chains.
    np.testing.assert_allclose(output.mean(parameters), [[0.5, 0.5]], atol=0.34)


def test_gibbs_sweeps_leave_the_machine_as_it_is():
    """Chains that start exactly at p are at p after a sweep, within four standard errors."""
    output, parameters = machine()
    n, own = 20_000, parameters[:1].expand(20_000, -1)
    rows = all_bits(4)
    p = np.exp(output.log_density(torch.from_numpy(rows), own[:16]).detach().numpy())
    x = torch.from_numpy(rows[np.random.default_rng(0).choice(16, n, p=p / p.sum())])
    with torch.no_grad():
        x = output.sweep(x, own, torch.Generator().manual_seed(0)).numpy()
    counts = np.bincount((x @ 2 ** np.arange(4)).astype(int), minlength=16)
    assert np.all(np.abs(counts / n - p) < 4 * np.sqrt(p * (1 - p) / n))


def test_a_machine_learns_what_bits_have_in_common():
    """Two bits that always agree: independent bits lose log 2 a step."""
    random = np.random.default_rng(0)
    first = random.integers(2, size=600)
    X = np.column_stack([first, first]).astype(float)
    settings = {**QUICK, "cell": "rnn", "learning_rate": 0.1, "max_epochs": 25}
    groups = np.arange(600) // 20
    alone = (
        SequenceEnergy(output="bernoulli", **settings).fit(X, groups=groups).score(X, groups=groups)
    )
    joint = SequenceEnergy(output="rbm", **settings).fit(X, groups=groups).score(X, groups=groups)
    assert alone == pytest.approx(-2 * np.log(2), abs=0.05)
    assert joint > -np.log(2) - 0.15


def test_features_that_are_left_out_keep_their_mean():
    ones = torch.ones(20_000, 3)
    found = with_dropout(ones, 0.3, torch.Generator().manual_seed(0))
    assert sorted(found.unique().tolist()) == pytest.approx([0.0, 1 / 0.7])
    # Five standard errors of a share of 0.3 among 20,000.
    assert float(((found == 0).float().mean(dim=0) - 0.3).abs().max()) < 5 * np.sqrt(0.21 / 20_000)
    assert with_dropout(ones, 0.0, torch.Generator()) is ones


@pytest.mark.parametrize("output", ["bernoulli", "rbm"])
def test_dropout_keeps_few_sequences_from_being_learnt_by_heart(output):
    X, groups = ragged([20] * 6, 8)
    X_test, groups_test = ragged([20] * 20, 8, seed=1)
    settings = {"n_components": 24, "learning_rate": 0.02, "max_epochs": 30, "n_gibbs_steps": 2}
    scores = [
        SequenceEnergy(cell="gru", output=output, dropout=share, **{**QUICK, **settings})
        .fit(X, groups=groups)
        .score(X_test, groups=groups_test)
        for share in (0.0, 0.5)
    ]
    assert scores[1] > scores[0] + 0.1


def test_line_searches_need_a_loss_that_stays():
    X, groups = ragged()
    model = SequenceEnergy(output="bernoulli", optimizer="lbfgs", dropout=0.5, **QUICK)
    with pytest.raises(ValueError, match="lbfgs"):
        model.fit(X, groups=groups)


@pytest.mark.parametrize("output", ["bernoulli", "categorical"])
def test_discrete_outputs_are_normalised(output):
    X, groups = ragged()
    model = SequenceEnergy(output=output, **QUICK).fit(X, groups=groups)
    past = X[:7]
    candidates = all_bits(4) if output == "bernoulli" else np.eye(4)
    log_p = [model.score_samples(np.vstack([past, row]))[-1] for row in candidates]
    assert logsumexp(log_p) == pytest.approx(0.0, abs=1e-10)
    mean = model.predict(past)[-1]
    np.testing.assert_allclose(mean, np.exp(log_p) @ candidates, rtol=1e-9)


# ---------------------------------------------------------------- time


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("output", sorted(OUTPUTS))
def test_a_score_does_not_change_with_what_comes_after(cell, output):
    X, groups = ragged()
    model = SequenceEnergy(cell=cell, output=output, **QUICK).fit(X, groups=groups)
    changed = X.copy()
    changed[10:] = 1 - changed[10:]
    for method in ("score_samples", "transform", "predict"):
        before = getattr(model, method)(X, groups=groups)
        after = getattr(model, method)(changed, groups=groups)
        np.testing.assert_array_equal(before[:10], after[:10])
        assert not np.allclose(before[10:18], after[10:18])


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_ragged_sequences_side_by_side_score_as_if_alone(cell):
    X, groups = ragged()
    model = SequenceEnergy(cell=cell, output="latent", **QUICK).fit(X, groups=groups)
    together = model.score_samples(X, groups=groups)
    alone = [model.score_samples(X[groups == name]) for name in pd.unique(groups)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-6)
    with sklearn.config_context(working_memory=0.01):  # a few rows at a time
        np.testing.assert_allclose(model.score_samples(X, groups=groups), together, atol=1e-6)


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_gradients_of_ragged_batches_are_those_of_one_sequence_at_a_time(cell):
    X, groups = ragged()
    energy = SequenceEnergy(cell=cell, **QUICK).fit(X, groups=groups)._energy(torch.device("cpu"))
    energy = energy.double()
    x, numbers = torch.from_numpy(X), torch.from_numpy(pd.factorize(groups)[0])
    energy.log_density(x, numbers).sum().backward()
    together = [parameter.grad.clone() for parameter in energy.parameters()]
    energy.zero_grad()
    for number in range(6):
        energy.log_density(x[numbers == number], None).sum().backward()
    for grad, parameter in zip(together, energy.parameters(), strict=True):
        np.testing.assert_allclose(grad, parameter.grad, rtol=1e-6, atol=1e-9)


def test_gradient_flow_is_the_product_of_jacobians():
    X, groups = ragged((6, 4))
    model = SequenceEnergy(cell="rnn", **QUICK).fit(X, groups=groups)
    w = {name: array.astype(np.float64) for name, array in model.weights_.items()}
    U = w["cell.net.weight_hh_l0"]
    flow = model.gradient_flow(X, groups=groups)
    for rows in (slice(0, 6), slice(6, 10)):
        Y = (X[rows] - model.offset_) / model.scale_
        H = model.transform(X[rows])
        mean, log_scale = np.split(w["readout.weight"] @ H[-2] + w["readout.bias"], 2)
        slope = 1 - np.tanh(log_scale / 7) ** 2
        scale = np.exp(7 * np.tanh(log_scale / 7))
        gap = (Y[-1] - mean) / scale
        gradient = np.concatenate([-gap / scale, (1 - gap**2) * slope]) @ w["readout.weight"]
        norms = [0.0]
        for h in H[-2::-1]:
            norms.append(np.linalg.norm(gradient))
            gradient = (gradient * (1 - h**2)) @ U
        np.testing.assert_allclose(flow[rows], norms[::-1], rtol=1e-9)


@pytest.mark.parametrize("cell", ["lstm", "gru", "linear"])
def test_gradient_flow_predicts_what_a_nudge_of_the_state_does(cell):
    """Finite differences along the gradient: the loss rises by its norm times the step."""
    X, _ = ragged((7,))
    model = SequenceEnergy(cell=cell, **QUICK).fit(X)
    energy = model._energy(torch.device("cpu")).double()
    flow = model.gradient_flow(X)
    y = energy.standardized(torch.from_numpy(X))

    def loss_from(state, t):
        for step in y[t + 1 : -1]:
            state = energy.cell(step[None, None], state)[1]
        return -energy.log_density_given(y[-1:], energy.cell.features_of(state)).sum()

    for t in (0, 3, 5):
        with torch.no_grad():
            state = energy.walk(y[: t + 1], [t + 1], keep=True).state
        leaves = tuple(part.clone().requires_grad_() for part in state)
        gradients = torch.autograd.grad(loss_from(leaves, t), leaves, allow_unused=True)
        gradients = [
            torch.zeros_like(p) if g is None else g for g, p in zip(gradients, leaves, strict=True)
        ]
        step = 1e-5 / flow[t]
        ends = [
            float(
                loss_from(
                    [p + s * step * g for p, g in zip(state, gradients, strict=True)], t
                ).detach()
            )
            for s in (1, -1)
        ]
        # The central difference is off by the square of the step.
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(flow[t] ** 2, rel=1e-5)
    assert flow[-1] == 0.0


def test_a_forget_bias_lets_gradients_through():
    X, _ = ragged((40,))
    flows = []
    for settings in ({"cell": "rnn"}, {"cell": "lstm", "forget_bias": 3.0}):
        model = SequenceEnergy(32, **settings, learning_rate=1e-9, max_epochs=1, random_state=0)
        flow = model.fit(X).gradient_flow(X)
        flows.append(flow[0] / flow[-2])
    assert flows[1] > 100 * flows[0]


def test_long_sequences_are_learnt_in_pieces():
    """Every row counts once; pieces bring the steps before them, which do not count."""
    X, groups = AutoregressiveProcess(0.9).sample(3, 70, random_state=0)
    settings = {"cell": "linear", "learning_rate": 0.03, "max_epochs": 20, "random_state": 0}
    whole = SequenceEnergy(2, **settings).fit(X, groups=groups)
    cut = SequenceEnergy(2, truncation=16, **settings).fit(X, groups=groups)
    assert cut.n_samples_seen_ == 210
    scores = [model.score(X, groups=groups) for model in (whole, cut)]
    assert scores[1] == pytest.approx(scores[0], abs=0.02)
    longer = SequenceEnergy(2, truncation=70, **settings).fit(X, groups=groups)
    for name, array in whole.weights_.items():
        np.testing.assert_array_equal(longer.weights_[name], array)
    for truncation in (1, 16, 69, 70, 100):
        rows = sequence_rows([70, 70, 1, 70], truncation)
        batches = list(rows.batches(rows, batch_size=32, generator=None))
        counted = [b.x if b.weight is None else b.x[b.weight > 0] for b in batches]
        assert torch.cat(counted)[:, 0].tolist() == list(range(211))


@pytest.mark.parametrize(("window", "seen"), [(1, 1), (2, 2), (3, 4), (8, 8)])
def test_a_convolution_sees_its_window(window, seen):
    X, _ = ragged((20,))
    model = SequenceEnergy(cell="conv", window=window, **QUICK).fit(X)
    before = model.predict(X)[12]
    reach = []
    for back in range(12):
        changed = X.copy()
        changed[12 - back] += 1.0
        if not np.array_equal(model.predict(changed)[12], before):
            reach.append(back)
    assert reach == list(range(seen))


def test_samples_go_on_where_the_past_stopped():
    t = np.arange(400)
    X = np.column_stack([np.sin(0.4 * t), np.cos(0.4 * t)])
    model = SequenceEnergy(16, cell="gru", learning_rate=0.03, max_epochs=30, random_state=0)
    model.fit(X, groups=np.arange(400) // 50)
    drawn = model.sample(8, start=X[:200], random_state=0)
    assert drawn.shape == (8, 2)
    truth = np.column_stack([np.sin(0.4 * t[200:208]), np.cos(0.4 * t[200:208])])
    assert np.abs(drawn - truth).max() < 0.4
    # A forecast is the mean of the first step drawn: four standard errors of 200 draws.
    first = np.array([model.sample(1, start=X[:50], random_state=seed)[0] for seed in range(200)])
    error = 4 * first.std(axis=0) / np.sqrt(200)
    assert np.all(np.abs(first.mean(axis=0) - model.predict(X[:50])[-1]) < error)


@pytest.mark.parametrize("offset", [1e6, 1e8])
def test_samples_far_from_zero_are_those_near_it(offset):
    """Steps of 1 about an offset at which single precision has a grid of 1/16, or of 8."""
    near, far = (
        linear_model(0.8, 0.01, np.array([c]), np.ones(1)).sample(
            5, start=np.array([[c - 0.4], [c + 1.3]]), random_state=0
        )
        for c in (0.0, offset)
    )
    assert far.dtype == np.float64
    assert near[0, 0] == pytest.approx(0.8 * 1.3, abs=0.05)  # five standard deviations
    # The spacing of doubles near 1e8 is 1.5e-8, that of singles near 1 is 1.2e-7.
    np.testing.assert_allclose(far - offset, near, atol=1e-6)
    single = linear_model(0.8, 0.01).sample(2, start=np.ones((1, 1), np.float32), random_state=0)
    assert single.dtype == np.float32


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_the_past_of_samples_is_streamed(cell):
    X, _ = ragged((40,))
    model = SequenceEnergy(cell=cell, **QUICK).fit(X)
    whole = model.sample(3, start=X, random_state=0)
    with sklearn.config_context(working_memory=0.01):  # a few rows at a time
        np.testing.assert_allclose(model.sample(3, start=X, random_state=0), whole, atol=1e-5)


@pytest.mark.parametrize("output", ["bernoulli", "categorical", "latent", "rbm"])
def test_the_first_step_drawn_has_the_mean_that_is_predicted(output):
    X = np.eye(4)[np.random.default_rng(0).integers(4, size=60)]
    model = SequenceEnergy(cell="gru", output=output, **QUICK).fit(X, groups=np.arange(60) // 10)
    drawn = np.array([model.sample(1, start=X[:5], random_state=seed)[0] for seed in range(60)])
    error = 4 * drawn.std(axis=0) / np.sqrt(60)
    assert np.all(np.abs(drawn.mean(axis=0) - model.predict(X[:5])[-1]) < error)


def test_a_clipped_step_is_as_long_as_the_norm_allows():
    X, groups = ragged()
    settings = {**QUICK, "max_epochs": 1, "batch_size": len(X), "optimizer": "sgd"}
    settings |= {"learning_rate_schedule": "constant"}
    start = SequenceEnergy(learning_rate=1e-30, **settings).fit(X, groups=groups).weights_
    for norm in (0.01, 0.1):
        model = SequenceEnergy(learning_rate=0.5, max_gradient_norm=norm, **settings)
        weights = model.fit(X, groups=groups).weights_
        moved = np.concatenate([(weights[name] - start[name]).ravel() for name in start])
        # Weights are float32: each moves by about 1e-3 of 0.1, to 1e-8.
        assert np.linalg.norm(moved) == pytest.approx(0.5 * norm, rel=1e-3)


# ---------------------------------------------------------------- groups


def test_groups_may_be_strings_or_a_column_of_a_frame():
    X, groups = ragged()
    frame = pd.DataFrame(X, columns=list("abcd")).assign(song=groups)
    plain = SequenceEnergy(**QUICK).fit(X, groups=pd.factorize(groups)[0])
    named = SequenceEnergy(**QUICK).fit(frame[list("abcd")], groups=frame["song"])
    expected = plain.score_samples(X, groups=groups)
    found = named.score_samples(frame[list("abcd")], groups=frame["song"])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("method", ["fit", "score_samples", "transform", "predict"])
def test_bad_groups_are_refused(method):
    X, groups = ragged()
    model = SequenceEnergy(**QUICK).fit(X, groups=groups)
    call = getattr(model, method)
    with pytest.raises(ValueError, match=r"not contiguous: the sequence of row 6 .*argsort"):
        call(X[:9], groups=list("aaabbbabb"))
    with pytest.raises(ValueError, match="groups has 3 entries, but X has 39 rows"):
        call(X, groups=groups[:3])
    with pytest.raises(ValueError, match=r"one entry per row, shape \(39,\); got shape \(39, 1\)"):
        call(X, groups=np.zeros((39, 1)))


def test_values_that_are_no_probabilities_are_named_with_a_remedy_that_exists():
    X, groups = ragged()
    with pytest.warns(UserWarning, match=r"outside \[0, 1\].*MinMaxScaler.*or output="):
        SequenceEnergy(**{**QUICK, "output": "bernoulli", "max_epochs": 1}).fit(
            3 * X, groups=groups
        )


def test_a_convolution_has_no_state_to_show_gradients_of():
    X, groups = ragged()
    model = SequenceEnergy(cell="conv", **QUICK).fit(X, groups=groups)
    with pytest.raises(ValueError, match=r"cell='conv' has no state"):
        model.gradient_flow(X)


METHODS = ("fit", "score_samples", "score", "transform", "predict", "gradient_flow", "sample")


def call(model, method, X):
    return model.sample(2, start=X) if method == "sample" else getattr(model, method)(X)


@pytest.mark.parametrize("method", METHODS)
def test_categories_are_not_negative(method):
    model = SequenceEnergy(output="categorical", **QUICK)
    model = model if method == "fit" else model.fit(np.eye(4))
    model.set_params(output="categorical" if method == "fit" else "gaussian")  # not of the fit
    with pytest.raises(ValueError, match=r"Negative values in data.*categorical"):
        call(model, method, -np.eye(4))
    for taken in (np.eye(4), np.full((4, 4), 0.25), 3 * np.eye(4)):  # categories, shares, counts
        call(model, method, taken)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("output", ["bernoulli", "rbm"])
def test_every_method_warns_of_bits_that_are_none(output, method):
    model = SequenceEnergy(output=output, **QUICK).fit(np.eye(4))
    with pytest.warns(UserWarning, match=r"outside \[0, 1\] \(min=-3, max=-3\)"):
        call(model, method, np.full((4, 4), -3.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(model, method, np.full((4, 4), 0.3))


def test_whole_sequences_are_held_out():
    X, groups = AutoregressiveProcess(0.9).sample(20, 30, random_state=0)
    settings = {"cell": "linear", "learning_rate": 0.03, "max_epochs": 8, "random_state": 0}
    schedule = "non_monotone"
    model = SequenceEnergy(
        2, validation_fraction=0.2, learning_rate_schedule=schedule, **settings
    ).fit(X, groups=groups)
    assert model.validation_scores_[-1] > model.validation_scores_[0]
    single = SequenceEnergy(2, validation_fraction=0.2, **settings).fit(X)
    assert len(single.validation_scores_) == 8


@pytest.mark.parametrize("cell", ["conv", "lstm"])
def test_held_out_rows_are_scored_within_the_working_memory(cell):
    """A covariance of factors for each of 600 rows would take 600 x 20 x 8 numbers at once."""
    X, groups = ragged([200] * 3, 20)
    model = SequenceEnergy(cell=cell, output="latent", **{**QUICK, "n_latents": 8})
    model = model.fit(X, groups=groups)
    energy = model._energy(torch.device("cpu")).double()
    x, numbers = torch.from_numpy(X), torch.from_numpy(pd.factorize(groups)[0])
    whole = energy.log_density(x, numbers).mean().item()
    largest = Largest()
    with sklearn.config_context(working_memory=0.1), torch.no_grad(), largest:
        found = model._validation_score(energy, Batch(x, groups=numbers), seed=0)
    assert found == pytest.approx(whole, rel=1e-10)
    # Nothing but the weights and the places of all rows is larger than 0.1 MiB of float32.
    assert largest.size < 0.1 * 2**20 / 4


def sequence_rows(lengths, n_steps=100):
    """Numbered rows of sequences, as training sees them."""
    numbers = torch.arange(sum(lengths), dtype=torch.float32)[:, None]
    rows = Rows(numbers, torch.device("cpu"))
    rows.columns["groups"] = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    return SequenceRows(rows, n_steps)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("lengths", "fraction", "n_rows"),
    [
        ([30] * 20, 0.2, [120]),
        ([1000] + [10] * 20, 0.1, [120]),  # not the long one, which has most of the rows
        ([1000, 10], 0.1, [10]),
        ([10, 1000], 0.001, [10]),  # none fits: the shortest
        ([1, 1], 0.9, [1]),  # one is left for training
        ([70, 20, 10], 0.29, [20, 10]),
    ],
)
def test_whole_sequences_with_a_fraction_of_the_rows_are_held_out(lengths, fraction, n_rows, seed):
    rows = sequence_rows(lengths)
    kept, held_out = rows.split(fraction, torch.Generator().manual_seed(seed))
    assert sum(stop - start for start, stop in held_out) in n_rows
    assert kept
    assert sorted(kept + held_out) == rows.spans


def test_stacks_and_searches_route_groups():
    X, groups = AutoregressiveProcess(0.9).sample(12, 20, random_state=0)
    settings = {"n_components": 3, "cell": "gru", "max_epochs": 2, "random_state": 0}
    with sklearn.config_context(enable_metadata_routing=True):
        below = SequenceEnergy(**settings)
        below.set_fit_request(groups=True).set_transform_request(groups=True)
        above = SequenceEnergy(**settings)
        above.set_fit_request(groups=True).set_score_request(groups=True)
        stack = Pipeline([("below", below), ("above", above)])
        search = GridSearchCV(stack, {"above__n_components": [1, 2]}, cv=GroupKFold(3))
        search.fit(X, groups=groups)
        best = search.best_estimator_
        score = best.score(X, groups=groups)
        H = best[:-1].transform(X, groups=groups)
    assert H.shape == (240, 3)
    assert score == pytest.approx(best[-1].score(H, groups=groups), rel=1e-12)
    # By hand, without routing: the recipe of the page.
    first = SequenceEnergy(**settings).fit(X, groups=groups)
    H = first.transform(X, groups=groups)
    second = SequenceEnergy(**{**settings, "n_components": best[-1].n_components})
    assert second.fit(H, groups=groups).score(H, groups=groups) == pytest.approx(score, rel=1e-12)


def test_what_a_step_adds_stands_beside_its_past():
    X, groups = ragged()
    model = SequenceEnergy(output="latent", **QUICK).fit(X, groups=groups)
    assert model.transform(X, groups=groups).shape == (39, 9)
    assert len(model.get_feature_names_out()) == 9


def test_odds_of_the_first_step_are_learnt():
    X = np.vstack([[[1.0, 0.0], [0.0, 1.0]]] * 100)
    groups = np.repeat(np.arange(100), 2)
    model = SequenceEnergy(
        4, output="bernoulli", cell="rnn", learning_rate=0.05, random_state=0
    ).fit(X, groups=groups)
    scores = model.score_samples(X[:2])
    assert np.all(np.exp(scores) > 0.9)
    np.testing.assert_allclose(model.predict(X[:1]), expit([[-3, 3]]), atol=0.1)
