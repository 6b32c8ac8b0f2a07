"""VAE against probabilistic PCA, and what its parameters promise."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from torch import nn

import sklebm
from sklebm import VAE
from sklebm.objectives import (
    DiscreteEvidenceLowerBound,
    EvidenceLowerBound,
    ImportanceWeightedBound,
)
from tests.autoencoders.test_autoencoder import Half, correlated_rows
from tests.registry import draw_rows, fitted_state, freeze, make_rows

SETTINGS = {"learning_rate": 0.01, "batch_size": 20, "max_epochs": 60, "random_state": 0}


def make(**settings):
    return VAE(**{"n_components": 2, "hidden_sizes": (8,), **SETTINGS, **settings})


def bits(n_rows=300, seed=0):
    return (make_rows(n_rows, seed) > 0.5).astype(np.float64)


# ---------------------------------------------------------------- probabilistic PCA


def linear_vae(X, **settings):
    base = {"hidden_sizes": (), "objective": "dreg", "n_samples": 2, "learning_rate": 0.03}
    base |= {"batch_size": 100, "max_epochs": 600, "random_state": 0}
    return VAE(2, **{**base, **settings}).fit(X)


@pytest.fixture(scope="module")
def linear():
    # Clear gaps between the variances: the bound turns the axes slowly where they are close.
    generator = np.random.default_rng(0)
    mixing = np.linalg.qr(generator.standard_normal((6, 6)))[0]
    X = generator.standard_normal((300, 6)) * [3.0, 1.5, 0.5, 0.5, 0.4, 0.4] @ mixing
    return X, linear_vae(X)


def standardized(model, X):
    """What the networks of the model see."""
    return (X - model.offset_) / model.scale_


def log_volume(model):
    return np.log(model.scale_).sum()


def exact_bound(model, X):
    """Evidence lower bound of a linear model in closed form."""
    X = standardized(model, X)
    decoder, encoder = (model.weights_[f"{name}.0.weight"] for name in ("decoder", "encoder"))
    offset = model.weights_["encoder.0.bias"]
    mean, log_scale = np.split(X @ encoder.T.astype(np.float64) + offset, 2, axis=1)
    variance = float(np.exp(2 * model.weights_["likelihood.log_scale"][0]))
    variance += float(model.weights_["likelihood.floor"][0]) ** 2
    residual = ((X - mean @ decoder.T - model.weights_["decoder.0.bias"]) ** 2).sum(axis=1)
    residual += (np.exp(2 * log_scale) * (decoder**2).sum(axis=0)).sum(axis=1)
    divergence = 0.5 * (mean**2 + np.exp(2 * log_scale) - 1 - 2 * log_scale).sum(axis=1)
    density = -0.5 * (residual / variance + 6 * np.log(2 * np.pi * variance))
    return density - log_volume(model) - divergence


def test_linear_model_reaches_the_likelihood_of_probabilistic_pca(linear):
    """Lucas et al. (2019): its bound is tight at the maximum-likelihood solution."""
    X, model = linear
    Y = standardized(model, X)
    np.testing.assert_allclose(Y.std(axis=0), 1.0, rtol=1e-9)
    truth = PCA(2).fit(Y).score(Y) - log_volume(model)
    assert model.score(X) == pytest.approx(truth, abs=1e-3)
    assert exact_bound(model, X).mean() == pytest.approx(truth, abs=1e-3)
    np.testing.assert_allclose(model.lower_bound(X).mean(), exact_bound(model, X).mean(), atol=0.05)


def test_scores_of_the_linear_model_are_its_exact_log_densities(linear):
    X, model = linear
    weight, bias = model.weights_["decoder.0.weight"], model.weights_["decoder.0.bias"]
    variance = np.exp(2 * model.weights_["likelihood.log_scale"]) + (
        model.weights_["likelihood.floor"] ** 2
    )
    exact = multivariate_normal(bias, weight @ weight.T + variance * np.eye(6))
    exact = exact.logpdf(standardized(model, X)) - log_volume(model)
    np.testing.assert_allclose(model.score_samples(X), exact, atol=0.02)
    np.testing.assert_allclose(model.free_energy(X), -model.score_samples(X), rtol=1e-12)


def test_codes_of_the_linear_model_are_the_exact_posterior_means(linear):
    X, model = linear
    weight, bias = model.weights_["decoder.0.weight"], model.weights_["decoder.0.bias"]
    variance = np.exp(2 * model.weights_["likelihood.log_scale"])
    precision = weight.T @ weight + variance * np.eye(2)
    means = np.linalg.solve(precision, weight.T @ (standardized(model, X) - bias).T).T
    np.testing.assert_allclose(model.transform(X), means, atol=0.02)


def test_samples_of_the_linear_model_have_its_moments(linear):
    _, model = linear
    weight, bias = model.weights_["decoder.0.weight"], model.weights_["decoder.0.bias"]
    variance = np.exp(2 * model.weights_["likelihood.log_scale"]) + (
        model.weights_["likelihood.floor"] ** 2
    )
    drawn, n = standardized(model, draw_rows(model, 100_000, 0)), 100_000
    C = weight @ weight.T + variance * np.eye(6)
    # Five standard errors of the moments of normal draws.
    assert (np.abs(drawn.mean(axis=0) - bias) < 5 * np.sqrt(C.diagonal() / n)).all()
    limit = 5 * np.sqrt((C**2 + np.outer(C.diagonal(), C.diagonal())) / n)
    assert (np.abs(np.cov(drawn.T) - C) < limit).all()


def test_full_covariance_is_worth_its_nats_for_a_turned_decoder():
    """With the decoder held turned, only a full covariance is the exact posterior."""

    class Turned(nn.Module):
        def __init__(self, n_inputs, n_outputs):
            super().__init__()
            self.offset = nn.Parameter(torch.zeros(n_outputs))

        def forward(self, z):
            turned = torch.stack([z[:, 0] + z[:, 1], 0.3 * z[:, 0] - z[:, 1]], dim=1)
            return turned + self.offset

    noise = np.random.default_rng(0)
    z = noise.standard_normal((500, 2))
    X = np.stack([z[:, 0] + z[:, 1], 0.3 * z[:, 0] - z[:, 1]], axis=1)
    X += 0.5 * noise.standard_normal(X.shape)
    gap = {}
    for posterior in ("diagonal", "full"):
        model = linear_vae(X, decoder=Turned, posterior=posterior, max_epochs=120, noise_scale=0.5)
        model.set_params(n_importance_samples=2**10)
        gap[posterior] = model.score(X) - model.lower_bound(X).mean()
    assert abs(gap["full"]) < 0.01
    assert gap["diagonal"] > 0.05


# ---------------------------------------------------------------- likelihoods and objectives


def test_learned_noise_finds_where_rows_are_noisy():
    generator = np.random.default_rng(0)
    side = generator.integers(2, size=600)
    X = np.stack([4.0 * side, generator.standard_normal(600)], axis=1)
    X += generator.standard_normal(X.shape) * np.where(side, 1.0, 0.1)[:, None]
    shared = make(n_components=1, max_epochs=50).fit(X[:400])
    learned = make(n_components=1, max_epochs=50, noise_scale="learned").fit(X[:400])
    assert learned.score(X[400:]) > shared.score(X[400:]) + 0.3


def test_fixed_noise_stays():
    def noise(model):
        return np.exp(model.weights_["likelihood.log_scale"]) * model.scale_

    model = make(noise_scale=0.25, max_epochs=3).fit(make_rows())
    np.testing.assert_allclose(noise(model), 0.25, rtol=1e-6)
    model.set_params(noise_scale="shared", max_epochs=3).fit(make_rows())
    assert (np.abs(noise(model) - 0.25) > 1e-3).all()
    model.set_params(noise_scale="learned", warm_start=True)
    with pytest.raises(ValueError, match=r"^noise_scale='learned' .* the fitted 'shared'"):
        model.fit(make_rows())


def test_learnt_noise_has_a_floor():
    """Rows on a line: the likelihood is bounded, and so is the score."""
    X = np.outer(np.random.default_rng(0).standard_normal(200), [1.0, 2.0])
    for noise in ("shared", "learned"):
        model = make(noise_scale=noise, max_epochs=80, learning_rate=0.05).fit(X)
        floor = model.weights_["likelihood.floor"]
        assert model.score(X) < -2 * np.log(floor * np.sqrt(2 * np.pi)) - log_volume(model)


@pytest.mark.table(2)
@pytest.mark.parametrize("objective", ["elbo", "iwae", "dreg"])
@pytest.mark.parametrize("posterior", ["diagonal", "full"])
def test_every_bound_learns(objective, posterior):
    model = make(objective=objective, posterior=posterior, likelihood="bernoulli").fit(bits())
    assert model.score(bits(seed=1)) > -2.0  # two hidden bits: -1.39 at best, -4.16 without them


@pytest.mark.parametrize("how", ["enumeration", "score_function", "relaxed"])
def test_binary_latents_learn_however_the_gradient_is_found(how):
    settings = {"posterior": "bernoulli", "discrete_gradient": how, "learning_rate": 0.03}
    model = make(n_components=4, likelihood="bernoulli", **settings).fit(bits())
    assert model.score(bits(seed=1)) > -2.8  # one of the two hidden bits: -2.77, or -4.16 with none
    assert model.transform(bits()).min() >= 0.0
    assert model.transform(bits()).max() <= 1.0


def test_many_binary_latents_are_scored_by_importance_samples():
    model = make(n_components=14, posterior="bernoulli", max_epochs=30).fit(make_rows(300))
    few = model.score(make_rows(100, 1))
    many = model.set_params(n_importance_samples=3000).score(make_rows(100, 1))
    assert few < many + 0.05


def test_strong_divergence_prunes_latents():
    active = []
    for beta in (0.1, 1.0, 6.0):
        model = make(n_components=4, beta=beta, max_epochs=40).fit(correlated_rows(300, 6))
        active.append(int((model.latent_variances_ > 0.01).sum()))
    assert active == sorted(active, reverse=True)
    assert active[0] > active[-1]


def test_collapse_is_named_with_its_remedies():
    with pytest.warns(UserWarning, match="VAE has collapsed.*beta_warmup or free_bits"):
        make(beta=1000.0).fit(make_rows())


def test_warm_up_counts_on_over_chunks():
    model = make(beta_warmup=100, likelihood="bernoulli")
    for _ in range(3):
        model.partial_fit(bits(60))
    assert model.training_state_["objective.n_updates"] == 9


def test_dynamic_binarisation_learns_from_grey_rows():
    grey = make_rows(300)
    model = make(likelihood="bernoulli", learning_rate=0.03, binarize=True).fit(grey)
    drawn = (np.random.default_rng(0).random((500, 6)) < make_rows(500, 1)).astype(float)
    static = make(likelihood="bernoulli", learning_rate=0.03).fit((grey > 0.5).astype(float))
    assert model.score(drawn) > static.score(drawn) + 0.05


def test_more_importance_samples_raise_the_score():
    """Between the bound and log p(x), up to the error of a few fixed draws."""
    model = make().fit(make_rows())
    bound = model.set_params(n_importance_samples=1024).lower_bound(make_rows(seed=1)).mean()
    few, many = (
        model.set_params(n_importance_samples=n).score(make_rows(seed=1)) for n in (4, 1024)
    )
    assert bound < few < many + 0.05
    assert bound < many - 0.05


def test_validation_scores_are_held_out_bounds():
    model = make(validation_fraction=0.25, max_epochs=40).fit(make_rows(300))
    assert model.validation_scores_[-1] > model.validation_scores_[0]
    # Means over 75 and over 300 rows: three standard errors of their difference.
    bounds = model.lower_bound(make_rows(300, 1))
    error = bounds.std() * np.sqrt(1 / 75 + 1 / 300)
    assert model.validation_scores_[-1] == pytest.approx(bounds.mean(), abs=3 * error)


# ---------------------------------------------------------------- latents


def test_traversal_moves_one_latent_and_keeps_the_others():
    model = make(n_components=3).fit(make_rows())
    X = make_rows(5)
    moved = model.traverse(X)
    assert moved.shape == (5, 3, 7, 6)
    Z = model.transform(X)
    Z[:, 1] = -3.0
    np.testing.assert_allclose(moved[:, 1, 0], model.inverse_transform(Z), rtol=1e-10)
    chosen = model.traverse(X, components=[2], values=[0.0, 1.0])
    assert chosen.shape == (5, 1, 2, 6)
    Z = model.transform(X)
    Z[:, 2] = 1.0
    np.testing.assert_allclose(chosen[:, 0, 1], model.inverse_transform(Z), rtol=1e-10)
    for settings, message in (
        ({"components": [3]}, "latents from 0 to 2"),
        ({"values": []}, "values="),
        ({"values": [np.nan]}, "values="),
        ({"values": [[0.0, 1.0]]}, "values="),
        ({"components": [[0, 1]]}, "latents from 0 to 2"),
        ({"components": [-1]}, "latents from 0 to 2"),
    ):
        with pytest.raises(ValueError, match=message):
            model.traverse(X, **settings)


def test_energies_of_codes():
    model = make().fit(make_rows())
    X = make_rows(20, 1)
    near, far = model.energy(X, model.transform(X)), model.energy(X, 5 + model.transform(X))
    assert (near < far).all()


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_the_free_energy_is_the_integral_over_the_codes(likelihood):
    """F(x) = -log of the integral of exp(-E(x, z)), by quadrature over the plane of codes."""
    X = bits(60) if likelihood == "bernoulli" else make_rows(60)
    settings = {"likelihood": likelihood, "n_importance_samples": 4096, "max_epochs": 20}
    model = make(**settings).fit(X)
    axis = np.linspace(-7, 7, 301)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    for x, found in zip(X[:4], model.free_energy(X[:4]), strict=True):
        energies = model.energy(np.tile(x, (len(grid), 1)), grid)
        integral = logsumexp(-energies) + 2 * np.log(axis[1] - axis[0])
        # 4,096 quasi-random importance weights: an error of about 1 / 64 at most.
        assert found == pytest.approx(-integral, abs=0.05)
        # A mean over codes is no more than the best of them.
        best = (energies - np.log(2 * np.pi) - 0.5 * (grid**2).sum(axis=1)).min()
        assert found > best


def test_binary_samples_and_their_rate():
    X = bits(400)
    model = make(likelihood="bernoulli", max_epochs=100).fit(X)
    drawn = draw_rows(model, 5000, 0)
    assert set(np.unique(drawn)) == {0.0, 1.0}
    np.testing.assert_allclose(drawn.mean(axis=0), X.mean(axis=0), atol=0.1)
    # Rows are three bits twice: samples that break the pattern are rare.
    legal = {tuple(row) for row in X}
    assert np.mean([tuple(row) in legal for row in drawn]) > 0.7


def test_convolutions_and_modules_of_the_user():
    images = np.random.default_rng(0).random((60, 48))
    model = VAE(2, image_shape=(8, 6), hidden_sizes=(4, 8), noise_scale="learned", max_epochs=2)
    assert model.fit(images).reconstruct(images).shape == images.shape
    colour = VAE(2, image_shape=(3, 4, 4), hidden_sizes=(4,), posterior="full", max_epochs=2)
    assert colour.fit(images).sample(3, random_state=0).shape == (3, 48)
    own = make(encoder=Half, noise_scale="learned", decoder=nn.Linear).fit(make_rows())
    assert own.weights_["encoder.map.weight"].shape == (4, 6)
    assert own.weights_["decoder.weight"].shape == (12, 2)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"likelihood": "bernoulli", "noise_scale": 0.5}, "noise_scale=0.5 .* does not apply"),
        ({"binarize": True}, "binarize=True draws binary rows"),
        ({"posterior": "bernoulli", "objective": "iwae"}, "objective='iwae' needs a Gaussian"),
        ({"objective": "iwae", "beta": 2.0}, "beta does not apply to objective='iwae'"),
        ({"objective": EvidenceLowerBound(beta=2.0), "n_samples": 3}, "n_samples must be set on"),
        ({"objective": DiscreteEvidenceLowerBound()}, "needs states of the energy"),
        (
            {"objective": ImportanceWeightedBound(), "posterior": "bernoulli"},
            "needs reparametrize of the energy.*DiscreteEvidenceLowerBound",
        ),
        ({"discrete_gradient": "relaxed"}, "discrete_gradient does not apply"),
        (
            {"posterior": "bernoulli", "n_components": 13, "discrete_gradient": "enumeration"},
            r"2\^13 states",
        ),
        ({"optimizer": "lbfgs"}, "samples: use another optimizer"),
        ({"n_iter_no_change": 3}, "needs validation_fraction"),
    ],
)
def test_choices_that_do_not_fit_are_refused(settings, message):
    model = make(**settings)
    with pytest.raises(ValueError, match=message):
        model.fit(bits(40))
    assert not fitted_state(model)


def test_objects_carry_their_own_settings(tmp_path):
    model = make(objective=ImportanceWeightedBound(n_samples=3), max_epochs=2).fit(make_rows())
    named = make(objective="iwae", n_samples=3, max_epochs=2).fit(make_rows())
    assert freeze(model.weights_) == freeze(named.weights_)
    sklebm.save(model, tmp_path / "model.safetensors")
    assert sklebm.load(tmp_path / "model.safetensors").objective == model.objective


# ---------------------------------------------------------------- defaults of binary latents


def copied_bits(n_rows, seed):
    """Five fair bits, each seen twice: log p(x) is -5 log 2, and twice that without latents."""
    hidden = np.random.default_rng(seed).integers(2, size=(n_rows, 5))
    return np.repeat(hidden, 2, axis=1).astype(np.float64)


def test_binary_latents_do_not_collapse_at_the_defaults():
    model = VAE(posterior="bernoulli", likelihood="bernoulli", random_state=0)
    model.fit(copied_bits(1000, 0))
    # The truth is -3.47 nats, and a collapsed model has -6.93; two seeds gave -3.71 and -3.48.
    assert model.score(copied_bits(1000, 1)) > -5 * np.log(2) - 0.3


def test_the_divergence_of_binary_latents_comes_in_over_a_quarter_of_the_updates():
    binary = {"posterior": "bernoulli", "max_epochs": 8, "batch_size": 10}
    auto, given, none = (
        make(**binary, **warmup).fit(bits(100)).loss_curve_
        for warmup in ({}, {"beta_warmup": 20}, {"beta_warmup": 0})
    )
    np.testing.assert_array_equal(auto, given)  # 80 updates
    assert not np.array_equal(auto, none)
    gaussian = (make(max_epochs=2, **w).fit(bits(100)) for w in ({}, {"beta_warmup": 0}))
    first, second = (model.loss_curve_ for model in gaussian)
    np.testing.assert_array_equal(first, second)


def test_training_goes_on_at_full_weight():
    """After a fit the divergence has come in; chunk by chunk it takes 500 updates."""
    model = make(posterior="bernoulli", warm_start=True, max_epochs=4, batch_size=50)
    twin = make(posterior="bernoulli", warm_start=True, max_epochs=4, batch_size=50)
    X = bits(100)
    model.fit(X).fit(X)
    twin.fit(X).set_params(beta_warmup=0).fit(X)
    np.testing.assert_array_equal(model.loss_curve_, twin.loss_curve_)
    chunked = make(posterior="bernoulli").partial_fit(X)
    slow = make(posterior="bernoulli", beta_warmup=500).partial_fit(X)
    np.testing.assert_array_equal(chunked.loss_curve_, slow.loss_curve_)


def test_traversals_are_arrays_whatever_transform_returns():
    """Reported: set_output(transform="pandas") broke traverse."""
    X = make_rows(5)
    model = make(max_epochs=2).fit(make_rows())
    expected = model.traverse(X)
    for output in ("pandas", "polars"):
        model.set_output(transform=output)
        np.testing.assert_array_equal(model.traverse(X), expected)
