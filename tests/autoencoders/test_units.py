"""Scores do not depend on the units of X, nor on where its zero is."""

import warnings

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.datasets import load_digits

import sklebm
from sklebm import VAE, Autoencoder, DenoisingAutoencoder
from tests.registry import ENTRIES, make_rows

AUTOENCODERS = sorted(n for n, home in sklebm.ESTIMATORS.items() if "autoencoders" in home)
RECONSTRUCTING = [name for name in AUTOENCODERS if name != "VAE"]
EXACT = {"likelihood": "gaussian", "posterior": "bernoulli"}  # log p(x) is a sum: no draws
X, TEST = make_rows(), make_rows(40, 1)


def make(name, **settings):
    settings = {**ENTRIES[name].quick, **(EXACT if name == "VAE" else {}), **settings}
    return getattr(sklebm, name)(**settings)


def fitted(name, X, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # dead codes
        return make(name, **settings).fit(X)


def of_noise(name, factor):
    """The noise of the denoising model is in the units of X."""
    return {"corruption_level": 0.1 * factor} if name == "DenoisingAutoencoder" else {}


@pytest.mark.parametrize("name", AUTOENCODERS)
@pytest.mark.parametrize("factor", [2.0**10, 2.0**-10])
def test_a_power_of_two_changes_nothing_but_the_unit(name, factor):
    """Such a factor rounds nothing: training takes the same steps to the last bit.

    The loss of a VAE, in nats of the rows, differs by a constant of 42: each of the 60 steps rounds
    to 42 times the 6e-8 of float32.
    """
    rounding = 1e-4 if name == "VAE" else 1e-12
    before = fitted(name, X, **of_noise(name, 1.0))
    after = fitted(name, factor * X, **of_noise(name, factor))
    scores = before.score_samples(TEST)
    expected = scores - 6 * np.log(factor) if name == "VAE" else scores * factor**2
    np.testing.assert_allclose(after.score_samples(factor * TEST), expected, rtol=rounding)
    codes = after.transform(factor * TEST)
    np.testing.assert_allclose(codes, before.transform(TEST), rtol=rounding, atol=rounding)
    np.testing.assert_allclose(
        after.reconstruct(factor * TEST) / factor, before.reconstruct(TEST), rtol=rounding
    )


@pytest.mark.parametrize("name", AUTOENCODERS)
@pytest.mark.parametrize(("factor", "shift"), [(1000.0, 0.0), (1e-3, 0.0), (1.0, 1e4), (1.0, 1e6)])
def test_ranks_do_not_depend_on_units_and_zero(name, factor, shift):
    """Rounding of the rows moves training a little, as another machine would."""
    quick = {"max_epochs": 3, "learning_rate": 0.01}
    before = fitted(name, X, **quick, **of_noise(name, 1.0))
    after = fitted(name, factor * X + shift, **quick, **of_noise(name, factor))
    ranks = spearmanr(
        before.score_samples(TEST), after.score_samples(factor * TEST + shift)
    ).statistic
    assert ranks > 0.999


@pytest.mark.parametrize("posterior", ["bernoulli", "diagonal"])
def test_columns_of_a_vae_may_have_units_of_their_own(posterior):
    units = 10.0 ** np.array([-6, 6, 0, 3, -3, 1])
    quick = {"max_epochs": 5, "learning_rate": 0.01, "posterior": posterior}
    quick["n_importance_samples"] = 4096
    before, after = fitted("VAE", X, **quick), fitted("VAE", units * X, **quick)
    shifted = after.score_samples(units * TEST) + np.log(units).sum()
    scores = before.score_samples(TEST)
    # Draws follow the content of a row: importance-weighted scores have errors of their own.
    tolerance = 1e-3 if posterior == "bernoulli" else 0.05
    np.testing.assert_allclose(shifted, scores, atol=tolerance)
    drawn = after.sample(2000, random_state=0) / units
    np.testing.assert_allclose(drawn, before.sample(2000, random_state=0), atol=1e-3)


def test_the_vae_of_rows_in_thousands_reaches_its_likelihood():
    """The report of a user: -19,639 where -49.9 is right."""
    A = np.random.default_rng(0).normal(size=(500, 6))
    settings = {"hidden_sizes": (32,), "max_epochs": 20, "random_state": 0}
    plain = VAE(**settings).fit(A).score(A)
    scaled = VAE(**settings).fit(1000 * A).score(1000 * A)
    assert scaled == pytest.approx(plain - 6 * np.log(1000), abs=0.05)
    assert scaled > -51.0


def test_curves_of_the_vae_are_in_nats_of_the_rows():
    rows = 100.0 * make_rows(300)
    model = fitted("VAE", rows, validation_fraction=0.3, max_epochs=10)
    # Powers of two round nothing: only the unit of the density differs, in all six columns.
    moved = fitted("VAE", 2.0**10 * rows, validation_fraction=0.3, max_epochs=10)
    unit = 6 * 10 * np.log(2)
    np.testing.assert_allclose(moved.loss_curve_ - model.loss_curve_, unit, atol=1e-4)
    gap = model.validation_scores_ - moved.validation_scores_
    np.testing.assert_allclose(gap, unit, atol=1e-4)
    # Of 90 rows, each with one draw: four standard errors.
    bounds = model.lower_bound(rows)
    error = 4 * bounds.std() / np.sqrt(90)
    assert model.validation_scores_[-1] == pytest.approx(bounds.mean(), abs=error)


def test_fixed_noise_is_in_the_units_of_the_rows():
    """One column, no use of the latent: log p(x) is that of the given noise around the mean."""
    rows = np.random.default_rng(0).normal(5.0, 3.0, (400, 1))
    model = VAE(1, noise_scale=30.0, beta=100.0, max_epochs=30, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the latent is unused
        model.fit(rows)
    expected = -0.5 * ((rows[:, 0] - rows.mean()) / 30) ** 2 - np.log(30 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(model.score_samples(rows), expected, atol=0.02)


# ---------------------------------------------------------------- what is not rescaled


@pytest.mark.parametrize(
    "model",
    [
        Autoencoder(2, output_activation="sigmoid", max_epochs=1),
        VAE(2, likelihood="bernoulli", max_epochs=1),
        VAE(2, likelihood="categorical", n_categories=2, max_epochs=1),
        DenoisingAutoencoder(2, corruption="masking", max_epochs=1),
    ],
    ids=["sigmoid", "bernoulli", "categorical", "masking"],
)
def test_bits_and_probabilities_are_taken_as_they_are(model):
    bits = (make_rows(60) > 0.5).astype(float)
    if model.get_params().get("likelihood") == "categorical":
        bits = np.repeat(bits, 2, axis=1)
        bits[:, 1::2] = 1 - bits[:, 1::2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model.fit(bits)
    assert model.scale_ is None
    assert model.offset_ is None


@pytest.mark.parametrize("name", RECONSTRUCTING)
def test_unequal_columns_are_named_with_the_remedy(name):
    units = np.array([1, 1, 1, 1, 1, 1e4])
    with pytest.warns(UserWarning, match=r"differ in scale by a factor of .*e\+04.*StandardScaler"):
        make(name, max_epochs=1).fit(units * X)


def test_equal_columns_and_those_of_a_vae_are_not(recwarn):
    Autoencoder(2, max_epochs=1, random_state=0).fit(load_digits().data)
    VAE(2, max_epochs=1, likelihood="gaussian").fit(10.0 ** np.arange(6) * X)
    assert not [w for w in recwarn if "differ in scale" in str(w.message)]


def test_pixels_that_hardly_ever_change_are_no_giants():
    """One lit pixel of a thousand rows: a new row with it is 10 scales off, not 32."""
    rows = np.random.default_rng(0).normal(size=(1000, 4))
    rows[:, 3] = 0.0
    rows[17, 3] = 1.0
    scale = VAE(1, max_epochs=1, random_state=0).fit(rows).scale_
    assert scale[3] == pytest.approx(0.1, rel=1e-2)
    np.testing.assert_allclose(scale[:3], rows[:, :3].std(axis=0), rtol=1e-9)


def test_constant_columns_take_the_scale_of_the_others():
    rows = 1000.0 * np.random.default_rng(0).normal(size=(100, 4))
    rows[:, 1] = 7.0
    scale = VAE(1, max_epochs=1, random_state=0).fit(rows).scale_
    assert scale[1] == np.median(scale[[0, 2, 3]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        constant = VAE(1, max_epochs=1).fit(np.full((10, 3), 7.0))
    np.testing.assert_array_equal(constant.scale_, 1.0)


# ---------------------------------------------------------------- state


def test_chunks_keep_the_scale_of_the_first():
    model = Autoencoder(2, random_state=0).partial_fit(X)
    scale, offset = model.scale_, model.offset_
    model.partial_fit(50.0 + 3.0 * X)
    np.testing.assert_array_equal(model.scale_, scale)
    np.testing.assert_array_equal(model.offset_, offset)
    whole = np.vstack([X, 50.0 + 3.0 * X])
    np.testing.assert_allclose(model.feature_means_, whole.mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("name", ["Autoencoder", "VAE"])
def test_models_of_earlier_versions_take_rows_as_they_are(name, tmp_path):
    """Their files hold no scale: rows go into the networks as they are."""
    bits = {"likelihood": "gaussian"} if name == "VAE" else {}
    model = fitted(name, X, **bits)
    inner = (TEST - model.offset_) / model.scale_
    expected = model.transform(TEST)
    del model.offset_, model.scale_
    path = tmp_path / "model.safetensors"
    sklebm.save(model, path)
    loaded = sklebm.load(path)
    np.testing.assert_allclose(loaded.transform(inner), expected, rtol=1e-10)
    loaded.partial_fit(X)
    assert loaded.scale_ is None


def test_scales_that_are_none_are_refused(tmp_path):
    model = fitted("Autoencoder", X)
    model.scale_ = np.zeros(6)
    with pytest.raises(ValueError, match="scale_ must be positive"):
        sklebm.save(model, tmp_path / "model.safetensors")
