"""Layers through switches: pooling, adjoints, dense solutions, surrogates, what is learnt."""

import itertools
import re
import warnings

import numpy as np
import pytest
import sklearn
import torch
from sklearn.exceptions import ConvergenceWarning, NotFittedError

import sklebm
from sklebm import ConvSparseCoder, DeconvolutionalNetwork, DeepSparseCoder, SparseCoder
from sklebm._shell.rows import Rows
from sklebm.coding import _deconvolution, _kernels
from sklebm.coding._deconvolution import first_network, network_search
from sklebm.energies import L1, NonNegativeL1
from sklebm.energies.convolution import ConvolutionGrid
from sklebm.energies.deconvolution import DeconvolutionalEnergy, SwitchPooling
from sklebm.inference import convolutional, deconvolution
from sklebm.inference.convolutional import solve_maps
from sklebm.inference.deconvolution import solve_switched, surrogate_maps
from tests.coding.test_conv_sparse_coder import make_planted, naive_synthesis, random_atoms
from tests.registry import freeze

SHAPE = {"image_shape": (12, 12), "random_state": 0}


def make_network(*, adaptive=True, circular=True, penalty=None, n_layers=3):
    """Layers of random kernels on images of 9 x 10 in two colours; blocks do not fit evenly."""
    pooling = SwitchPooling(2, 2, 2)
    sizes, sides = (5, 4, 3)[:n_layers], ((3, 4), (2, 2), (2, 1))
    shape, grids = (2, 9, 10), []
    for size, (tall, wide) in zip(sizes, sides, strict=False):
        grids.append(ConvolutionGrid(shape[1], shape[2], shape[0], tall, wide, circular, not grids))
        shape = (size, *grids[-1].map_shape)
        shape = pooling.shape(shape) if adaptive else shape
    atoms = [
        random_atoms(grid, size, seed)
        for seed, (grid, size) in enumerate(zip(grids, sizes, strict=True))
    ]
    alphas = (0.4, 0.2, 0.1)[:n_layers]
    return DeconvolutionalEnergy(atoms, grids, penalty or L1(), alphas, pooling, adaptive)


def climb(network, x, top=None):
    model = DeconvolutionalNetwork(code_tol=1e-12)
    return list(network_search(model).climb(network, x, top or network.n_layers))


def images(n=3, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, 180)))


# ---------------------------------------------------------------- switches


@pytest.mark.parametrize("block", [(1, 2, 2), (2, 2, 3), (3, 1, 4), (7, 9, 9)])
def test_pooling_takes_the_largest_and_unpooling_puts_it_back(block):
    """Against plain loops over blocks, of which the last ones are smaller."""
    maps = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 5, 6, 7)))
    pooling = SwitchPooling(*block)
    pooled, switches = pooling.pool(maps)
    back = pooling.unpool(pooled, switches, maps.shape[1:])
    kept = torch.zeros_like(maps, dtype=torch.bool)
    for n in range(2):
        for place in np.ndindex(*pooling.shape(maps.shape[1:])):
            part = (n, *(slice(i * s, (i + 1) * s) for i, s in zip(place, block, strict=True)))
            values = maps[part].flatten()
            assert pooled[(n, *place)] == values[values.abs().argmax()]
            kept[part] = maps[part] == pooled[(n, *place)]
    torch.testing.assert_close(back, torch.where(kept, maps, 0.0), rtol=0, atol=0)
    torch.testing.assert_close(pooling.take(back, switches), pooled, rtol=0, atol=0)
    other = torch.from_numpy(np.random.default_rng(1).standard_normal(tuple(pooled.shape)))
    left = (pooling.unpool(other, switches, maps.shape[1:]) * maps).sum()
    assert float(left) == pytest.approx(float((other * pooled).sum()), rel=1e-12)


@pytest.mark.parametrize("circular", [True, False])
@pytest.mark.parametrize("adaptive", [True, False])
def test_the_reconstruction_is_linear_given_the_switches_and_has_its_adjoint(adaptive, circular):
    network = make_network(adaptive=adaptive, circular=circular)
    x, generator = images(), np.random.default_rng(2)
    *_, (_, z, switches) = climb(network, x)
    transfers = network.transfers(3)
    u, v = (torch.from_numpy(generator.standard_normal(tuple(z.shape))) for _ in range(2))

    def decode(code):
        return network.synthesise(code, switches, transfers)

    np.testing.assert_allclose(decode(2 * u - 3 * v), 2 * decode(u) - 3 * decode(v), atol=1e-11)
    left = (decode(u) * x).sum(dim=1)
    right = (u * network.analyse(x, switches, transfers)).sum(dim=1)
    scale = decode(u).norm(dim=1) * x.norm(dim=1) + 1.0
    assert float(((left - right).abs() / scale).max()) <= 1e-10
    if adaptive:  # nothing is longer than the bound of the curvature allows
        lengths = decode(u).norm(dim=1) / u.norm(dim=1)
        assert float(lengths.max()) ** 2 <= network.curvature(3)


def test_layers_below_pass_on_what_they_decode():
    """R_2 by hand: the kernels of the layer above, the switches one by one, those below."""
    network = make_network(n_layers=2)
    x = images(1)
    (_, below, _), (_, z, switches) = climb(network, x)
    grids, (first, second) = network.grids, network.dictionaries
    pooled = grids[1].synthesise(z, grids[1].transfer(second))[0].numpy()
    maps, places = np.zeros(network.map_shape(1)), switches[0][0].numpy()
    values = below[0].reshape(network.map_shape(1)).numpy()
    depth, tall, wide = places.shape
    for number, (d, i, j) in zip(pooled, np.ndindex(depth, tall, wide), strict=True):
        block = list(itertools.product(*((2 * p, 2 * p + 1) for p in (d, i, j))))
        inside = [p for p in block if all(a < b for a, b in zip(p, maps.shape, strict=True))]
        largest = max(inside, key=lambda p: abs(values[p]))
        assert abs(values[largest]) == abs(values[block[places[d, i, j]]])
        maps[block[places[d, i, j]]] = number
    truth = grids[0].synthesise(torch.from_numpy(maps.reshape(1, -1)), grids[0].transfer(first))
    np.testing.assert_allclose(
        network.synthesise(z, switches, network.transfers(2)), truth, atol=1e-12
    )


# ---------------------------------------------------------------- inference


@pytest.mark.parametrize("penalty", [L1(), NonNegativeL1()], ids=lambda p: type(p).__name__)
def test_codes_are_those_of_the_matrix_of_each_image(penalty, monkeypatch):
    """Iterated, and by the compiled solver for small images, against a dense coder."""
    network, x = make_network(penalty=penalty), images()
    *_, (_, z, switches) = climb(network, x)
    monkeypatch.setattr(deconvolution, "_DENSE", 0)
    iterated = solve_switched(network, x, switches, 3, tol=1e-7)
    assert bool(iterated.converged.all())
    for row in range(len(x)):
        own = tuple(part[row].expand(z.shape[1], *part.shape[1:]) for part in switches)
        unit = torch.eye(z.shape[1], dtype=torch.float64)
        matrix = network.synthesise(unit, own, network.transfers(3))
        dense = SparseCoder(
            dictionary=matrix[matrix.any(dim=1)].numpy(), alpha=0.1, code_tol=1e-14,
            penalty="l1" if isinstance(penalty, L1) else "nonnegative",
        ).fit(x.numpy())  # fmt: skip
        truth = dense.free_energy(x[row : row + 1].numpy())[0]
        for code, gap in ((z, 1e-10), (iterated.codes, 1e-7)):
            value = network.layer_energy(x, code, 3, switches)[row]
            assert float(value) == pytest.approx(truth, rel=gap)


def test_a_step_of_the_search_never_raises_the_energy(monkeypatch):
    """Also with steps that begin too long: power iteration falls short of the curvature."""
    monkeypatch.setattr(deconvolution, "_DENSE", 0)
    monkeypatch.setattr(deconvolution, "_MARGIN", 0.3)
    network, x = make_network(), images(6)
    *_, (_, _, switches) = climb(network, x)
    before = 0.5 * x.square().sum(dim=1)
    for n_steps in (1, 2, 3, 4, 5, 8, 13, 20):
        z = solve_switched(network, x, switches, 3, tol=0.0, max_iter=n_steps).codes
        value = network.layer_energy(x, z, 3, switches)
        assert bool((value <= before * (1 + 1e-12)).all())
        before = value
    exact = solve_switched(network, x, switches, 3, tol=1e-3).codes
    # It gets there all the same.
    assert bool((before <= 1.1 * network.layer_energy(x, exact, 3, switches)).all())


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("layer", [2, 3])
def test_the_surrogate_bounds_the_energy_and_touches_it(layer):
    """Over random kernels of the layer, with codes and switches held."""
    network, x = make_network(), images()
    _, z, switches = climb(network, x)[layer - 1]
    maps, decoded, weights = surrogate_maps(network, x, z, switches, layer)
    curvature, grid = weights[:, 0], network.grids[layer - 1]
    assert float(curvature.max()) <= network.curvature(layer - 1)

    def energies(atoms):
        moved = [*network.dictionaries]
        moved[layer - 1] = atoms
        other = DeconvolutionalEnergy(
            moved, network.grids, L1(), network.alphas, network.pooling, True
        )
        error = x - other.synthesise(z, switches, other.transfers(layer))
        near = maps - grid.synthesise(z, grid.transfer(atoms))
        return 0.5 * error.square().sum(1), 0.5 * curvature * near.square().sum(1)

    own = network.dictionaries[layer - 1]
    true, bound = energies(own)
    offset = true - bound
    np.testing.assert_allclose(decoded, grid.synthesise(z, grid.transfer(own)), atol=1e-12)
    for seed, size in itertools.product(range(3), (0.01, 1.0)):
        change = size * random_atoms(grid, len(own), seed + 10)
        true, bound = energies(own + change)
        assert bool((true <= bound + offset + 1e-9).all())
        slopes = [
            (a - b) / 2e-6
            for a, b in zip(
                energies(own + 1e-6 * change), energies(own - 1e-6 * change), strict=True
            )
        ]
        np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dense", [True, False])
def test_one_layer_is_a_convolutional_sparse_coder(dense, monkeypatch):
    """Also where one is solved by Fourier transforms, and the other by the dense dictionary."""
    X, _ = make_planted(30)
    whole = convolutional._DENSE
    # Passes start from codes of the last one there, which does not show if codes are final.
    monkeypatch.setattr(_kernels, "_LEARNING_GAP", 0.0)
    monkeypatch.setattr(_kernels, "_FIRST_GAP", 0.0)
    monkeypatch.setattr(_deconvolution, "_LEARNING_GAP", 0.0)
    options = {"alpha": 0.15, "max_iter": 4, "batch_size": 10, "code_tol": 1e-12, **SHAPE}
    coder = ConvSparseCoder(3, kernel_size=4, pool=None, **options).fit(X)
    coder.set_params(code_tol=1e-12)
    codes, energies, pictures = coder.codes(X), coder.free_energy(X), coder.reconstruct(X)
    monkeypatch.setattr(convolutional, "_DENSE", whole if dense else 0)
    # Codes of the same energy to 1e-12 differ by about its root.
    exactness = 0.0 if dense else 1e-5
    for adaptive in (True, False):
        model = DeconvolutionalNetwork((3,), (4,), adaptive=adaptive, **options).fit(X)
        # A gap of 1e-12 leaves codes, and with them kernels, within about its root.
        np.testing.assert_allclose(model.components_, coder.components_, atol=1e-5)
        same = DeconvolutionalNetwork.from_parameters(
            components=coder.components_, kernel_sizes=(4,), image_shape=(12, 12), alpha=0.15,
            code_tol=1e-12, adaptive=adaptive,
        )  # fmt: skip
        np.testing.assert_allclose(same.codes(X), codes, rtol=0, atol=exactness)
        np.testing.assert_allclose(same.free_energy(X), energies, rtol=2e-12)
        np.testing.assert_allclose(same.reconstruct(X), pictures, atol=max(exactness, 1e-12))


@pytest.mark.parametrize("adaptive", [True, False])
def test_every_layer_learns(adaptive):
    """New images have less energy than with the first kernels, and each layer shows them."""
    X, held_out = make_planted(30)[0], make_planted(15, seed=1)[0]
    options = {"alpha": (0.1, 0.02), "adaptive": adaptive, **SHAPE}
    model = DeconvolutionalNetwork((4, 4), (4, 3), batch_size=10, max_iter=4, **options).fit(X)
    start = DeconvolutionalNetwork((4, 4), (4, 3), batch_size=10**6, max_iter=1, **options).fit(X)
    assert model.score(held_out) > start.score(held_out)
    assert model.energy_curve_[-1] < model.energy_curve_[0]
    for layer in (1, 2):
        error = ((model.reconstruct(held_out, layer=layer) - held_out) ** 2).mean()
        assert error < 0.6 * held_out.var(), layer


def test_upper_kernels_move_where_lower_ones_are_held():
    """Only the second layer: the energy of the images falls although they stand behind switches."""
    X = torch.from_numpy(make_planted(30)[0])
    model = DeconvolutionalNetwork((4, 5), (4, 3), alpha=(0.1, 0.02), batch_size=10, **SHAPE)
    learner = first_network(model, X, torch.Generator().manual_seed(0))
    held = learner.learners[0].atoms.clone()
    energies = []
    for _ in range(6):
        network = learner.network(torch.float64)
        energies.append(float(learner.search.free_energies(network, X).mean()))
        learner.pass_over(X, torch.arange(30))
        learner.learners[0].atoms = held.clone()
    assert (np.diff(energies) < 0).all()
    assert energies[-1] < 0.98 * energies[0]


def test_sides_of_kernels_may_be_given_one_by_one_or_together():
    X, _ = make_planted(5)
    alike = [
        DeconvolutionalNetwork((3, 4), sizes, alpha=(0.1, 0.05), max_iter=1, **SHAPE).fit(X)
        for sizes in ((4, 3), ((4, 4), 3), ((4, 4), (3, 3)))
    ]
    for model in alike[1:]:
        np.testing.assert_array_equal(
            model.upper_components_["layer2"], alike[0].upper_components_["layer2"]
        )


def test_partial_fit_counts_images_across_calls():
    X, _ = make_planted(24)
    options = {"alpha": (0.1, 0.05), "batch_size": 8, **SHAPE}
    start = DeconvolutionalNetwork((3, 4), (4, 3), max_iter=1, **options).fit(X)
    results = []
    for size in (24, 5):
        model = DeconvolutionalNetwork.from_parameters(
            components=start.components_, upper_components=start.upper_components_,
            kernel_sizes=(4, 3), **{**options, "image_shape": (12, 12)},
        )  # fmt: skip
        for first in range(0, 24, size):
            model.partial_fit(X[first : first + size])
        results.append(model)
    whole, halves = results
    np.testing.assert_allclose(halves.components_, whole.components_, atol=1e-9)
    np.testing.assert_allclose(
        halves.upper_components_["layer2"], whole.upper_components_["layer2"], atol=1e-9
    )


# ---------------------------------------------------------------- methods


@pytest.fixture(scope="module")
def fitted():
    X, _ = make_planted(12)
    model = DeconvolutionalNetwork((3, 4), (4, 3), alpha=(0.1, 0.02), max_iter=2, **SHAPE)
    return model.fit(X), X


def test_energy_at_the_codes_is_the_free_energy(fitted):
    model, X = fitted
    Z = model.codes(X)
    np.testing.assert_allclose(model.energy(X, Z), model.free_energy(X), rtol=1e-9)
    zero = np.zeros_like(Z)
    np.testing.assert_allclose(model.energy(X, zero), 0.5 * (X**2).sum(axis=1), rtol=1e-12)
    error = ((X - model.reconstruct(X)) ** 2).sum(axis=1)
    price = 0.02 * np.abs(Z).sum(axis=1)
    np.testing.assert_allclose(model.free_energy(X), 0.5 * error + price, rtol=1e-9)


def test_the_certificate_bounds_what_a_limit_of_steps_leaves(fitted, monkeypatch):
    """Iterated codes against those of the matrix of each image; the default is within 1 %."""
    model, X = fitted
    exact = model.free_energy(X)
    assert (model.certificate(X) <= 1e-4).all()
    monkeypatch.setattr(deconvolution, "_DENSE", 0)
    cut = clone_with(model, max_inference_steps=5)
    message = r"codes of adaptive layers were accepted after max_inference_steps=5 steps"
    with pytest.warns(ConvergenceWarning, match=message):
        energies, gaps = cut.free_energy(X), cut.certificate(X)
    # The exact codes have gaps of their own, of at most 1e-4.
    assert (energies - exact >= -1e-4 * exact).all()
    assert (energies - exact <= gaps * energies).all()
    assert gaps.max() > 0.1
    usual = clone_with(model)
    np.testing.assert_allclose(usual.free_energy(X), exact, rtol=0.01)


def clone_with(model, **changes):
    return DeconvolutionalNetwork.from_parameters(
        components=model.components_, upper_components=model.upper_components_,
        kernel_sizes=(4, 3), alpha=(0.1, 0.02), image_shape=(12, 12), **changes,
    )  # fmt: skip


def test_plain_layers_share_one_certificate():
    """The gap of all layers as a share of their energy, against that of each by itself."""
    X, _ = make_planted(4)
    model = DeconvolutionalNetwork(
        (3, 4), (4, 3), alpha=(0.1, 0.02), max_iter=1, adaptive=False, code_tol=1e-2, **SHAPE
    ).fit(X)
    network, x = model._energy(torch.device("cpu")), torch.from_numpy(X)
    gap = total = 0.0
    for atoms, grid, alpha in zip(network.dictionaries, network.grids, network.alphas, strict=True):
        found = solve_maps(x, atoms, L1(), alpha, grid, tol=1e-2)
        error = x - grid.synthesise(found.codes, grid.transfer(atoms))
        value = 0.5 * error.square().sum(dim=1) + alpha * found.codes.abs().sum(dim=1)
        gap, total, x = gap + found.certificate * value, total + value, found.codes
    np.testing.assert_allclose(model.certificate(X), gap / total, rtol=1e-9)


def test_the_plain_energy_is_the_sum_of_the_layers():
    X, _ = make_planted(8)
    model = DeconvolutionalNetwork(
        (3, 4), (4, 3), alpha=(0.1, 0.02), max_iter=2, adaptive=False, **SHAPE
    ).fit(X)
    first = ConvSparseCoder.from_parameters(
        components=model.components_, kernel_size=4, image_shape=(12, 12), alpha=0.1,
        code_tol=1e-4,
    )  # fmt: skip
    grid = ConvolutionGrid(12, 12, 3, 3, 3, channels_last=False)
    below, Z = first.codes(X), model.codes(X)
    kernels = torch.from_numpy(model.upper_components_["layer2"])
    decoded = grid.synthesise(torch.from_numpy(Z), grid.transfer(kernels)).numpy()
    upper = 0.5 * ((below - decoded) ** 2).sum(axis=1) + 0.02 * np.abs(Z).sum(axis=1)
    np.testing.assert_allclose(model.free_energy(X), first.free_energy(X) + upper, rtol=1e-9)
    np.testing.assert_allclose(model.energy(X, Z), model.free_energy(X), rtol=1e-9)
    np.testing.assert_allclose(model.reconstruct(X), first.set_params(pool=None).inverse_transform(
        decoded), atol=1e-10)  # fmt: skip


@pytest.mark.parametrize("penalty", [L1(), NonNegativeL1()], ids=lambda p: type(p).__name__)
def test_the_search_in_plain_layers_never_raises_the_energy(penalty, monkeypatch):
    """Round by round from zero codes, in every layer given the code below."""
    monkeypatch.setattr(convolutional, "_DENSE", 0)
    network, x = make_network(adaptive=False, penalty=penalty, circular=False), images(6)
    for layer in (1, 2, 3):
        parts = network.dictionaries[layer - 1], penalty, network.alphas[layer - 1]
        before = 0.5 * x.square().sum(dim=1)
        for n_rounds in (0, 1, 2, 3, 5, 8, 13, 1000):
            z = solve_maps(x, *parts, network.grids[layer - 1], tol=0.0, max_iter=n_rounds).codes
            value = network.layer_energy(x, z, layer, ())
            assert bool((value <= before * (1 + 1e-12)).all())
            before = value
        x = z


def test_no_codes_of_plain_layers_have_less_energy():
    """Than those of the highest layer, given the others: not zero, shorter, or others nearby."""
    X, _ = make_planted(6)
    model = DeconvolutionalNetwork(
        (3, 4), (4, 3), alpha=(0.1, 0.02), max_iter=1, adaptive=False, code_tol=1e-8, **SHAPE
    ).fit(X)
    Z, rng = model.codes(X), np.random.default_rng(0)
    least = model.energy(X, Z) * (1 - 1e-8)  # the gap
    noise = rng.standard_normal(Z.shape) * (Z != 0)
    for other in (0 * Z, 0.9 * Z, Z + 1e-2 * noise, Z + 1e-2 * rng.standard_normal(Z.shape)):
        assert (model.energy(X, other) >= least).all()


@pytest.mark.parametrize(("model", "n_maps"), [
    (DeconvolutionalNetwork((24, 32), (3, 3), adaptive=False, alpha=(0.5, 0.1), code_tol=0.5), 32),
    (DeepSparseCoder((24, 32), (0.5, 0.1), kernel_sizes=(3, 3),
                     inference="layered_thresholding"), 24 + 32),
])  # fmt: skip
def test_spectra_of_kernels_leave_less_memory_for_images(model, n_maps, monkeypatch):
    """Chunks and the 24 x 32 spectra of 256 numbers of the second layer fit in what is allowed.

    Of a chunk, twelve times the maps that are searched at a time: of one layer, or of both.
    """
    rng, limit = np.random.default_rng(0), 3
    X = rng.standard_normal((40, 256))
    fitted = model.from_parameters(
        components=rng.standard_normal((24, 9)) / 3,
        upper_components=[rng.standard_normal((32, 24 * 9)) / 15],
        **(model.get_params() | {"image_shape": (16, 16)}),
    )
    sizes, original = [], Rows.__getitem__
    monkeypatch.setattr(
        Rows, "__getitem__", lambda rows, at: sizes.append(at) or original(rows, at)
    )
    with sklearn.config_context(working_memory=limit):
        fitted.transform(X)
    most = max(len(range(40)[part]) for part in sizes if isinstance(part, slice))
    assert 8 * (12 * n_maps * most + 24 * 32) * 256 <= limit * 2**20


def test_projections_show_the_strongest_entry_of_a_unit(fitted):
    model, X = fitted
    for unit in range(3):
        codes = ConvSparseCoder.from_parameters(
            components=model.components_, kernel_size=4, image_shape=(12, 12), alpha=0.1,
            code_tol=1e-4,
        ).codes(X).reshape(12, 3, 144)  # fmt: skip
        picture = model.project(X, unit=unit, layer=1).reshape(12, 12, 12)
        for row, image in enumerate(picture):
            place = np.abs(codes[row, unit]).argmax()
            truth = np.zeros((12, 12))
            truth[:4, :4] = codes[row, unit, place] * model.components_[unit].reshape(4, 4)
            truth = np.roll(truth, divmod(place, 12), axis=(0, 1))
            np.testing.assert_allclose(image, truth, atol=1e-12)
    # A unit alone is part of a sum: the units together make more of the image than each one.
    whole = ((X - model.reconstruct(X)) ** 2).sum()
    assert all(((X - model.project(X, unit=u)) ** 2).sum() > whole for u in range(4))


def test_a_projection_is_what_the_switches_make_of_one_entry():
    """Of two layers on 6 x 6 pixels, by hand: codes, blocks of 2 x 2 x 2, kernels one by one."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((4, 36))
    first, second = rng.standard_normal((2, 9)), rng.standard_normal((3, 4))
    first, second = (k / np.linalg.norm(k, axis=1, keepdims=True) for k in (first, second))
    shape = {"image_shape": (6, 6)}
    model = DeconvolutionalNetwork.from_parameters(
        components=first, upper_components=[second], kernel_sizes=(3, 2), alpha=(0.2, 0.05),
        code_tol=1e-12, **shape,
    )  # fmt: skip
    below = ConvSparseCoder.from_parameters(
        components=first, kernel_size=3, alpha=0.2, code_tol=1e-12, **shape
    )
    maps, codes = below.codes(X).reshape(4, 2, 6, 6), model.codes(X).reshape(4, 3, 3, 3)
    for unit in range(3):
        for picture, own, code in zip(model.project(X, unit=unit), maps, codes, strict=True):
            place = divmod(int(np.abs(code[unit]).argmax()), 3)
            pooled = np.zeros((3, 3))
            for a, b in np.ndindex(2, 2):
                pooled[(place[0] + a) % 3, (place[1] + b) % 3] = (
                    code[(unit, *place)] * second[unit].reshape(2, 2)[a, b]
                )
            switched = np.zeros((2, 6, 6))
            for i, j in np.ndindex(3, 3):
                block = own[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                k, a, b = np.unravel_index(np.abs(block).argmax(), block.shape)
                switched[k, 2 * i + a, 2 * j + b] = pooled[i, j]
            truth = naive_synthesis(switched, first.reshape(2, 1, 3, 3), 6, 6)
            np.testing.assert_allclose(picture, truth.ravel(), atol=1e-12)
    assert (codes != 0).any(axis=(2, 3)).all(axis=0).any()  # some unit is in use in every image


def test_three_fitted_layers_reconstruct_by_a_linear_map_with_its_adjoint():
    X, _ = make_planted(8)
    model = DeconvolutionalNetwork(
        (4, 4, 3), (4, 3, 2), alpha=(0.1, 0.02, 0.01), max_iter=1, **SHAPE
    ).fit(X)
    network, x = model._energy(torch.device("cpu")), torch.from_numpy(X)
    *_, (_, z, switches) = network_search(model).climb(network, x, 3)
    transfers, rng = network.transfers(3), np.random.default_rng(2)
    decoded = network.synthesise(z, switches, transfers)
    np.testing.assert_array_equal(model.codes(X), z)
    np.testing.assert_array_equal(model.reconstruct(X), decoded)
    u, v = (torch.from_numpy(rng.standard_normal(tuple(z.shape))) for _ in range(2))
    parts = [network.synthesise(code, switches, transfers) for code in (u, v, 2 * u - 3 * v)]
    np.testing.assert_allclose(parts[2], 2 * parts[0] - 3 * parts[1], atol=1e-10)
    y = torch.from_numpy(rng.standard_normal(X.shape))
    products = (parts[0] * y).sum(dim=1), (u * network.analyse(y, switches, transfers)).sum(dim=1)
    scale = parts[0].norm(dim=1) * y.norm(dim=1)
    assert float(((products[0] - products[1]).abs() / scale).max()) <= 1e-10


def naive_decoding(maps, layers):
    """Kernels on kernels, one entry of a map at a time, without switches."""
    for kernels in reversed(layers):
        maps = naive_synthesis(maps, kernels, 12, 12)
    return maps.ravel()


@pytest.mark.parametrize("adaptive", [True, False])
def test_codes_that_need_no_switches_are_decoded(adaptive):
    """Three layers, of plain codes or of blocks with one entry, against plain loops."""
    X, _ = make_planted(6)
    model = DeconvolutionalNetwork(
        (3, 3, 2), (4, 3, 2), alpha=(0.1, 0.02, 0.01), max_iter=1, adaptive=adaptive, pool_maps=1,
        pool_size=1, **SHAPE,
    ).fit(X)  # fmt: skip
    layers = [model.components_.reshape(3, 1, 4, 4)] + [
        model.upper_components_[name].reshape(-1, 3, side, side)
        for name, side in (("layer2", 3), ("layer3", 2))
    ]
    Z = model.transform(X)
    np.testing.assert_array_equal(Z, model.codes(X))
    np.testing.assert_allclose(model.inverse_transform(Z), model.reconstruct(X), atol=1e-10)
    rng = np.random.default_rng(0)
    sparse = rng.standard_normal((2, 2 * 144)) * (rng.random((2, 2 * 144)) < 0.02)
    for decoded, code in zip(model.inverse_transform(sparse), sparse, strict=True):
        truth = naive_decoding(code.reshape(2, 12, 12), layers)
        np.testing.assert_allclose(decoded, truth, atol=1e-10)
    with pytest.raises(ValueError, match="288 columns"):
        model.inverse_transform(Z[:, 1:])


def test_codes_that_need_switches_have_no_inverse_and_are_told_so(fitted):
    model, X = fitted
    for adaptive in (model, DeconvolutionalNetwork()):
        with pytest.raises(AttributeError, match="set pool_maps=1 and pool_size=1"):
            adaptive.inverse_transform(model.codes(X))
    model.set_params(pool_maps=1, pool_size=1)  # but this fit has switches
    assert not hasattr(model, "inverse_transform")
    model.set_params(pool_maps=2, pool_size=2)


def test_plain_layers_pool_as_the_parameters_say_now():
    """Their fit does not depend on the blocks, so that full codes need no other fit."""
    X, _ = make_planted(6)
    options = {"alpha": (0.1, 0.02), "max_iter": 1, "adaptive": False, "batch_size": 4, **SHAPE}
    model = DeconvolutionalNetwork((3, 4), (4, 3), **options).fit(X)
    full = DeconvolutionalNetwork((3, 4), (4, 3), pool_maps=1, pool_size=1, **options).fit(X)
    assert model.transform(X).shape == (6, 2 * 36)
    assert not hasattr(model, "inverse_transform")
    model.set_params(pool_maps=1, pool_size=(1, 1))
    np.testing.assert_array_equal(model.transform(X), full.transform(X))
    assert len(model.get_feature_names_out()) == 4 * 144
    np.testing.assert_allclose(
        model.inverse_transform(model.transform(X)), model.reconstruct(X), atol=1e-10
    )
    np.testing.assert_array_equal(model.partial_fit(X).components_, full.partial_fit(X).components_)


def test_transform_pools_codes_with_their_signs(fitted):
    model, X = fitted
    maps = torch.from_numpy(model.codes(X)).reshape(12, 4, 6, 6)
    pooled, _ = SwitchPooling(2, 2, 2).pool(maps)
    np.testing.assert_array_equal(model.transform(X), pooled.flatten(1))
    assert model.get_feature_names_out().shape == (2 * 3 * 3,)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_given_kernels_are_saved_and_answer_alike(fitted, tmp_path, dtype):
    model, X = fitted
    X = X.astype(dtype)
    given = DeconvolutionalNetwork.from_parameters(
        components=model.components_, upper_components=list(model.upper_components_.values()),
        kernel_sizes=(4, 3), alpha=(0.1, 0.02), image_shape=(12, 12),
    )  # fmt: skip
    assert given.hidden_sizes == (3, 4)
    np.testing.assert_array_equal(given.transform(X), model.transform(X))
    sklebm.save(given, tmp_path / "model.safetensors")
    loaded = sklebm.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.transform(X), model.transform(X))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_sizes": (3, 0)}, "hidden_sizes=.* positive integers"),
        ({"kernel_sizes": (4,)}, "kernel_sizes=.* for each of the 2 layers"),
        ({"kernel_sizes": (4, 9)}, "kernel_sizes: layer 2=9 does not fit images of 6 x 6"),
        ({"alpha": (0.1, 0.1, 0.1)}, "alpha=.* for each of the 2 layers"),
        ({"pool_size": (2, 2, 2)}, "pool_size=.* must be a positive integer"),
    ],
)
def test_settings_that_do_not_fit_are_named(options, message):
    X, _ = make_planted(5)
    with pytest.raises(ValueError, match=message):
        DeconvolutionalNetwork(**{"hidden_sizes": (3, 4), **SHAPE, **options}).fit(X)


def test_requests_that_do_not_fit_change_nothing(fitted):
    model, X = fitted
    before = freeze(vars(model))
    for arguments in ({"unit": 4}, {"unit": -1}, {"unit": 0, "layer": 3}, {"unit": 3, "layer": 1}):
        with pytest.raises(ValueError, match=r"must be from"):
            model.project(X, **arguments)
    with pytest.raises(ValueError, match="layer=0 must be from 1 to 2"):
        model.reconstruct(X, layer=0)
    model.set_params(pool_maps=1)
    with pytest.raises(ValueError, match="pool_maps"):
        model.partial_fit(X)
    model.set_params(pool_maps=2)
    assert freeze(vars(model)) == before


@pytest.mark.parametrize("method", ["reconstruct", "project", "codes", "certificate"])
def test_what_needs_kernels_says_so_before_fit(method):
    arguments = {"unit": 0} if method == "project" else {}
    with pytest.raises(NotFittedError, match="DeconvolutionalNetwork instance is not fitted yet"):
        getattr(DeconvolutionalNetwork(), method)(make_planted(3)[0], **arguments)


def test_a_layer_without_codes_is_named():
    X, _ = make_planted(5)
    with pytest.warns(UserWarning, match="alpha=1000 is too large for X in layer 2"):
        DeconvolutionalNetwork((3, 4), (4, 3), alpha=(0.1, 1e3), max_iter=1, **SHAPE).fit(X)


@pytest.mark.parametrize(
    ("model", "remedy"),
    [
        (DeconvolutionalNetwork((2, 2), (3, 2), image_shape=(6, 6)), r"keepdims=True\)\.$"),
        (DeepSparseCoder((2, 2), kernel_sizes=(3, 2), image_shape=(6, 6)), r"keepdims=True\)\.$"),
        (ConvSparseCoder(2, kernel_size=3, image_shape=(6, 6)), "or set low_pass"),
    ],
    ids=lambda case: type(case).__name__,
)
def test_a_constant_that_outweighs_the_images_is_named(model, remedy):
    """What the warning advises makes the constant irrelevant; below its limit nothing is said."""
    X = np.random.default_rng(0).standard_normal((12, 36))
    X = (X - X.mean()) / X.std()
    model.set_params(alpha=0.3, max_iter=1, random_state=0)
    with pytest.warns(UserWarning, match=f"mean of all pixels, 1.2, .* deviation, 1: .*{remedy}"):
        model.fit(X + 1.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(X + 0.9)
        learnt = [model.fit(Y - Y.mean(axis=1, keepdims=True)).components_ for Y in (X, X + 1e3)]
    # Means of 1e3 are rounded to 1e-13.
    np.testing.assert_allclose(learnt[1], learnt[0], atol=1e-8)


def test_a_pool_needs_as_many_sides_as_an_image():
    X, _ = make_planted(4)
    model = DeconvolutionalNetwork((3, 4), (4, 3), max_iter=1, pool_size=(2,), **SHAPE)
    with pytest.raises(ValueError, match=r"pool_size=\(2,\) must be"):
        model.fit(X)


def test_the_warning_of_a_limit_says_how_much_less_energy_other_codes_may_have(fitted, monkeypatch):
    model, X = fitted
    monkeypatch.setattr(deconvolution, "_DENSE", 10**9)
    least = model.free_energy(X)
    monkeypatch.setattr(deconvolution, "_DENSE", 0)
    with pytest.warns(ConvergenceWarning, match=r"other codes may have up to (\d+) %") as record:
        energies = clone_with(model, max_inference_steps=1).free_energy(X)
    said = [re.search(r"up to (\d+) % less", str(one.message)) for one in record]
    share = max(int(found[1]) for found in said if found) / 100
    assert ((energies - least) / energies <= share + 0.005).all()
    assert ((energies - least) / least > share).any()  # a share of the energy, not of its minimum
