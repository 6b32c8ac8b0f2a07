"""LatentVariableRegressor: sums over latents, its special cases, and the ellipse."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
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


@pytest.mark.parametrize("kind", ["none", "l2", "l1", "l0"])
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
        np.testing.assert_allclose(np.abs(model.weights_["network.axes"]), [2.0, 0.8], rtol=0.02)
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
    with pytest.raises(ValueError, match="There is no y"):
        model.partial_fit(X)
    with pytest.raises(ValueError, match="there was none"):
        alone.partial_fit(X, y)
    with pytest.raises(ValueError, match="latent_range"):
        LatentVariableRegressor(latent_range=(1.0, 1.0)).fit(X, y)
    with pytest.raises(ValueError, match="more than 10000 points"):
        LatentVariableRegressor(4, latent="grid").fit(X, y)
