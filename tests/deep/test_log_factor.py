"""DeepEnergyModel with any H(x): the built-in energy written by a user, and Gaussians."""

import math
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.nn import functional

from sklebm import DeepEnergyModel, save
from sklebm.datasets import Rings
from sklebm.deep._base import OBJECTIVES
from sklebm.energies.deep import LogFactorEnergy
from sklebm.objectives import Batch, NoiseContrastive, VariationalNoiseContrastive
from tests.deep.models import make_energy, make_points

HIDDEN, EXPERTS = 6, 5


class Experts(nn.Module):
    """The built-in sum over experts, written by a user."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(n_features, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, EXPERTS)
        )

    def forward(self, x):
        return functional.softplus(self.network(x)).sum(dim=1)


class Quadratic(nn.Module):
    """-|L'(x - m)|^2 / 2: a Gaussian without its constant."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.factor = nn.Parameter(torch.eye(n_features))
        self.center = nn.Parameter(torch.zeros(n_features))

    def forward(self, x):
        return -0.5 * ((x - self.center) @ self.factor).square().sum(dim=1, keepdim=True)


class Perceptron(nn.Sequential):
    """A plain network with one output: no experts."""

    def __init__(self, n_features, n_outputs):
        super().__init__(
            nn.Linear(n_features, 32),
            nn.SiLU(),
            nn.Linear(32, 32),
            nn.SiLU(),
            nn.Linear(32, n_outputs),
        )


class Level(nn.Module):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.layer = nn.Linear(n_features, n_outputs)

    def forward(self, x):
        return torch.tanh(self.layer(x))


def twins(X):
    """A built-in model with arbitrary parameters, and the same density by a module of a user."""
    settings = {"max_epochs": 1, "log_partition": None, "random_state": 0}
    builtin = DeepEnergyModel(EXPERTS, hidden_sizes=(HIDDEN,), **settings).fit(X)
    user = DeepEnergyModel(log_factor=Experts, **settings).fit(X)
    weights = {
        name.replace("network.", "log_factor.network."): values
        for name, values in builtin.weights_.items()
    }
    assert weights.keys() == user.weights_.keys()
    return [
        type(model).from_parameters(
            weights=values,
            architecture=model.architecture_,
            offset=model.offset_,
            **{**model.get_params(), "sigma": builtin.sigma_},
        )
        for model, values in ((builtin, builtin.weights_), (user, weights))
    ]


def test_a_module_that_reproduces_the_built_in_energy_gives_its_scores_and_training():
    X = Rings().sample(300, random_state=0)
    models = twins(X)
    scores, slopes, modes = [], [], []
    for model in models:
        assert model.sigma_ == models[0].sigma_
        scores.append(model.score_samples(X))
        modes.append(model.modes(X[:5], max_iter=20))
        energy = model._energy(torch.device("cpu")).double()
        x = torch.from_numpy(X).requires_grad_()
        slopes.append(torch.autograd.grad(energy.free_energy(x).sum(), x)[0].numpy())
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-12)
    np.testing.assert_allclose(slopes[1], slopes[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(modes[1], modes[0], rtol=1e-6, atol=1e-9)
    builtin, user = (model.partial_fit(X) for model in models)
    # Three steps of training in single precision: the derivatives of softplus and of its sum
    # over experts are rounded in another order.
    np.testing.assert_allclose(user.free_energy(X), builtin.free_energy(X), atol=1e-4)
    assert np.abs(user.free_energy(X) + scores[1]).max() > 1e-2


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_every_objective_has_the_gradient_of_the_built_in_energy(name):
    """In float64; the variational bound equals the plain objective, as nothing is hidden."""
    builtin = make_energy(hidden_sizes=(HIDDEN,), n_components=EXPERTS)
    written = Experts(3, 1).double()
    written.network = builtin.network
    user = LogFactorEnergy(
        written, builtin.visible_bias, builtin.log_sigma, builtin.reference, builtin.log_partition
    )
    user.visible_bias, user.log_sigma = builtin.visible_bias, builtin.log_sigma
    user.log_partition = builtin.log_partition
    parameters = list(builtin.parameters())
    assert {id(p) for p in user.parameters()} == {id(p) for p in parameters}

    def loss_and_gradients(energy, objective):
        generator = torch.Generator().manual_seed(0)
        x = make_points()
        state = objective.init_state(energy, len(x), generator)
        loss, _ = objective.loss(energy, Batch(x), state, generator)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        return [loss.detach(), *(torch.zeros(1) if g is None else g for g in found)]

    objective = OBJECTIVES[name]()
    plain = NoiseContrastive() if isinstance(objective, VariationalNoiseContrastive) else objective
    pairs = zip(
        loss_and_gradients(user, objective), loss_and_gradients(builtin, plain), strict=True
    )
    for found, expected in pairs:
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("objective", "sigma"), [("noise_contrastive", None), ("pcd", 2.0)])
def test_a_quadratic_is_a_gaussian(objective, sigma):
    """log Z, moments of draws and the mode in closed form; the rows are far from zero."""
    rng = np.random.default_rng(0)
    covariance = np.array([[1.0, 0.6, 0.0], [0.6, 1.0, 0.3], [0.0, 0.3, 1.0]])
    X = rng.multivariate_normal([50.0, -20.0, 0.0], covariance, 500)
    settings = {"sigma": sigma, "log_partition": None, "max_epochs": 3, "random_state": 0}
    model = DeepEnergyModel(log_factor=Quadratic, objective=objective, **settings).fit(X)
    model.estimate_log_partition(n_chains=50, n_temperatures=40, random_state=0)
    L, m = (model.weights_[f"log_factor.{name}"].astype(float) for name in ("factor", "center"))
    precision, linear, constant = L @ L.T, L @ L.T @ m, m @ L @ L.T @ m
    if sigma is None:
        assert model.sigma_ is None
        assert not {"log_sigma", "visible_bias"} & model.weights_.keys()
    else:
        precision = precision + np.eye(3) / model.sigma_**2
        linear = linear + model.weights_["visible_bias"]
    mean = np.linalg.solve(precision, linear)
    log_z = 1.5 * math.log(2 * math.pi) - 0.5 * np.linalg.slogdet(precision)[1]
    log_z += 0.5 * (mean @ linear - constant)
    low, high = model.log_partition_interval_
    assert low <= log_z <= high
    assert high - low < 0.5
    np.testing.assert_allclose(
        model.modes(X[:3], tol=1e-6), np.tile(mean + model.offset_, (3, 1)), atol=1e-3
    )
    drawn = model.sample(1500, n_steps=20, random_state=0).astype(float)
    spread = np.sqrt(np.diag(np.linalg.inv(precision)))
    assert (np.abs(drawn.mean(axis=0) - mean - model.offset_) < 4 * spread / 1500**0.5).all()
    # The variance of a Gaussian's sample variance is 2 / n of its square.
    assert (np.abs(drawn.var(axis=0) / spread**2 - 1) < 4 * (2 / 1500) ** 0.5).all()


def test_it_learns_and_serves_as_the_last_step_and_the_first():
    density = Rings(noise=0.2)
    X = density.sample(1000, random_state=0)
    settings = {"log_factor": Perceptron, "optimizer": "adam", "batch_size": 50}
    untrained = DeepEnergyModel(**settings | {"learning_rate": 1e-9}, max_epochs=1, random_state=0)
    trained = DeepEnergyModel(**settings, max_epochs=30, random_state=0).fit(X)
    before = density.kl_divergence(untrained.fit(X).score_samples)
    assert density.kl_divergence(trained.score_samples) < 0.5 * before
    H = trained.transform(X)
    assert H.shape == (1000, 1)
    assert list(trained.get_feature_names_out()) == ["deepenergymodel0"]
    z = X - trained.offset_
    gaussian = 0.5 * (z**2).sum(axis=1) / trained.sigma_**2 - z @ trained.weights_["visible_bias"]
    np.testing.assert_allclose(gaussian - H[:, 0], trained.free_energy(X), rtol=1e-6)
    with pytest.raises(ValueError, match="no hidden units"):
        trained.energy(X, H)


def test_it_is_kept_as_other_classes_of_the_user_are(tmp_path):
    X = Rings().sample(100, random_state=0)
    model = DeepEnergyModel(log_factor=Experts, max_epochs=1, random_state=0).fit(X[:50])
    twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(twin.score_samples(X), model.score_samples(X))
    np.testing.assert_array_equal(clone(model).fit(X[:50]).score_samples(X), model.score_samples(X))
    with pytest.raises(TypeError, match="log_factor"):
        save(model, tmp_path / "model.safetensors")
    model.set_params(warm_start=True).fit(X)
    with pytest.raises(ValueError, match="log_factor"):
        model.set_params(log_factor=None).fit(X)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sigma": None}, "sigma=None leaves out"),
        ({"log_factor": Quadratic, "sigma": None, "learn_sigma": True}, "learn_sigma=False"),
        ({"log_factor": Quadratic, "network": Level}, "network and log_factor"),
        ({"log_factor": Quadratic, "layer_training": "greedy"}, "greedy"),
        ({"log_factor": Quadratic(2, 1)}, "pass its class"),
        ({"log_factor": lambda d, k: nn.Linear(d, 3)}, r"must return \(2, 1\)"),
    ],
)
def test_parameters_that_name_no_density(given, message):
    with pytest.raises(ValueError, match=message):
        DeepEnergyModel(**given).fit(Rings().sample(50, random_state=0))


def test_a_factor_that_stays_level_far_away_is_no_density():
    X = Rings().sample(200, random_state=0)
    DeepEnergyModel(log_factor=Level, max_epochs=1, log_partition=None).fit(X)
    with pytest.raises(FloatingPointError, match=r"(?:does not rise|falls).*log_factor"):
        DeepEnergyModel(log_factor=Level, sigma=None, max_epochs=1).fit(X)
