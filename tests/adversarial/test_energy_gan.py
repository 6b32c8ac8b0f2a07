"""What generators and critics learn from each other."""

import warnings

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.metrics import roc_auc_score
from skorch.callbacks import Callback
from torch import nn

from sklebm import EnergyGAN
from sklebm.adversarial import _answers
from sklebm.energies.adversarial import bound_slopes
from sklebm.inference.latents import closest_latents
from sklebm.objectives.adversarial import energy_distance
from tests.registry import freeze

SMALL = {
    "hidden_sizes": (32,),
    "activation": "silu",
    "n_components": 2,
    "batch_size": 100,
    "random_state": 0,
}


def make_cloud(n_rows=400, seed=0):
    """A narrow cloud across the diagonal, in units of its own."""
    rng = np.random.default_rng(seed)
    along, across = rng.normal(size=(2, n_rows))
    return np.c_[5.0 + 20.0 * (along + 0.1 * across), -3.0 + 2.0 * (along - 0.1 * across)]


def distance(model, X):
    """Energy distance between samples and rows, in standardised features."""
    drawn = model.sample(len(X), random_state=1)
    pair = [torch.tensor((rows - X.mean(axis=0)) / X.std(axis=0)) for rows in (drawn, X)]
    return energy_distance(*pair)


def error(model, X, Z, *given):
    """What a latent of each row costs."""
    gap = (model.generate(Z, *given) - X) / model.scale_
    return (gap**2).mean(axis=1) + 1e-3 * (Z**2).sum(axis=1)


def test_energies_of_an_energy_gan_are_low_on_the_data_and_its_samples_are_near_it():
    X, X_test = make_cloud(), make_cloud(seed=1)
    settings = {**SMALL, "n_codes": 1, "learning_rate": 0.003}
    model = EnergyGAN(max_epochs=80, **settings).fit(X)
    start = EnergyGAN(max_epochs=1, **{**settings, "learning_rate": 1e-12}).fit(X)
    assert distance(model, X_test) < 0.7 * distance(start, X_test)
    shuffled = np.random.default_rng(0).permuted(X_test, axis=0)
    scores = model.score_samples(np.vstack([X_test, shuffled]))
    assert roc_auc_score(np.repeat([1, 0], 400), scores) > 0.85
    assert model.score(X_test) > start.score(X_test)


def test_latents_of_generated_rows_lead_back_to_them():
    X = make_cloud()
    model = EnergyGAN(max_epochs=10, **SMALL).fit(X)
    Z = np.random.default_rng(0).normal(size=(20, 2))
    rows = model.generate(Z)
    found = model.invert(rows, n_starts=30)  # a map that is folded has several minima
    assert (error(model, rows, found) <= error(model, rows, Z) + 1e-12).all()
    np.testing.assert_array_equal(model.invert(rows), model.invert(rows))
    single = np.vstack([model.invert(row[None]) for row in rows])
    np.testing.assert_allclose(single, model.invert(rows), atol=1e-8)
    with pytest.raises(ValueError, match="latents of 2 columns"):
        model.generate(np.ones((3, 5)))
    with pytest.raises(ValueError, match="n_starts"):
        model.invert(rows, n_starts=0)


def test_starts_share_the_working_memory(monkeypatch):
    X = make_cloud()
    model = EnergyGAN(max_epochs=1, **SMALL).fit(X)
    whole, most = model.invert(X), []

    def watched(decode, x, starts, **settings):
        most.append(len(x) * len(starts))
        return closest_latents(decode, x, starts, **settings)

    monkeypatch.setattr(_answers, "closest_latents", watched)
    with config_context(working_memory=1):
        np.testing.assert_allclose(model.invert(X), whole, atol=1e-8)
        few, most[:] = max(most), []
        model.invert(X, n_starts=50, n_steps=1)
    # A MiB holds as many descents, whether they are those of many rows or of many starts.
    assert max(most) <= few + 50


def test_samples_are_those_of_the_average():
    X = make_cloud(200)
    plain = EnergyGAN(max_epochs=3, average_decay=0.0, **SMALL).fit(X)
    slow = EnergyGAN(max_epochs=3, average_decay=0.999, **SMALL).fit(X)
    for name, weight in plain.weights_.items():
        if name.startswith("generator.network"):
            own = name.replace("network", "average")
            np.testing.assert_array_equal(plain.weights_[own], weight)
            # The average is told by no player, and changes no training.
            np.testing.assert_array_equal(slow.weights_[name], weight)
            assert np.abs(slow.weights_[own] - weight).max() > 0


def test_both_players_have_their_own_rates_rules_and_steps():
    X = make_cloud(100)
    model = EnergyGAN(
        max_epochs=2,
        optimizer="rmsprop",
        critic_optimizer="adam",
        critic_learning_rate=0.01,
        critic_steps=3,
        **SMALL,
    ).fit(X)
    state = model.training_state_
    assert state["optimizer_kind"] == "Adam"
    assert state["generator/optimizer_kind"] == "RMSprop"
    assert int(state["objective.n_steps"]) == 2 * 3
    still = EnergyGAN(max_epochs=2, critic_learning_rate=1e-20, **SMALL).fit(X)
    moved = EnergyGAN(max_epochs=2, **SMALL).fit(X)
    name = next(key for key in still.weights_ if key.startswith("critic") and "weight" in key)
    assert not np.array_equal(moved.weights_[name], still.weights_[name])


def test_a_price_on_slopes_flattens_the_energy_at_the_data():
    X = make_cloud(400)

    def slope(r1):
        model = EnergyGAN(max_epochs=20, r1=r1, **SMALL).fit(X)
        energy = model._energy(torch.device("cpu")).double()
        energy.standardization = None
        y = torch.tensor((X - model.offset_) / model.scale_).requires_grad_()
        return float(torch.autograd.grad(energy.judge(y).sum(), y)[0].square().sum(dim=1).mean())

    assert slope(10.0) < 0.5 * slope(0.0)


def test_training_goes_on_with_both_players():
    X = make_cloud(100)
    settings = {**SMALL, "learning_rate_schedule": "constant", "warm_start": True}
    model = EnergyGAN(max_epochs=2, **settings).fit(X)
    steps = int(model.training_state_["objective.n_steps"])
    second = {k: v.copy() for k, v in model.weights_.items()}
    model.fit(X)
    assert int(model.training_state_["objective.n_steps"]) == 2 * steps
    changed = [k for k, w in second.items() if not np.array_equal(w, model.weights_[k])]
    parts = {key.partition(".")[0] for key in changed}
    assert parts == {"critic", "generator"}
    model.partial_fit(X[:40])
    assert model.critic_gap_ is None
    before = freeze(vars(model))

    class InMidEpoch(Callback):
        def on_batch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    model.set_params(net_params={"callbacks": [InMidEpoch()]}, batch_size=20)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    model.set_params(net_params=None, batch_size=100)
    assert freeze(vars(model)) == before


def test_no_layer_of_a_bounded_critic_stretches():
    X = make_cloud(100)
    for activation in ("silu", "relu"):
        settings = {**SMALL, "activation": activation, "spectral_norm": True}
        model = EnergyGAN(max_epochs=5, learning_rate=0.05, **settings).fit(X)
        norms = [
            np.linalg.norm(w, 2)
            for name, w in model.weights_.items()
            if name.startswith("critic") and name.endswith("weight")
        ]
        # Single precision: the norm of a matrix is known to some 1e-6 of its size.
        assert max(norms) <= 1.0 + 1e-5
    layer = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        layer.weight.copy_(0.5 * torch.eye(3))
    bound_slopes(layer)
    torch.testing.assert_close(layer.weight.detach(), 0.5 * torch.eye(3))


def test_images_have_convolutional_players():
    rng = np.random.default_rng(0)
    X = np.zeros((60, 8, 8))
    X[np.arange(60), :, rng.integers(8, size=60)] = 1.0
    model = EnergyGAN(
        3, image_shape=(8, 8), hidden_sizes=(4, 8), max_epochs=2, batch_size=30, random_state=0
    ).fit(X.reshape(60, -1))
    shapes = [w.ndim for k, w in model.weights_.items() if k.startswith("generator.network")]
    assert shapes.count(4) == 2
    assert model.sample(3, random_state=0).shape == (3, 64)


def test_networks_of_the_user():
    class Wide(nn.Module):
        def __init__(self, n_inputs, n_outputs):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(n_inputs, 9), nn.Tanh(), nn.Linear(9, n_outputs))

        def forward(self, x):
            return self.layers(x)

    X = make_cloud(50)
    model = EnergyGAN(generator=Wide, encoder=Wide, decoder=Wide, max_epochs=2, **SMALL).fit(X)
    assert model.generate(np.zeros((1, 2))).shape == (1, 2)
    assert np.isfinite(model.free_energy(X)).all()


def test_held_out_rows_are_compared_with_samples():
    X = make_cloud()
    settings = {**SMALL, "learning_rate": 0.003}
    model = EnergyGAN(max_epochs=30, validation_fraction=0.25, **settings).fit(X)
    scores = model.validation_scores_
    assert scores.shape == (30,)
    assert scores[-5:].mean() > scores[0]


def test_a_collapse_is_named_with_its_numbers():
    class Constant(nn.Module):
        def __init__(self, n_inputs, n_outputs):
            super().__init__()
            self.row = nn.Parameter(torch.zeros(n_outputs))

        def forward(self, x):
            return self.row.expand(len(x), -1)

    X = make_cloud(80)
    with pytest.warns(UserWarning, match=r"samples of .* have collapsed: their variance is"):
        model = EnergyGAN(generator=Constant, max_epochs=1, **SMALL).fit(X)
    assert model.sample_spread_ < 1e-12  # rounding of a mean
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        healthy = EnergyGAN(max_epochs=1, learning_rate=1e-4, **SMALL).fit(X)
        # Generators start as wide as the data, so that a short fit is not called a collapse.
        deep = EnergyGAN(max_epochs=1, **{**SMALL, "hidden_sizes": (16, 16, 16)}).fit(X)
    for model in (healthy, deep):
        assert model.sample_spread_ > 0.3
    with pytest.warns(UserWarning, match="gives all rows the same value") as seen:
        EnergyGAN(generator=Constant, max_epochs=1, **SMALL).fit(X[:1].repeat(9, axis=0))
    # Rows that are all the same have samples that are all the same.
    assert not any("collapsed" in str(warning.message) for warning in seen)


def test_parameters_given_by_hand():
    X = make_cloud(50)
    fitted = EnergyGAN(max_epochs=2, **SMALL).fit(X)
    model = EnergyGAN.from_parameters(
        weights=fitted.weights_,
        offset=fitted.offset_,
        scale=fitted.scale_,
        **{k: v for k, v in SMALL.items() if k != "batch_size"},
    )
    np.testing.assert_array_equal(model.score_samples(X), fitted.score_samples(X))
    np.testing.assert_array_equal(model.sample(4, random_state=0), fitted.sample(4, random_state=0))
    with pytest.raises(TypeError, match="needs weights"):
        EnergyGAN.from_parameters(feature_means=[0.0, 0.0])


def test_given_parameters_without_a_scale_learn_on_in_the_units_of_the_rows():
    X = make_cloud(200)
    fitted = EnergyGAN(max_epochs=2, **SMALL).fit(X)
    standard = (X - fitted.offset_) / fitted.scale_
    model = EnergyGAN.from_parameters(weights=fitted.weights_, feature_means=np.zeros(2), **SMALL)
    before = model.score_samples(standard)
    gaps = before - fitted.score_samples(X)
    assert np.ptp(gaps) < 1e-4 * np.ptp(before)  # rows are standardised in single precision
    assert model.offset_ is None
    assert model.scale_ is None
    model.partial_fit(standard)
    assert model.offset_ is None
    assert model.scale_ is None
    assert np.abs(model.score_samples(standard) - before).max() > 0


def test_codes_lead_to_the_rows_and_the_energies_of_the_critic():
    X = make_cloud(60)
    model = EnergyGAN(max_epochs=3, n_codes=3, **SMALL).fit(X)
    Z = model.transform(X)
    np.testing.assert_allclose(model.energy(X, Z), -model.score_samples(X), rtol=1e-12)
    gaps = (model.inverse_transform(Z) - X) / model.scale_
    np.testing.assert_allclose((gaps**2).mean(axis=1), model.free_energy(X), rtol=1e-9)
    assert (np.abs(model.energy(X, Z[::-1]) - model.energy(X, Z)) > 1e-6).any()
    for method in (lambda z: model.energy(X, z), model.inverse_transform):
        with pytest.raises(ValueError, match="latents of 3 columns"):
            method(Z[:, :2])
