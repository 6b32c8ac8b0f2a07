"""Generators and critics that are given a label or numbers beside every row."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from sklearn.base import clone
from torch import nn

import sklebm
from sklebm import GAN, EnergyGAN
from sklebm.adversarial import _diagnosis
from sklebm.objectives import Batch
from sklebm.objectives.adversarial import NonSaturating
from tests.adversarial.test_energy_gan import error
from tests.registry import fitted_state, freeze

SMALL = {
    "hidden_sizes": (32,),
    "activation": "silu",
    "n_components": 2,
    "batch_size": 100,
    "random_state": 0,
}
each = pytest.mark.parametrize("kind", [GAN, EnergyGAN])


def make_labelled(n_rows=400, seed=0):
    """Two clouds in units of their own, with the names of theirs as labels."""
    rng = np.random.default_rng(seed)
    y = np.array(["left", "right"])[rng.integers(2, size=n_rows)]
    centres = np.where(y[:, None] == "left", [-30.0, 1.0], [40.0, -1.0])
    return centres + rng.normal(size=(n_rows, 2)) * [8.0, 0.3], y


def make_numbered(n_rows=400, seed=0):
    """x = (5 y + noise, noise)."""
    rng = np.random.default_rng(seed)
    y = rng.uniform(100.0, 104.0, size=n_rows)
    return np.c_[5.0 * y + rng.normal(size=n_rows), rng.normal(size=n_rows)], y


@each
def test_samples_follow_their_labels(kind):
    X, y = make_labelled()
    model = kind(conditional=True, max_epochs=60, learning_rate=0.005, **SMALL).fit(X, y)
    assert model.classes_.tolist() == ["left", "right"]
    for label in ("left", "right"):
        rows = model.sample(300, random_state=0, y=label)
        truth = X[y == label]
        # A game ends near its equilibrium: within the width of a cloud, in every column, where the
        # other label is seven away and more.
        widths = truth.std(axis=0)
        assert np.abs((rows.mean(axis=0) - truth.mean(axis=0)) / widths).max() < 1.0
        spread = np.median(np.abs(rows - rows.mean(axis=0)), axis=0) / widths
        assert spread.max() < 2 * 0.6745  # a normal row is as far as that from its mean
    # Each row beside its own label, and beside the other.
    other = np.where(y == "left", "right", "left")
    assert model.score(X, y) > model.score(X, other) + 1e-3
    beside = model.sample(random_state=0, y=["left", "right", "left"])
    assert (beside[:, 0] < 0).tolist() == [True, False, True]


@each
def test_samples_follow_a_number(kind):
    X, y = make_numbered()
    model = kind(conditional=True, max_epochs=60, learning_rate=0.003, **SMALL).fit(X, y)
    assert model.classes_ is None
    means = [model.sample(300, random_state=0, y=value)[:, 0].mean() for value in (101.0, 103.0)]
    # The truth is 10; a model that ignores y gives 0.
    assert 6.0 < means[1] - means[0] < 14.0
    several = kind(conditional=True, max_epochs=2, **SMALL).fit(X, np.c_[y, -y])
    assert several.sample(4, y=[101.0, -101.0]).shape == (4, 2)
    assert several.sample(y=[[101.0, -101.0], [102.0, -102.0]]).shape == (2, 2)
    with pytest.raises(ValueError, match=r"1 numbers for each row, but .* was fitted with 2"):
        several.score_samples(X, y)


def test_the_best_critic_compares_densities_given_the_label():
    """D(x, y) = log p(x | y) / q(x), with p = N(-1, 1) or N(1, 1) and q = N(0, 1.5^2)."""

    class Fixed(nn.Module):
        def __init__(self, n_inputs, n_outputs):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))
            self.scale = 1.5 / np.sqrt(2.0)  # in standardised units: rows have the variance 2

        def forward(self, z):
            return self.scale * z[:, :1] + 0.0 * self.unused

    y = np.arange(6000) % 2
    X = np.random.default_rng(0).normal(size=(6000, 1)) + 2.0 * y[:, None] - 1.0
    X = np.sqrt(2.0) * (X - X.mean()) / X.std()
    model = GAN(
        1,
        objective=NonSaturating(0.0),
        conditional=True,
        generator=Fixed,
        hidden_sizes=(32,),
        learning_rate=0.01,
        batch_size=500,
        max_epochs=30,
        random_state=0,
    ).fit(X, y)
    points = np.linspace(-2.5, 2.5, 40)[:, None]
    for label in (0, 1):
        found = 1.0 / (1.0 + np.exp(-model.score_samples(points, np.full(40, label))))
        p, q = norm.pdf(points[:, 0], 2.0 * label - 1.0), norm.pdf(points[:, 0], 0.0, 1.5)
        # The density of 3000 rows is known within some 5 per cent at a width of half a unit.
        assert np.abs(found - p / (p + q)).max() < 0.07


@each
def test_latents_of_rows_given_their_labels(kind):
    X, y = make_labelled(100)
    model = kind(conditional=True, max_epochs=10, **SMALL).fit(X, y)
    Z = np.random.default_rng(0).normal(size=(10, 2))
    rows = model.generate(Z, y[:10])
    found = model.invert(rows, y[:10], n_starts=30)  # a map that is folded has several minima
    assert (error(model, rows, found, y[:10]) <= error(model, rows, Z, y[:10]) + 1e-12).all()
    single = np.vstack([model.invert(rows[i : i + 1], y[i : i + 1]) for i in range(10)])
    np.testing.assert_allclose(single, model.invert(rows, y[:10]), rtol=1e-9, atol=1e-9)
    whole = model.transform(X, y)
    np.testing.assert_array_equal(clone(model).fit_transform(X, y), whole)
    np.testing.assert_allclose(model.transform(X[5:9], y[5:9]), whole[5:9], rtol=1e-9, atol=1e-9)


@each
def test_training_goes_on_with_the_same_labels(kind):
    X, y = make_labelled(100)
    model = kind(conditional=True, **SMALL)
    model.partial_fit(X[:1], y[:1], classes=["left", "right", "above"])
    model.partial_fit(X[1:], y[1:])
    assert model.classes_.tolist() == ["above", "left", "right"]
    assert model.sample(2, y="above").shape == (2, 2)
    whole = kind(conditional=True, max_epochs=2, warm_start=True, **SMALL).fit(X, y)
    before = freeze(fitted_state(whole))
    with pytest.raises(ValueError, match="was fitted with the labels"):
        whole.fit(X, np.full(100, "below"))
    with pytest.raises(ValueError, match=r"conditional=False differs from the fitted True"):
        whole.set_params(conditional=False).fit(X)
    assert freeze(fitted_state(whole)) == before
    whole.set_params(conditional=True).fit(X, y)
    assert whole.n_iter_ == 2
    assert freeze(fitted_state(whole)) != before


@each
def test_copies_answer_alike(kind, tmp_path):
    for X, y in (make_labelled(60), make_numbered(60)):
        model = kind(conditional=True, max_epochs=2, **SMALL).fit(X, y)
        sklebm.save(model, tmp_path / "model.safetensors")
        made = kind.from_parameters(
            conditional=True,
            weights=model.weights_,
            offset=model.offset_,
            scale=model.scale_,
            **{k: v for k, v in SMALL.items() if k != "batch_size"},
            **{
                name: getattr(model, f"{name}_")
                for name in ("classes", "target_offset", "target_scale")
                if getattr(model, f"{name}_") is not None
            },
        )
        for twin in (sklebm.load(tmp_path / "model.safetensors"), made):
            np.testing.assert_array_equal(twin.score_samples(X, y), model.score_samples(X, y))
            np.testing.assert_array_equal(
                twin.sample(y=y, random_state=0), model.sample(y=y, random_state=0)
            )
    with pytest.raises(TypeError, match="needs classes"):
        kind.from_parameters(
            conditional=True, weights=model.weights_, offset=model.offset_, scale=model.scale_
        )


def test_images_get_labels_as_planes():
    rng = np.random.default_rng(0)
    y = rng.integers(4, size=80)
    X = np.zeros((80, 8, 8))
    X[np.arange(80), :, 2 * y] = 1.0
    for kind in (GAN, EnergyGAN):
        model = kind(
            3,
            conditional=True,
            image_shape=(8, 8),
            hidden_sizes=(4, 8),
            max_epochs=2,
            batch_size=40,
            random_state=0,
        ).fit(X.reshape(80, -1), y)
        name = "critic.1.weight" if kind is GAN else "critic.encoder.1.weight"
        assert model.weights_[name].shape == (4, 1 + 4, 3, 3)
        assert model.sample(y=[0, 3]).shape == (2, 64)


@pytest.mark.parametrize("as_type", [pd.Series, torch.tensor, list])
def test_targets_come_in_any_container(as_type):
    X, y = make_numbered(60)
    model = GAN(conditional=True, max_epochs=2, **SMALL).fit(X, y)
    twin = GAN(conditional=True, max_epochs=2, **SMALL).fit(X, as_type(y))
    np.testing.assert_array_equal(twin.score_samples(X, as_type(y)), model.score_samples(X, y))
    single = twin.score_samples(X.astype(np.float32), y)
    assert single.dtype == np.float32
    # Networks of some tens of units in single precision.
    np.testing.assert_allclose(single, model.score_samples(X, y), atol=1e-3)


@each
def test_missing_and_strange_targets_are_refused(kind):
    X, y = make_labelled(60)
    with pytest.raises(ValueError, match=r"conditional=True\) requires y"):
        kind(conditional=True, **SMALL).fit(X)
    with pytest.raises(ValueError, match="y contains NaN"):
        kind(conditional=True, **SMALL).fit(X, np.full(60, np.nan))
    with pytest.raises(ValueError, match="59 entries"):
        kind(conditional=True, **SMALL).fit(X, y[1:])
    with pytest.raises(ValueError, match="not labels: leave classes out"):
        kind(conditional=True, **SMALL).partial_fit(X, np.ones(60), classes=[0, 1])
    model = kind(conditional=True, max_epochs=1, **SMALL).fit(X, y)
    for ask in (
        model.sample,
        lambda: model.generate(np.zeros((2, 2))),
        lambda: model.score_samples(X),
        lambda: model.transform(X),
        lambda: model.invert(X),
        lambda: model.score(X),
    ):
        with pytest.raises(ValueError, match=r"conditional=True\) requires y"):
            ask()
    with pytest.raises(ValueError, match="was fitted with the labels"):
        model.sample(3, y="above")
    with pytest.raises(ValueError, match="y has 59 entries, but there are 60 rows"):
        model.score_samples(X, y[1:])
    with pytest.raises(ValueError, match="n_samples=5, but y has 60 entries"):
        model.sample(5, y=y)
    # Without it, y is ignored.
    plain = kind(max_epochs=1, **SMALL)
    np.testing.assert_array_equal(
        plain.fit(X, y).score_samples(X, y), plain.fit(X).score_samples(X)
    )


@each
def test_held_out_rows_are_compared_together_with_what_was_given(kind):
    X, y = make_labelled()
    settings = {**SMALL, "learning_rate": 0.003, "validation_fraction": 0.25}
    model = kind(conditional=True, max_epochs=20, **settings).fit(X, y)
    assert model.validation_scores_[-1] > model.validation_scores_[0]
    # For the other labels the rows and the samples are as alike, but lie beside the wrong label:
    # without it both distances would be the same, give or take 2 / 400.
    x = torch.from_numpy((X - model.offset_) / model.scale_).float()
    codes = torch.from_numpy(np.searchsorted(model.classes_, y))
    energy = model._energy(torch.device("cpu")).float()
    right, wrong = (_diagnosis.closeness(energy, Batch(x, c), seed=0) for c in (codes, 1 - codes))
    assert right > wrong + 0.1


def test_a_collapse_within_the_labels_is_named():
    """One row for each label varies as much as the data, but not among those of one label."""

    class OneRowEach(nn.Module):
        def __init__(self, n_inputs, n_outputs):
            super().__init__()
            self.rows = nn.Linear(2, n_outputs)

        def forward(self, z):
            return self.rows(z[:, -2:])

    X, y = make_labelled(200)
    with pytest.warns(UserWarning, match="samples of GAN have collapsed"):
        model = GAN(conditional=True, generator=OneRowEach, max_epochs=2, **SMALL).fit(X, y)
    assert model.sample_spread_ < 1e-9


@each
def test_energies_of_latents_are_those_given_the_labels(kind):
    X, y = make_labelled(60)
    model = kind(conditional=True, max_epochs=3, **SMALL).fit(X, y)
    Z = model.transform(X, y)
    gaps = (model.inverse_transform(Z, y) - X) / model.scale_
    expected = (gaps**2).mean(axis=1)
    if kind is GAN:
        expected += 1e-3 * (Z**2).sum(axis=1)
    else:
        np.testing.assert_allclose(expected, -model.score_samples(X, y), rtol=1e-9)
    np.testing.assert_allclose(model.energy(X, Z, y), expected, rtol=1e-9)
    other = np.where(y == "left", "right", "left")
    assert not np.allclose(model.energy(X, Z, other), expected)
    with pytest.raises(ValueError, match="y has 59 entries"):
        model.energy(X, Z, y[:-1])
