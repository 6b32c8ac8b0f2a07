"""What a GAN learns: the best critic in closed form, and samples that come closer to the rows."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from skorch.callbacks import Callback
from torch import nn

from sklebm import GAN, EnergyGAN, load, save
from sklebm.adversarial import _answers
from sklebm.inference.latents import closest_latents
from sklebm.objectives.adversarial import LeastSquares, NonSaturating, WassersteinPenalty
from tests.adversarial.test_energy_gan import SMALL, distance, error, make_cloud
from tests.registry import fitted_state, freeze


class Fixed(nn.Module):
    """x = 1 + 1.5 z, whatever the training says."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, z):
        return 1.0 + 1.5 * z[:, :1] + 0.0 * self.unused


@pytest.mark.parametrize("objective", [NonSaturating(0.0), LeastSquares(0.0)], ids=repr)
def test_the_critic_of_a_fixed_generator_tells_the_share_of_the_data(objective):
    """p = N(0, 1) and q = N(1, 1.5^2): S(D(x)) or D(x) is p / (p + q)."""
    X = np.random.default_rng(0).normal(size=(3000, 1))
    X = (X - X.mean()) / X.std()
    model = GAN(
        1,
        objective=objective,
        generator=Fixed,
        hidden_sizes=(32,),
        learning_rate=0.01,
        batch_size=500,
        max_epochs=70,
        random_state=0,
    ).fit(X)
    points = np.linspace(-2.5, 3.0, 50)[:, None]
    p, q = norm.pdf(points[:, 0]), norm.pdf(points[:, 0], 1.0, 1.5)
    found = model.score_samples(points)
    if isinstance(objective, NonSaturating):
        found = 1.0 / (1.0 + np.exp(-found))
    # The density of 3000 rows is known within some 5 per cent at a width of half a unit.
    assert np.abs(found - p / (p + q)).max() < 0.06


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "non_saturating"},
        {"objective": "least_squares"},
        # The slope of a Wasserstein game is right only where the critic is nearly at its best.
        {
            "objective": WassersteinPenalty(5.0),
            "critic_steps": 3,
            "critic_learning_rate": 0.01,
            "batch_size": 200,
        },
        {"objective": NonSaturating(0.0), "spectral_norm": True},
    ],
    ids=str,
)
def test_samples_come_closer_to_held_out_rows_than_those_of_the_start(settings):
    X, X_test = make_cloud(), make_cloud(seed=1)
    settings = {"learning_rate": 0.003, **SMALL, **settings}
    model = GAN(max_epochs=90, **settings).fit(X)
    start = GAN(max_epochs=1, **{**settings, "learning_rate": 1e-12}).fit(X)
    # Of two samples of 400 rows of one distribution it is 0, give or take 2 / 400.
    assert distance(model, X_test) < 0.2 * distance(start, X_test)
    drawn = model.sample(400, random_state=0)
    assert drawn.dtype == np.float32
    assert np.corrcoef(drawn.T)[0, 1] > 0.9


def test_units_and_offsets_do_not_matter():
    X = make_cloud(100)
    settings = {**SMALL, "max_epochs": 3}
    model = GAN(**settings).fit(X)
    other = GAN(**settings).fit(1000.0 * X - 1e5)
    samples = [m.sample(50, random_state=0) for m in (model, other)]
    # Single precision beside an offset of 1e5 has a spacing of 8e-3, or 8e-6 of the first units.
    np.testing.assert_allclose((samples[1] + 1e5) / 1000.0, samples[0], atol=1e-3)


def test_transform_leads_back_to_the_rows():
    X = make_cloud()
    model = GAN(max_epochs=30, learning_rate=0.003, **SMALL).fit(X)
    Z = np.random.default_rng(0).normal(size=(30, 2))
    rows = model.generate(Z)
    found = model.invert(rows, n_starts=30)  # a map that is folded has several minima
    assert (error(model, rows, found) <= error(model, rows, Z) + 1e-12).all()
    single = np.vstack([model.transform(row[None]) for row in rows])
    np.testing.assert_allclose(single, model.transform(rows), rtol=1e-10, atol=1e-10)
    X = X[:50]
    np.testing.assert_array_equal(model.transform(X), model.invert(X, n_starts=3))
    np.testing.assert_array_equal(model.inverse_transform(Z), model.generate(Z))
    more = model.invert(X, n_starts=10)
    # The same first starts, so that more of them are never worse.
    assert (error(model, X, more) <= error(model, X, model.transform(X)) + 1e-12).all()


@pytest.mark.parametrize("kind", [GAN, EnergyGAN])
def test_latents_of_a_linear_generator_are_ridge_regression(kind):
    X = make_cloud(60)

    class Linear(nn.Linear):
        """A map that is no wider than it has to be."""

    model = kind(generator=Linear, max_epochs=2, **SMALL).fit(X)
    n_latents = model.architecture_["n_components"]
    base = (model.generate(np.zeros((1, n_latents))) - model.offset_) / model.scale_
    maps = (model.generate(np.eye(n_latents)) - model.offset_) / model.scale_ - base
    errors = (X[:10] - model.offset_) / model.scale_ - base
    gram = maps @ maps.T / X.shape[1] + 1e-3 * np.eye(n_latents)
    expected = np.linalg.solve(gram, maps @ errors.T / X.shape[1]).T
    np.testing.assert_allclose(model.invert(X[:10]), expected, atol=1e-6)


def test_a_game_continues_where_it_ended():
    X = make_cloud(100)
    settings = {**SMALL, "learning_rate_schedule": "constant", "warm_start": True}
    model = GAN(max_epochs=2, critic_steps=2, critic_optimizer="adam", **settings).fit(X)
    assert int(model.training_state_["objective.n_steps"]) == 4
    assert model.training_state_["optimizer_kind"] == "Adam"
    assert model.training_state_["generator/optimizer_kind"] == "RMSprop"
    model.fit(X)
    assert int(model.training_state_["objective.n_steps"]) == 8
    before = freeze(vars(model))

    class InMidEpoch(Callback):
        def on_batch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    model.set_params(net_params={"callbacks": [InMidEpoch()]}, batch_size=20)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    model.set_params(net_params=None, batch_size=100)
    assert freeze(vars(model)) == before
    with pytest.raises(ValueError, match="hidden_sizes"):
        model.set_params(hidden_sizes=(16,)).fit(X)


@pytest.mark.parametrize("kind", [GAN, EnergyGAN])
def test_after_an_interrupt_training_continues_as_if_there_had_been_none(kind, tmp_path):
    X = make_cloud(100)
    settings = {**SMALL, "learning_rate_schedule": "constant", "warm_start": True}
    model = kind(max_epochs=2, critic_steps=2, **{**settings, "batch_size": 20}).fit(X)
    save(model, tmp_path / "model.safetensors")
    twin = load(tmp_path / "model.safetensors")

    class InMidEpoch(Callback):
        n_batches = 0

        def on_batch_end(self, net, **kwargs):
            self.n_batches += 1
            if self.n_batches == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.set_params(net_params={"callbacks": [InMidEpoch()]}).fit(X)
    model.set_params(net_params=None).fit(X)
    twin.fit(X)
    assert int(twin.training_state_["objective.n_steps"]) == 2 * 2 * 5 * 2
    assert freeze(fitted_state(model)) == freeze(fitted_state(twin))


def test_no_layer_of_a_bounded_critic_stretches():
    norms = []
    for bounded in (True, False):
        model = GAN(max_epochs=5, spectral_norm=bounded, learning_rate=0.05, **SMALL)
        weights = model.fit(make_cloud(100)).weights_.items()
        layers = [w for name, w in weights if name.startswith("critic") and name.endswith("weight")]
        norms.append([np.linalg.norm(layer, 2) for layer in layers])
    # Single precision: the norm of a matrix is known to some 1e-6 of its size.
    assert len(norms[0]) >= 2
    assert 0.9 < max(norms[0]) <= 1.0 + 1e-5
    assert max(norms[1]) > 1.0


def test_images_have_convolutional_players():
    rng = np.random.default_rng(0)
    X = np.zeros((60, 2, 9, 8))
    X[np.arange(60), :, :, rng.integers(8, size=60)] = 1.0
    model = GAN(
        3, image_shape=(2, 9, 8), hidden_sizes=(4, 8), max_epochs=2, batch_size=30, random_state=0
    ).fit(X.reshape(60, -1))
    for network in ("critic", "generator.network"):
        shapes = [w.ndim for k, w in model.weights_.items() if k.startswith(network)]
        assert shapes.count(4) == 2
    assert model.sample(3, random_state=0).shape == (3, 144)
    assert model.transform(X.reshape(60, -1)[:2]).shape == (2, 3)


def test_a_critic_that_says_the_same_of_all_rows_is_named():
    class Constant(nn.Module):
        def __init__(self, n_inputs, n_outputs):
            super().__init__()
            self.row = nn.Parameter(torch.ones(n_outputs))

        def forward(self, x):
            return self.row.expand(len(x), -1)

    X = make_cloud(80)
    with pytest.warns(UserWarning, match=r"gives all rows the same value \(its gap .* is 0\)"):
        GAN(critic=Constant, max_epochs=1, **SMALL).fit(X)
    with pytest.warns(UserWarning, match=r"samples of GAN have collapsed"):
        GAN(generator=Constant, max_epochs=1, **SMALL).fit(X)


def test_numbers_that_diverge_are_named():
    X = make_cloud(80)
    with pytest.raises(FloatingPointError, match=r"Lower learning_rate=1e\+30, or scale X"):
        GAN(optimizer="sgd", learning_rate=1e30, max_epochs=5, **SMALL).fit(X)


@pytest.mark.parametrize("kind", [GAN, EnergyGAN])
@pytest.mark.parametrize(
    ("rate", "critic_rate", "advice"),
    [
        (1e-3, 1e30, r"Lower critic_learning_rate=1e\+30 or learning_rate=0.001, or scale X"),
        (1e30, 1e-3, r"Lower learning_rate=1e\+30 or critic_learning_rate=0.001, or scale X"),
        (1e-3, 1e300, r"step of 'sgd' overflowed. Lower critic_learning_rate=1e\+300 or"),
    ],
)
def test_divergence_names_the_highest_rate_first(kind, rate, critic_rate, advice):
    X = make_cloud(80)
    rates = {"learning_rate": rate, "critic_learning_rate": critic_rate}
    with pytest.raises(FloatingPointError, match=advice):
        kind(optimizer="sgd", max_epochs=20, **rates, **SMALL).fit(X)


def test_the_energy_of_a_latent_is_what_inversion_minimises():
    X = make_cloud(60)
    model = GAN(max_epochs=3, **SMALL).fit(X)
    least = []

    def watched(*args, **settings):
        z, cost = closest_latents(*args, **settings)
        least.append(cost)
        return z, cost

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_answers, "closest_latents", watched)
        Z = model.invert(X)
    np.testing.assert_allclose(model.energy(X, Z), torch.cat(least), rtol=1e-12)
    others = np.random.default_rng(0).normal(size=Z.shape)
    np.testing.assert_allclose(model.energy(X, others), error(model, X, others), rtol=1e-9)


def test_latents_of_rows_whose_error_overflows_are_refused():
    X = make_cloud(60)
    model = GAN(max_epochs=1, **SMALL).fit(X)
    X[3] = 1e200
    for method in (model.invert, model.transform):
        with pytest.raises(FloatingPointError, match="row 3"):
            method(X)
