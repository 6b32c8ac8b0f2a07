"""LatentVariableRegressor: sums over latents, its special cases, and the ellipse."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear, minimize
from scipy.special import logsumexp
from scipy.stats import kstest, multivariate_normal, norm
from sklearn.cluster import KMeans

from sklebm import LatentVariableRegressor
from sklebm.energies.latent_targets import grid_points
from sklebm.metrics import score_conditional_density

EXACT = {"optimizer": "lbfgs", "learning_rate": 1.0, "max_epochs": 60, "random_state": 0}
BRIEF = {"hidden_sizes": (8,), "max_epochs": 3, "random_state": 0}


def make_lines(n_rows=300, n_outputs=1, seed=0):
    """Two lines, in units of their own."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, size=(n_rows, 2)) * [1.0, 100.0] + [0.0, 40.0]
    branch = rng.integers(2, size=n_rows)
    slopes = np.array([[2.0, 0.01], [-1.0, 0.02]])[branch]
    y = (slopes * X).sum(axis=1) + np.array([3.0, -3.0])[branch] + 0.3 * rng.normal(size=n_rows)
    return X, y if n_outputs == 1 else np.stack([y, 10.0 - 2.0 * y], axis=1)


class Ellipse(torch.nn.Module):
    """(w1 cos z, w2 sin z)."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        assert (n_inputs, n_outputs) == (1, 2)
        self.axes = torch.nn.Parameter(torch.ones(2))

    def forward(self, z):
        return self.axes * torch.cat([z.cos(), z.sin()], dim=1)


class Horn(torch.nn.Module):
    """An ellipse that grows with x."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.axes = torch.nn.Parameter(torch.ones(2))
        self.growth = torch.nn.Parameter(torch.zeros(1))

    def forward(self, pairs):
        x, z = pairs[:, :1], pairs[:, 1:]
        return torch.exp(self.growth * x) * self.axes * torch.cat([z.cos(), z.sin()], dim=1)


# ---------------------------------------------------------------- sums over latents


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("setting", [{}, {"latent": "grid", "regularizer": "l2", "n_points": 7}])
def test_the_free_energy_is_the_sum_over_latents(setting, n_outputs):
    X, y = make_lines(n_outputs=n_outputs)
    table = y.reshape(len(y), -1)
    for beta in (3.0, math.inf):
        model = LatentVariableRegressor(2, beta=beta, regularization=0.4, **BRIEF, **setting)
        model.fit(X, y)
        answers = model.predict_set(X).reshape(len(X), -1, n_outputs)
        distance = 0.5 * np.square((table[:, None] - answers) / model.residual_scale_).sum(axis=2)
        if setting:
            axis = np.linspace(-1, 1, 7)
            z = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
            penalty = 0.2 * np.square(z).sum(axis=1)
        else:
            z, penalty = np.eye(2), np.zeros(2)
        energies = distance + penalty
        found = model.free_energy(X, y)
        best = model.explain(X, y)
        if math.isinf(beta):
            np.testing.assert_allclose(found, energies.min(axis=1), rtol=1e-9)
            np.testing.assert_allclose(found, model.energy(X, best, y), rtol=1e-9)
            with pytest.raises(ValueError, match="finite beta"):
                model.conditional_log_density(X, y)
        else:
            log_prior = -beta * penalty - logsumexp(-beta * penalty)
            truth = -logsumexp(log_prior - beta * distance, axis=1) / beta
            np.testing.assert_allclose(found, truth, rtol=1e-9, atol=1e-12)
            noise = np.diag(model.residual_scale_**2 / beta)
            for i in range(5):
                parts = [multivariate_normal(m, noise).logpdf(table[i]) for m in answers[i]]
                expected = logsumexp(np.array(parts) + log_prior)
                log_p = model.conditional_log_density(X[i : i + 1], y[i : i + 1])
                np.testing.assert_allclose(log_p, expected, rtol=1e-9)
            mean = np.einsum("j,njm->nm", np.exp(log_prior), answers)
            np.testing.assert_allclose(model.predict(X).reshape(mean.shape), mean, rtol=1e-9)
        np.testing.assert_allclose(best, z[energies.argmin(axis=1)], rtol=1e-12, atol=1e-15)
        given = model.predict(X, best).reshape(len(X), -1)
        picked = answers[np.arange(len(X)), energies.argmin(axis=1)]
        np.testing.assert_allclose(given, picked, rtol=1e-9)


def test_temperatures_have_their_limits():
    """F falls from the mean of E over p(z) at beta near 0 to the minimum, at the rate log k."""
    X, y = make_lines()
    state = LatentVariableRegressor(3, **BRIEF).fit(X, y)
    energies = np.stack([state.energy(X, np.tile(z, (len(X), 1)), y) for z in np.eye(3)], axis=1)

    def free_energy(beta):
        parameters = {
            "weights": state.weights_,
            "coef": state.coef_,
            "intercept": state.intercept_,
            "residual_scale": state.residual_scale_,
            "y_dimensions": 1,
            "offset": state.offset_,
            "scale": state.scale_,
        }
        model = LatentVariableRegressor.from_parameters(
            n_components=3, hidden_sizes=(8,), beta=beta, **parameters
        )
        return model.free_energy(X, y)

    np.testing.assert_allclose(free_energy(1e-7), energies.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(free_energy(math.inf), energies.min(axis=1), rtol=1e-9)
    above = free_energy(1e4) - energies.min(axis=1)
    assert ((above >= -1e-12) & (above <= np.log(3) / 1e4 + 1e-12)).all()


@pytest.mark.parametrize("kind", ["none", "l2", "l1", "l0", "effective_dimension"])
def test_regularizers_of_the_grid(kind):
    X, y = make_lines(40)
    model = LatentVariableRegressor(
        2, latent="grid", regularizer=kind, regularization=0.7, n_points=5, **BRIEF
    ).fit(X, y)
    assert (grid_points(2, 5, -3.0, 3.0) == 0.0).sum() == 10  # l0 needs zeros to the last bit
    z = np.random.default_rng(0).choice([0.0, 0.5, -1.0], size=(40, 2))
    values = {
        "none": np.zeros(40),
        "l2": 0.5 * np.square(z).sum(axis=1),
        "l1": np.abs(z).sum(axis=1),
        "l0": (z != 0).sum(axis=1),
        # One component, two of equal size, or two of 0.5 and 1: 1.5^2 / 1.25.
        "effective_dimension": np.select(
            [(z == 0).all(axis=1), (z == 0).any(axis=1), np.abs(z[:, 0]) == np.abs(z[:, 1])],
            [0.0, 1.0, 2.0],
            1.8,
        ),
    }
    cost = 0.5 * np.square((y - model.predict(X, z)) / model.residual_scale_[0])
    np.testing.assert_allclose(model.energy(X, z, y), cost + 0.7 * values[kind], rtol=1e-9)


# ---------------------------------------------------------------- special cases


def test_branches_without_rows_are_k_means():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(c, 0.5, size=(60, 2)) for c in ([0, 0], [4, 0], [0, 4])])
    model = LatentVariableRegressor(
        3, (), beta=math.inf, alpha=0.0, standardize=False, **EXACT
    ).fit(X)
    centres = model.predict_set(X[:1])[0]
    labels = model.transform(X).argmax(axis=1)
    # Single precision of training, and the end of L-BFGS.
    means = np.stack([X[labels == k].mean(axis=0) for k in range(3)])
    np.testing.assert_allclose(centres, means, atol=1e-3)
    peer = KMeans(3, n_init=5, random_state=0).fit(X)
    np.testing.assert_allclose(-2 * model.score_samples(X).sum(), peer.inertia_, rtol=1e-4)
    np.testing.assert_allclose(model.predict(X), centres[labels], rtol=1e-12)


def test_linear_branches_are_a_mixture_of_regressions():
    """A fixed point of expectation maximisation with equal shares and variance 1 / beta."""
    X, y = make_lines()
    beta = 20.0
    model = LatentVariableRegressor(2, (), beta=beta, alpha=0.0, **EXACT).fit(X, y)
    linear = X @ model.coef_[0] + model.intercept_[0]
    g = (y - linear) / model.residual_scale_[0]
    answers = (model.predict_set(X) - linear[:, None]) / model.residual_scale_[0]
    log_r = -0.5 * beta * np.square(g[:, None] - answers)
    r = np.exp(log_r - logsumexp(log_r, axis=1, keepdims=True))
    u = np.column_stack([(X - model.offset_) / model.scale_, np.ones(len(X))])
    for k in range(2):
        root = np.sqrt(r[:, k])
        best, *_ = np.linalg.lstsq(root[:, None] * u, root * g, rcond=None)
        np.testing.assert_allclose(answers[:, k], u @ best, atol=2e-3)
    share = np.mean(model.explain(X, y)[:, 0])
    assert 0.3 < share < 0.7
    single = LatentVariableRegressor(1, (), beta=beta, alpha=0.0, **EXACT).fit(X, y)
    assert score_conditional_density(model, X, y) > score_conditional_density(single, X, y) + 1.0


def test_the_parameters_of_an_ellipse_are_recovered():
    rng = np.random.default_rng(0)
    angle = rng.uniform(-np.pi, np.pi, size=400)
    X = np.stack([2.0 * np.cos(angle), 0.8 * np.sin(angle)], axis=1)
    X = X + 0.03 * rng.normal(size=X.shape)
    setting = {"latent": "grid", "latent_range": (-np.pi, np.pi), "n_points": 97}
    for beta in (math.inf, 500.0):
        model = LatentVariableRegressor(
            1, beta=beta, network=Ellipse, alpha=0.0, standardize=False, **setting, **EXACT
        ).fit(X)
        axes = np.abs(model.weights_["network.axes"])
        np.testing.assert_allclose(axes, [2.0, 0.8], rtol=0.02)
    # The soft minimum is the likelihood of noise of variance 1 / beta: its maximum, by SciPy.
    angles = np.linspace(-np.pi, np.pi, 97)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def loss(w):
        return -logsumexp(
            -0.5 * beta * np.square(X[:, None] - w * circle).sum(axis=2), axis=1
        ).sum()

    best = minimize(loss, axes, method="Nelder-Mead", options={"xatol": 1e-5}).x
    np.testing.assert_allclose(axes, best, rtol=2e-4)  # single precision of training
    z = model.transform(X)[:, 0]
    apart = np.abs(np.angle(np.exp(1j * (z - angle))))
    assert np.median(apart) < 0.05


def test_a_horn_is_an_ellipse_that_grows():
    rng = np.random.default_rng(0)
    x, angle = rng.uniform(0, 1, size=(400, 1)), rng.uniform(-np.pi, np.pi, size=(400, 1))
    y = np.exp(1.5 * x) * np.hstack([0.7 * np.cos(angle), 0.4 * np.sin(angle)])
    y = y + 0.02 * rng.normal(size=y.shape)
    model = LatentVariableRegressor(
        1,
        latent="grid",
        latent_range=(-np.pi, np.pi),
        n_points=97,
        beta=math.inf,
        network=Horn,
        alpha=0.0,
        standardize=False,
        **EXACT,
    ).fit(x, y)
    np.testing.assert_allclose(np.abs(model.weights_["network.axes"]), [0.7, 0.4], rtol=0.02)
    np.testing.assert_allclose(model.weights_["network.growth"], 1.5, rtol=0.02)
    answers = model.predict_set([[0.0], [1.0]], 25)
    assert answers.shape == (2, 25, 2)
    np.testing.assert_allclose(answers[1], np.exp(1.5) * answers[0], rtol=0.05, atol=1e-6)


def test_a_curve_through_rows_explains_them():
    """A grid of one dimension and a network: a curve, here an arc, where a line will not do."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, np.pi, size=300)
    X = np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.02 * rng.normal(size=(300, 2))
    model = LatentVariableRegressor(
        1, (32,), latent="grid", n_points=41, beta=math.inf, random_state=0, batch_size=64
    ).fit(X)
    line = np.linalg.eigvalsh(np.cov(X.T, ddof=0))[0] / 2  # of the best straight line
    assert np.mean(np.square(model.predict(X) - X)) < 0.5 * line


# ---------------------------------------------------------------- real latents

LINEAR = {"latent": "continuous", "hidden_sizes": (), "random_state": 0}


def make_linear(regularizer, latent_range=(-50.0, 50.0), columns="any", **settings):
    """Rows of four numbers, and a model with a linear Dec of two latents and known weights."""
    rng = np.random.default_rng(3)
    X = rng.normal([1.0, 0.0, -2.0, 0.5], size=(30, 4))
    W = rng.normal(size=(4, 2))
    if columns == "orthogonal":
        W = np.linalg.qr(W)[0] * [1.5, 0.6]
    model = LatentVariableRegressor.from_parameters(
        n_components=2, regularizer=regularizer, regularization=0.3, latent_range=latent_range,
        weights={"network.0.weight": W, "network.0.bias": np.array([0.5, 0.0, 0.0, 1.0])},
        coef=np.zeros((4, 0)), intercept=np.zeros(4), residual_scale=np.ones(4), y_dimensions=0,
        **LINEAR, **settings,
    )  # fmt: skip
    return model, X, W, X - [0.5, 0.0, 0.0, 1.0]


def test_descent_finds_the_least_squares_of_a_linear_decoder():
    model, X, W, g = make_linear("l2")
    z = g @ W @ np.linalg.inv(W.T @ W + 0.3 * np.eye(2))
    np.testing.assert_allclose(model.explain(X), z, atol=1e-6)
    value = 0.5 * np.square(g - z @ W.T).sum(axis=1) + 0.15 * np.square(z).sum(axis=1)
    np.testing.assert_allclose(model.free_energy(X), value, rtol=1e-10)
    np.testing.assert_allclose(model.energy(X, z), value, rtol=1e-12)
    np.testing.assert_allclose(model.score_samples(X), -value, rtol=1e-10)
    model, X, W, g = make_linear("none", (-0.4, 0.7))  # ends of the range bind
    z = np.stack([lsq_linear(W, row, (-0.4, 0.7), tol=1e-14).x for row in g])
    np.testing.assert_allclose(model.explain(X), z, atol=1e-5)
    assert np.isin(model.explain(X), (-0.4, 0.7)).any()


def test_descent_finds_sparse_latents():
    model, X, W, g = make_linear("l1")
    z = model.explain(X)
    slope = (z @ W.T - g) @ W  # zero is in the subdifferential
    at_zero = z == 0.0
    assert 0 < at_zero.sum() < 60
    np.testing.assert_allclose(slope[~at_zero], -0.3 * np.sign(z[~at_zero]), atol=1e-5)
    assert (np.abs(slope[at_zero]) <= 0.3 + 1e-9).all()
    model, X, W, g = make_linear("l0", columns="orthogonal")
    best = g @ W / np.square(W).sum(axis=0)  # each component on its own
    kept = 0.5 * np.square(W).sum(axis=0) * best**2 > 0.3
    np.testing.assert_allclose(model.explain(X), np.where(kept, best, 0.0), atol=1e-6)


def test_an_encoder_answers_in_one_pass_and_its_distance_counts():
    rng = np.random.default_rng(0)
    weights = {"encoder.0.weight": rng.normal(size=(2, 4)), "encoder.0.bias": np.array([0.1, 5.0])}
    own, X, W, g = make_linear("l2", (-2.0, 2.0))
    model = LatentVariableRegressor.from_parameters(
        n_components=2, regularizer="l2", regularization=0.3, latent_range=(-2.0, 2.0),
        encoder=True, encoder_weight=0.7, weights={**own.weights_, **weights},
        coef=own.coef_, intercept=own.intercept_, residual_scale=own.residual_scale_,
        y_dimensions=0, **LINEAR,
    )  # fmt: skip
    code = np.clip(X @ weights["encoder.0.weight"].T + [0.1, 5.0], -2.0, 2.0)
    np.testing.assert_allclose(model.transform(X), code, rtol=1e-12)
    z = rng.normal(size=(30, 2))
    energy = 0.5 * np.square(g - z @ W.T).sum(axis=1) + 0.15 * np.square(z).sum(axis=1)
    expected = energy + 0.35 * np.square(z - code).sum(axis=1)
    np.testing.assert_allclose(model.energy(X, z), expected, rtol=1e-12)
    np.testing.assert_allclose(model.free_energy(X), model.energy(X, code), rtol=1e-12)


def make_cloud(n_rows=600):
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    X = rng.normal(size=(n_rows, 4)) * [1.0, 0.6, 0.2, 0.1] @ axes.T
    return X - X.mean(axis=0)


def test_a_linear_decoder_finds_the_principal_plane():
    X = make_cloud()
    model = LatentVariableRegressor(
        2, alpha=0.0, standardize=False, optimizer="lbfgs", learning_rate=1.0, max_epochs=40,
        latent_range=(-3.0, 3.0), **LINEAR,
    ).fit(X)  # fmt: skip
    values, vectors = np.linalg.eigh(np.cov(X.T, ddof=0))
    error = np.mean(np.square(X - model.predict(X)).sum(axis=1))
    np.testing.assert_allclose(error, values[:2].sum(), rtol=1e-3)
    plane = np.linalg.qr(model.weights_["network.0.weight"])[0]
    angles = np.linalg.svd(plane.T @ vectors[:, 2:], compute_uv=False)
    np.testing.assert_allclose(angles, 1.0, atol=1e-3)


def test_noise_leaves_out_directions_that_are_not_worth_it():
    """Principal standard deviations shrink by sigma sqrt(lambda), to zero if they are smaller."""
    X = make_cloud()
    model = LatentVariableRegressor(
        3, regularizer="l2", regularization=0.25, latent_noise=0.6, encoder=True, alpha=0.0,
        standardize=False, latent_range=(-20.0, 20.0), max_epochs=200, learning_rate=0.02,
        **LINEAR,
    ).fit(X)  # fmt: skip
    sizes = np.sqrt(np.linalg.eigvalsh(np.cov(X.T, ddof=0))[::-1])
    found = np.sqrt(np.linalg.eigvalsh(np.cov(model.predict(X).T, ddof=0))[::-1].clip(min=0))
    # Random noise in the last, small steps leaves some hundredths.
    np.testing.assert_allclose(found[:3], np.maximum(sizes[:3] - 0.3, 0.0), atol=0.04)


def test_an_encoder_learns_what_descent_finds():
    rng = np.random.default_rng(0)
    x, z = rng.uniform(-1, 1, size=(2, 400, 1))
    y = np.hstack([z, x * z])
    settings = {"latent": "continuous", "hidden_sizes": (16,), "random_state": 0, "batch_size": 32}
    model = LatentVariableRegressor(
        1,
        encoder=True,
        regularizer="l2",
        regularization=0.01,
        max_epochs=12,
        learning_rate=0.02,
        **settings,
    ).fit(x[:300], y[:300])
    one_pass = model.explain(x[300:], y[300:])
    by_descent = LatentVariableRegressor.from_parameters(
        n_components=1, regularizer="l2", regularization=0.01,
        weights={k: v for k, v in model.weights_.items() if k.startswith("network")},
        coef=model.coef_, intercept=model.intercept_, residual_scale=model.residual_scale_,
        y_dimensions=2, offset=model.offset_, scale=model.scale_, latent="continuous",
        hidden_sizes=(16,),
    )  # fmt: skip
    energy = by_descent.free_energy(x[300:], y[300:])
    encoded = model.free_energy(x[300:], y[300:])
    assert (encoded > energy - 1e-9).all()  # a minimum is below
    best = by_descent.explain(x[300:], y[300:])
    assert np.mean(np.square(one_pass - best)) < 0.05 * np.var(best)
    spread = np.square(y[300:] - model.predict(x[300:])).mean()
    explained = np.square(y[300:] - model.predict(x[300:], one_pass)).mean()
    assert explained < 0.1 * spread


def test_draws_are_of_the_mixture():
    X, y = make_lines()
    model = LatentVariableRegressor(2, beta=8.0, **BRIEF).fit(X, y)
    means, scale = model.predict_set(X[:1])[0], model.residual_scale_[0] / np.sqrt(8.0)
    draws = model.sample(X[:1], 4000, random_state=0)
    assert draws.shape == (1, 4000)
    assert kstest(draws[0], lambda t: norm.cdf(t, means[:, None], scale).mean(axis=0)).pvalue > 1e-3
    both = model.sample(X[:20], 3, random_state=1)
    np.testing.assert_allclose(both[:5], model.sample(X[:5], 3, random_state=1), rtol=1e-12)
    curve = LatentVariableRegressor(1, latent="continuous", beta=math.inf, **BRIEF).fit(X, y)
    answers = curve.predict_set(X[:1])[0]
    assert np.isin(curve.sample(X[:1], 50, random_state=0).round(9), answers.round(9)).all()
    alone = LatentVariableRegressor(2, beta=8.0, **BRIEF).fit(X)
    means = alone.predict_set(X[:1])[0].T
    rows, scale = alone.sample(4000, random_state=0), alone.residual_scale_ / np.sqrt(8.0)
    for found, centres, width in zip(rows.T, means[:, :, None], scale, strict=True):
        test = kstest(found, lambda t, c=centres, w=width: norm.cdf(t, c, w).mean(axis=0))
        assert test.pvalue > 1e-3


# ---------------------------------------------------------------- errors


def test_what_cannot_be_done_is_said():
    X, y = make_lines(40)
    model = LatentVariableRegressor(2, **BRIEF).fit(X, y)
    alone = LatentVariableRegressor(2, **BRIEF).fit(X)
    with pytest.raises(ValueError, match="was fitted without y"):
        alone.explain(X, y)
    with pytest.raises(ValueError, match="target y is None"):
        model.explain(X)
    with pytest.raises(ValueError, match="more than the 2 latents"):
        model.predict_set(X, 3)
    with pytest.raises(ValueError, match="Latents have shape"):
        model.predict(X, np.zeros(3))
    with pytest.raises(ValueError, match="This fit was called without y, but"):
        model.partial_fit(X)
    with pytest.raises(ValueError, match="was called without y: pass y in both or in neither"):
        alone.partial_fit(X, y)
    with pytest.raises(ValueError, match="latent_range"):
        LatentVariableRegressor(latent_range=(1.0, 1.0)).fit(X, y)
    with pytest.raises(ValueError, match="are for real latents"):
        LatentVariableRegressor(encoder=True).fit(X, y)
    with pytest.raises(ValueError, match="encoder maps 2 rows of 3 numbers to shape"):
        LatentVariableRegressor(
            latent="continuous", encoder=lambda n_inputs, _: torch.nn.Linear(n_inputs, 7)
        ).fit(X, y)
    real = LatentVariableRegressor(latent="continuous", warm_start=True, **BRIEF).fit(X, y)
    with pytest.raises(ValueError, match=r"high=2\.0 differs from the fitted"):
        real.set_params(latent_range=(-2.0, 2.0)).fit(X, y)
    real.set_params(latent_range=(-1.0, 1.0))
    with pytest.raises(ValueError, match="finitely many"):
        real.conditional_log_density(X, y)
    with pytest.raises(ValueError, match="more than 10000 points"):
        LatentVariableRegressor(4, latent="grid").fit(X, y)


def test_targets_without_units_stay_as_they_are_when_training_goes_on(recwarn):
    """A few large ones are drawn in towards a linear part, which there is not."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 2)), rng.uniform(-1, 1, 300)
    y[:3] = 100.0
    model = LatentVariableRegressor(2, (), standardize=False, warm_start=True, **EXACT).fit(X, y)
    first = model.score(X, y)
    recwarn.clear()
    assert model.fit(X, y).score(X, y) >= first - 1e-3 * abs(first)
    assert not [w for w in recwarn if "linear part" in str(w.message)]
    with pytest.raises(ValueError, match="2 numbers for each row"):
        model.fit(X, np.stack([y, y], axis=1))
