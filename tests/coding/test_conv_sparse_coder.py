"""Kernels and maps, against the dictionary of all shifts, plain loops and planted kernels."""

import os
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

import sklebm
from sklebm import (
    ConvPredictiveSparseDecomposition,
    ConvSparseCoder,
    DeconvolutionalNetwork,
    DeepSparseCoder,
    EnergyOutlierDetector,
    SparseCoder,
)
from sklebm._shell.rows import Rows
from sklebm.callbacks import EnergyMonitor
from sklebm.coding import _kernels
from sklebm.coding._convolution import MapSearch
from sklebm.coding._kernel_learner import KernelLearner, KernelSettings
from sklebm.energies import L1, NonNegativeL1
from sklebm.energies.convolution import ConvolutionGrid, smooth_part
from sklebm.inference import convolutional
from sklebm.inference.convolutional import solve_in_frequency, solve_maps
from sklebm.inference.kernel_update import (
    code_sums,
    consensus_kernels,
    improve_kernels,
    transformed_sums,
)

GRIDS = [
    ConvolutionGrid(12, 12, 1, 4, 3),
    ConvolutionGrid(12, 12, 2, 3, 4, circular=False),
    ConvolutionGrid(7, 9, 2, 3, 2, channels_last=False),
    ConvolutionGrid(1, 20, 1, 1, 5, circular=False),
    ConvolutionGrid(3, 4, 1, 3, 4),
]


def random_atoms(grid, n=5, seed=0):
    atoms = np.random.default_rng(seed).standard_normal((n, grid.kernel_length))
    return torch.from_numpy(atoms / np.linalg.norm(atoms, axis=1, keepdims=True))


def random_images(grid, n=3, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, grid.n_pixels)))


def naive_synthesis(maps, kernels, height, width):
    """Every entry of every map puts its kernel on the image."""
    image = np.zeros((kernels.shape[1], height, width))
    for k, i, j in np.argwhere(maps):
        for a in range(kernels.shape[2]):
            for b in range(kernels.shape[3]):
                place = (i + a) % height, (j + b) % width
                image[(slice(None), *place)] += maps[k, i, j] * kernels[k, :, a, b]
    return image


@pytest.mark.parametrize("grid", GRIDS)
def test_synthesis_is_the_sum_of_shifted_kernels(grid):
    atoms = random_atoms(grid)
    z = torch.from_numpy(
        np.random.default_rng(2).standard_normal((2, len(atoms) * grid.map_length))
    )
    ours = grid.images(grid.synthesise(z, grid.transfer(atoms))).numpy()
    for image, maps in zip(ours, grid.maps(z).numpy(), strict=True):
        truth = naive_synthesis(maps, grid.kernels(atoms).numpy(), grid.height, grid.width)
        np.testing.assert_allclose(image, truth, atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
def test_analysis_is_the_adjoint_of_synthesis(grid):
    atoms, y = random_atoms(grid), random_images(grid)
    transfer = grid.transfer(atoms)
    z = torch.from_numpy(
        np.random.default_rng(2).standard_normal((3, len(atoms) * grid.map_length))
    )
    left = (grid.synthesise(z, transfer) * y).sum(dim=1)
    right = (z * grid.analyse(y, transfer)).sum(dim=1)
    # Relative to the product of the lengths, which bounds both.
    scale = z.norm(dim=1) * y.norm(dim=1)
    assert float(((left - right).abs() / scale).max()) <= 1e-12


@pytest.mark.parametrize("grid", GRIDS[:3])
def test_the_frequency_solve_is_the_dense_solve(grid):
    """(D' D + rho) y = v, once at each frequency and once as one matrix."""
    whole = ConvolutionGrid(
        grid.height, grid.width, grid.channels, grid.kernel_height, grid.kernel_width, True,
        grid.channels_last,
    )  # fmt: skip
    atoms = random_atoms(whole)
    v = torch.from_numpy(np.random.default_rng(2).standard_normal((2, 5 * whole.map_length)))
    rho = torch.tensor([0.3, 2.0], dtype=torch.float64)
    spectra = solve_in_frequency(
        whole.spectrum(whole.maps(v)), rho[:, None, None, None], whole.transfer(atoms)
    )
    ours = whole.plane(spectra).flatten(1)
    matrix = whole.toeplitz(atoms)
    for row in range(2):
        dense = matrix @ matrix.T + rho[row] * torch.eye(len(matrix), dtype=torch.float64)
        truth = torch.linalg.solve(dense, v[row])
        np.testing.assert_allclose(ours[row], truth, rtol=0, atol=1e-10)


@pytest.mark.parametrize("penalty", [L1(), NonNegativeL1()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("grid", GRIDS[:2])
@pytest.mark.parametrize("method", ["greedy", "fista", "admm"])
def test_every_solver_finds_the_code_of_the_dense_dictionary(grid, penalty, method):
    atoms, x = random_atoms(grid), random_images(grid)
    dense = SparseCoder(
        dictionary=grid.toeplitz(atoms).numpy(),
        alpha=0.5,
        code_tol=1e-15,
        penalty="l1" if isinstance(penalty, L1) else "nonnegative",
    ).fit(x.numpy())
    found = solve_maps(x, atoms, penalty, 0.5, grid, method=method, tol=1e-15)
    assert bool(found.converged.all())
    np.testing.assert_allclose(found.codes, dense.transform(x.numpy()), atol=1e-8)


@pytest.mark.parametrize("method", ["greedy", "fista"])
def test_missing_pixels_count_for_nothing(method):
    """The dictionary loses the columns that are not observed."""
    grid = GRIDS[1]
    atoms, x = random_atoms(grid), random_images(grid, 1)
    mask = torch.from_numpy((np.random.default_rng(3).random(x.shape) < 0.6).astype(float))
    seen = mask[0].bool()
    dense = SparseCoder(dictionary=grid.toeplitz(atoms)[:, seen].numpy(), alpha=0.3).fit(
        x[:, seen].numpy()
    )
    ours = solve_maps(x, atoms, L1(), 0.3, grid, method=method, tol=1e-13, mask=mask)
    np.testing.assert_allclose(ours.codes, dense.transform(x[:, seen].numpy()), atol=1e-7)


@pytest.fixture(scope="module", params=[0.0, 2.0], ids=["sharp", "low_pass"])
def masked(request):
    """A coder with given kernels, images, which of their pixels are seen, and full codes."""
    grid = ConvolutionGrid(6, 7, 1, 3, 2, circular=False)
    rng = np.random.default_rng(4)
    X = rng.standard_normal((4, grid.n_pixels))
    coder = ConvSparseCoder(
        dictionary=random_atoms(grid, 3).numpy(), kernel_size=(3, 2), image_shape=(6, 7),
        boundary="zero", alpha=0.3, low_pass=request.param, code_tol=1e-12, pool=None,
    ).fit(X)  # fmt: skip
    mask = rng.random(X.shape) < 0.6
    return coder, grid, X, mask, coder.codes(X, mask=mask)


@pytest.mark.parametrize("dense", [convolutional._DENSE, 0])
def test_energies_of_seen_pixels_are_those_of_a_dense_dictionary_without_the_others(
    masked, dense, monkeypatch
):
    """Every pixel that is not seen takes a column of the dictionary and of the images with it."""
    monkeypatch.setattr(convolutional, "_DENSE", dense)
    coder, grid, X, mask, Z = masked
    whole = grid.toeplitz(torch.from_numpy(coder.components_)).numpy()
    planes, seen = grid.images(torch.from_numpy(X)), grid.images(torch.from_numpy(1.0 * mask))
    smooth = grid.rows(smooth_part(planes, coder.low_pass, seen)).numpy()
    sharp = X - smooth if coder.low_pass else X
    other = np.random.default_rng(5).standard_normal(Z.shape)
    for row, shown in enumerate(mask):
        image = sharp[row : row + 1, shown]
        dense = SparseCoder(dictionary=whole[:, shown], alpha=0.3, code_tol=1e-15).fit(image)
        one = {"X": X[row : row + 1], "mask": mask[row : row + 1]}
        least = dense.free_energy(image)
        np.testing.assert_allclose(coder.free_energy(**one), least, rtol=1e-11)
        np.testing.assert_allclose(coder.score_samples(**one), -least, rtol=1e-11)
        for code in (Z[row : row + 1], other[row : row + 1]):
            np.testing.assert_allclose(
                coder.energy(Z=code, **one), dense.energy(image, code), rtol=1e-12
            )
    assert coder.score(X, mask=mask) == pytest.approx(coder.score_samples(X, mask=mask).mean())


def test_the_certificate_of_seen_pixels_bounds_what_a_poor_code_leaves(masked, monkeypatch):
    monkeypatch.setattr(convolutional, "_DENSE", 0)
    coder, _, X, mask, _ = masked
    least = coder.free_energy(X, mask=mask)
    assert (coder.certificate(X, mask=mask) <= 1e-12).all()
    coder.set_params(code_tol=0.3)
    try:
        gap, poor = coder.certificate(X, mask=mask), coder.free_energy(X, mask=mask)
    finally:
        coder.set_params(code_tol=1e-12)
    assert (gap > 1e-6).any()
    assert (poor - least <= gap * poor + 1e-9).all()


MISSING = {
    "array": lambda X, gaps: np.where(gaps, np.nan, X),
    "tensor": lambda X, gaps: torch.from_numpy(np.where(gaps, np.nan, X)),
    "list": lambda X, gaps: np.where(gaps, None, X).tolist(),
    "pandas": lambda X, gaps: pd.DataFrame(X).mask(gaps).astype("Float64").add_prefix("pixel"),
    "polars": lambda X, gaps: pl.DataFrame(np.where(gaps, None, X).tolist(), orient="row"),
}


ROW_METHODS = (
    "transform", "codes", "free_energy", "score_samples", "reconstruct", "certificate", "score"
)  # fmt: skip


@pytest.mark.parametrize("share", [1.0, 0.5], ids=["alone", "beside a mask"])
@pytest.mark.parametrize("kind", MISSING)
def test_missing_values_are_pixels_that_are_not_seen(masked, kind, share):
    """In whatever table: all methods answer, and learn, as with the explicit mask."""
    coder, _, X, mask, Z = masked
    gaps = ~mask & (np.random.default_rng(6).random(X.shape) < share)
    table, also = MISSING[kind](X, gaps), {} if share == 1.0 else {"mask": mask}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given = clone(coder).fit(table, **also)
        for name in ROW_METHODS:
            ours = getattr(given, name)(table, **also)
            np.testing.assert_array_equal(ours, getattr(coder, name)(X, mask=mask), name)
        np.testing.assert_array_equal(given.energy(table, Z, **also), coder.energy(X, Z, mask=mask))
    for learn in ("fit", "partial_fit"):
        learnt = [
            clone(coder).set_params(
                dictionary=None, n_components=3, max_iter=2, code_tol=1e-6, random_state=0
            )
            for _ in range(2)
        ]
        for model, images, seen in zip(learnt, (table, X), (also, {"mask": mask}), strict=True):
            getattr(model, learn)(images, **seen).partial_fit(images, **seen)
        # Frames hold columns together, so that sums are rounded otherwise.
        np.testing.assert_allclose(learnt[0].components_, learnt[1].components_, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_missing_values_leave_dtypes_as_they_are(masked, dtype):
    coder, _, X, mask, _ = masked
    X, learner = X.astype(dtype), clone(coder).set_params(dictionary=None, n_components=2)
    learner.set_params(max_iter=1, code_tol=1e-4, random_state=0)
    whole, gaps = learner.fit(X), clone(learner).fit(np.where(mask, X, dtype(np.nan)))
    assert gaps.components_.dtype == whole.components_.dtype
    assert gaps.transform(X).dtype == whole.transform(X).dtype


def test_a_mask_reaches_both_steps_of_fit_transform_and_gaps_reach_callbacks(masked):
    coder, _, X, mask, Z = masked
    np.testing.assert_array_equal(clone(coder).fit_transform(X, mask=mask), Z)
    gaps, received = np.where(mask, X, np.nan), []

    def score(model, rows):
        received.append(rows)
        return model.score(rows)

    np.testing.assert_array_equal(clone(coder).fit_transform(gaps), Z)
    learner = clone(coder).set_params(dictionary=None, n_components=2, max_iter=1, code_tol=1e-4)
    learner.set_callbacks(EnergyMonitor(gaps, scoring=score)).fit(gaps)
    assert np.isfinite(learner.score(gaps))
    np.testing.assert_array_equal(received[-1], gaps)


def test_a_detector_passes_missing_values_on(masked):
    coder, _, X, mask, _ = masked
    gaps = np.where(mask, X, np.nan)
    detector = EnergyOutlierDetector(coder).fit(gaps)
    np.testing.assert_allclose(detector.score_samples(gaps), coder.score_samples(X, mask=mask))


def test_what_is_missing_must_be_a_number_and_not_all_there_is(masked):
    coder, _, X, mask, _ = masked
    with pytest.raises(ValueError, match="mask hides every pixel of X, or all of them are NaN"):
        clone(coder).fit(np.full_like(X, np.nan))
    gaps = np.where(mask, X, np.nan)
    with pytest.raises(ValueError, match="mask has shape"):
        coder.transform(gaps, mask=mask[:, 1:])
    with pytest.raises(ValueError, match='"admm" needs all pixels'):
        clone(coder).set_params(solver="admm").fit(X).transform(gaps)
    hidden = np.ma.array(gaps, mask=~mask)
    hidden.mask[0] = True
    with pytest.raises(ValueError, match="masked array"):
        clone(coder).fit(hidden)
    infinite = gaps.copy()
    infinite[0, 0] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        coder.transform(infinite)
    with pytest.raises(ValueError, match="X has 4 rows and Z has 3"):
        coder.energy(gaps, coder.codes(gaps)[1:])
    with pytest.raises(ValueError, match="NaN"):
        coder.inverse_transform(coder.codes(X) * np.nan)


def test_masked_chunks_are_learnt_from_as_a_whole(monkeypatch):
    """Whatever unseen pixels hold; a full mask is none; the seen pixels of others cost less."""
    monkeypatch.setattr(_kernels, "_LEARNING_GAP", 0.0)
    monkeypatch.setattr(_kernels, "_FIRST_GAP", 0.0)
    X, _ = make_planted(24)
    mask = np.random.default_rng(2).random(X.shape) < 0.7
    options = {"n_components": 4, "kernel_size": 3, "image_shape": (12, 12), "alpha": 0.15,
               "batch_size": 8, "code_tol": 1e-12, "random_state": 0}  # fmt: skip
    start = ConvSparseCoder(max_iter=1, **options).fit(X, mask=mask)
    results = []
    for size, images, seen in (
        (24, X, mask), (5, np.where(mask, X, 1e3), mask), (24, X, 0 * mask + 1), (24, X, None)
    ):  # fmt: skip
        coder = ConvSparseCoder.from_parameters(components=start.components_, **options)
        for first in range(0, 24, size):
            part = slice(first, first + size)
            coder.partial_fit(images[part], mask=None if seen is None else seen[part])
        results.append(coder)
    np.testing.assert_allclose(results[1].components_, results[0].components_, atol=1e-9)
    # A gap of 1e-12 leaves codes, and with them kernels, within about its root.
    np.testing.assert_allclose(results[2].components_, results[3].components_, atol=1e-5)
    held_out, seen = make_planted(12, seed=1)[0], mask[:12]
    assert results[0].score(held_out, mask=seen) > start.score(held_out, mask=seen)


def test_one_filter_of_one_pixel_is_the_soft_threshold():
    X = np.random.default_rng(0).standard_normal((4, 30))
    coder = ConvSparseCoder(
        dictionary=[[1.0]], kernel_size=1, image_shape=(5, 6), alpha=0.7, pool=None
    ).fit(X)
    expected = np.sign(X) * np.maximum(np.abs(X) - 0.7, 0.0)
    np.testing.assert_allclose(coder.transform(X), expected, atol=1e-12)


@pytest.mark.parametrize("boundary", ["circular", "zero"])
@pytest.mark.parametrize("solver", ["auto", "greedy", "fista", "admm"])
def test_the_estimator_is_a_sparse_coder_with_the_dictionary_of_all_shifts(boundary, solver):
    """Solved by the same dictionary (auto: the images are small), or by Fourier transforms."""
    grid = ConvolutionGrid(12, 12, 1, 3, 3, boundary == "circular")
    atoms, X = random_atoms(grid, 3), random_images(grid).numpy()
    coder = ConvSparseCoder(
        dictionary=atoms.numpy(),
        kernel_size=3,
        image_shape=(12, 12),
        boundary=boundary,
        alpha=0.4,
        code_tol=1e-15 if solver == "auto" else 1e-12,
        solver=solver,
        pool=None,
    ).fit(X)
    dense = SparseCoder(dictionary=grid.toeplitz(atoms).numpy(), alpha=0.4, code_tol=1e-14).fit(X)
    codes = coder.codes(X)
    # A gap of 1e-12 leaves codes within about its root.
    exactness = 1e-8 if solver == "auto" else 1e-5
    np.testing.assert_allclose(codes, dense.transform(X), atol=exactness)
    np.testing.assert_allclose(coder.free_energy(X), dense.free_energy(X), rtol=2e-12)
    np.testing.assert_allclose(coder.energy(X, codes), coder.free_energy(X), rtol=1e-12)
    np.testing.assert_allclose(coder.inverse_transform(codes), coder.reconstruct(X), atol=1e-12)


@pytest.mark.parametrize("solver", ["greedy", "fista", "admm"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_gap_certifies_the_codes(solver, dtype):
    """Below 1e-6 in double precision; float32 rounds |x|^2 / E by about 2e-6."""
    grid = ConvolutionGrid(16, 20, 1, 5, 5)
    atoms, X = random_atoms(grid, 4), random_images(grid, 2).numpy().astype(dtype)
    coder = ConvSparseCoder(
        dictionary=atoms.numpy().astype(dtype), kernel_size=5, image_shape=(16, 20), alpha=0.5,
        solver=solver,
    ).fit(X)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gap = coder.certificate(X)
    energy = coder.free_energy(X)
    rounding = 2e-6 * (X.astype(float) ** 2).sum(axis=1) / energy if dtype == np.float32 else 0.0
    assert gap.dtype == dtype
    assert (gap < 1e-6 + rounding).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_sums_give_the_energy_of_any_kernels(grid):
    """1/2 |x - sum d * z|^2 = 1/2 |x|^2 - <B, d> + 1/2 <d, A * d>, also by Fourier transforms."""
    generator = np.random.default_rng(4)
    x = random_images(grid)
    z = torch.from_numpy(generator.standard_normal((3, 5 * grid.map_length)))
    z = z * torch.from_numpy(generator.random(z.shape) < 0.3)
    products, windows = code_sums(z, x, grid)
    transformed = transformed_sums(grid.maps(z), grid.images(x), grid)
    for ours, theirs in zip((products, windows), transformed, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12 * float(theirs.abs().max()))
    for seed in range(2):
        atoms = random_atoms(grid, seed=seed)
        d = grid.kernels(atoms)
        padding = (grid.kernel_height - 1, grid.kernel_width - 1)
        curved = torch.nn.functional.conv2d(
            d.transpose(0, 1), products.flip(2, 3), padding=padding
        ).transpose(0, 1)
        ours = 0.5 * x.square().sum() - (windows * d).sum() + 0.5 * (d * curved).sum()
        error = x - grid.synthesise(z, grid.transfer(atoms))
        np.testing.assert_allclose(ours, 0.5 * error.square().sum(), rtol=1e-12)


def test_kernel_steps_never_raise_the_energy_and_reach_its_minimum():
    """Against a long run of plain projected gradient steps."""
    grid = ConvolutionGrid(10, 10, 1, 3, 3)
    x = random_images(grid, 20)
    z = torch.from_numpy(np.random.default_rng(5).standard_normal((20, 4 * 100)))
    z = z * torch.from_numpy(np.random.default_rng(6).random(z.shape) < 0.05)
    sums = code_sums(z, x, grid)

    def energy(d):
        error = x - grid.synthesise(z, grid.transfer(d.flatten(1)))
        return 0.5 * float(error.square().sum())

    kernels = grid.kernels(random_atoms(grid, 4))
    values = [energy(kernels)]
    for _ in range(20):
        kernels = improve_kernels(kernels, *sums)
        values.append(energy(kernels))
    assert (np.diff(values) <= 1e-12 * values[0]).all()
    assert float(kernels.flatten(1).norm(dim=1).max()) <= 1 + 1e-12
    plain = grid.kernels(random_atoms(grid, 4)).clone().requires_grad_()
    for _ in range(400):
        error = x - grid.synthesise(z, grid.transfer(plain.flatten(1)))
        (slope,) = torch.autograd.grad(0.5 * error.square().sum(), plain)
        with torch.no_grad():
            moved = plain - 0.004 * slope
            length = moved.flatten(1).norm(dim=1).clamp(min=1.0)
            plain.copy_(moved / length[:, None, None, None])
    # Both stop within rounding of the same minimum of a convex function.
    assert values[-1] <= energy(plain.detach()) + 1e-6 * values[0]


@pytest.mark.parametrize("grid", [ConvolutionGrid(10, 10, 1, 3, 3), GRIDS[1]])
def test_consensus_finds_the_kernels_of_gradient_steps(grid):
    """The same minimum of a convex function, without a rise on the way; unused kernels stay."""
    generator = np.random.default_rng(5)
    x = random_images(grid, 20)
    z = torch.from_numpy(generator.standard_normal((20, 4 * grid.map_length)))
    z = z * torch.from_numpy(generator.random(z.shape) < 0.05)
    z[:, -grid.map_length :] = 0.0
    start = grid.kernels(random_atoms(grid, 4))
    whole = code_sums(z, x, grid)
    parts = [code_sums(z[part], x[part], grid) for part in (slice(7), slice(7, 9), slice(9, 20))]

    def energy(d):
        rows = (d.permute(0, 2, 3, 1) if grid.channels_last else d).flatten(1)
        error = x - grid.synthesise(z, grid.transfer(rows))
        return 0.5 * float(error.square().sum())

    steps = [energy(consensus_kernels(start, parts, n)) for n in (1, 3, 10, 30)]
    assert max(steps) <= energy(start)
    assert steps[-1] <= steps[0]
    agreed, slid = consensus_kernels(start, parts, 300), start
    for _ in range(30):
        slid = improve_kernels(slid, *whole)
    np.testing.assert_allclose(energy(agreed), energy(slid), rtol=1e-8)
    np.testing.assert_allclose(agreed, slid, atol=1e-4)
    np.testing.assert_array_equal(agreed[3], start[3])
    assert float(agreed.flatten(1).norm(dim=1).max()) <= 1 + 1e-12
    with pytest.raises(ValueError, match="matrices of 8208 x 8208"):
        consensus_kernels(torch.zeros(57, 1, 12, 12), parts)
    # A step from the minimum stays there.
    np.testing.assert_allclose(consensus_kernels(agreed, parts, 1), agreed, atol=1e-5)


def test_a_consensus_of_too_many_kernels_is_refused_before_the_search(monkeypatch):
    def search(*given):
        raise AssertionError("an image was encoded")

    monkeypatch.setattr(KernelLearner, "collect", search)
    X, _ = make_planted(4)
    with pytest.raises(ValueError, match="matrices of 8208 x 8208"):
        ConvSparseCoder(57, kernel_size=12, image_shape=(12, 12), algorithm="consensus").fit(X)


def make_planted(n=40, seed=0):
    """Images of two kernels at a few places each."""
    generator = np.random.default_rng(seed)
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]]) / 5**0.5
    stripe = np.array([[1, -1, 0], [1, -1, 0], [1, -1, 0]]) / 6**0.5
    kernels = np.stack([cross, stripe])
    X = 0.02 * generator.standard_normal((n, 12, 12))
    for image in X:
        for _ in range(5):
            i, j = generator.integers(0, 10, 2)
            image[i : i + 3, j : j + 3] += generator.uniform(1, 2) * kernels[generator.integers(2)]
    return X.reshape(n, -1), kernels


def similarity(kernels, truth, side):
    """The largest cosine of each true kernel with a shift of a learnt one."""
    best = np.zeros(len(truth))
    for learnt in kernels.reshape(-1, side, side):
        wide = np.pad(learnt, 2)
        for i in range(wide.shape[0] - 2):
            for j in range(wide.shape[1] - 2):
                patch = wide[i : i + 3, j : j + 3]
                cosine = np.abs((truth * patch).sum(axis=(1, 2))) / np.linalg.norm(learnt)
                best = np.maximum(best, cosine)
    return best


@pytest.mark.parametrize(
    ("algorithm", "boundary"),
    [("online", "circular"), ("online", "zero"), ("batch", "zero"), ("consensus", "circular")],
)
def test_planted_kernels_are_found(algorithm, boundary):
    X, truth = make_planted()
    options = {"kernel_size": 4, "image_shape": (12, 12), "alpha": 0.15, "boundary": boundary,
               "batch_size": 20, "algorithm": algorithm, "random_state": 1}  # fmt: skip
    coder = ConvSparseCoder(4, max_iter=10, tol=0.0, **options).fit(X)
    assert (similarity(coder.components_, truth, 4) > 0.97).all()
    start = ConvSparseCoder(4, max_iter=1, **{**options, "batch_size": 10**6}).fit(X)
    held_out = make_planted(seed=1)[0]
    assert coder.score(held_out) > start.score(held_out)


@pytest.mark.parametrize("algorithm", ["batch", "consensus"])
@pytest.mark.parametrize("dense", [convolutional._DENSE, 0])
def test_a_batch_pass_never_raises_the_energy(algorithm, dense, monkeypatch):
    """Codes start from those of the last pass, so that neither half of a pass can raise it."""
    monkeypatch.setattr(convolutional, "_DENSE", dense)  # exact codes of small images do not start
    X, _ = make_planted()
    coder = ConvSparseCoder(
        4, kernel_size=3, image_shape=(12, 12), algorithm=algorithm, max_iter=10, tol=0.0,
        batch_size=8, random_state=0,
    ).fit(X)  # fmt: skip
    assert (np.diff(coder.energy_curve_) <= 1e-9).all()
    assert coder.energy_curve_[-1] < 0.9 * coder.energy_curve_[0]


@pytest.mark.parametrize("boundary", ["circular", "zero"])
@pytest.mark.parametrize("algorithm", ["online", "batch", "consensus"])
def test_batches_learn_the_same_without_the_dense_dictionary(algorithm, boundary, monkeypatch):
    """Passes over batches whose codes start from the last pass, against those of exact codes."""
    monkeypatch.setattr(_kernels, "_LEARNING_GAP", 0.0)
    monkeypatch.setattr(_kernels, "_FIRST_GAP", 0.0)
    X, _ = make_planted(14)
    coder = ConvSparseCoder(
        3, kernel_size=(3, 4), image_shape=(12, 12), alpha=0.15, boundary=boundary, max_iter=3,
        algorithm=algorithm, batch_size=4, tol=0.0, code_tol=1e-12, pool=None, random_state=0,
    )  # fmt: skip
    exact = clone(coder).fit(X)
    monkeypatch.setattr(convolutional, "_DENSE", 0)
    starts = []
    find = MapSearch.find
    monkeypatch.setattr(MapSearch, "find", lambda *given: starts.append(given[-1]) or find(*given))
    coder.fit(X)
    assert any(start is not None and bool(start.any()) for start in starts)
    # A gap of 1e-12 leaves codes, and with them kernels, within about its root.
    np.testing.assert_allclose(coder.components_, exact.components_, atol=1e-5)
    np.testing.assert_allclose(coder.energy_curve_, exact.energy_curve_, rtol=1e-6)
    coder.partial_fit(X)
    monkeypatch.undo()
    monkeypatch.setattr(_kernels, "_LEARNING_GAP", 0.0)
    monkeypatch.setattr(_kernels, "_FIRST_GAP", 0.0)
    np.testing.assert_allclose(coder.components_, exact.partial_fit(X).components_, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.15, 0.6])
def test_rough_codes_of_the_first_passes_are_not_zero(monkeypatch, alpha):
    """Zero has a relative gap of (1 - alpha / peak)^2 only, which the first pass would accept."""
    monkeypatch.setattr(convolutional, "_DENSE", 0)
    X, _ = make_planted(12)
    settings = {"kernel_size": 4, "image_shape": (12, 12), "alpha": alpha, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        monkeypatch.setattr(_kernels, "_FEW_PASSES", 1)
        monkeypatch.setattr(_kernels, "_GAP_SHRINKS", 1.0)
        coder = ConvSparseCoder(3, max_iter=2, algorithm="batch", **settings).fit(X)
    start = ConvSparseCoder(3, max_iter=2, dict_init=coder.components_, **settings)
    assert coder.score(X) > -0.5 * np.square(X).sum(axis=1).mean()
    assert start.fit(X).score(X) >= coder.score(X) - 1e-9


@pytest.mark.parametrize("algorithm", ["online", "batch"])
def test_rough_codes_end_in_good_ones(monkeypatch, algorithm):
    """The fit settles at codes of the final gap, and is no worse than one of good codes only."""
    monkeypatch.setattr(convolutional, "_DENSE", 0)
    X, _ = make_planted(24)
    gaps = []
    find = MapSearch.find

    def watched(search, *given):
        gaps.append(search.tol)
        return find(search, *given)

    monkeypatch.setattr(MapSearch, "find", watched)
    options = {"kernel_size": 4, "image_shape": (12, 12), "alpha": 0.15, "max_iter": 60,
               "algorithm": algorithm, "batch_size": 8, "random_state": 0}  # fmt: skip
    rough = ConvSparseCoder(4, **options).fit(X)
    assert gaps[0] == 0.9
    assert gaps[-1] == 1e-3
    assert rough.n_iter_ < 60
    monkeypatch.setattr(_kernels, "_FIRST_GAP", 0.0)
    good = ConvSparseCoder(4, **options).fit(X)
    assert rough.score(X) > 1.05 * good.score(X)  # both are negative


def test_masked_pixels_change_nothing_and_are_filled():
    """Whatever they hold; the reconstruction is closer to them than the mean of the image."""
    X, _ = make_planted()
    mask = np.random.default_rng(2).random(X.shape) < 0.7
    options = {"n_components": 4, "kernel_size": 3, "image_shape": (12, 12), "alpha": 0.15,
               "max_iter": 5, "random_state": 0}  # fmt: skip
    fitted = ConvSparseCoder(**options).fit(X, mask=mask)
    changed = np.where(mask, X, 1e3)
    same = ConvSparseCoder(**options).fit(changed, mask=mask)
    np.testing.assert_allclose(same.components_, fitted.components_, atol=1e-9)
    np.testing.assert_allclose(
        same.free_energy(changed, mask=mask), fitted.free_energy(X, mask=mask), rtol=1e-9
    )
    filled = fitted.reconstruct(X, mask=mask)
    error = ((filled - X)[~mask] ** 2).mean()
    assert error < 0.6 * X[~mask].var()


def test_a_full_mask_is_no_mask():
    X, _ = make_planted(6)
    coder = ConvSparseCoder(
        3, kernel_size=3, image_shape=(12, 12), low_pass=2.0, code_tol=1e-12, max_iter=2,
        random_state=0,
    ).fit(X)  # fmt: skip
    whole = np.ones(X.shape, bool)
    np.testing.assert_allclose(coder.codes(X, mask=whole), coder.codes(X), atol=1e-6)
    np.testing.assert_allclose(coder.free_energy(X, mask=whole), coder.free_energy(X), rtol=1e-9)


@pytest.mark.parametrize("shape", [(1, 9), (6, 7)])
def test_the_smooth_part_solves_its_normal_equations(shape):
    """(m + w G' G) s = m x with the matrix of differences of neighbours written out."""
    generator = np.random.default_rng(0)
    images = torch.from_numpy(generator.standard_normal((2, 1, *shape)))
    n = shape[0] * shape[1]
    index = np.arange(n).reshape(shape)
    pairs = [
        *zip(index[:, :-1].ravel(), index[:, 1:].ravel(), strict=True),
        *zip(index[:-1].ravel(), index[1:].ravel(), strict=True),
    ]
    differences = np.zeros((len(pairs), n))
    for row, (one, other) in enumerate(pairs):
        differences[row, one], differences[row, other] = -1.0, 1.0
    rough = 3.0 * differences.T @ differences
    mask = torch.from_numpy((generator.random((2, 1, *shape)) < 0.5).astype(float))
    for seen in (None, mask):
        ours = smooth_part(images, 3.0, seen).reshape(2, n).numpy()
        for row in range(2):
            m = np.ones(n) if seen is None else seen[row].numpy().ravel()
            truth = np.linalg.solve(np.diag(m) + rough, m * images[row].numpy().ravel())
            np.testing.assert_allclose(ours[row], truth, atol=1e-9)


def test_a_constant_is_left_to_the_smooth_part():
    X, _ = make_planted(8)
    coder = ConvSparseCoder(
        3, kernel_size=3, image_shape=(12, 12), low_pass=5.0, code_tol=1e-12, max_iter=2,
        random_state=0,
    ).fit(X)  # fmt: skip
    np.testing.assert_allclose(coder.free_energy(X + 7.0), coder.free_energy(X), rtol=1e-9)
    np.testing.assert_allclose(coder.reconstruct(X + 7.0), coder.reconstruct(X) + 7.0, atol=1e-6)


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_pools_are_blocks_of_magnitudes(pool):
    X, _ = make_planted(5)
    coder = ConvSparseCoder(
        2, kernel_size=3, image_shape=(12, 12), pool=pool, pool_size=5, max_iter=1, random_state=0
    ).fit(X)
    maps = np.abs(coder.codes(X)).reshape(5, 2, 12, 12)
    take = np.max if pool == "max" else np.mean
    blocks = [slice(0, 5), slice(5, 10), slice(10, 12)]
    truth = [[take(maps[:, :, a, b], axis=(2, 3)) for b in blocks] for a in blocks]
    truth = np.moveaxis(np.array(truth), [0, 1], [2, 3]).reshape(5, -1)
    np.testing.assert_allclose(coder.transform(X), truth, atol=1e-12)
    assert coder.get_feature_names_out().shape == (18,)
    with pytest.raises(ValueError, match="288 columns"):
        coder.energy(X, coder.transform(X))
    assert not hasattr(coder, "inverse_transform")


@pytest.mark.parametrize("solver", ["auto", "greedy", "fista", "admm"])
def test_colours_share_their_maps(solver):
    """Against a dictionary that plain loops over places and pixels fill, in the order of a row."""
    generator = np.random.default_rng(0)
    X = generator.standard_normal((6, 6 * 7 * 3))
    coder = ConvSparseCoder(
        4, kernel_size=(3, 2), image_shape=(6, 7, 3), alpha=0.3, max_iter=3, random_state=0,
        code_tol=1e-12, solver=solver,
    ).fit(X)  # fmt: skip
    assert coder.components_.shape == (4, 18)
    shifts = np.zeros((4, 6, 7, 6, 7, 3))
    for k, i, j, a, b in np.ndindex(4, 6, 7, 3, 2):
        pixel = coder.components_[k].reshape(3, 2, 3)[a, b]
        shifts[k, i, j, (i + a) % 6, (j + b) % 7] = pixel
    dense = SparseCoder(
        dictionary=shifts.reshape(4 * 42, -1), alpha=0.3, code_tol=1e-14
    ).fit(X)  # fmt: skip
    codes = coder.codes(X)
    # A gap of 1e-12 leaves codes within about its root; kernels on so few pixels are much alike.
    np.testing.assert_allclose(codes, dense.transform(X), atol=1e-4)
    np.testing.assert_allclose(coder.free_energy(X), dense.free_energy(X), rtol=2e-12)
    np.testing.assert_allclose(coder.energy(X, codes), dense.energy(X, codes), rtol=1e-12)
    decoded = coder.set_params(pool=None).inverse_transform(codes)
    np.testing.assert_allclose(decoded, dense.inverse_transform(codes), atol=1e-12)


def test_codes_with_a_mask_are_read_in_parts(monkeypatch):
    """A second copy of all codes beside their masks may not fit in memory."""
    X, truth = make_planted(40)
    mask = np.random.default_rng(0).random(X.shape) < 0.7
    coder = ConvSparseCoder(
        dictionary=truth.reshape(2, -1), kernel_size=3, image_shape=(12, 12)
    ).fit(X)
    Z = coder.codes(X, mask=mask)
    whole = coder.energy(X, Z, mask=mask)
    sizes, original = [], Rows.__getitem__

    def noted(rows, index):
        part = original(rows, index)
        sizes.append(len(part))
        return part

    monkeypatch.setattr(Rows, "__getitem__", noted)
    with sklearn.config_context(working_memory=0.1):
        parts = coder.energy(X, Z, mask=mask)
    np.testing.assert_array_equal(parts, whole)
    assert max(sizes) < 10
    with pytest.raises(ValueError, match="X has 40 rows and Z has 39"):
        coder.energy(X, Z[1:], mask=mask)


def test_published_filters(tmp_path):
    X, truth = make_planted(5)
    given = ConvSparseCoder(
        dictionary=truth.reshape(2, -1), kernel_size=3, image_shape=(12, 12)
    ).fit(X)
    model = ConvSparseCoder.from_parameters(
        components=truth.reshape(2, -1), kernel_size=3, image_shape=(12, 12)
    )
    np.testing.assert_array_equal(model.transform(X), given.transform(X))
    sklebm.save(model, tmp_path / "model.safetensors")
    loaded = sklebm.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.transform(X), given.transform(X))
    model.partial_fit(X)


def test_settings_that_do_not_fit_are_named():
    X, _ = make_planted(5)
    for message, options in {
        "image_shape=": {"image_shape": (5, 5)},
        "kernel_size=20": {"image_shape": (12, 12), "kernel_size": 20},
        "n_components=3": {"n_components": 3, "dictionary": np.ones((2, 72)), "kernel_size": 72},
        "dict_init": {"dict_init": np.ones((2, 72)), "dictionary": np.ones((2, 72)),
                      "kernel_size": 72},
        "pool_size": {"pool_size": (1, 2, 3)},
        r"dict_init has shape \(2, 72\), but kernels have 9 numbers": {
            "image_shape": (12, 12), "kernel_size": 3, "dict_init": np.ones((2, 72))
        },
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=message):
            ConvSparseCoder(**{"max_iter": 1, **options}).fit(X)
    coder = ConvSparseCoder(2, kernel_size=3, image_shape=(12, 12), max_iter=1).fit(X)
    with pytest.raises(ValueError, match="mask has shape"):
        coder.transform(X, mask=np.ones((5, 3), bool))
    with pytest.raises(ValueError, match="zeros and ones"):
        coder.transform(X, mask=2 * X)
    with pytest.raises(ValueError, match='"admm" needs all pixels'):
        coder.set_params(solver="admm").transform(X, mask=np.ones(X.shape, bool))
    with pytest.raises(ValueError, match="kernel_width"):
        coder.set_params(kernel_size=4).partial_fit(X)


def test_an_alpha_beyond_all_products_is_named():
    X, _ = make_planted(5)
    with pytest.warns(UserWarning, match="every code is zero"):
        ConvSparseCoder(2, kernel_size=3, image_shape=(12, 12), alpha=1e3).fit(X)


@pytest.mark.skipif("SKLEBM_DATA" not in os.environ, reason="needs SKLEBM_DATA")
def test_noise_on_a_photograph_is_removed():
    """Kernels of one photograph, learnt in two passes, clean another."""
    images = np.load(Path(os.environ["SKLEBM_DATA"]) / "natural_images.npz")
    clean = np.stack([images[f"img_{i:03d}"][60:108, 60:108] / 255 for i in range(4)])
    clean = clean.reshape(4, -1)
    noisy = clean + 0.1 * np.random.default_rng(0).standard_normal(clean.shape)
    coder = ConvSparseCoder(
        12, kernel_size=7, image_shape=(48, 48), alpha=0.2, low_pass=5.0, max_iter=3,
        code_tol=1e-3, random_state=0,
    ).fit(clean[:3])  # fmt: skip
    cleaned = coder.reconstruct(noisy[3:])
    assert ((cleaned - clean[3:]) ** 2).mean() < 0.6 * ((noisy - clean)[3:] ** 2).mean()


def planted_signals(n=40, length=128, width=16):
    """Sparse sums of two waveforms that fill a kernel, with little noise."""
    rng, t = np.random.default_rng(0), np.linspace(0, 1, width)
    waves = np.stack([np.sin(6 * np.pi * t), np.sign(t - 0.5)]) * np.hanning(width)
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    X = 0.02 * rng.standard_normal((n, length))
    for row in X:
        for place in rng.integers(0, length - width, 3):
            row[place : place + width] += rng.uniform(1, 2) * waves[rng.integers(2)]
    return X, waves


@pytest.mark.parametrize("seed", range(6))
def test_waveforms_that_fill_a_kernel_are_found_whole(seed):
    """From most starts, kernels first settle a few samples off, where they are cut."""
    X, waves = planted_signals()
    coder = ConvSparseCoder(
        2, kernel_size=16, boundary="zero", penalty="nonnegative", tol=1e-4, max_iter=60,
        random_state=seed,
    ).fit(X)  # fmt: skip
    kernels = coder.components_ / np.linalg.norm(coder.components_, axis=1, keepdims=True)
    best = [max(np.abs(np.correlate(k, wave, "full")).max() for k in kernels) for wave in waves]
    assert min(best) > 0.99
    assert coder.n_iter_ == len(coder.energy_curve_)


def test_centred_kernels_are_kept_only_if_they_lower_the_energy():
    """Waves whose energy lies at their beginning: in the middle, their ends are cut."""
    rng = np.random.default_rng(0)
    wave = np.exp(-np.arange(16) / 3.0)
    wave /= np.linalg.norm(wave)
    X = 0.01 * rng.standard_normal((30, 96))
    for row in X:
        for place in rng.integers(0, 80, 2):
            row[place : place + 16] += rng.uniform(1, 2) * wave
    coder = ConvSparseCoder(
        1, kernel_size=16, boundary="zero", penalty="nonnegative", dict_init=wave[None], alpha=0.05,
        random_state=0,
    ).fit(X)  # fmt: skip
    kernel = coder.components_[0] / np.linalg.norm(coder.components_)
    assert kernel @ wave > 0.999
    assert coder.energy_curve_[-1] == coder.energy_curve_.min()


def test_a_kernel_is_moved_by_whole_pixels_and_keeps_its_length():
    grid = ConvolutionGrid(12, 12, 1, 5, 5)
    kernel = np.zeros((2, 5, 5))
    kernel[0, :2, :3] = [[1.0, 2.0, 1.0], [1.0, 2.0, 1.0]]
    kernel[1, 2, 2] = 0.5  # in the middle
    settings = KernelSettings(
        L1(), 0.1, 10, unit_norm=False, fit_intercept=False, search=None, by_gradient=False,
        grid=grid,
    )  # fmt: skip
    atoms = torch.from_numpy(kernel.reshape(2, -1))
    moved = KernelLearner(atoms, atoms.new_zeros(0), settings).in_the_middle(0)
    wanted = np.zeros((2, 5, 5))
    wanted[0, 2:4, 1:4] = kernel[0, :2, :3]  # 1.5 down, of which the even number is taken
    wanted[1] = kernel[1]
    np.testing.assert_allclose(moved.atoms.numpy().reshape(2, 5, 5), wanted, atol=1e-12)
    assert moved.in_the_middle(0) is None


def test_masks_that_cannot_be_used_are_named():
    X, truth = make_planted(5)
    options = {"kernel_size": 3, "image_shape": (12, 12)}
    given = ConvSparseCoder(dictionary=truth.reshape(2, -1), **options)
    with pytest.raises(ValueError, match="zeros and ones"):
        given.fit(X, mask=2 * X)
    for coder in (given, ConvSparseCoder(2, max_iter=1, **options)):
        with pytest.raises(ValueError, match="mask hides every pixel"):
            coder.fit(X, mask=np.zeros(X.shape, bool))


IMAGES = {"image_shape": (12, 12), "pool_size": (4,)}
DEEP = {"hidden_sizes": (2, 2), "kernel_sizes": (3, 2), "max_iter": 1}


@pytest.mark.parametrize(
    "model",
    [
        ConvSparseCoder(2, kernel_size=3, max_iter=1, **IMAGES),
        ConvSparseCoder(dictionary=np.ones((2, 9)), kernel_size=3, **IMAGES),
        ConvSparseCoder(2, kernel_size=3, max_iter=1, pool_size=(9, 4)),
        ConvSparseCoder(2, kernel_size=3, max_iter=1, **{**IMAGES, "pool_size": (4, 0)}),
        ConvPredictiveSparseDecomposition(2, kernel_size=3, max_epochs=1, **IMAGES),
        DeepSparseCoder(**DEEP, **IMAGES),
        DeepSparseCoder(**DEEP, pool_size=(9, 4)),
        DeconvolutionalNetwork(**DEEP, **IMAGES),
        DeconvolutionalNetwork(**DEEP, pool_size=(9, 4)),
    ],
    ids=lambda model: f"{type(model).__name__}-{model.pool_size}",
)
def test_fit_names_a_pool_without_as_many_sides_as_an_image(model):
    said = re.escape(f"pool_size={model.pool_size!r} must be a positive integer, or one for each")
    for learn in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=said):
            getattr(model, learn)(make_planted(5)[0])
        assert not hasattr(model, "components_")


def test_a_pool_of_signals_has_one_side():
    X, _ = make_planted(5)
    signals = ConvSparseCoder(2, kernel_size=3, max_iter=1, pool_size=(4,)).fit(X)
    assert signals.transform(X).shape[1] == signals.set_params(pool_size=4).transform(X).shape[1]


def test_kernels_that_the_first_batches_do_not_use_are_spared_after_a_move():
    grid = ConvolutionGrid(1, 24, 1, 1, 5, circular=False)
    atoms = torch.zeros(2, 5, dtype=torch.float64)
    atoms[0, :3] = torch.tensor([1.0, 2.0, 1.0])
    atoms[1] = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])  # no image holds it
    atoms /= torch.linalg.vector_norm(atoms, dim=1, keepdim=True)
    settings = KernelSettings(
        NonNegativeL1(), 0.5, 4, unit_norm=False, fit_intercept=False,
        search=MapSearch("ConvSparseCoder", 1e-6, "auto"), by_gradient=False, grid=grid,
    )  # fmt: skip
    moved = KernelLearner(atoms, atoms.new_zeros(0), settings).in_the_middle(2)
    X = torch.zeros(12, 24, dtype=torch.float64)
    X[:, 6:11] = 3.0 * moved.atoms[0]
    for n_batches, stays in ((1, True), (2, True), (3, False)):
        moved.absorb(X[4 * (n_batches - 1) : 4 * n_batches])
        assert torch.allclose(moved.atoms[1], atoms[1]) == stays
