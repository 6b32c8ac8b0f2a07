"""Layers of kernels, against one layer, networks of convolutions, and dictionaries of shifts."""

import numpy as np
import pytest
import torch

import sklebm
from sklebm import ConvSparseCoder, DeepSparseCoder
from sklebm.coding import _map_layers
from sklebm.inference import convolutional, layered_maps
from sklebm.inference.layered_coding import solve_layers
from tests.coding.test_conv_sparse_coder import make_planted

SHAPE, KERNELS, SIZES = (7, 8, 2), ((3, 2), (2, 3)), (4, 3)


def unit(rng, *shape):
    atoms = rng.standard_normal(shape)
    return atoms / np.linalg.norm(atoms, axis=1, keepdims=True)


def random_coder(dtype=np.float64, alpha=(0.4, 0.1), **options):
    """Two layers of random kernels on small images of two channels, and images."""
    rng = np.random.default_rng(0)
    coder = DeepSparseCoder.from_parameters(
        components=unit(rng, 4, 3 * 2 * 2).astype(dtype),
        upper_components=[unit(rng, 3, 4 * 2 * 3).astype(dtype)],
        alpha=alpha,
        kernel_sizes=KERNELS,
        image_shape=SHAPE,
        **{"pool": None, **options},
    )
    return coder, rng.standard_normal((6, 7 * 8 * 2)).astype(dtype)


def small_images(n):
    """Images of 8 x 8 with crosses and stripes."""
    return make_planted(n)[0].reshape(n, 12, 12)[:, 2:10, 2:10].reshape(n, 64)


def shifts_of(coder):
    """The dictionary of all shifts of each layer, from the energy's own synthesis."""
    energy = coder._energy(torch.device("cpu"))
    pairs = zip(energy.grids, energy.dictionaries, strict=True)
    return [grid.toeplitz(atoms) for grid, atoms in pairs]


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize(
    ("inference", "penalty"), [("layered_fista", "l1"), ("multilayer_fista", "nonnegative")]
)
def test_one_layer_is_a_convolutional_sparse_coder(inference, penalty, dense, monkeypatch):
    """In what is learnt and in the codes, up to rounding: of small images both are exact.

    Or by Fourier transforms, to a gap of 1e-12, against the dense dictionary of the other model.
    """
    X = small_images(10)
    monkeypatch.setattr(_map_layers, "_LEARNING_TOL", 0.0)
    options = {"image_shape": (8, 8), "alpha": 0.2, "penalty": penalty, "max_iter": 2,
               "batch_size": 4, "boundary": "zero", "pool": None, "random_state": 0}  # fmt: skip
    one = ConvSparseCoder(3, kernel_size=3, code_tol=1e-15, **options).fit(X)
    Z, energies = one.codes(X), one.free_energy(X)
    if not dense:
        options["code_tol"] = 1e-12
        monkeypatch.setattr(convolutional, "_DENSE", 0)
        monkeypatch.setattr(layered_maps, "_DENSE", 0)
    deep = DeepSparseCoder((3,), kernel_sizes=(3,), inference=inference, **options).fit(X)
    # A gap of 1e-12 leaves codes, and with them kernels, within about its root.
    exactness = 1e-7 if dense else 1e-5
    np.testing.assert_allclose(deep.components_, one.components_, atol=exactness)
    np.testing.assert_allclose(deep.transform(X), Z, atol=exactness)
    np.testing.assert_allclose(deep.free_energy(X), energies, rtol=1e-9)
    np.testing.assert_allclose(deep.energy_curve_, one.energy_curve_, rtol=1e-9)
    np.testing.assert_allclose(deep.energy(X, Z), one.energy(X, Z), rtol=1e-12)
    np.testing.assert_allclose(deep.inverse_transform(Z), one.inverse_transform(Z), atol=1e-12)
    for pooling in ({"pool": "mean"}, {"pool": "max", "pool_size": (3, 10)}):
        pooled = [model.set_params(**pooling).transform(X) for model in (deep, one)]
        np.testing.assert_allclose(*pooled, atol=exactness)


@pytest.mark.parametrize("kernels", [True, False])
def test_codes_are_full_whatever_transform_shows(kernels):
    """What energy takes, and what the message names if it gets anything else."""
    coder, X = random_coder(pool="max", output="last")
    if not kernels:
        coder = DeepSparseCoder((5, 4), 0.1, output="last", max_iter=1, random_state=0).fit(X)
    Z = coder.codes(X)
    np.testing.assert_allclose(coder.energy(X, Z), coder.free_energy(X), rtol=1e-12)
    short = coder.transform(X)
    message = f"Z has {short.shape[1]} columns, .* pass what codes returned"
    with pytest.raises(ValueError, match=message):
        coder.energy(X, short)
    coder.set_params(pool=None, output="all")
    np.testing.assert_array_equal(Z, coder.transform(X))
    np.testing.assert_allclose(coder.inverse_transform(Z), coder.reconstruct(X), atol=1e-12)


def test_certificates_are_of_the_inference_that_was_fitted():
    """Like the codes, whatever the parameter says by now."""
    solved, X = random_coder(inference="layered_fista")
    gaps = solved.certificate(X)
    solved.set_params(inference="layered_thresholding")
    np.testing.assert_array_equal(solved.certificate(X), gaps)
    cut, _ = random_coder(inference="layered_thresholding")
    for coder in (
        cut.set_params(inference="layered_fista"),
        DeepSparseCoder(inference="layered_thresholding"),
    ):
        with pytest.raises(AttributeError, match="solves for no optimum"):
            coder.certificate(X)
    assert hasattr(DeepSparseCoder(), "certificate")


@pytest.mark.parametrize("output", ["all", "last"])
def test_pooled_maps_are_those_of_the_codes_in_full(output):
    coder, X = random_coder(output=output, inference="layered_thresholding")
    full = coder.transform(X)
    coder.set_params(pool="max", pool_size=(4, 3))
    grids = coder._energy(torch.device("cpu")).grids
    numbers, sides = ((4, 3), [g.map_shape for g in grids])
    if output == "last":
        numbers, sides = numbers[1:], sides[1:]
    wanted, first = [], 0
    for n, (tall, wide) in zip(numbers, sides, strict=True):
        maps = np.abs(full[:, first : first + n * tall * wide]).reshape(len(X), n, tall, wide)
        first += n * tall * wide
        rows, columns = (np.arange(0, length, size) for length, size in ((tall, 4), (wide, 3)))
        blocks = np.maximum.reduceat(np.maximum.reduceat(maps, rows, axis=2), columns, axis=3)
        wanted.append(blocks.reshape(len(X), -1))
    found = coder.transform(X)
    np.testing.assert_array_equal(found, np.hstack(wanted))
    assert not hasattr(coder, "inverse_transform")  # as of ConvSparseCoder
    assert len(coder.get_feature_names_out()) == found.shape[1]
    with pytest.raises(ValueError, match="pool_size"):
        coder.set_params(pool_size=(1, 2, 3)).transform(X)


@pytest.mark.parametrize("boundary", ["circular", "zero"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nonnegative_thresholds_are_convolutions_and_rectified_units(dtype, boundary):
    """Every bit of every layer, by a network that torch builds and runs."""
    coder, X = random_coder(
        dtype, inference="layered_thresholding", penalty="nonnegative", boundary=boundary
    )
    kind = torch.from_numpy(X).dtype
    modules, outputs = [], []
    weights = (
        coder.components_.reshape(4, 3, 2, 2).transpose(0, 3, 1, 2),
        coder.upper_components_["layer2"].reshape(3, 4, 2, 3),
    )
    for weight, alpha in zip(weights, coder.alpha_, strict=True):
        if boundary == "circular":  # the kernel's first pixel is where its code is
            modules.append(torch.nn.CircularPad2d((0, weight.shape[3] - 1, 0, weight.shape[2] - 1)))
        convolution = torch.nn.Conv2d(weight.shape[1], len(weight), weight.shape[2:], dtype=kind)
        convolution.weight.data = torch.from_numpy(weight.copy())
        convolution.bias.data.fill_(-alpha)
        modules += [convolution, torch.nn.ReLU()]
    network = torch.nn.Sequential(*modules)
    images = torch.from_numpy(X.reshape(-1, *SHAPE).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        for place in (len(modules) // 2, len(modules)):
            outputs.append(network[:place](images).flatten(1).numpy())
    np.testing.assert_array_equal(coder.transform(X), np.concatenate(outputs, axis=1))
    assert (outputs[-1] > 0).any()


def test_signed_thresholds_are_soft():
    coder, below = random_coder(inference="layered_thresholding")
    first = coder._energy(torch.device("cpu")).widths[0]
    Z = np.split(coder.transform(below), [first], axis=1)
    for shifts, alpha, z in zip(shifts_of(coder), coder.alpha_, Z, strict=True):
        v = below @ shifts.numpy().T
        below = np.sign(v) * np.maximum(np.abs(v) - alpha, 0)
        np.testing.assert_allclose(z, below, atol=1e-12)


@pytest.mark.parametrize(
    ("alpha", "penalty", "boundary"),
    [((0.4, 0.1), "l1", "circular"), ((0.4, 0.0), "nonnegative", "zero")],
)
def test_monotone_steps_never_raise_the_energy(alpha, penalty, boundary, monkeypatch):
    """Step by step from zero codes by Fourier transforms, to the minimum of the dense lasso."""
    options = {"inference": "multilayer_fista", "penalty": penalty, "boundary": boundary}
    coder, X = random_coder(alpha=alpha, **options)
    least = solve_layers(
        torch.from_numpy(X), shifts_of(coder), alpha, positive=penalty == "nonnegative"
    )
    lowest = coder.energy(X, least.codes.numpy())
    monkeypatch.setattr(layered_maps, "_DENSE", 0)
    values = [0.5 * (X**2).sum(1)]
    for n in [*range(1, 9), 200]:
        values.append(coder.set_params(n_inference_steps=n).free_energy(X))
    # Energies are sums of some 300 squares: rounding is 1e-14 of the first.
    assert (np.diff(values, axis=0) <= 1e-13 * values[0]).all()
    np.testing.assert_allclose(values[-1], lowest, rtol=1e-4)
    assert (values[-1] >= lowest * (1 - 1e-9)).all()
    np.testing.assert_allclose(
        coder.set_params(n_inference_steps=None, code_tol=1e-6).free_energy(X), lowest, rtol=1e-5
    )


def test_the_energy_is_the_sum_over_all_layers():
    """Term by term with the dictionaries of shifts; also what a duality gap certifies."""
    coder, X = random_coder(inference="multilayer_fista")
    Z = coder.transform(X)
    below, total = X, 0.0
    codes = np.split(Z, [coder._energy(torch.device("cpu")).widths[0]], axis=1)
    for shifts, alpha, z in zip(shifts_of(coder), coder.alpha_, codes, strict=True):
        total = total + 0.5 * ((below - z @ shifts.numpy()) ** 2).sum(1) + alpha * np.abs(z).sum(1)
        below = z
    np.testing.assert_allclose(coder.free_energy(X), total, rtol=1e-12)
    layered = random_coder(inference="layered_fista")[0].free_energy(X)
    assert (coder.free_energy(X) <= layered * (1 + 1e-9)).all()


@pytest.mark.parametrize("inference", ["multilayer_fista", "layered_thresholding"])
def test_an_identity_without_penalty_adds_nothing(inference):
    """The second layer's kernels have one pixel, and copy one map each."""
    rng = np.random.default_rng(1)
    options = {"kernel_sizes": (3, 1), "image_shape": (6, 7), "inference": inference,
               "code_tol": 1e-10, "pool": None}  # fmt: skip
    first = unit(rng, 3, 9)
    two = DeepSparseCoder.from_parameters(
        components=first, upper_components=[np.eye(3)], alpha=(0.3, 0.0), **options
    )
    one = DeepSparseCoder.from_parameters(
        components=first, alpha=(0.3,), **{**options, "kernel_sizes": (3,)}
    )
    X = rng.standard_normal((5, 42))
    Z = two.transform(X)
    # Stationarity of 1e-10, divided by the curvature, which overlapping kernels make small.
    np.testing.assert_allclose(Z[:, :126], one.transform(X), atol=1e-6)
    np.testing.assert_allclose(Z[:, 126:], Z[:, :126], atol=1e-6)
    np.testing.assert_allclose(two.free_energy(X), one.free_energy(X), rtol=1e-9)


def test_small_images_take_no_more_iterations_than_the_tolerance_asks_for():
    """Where a weight is zero, the matrix of all layers is formed, but not solved by supports."""
    coder, X = random_coder(alpha=(0.4, 0.0), inference="multilayer_fista")
    energy, x = coder._energy(torch.device("cpu")), torch.from_numpy(X)

    def solve(tol):
        return layered_maps.solve_map_layers(
            x, energy.dictionaries, energy.grids, energy.alphas, positive=False, tol=tol
        )

    rough, fine = solve(1e-2), solve(1e-6)
    assert rough.converged.all()
    assert fine.converged.all()
    assert rough.n_iter.max() < fine.n_iter.max()


@pytest.mark.parametrize(("learning", "unit_of_x"), [("layerwise", 1.0), ("joint", 1e3)])
def test_learning_lowers_the_energy_of_other_images(learning, unit_of_x):
    """Below the initial kernels, which are patches of images and of codes."""
    X = unit_of_x * small_images(40)
    options = {
        "alpha": (0.2 * unit_of_x, 0.1 * unit_of_x),
        "kernel_sizes": (3, 2),
        "image_shape": (8, 8),
        "inference": "multilayer_fista" if learning == "joint" else "layered_fista",
        "learning": learning,
        "code_tol": 1e-3,
        "random_state": 0,
    }
    start = DeepSparseCoder((3, 4), max_iter=1, batch_size=10**6, **options).fit(X[:30])
    learnt = DeepSparseCoder((3, 4), max_iter=3, batch_size=15, **options).fit(X[:30])
    assert learnt.score(X[30:]) > 0.97 * start.score(X[30:])
    for atoms in (learnt.components_, learnt.upper_components_["layer2"]):
        assert np.linalg.norm(atoms, axis=1).max() <= 1 + 1e-12


def test_partial_fit_counts_images_across_calls_and_a_saved_coder_continues(tmp_path):
    X = small_images(12)
    options = {"alpha": 0.2, "kernel_sizes": (3, 2), "image_shape": (8, 8), "batch_size": 5,
               "init": "random", "random_state": 0}  # fmt: skip
    whole = DeepSparseCoder((2, 2), **options).partial_fit(X)
    parts = DeepSparseCoder((2, 2), **options).partial_fit(X[:7])
    sklebm.save(parts, tmp_path / "coder.safetensors")
    parts = sklebm.load(tmp_path / "coder.safetensors").partial_fit(X[7:])
    np.testing.assert_allclose(parts.components_, whole.components_, atol=1e-9)
    np.testing.assert_allclose(
        parts.upper_components_["layer2"], whole.upper_components_["layer2"], atol=1e-9
    )
    with pytest.raises(ValueError, match="set them back"):
        parts.set_params(boundary="zero").partial_fit(X)


def test_what_does_not_go_together_is_refused():
    X, _ = make_planted(6)
    cases = {
        "image_shape=.* does not apply to dense layers": {"kernel_sizes": None},
        "kernel_sizes=.* 2 layers": {"kernel_sizes": (3,)},
        "layer 2=20 does not fit images of 12 x 12": {"kernel_sizes": (3, 20)},
        "does not fit X with 144 features": {"image_shape": (12, 13)},
        'use positive numbers, or learning="joint"': {
            "alpha": (0.1, 0.0), "inference": "multilayer_fista",
        },
    }  # fmt: skip
    for match, options in cases.items():
        given = {"kernel_sizes": (3, 2), "image_shape": (12, 12), **options}
        with pytest.raises(ValueError, match=match):
            DeepSparseCoder((2, 2), **given).fit(X)
    with pytest.raises(ValueError, match="shapes"):
        DeepSparseCoder.from_parameters(
            components=np.eye(9)[:2], upper_components=[np.eye(9)[:2]], kernel_sizes=(3, 3),
            image_shape=(12, 12),
        )  # fmt: skip
    with pytest.warns(UserWarning, match="too large for layer 1"):
        DeepSparseCoder(
            (2, 2), 1e3, kernel_sizes=(3, 2), image_shape=(12, 12), max_iter=1, random_state=0
        ).fit(X)


@pytest.mark.parametrize("inference", ["layered_fista", "multilayer_fista"])
def test_certificates_and_reconstructions_of_maps(inference):
    coder, X = random_coder(inference=inference, pool=None)
    assert coder.certificate(X).max() <= 1e-6
    wanted = coder.inverse_transform(coder.transform(X))
    np.testing.assert_allclose(coder.reconstruct(X), wanted, atol=1e-12)
    np.testing.assert_allclose(coder.set_params(pool="max").reconstruct(X), wanted, atol=1e-12)
