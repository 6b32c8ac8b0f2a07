"""Kernels with encoders: joint inference against the dictionary of all shifts, what is learnt."""

import warnings

import numpy as np
import pytest
import sklearn
import torch

import sklebm
from sklebm import ConvPredictiveSparseDecomposition, ConvSparseCoder
from sklebm.coding._map_encoders import decomposition_of
from sklebm.energies import L1, PredictiveSparseCodingEnergy
from sklebm.energies.convolution import ConvolutionGrid
from sklebm.energies.predictive_convolution import PredictiveConvolutionalEnergy
from sklebm.inference import predicted_maps
from sklebm.inference.predicted_maps import solve_maps_near
from sklebm.inference.sparse import solve_near
from sklebm.inference.unfolded import Unfolding
from sklebm.inference.unfolded_maps import ConvolutionalListaEncoder, ConvolutionalTanhEncoder
from sklebm.objectives import Batch, ConvolutionalDecomposition, PredictiveDecomposition
from tests.coding.test_conv_sparse_coder import (
    GRIDS,
    make_planted,
    naive_synthesis,
    random_atoms,
    random_images,
    similarity,
)
from tests.registry import freeze, make

UNTRAINED = {"learning_rate": 1e-12, "max_epochs": 1}
PLANTED = {"kernel_size": 4, "image_shape": (12, 12), "alpha": 0.15, "random_state": 0}


def random_codes(grid, n=3, k=5, seed=2):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, k * grid.map_length)))


# ---------------------------------------------------------------- inference


@pytest.mark.parametrize("weight", [0.3, 5.0])
@pytest.mark.parametrize("grid", GRIDS)
def test_maps_near_a_prediction_are_those_of_the_dictionary_of_all_shifts(
    grid, weight, monkeypatch
):
    """Coordinate descent on the dense dictionary, certified to rounding."""
    atoms, x, near = random_atoms(grid), random_images(grid), random_codes(grid)
    truth = solve_near(x, grid.toeplitz(atoms), near, weight, L1(), 0.5, tol=1e-15).codes
    monkeypatch.setattr(predicted_maps, "_DENSE", 0)
    found = solve_maps_near(x, atoms, near, weight, L1(), 0.5, grid, tol=1e-15)
    assert bool(found.converged.all())
    # The energy grows by weight/2 |dz|^2: a gap of rounding, 1e-14 of an energy of some hundred,
    # leaves codes within 1e-6 / sqrt(weight).
    np.testing.assert_allclose(found.codes, truth, atol=3e-6)


def test_a_weak_tie_leaves_the_optimal_code_and_a_strong_one_the_prediction():
    grid = GRIDS[0]
    atoms, x, near = random_atoms(grid), random_images(grid), random_codes(grid)
    strong = solve_maps_near(x, atoms, near, 1e9, L1(), 0.5, grid, tol=1e-12).codes
    np.testing.assert_allclose(strong, near, atol=1e-6)
    coder = ConvSparseCoder.from_parameters(
        components=atoms.numpy(), kernel_size=(4, 3), image_shape=(12, 12), alpha=0.5
    )
    weak = solve_maps_near(x, atoms, near, 1e-7, L1(), 0.5, grid, tol=1e-9).codes
    energy = coder.energy(x.numpy(), weak.numpy())
    np.testing.assert_allclose(energy, coder.free_energy(x.numpy()), rtol=1e-5)


@pytest.mark.parametrize("grid", GRIDS)
def test_an_untrained_encoder_takes_steps_of_ista(grid):
    atoms, x, n_layers = random_atoms(grid), random_images(grid), 3
    encoder = ConvolutionalListaEncoder.start(atoms, 0.4, n_layers, grid)
    matrix = grid.toeplitz(atoms).numpy()
    step = 1 / grid.largest_eigenvalue(grid.transfer(atoms))
    z = np.zeros((len(x), len(matrix)))
    for _ in range(n_layers + 1):
        v = z + step * (x.numpy() - z @ matrix) @ matrix.T
        z = np.sign(v) * np.maximum(np.abs(v) - step * 0.4, 0.0)
    np.testing.assert_allclose(encoder(x).detach(), z, atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS[:3])
def test_the_layers_are_correlations_and_sums_of_kernels(grid):
    """Every kernel of every layer by itself, against plain loops over pixels."""
    generator = np.random.default_rng(0)
    k, n_layers, tall, wide = 3, 2, grid.kernel_height, grid.kernel_width
    weights, feedback = (
        torch.from_numpy(generator.standard_normal((n, k, grid.kernel_length)))
        for n in (n_layers + 1, n_layers)
    )
    steps, thresholds = (generator.uniform(0.1, 0.5, (n_layers + 1, k)) for _ in range(2))
    logs = (torch.from_numpy(v).log() / grid.kernel_length**0.5 for v in (steps, thresholds))
    encoder = ConvolutionalListaEncoder(weights, feedback, *logs, grid)
    x = random_images(grid, 1)
    image, z = grid.images(x).numpy()[0], np.zeros((k, *grid.map_shape))
    for t in range(n_layers + 1):
        residual = image
        if t:
            kernels = grid.kernels(feedback[t - 1]).numpy()
            residual = image - naive_synthesis(z, kernels, grid.height, grid.width)
        wrapped = np.pad(residual, ((0, 0), (0, tall), (0, wide)), mode="wrap")
        for unit, kernel in enumerate(grid.kernels(weights[t]).numpy()):
            for i, j in np.ndindex(*grid.map_shape):
                product = (wrapped[:, i : i + tall, j : j + wide] * kernel).sum()
                v = z[unit, i, j] + steps[t, unit] * product
                limit = steps[t, unit] * thresholds[t, unit]
                z[unit, i, j] = np.sign(v) * max(abs(v) - limit, 0.0)
    np.testing.assert_allclose(encoder(x).detach()[0], z.ravel(), atol=1e-10)


def test_the_saturated_encoder():
    grid, generator = GRIDS[1], np.random.default_rng(0)
    weights = torch.from_numpy(generator.standard_normal((2, grid.kernel_length)))
    bias, gains = torch.tensor([0.1, -0.3]).double(), torch.tensor([2.0, 0.5]).double()
    x = random_images(grid, 2)
    encoder = ConvolutionalTanhEncoder(weights, bias, gains, torch.tensor(3.0).double(), grid)
    products = (x @ grid.toeplitz(weights).T).reshape(2, 2, -1)
    truth = 3 * gains[:, None] * torch.tanh(products / 3 + bias[:, None])
    np.testing.assert_allclose(encoder(x).detach(), truth.flatten(1), atol=1e-12)


def test_the_saturated_encoder_starts_alike_however_many_images_it_sees_at_once():
    grid = GRIDS[1]
    atoms, x = torch.eye(2, grid.kernel_length).double(), random_images(grid, 5)
    whole = ConvolutionalTanhEncoder.start(atoms, [x], grid)
    parts = ConvolutionalTanhEncoder.start(atoms, x.split(2), grid)
    # Transforms of other numbers of images may round in another order.
    assert float(parts.scale) == pytest.approx(float(whole.scale), rel=1e-14)
    assert float(whole.scale) == pytest.approx(float((x @ grid.toeplitz(atoms).T).abs().max()))


# ---------------------------------------------------------------- learning


def test_the_gradient_is_that_of_the_least_energy():
    """Codes are held (Danskin): compare with differences of the minimum itself."""
    grid = ConvolutionGrid(5, 6, 1, 3, 2, circular=False)
    atoms, x = 0.7 * random_atoms(grid, 3), random_images(grid)
    encoder = ConvolutionalListaEncoder.start(atoms, 0.3, 1, grid)
    energy = PredictiveConvolutionalEnergy(encoder, atoms, L1(), 0.3, 0.5, grid, 2.0)
    objective = ConvolutionalDecomposition(tol=1e-15)

    def loss():
        return objective.loss(energy, Batch(x), {}, torch.Generator())[0]

    loss().backward()
    generator = np.random.default_rng(0)
    for name, parameter in energy.named_parameters():
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        assert gradient.any(), name
        for place in generator.choice(len(flat), 3):
            values = []
            for change in (1e-6, -2e-6):
                flat[place] += change
                values.append(float(loss().detach()))
            flat[place] += 1e-6
            slope = (values[0] - values[1]) / 2e-6
            assert slope == pytest.approx(float(gradient[place]), rel=1e-3, abs=1e-6), name


@pytest.mark.parametrize("weighted", [False, True])
def test_a_divided_batch_has_the_loss_and_the_gradients_of_the_whole(weighted):
    grid = ConvolutionGrid(5, 6, 1, 3, 2, circular=False)
    atoms, x = 0.7 * random_atoms(grid, 3), random_images(grid, 7)
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0, 0.0, 3.0]).double() if weighted else None
    found = []
    for at_once in (None, 2):
        encoder = ConvolutionalListaEncoder.start(atoms, 0.3, 1, grid)
        energy = PredictiveConvolutionalEnergy(encoder, atoms, L1(), 0.3, 0.5, grid, 2.0)
        objective = ConvolutionalDecomposition(tol=1e-15, images_at_once=at_once)
        loss, _ = objective.loss(energy, Batch(x, weight=weight), {}, torch.Generator())
        (3.0 * loss).backward()  # what is done with the loss reaches the gradients
        with torch.no_grad():
            judged, _ = objective.loss(energy, Batch(x, weight=weight), {}, torch.Generator())
        assert float(judged) == float(loss.detach())
        found.append([judged, *(p.grad for p in energy.parameters())])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-9)


def test_working_memory_divides_batches_and_nothing_else():
    X, _ = make_planted(24)
    settings = {**PLANTED, "batch_size": 12, "max_epochs": 2}
    whole = ConvPredictiveSparseDecomposition(4, **settings).fit(X)
    with sklearn.config_context(working_memory=0.2), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 1 <= decomposition_of(whole._energy(torch.device("cpu"))).images_at_once < 12
        parts = ConvPredictiveSparseDecomposition(4, **settings).fit(X)
    # Training runs in single precision.
    np.testing.assert_allclose(parts.components_, whole.components_, atol=1e-6)
    np.testing.assert_allclose(parts.loss_curve_, whole.loss_curve_, rtol=1e-6)


def test_kernels_as_large_as_the_image_are_atoms():
    """One place for each kernel: the loss of the dense model, with the same encoder."""
    grid = ConvolutionGrid(3, 4, 1, 3, 4, circular=False)
    atoms, x = random_atoms(grid), random_images(grid, 20)
    losses = []
    step = 1 / grid.largest_eigenvalue(grid.transfer(atoms))
    dense = Unfolding("lista", 2).assemble(
        atoms,
        step * atoms,
        torch.full((5,), step * 0.2, dtype=torch.float64),
        torch.eye(5, dtype=torch.float64) - step * atoms @ atoms.T,
    )
    maps = ConvolutionalListaEncoder.start(atoms, 0.2, 2, grid)
    for energy, kind in (
        (PredictiveSparseCodingEnergy(dense, atoms, L1(), 0.2, 0.5), PredictiveDecomposition),
        (
            PredictiveConvolutionalEnergy(maps, atoms, L1(), 0.2, 0.5, grid, 0.0),
            ConvolutionalDecomposition,
        ),
    ):
        value, _ = kind(tol=1e-14).loss(energy, Batch(x), {}, torch.Generator())
        losses.append((value.item(), energy.free_energy(x).sum().item()))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-12)


@pytest.mark.table(1)
@pytest.mark.parametrize("first_seed", [0, 3])
def test_planted_kernels_are_found_and_predicted_on_new_images(first_seed):
    """The encoder explains most of the optimal codes, which it never sees; layers help.

    Kernels that are drawn as patches may end with two that share a planted one: of three starts,
    the training images choose.
    """
    X, truth = make_planted(60)
    held_out = make_planted(40, seed=1)[0]
    settings = {**PLANTED, "learning_rate": 0.02, "batch_size": 6, "max_epochs": 10}
    seeds = range(first_seed, first_seed + 3)
    models = [
        ConvPredictiveSparseDecomposition(4, **{**settings, "random_state": seed}).fit(X)
        for seed in seeds
    ]
    model = max(models, key=lambda model: model.score(X))
    assert (similarity(model.components_, truth, 4) > 0.95).all()
    settings["random_state"] = model.random_state
    shallow = ConvPredictiveSparseDecomposition(4, encoder="shrink", **settings).fit(X)
    start = ConvPredictiveSparseDecomposition(4, **{**settings, **UNTRAINED}).fit(X)
    assert model.score(held_out) > shallow.score(held_out) > start.score(held_out)
    optimal = ConvSparseCoder.from_parameters(
        components=model.components_, kernel_size=4, image_shape=(12, 12), alpha=0.15
    )
    codes = optimal.codes(held_out)
    missed = ((model.codes(held_out) - codes) ** 2).mean()
    # Four kernels for two planted ones hold shifts of each other, between which codes hardly
    # choose: a last digit of X in single precision moves this share between 0.15 and 0.25.
    assert missed < 0.3 * codes.var()
    # Whatever the kernels: three learnt layers come closer than ten steps of ISTA with them.
    grid, atoms = ConvolutionGrid(12, 12, 1, 4, 4), torch.from_numpy(model.components_).double()
    steps = ConvolutionalListaEncoder.start(atoms, 0.15, 10, grid)
    iterated = steps(torch.from_numpy(held_out)).detach().numpy()
    assert missed < ((iterated - codes) ** 2).mean()
    excess = model.free_energy(held_out).sum() / optimal.free_energy(held_out).sum() - 1
    assert 0 < excess < 0.1


@pytest.mark.parametrize("encoder", ["lista", "shrink", "linear_tanh"])
@pytest.mark.parametrize("boundary", ["circular", "zero"])
def test_every_kind_learns(encoder, boundary):
    X, held_out = make_planted(40)[0], make_planted(30, seed=1)[0]
    options = {**PLANTED, "encoder": encoder, "boundary": boundary, "low_pass": 1.0}
    epochs = 10 if encoder == "linear_tanh" else 4  # products without a threshold come first
    model = ConvPredictiveSparseDecomposition(3, max_epochs=epochs, learning_rate=0.02, **options)
    start = ConvPredictiveSparseDecomposition(3, **{**options, **UNTRAINED}).fit(X)
    assert model.fit(X).score(held_out) > start.score(held_out)
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    assert np.linalg.norm(model.components_, axis=1).max() <= 1 + 1e-6


@pytest.mark.parametrize("encoder", ["lista", "linear_tanh"])
def test_the_unit_of_the_images_does_not_matter(encoder):
    """alpha is in this unit; a power of two leaves the rounding of single precision as it is.

    What changes is Adam's 1e-8 beside gradients of 1e-2 and more, and logarithms in the seventh
    digit, over 12 steps of 0.02.
    """
    X = make_planted(40)[0]
    options = {**PLANTED, "encoder": encoder, "max_epochs": 4, "learning_rate": 0.02}
    one = ConvPredictiveSparseDecomposition(3, **options).fit(X)
    large = ConvPredictiveSparseDecomposition(3, **{**options, "alpha": 64 * 0.15}).fit(64 * X)
    np.testing.assert_allclose(large.components_, one.components_, atol=1e-4)
    np.testing.assert_allclose(large.score(64 * X), 64**2 * one.score(X), rtol=1e-3)
    options |= {"alpha": 0.15 / 1024, "net_params": {"optimizer__eps": 1e-14}}
    small = ConvPredictiveSparseDecomposition(3, **options).fit(X / 1024)
    np.testing.assert_allclose(small.components_, one.components_, atol=1e-4)


# ---------------------------------------------------------------- methods


def test_energies_count_the_distance_to_the_prediction():
    X = make_planted(12)[0]
    model = ConvPredictiveSparseDecomposition(
        3, prediction_weight=3.0, max_epochs=1, low_pass=1.0, pool=None, **PLANTED
    ).fit(X)
    Z = model.codes(X)
    np.testing.assert_allclose(model.energy(X, Z), model.free_energy(X), rtol=1e-6)
    np.testing.assert_array_equal(model.transform(X), Z)
    other = Z + np.random.default_rng(0).normal(size=Z.shape)
    plain = ConvSparseCoder.from_parameters(
        components=model.components_.astype(float), low_pass=1.0, **PLANTED,
    )  # fmt: skip
    model.set_params(prediction_weight=50.0)  # the fitted weight counts
    np.testing.assert_allclose(
        model.energy(X, other),
        plain.energy(X, other) + 1.5 * ((other - Z) ** 2).sum(axis=1),
        rtol=1e-5,
    )
    smooth = model.reconstruct(X) - model.inverse_transform(Z)
    np.testing.assert_allclose(smooth.sum(axis=1), X.sum(axis=1), rtol=1e-5)


def test_a_constant_is_left_to_the_smooth_part():
    X = make_planted(12)[0]
    options = {**PLANTED, "low_pass": 5.0, "max_epochs": 1}
    model = ConvPredictiveSparseDecomposition(3, **options).fit(X)
    np.testing.assert_allclose(model.free_energy(X + 7.0), model.free_energy(X), rtol=1e-9)
    moved = ConvPredictiveSparseDecomposition(3, **options).fit(X + 8.0)
    # The offset costs three of the seven digits of single precision in training.
    np.testing.assert_allclose(moved.components_, model.components_, atol=1e-3)


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_pools_are_blocks_of_magnitudes(pool):
    X = make_planted(5)[0]
    model = ConvPredictiveSparseDecomposition(
        2, pool=pool, pool_size=6, max_epochs=1, **PLANTED
    ).fit(X)
    maps = np.abs(model.codes(X)).reshape(5, 2, 2, 6, 2, 6)
    truth = (np.max if pool == "max" else np.mean)(maps, axis=(3, 5)).reshape(5, -1)
    np.testing.assert_allclose(model.transform(X), truth, atol=1e-12)
    assert not hasattr(model, "inverse_transform")


def test_colours_share_their_maps(tmp_path):
    X = np.random.default_rng(0).standard_normal((12, 6 * 7 * 3))
    model = ConvPredictiveSparseDecomposition(
        4, kernel_size=(3, 2), image_shape=(6, 7, 3), alpha=0.3, max_epochs=2, random_state=0
    ).fit(X)
    assert model.components_.shape == (4, 18)
    assert model.codes(X).shape == (12, 4 * 42)
    sklebm.save(model, tmp_path / "model.safetensors")
    loaded = sklebm.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.transform(X), model.transform(X))
    given = ConvPredictiveSparseDecomposition.from_parameters(
        components=model.components_, weights=model.weights_, kernel_size=(3, 2),
        image_shape=(6, 7, 3), alpha=0.3,
    )  # fmt: skip
    np.testing.assert_array_equal(given.transform(X), model.transform(X))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "shrink"}, "encoder=.* differs from the fitted"),
        ({"alpha": 0.3}, "alpha=.* differs from the fitted"),
        ({"low_pass": 2.0}, "low_pass=.* differs from the fitted"),
        ({"kernel_size": 2}, "kernel_width of the parameters differ"),
    ],
)
def test_training_goes_on_with_the_same_model_only(change, message):
    X = np.random.default_rng(0).standard_normal((40, 6))
    model = make("ConvPredictiveSparseDecomposition", warm_start=True, max_epochs=2).fit(X)
    model.set_params(**change)
    before = freeze(vars(model))
    for method in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=message):
            getattr(model, method)(X)
        assert freeze(vars(model)) == before
