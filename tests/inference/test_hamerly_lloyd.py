"""K-means with one bound a row against all distances: the same steps, in memory and from disk."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_blobs

from sklebm import EnergyGaussianMixture
from sklebm._shell.rows import Rows
from sklebm._shell.tables import MappedTable
from sklebm.inference import pruned_lloyd
from sklebm.inference.hamerly_lloyd import HamerlyLloyd
from sklebm.inference.lloyd import Lloyd, column_moments, lloyd_steps
from sklebm.inference.pruned_lloyd import start_lloyd

GENERATOR = np.random.default_rng(0)
NOISE = GENERATOR.standard_normal((3000, 7))
BLOBS = make_blobs(3000, n_features=3, centers=12, cluster_std=0.5, random_state=0)[0]
DATA = {"noise": NOISE, "blobs": BLOBS, "one feature": NOISE[:, :1], "far": NOISE + 1e5}
PARTS = [slice(start, start + 700) for start in range(0, 3000, 700)]


def both(X, n_clusters, dtype=torch.float64, weights=None):
    x = torch.from_numpy(X).to(dtype)
    weights = torch.ones(len(x)).double() if weights is None else torch.from_numpy(weights)
    centers = x[np.random.default_rng(1).choice(len(x), n_clusters, replace=False)]
    plain = Lloyd(x.double(), weights, PARTS)
    return plain, HamerlyLloyd(x, weights, centers, PARTS), centers


@pytest.mark.table(10)
@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_clusters", [1, 2, 8, 70])
def test_every_step_is_lloyds(name, dtype, n_clusters):
    weights = np.random.default_rng(2).integers(0, 3, 3000).astype(float)
    plain, ours, centers = both(DATA[name], n_clusters, dtype, weights)
    for _, (labels, moved, _) in zip(range(30), lloyd_steps(ours, centers, 0.0), strict=False):
        expected, means = plain.step(centers.double())
        np.testing.assert_array_equal(labels, expected)
        # Rounding is relative to the size of the rows.
        rounding = torch.finfo(dtype).eps * float(plain._x.abs().max())
        np.testing.assert_allclose(moved, means, rtol=0.0, atol=10 * rounding)
        centers = moved
    copies = torch.from_numpy(weights)
    mine, theirs = ours.measure(centers, copies), plain.measure(centers.double(), copies)
    np.testing.assert_array_equal(mine.labels, theirs.labels)
    np.testing.assert_array_equal(mine.counts, theirs.counts)
    assert mine.inertia == pytest.approx(theirs.inertia, rel=1e-11)
    assert mine.leave_one_out == pytest.approx(theirs.leave_one_out, rel=1e-10)
    mean, variance = column_moments(plain._x, copies, PARTS)
    torch.testing.assert_close(ours.moments[0], mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.moments[1], variance, rtol=1e-8, atol=1e-12)


def test_ties_go_to_the_lowest_index():
    grid = np.stack(np.meshgrid(np.arange(30.0), np.arange(30.0)), axis=-1).reshape(-1, 2)
    x = torch.from_numpy(grid)
    centers = torch.from_numpy(grid[np.random.default_rng(0).permutation(900)[:20]])
    ours = HamerlyLloyd(x, torch.ones(900).double(), centers, [slice(0, 900)])
    for shift in ([0.0, 0.0], [0.0, 1.0], [0.5, 0.5]):
        moved = centers + torch.tensor(shift, dtype=torch.float64)
        naive = ((x[:, None] - moved) ** 2).sum(dim=2).argmin(dim=1)
        assert torch.equal(ours.assign(moved), naive)


def test_few_rows_are_measured_once_the_centres_settle(monkeypatch):
    _, ours, centers = both(BLOBS, 12)
    measured = []
    whole = ours._kernels.relabel

    def counted(first, x, points, margin, fall, labels, slack):
        measured.append(
            int((slack[first : first + len(x)] <= fall[labels[first : first + len(x)]]).sum())
        )
        return whole(first, x, points, margin, fall, labels, slack)

    monkeypatch.setattr(ours._kernels, "relabel", counted)
    steps = lloyd_steps(ours, centers, 0.0)
    for settled in (settled for _, _, settled in steps):
        if settled:
            break
    assert sum(measured[:5]) == len(BLOBS)  # five parts
    assert sum(measured[-5:]) < 0.05 * len(BLOBS)


def test_rows_on_disk_give_the_same_steps(tmp_path):
    path = tmp_path / "rows.bin"
    NOISE.tofile(path)
    table = MappedTable(np.memmap(path, dtype=np.float64, mode="r", shape=NOISE.shape), "Model")
    rows = Rows(table, torch.device("cpu"))
    _, here, centers = both(NOISE, 8)
    there = HamerlyLloyd(rows, torch.ones(3000).double(), centers, PARTS)
    for _ in range(20):
        (labels, moved), (others, also) = here.step(centers), there.step(centers)
        assert torch.equal(labels, others)
        assert torch.equal(moved, also)
        centers = moved


def test_the_number_of_threads_changes_nothing(set_threads):
    results = []
    for n_threads in (1, 2):
        set_threads(n_threads)
        _, ours, centers = both(NOISE, 8)
        steps = lloyd_steps(ours, centers, 0.0)
        labels, moved, _ = [next(steps) for _ in range(20)][-1]
        results.append((labels, moved, *ours.measure(moved, ours._weights)))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_overflow_is_an_error():
    X = np.linspace(-1e200, 1e200, 300)[:, None] * np.ones(3)
    x = torch.from_numpy(X)
    ours = HamerlyLloyd(x, torch.ones(300).double(), x[:2], [slice(0, 300)])
    with pytest.raises(FloatingPointError, match="overflow"):
        ours.step(x[:2])


def test_it_serves_few_clusters_and_rows_that_are_not_in_memory():
    x, weights = torch.zeros(300_000, 10), torch.ones(300_000).double()
    assert isinstance(start_lloyd(x, weights, x[:8], [slice(0, 300_000)]), HamerlyLloyd)
    assert isinstance(start_lloyd(x[:10], weights[:10], x[:8], [slice(0, 10)]), Lloyd)


@pytest.mark.parametrize("kind", ["diag", "spherical"])
def test_a_mixture_starts_from_the_compiled_kernels(monkeypatch, kind):
    """They are for many rows: here for few."""
    X = np.random.default_rng(0).normal(size=(300, 4))
    model = EnergyGaussianMixture(3, covariance_type=kind, random_state=0)
    expected = model.fit(X).score_samples(X)
    monkeypatch.setattr(pruned_lloyd, "_LEAST_COMPILED_WORK", 1)
    np.testing.assert_allclose(clone(model).fit(X).score_samples(X), expected, atol=1e-9)
