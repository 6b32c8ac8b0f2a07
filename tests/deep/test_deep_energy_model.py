"""DeepEnergyModel: what it learns of densities that are known, and what it says of itself."""

import math

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from sklebm import DeepEnergyModel, load, save
from sklebm.datasets import GaussianCircle, Moons, Rings
from sklebm.inference.hamiltonian import HMC
from sklebm.inference.langevin import Langevin
from sklebm.objectives import SampledPersistentContrastiveDivergence
from tests.sampling import FULL

SMALL = {"hidden_sizes": (32, 32), "n_components": 32, "random_state": 0}


@pytest.fixture(scope="module")
def ring():
    density = Rings(noise=0.2)
    X = density.sample(2000, random_state=0)
    settings = {**SMALL, "max_epochs": 30, "optimizer": "adam", "learning_rate": 0.01}
    return density, X, DeepEnergyModel(**settings).fit(X)


def test_noise_contrastive_learns_a_ring_and_its_normaliser(ring):
    density, _, model = ring
    assert density.kl_divergence(model.score_samples) < 0.05
    X, area = density.grid()
    total = np.exp(model.score_samples(X)).sum() * area
    assert math.log(total) == pytest.approx(0.0, abs=0.05)
    assert model.log_partition_interval_ is None


def test_annealing_agrees_with_quadrature(ring):
    density, _, model = ring
    X, area = density.grid()
    truth = math.log(np.exp(-model.free_energy(X)).sum() * area)
    twin = clone(model).set_params(log_partition=None, max_epochs=1).fit(X[:200])
    twin.__dict__.update({k: v for k, v in vars(model).items() if k.endswith("_")})
    twin.estimate_log_partition(n_temperatures=500, random_state=0)
    low, high = twin.log_partition_interval_
    assert low <= truth <= high
    assert high - low < 0.3


def test_samples_follow_the_model(ring):
    density, _, model = ring
    drawn = model.sample(2000, n_steps=60, random_state=0).astype(float)
    X, _ = density.grid()
    p = np.exp(model.score_samples(X))
    p /= p.sum()
    for function in (lambda x: x[:, 0], lambda x: x[:, 1], lambda x: np.hypot(*x.T)):
        for power in (1, 2, 3):
            values, truth = function(drawn) ** power, p @ function(X) ** power
            assert abs(values.mean() - truth) < 4 * values.std() / math.sqrt(len(drawn))


def test_modes_climb_to_the_ring(ring):
    _, _, model = ring
    start = np.random.default_rng(0).normal(size=(50, 2))
    modes = model.modes(start)
    assert np.abs(np.hypot(*modes.T) - 0.97).max() < 0.15
    assert (model.score_samples(modes) >= model.score_samples(start)).all()
    np.testing.assert_allclose(model.modes(start[:3]), modes[:3], rtol=1e-6)
    # At rest: no small step leads up.
    around = modes[:, None] + 0.05 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    higher = model.score_samples(around.reshape(-1, 2)).reshape(-1, 4).max(axis=1)
    assert (higher <= model.score_samples(modes) + 0.05).all()


@pytest.mark.skipif(not FULL, reason="several minutes: set SKLEBM_TEST_FULL=1")
@pytest.mark.parametrize("density", [Rings(), Moons(), GaussianCircle()], ids=repr)
@pytest.mark.parametrize("objective", ["noise_contrastive", "cd", "pcd"])
def test_stock_settings_learn_densities_in_the_plane(density, objective):
    X = density.sample(5000, random_state=0)
    model = DeepEnergyModel(objective=objective, log_partition=None, random_state=0).fit(X)
    assert density.kl_divergence(model.score_samples) <= 0.05


@pytest.mark.parametrize(("jump", "finds"), [(None, True), (0.0, False)])
def test_jumping_chains_learn_the_weights_of_separated_modes(jump, finds):
    density = GaussianCircle(n_modes=2, radius=3.0, noise=0.3, weights=(0.8, 0.2))
    X = density.sample(1500, random_state=0)
    objective = SampledPersistentContrastiveDivergence(jump=jump)
    settings = {**SMALL, "max_epochs": 40, "log_partition": None}
    model = DeepEnergyModel(objective=objective, **settings).fit(X)
    assert (density.kl_divergence(model.score_samples) < 0.1) == finds


@pytest.mark.parametrize("weight", [0.5, 0.8])
def test_score_matching_is_blind_to_the_weights_of_separated_modes(weight):
    """Two distant modes: the objective is the same however their masses are divided."""
    density = GaussianCircle(n_modes=2, radius=3.0, noise=0.3, weights=(weight, 1 - weight))
    X = density.sample(1500, random_state=0)
    settings = {**SMALL, "max_epochs": 40, "log_partition": None}

    def mass_on_the_right(objective):
        model = DeepEnergyModel(objective=objective, **settings).fit(X)
        grid, _ = density.grid(100)
        p = np.exp(model.score_samples(grid) - model.score_samples(grid).max())
        return p[grid[:, 0] > 0].sum() / p.sum()

    assert mass_on_the_right("noise_contrastive") == pytest.approx(weight, abs=0.05)
    if weight == 0.8:
        assert abs(mass_on_the_right("score_matching") - weight) > 0.1


class Growing(nn.Module):
    """Fields that grow with the fourth power: no Gaussian factor holds them."""

    def __init__(self, n_features, n_components):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(n_components))

    def forward(self, x):
        return self.scale * x.square().sum(dim=1, keepdim=True).square()


@pytest.mark.parametrize("objective", ["noise_contrastive", "pcd", "cd", "score_matching"])
def test_energies_without_a_bottom_are_caught(objective):
    X = Rings().sample(200, random_state=0)
    model = DeepEnergyModel(4, network=Growing, objective=objective, max_epochs=10)
    with pytest.raises(FloatingPointError, match="DeepEnergyModel"):
        model.fit(X)
    assert not hasattr(model, "weights_")


def test_a_fall_without_end_is_named():
    X = Rings().sample(200, random_state=0)
    with pytest.raises(FloatingPointError, match=r"falls without end.*not a density"):
        DeepEnergyModel(4, network=Growing, learning_rate=1e-6, max_epochs=1).fit(X)


class Smooth(nn.Sequential):
    def __init__(self, n_features, n_components):
        super().__init__(
            nn.Linear(n_features, 32),
            nn.Tanh(),
            nn.Linear(32, 32),
            nn.GELU(),
            nn.Linear(32, n_components),
        )


def test_modules_of_the_user_are_trained():
    density = Rings(noise=0.3)
    X = density.sample(1000, random_state=0)
    untrained = DeepEnergyModel(8, network=Smooth, max_epochs=1, learning_rate=1e-9)
    trained = DeepEnergyModel(8, network=Smooth, max_epochs=30, random_state=0).fit(X)
    start = density.kl_divergence(untrained.set_params(random_state=0).fit(X).score_samples)
    assert density.kl_divergence(trained.score_samples) < 0.5 * start


def test_images_go_through_convolutions():
    X = np.random.default_rng(0).random((60, 36))
    model = DeepEnergyModel(
        5, hidden_sizes=(3, 4), image_shape=(6, 6), max_epochs=2, random_state=0
    ).fit(X)
    assert model.weights_["network.1.weight"].shape == (3, 1, 3, 3)
    assert model.transform(X).shape == (60, 5)
    assert model.sample(2, n_steps=3, random_state=0).shape == (2, 36)
    with pytest.raises(ValueError, match="image_shape"):
        DeepEnergyModel(image_shape=(5, 5)).fit(X)


def test_sigma_is_fixed_or_learnt():
    X = Rings().sample(300, random_state=0)
    scale = math.sqrt(X.var(axis=0).mean())
    settings = {**SMALL, "max_epochs": 2}
    fixed = DeepEnergyModel(sigma=0.7, **settings).fit(X)
    assert fixed.sigma_ == pytest.approx(0.7, rel=1e-6)
    automatic = DeepEnergyModel(**settings).fit(X)
    assert automatic.sigma_ == pytest.approx(scale, rel=1e-3)
    learnt = DeepEnergyModel(learn_sigma=True, **settings).fit(X)
    assert abs(learnt.sigma_ - scale) > 1e-3


def test_score_says_what_it_can():
    X = Rings().sample(300, random_state=0)
    settings = {**SMALL, "max_epochs": 2, "objective": "score_matching"}
    unknown = DeepEnergyModel(log_partition=None, **settings).fit(X)
    assert unknown.log_partition_ is None
    np.testing.assert_allclose(unknown.score_samples(X), -unknown.free_energy(X))
    # Minus the objective: half the squared slope minus the Laplacian, by finite differences.
    h = 1e-3
    steps = h * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    around = np.stack([unknown.free_energy(X + step) for step in steps])
    slope = np.stack([around[0] - around[1], around[2] - around[3]]) / (2 * h)
    laplacian = (around.sum(axis=0) - 4 * unknown.free_energy(X)) / h**2
    objective = (0.5 * (slope**2).sum(axis=0) - laplacian).mean()
    assert unknown.score(X) == pytest.approx(-objective, rel=1e-3)
    known = unknown.estimate_log_partition(n_temperatures=50, random_state=0)
    expected = -known.free_energy(X).mean() - known.log_partition_interval_[1]
    assert known.score(X) == pytest.approx(expected)
    known.partial_fit(X)
    assert known.log_partition_ is None


def test_objectives_with_their_own_sampler_save_and_load(tmp_path):
    X = Rings().sample(200, random_state=0)
    objective = SampledPersistentContrastiveDivergence(Langevin(0.05), n_steps=2, n_chains=300)
    settings = {**SMALL, "max_epochs": 2, "log_partition": None}
    model = DeepEnergyModel(objective=objective, **settings).fit(X)
    save(model, tmp_path / "model.safetensors")
    twin = load(tmp_path / "model.safetensors")
    assert twin.objective == objective
    assert model.training_state_["objective.position"].shape == (300, 2)
    for one in (model, twin):
        one.partial_fit(X)
    np.testing.assert_array_equal(model.score_samples(X), twin.score_samples(X))


def test_warm_start_continues_the_chains():
    X = Rings().sample(200, random_state=0)
    objective = SampledPersistentContrastiveDivergence(HMC(n_leapfrog=3))
    settings = {**SMALL, "max_epochs": 1, "log_partition": None, "warm_start": True}
    model = DeepEnergyModel(objective=objective, **settings).fit(X)
    step = model.training_state_["objective.log_step"]
    model.fit(X)
    assert (model.training_state_["objective.log_step"] != step).any()
    with pytest.raises(ValueError, match="hidden_sizes"):
        model.set_params(hidden_sizes=(8,)).fit(X)


def test_line_searches_need_an_exact_objective():
    X = Rings().sample(200, random_state=0)
    with pytest.raises(ValueError, match="lbfgs"):
        DeepEnergyModel(optimizer="lbfgs").fit(X)
    settings = {**SMALL, "objective": "score_matching", "log_partition": None}
    model = DeepEnergyModel(optimizer="lbfgs", learning_rate=1.0, max_epochs=5, **settings).fit(X)
    assert model.loss_curve_[-1] < model.loss_curve_[0]


@pytest.mark.parametrize("name", ["n_steps", "max_iter", "tol", "n_chains"])
def test_arguments_are_checked(ring, name):
    _, X, model = ring
    calls = {
        "n_steps": lambda: model.sample(2, n_steps=0),
        "max_iter": lambda: model.modes(X[:2], max_iter=0),
        "tol": lambda: model.modes(X[:2], tol=-1.0),
        "n_chains": lambda: model.estimate_log_partition(n_chains=1),
    }
    with pytest.raises(ValueError, match=name):
        calls[name]()


def test_the_hidden_states_have_an_energy(ring):
    _, X, model = ring
    Z = (model.transform(X[:20]) > 0.5).astype(float)
    assert (model.energy(X[:20], Z) >= model.free_energy(X[:20])).all()
    with pytest.raises(ValueError, match="one z per x"):
        model.energy(X[:3], Z)
