"""Autoencoder against principal components, and its networks against their shapes."""

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA
from torch import nn

import sklebm
from sklebm import Autoencoder
from sklebm.energies import ReconstructionEnergy
from sklebm.energies.networks import initialize, make_decoder, make_encoder
from sklebm.objectives import Batch, ReconstructionError
from tests.registry import fitted_state, freeze, make_rows

LINEAR = {"hidden_sizes": (), "optimizer": "lbfgs", "learning_rate": 1.0, "random_state": 0}


def correlated_rows(n_rows=200, n_features=8, seed=0):
    generator = np.random.default_rng(seed)
    scales = np.linspace(2.0, 0.2, n_features)
    mixing = np.linalg.qr(generator.standard_normal((n_features, n_features)))[0]
    return 1.0 + generator.standard_normal((n_rows, n_features)) * scales @ mixing


def make_energy(n_features, n_components, hidden_sizes=(), seed=0, tied=False):
    """A float64 energy of built-in networks."""
    encoder = make_encoder((n_features,), hidden_sizes, n_components, "tanh", "identity")
    decoder = make_decoder(
        n_components,
        hidden_sizes,
        (n_features,),
        "tanh",
        "identity",
        tied_to=encoder if tied else None,
    )
    generator = torch.Generator().manual_seed(seed)
    initialize(encoder, generator)
    initialize(decoder, generator)
    return ReconstructionEnergy(encoder, decoder).double()


def minimise(energy, x, n_steps=60):
    """Follow the objective to its minimum in float64."""
    optimizer = torch.optim.LBFGS(
        energy.parameters(),
        max_iter=50,
        history_size=50,
        tolerance_grad=1e-14,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        loss, _ = ReconstructionError().loss(energy, Batch(x), {}, None)
        loss.backward()
        return loss

    for _ in range(n_steps):
        optimizer.step(closure)
    return energy


# ---------------------------------------------------------------- principal components


@pytest.mark.parametrize("tied", [False, True])
def test_linear_optimum_spans_the_principal_subspace(tied):
    """Baldi & Hornik (1989): the optimum projects on the leading eigenvectors."""
    X = correlated_rows()
    energy = minimise(make_energy(8, 3, tied=tied), torch.from_numpy(X))
    pca = PCA(3).fit(X)
    jacobian = torch.autograd.functional.jacobian(
        lambda z: energy.decode(z[None])[0], torch.zeros(3, dtype=torch.float64)
    )
    assert subspace_angles(jacobian.numpy(), pca.components_.T).max() < 1e-6
    discarded = (X - pca.inverse_transform(pca.transform(X))) ** 2
    with torch.no_grad():
        error = energy.free_energy(torch.from_numpy(X)).mean()
    assert float(error) == pytest.approx(discarded.sum(axis=1).mean(), rel=1e-9)


def test_the_estimator_reaches_the_principal_subspace():
    """Single precision: its error is the sum of the discarded eigenvalues to 1e-5."""
    X = correlated_rows()
    model = Autoencoder(3, max_epochs=60, **LINEAR).fit(X)
    pca = PCA(3).fit(X)
    discarded = ((X - pca.inverse_transform(pca.transform(X))) ** 2).sum(axis=1)
    assert -model.score(X) == pytest.approx(discarded.mean(), rel=1e-5)
    rebuilt = np.square(X - model.reconstruct(X)).sum(axis=1)
    np.testing.assert_allclose(model.free_energy(X), rebuilt, rtol=1e-5, atol=1e-6)
    # An error of 1e-5 of the total leaves room for this angle between the planes, and no more.
    variances = np.linalg.eigvalsh(np.cov(X.T, bias=True))[::-1]
    plane = model.inverse_transform(np.vstack([np.zeros(3), np.eye(3)]))
    angle = subspace_angles((plane[1:] - plane[0]).T, pca.components_.T).max()
    assert np.sin(angle) ** 2 < 1e-5 * discarded.mean() / (variances[2] - variances[3])


def test_a_deeper_net_follows_a_curve_that_a_line_cannot():
    angle = np.linspace(-2.0, 2.0, 300)[:, None]
    arc = np.hstack([np.sin(angle), np.cos(angle)])
    settings = {"max_epochs": 200, "batch_size": 50, "learning_rate": 0.01, "random_state": 0}
    line = Autoencoder(1, hidden_sizes=(), **settings).fit(arc).score(arc)
    curve = Autoencoder(1, hidden_sizes=(32,), activation="tanh", **settings).fit(arc).score(arc)
    assert curve > 0.1 * line


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize("sides", [(8, 8), (7, 5), (1, 9), (2, 3, 4), (3, 1, 1)])
@pytest.mark.parametrize("hidden_sizes", [(), (4,), (4, 3, 2)])
@pytest.mark.parametrize("tied", [False, True])
def test_images_of_any_size_come_back_in_their_size(sides, hidden_sizes, tied):
    n_features = int(np.prod(sides))
    X = np.random.default_rng(0).random((20, n_features))
    settings = {"image_shape": sides, "hidden_sizes": hidden_sizes, "tied": tied}
    model = Autoencoder(2, max_epochs=1, random_state=0, **settings).fit(X)
    assert model.reconstruct(X).shape == X.shape
    assert model.transform(X).shape == (20, 2)


@pytest.mark.parametrize("hidden_sizes", [(), (5,), (5, 4)])
def test_tied_weights_are_the_transposed_ones(hidden_sizes):
    model = Autoencoder(3, hidden_sizes=hidden_sizes, tied=True, max_epochs=2, random_state=0)
    model.fit(make_rows())
    weights = [w for name, w in model.weights_.items() if name.endswith("weight")]
    biases = [w for name, w in model.weights_.items() if "decoder" in name]
    assert len(weights) == len(biases) == len(hidden_sizes) + 1
    h = model.transform(make_rows())
    for index, (weight, bias) in enumerate(zip(weights[::-1], biases, strict=True)):
        h = h @ weight + bias
        h = np.maximum(h, 0.0) if index < len(hidden_sizes) else h
    h = h * model.scale_ + model.offset_
    np.testing.assert_allclose(model.inverse_transform(model.transform(make_rows())), h, rtol=1e-6)


def test_tied_convolutions_are_transposed_maps():
    """<f(x), z> = <x, f'(z)> for the linear part of the network."""
    encoder = make_encoder((2, 5, 6), (3, 4), 7, "identity", "identity")
    decoder = make_decoder(7, (3, 4), (2, 5, 6), "identity", "identity", tied_to=encoder)
    generator = torch.Generator().manual_seed(0)
    initialize(encoder, generator)
    initialize(decoder, generator)
    x = torch.randn(1, 60, generator=generator, dtype=torch.float64)
    z = torch.randn(1, 7, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        forward = (encoder.double()(x) * z).sum()
        backward = (x * decoder.double()(z)).sum()
    assert float(forward) == pytest.approx(float(backward), rel=1e-12)


def test_every_parameter_learns():
    X = make_rows()
    for settings in ({}, {"tied": True}, {"image_shape": (2, 3), "hidden_sizes": (4, 4)}):
        start = Autoencoder(2, max_epochs=1, learning_rate=1e-12, random_state=0, **settings)
        end = Autoencoder(2, max_epochs=3, learning_rate=0.01, random_state=0, **settings)
        before, after = start.fit(X).weights_, end.fit(X).weights_
        for name in before:
            assert not np.allclose(before[name], after[name], atol=1e-6), name


def test_the_decoder_starts_at_the_mean_row():
    X = 5.0 + make_rows()
    model = Autoencoder(2, max_epochs=1, learning_rate=1e-12, random_state=0).fit(X)
    np.testing.assert_allclose(model.offset_, X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(model.weights_["decoder.2.bias"], 0.0, atol=1e-6)
    model = Autoencoder(2, max_epochs=1, learning_rate=1e-12, output_activation="sigmoid")
    bias = model.fit(make_rows()).weights_["decoder.2.bias"]
    np.testing.assert_allclose(1 / (1 + np.exp(-bias)), make_rows().mean(axis=0), rtol=1e-5)


# ---------------------------------------------------------------- modules of the user


class Half(nn.Module):
    """A network of the user with a buffer that training changes."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.norm = nn.BatchNorm1d(n_inputs)
        self.map = nn.Linear(n_inputs, n_outputs)

    def forward(self, x):
        return self.map(self.norm(x))


class Wide(nn.Module):
    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.map = nn.Linear(n_inputs, n_outputs + 1)

    def forward(self, x):
        return self.map(x)


def user_model(**settings):
    base = {"max_epochs": 20, "learning_rate": 0.02, "batch_size": 30, "random_state": 0}
    return Autoencoder(2, encoder=Half, decoder=nn.Linear, **{**base, **settings})


def test_classes_of_the_user_are_trained():
    state = torch.get_rng_state()
    X = make_rows()
    model = user_model().fit(X)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.score(X) > user_model(max_epochs=1, learning_rate=1e-9).fit(X).score(X)
    assert "encoder.norm.running_mean" in model.weights_
    # Rows answer for themselves: batch statistics are those of training.
    np.testing.assert_allclose(model.transform(X[:1]), model.transform(X)[:1], rtol=1e-10)
    assert freeze(fitted_state(user_model().fit(X))) == freeze(fitted_state(model))
    assert freeze(fitted_state(user_model(random_state=1).fit(X))) != freeze(fitted_state(model))


def test_going_on_leaves_earlier_arrays_alone():
    model = user_model().fit(make_rows())
    weights = model.weights_
    before = freeze(weights)
    model.partial_fit(make_rows(seed=1))
    assert freeze(weights) == before
    assert freeze(model.weights_) != before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": nn.Linear(6, 2)}, "pass its class instead"),
        ({"encoder": Wide}, r"encoder maps .* to shape \(2, 3\), but must return \(2, 2\)"),
        ({"decoder": Wide}, r"decoder maps .* to shape \(2, 7\), but must return \(2, 6\)"),
        ({"encoder": nn.ReLU}, "encoder maps|could not be called"),
        ({"decoder": nn.Conv2d}, "decoder"),
        ({"encoder": lambda a, b: 3}, r"encoder\(6, 2\) is a int"),
        ({"encoder": nn.Linear, "tied": True}, "tied=True shares"),
        ({"image_shape": (2, 2)}, r"image_shape=\(2, 2\) does not fit X with 6 features"),
        ({"image_shape": (6,)}, "image_shape"),
        ({"hidden_sizes": (8,) * 101}, "at most 100"),
    ],
)
def test_networks_that_cannot_be_are_refused(settings, message):
    model = Autoencoder(2, **settings)
    with pytest.raises(ValueError, match=message):
        model.fit(make_rows())
    assert not fitted_state(model)


def test_files_do_not_hold_classes(tmp_path):
    with pytest.raises(TypeError, match=r"decoder is a|encoder is a"):
        sklebm.save(user_model().fit(make_rows()), tmp_path / "model.safetensors")


# ---------------------------------------------------------------- state and messages


def test_parameters_changed_after_fit_are_refused_by_save_not_by_scores(tmp_path):
    model = Autoencoder(2, hidden_sizes=(8,), max_epochs=2, random_state=0).fit(make_rows())
    expected = model.score_samples(make_rows())
    model.set_params(hidden_sizes=(9,), activation="tanh", tied=True)
    np.testing.assert_array_equal(model.score_samples(make_rows()), expected)
    with pytest.raises(ValueError, match=r"activation, hidden_sizes.* fit again"):
        sklebm.save(model, tmp_path / "model.safetensors")


def test_weights_of_another_shape_are_refused(tmp_path):
    model = Autoencoder(2, hidden_sizes=(8,), max_epochs=2, random_state=0).fit(make_rows())
    model.weights_ = {**model.weights_, "encoder.0.weight": np.zeros((8, 5), np.float32)}
    with pytest.raises(ValueError, match=r"weights_\['encoder.0.weight'\] is \(8, 5\)"):
        sklebm.save(model, tmp_path / "model.safetensors")


def test_warm_start_names_what_differs():
    model = Autoencoder(2, hidden_sizes=(8,), max_epochs=2, warm_start=True).fit(make_rows())
    model.set_params(activation="tanh")
    with pytest.raises(ValueError, match="activation='tanh' differs from the fitted 'relu'"):
        model.fit(make_rows())
    with pytest.raises(ValueError, match="activation='tanh' differs"):
        model.partial_fit(make_rows())


def test_dead_and_collapsed_codes_are_named():
    X = make_rows()
    with pytest.warns(UserWarning, match="has collapsed: none of its 2 latents"):
        Autoencoder(2, max_epochs=2, random_state=0).fit(np.ones_like(X))

    class HalfDead(nn.Linear):
        def forward(self, x):
            return super().forward(x) * torch.tensor([1.0, 0.0], dtype=x.dtype)

    with pytest.warns(UserWarning, match="1 of 2 latents of Autoencoder are dead"):
        model = Autoencoder(2, encoder=HalfDead, max_epochs=2, random_state=0).fit(X)
    assert model.latent_variances_[1] == 0.0 < model.latent_variances_[0]


def test_energy_is_lowest_near_the_code_of_the_row():
    X = make_rows()
    model = Autoencoder(2, max_epochs=100, learning_rate=0.01, random_state=0).fit(X)
    Z = model.transform(X)
    np.testing.assert_allclose(model.energy(X, Z), model.free_energy(X), rtol=1e-10)
    other = np.random.default_rng(0).permutation(Z)
    assert model.energy(X, other).mean() > 10 * model.free_energy(X).mean()
    with pytest.raises(ValueError, match="X has 120 rows and Z has 3"):
        model.energy(X, Z[:3])


def test_the_encoder_starts_with_the_mean_row_as_its_zero():
    """So that rows far from the origin do not saturate the first layer."""
    X = np.random.default_rng(0).random((50, 24))
    start = {"max_epochs": 1, "learning_rate": 1e-12, "random_state": 0}
    near = Autoencoder(2, **start).fit(X)
    far = Autoencoder(2, **start).fit(X + 1000.0)
    np.testing.assert_allclose(far.transform(X + 1000.0), near.transform(X), atol=1e-2)
    channels = X.reshape(50, 2, 12).mean(axis=(0, 2))
    convolution = Autoencoder(2, image_shape=(2, 3, 4), hidden_sizes=(3,), **start).fit(X)
    weight, bias = (convolution.weights_[f"encoder.1.{name}"] for name in ("weight", "bias"))
    zero = weight.sum(axis=(2, 3)) @ (channels - X.reshape(50, 2, 12).mean(axis=(0, 2)))
    np.testing.assert_allclose(zero + bias, 0.0, atol=1e-6)
    bits = Autoencoder(2, output_activation="sigmoid", **start).fit(X)  # rows as they are
    weight, bias = (bits.weights_[f"encoder.0.{name}"] for name in ("weight", "bias"))
    np.testing.assert_allclose(weight @ X.mean(axis=0) + bias, 0.0, atol=1e-6)


# ---------------------------------------------------------------- given weights


def test_a_model_of_given_weights_is_that_model(tmp_path):
    """Two features, one latent, by hand: z = x_1 + x_2 - 1, g(z) = (z, 2 z) + (3, 4)."""
    weights = {
        "encoder.0.weight": np.array([[1.0, 1.0]]),
        "encoder.0.bias": np.array([-1.0]),
        "decoder.0.weight": np.array([[1.0], [2.0]]),
        "decoder.0.bias": np.array([3.0, 4.0]),
    }
    model = Autoencoder.from_parameters(n_components=1, hidden_sizes=(), weights=weights)
    X = np.array([[0.0, 0.0], [2.0, 1.0]])
    np.testing.assert_allclose(model.transform(X), [[-1.0], [2.0]])
    np.testing.assert_allclose(model.reconstruct(X), [[2.0, 2.0], [5.0, 8.0]])
    np.testing.assert_allclose(model.free_energy(X), [8.0, 58.0])
    sklebm.save(model, tmp_path / "model.safetensors")
    loaded = sklebm.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.free_energy(X), model.free_energy(X))
    offset, scale = np.array([1.0, -1.0]), np.array([2.0, 2.0])
    scaled = Autoencoder.from_parameters(
        n_components=1, hidden_sizes=(), weights=weights, offset=offset, scale=scale
    )
    np.testing.assert_allclose(
        scaled.reconstruct(2 * X + offset), 2 * model.reconstruct(X) + offset
    )
    np.testing.assert_allclose(scaled.free_energy(2 * X + offset), 4 * model.free_energy(X))
    scaled.partial_fit(X)
    assert scaled.n_iter_ == 1


def test_a_fitted_model_is_made_again_from_its_weights():
    X = make_rows()
    model = Autoencoder(2, hidden_sizes=(5,), activation="tanh", max_epochs=2).fit(X)
    state = {"weights": model.weights_, "offset": model.offset_, "scale": model.scale_}
    again = Autoencoder.from_parameters(
        n_components=2, hidden_sizes=(5,), activation="tanh", **state
    )
    np.testing.assert_array_equal(again.score_samples(X), model.score_samples(X))
    for change, error, message in (
        ({"hidden_sizes": (6,)}, ValueError, "architecture requires an array"),
        ({"weights": None}, TypeError, "needs weights"),
        ({"colour": 1}, TypeError, "no fitted attribute called colour"),
        ({"scale": np.ones(5)}, ValueError, "scale_ has shape"),
    ):
        given = {"n_components": 2, "hidden_sizes": (5,), "activation": "tanh", **state, **change}
        with pytest.raises(error, match=message):
            Autoencoder.from_parameters(**given)
