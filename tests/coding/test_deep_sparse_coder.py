"""Codes of codes, against one layer, networks of rectified units, and naive minimisation."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sklebm import DeepSparseCoder, SparseCoder
from sklebm.energies.layered_coding import LayeredCodingEnergy
from sklebm.energies.penalties import L1
from sklebm.inference.layered_coding import solve_layers, stacked_dictionary

INFERENCES = ("layered_fista", "layered_thresholding", "multilayer_fista")


def unit(rng, *shape):
    atoms = rng.standard_normal(shape)
    return atoms / np.linalg.norm(atoms, axis=1, keepdims=True)


def random_coder(widths=(8, 10, 6, 5), alpha=(0.3, 0.1, 0.05), seed=0, dtype=np.float64, **options):
    rng = np.random.default_rng(seed)
    atoms = [unit(rng, b, a).astype(dtype) for a, b in itertools.pairwise(widths)]
    coder = DeepSparseCoder.from_parameters(
        components=atoms[0], upper_components=atoms[1:], alpha=alpha, **options
    )
    return coder, (2 * rng.standard_normal((40, widths[0]))).astype(dtype)


def naive_energy(layers, alphas, x, codes):
    """The terms of the docstring, one by one."""
    total, below = 0.0, x
    for atoms, alpha, z in zip(layers, alphas, codes, strict=True):
        total = total + 0.5 * ((below - z @ atoms) ** 2).sum(1) + alpha * np.abs(z).sum(1)
        below = z
    return total


def layers_of(coder):
    return [coder.components_, *coder.upper_components_.values()]


def split(coder, Z):
    return np.split(Z, np.cumsum([len(a) for a in layers_of(coder)])[:-1], axis=1)


@pytest.mark.parametrize("penalty", ["l1", "nonnegative"])
@pytest.mark.parametrize(
    ("inference", "solver"),
    [
        ("layered_fista", "auto"),
        ("multilayer_fista", "auto"),
        ("layered_thresholding", "threshold"),
    ],
)
def test_one_layer_is_a_sparse_coder(penalty, inference, solver):
    """To the bit in what is learnt; the ReLU of a fused product differs from it by rounding."""
    X = load_digits().data[:300] / 16
    options = {"alpha": 0.3, "penalty": penalty, "max_iter": 3, "batch_size": 64, "random_state": 0}
    deep = DeepSparseCoder((20,), inference=inference, **options).fit(X)
    one = SparseCoder(20, solver=solver, **options).fit(X)
    scale = max(1.0, float(np.abs(one.transform(X)).max()))
    np.testing.assert_allclose(deep.components_, one.components_, atol=1e-9)
    np.testing.assert_allclose(deep.transform(X), one.transform(X), atol=1e-9 * scale)
    np.testing.assert_allclose(deep.free_energy(X), one.free_energy(X), rtol=1e-9)
    np.testing.assert_allclose(deep.energy_curve_, one.energy_curve_, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nonnegative_thresholds_are_a_network_of_rectified_units(dtype):
    """Every bit of every layer, by a network that torch builds and runs."""
    coder, X = random_coder(inference="layered_thresholding", penalty="nonnegative", dtype=dtype)
    modules, outputs, below = [], [], torch.from_numpy(X)
    for atoms, alpha in zip(layers_of(coder), coder.alpha_, strict=True):
        linear = torch.nn.Linear(*atoms.T.shape, dtype=torch.from_numpy(atoms).dtype)
        linear.weight.data = torch.from_numpy(atoms)
        linear.bias.data.fill_(-alpha)
        modules += [linear, torch.nn.ReLU()]
    network = torch.nn.Sequential(*modules)
    with torch.no_grad():
        for place in range(2, len(modules) + 1, 2):
            outputs.append(network[:place](below).numpy())
    np.testing.assert_array_equal(coder.transform(X), np.concatenate(outputs, axis=1))
    assert (outputs[-1] > 0).any()
    coder.set_params(output="last")
    np.testing.assert_array_equal(coder.transform(X), network(below).detach().numpy())


def test_signed_thresholds_are_soft():
    coder, below = random_coder(inference="layered_thresholding")
    Z = split(coder, coder.transform(below))
    for atoms, alpha, z in zip(layers_of(coder), coder.alpha_, Z, strict=True):
        v = below @ atoms.T
        below = np.sign(v) * np.maximum(np.abs(v) - alpha, 0)
        np.testing.assert_allclose(z, below, atol=1e-13)


def test_the_stacked_lasso_is_the_sum_of_all_layers():
    coder, X = random_coder()
    rng = np.random.default_rng(1)
    Z = rng.standard_normal((len(X), 21))
    whole = stacked_dictionary([torch.from_numpy(a) for a in layers_of(coder)]).numpy()
    rows = np.concatenate([X, np.zeros((len(X), 16))], axis=1)
    smooth = naive_energy(layers_of(coder), (0, 0, 0), X, split(coder, Z))
    np.testing.assert_allclose(0.5 * ((rows - Z @ whole) ** 2).sum(1), smooth, rtol=1e-12)
    wanted = naive_energy(layers_of(coder), coder.alpha_, X, split(coder, Z))
    np.testing.assert_allclose(coder.energy(X, Z), wanted, rtol=1e-12)


@pytest.mark.parametrize("penalty", ["l1", "nonnegative"])
def test_the_codes_of_all_layers_are_stationary(penalty):
    """The gradient of the naive energy meets the optimality conditions of every entry."""
    coder, X = random_coder(inference="multilayer_fista", penalty=penalty)
    Z, layers = split(coder, coder.transform(X)), layers_of(coder)
    below, errors = [X, *Z[:-1]], []
    for atoms, under, z in zip(layers, below, Z, strict=True):
        errors.append(under - z @ atoms)
    for index, (z, alpha) in enumerate(zip(Z, coder.alpha_, strict=True)):
        slope = -errors[index] @ layers[index].T
        if index + 1 < len(Z):
            slope = slope + errors[index + 1]
        used = z != 0
        # Codes are exact on their support: rounding of products of a hundred terms of size ten.
        np.testing.assert_allclose(slope[used], -alpha * np.sign(z[used]), atol=1e-10)
        least = slope[~used] if penalty == "l1" else np.minimum(slope[~used], 0)
        assert (np.abs(least) <= alpha + 1e-10).all()
    bound = random_coder(inference="layered_fista", penalty=penalty)[0].free_energy(X)
    ours = coder.free_energy(X)
    assert (ours <= bound + 1e-10).all()
    assert ours.mean() < 0.99 * bound.mean()


@pytest.mark.parametrize("alpha", [(0.3, 0.1, 0.05), (0.3, 0.0, 0.05)])
@pytest.mark.parametrize("penalty", ["l1", "nonnegative"])
def test_monotone_steps_never_raise_the_energy(alpha, penalty):
    """Step by step from zero codes, down to the certified minimum."""
    options = {"inference": "multilayer_fista", "penalty": penalty, "alpha": alpha}
    coder, X = random_coder(**options)
    values = [0.5 * (X**2).sum(1)]
    for n in [*range(1, 40), 1500]:
        values.append(coder.set_params(n_inference_steps=n).free_energy(X))
    # Energies are sums of some 30 squares: rounding is 1e-14 of the first.
    assert (np.diff(values, axis=0) <= 1e-13 * values[0]).all()
    np.testing.assert_allclose(
        values[-1], coder.set_params(n_inference_steps=None).free_energy(X), rtol=1e-8
    )


@pytest.mark.parametrize("inference", ["multilayer_fista", "layered_thresholding"])
def test_an_identity_without_penalty_adds_nothing(inference):
    coder, X = random_coder(widths=(8, 10), alpha=0.3)
    solver = "threshold" if inference == "layered_thresholding" else "auto"
    one = SparseCoder(dictionary=coder.components_, alpha=0.3, solver=solver).fit(X)
    two = DeepSparseCoder.from_parameters(
        components=coder.components_,
        upper_components=[np.eye(10)],
        alpha=(0.3, 0.0),
        inference=inference,
    )
    Z = two.transform(X)
    # Stationarity of 1e-10, divided by the curvature: overcomplete atoms have a small one.
    np.testing.assert_allclose(Z[:, :10], one.transform(X), atol=1e-6)
    np.testing.assert_allclose(Z[:, 10:], Z[:, :10], atol=1e-6)
    np.testing.assert_allclose(two.free_energy(X), one.free_energy(X), rtol=1e-9)


@pytest.mark.parametrize("inference", ["layered_fista", "multilayer_fista"])
@pytest.mark.parametrize("learning", ["layerwise", "joint"])
@pytest.mark.parametrize("unit_of_x", [1.0, 1e3])
def test_learning_lowers_the_energy_of_other_rows(inference, learning, unit_of_x):
    """Below the initial dictionaries, whose layers hold rows and codes of rows."""
    X = unit_of_x * load_digits().data / 16
    options = {
        "alpha": (0.3 * unit_of_x, 0.1 * unit_of_x),
        "inference": inference,
        "learning": learning,
        "random_state": 0,
    }
    start = DeepSparseCoder((40, 20), max_iter=1, batch_size=10**6, **options).fit(X[:100])
    learnt = DeepSparseCoder((40, 20), max_iter=4, batch_size=128, **options).fit(X[:700])
    assert learnt.score(X[1000:1300]) > 0.95 * start.score(X[1000:1300])
    for atoms in layers_of(learnt):
        assert np.linalg.norm(atoms, axis=1).max() <= 1 + 1e-12


def test_joint_learning_suits_joint_codes():
    X = load_digits().data / 16
    scores = [
        DeepSparseCoder(
            (40, 20),
            (0.3, 0.1),
            inference="multilayer_fista",
            learning=learning,
            batch_size=128,
            max_iter=5,
            random_state=0,
        )
        .fit(X[:700])
        .score(X[1000:1400])
        for learning in ("layerwise", "joint")
    ]
    assert scores[1] > scores[0]


def test_planted_layers_are_found():
    """Atoms of atoms: the first layer is found as such, and the second by its parts."""
    rng = np.random.default_rng(0)
    first = np.linalg.qr(rng.standard_normal((20, 20)))[0][:12]
    second = np.kron(np.eye(4), np.ones((1, 3))) / 3**0.5
    top = rng.exponential(2.0, (2000, 4)) * (rng.random((2000, 4)) < 0.3)
    middle = top @ second + 2 * rng.random((2000, 12)) * (rng.random((2000, 12)) < 0.1)
    X = middle @ first
    coder = DeepSparseCoder(
        (12, 4),
        0.1,
        penalty="nonnegative",
        inference="multilayer_fista",
        batch_size=200,
        random_state=0,
    ).fit(X)
    share = coder.transform(X)[:, 12:]
    related = np.abs(np.corrcoef(share.T, top.T)[:4, 4:]).max(axis=0)
    wrong = np.abs(np.corrcoef(share.T, rng.permutation(top).T)[:4, 4:]).max()
    assert (related > 0.5).all()
    assert wrong < 0.2


@pytest.mark.parametrize("sizes", [(7,), (50, 13, 37)])
def test_chunks_do_not_matter(sizes):
    X = load_digits().data[:100] / 16
    options = {"alpha": 0.1, "batch_size": 30, "random_state": 0, "init": "random"}
    whole = DeepSparseCoder((10, 5), **options).partial_fit(X)
    parts, start = DeepSparseCoder((10, 5), **options), 0
    while start < len(X):
        for size in sizes:
            if start < len(X):
                parts.partial_fit(X[start : start + size])
            start += size
    for ours, theirs in zip(layers_of(whole), layers_of(parts), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_what_does_not_go_together_is_refused():
    X = load_digits().data[:50] / 16
    cases = {
        "hidden_sizes": {"hidden_sizes": (4, 0)},
        "each of the 2 layers": {"alpha": (0.1, 0.1, 0.1)},
        "not negative": {"alpha": (0.1, -1.0)},
        "holds a zero": {"alpha": (0.1, 0.0)},
        "n_inference_steps=3": {"inference": "layered_thresholding", "n_inference_steps": 3},
    }
    for match, options in cases.items():
        with pytest.raises(ValueError, match=match):
            DeepSparseCoder(**{"hidden_sizes": (5, 4), **options}).fit(X)
    with pytest.raises(ValueError, match="shapes"):
        DeepSparseCoder.from_parameters(components=np.eye(4), upper_components=[np.eye(3)])


def test_a_layer_whose_codes_vanish_is_named():
    X = load_digits().data[:200] / 16
    with pytest.warns(UserWarning, match="too large for layer 2"):
        DeepSparseCoder((10, 5), (0.1, 1e3), max_iter=2, random_state=0).fit(X)
    with pytest.warns(UserWarning, match="every code is zero"):
        DeepSparseCoder((10, 5), (1e3, 0.1), max_iter=2, random_state=0).fit(X)


def test_forbidden_codes_have_infinite_energy_even_without_weight():
    coder, X = random_coder(penalty="nonnegative", inference="multilayer_fista", alpha=(0.3, 0, 0))
    Z = coder.transform(X)
    assert np.isfinite(coder.energy(X, Z)).all()
    Z[:, -1] = -1.0
    assert np.isinf(coder.energy(X, Z)).all()


def test_single_precision_is_enough_for_the_minimum():
    coder, X = random_coder(inference="multilayer_fista")
    single = coder.free_energy(X.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, coder.free_energy(X), rtol=1e-5)
    tensors = [torch.from_numpy(a) for a in layers_of(coder)]
    found = solve_layers(torch.from_numpy(X), tensors, (0.3, 0.1, 0.05), positive=False)
    energy = LayeredCodingEnergy(tensors, L1(), (0.3, 0.1, 0.05))
    assert bool((found.certificate < 1e-9).all())
    np.testing.assert_allclose(
        energy.energy(torch.from_numpy(X), found.codes), coder.free_energy(X), rtol=1e-9
    )


@pytest.mark.parametrize("inference", ["layered_fista", "multilayer_fista"])
def test_the_certificate_bounds_what_better_codes_could_gain(inference):
    coder, X = random_coder(inference=inference, n_inference_steps=3)
    found, gaps = coder.transform(X), coder.certificate(X)
    exact = random_coder(inference=inference, code_tol=1e-13)[0]
    if inference == "multilayer_fista":
        energies, least = coder.free_energy(X), exact.free_energy(X)
        assert (energies - least <= gaps * energies).all()
    else:  # of each layer, given the code below
        for layer, below in enumerate((X, *split(coder, found)[:-1])):
            alpha = coder.alpha_[layer]
            one = SparseCoder(dictionary=layers_of(coder)[layer], alpha=alpha).fit(below)
            energies, least = one.energy(below, split(coder, found)[layer]), one.free_energy(below)
            assert (energies - least <= gaps * energies + 1e-12).all()
    assert gaps.max() > 1e-3
    assert exact.certificate(X).max() < 1e-9
    assert not hasattr(random_coder(inference="layered_thresholding")[0], "certificate")


@pytest.mark.parametrize("inference", INFERENCES)
def test_reconstructions_are_what_the_codes_of_the_first_layer_decode_to(inference):
    coder, X = random_coder(inference=inference)
    Z = split(coder, coder.transform(X))[0]
    np.testing.assert_allclose(coder.reconstruct(X), Z @ coder.components_, atol=1e-12)
    last = random_coder(inference=inference, output="last")[0]
    np.testing.assert_allclose(last.reconstruct(X), coder.reconstruct(X), atol=1e-12)
