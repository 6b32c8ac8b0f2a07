"""Slow features: the eigenproblem, slowness in closed form, networks whose codes become slow."""

import numpy as np
import pytest
import scipy.linalg
import torch

from sklebm import SlowFeatureAutoencoder
from sklebm.datasets import AutoregressiveProcess, make_bouncing_digits
from sklebm.metrics import curvature, slowness
from sklebm.objectives import Batch
from sklebm.objectives.slowness import SlowReconstruction

SHORT = {"learning_rate": 0.01, "max_epochs": 30, "random_state": 0}
QUICK = {"n_components": 8, "max_epochs": 5, "batch_size": 40, "random_state": 0}


def mixed_processes(n_sequences=30, n_steps=40, seed=0):
    """Three independent AR(1) processes behind a mixing matrix, in offset units."""
    parts = [
        AutoregressiveProcess(phi).sample(n_sequences, n_steps, random_state=seed + i)
        for i, phi in enumerate((0.98, 0.6, -0.3))
    ]
    sources = np.column_stack([x for x, _ in parts])
    mixing = np.random.default_rng(seed).standard_normal((3, 3))
    return sources @ mixing + [10.0, -3.0, 0.0], sources, parts[0][1]


def toy(n_steps=5000):
    """Wiskott's example: sin t behind the square of the fast cos 11 t."""
    t = np.linspace(0.0, 2.0 * np.pi, n_steps)
    return t, np.column_stack([np.sin(t) + np.cos(11.0 * t) ** 2, np.cos(11.0 * t)])


def generalised(H, groups):
    """Slowness and directions by SciPy, from the definition."""
    same = groups[1:] == groups[:-1]
    changes = np.diff(H, axis=0)[same]
    return scipy.linalg.eigh(changes.T @ changes / len(changes), np.cov(H.T, bias=True))


# ---------------------------------------------------------------- closed form


@pytest.mark.parametrize("degree", [1, 2])
def test_slow_features_are_those_of_the_generalised_eigenproblem(degree):
    X, _, groups = mixed_processes()
    model = SlowFeatureAutoencoder(3, method="linear", degree=degree).fit(X, groups=groups)
    H = (X - X.mean(axis=0)) / X.std()  # conditions the reference; a change of units has no effect
    if degree == 2:
        H = expanded(H)
    values, vectors = generalised(H, groups)
    np.testing.assert_allclose(model.slowness_, values[:3], rtol=1e-10)
    Z = model.transform(X)
    expected = (H - H.mean(axis=0)) @ vectors[:, :3]
    expected *= np.sign((expected * Z).sum(axis=0))
    # Directions carry the rounding of the eigenvalues divided by the gaps between them.
    np.testing.assert_allclose(Z, expected, atol=1e-10 / np.diff(values[:4]).min())
    np.testing.assert_allclose(np.cov(Z.T, bias=True), np.eye(3), atol=1e-10)
    np.testing.assert_allclose(Z.mean(axis=0), 0.0, atol=1e-10)
    # The sign is that of the largest entry of the row that a code stands for.
    decoder = model.weights_["decoder.weight"]
    assert (decoder[np.abs(decoder).argmax(axis=0), np.arange(3)] > 0.0).all()


def test_groups_of_paths_may_be_a_column():
    X, _, groups = mixed_processes(3, 5)
    np.testing.assert_array_equal(slowness(X, groups[:, None]), slowness(X, groups))
    column = [[str(name)] for name in groups]
    assert curvature(X, column) == curvature(X, groups)
    column[0] = [float("nan")]
    with pytest.raises(ValueError, match="missing values in 1 of 15 rows"):
        curvature(X, column)


def test_sources_come_out_in_the_order_of_their_slowness():
    X, sources, groups = mixed_processes(200, 50)
    model = SlowFeatureAutoencoder(3, method="linear").fit(X, groups=groups)
    Z = model.transform(X)
    found = np.abs(np.corrcoef(Z.T, sources.T)[:3, 3:])
    assert np.diagonal(found).min() > 0.98
    truth = 2.0 * (1.0 - np.array([0.98, 0.6, -0.3]))
    # 10000 steps are worth about 200 independent ones for the slow source, thousands for the
    # others: standard errors of the variances are 10 % and 2 %; allow three.
    assert np.all(np.abs(model.slowness_ / truth - 1.0) < [0.3, 0.06, 0.06])


def test_a_slow_sine_is_found_behind_a_fast_cosine():
    t, X = toy()
    model = SlowFeatureAutoencoder(1, method="linear", degree=2).fit(X)
    assert abs(np.corrcoef(model.transform(X)[:, 0], np.sin(t))[0, 1]) > 0.999
    affine = SlowFeatureAutoencoder(1, method="linear").fit(X)
    assert abs(np.corrcoef(affine.transform(X)[:, 0], np.sin(t))[0, 1]) < 0.95


def test_the_decoder_is_the_best_affine_map_of_the_code():
    X, _, groups = mixed_processes()
    model = SlowFeatureAutoencoder(2, method="linear", degree=2).fit(X, groups=groups)
    design = np.column_stack([model.transform(X), np.ones(len(X))])
    best = design @ np.linalg.lstsq(design, X, rcond=None)[0]
    np.testing.assert_allclose(model.inverse_transform(model.transform(X)), best, atol=1e-9)
    np.testing.assert_allclose(model.free_energy(X), ((X - best) ** 2).sum(axis=1), atol=1e-8)


def test_units_and_chunks_do_not_change_slow_features():
    X, _, groups = mixed_processes()
    whole = SlowFeatureAutoencoder(3, method="linear", degree=2).fit(X, groups=groups)
    other = X * [1e6, 1.0, 1e-6] + [0.0, 1e4, 0.0]
    scaled = SlowFeatureAutoencoder(3, method="linear", degree=2).fit(other, groups=groups)
    # Twelve digits are left of rows that are scaled by 1e-6 next to a column scaled by 1e6.
    np.testing.assert_allclose(
        np.abs(scaled.transform(other)), np.abs(whole.transform(X)), atol=1e-6
    )
    np.testing.assert_allclose(scaled.slowness_, whole.slowness_, rtol=1e-6)
    parts = SlowFeatureAutoencoder(3, method="linear", degree=2)
    for chunk in np.array_split(np.arange(len(X)).reshape(-1, 40), 4):
        parts.partial_fit(X[chunk.ravel()], groups=groups[chunk.ravel()])
    np.testing.assert_allclose(parts.slowness_, whole.slowness_, rtol=1e-9)
    np.testing.assert_allclose(parts.transform(X), whole.transform(X), atol=1e-8)
    assert parts.n_samples_seen_ == len(X)


def test_moments_do_not_depend_on_the_size_of_a_chunk():
    import sklearn

    X, _, groups = mixed_processes(200, 41)
    whole = SlowFeatureAutoencoder(3, method="linear", degree=2).fit(X, groups=groups)
    with sklearn.config_context(working_memory=0.01):
        parts = SlowFeatureAutoencoder(3, method="linear", degree=2).fit(X, groups=groups)
    np.testing.assert_allclose(parts.slowness_, whole.slowness_, rtol=1e-10)


def test_columns_that_say_nothing_new_are_left_out():
    X, _, groups = mixed_processes()
    wide = np.column_stack([X, X @ [1.0, 2.0, 3.0], np.full(len(X), 7.0)])
    model = SlowFeatureAutoencoder(3, method="linear").fit(wide, groups=groups)
    narrow = SlowFeatureAutoencoder(3, method="linear").fit(X, groups=groups)
    np.testing.assert_allclose(model.slowness_, narrow.slowness_, rtol=1e-9)
    most = SlowFeatureAutoencoder(method="linear").fit(wide, groups=groups)
    assert most.transform(wide).shape == (len(X), 3)
    np.testing.assert_allclose(most.inverse_transform(most.transform(wide)), wide, atol=1e-9)


def expanded(X):
    """Rows followed by the products of all pairs of columns."""
    d = X.shape[1]
    return np.column_stack([X, *(X[:, i] * X[:, j] for i in range(d) for j in range(i, d))])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [300, 3000, 30_000])
@pytest.mark.parametrize("kind", ["one-hot", "bits", "copies"])
def test_rounding_of_many_rows_is_no_slow_feature(kind, n, seed):
    """As many directions as the rank: 9 of ten categories, 21 of six bits, of which x^2 = x."""
    random = np.random.default_rng(seed)
    if kind == "one-hot":
        X, degree, rank = np.eye(10)[random.integers(10, size=n)], 1, 9
    elif kind == "bits":
        X, degree, rank = (random.uniform(size=(n, 6)) < 0.3).astype(float), 2, 21
    else:
        X, degree, rank = random.standard_normal((n, 5)), 1, 5
        X = np.column_stack([X, X @ random.standard_normal((5, 5)) * np.logspace(-6, 6, 5)])
    if n == 3000 and kind != "copies":
        H = X if degree == 1 else expanded(X)
        assert np.linalg.matrix_rank(H - H.mean(axis=0)) == rank
    model = SlowFeatureAutoencoder(50, method="linear", degree=degree).fit(X)
    assert len(model.slowness_) == rank
    Z = model.transform(X)
    np.testing.assert_allclose(Z.var(axis=0), 1.0, rtol=1e-6)
    measured = (np.diff(Z, axis=0) ** 2).mean(axis=0)
    np.testing.assert_allclose(model.slowness_, measured, rtol=1e-6)


def test_rounding_of_very_many_rows_is_no_slow_feature():
    X = np.eye(10)[np.random.default_rng(0).integers(10, size=300_000)]
    assert len(SlowFeatureAutoencoder(50, method="linear").fit(X).slowness_) == 9


@pytest.mark.parametrize("share", [1e-5, 2e-6])
@pytest.mark.parametrize("n", [3000, 300_000])
def test_a_small_difference_of_two_columns_is_a_direction(n, share):
    """Two columns whose correlation is below 1 by 2e-12 hide a slow source in their difference."""
    random = np.random.default_rng(0)
    slow, fast = np.sin(2 * np.pi * np.arange(n) / n), random.standard_normal(n)
    X = np.column_stack([fast, fast + share * slow])
    Z = SlowFeatureAutoencoder(method="linear").fit(X).transform(X)
    assert abs(np.corrcoef(Z[:, 0], slow)[0, 1]) > 0.999
    np.testing.assert_allclose(Z.var(axis=0), 1.0, rtol=1e-2)


# ---------------------------------------------------------------- slowness and curvature


def test_slowness_of_a_sinusoid_and_of_an_autoregressive_process():
    omega = 2.0 * np.pi / 25.0
    Z = np.sin(omega * np.arange(25 * 400) + 0.3)[:, None]
    # Whole periods: only the pair that is missing at the end differs, one in 10000.
    np.testing.assert_allclose(slowness(3.0 * Z + 5.0), 4.0 * np.sin(omega / 2.0) ** 2, rtol=1e-3)
    X, groups = AutoregressiveProcess(0.8).sample(400, 50, random_state=0)
    # 20000 steps of correlation .8: five standard errors are about 8 %.
    np.testing.assert_allclose(slowness(X, groups), 2.0 * (1.0 - 0.8), rtol=0.08)
    for constant in (1.0, 0.1):  # the variance of three times .1 is a rounding
        assert np.isnan(slowness(np.full((3, 1), constant)))[0]


def test_paths_end_with_their_sequence():
    Z = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [9.0, 9.0], [9.0, 8.0], [8.0, 8.0]])
    groups = ["a"] * 3 + ["b"] * 3
    assert curvature(Z, groups) == pytest.approx(0.5)  # straight, and by a right angle
    assert slowness(Z, groups)[1] == pytest.approx(0.25 / Z[:, 1].var())
    assert curvature([[0.0], [1.0], [0.0]]) == 2.0
    with pytest.raises(ValueError, match="no sequence has 3 steps"):
        curvature(Z[:4], ["a", "a", "b", "b"])
    with pytest.raises(ValueError, match="no sequence has 2 steps"):
        slowness(Z[:1])


# ---------------------------------------------------------------- networks


def naive_loss(model, X, groups, weight):
    """The objective row by row, from the definition."""
    Z, decoded = model.transform(X), model.inverse_transform(model.transform(X))
    size = model.pool_size
    pools = [Z[:, i : i + size] for i in range(0, Z.shape[1], size)]
    P = np.column_stack([np.linalg.norm(pool, axis=1) for pool in pools]) if size > 1 else Z
    errors, prices, changes = [], [], []
    for t in range(len(X)):
        if weight[t] == 0:
            continue
        errors.append(((X[t] - decoded[t]) ** 2).sum() / model.scale_[0] ** 2)
        prices.append(np.abs(Z[t]).sum())
        if t and groups[t] == groups[t - 1]:
            gaps = P[t] - P[t - 1]
            changes.append((np.abs(gaps) if model.penalty == "l1" else gaps**2).sum())
    return np.mean(errors) + model.alpha * np.mean(prices) + model.slowness * np.mean(changes)


@pytest.mark.parametrize("pool_size", [1, 3])
@pytest.mark.parametrize("penalty", ["l1", "squared"])
def test_the_loss_is_its_formula(penalty, pool_size):
    X, groups = make_bouncing_digits(4, 6, size=8, speed=0.3, random_state=0)
    model = SlowFeatureAutoencoder(penalty=penalty, pool_size=pool_size, **QUICK)
    model.fit(X, groups=groups)
    energy = model._energy(torch.device("cpu")).double()
    y = torch.from_numpy((X - model.offset_) / model.scale_)
    weight = (np.arange(len(X)) % 7 != 0).astype(float)
    energy.standardization = None
    objective = SlowReconstruction(model.alpha, model.slowness, penalty, pool_size)
    batch = Batch(y, weight=torch.from_numpy(weight), groups=torch.from_numpy(groups))
    loss, _ = objective.loss(energy, batch, {}, torch.Generator())
    assert float(loss.detach()) == pytest.approx(naive_loss(model, X, groups, weight), rel=1e-9)


def turning_planes(n_sequences=60, n_steps=20, n_planes=3, seed=0):
    """Rotations in hidden planes: amplitudes stay for a sequence, phases turn at every step."""
    random = np.random.default_rng(seed)
    amplitude = random.exponential(size=(n_sequences, 1, n_planes)) ** 2
    speed = random.uniform(0.5, 1.5, (n_sequences, 1, n_planes))
    start = random.uniform(0.0, 2.0 * np.pi, (n_sequences, 1, n_planes))
    angle = start + np.arange(n_steps)[:, None] * speed
    parts = np.stack([amplitude * np.cos(angle), amplitude * np.sin(angle)], axis=-1)
    turn = np.linalg.qr(np.random.default_rng(99).standard_normal((2 * n_planes, 2 * n_planes)))[0]
    groups = np.repeat(np.arange(n_sequences), n_steps)
    return parts.reshape(len(groups), -1) @ turn, groups, turn


def test_slow_pools_are_the_planes_in_which_phases_turn():
    X, groups, turn = turning_planes()
    X_test, groups_test, _ = turning_planes(seed=1)
    settings = {"pool_size": 2, "code_activation": "identity", "alpha": 0.0}
    fits = [
        SlowFeatureAutoencoder(
            6, slowness=price, learning_rate=0.03, max_epochs=60, random_state=0, **settings
        ).fit(X, groups=groups)
        for price in (0.0, 10.0)
    ]
    fast, slow = (slowness(model.pool(X_test), groups_test).mean() for model in fits)
    assert 10.0 * slow < fast
    variance = X_test.var(axis=0).sum()
    np.testing.assert_array_less([-model.score(X_test) / variance for model in fits], 0.03)
    # Both filters of a pool come to lie in one plane, and every plane has its pool.
    shares = [plane_shares(model.weights_["encoder.0.weight"] @ turn.T) for model in fits]
    assert shares[0].max(axis=1).min() < 0.6
    assert shares[1].max(axis=1).min() > 0.9
    assert sorted(shares[1].argmax(axis=1)) == [0, 1, 2]


def plane_shares(filters):
    """Share of each plane (columns) in the filters of each pool (rows)."""
    shares = (filters**2).reshape(3, 2, 3, 2).sum(axis=(1, 3))
    return shares / shares.sum(axis=1, keepdims=True)


def test_codes_become_slow_without_pools():
    """A slow and a fast source behind a mixing matrix, and one latent: it takes the slow one."""
    X, sources, groups = mixed_processes(100, 20)
    white = (X - X.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(X.T))).T
    model = SlowFeatureAutoencoder(
        1, code_activation="identity", alpha=0.0, slowness=3.0, penalty="squared", **SHORT
    ).fit(white, groups=groups)
    found = np.abs(np.corrcoef(model.transform(white).T, sources.T)[0, 1:])
    assert found[0] > 0.95
    np.testing.assert_array_equal(model.pool(white), model.transform(white))


@pytest.mark.parametrize("penalty", ["l1", "squared"])
@pytest.mark.parametrize("pool_size", [1, 3])
def test_an_untied_decoder_does_not_buy_slowness_with_small_codes(penalty, pool_size):
    """Codes a hundred times smaller, scaled up again by the decoder, have the same loss."""
    X, groups = make_bouncing_digits(4, 6, size=8, speed=0.3, random_state=0)
    settings = {**QUICK, "tied": False, "alpha": 0.0, "code_activation": "identity"}
    model = SlowFeatureAutoencoder(penalty=penalty, pool_size=pool_size, **settings)
    model.fit(X, groups=groups)
    batch = Batch(torch.from_numpy(X), groups=torch.from_numpy(groups))

    def price(weights):
        """The loss beyond the squared error."""
        energy = SlowFeatureAutoencoder.from_parameters(
            weights=weights, feature_means=X.mean(axis=0), **model.get_params()
        )._energy(torch.device("cpu"))
        loss, _ = model._objective(energy).loss(energy.double(), batch, {}, torch.Generator())
        return float(loss.detach()) - float(energy.free_energy(batch.x).mean().detach())

    small = {
        name: array * (0.01 if name.startswith("encoder") else 100.0 if array.ndim == 2 else 1.0)
        for name, array in model.weights_.items()
    }
    assert price(small) == pytest.approx(price(model.weights_), rel=1e-4)
    same = groups[1:] == groups[:-1]
    P = (X @ model.weights_["encoder.0.weight"].T + model.weights_["encoder.0.bias"]).astype(float)
    if pool_size > 1:
        P = np.column_stack([np.linalg.norm(P[:, i : i + 3], axis=1) for i in range(0, 8, 3)])
    changes = np.abs(np.diff(P / P.std(axis=0), axis=0)[same])
    expected = (changes if penalty == "l1" else changes**2).sum(axis=1).mean()
    assert price(model.weights_) == pytest.approx(model.slowness * expected, rel=1e-4)


def test_untied_latents_that_are_dead_have_finite_gradients():
    X, groups = make_bouncing_digits(4, 6, size=8, speed=0.3, random_state=0)
    model = SlowFeatureAutoencoder(tied=False, **QUICK).fit(X, groups=groups)
    dead = dict(model.weights_)
    dead["encoder.0.bias"] = np.where(np.arange(8) < 3, -100.0, dead["encoder.0.bias"])
    model = SlowFeatureAutoencoder.from_parameters(
        weights=dead, feature_means=X.mean(axis=0), **model.get_params()
    )
    model.partial_fit(X, groups=groups)
    assert all(np.isfinite(array).all() for array in model.weights_.values())
    np.testing.assert_array_equal(model.transform(X)[:, :3], 0.0)


def test_convolutions_learn_slow_codes():
    X, groups = make_bouncing_digits(20, 10, size=8, speed=0.2, random_state=0)
    settings = {"hidden_sizes": (4,), "image_shape": (8, 8), "learning_rate": 0.01, **QUICK}
    model = SlowFeatureAutoencoder(**{**settings, "max_epochs": 20}).fit(X, groups=groups)
    assert -model.score(X) < 0.8 * X.var(axis=0).sum()
    assert model.transform(X).shape == (200, 8)


def test_changes_between_sequences_do_not_count():
    """Sequences of one step: the weight of slowness has no effect at all."""
    X = np.random.default_rng(0).uniform(size=(60, 5))
    fits = [
        SlowFeatureAutoencoder(slowness=weight, **QUICK).fit(X, groups=np.arange(60)).transform(X)
        for weight in (0.0, 100.0)
    ]
    np.testing.assert_array_equal(*fits)


# ---------------------------------------------------------------- bad input


def test_what_cannot_be_learnt_is_named():
    X, _, groups = mixed_processes(4, 10)
    with pytest.raises(ValueError, match=r"no sequence has more than one.* first chunk"):
        SlowFeatureAutoencoder(1, method="linear").fit(X, groups=np.arange(len(X)))
    with pytest.raises(ValueError, match=r"X does not vary.* first chunk"):
        SlowFeatureAutoencoder(1, method="linear").fit(np.ones((5, 2)))
    with pytest.raises(ValueError, match="not contiguous"):
        SlowFeatureAutoencoder(1, method="linear").fit(X, groups=np.arange(len(X)) % 2)
    with pytest.raises(ValueError, match="expands 120 features to 7380 columns"):
        SlowFeatureAutoencoder(1, method="linear", degree=2).fit(np.eye(130, 120))
    model = SlowFeatureAutoencoder(1, method="linear").fit(X, groups=groups)
    with pytest.raises(ValueError, match="were dropped: fit again"):
        model.drop_training_state().partial_fit(X, groups=groups)


@pytest.mark.parametrize("methods", [("linear", "autoencoder"), ("autoencoder", "linear")])
def test_learning_does_not_go_on_by_another_method(methods):
    X, _, groups = mixed_processes(4, 10)
    before, after = methods
    # More components than directions: their number differs too, but is not the reason.
    model = SlowFeatureAutoencoder(5, method=before, max_epochs=1).fit(X, groups=groups)
    weights = dict(model.weights_)
    model.set_params(method=after)
    with pytest.raises(ValueError, match=f"method='{after}' differs from the fitted '{before}'"):
        model.partial_fit(X, groups=groups)
    if after == "autoencoder":
        with pytest.raises(ValueError, match="method='autoencoder' differs"):
            model.set_params(warm_start=True).fit(X, groups=groups)
    assert all(model.weights_[name] is array for name, array in weights.items())


def test_slowness_of_a_circle():
    omega = 2.0 * np.pi / 40.0
    t = omega * np.arange(40 * 100)
    X = np.column_stack([np.cos(t), np.sin(t)])
    model = SlowFeatureAutoencoder(2, method="linear").fit(X)
    # The pair that is missing at the end of whole periods is one of 4000.
    np.testing.assert_allclose(model.slowness_, 4.0 * np.sin(omega / 2.0) ** 2, rtol=1e-3)
