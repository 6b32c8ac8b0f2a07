"""Denoising, masked, sparse, contractive and saturating models: what they learn."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from sklebm import (
    Autoencoder,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    MaskedAutoencoder,
    SaturatingAutoencoder,
    SparseAutoencoder,
)
from sklebm.energies.masked import MaskedReconstructionEnergy, patch_numbers
from sklebm.objectives.denoising import corrupt
from tests.autoencoders.test_autoencoder import correlated_rows, make_energy
from tests.registry import fitted_state, make_rows


@pytest.fixture(scope="module")
def digits():
    X = load_digits().data / 16
    return X[:1200], X[1200:]


# ---------------------------------------------------------------- denoising


def test_corruptions_do_what_they_say():
    x = torch.full((4000, 5), 0.5)
    generator = torch.Generator().manual_seed(0)
    noise = corrupt(x, "gaussian", 0.3, generator) - x
    assert float(noise.std()) == pytest.approx(0.3, abs=0.01)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.01)
    masked = corrupt(x, "masking", 0.3, generator)
    assert set(masked.unique().tolist()) == {0.0, 0.5}
    assert float((masked == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    speckled = corrupt(x, "salt_pepper", 0.3, generator)
    assert set(speckled.unique().tolist()) == {0.0, 0.5, 1.0}
    for value in (0.0, 1.0):
        assert float((speckled == value).float().mean()) == pytest.approx(0.15, abs=0.02)
    assert (x == 0.5).all()


def test_linear_denoiser_is_the_wiener_filter():
    """The best linear map from x + noise back to x is C (C + s^2 I)^-1."""
    X = correlated_rows(2000, 5)
    model = DenoisingAutoencoder(
        5,
        hidden_sizes=(),
        code_activation="identity",
        corruption_level=0.8,
        learning_rate=0.01,
        batch_size=500,
        max_epochs=400,
        random_state=0,
    ).fit(X)
    covariance = np.cov(X.T, bias=True)
    wiener = covariance @ np.linalg.inv(covariance + 0.64 * np.eye(5))
    mean = X.mean(axis=0)
    origin = model.reconstruct(np.zeros((1, 5)))
    found = (model.reconstruct(np.eye(5)) - origin).T
    np.testing.assert_allclose(found, wiener, atol=0.03)
    np.testing.assert_allclose(model.reconstruct(mean[None])[0], mean, atol=0.05)


def test_displacement_is_the_gradient_of_a_mixture():
    """Small noise: (r(x) - x) / s^2 against the score of the mixture, blurred by s."""
    scale, means, deviation = 0.3, np.array([-1.0, 1.0]), 0.4
    generator = np.random.default_rng(0)
    X = generator.choice(means, 4000)[:, None] + deviation * generator.standard_normal((4000, 1))
    model = DenoisingAutoencoder(
        32,
        hidden_sizes=(32,),
        activation="tanh",
        code_activation="tanh",
        corruption_level=scale,
        learning_rate=0.01,
        batch_size=200,
        max_epochs=150,
        random_state=0,
    ).fit(X)
    grid = np.linspace(-1.5, 1.5, 41)
    blurred = np.sqrt(deviation**2 + scale**2)
    shares = norm.logpdf(grid[:, None], means, blurred)
    shares = np.exp(shares - logsumexp(shares, axis=1, keepdims=True))
    truth = (shares * (means - grid[:, None])).sum(axis=1) / blurred**2
    found = model.log_density_gradient(grid[:, None])[:, 0]
    assert np.sqrt(np.mean((found - truth) ** 2)) < 0.1 * truth.std()
    assert model.noise_scale_ == scale


def test_denoises_held_out_digits(digits):
    train, test = digits
    noisy = test + np.random.default_rng(0).normal(0, 0.3, test.shape)
    settings = {"hidden_sizes": (), "learning_rate": 0.003, "max_epochs": 30, "random_state": 0}
    model = DenoisingAutoencoder(code_activation="relu", **settings).fit(train)
    error = ((model.reconstruct(noisy) - test) ** 2).sum(axis=1).mean()
    assert error < 0.45 * 64 * 0.3**2
    plain = Autoencoder(64, code_activation="relu", **settings).fit(train)
    assert error < 0.7 * ((plain.reconstruct(noisy) - test) ** 2).sum(axis=1).mean()


def test_gradient_and_levels_that_have_no_meaning():
    model = DenoisingAutoencoder(4, corruption="masking", max_epochs=1, random_state=0)
    with pytest.raises(ValueError, match='fitted with corruption="gaussian"'):
        model.fit(make_rows()).log_density_gradient(make_rows())
    assert model.noise_scale_ is None
    with pytest.raises(ValueError, match=r"corruption_level=1\.5 must be below 1"):
        model.set_params(corruption_level=1.5).fit(make_rows())


# ---------------------------------------------------------------- masked


def test_patches_of_images_are_squares():
    patches = patch_numbers((2, 5, 6), 2)
    image = patches.reshape(2, 5, 6)
    assert (image[0] == image[1]).all()
    np.testing.assert_array_equal(image[0][:2, :2], 0)
    np.testing.assert_array_equal(image[0][4, 4:], 8)
    assert int(patches.max()) == 8
    np.testing.assert_array_equal(patch_numbers((5,), 2), [0, 0, 1, 1, 2])


def masked_energy(fraction=0.75):
    networks = make_energy(16, 3, (8,))
    patches = patch_numbers((1, 4, 4), 2)
    return MaskedReconstructionEnergy(networks.encoder, networks.decoder, patches, fraction)


@pytest.mark.parametrize(("fraction", "n_hidden"), [(0.75, 3), (0.5, 2), (0.01, 1), (0.99, 3)])
def test_so_many_patches_are_hidden(fraction, n_hidden):
    energy = masked_energy(fraction)
    hidden = energy.draw_hidden_entries(2000, torch.Generator().manual_seed(0))
    assert (hidden.sum(dim=1) == 4 * n_hidden).all()
    share = hidden.float().mean(dim=0)
    torch.testing.assert_close(share, torch.full((16,), n_hidden / 4), atol=0.05, rtol=0)
    whole = hidden.reshape(-1, 4, 4)[:, :2, :2].flatten(1).float().mean(dim=1)
    assert set(whole.tolist()) == {0.0, 1.0}
    masks = energy.fixed_masks()
    n_visible = 4 - n_hidden
    assert len(masks) == -(-4 // n_visible)
    assert ((~masks).sum(dim=0) == 1).all()


def test_hidden_entries_are_never_seen():
    """What a row has in its hidden entries changes neither their prediction nor its error."""
    energy = masked_energy()
    x = torch.rand(3, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hidden = energy.draw_hidden_entries(3, torch.Generator().manual_seed(1))
    other = torch.where(hidden, 7.0 - x, x)
    torch.testing.assert_close(
        energy.reconstruct(energy.hide(x, hidden)), energy.reconstruct(energy.hide(other, hidden))
    )


def test_predicts_hidden_pixels_better_than_their_mean(digits):
    train, test = digits
    model = MaskedAutoencoder(
        32,
        image_shape=(8, 8),
        hidden_sizes=(16, 32),
        patch_size=2,
        masked_fraction=0.5,
        learning_rate=0.003,
        max_epochs=20,
        random_state=0,
    ).fit(train)
    of_the_mean = ((test - train.mean(axis=0)) ** 2).sum(axis=1).mean()
    assert model.free_energy(test).mean() < 0.85 * of_the_mean
    filling = model.weights_["filling"] * model.scale_ + model.offset_
    np.testing.assert_allclose(filling, train.mean(axis=0), rtol=1e-5, atol=1e-7)


def test_one_patch_is_predicted_by_nothing():
    model = MaskedAutoencoder(2, patch_size=6, max_epochs=2, random_state=0).fit(make_rows())
    assert np.isfinite(model.score_samples(make_rows())).all()


# ---------------------------------------------------------------- sparse


def test_price_of_activity_makes_codes_sparse(digits):
    train, test = digits
    shares, errors = [], []
    for alpha in (0.0, 0.2, 0.8):
        model = SparseAutoencoder(alpha=alpha, learning_rate=0.01, max_epochs=20, random_state=0)
        model.fit(train)
        shares.append((model.transform(test) > 0).mean())
        errors.append(model.free_energy(test).mean())
    assert shares == sorted(shares, reverse=True)
    assert errors == sorted(errors)
    assert shares[-1] < 0.5 * shares[0]


def test_mean_activity_comes_to_its_target(digits):
    train, _ = digits
    model = SparseAutoencoder(
        32,
        penalty="kl",
        code_activation="sigmoid",
        alpha=300.0,
        target_activity=0.1,
        learning_rate=0.03,
        batch_size=64,
        max_epochs=120,
        random_state=0,
    ).fit(train)
    np.testing.assert_allclose(model.transform(train).mean(axis=0), 0.1, atol=0.03)
    with pytest.raises(ValueError, match='penalty="kl" needs units in'):
        SparseAutoencoder(penalty="kl").fit(train)


# ---------------------------------------------------------------- contractive and saturating


def test_penalty_is_what_training_lowers(digits):
    train, test = digits
    for kind, price, settings in (
        (ContractiveAutoencoder, 20.0, {}),
        (ContractiveAutoencoder, 20.0, {"hidden_sizes": (32,), "n_components": 6, "tied": False}),
        (ContractiveAutoencoder, 20.0, {"hidden_sizes": (32,), "n_components": 12, "tied": False}),
        (SaturatingAutoencoder, 10.0, {}),
        (SaturatingAutoencoder, 10.0, {"code_activation": "relu"}),
        (SaturatingAutoencoder, 10.0, {"code_activation": "shrink"}),
    ):
        base = {"max_epochs": 8, "learning_rate": 0.01, "random_state": 0, **settings}
        free, bound = (kind(alpha=alpha, **base).fit(train) for alpha in (0.0, price))
        assert bound.penalty(test).mean() < 0.8 * free.penalty(test).mean()
        assert bound.score(test) < free.score(test) + 0.05


def test_contractive_penalty_of_rows_is_the_exact_jacobian():
    X = make_rows(5)
    for settings in ({"hidden_sizes": ()}, {"hidden_sizes": (7,), "tied": False}):
        model = ContractiveAutoencoder(12, max_epochs=2, random_state=0, **settings)
        model.fit(make_rows())
        step = 1e-5
        differences = [
            (model.transform(X + step * axis) - model.transform(X - step * axis)) / (2 * step)
            for axis in np.eye(6)
        ]
        truth = np.square(differences).sum(axis=(0, 2))
        np.testing.assert_allclose(model.penalty(X), truth, rtol=1e-6)


def test_saturating_energy_is_low_on_digits_and_high_off_them(digits):
    train, test = digits
    model = SaturatingAutoencoder(
        128, alpha=0.1, learning_rate=0.003, max_epochs=30, random_state=0
    ).fit(train)
    generator = np.random.default_rng(0)
    shuffled = generator.permuted(test, axis=0)
    noise = generator.uniform(size=test.shape)
    for other in (shuffled, noise):
        labels = np.repeat([1, 0], len(test))
        scores = model.score_samples(np.vstack([test, other]))
        assert roc_auc_score(labels, scores) > 0.95


def test_saturating_units_need_the_built_in_encoder():
    model = SaturatingAutoencoder(4, encoder=torch.nn.Linear)
    with pytest.raises(ValueError, match="encoder"):
        model.fit(make_rows())
    assert not fitted_state(model)
