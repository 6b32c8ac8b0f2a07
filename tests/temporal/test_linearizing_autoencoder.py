"""Paths of codes: pooling by hand, inner steps by finite differences, motion that is predicted."""

import copy
import itertools
import warnings

import numpy as np
import pandas
import pytest
import sklearn
import torch

from sklebm import Autoencoder, LinearizingAutoencoder
from sklebm.datasets import make_bouncing_digits
from sklebm.energies.phase_pooling import PhasePooling, PhaseShape, PhaseUnpooling
from sklebm.metrics import curvature
from sklebm.objectives import Batch
from sklebm.objectives.linearization import LinearPrediction, bends

QUICK = {"n_components": 3, "hidden_sizes": (6,), "max_epochs": 2, "random_state": 0}
SHAPE = PhaseShape(2, 3, 4, 6, (2, 3))
SIDE = 20
BUMPS = {"image_shape": (1, SIDE), "hidden_sizes": (8,), "learning_rate": 0.01, "max_epochs": 40}


def units(n_rows=5, seed=0):
    """Activities of 2 groups of 3 features, maps of 4 x 6."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n_rows, 6, 4, 6)))


def rows(lengths=(5, 1, 7, 2, 6), n_features=6, seed=0):
    """Random sequences."""
    X = np.random.default_rng(seed).uniform(size=(sum(lengths), n_features))
    return X, np.repeat(np.arange(len(lengths)), lengths)


def bumps(n_sequences=60, n_steps=10, turns=False, seed=0):
    """Bumps that move along a line; with turns, to the left or right by a coin at every step."""
    random = np.random.default_rng(seed)
    start = random.uniform(7.0, SIDE - 8.0, (n_sequences, 1))
    speed = random.uniform(0.2, 0.6, (n_sequences, 1)) * random.choice([-1, 1], (n_sequences, 1))
    coins = random.choice([-1, 1], (n_sequences, n_steps - 1)).cumprod(axis=1)
    moves = speed * coins if turns else np.repeat(speed, n_steps - 1, axis=1)
    place = start + np.concatenate([np.zeros((n_sequences, 1)), moves.cumsum(axis=1)], axis=1)
    width = random.uniform(1.0, 2.0, (n_sequences, 1, 1))
    X = np.exp(-0.5 * ((np.arange(SIDE) - place[:, :, None]) / width) ** 2)
    return X.reshape(-1, SIDE), np.repeat(np.arange(n_sequences), n_steps), place.ravel()


# ---------------------------------------------------------------- pooling


def test_pooling_is_its_formula():
    a, beta = units(), 1.7
    code = PhasePooling(SHAPE, beta)(a).numpy().reshape(5, 4, -1)
    pool = 0
    for group in range(2):
        for top in (0, 2):
            for left in (0, 3):
                cells = a[:, 3 * group : 3 * group + 3, top : top + 2, left : left + 3].numpy()
                weights = np.exp(beta * cells)
                weights /= weights.sum(axis=(1, 2, 3), keepdims=True)
                places = np.meshgrid([-1, 0, 1], [-0.5, 0.5], [-1, 0, 1], indexing="ij")
                truth = [(weights * cells).sum(axis=(1, 2, 3))]
                truth += [(weights * place).sum(axis=(1, 2, 3)) for place in places]
                np.testing.assert_allclose(code[:, :, pool], np.array(truth).T, rtol=1e-12)
                pool += 1
    assert SHAPE.n_codes == 4 * 8


def test_a_sharp_soft_maximum_is_the_maximum_and_its_place():
    a = units()
    code = PhasePooling(SHAPE, 1e6)(a).numpy().reshape(5, 4, -1)
    cells = SHAPE.grouped(a)
    best = cells.argmax(dim=2)
    np.testing.assert_array_equal(code[:, 0], cells.amax(dim=2))
    np.testing.assert_array_equal(code[:, 1:], SHAPE.places(a)[:, best].permute(1, 0, 2))


def test_units_are_put_back_where_they_were():
    a = units()
    np.testing.assert_array_equal(SHAPE.spread(SHAPE.grouped(a)), a)
    sharp = PhaseUnpooling(SHAPE)(PhasePooling(SHAPE, 1e6)(a))
    cells, back = SHAPE.grouped(a), SHAPE.grouped(sharp)
    best = cells.argmax(dim=2, keepdim=True)
    expected = torch.zeros_like(cells).scatter(2, best, cells.gather(2, best))
    np.testing.assert_allclose(back, expected, atol=1e-12)


def test_a_place_between_cells_is_shared_between_them():
    shape = PhaseShape(1, 1, 1, 4, (1, 4))
    code = torch.tensor([[2.0, -0.5], [2.0, 0.25], [2.0, 9.0]], dtype=torch.float64)
    found = PhaseUnpooling(shape)(code)[:, 0, 0].numpy()
    np.testing.assert_allclose(found[0], [0, 2, 0, 0])
    np.testing.assert_allclose(found[1], [0, 0.5, 1.5, 0])
    np.testing.assert_allclose(found[2], 0.0)  # it has left the window


# ---------------------------------------------------------------- prediction and its loss


def codes_and_rows(model, X):
    """The energy in double precision, standardised rows and codes."""
    energy = model._energy(torch.device("cpu")).double()
    y = energy.standardized(torch.from_numpy(X))
    return energy, y, energy.encoder(y)


@pytest.mark.parametrize("pooling", ["phase", "none"])
@pytest.mark.parametrize("prediction", ["linear", "learned"])
def test_the_next_code_is_its_formula(prediction, pooling):
    X, groups = rows()
    model = LinearizingAutoencoder(prediction=prediction, pooling=pooling, n_deltas=2, **QUICK)
    model.fit(X, groups=groups)
    Z, W = model.transform(X), model.weights_["gate.weight"].astype(float)
    if prediction == "learned":
        a = model.weights_["line.weights"].astype(float)
        ahead = a[0] * Z[3] + a[1] * Z[2]
    else:
        m = 3 if pooling == "phase" else 0
        ahead = np.concatenate([(Z[3, :m] + Z[2, :m]) / 2, 2 * Z[3, m:] - Z[2, m:]])
    delta = np.array([0.3, -2.0])
    expected = model.inverse_transform([Z[3] + (1 + W @ delta) * (ahead - Z[3])])[0]
    deltas = np.tile(delta, (len(X), 1))
    np.testing.assert_allclose(model.predict(X, groups, deltas)[3], expected, rtol=1e-9)
    without = model.inverse_transform(ahead[None])[0]
    np.testing.assert_allclose(model.predict(X, groups)[3], without, rtol=1e-9)
    still = 2 * [Z[0]] if prediction == "linear" else [a.sum() * Z[0]]
    np.testing.assert_allclose(
        model.predict(X, groups)[0], model.inverse_transform(still)[0], rtol=1e-9
    )


def test_no_inner_steps_are_the_deterministic_model():
    X, groups = rows()
    model = LinearizingAutoencoder(n_deltas=2, n_inner_steps=0, **QUICK).fit(X, groups=groups)
    weights = {k: v for k, v in model.weights_.items() if k != "gate.weight"}
    plain = LinearizingAutoencoder.from_parameters(
        weights=weights,
        **{**QUICK, "offset": model.offset_, "scale": model.scale_},
        feature_means=model.feature_means_,
    )
    found, expected = (m.free_energy(X, groups) for m in (model, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_array_equal(model.infer_deltas(X, groups), 0.0)


def test_an_inner_step_goes_down_the_gradient():
    """An affine decoder: the gradient of |y - g(z')|^2 / d with respect to delta by hand."""
    X, groups = rows()
    settings = {**QUICK, "hidden_sizes": (), "pooling": "none", "inner_rate": 0.7}
    model = LinearizingAutoencoder(n_deltas=2, n_inner_steps=1, **settings).fit(X, groups=groups)
    _, y, z = codes_and_rows(model, X)
    y, z = y.numpy(), z.detach().numpy()
    G, b, W = (
        model.weights_[k].astype(float)
        for k in ("decoder.0.weight", "decoder.0.bias", "gate.weight")
    )
    for t in (2, 3, 8):  # rows with two before them
        velocity = z[t - 1] - z[t - 2]
        gap = y[t] - G @ (z[t - 1] + velocity) - b
        slope = -2.0 * (gap @ G * velocity) @ W / X.shape[1]
        found = model.infer_deltas(X, groups)[t]
        np.testing.assert_allclose(found, -0.7 * slope, rtol=1e-6, atol=1e-9)


@pytest.fixture(scope="module")
def gated():
    """A model with latents."""
    X, groups, _ = bumps(20, turns=True)
    settings = {**BUMPS, "max_epochs": 10, "random_state": 0}
    return LinearizingAutoencoder(2, n_deltas=2, **settings).fit(X, groups=groups)


def test_training_shortens_inner_steps_that_are_too_long():
    """A hundred times too long: steps that are never shortened teach the model less."""
    X, groups = make_bouncing_digits(20, 8, size=9, speed=0.5, turn=1.0, random_state=0)
    settings = {"image_shape": (9, 9), "hidden_sizes": (), "n_deltas": 2, "max_epochs": 4}
    found = [
        LinearizingAutoencoder(4, inner_rate=rate, learning_rate=0.01, random_state=0, **settings)
        .fit(X, groups=groups)
        .score(X, groups=groups)
        for rate in (5.0, 500.0)
    ]
    assert found[1] > found[0] - 0.1  # 0.2 less with steps of one length


@pytest.mark.parametrize("gain", [1.0, 4.0, 16.0])
@pytest.mark.parametrize("rate", [5.0, 1e4])
def test_inner_steps_never_raise_the_error(gated, rate, gain):
    """Nor where rows are unlike those of training, and steps too large for any row."""
    X, groups, _ = bumps(8, turns=True, seed=1)
    X = gain * X
    errors = []
    for n_steps in (0, 1, 2, 4, 12):
        model = copy.deepcopy(gated)
        model.architecture_ |= {"n_inner_steps": n_steps, "inner_rate": rate}
        errors.append(model.free_energy(X, groups))
    for fewer, more in itertools.pairwise(errors):
        assert (more <= fewer * (1.0 + 1e-12)).all()
    third = np.flatnonzero(np.arange(len(X)) % 10 >= 2)
    assert (errors[-1] < errors[0])[third].mean() > 0.9
    ahead = model.predict(X, groups, np.roll(model.infer_deltas(X, groups), -1, axis=0))
    found = ((X[third] - ahead[third - 1]) ** 2).sum(axis=1)
    np.testing.assert_allclose(found, errors[-1][third], rtol=1e-9)


def test_steps_that_lower_the_error_have_the_size_that_was_asked_for(gated):
    X, _, _ = bumps(8, turns=True, seed=1)
    energy, y, z = codes_and_rows(gated, X)
    energy.rate *= 3.0  # too long for some rows
    third = np.flatnonzero(np.arange(len(X)) % 10 >= 2)
    with torch.no_grad():
        found, _ = energy.infer(z[third - 1], z[third - 2], y[third])
    learning, _ = energy.infer(z[third - 1], z[third - 2], y[third], unroll=True)
    plain, path = torch.zeros_like(found, requires_grad=True), []
    for _ in range(6):
        path.append(energy.errors(z[third - 1], z[third - 2], y[third], plain))
        (slope,) = torch.autograd.grad(path[-1].sum() / y.shape[1], plain, retain_graph=True)
        last, plain = plain, (plain - energy.rate * slope).detach().requires_grad_()
    falls = (torch.stack(path).diff(dim=0) <= 0.0).all(dim=0)
    assert falls.double().mean() > 0.5
    np.testing.assert_allclose(found[falls], last.detach()[falls], rtol=1e-9, atol=1e-12)
    # Training infers the same latents, with shorter steps as well.
    np.testing.assert_allclose(learning.detach(), found, rtol=1e-9, atol=1e-12)
    assert not falls.all()


@pytest.mark.parametrize("name", ["gate.weight", "decoder.1.weight", "encoder.0.weight"])
@pytest.mark.parametrize("pause", [False, True])
def test_gradients_through_the_inner_steps_are_finite_differences(name, pause):
    X, groups = rows((6, 6))
    X = with_a_pause(X, 6, 3) if pause else X
    settings = {**QUICK, "hidden_sizes": (), "activation": "tanh", "prediction": "learned"}
    name = name.replace("decoder.1", "decoder.2")
    model = LinearizingAutoencoder(n_deltas=2, n_inner_steps=3, **settings).fit(X, groups=groups)
    energy, y, _ = codes_and_rows(model, X)
    batch = Batch(y, groups=torch.from_numpy(groups))
    objective = LinearPrediction(0.5, unroll=True)

    def loss():
        return objective.loss(energy, batch, {}, torch.Generator())[0]

    weight = dict(energy.named_parameters())[name]
    assert_finite_differences(loss, weight, loss)


def assert_finite_differences(loss, weight, value):
    """The gradient of ``loss`` with respect to a weight is the slope of ``value`` along it."""
    (slope,) = torch.autograd.grad(loss(), weight)
    random = np.random.default_rng(0)
    for _ in range(3):
        direction = torch.from_numpy(random.standard_normal(weight.shape))
        ends = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                weight += sign * 1e-6 * direction
            ends.append(float(value().detach()))
            with torch.no_grad():
                weight -= sign * 1e-6 * direction
        # The loss is of order 1: differences keep ten digits, divided by steps of 1e-6.
        expected = (ends[0] - ends[1]) / 2e-6
        assert float((slope * direction).sum()) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["gate.weight", "decoder.2.weight", "encoder.0.weight"])
def test_latents_count_as_given_unless_unrolled(name):
    """Also far from the minimum over latents, where both gradients differ."""
    X, groups = rows((6, 6))
    settings = {**QUICK, "hidden_sizes": (), "activation": "tanh", "prediction": "learned"}
    model = LinearizingAutoencoder(n_deltas=2, n_inner_steps=1, **settings).fit(X, groups=groups)
    energy, y, z = codes_and_rows(model, X)
    third = torch.arange(len(X)).remainder(6).ge(2).nonzero()[:, 0]
    with torch.no_grad():
        given, _ = energy.infer(z[third - 1], z[third - 2], y[third])

    def loss(unroll=False):
        z = energy.encoder(y)
        return energy.surprises(z[third - 1], z[third - 2], y[third], unroll).mean()

    def with_given_latents():
        z = energy.encoder(y)
        return energy.errors(z[third - 1], z[third - 2], y[third], given).mean()

    weight = dict(energy.named_parameters())[name]
    assert_finite_differences(loss, weight, with_given_latents)
    plain, unrolled = (torch.autograd.grad(loss(unroll), weight)[0] for unroll in (False, True))
    assert (plain - unrolled).norm() > 1e-3 * plain.norm()
    # The estimator's parameter is the objective's.
    for unroll in (False, True):
        assert model.set_params(unroll=unroll)._objective(energy).unroll is unroll


@pytest.mark.parametrize("pooling", ["phase", "none"])
def test_the_loss_is_its_formula(pooling):
    X, groups = rows()
    model = LinearizingAutoencoder(pooling=pooling, **QUICK).fit(X, groups=groups)
    Z, decoded = model.transform(X), model.inverse_transform(model.transform(X))
    weight = np.ones(len(X))
    weight[[6, 7]] = 0.0  # rows that only serve as the past of others
    errors, bends = [], []
    for t in range(len(X)):
        if not weight[t]:
            continue
        past = [t - k >= 0 and groups[t - k] == groups[t] for k in (1, 2)]
        if not past[0]:
            errors.append(((X[t] - decoded[t]) ** 2).sum())
        elif past[1]:
            errors.append(((X[t] - model.predict(X, groups)[t - 1]) ** 2).sum())
            a, b = Z[t] - Z[t - 1], Z[t - 1] - Z[t - 2]
            bends.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    expected = np.mean(errors) / model.scale_[0] ** 2 - 0.3 * np.mean(bends)
    energy, y, _ = codes_and_rows(model, X)
    batch = Batch(y, weight=torch.from_numpy(weight), groups=torch.from_numpy(groups))
    loss, _ = LinearPrediction(0.3).loss(energy, batch, {}, torch.Generator())
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-9)


def with_a_pause(X, length=10, at=4):
    """Sequences in which one row is shown twice; the last row is left out."""
    steps = np.insert(np.delete(np.arange(length), -1), at, at)
    return X.reshape(-1, length, X.shape[1])[:, steps].reshape(X.shape)


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e6])
def test_a_code_that_stands_still_has_no_direction(unit):
    random = np.random.default_rng(0)
    before, now = (unit * torch.from_numpy(random.standard_normal((8, 5))) for _ in range(2))
    change = unit * torch.from_numpy(random.standard_normal((8, 5)))
    size = torch.tensor([0.0, 1e-12, 1e-9, 1e-6, 0.1, 1.0, 1.0, 1.0], dtype=change.dtype)[:, None]
    found = bends(before, now, now + size * change)
    expected = torch.nn.functional.cosine_similarity(change, now - before, dim=1)
    np.testing.assert_allclose(found[4:], expected[4:], rtol=1e-9)
    assert found[0] == 0.0
    assert found[:3].abs().max() < 1e-5
    assert torch.equal(bends(now, now, now), torch.zeros(8, dtype=now.dtype))


@pytest.mark.parametrize("n_sequences", [1, 8])
@pytest.mark.parametrize("at", [0, 4, 8])
def test_rounding_does_not_outweigh_rows_beside_one_that_is_shown_twice(at, n_sequences):
    """In float32, the gradient of the loss is that in float64."""
    X, groups, _ = bumps(n_sequences)
    X = with_a_pause(X, at=at)
    if n_sequences == 1:
        X = np.tile(X[:1], (10, 1))  # nothing moves
    model = LinearizingAutoencoder(2, **{**BUMPS, "max_epochs": 1}, random_state=0)
    model.fit(bumps(8)[0], groups=bumps(8)[1])
    energy, y, _ = codes_and_rows(model, X)
    slopes = []
    for dtype in (torch.float64, torch.float32):
        batch = Batch(y.detach().to(dtype), groups=torch.from_numpy(groups))
        loss, _ = LinearPrediction(1.0).loss(energy.to(dtype), batch, {}, torch.Generator())
        slopes.append([slope.double() for slope in torch.autograd.grad(loss, energy.parameters())])
    for exact, rounded in zip(*slopes, strict=True):
        np.testing.assert_allclose(rounded, exact, atol=2e-3 * float(exact.abs().max()))


def test_rows_that_are_shown_twice_do_not_spoil_what_is_learnt():
    X, groups, _ = bumps(40)
    X_test, groups_test, _ = bumps(40, seed=1)
    third = np.arange(len(X_test)) % 10 >= 2
    errors = []
    for curvature_ in (1.0, 0.0):
        settings = {**BUMPS, "max_epochs": 15, "curvature": curvature_}
        model = LinearizingAutoencoder(2, random_state=0, **settings)
        model.fit(with_a_pause(X), groups=groups)
        errors.append(model.free_energy(X_test, groups_test)[third].mean())
    assert errors[0] < 1.2 * errors[1]


# ---------------------------------------------------------------- sequences


def test_rows_are_scored_by_the_two_before_them():
    X, groups = rows()
    model = LinearizingAutoencoder(**QUICK).fit(X, groups=groups)
    ahead = model.predict(X, groups)
    back = model.inverse_transform(model.transform(X))
    first = np.r_[True, groups[1:] != groups[:-1]]
    expected = np.where(first[:, None], back, np.vstack([X[:1], ahead[:-1]]))
    np.testing.assert_allclose(
        model.free_energy(X, groups), ((X - expected) ** 2).sum(axis=1), rtol=1e-9
    )


@pytest.mark.parametrize("n_deltas", [0, 2])
def test_sequences_and_chunks_do_not_meet(n_deltas):
    X, groups = rows()
    model = LinearizingAutoencoder(n_deltas=n_deltas, **QUICK).fit(X, groups=groups)
    changed = X.copy()
    changed[10:] = 1 - changed[10:]
    names = ("free_energy", "predict", *["infer_deltas"] * (n_deltas > 0))
    for name in names:
        method = getattr(model, name)
        whole = method(X, groups)
        alone = np.concatenate([method(X[groups == g]) for g in range(5)])
        np.testing.assert_allclose(whole, alone, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(method(changed, groups)[:10], whole[:10], rtol=1e-9, atol=1e-12)
        with sklearn.config_context(working_memory=1e-6):  # a row at a time
            np.testing.assert_allclose(method(X, groups), whole, rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- what is learnt


@pytest.fixture(scope="module")
def moving():
    """A model of bumps that move, and sequences it has not seen."""
    X, groups, _ = bumps()
    model = LinearizingAutoencoder(2, random_state=0, **BUMPS).fit(X, groups=groups)
    return model, bumps(seed=1)


def test_the_next_frame_is_predicted(moving):
    model, (X, groups, _) = moving
    third = np.flatnonzero(np.arange(len(X)) % 10 >= 2)
    found = model.free_energy(X, groups)[third].mean()
    copied = ((X[third] - X[third - 1]) ** 2).sum(axis=1).mean()
    extrapolated = ((X[third] - 2 * X[third - 1] + X[third - 2]) ** 2).sum(axis=1).mean()
    assert found < 0.5 * copied
    assert found < 0.7 * extrapolated


def test_the_phase_is_the_place(moving):
    """A group follows its bump to half a pixel over whole sequences."""
    model, (X, _, place) = moving

    def misses(X, place):
        phases = model.transform(X)[:, 2:]
        starts = np.repeat(np.arange(0, len(X), 10), 10)
        moved, truth = phases - phases[starts], place - place[starts]
        assert np.abs(truth).max() > 3.0
        return np.abs(moved - truth[:, None]).max(axis=0)

    other, _, its_place = bumps(seed=2)
    group = misses(other, its_place).argmin()  # the other one may follow nothing
    assert misses(X, place)[group] < 0.5


def test_paths_are_straighter_than_those_of_an_autoencoder(moving):
    model, (X, groups, _) = moving
    train, _, _ = bumps()
    plain = Autoencoder(4, hidden_sizes=(32,), max_epochs=40, random_state=0).fit(train)
    assert 5.0 * curvature(model.transform(X), groups) < curvature(plain.transform(X), groups)


def test_interpolated_bumps_move_instead_of_fading(moving):
    model, _ = moving
    first, middle, last = (np.exp(-0.5 * (np.arange(SIDE) - c) ** 2 / 2.0) for c in (7, 9.5, 12))
    way = model.interpolate(first, last, 3)
    assert way.shape == (3, SIDE)
    assert ((way[1] - middle) ** 2).sum() < 0.3 * (((first + last) / 2 - middle) ** 2).sum()
    named = copy.deepcopy(model)
    named.feature_names_in_ = np.array([f"p{i}" for i in range(SIDE)], dtype=object)
    table = pandas.DataFrame([first, last], columns=named.feature_names_in_)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(named.interpolate(table.iloc[0], table.iloc[1], 3), way)
    with pytest.raises(ValueError, match="feature names"):
        named.interpolate(table.iloc[0, ::-1], table.iloc[1], 3)
    tables = copy.deepcopy(model).set_output(transform="pandas")
    ends = (torch.from_numpy(end).requires_grad_() for end in (first, last))
    np.testing.assert_array_equal(tables.interpolate(*ends, 3), way)


def test_a_latent_explains_turns():
    """Left or right by a coin: the mean stays between, a latent of one number decides."""
    X, groups, _ = bumps(turns=True)
    X_test, groups_test, _ = bumps(turns=True, seed=1)
    third = np.flatnonzero(np.arange(len(X_test)) % 10 >= 2)
    settings = {**BUMPS, "max_epochs": 25, "n_inner_steps": 3}
    model = LinearizingAutoencoder(2, n_deltas=1, random_state=0, **settings)
    model.fit(X, groups=groups)
    found = model.free_energy(X_test, groups_test)[third].mean()
    mean = ((X_test[third] - model.predict(X_test, groups_test)[third - 1]) ** 2).sum(axis=1).mean()
    assert found < 0.6 * mean
    # What was inferred from a row is what predicts it.
    deltas = np.roll(model.infer_deltas(X_test, groups_test), -1, axis=0)
    ahead = model.predict(X_test, groups_test, deltas)
    errors = ((X_test[third] - ahead[third - 1]) ** 2).sum(axis=1)
    np.testing.assert_allclose(errors, model.free_energy(X_test, groups_test)[third], rtol=1e-6)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("unit", [1.0, 1e-3])
def test_a_background_that_stands_still_is_named(unit):
    X, groups, _ = bumps(5)
    still = unit * (X + 4.0 * np.linspace(0.0, 1.0, SIDE))
    settings = {**BUMPS, "max_epochs": 1}
    with pytest.warns(UserWarning, match=r"mean frame varies by .* Subtract the mean frame"):
        LinearizingAutoencoder(2, **settings).fit(still, groups=groups)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LinearizingAutoencoder(2, **settings).fit(still - still.mean(axis=0), groups=groups)
        LinearizingAutoencoder(2, **settings).fit(unit * X, groups=groups)
        LinearizingAutoencoder(2, **settings).fit(still[[0, 0, 0]])  # nothing moves
        colours = np.hstack([unit * X, unit * X + 50.0 * unit])  # a bias of each channel
        LinearizingAutoencoder(2, **{**settings, "image_shape": (2, 1, SIDE)}).fit(colours)


def test_bad_input_is_named():
    X, groups = rows()
    model = LinearizingAutoencoder(n_deltas=2, **QUICK).fit(X, groups=groups)
    for deltas in (np.zeros((3, 2)), np.zeros((len(X), 3))):
        with pytest.raises(ValueError, match=r"deltas has shape .* n_deltas=2 numbers"):
            model.predict(X, groups, deltas)
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="deltas contains NaN or infinity"):
            model.predict(X, groups, np.full((len(X), 2), value))
    with pytest.raises(ValueError, match=r"n=1 must be a whole number of rows"):
        model.interpolate(X[0], X[1], 1)
    with pytest.raises(ValueError, match="is a part of an image: set image_shape"):
        LinearizingAutoencoder(window=(2, 2)).fit(X)
    with pytest.raises(ValueError, match="does not divide frames of 2 x 3"):
        LinearizingAutoencoder(window=(2, 2), image_shape=(2, 3)).fit(X)
    with pytest.raises(ValueError, match="not contiguous"):
        model.free_energy(X, np.arange(len(X)) % 2)
    with pytest.raises(ValueError, match="deltas has shape"):
        LinearizingAutoencoder(**QUICK).fit(X).predict(X, None, np.zeros((len(X), 0)))
