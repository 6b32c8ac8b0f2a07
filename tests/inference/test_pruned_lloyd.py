"""Pruned k-means against all distances: the same labels, centres and sums, whatever the rows."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, make_blobs

from sklebm import EnergyKMeans
from sklebm.inference import pruned_lloyd
from sklebm.inference.lloyd import Lloyd, column_moments, lloyd_steps
from sklebm.inference.pruned_lloyd import PrunedLloyd, start_lloyd
from tests.subprocesses import run_python

GENERATOR = np.random.default_rng(0)
DIGITS = load_digits().data + GENERATOR.uniform(0, 1e-3, (1797, 64))
NOISE = GENERATOR.standard_normal((3000, 7))
BLOBS = make_blobs(3000, n_features=3, centers=60, cluster_std=0.2, random_state=0)[0]
DATA = {"digits": DIGITS, "noise": NOISE, "blobs": BLOBS}


def both(X, n_clusters, *, weights=None, dtype=torch.float64):
    x = torch.from_numpy(np.array(X)).to(dtype)
    weights = torch.ones(len(x)) if weights is None else torch.from_numpy(np.array(weights))
    parts = [slice(start, start + 700) for start in range(0, len(x), 700)]
    centers = x[np.random.default_rng(1).choice(len(x), n_clusters, replace=False)]
    weights = weights.double()
    plain = Lloyd(x, weights, parts)
    return plain, PrunedLloyd(x, weights, centers, parts), centers


@pytest.mark.table(5)
@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_clusters", [1, 2, 33, 150])
def test_every_step_is_lloyds(name, dtype, n_clusters):
    plain, pruned, centers = both(DATA[name], n_clusters, dtype=dtype)
    reference = Lloyd(plain._x.double(), plain._weights, plain._parts)
    for _, (labels, moved, settled) in zip(  # noqa: B007
        range(40), lloyd_steps(pruned, centers, 0.0), strict=False
    ):
        expected, means = reference.step(centers.double())
        np.testing.assert_array_equal(labels, expected)
        # Rounding is relative to the size of the rows.
        rounding = torch.finfo(dtype).eps * float(plain._x.abs().max())
        np.testing.assert_allclose(moved, means, rtol=0.0, atol=10 * rounding)
        centers = moved
    assert settled or n_clusters > 1
    copies = plain._weights
    ours, theirs = pruned.measure(centers, copies), reference.measure(centers.double(), copies)
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_array_equal(ours.counts, theirs.counts)
    assert ours.inertia == pytest.approx(theirs.inertia, rel=1e-12)
    assert ours.leave_one_out == pytest.approx(theirs.leave_one_out, rel=1e-11)


def test_labels_of_pruned_distances_serve_sums_over_ranks():
    """Where rows are divided among processes, pruning labels them and plain sums do the rest."""
    plain, pruned, centers = both(DIGITS, 40)
    helped = Lloyd(plain._x, plain._weights, plain._parts, assign=pruned.assign)
    for _ in range(6):
        (labels, moved), (expected, means) = helped.step(centers), plain.step(centers)
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_array_equal(moved, means)
        centers = moved


def test_equal_distances_go_to_the_lowest_index():
    grid = np.stack(np.meshgrid(np.arange(40.0), np.arange(40.0)), axis=-1).reshape(-1, 2)
    x = torch.from_numpy(grid)
    centers = torch.from_numpy(grid[np.random.default_rng(0).permutation(1600)[:64]])
    pruned = PrunedLloyd(x, torch.ones(1600).double(), centers, [slice(0, 1600)])
    naive = lambda c: ((x[:, None] - c) ** 2).sum(dim=2).argmin(dim=1)  # noqa: E731
    # also when centres move by whole steps, so that pruning meets the ties as well
    for shift in ([0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.5, 0.5]):
        moved = centers + torch.tensor(shift, dtype=torch.float64)
        assert torch.equal(pruned.assign(moved), naive(moved))


def test_weights_are_repetitions_and_zero_weights_nothing():
    weights = np.random.default_rng(2).integers(0, 4, len(NOISE))
    _, weighted, centers = both(NOISE, 40, weights=weights)
    repeated = PrunedLloyd(
        torch.from_numpy(np.repeat(NOISE, weights, axis=0)),
        torch.ones(int(weights.sum())).double(),
        centers,
        [slice(0, int(weights.sum()))],
    )
    here = there = centers
    for _ in range(10):
        (labels, here), (others, there) = weighted.step(here), repeated.step(there)
        np.testing.assert_array_equal(np.repeat(labels, weights), others)
    np.testing.assert_allclose(here, there, rtol=1e-12, atol=1e-13)


def test_rows_that_leave_a_cluster_leave_nothing_behind():
    """A huge row in a sum takes the digits of the others; they are back when it has gone."""
    x = torch.from_numpy(np.concatenate([NOISE, np.full((1, 7), 1e9)]))
    centers = x[:20].clone()
    pruned = PrunedLloyd(x, torch.ones(len(x)).double(), centers, [slice(0, len(x))])
    labels, _ = pruned.step(centers)
    host = int(labels[-1])
    centers[(host + 1) % 20] = x[-1]
    labels, means = pruned.step(centers)
    assert labels[-1] != host
    torch.testing.assert_close(means[host], x[labels == host].mean(dim=0), rtol=0, atol=1e-13)


def test_empty_clusters_move_where_they_do_without_pruning():
    plain, pruned, centers = both(BLOBS, 70)
    centers[::7] = 50.0 + torch.arange(10)[:, None]  # no row is near
    ours, theirs = pruned.step(centers)[1], plain.step(centers)[1]
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_far_from_zero_in_single_precision():
    _, pruned, centers = both(NOISE + 1e4, 50, dtype=torch.float32)
    x = pruned._x.double()
    for _ in range(15):
        labels, moved = pruned.step(centers)
        np.testing.assert_array_equal(labels, torch.cdist(x, centers.double()).argmin(dim=1))
        centers = moved


def test_the_scale_of_the_tolerance():
    weights = np.random.default_rng(3).uniform(size=len(DIGITS))
    plain, pruned, _ = both(DIGITS + 1e3, 20, weights=weights)
    mean, variance = column_moments(plain._x, plain._weights, plain._parts)
    torch.testing.assert_close(pruned.moments[0], mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(pruned.moments[1], variance, rtol=1e-9, atol=1e-12)


def test_overflow_is_an_error():
    X = (
        np.full((100, 3), 1e38, dtype=np.float32)
        * np.linspace(0, 1, 100, dtype=np.float32)[:, None]
    )
    _, pruned, centers = both(X, 20, dtype=torch.float32)
    with pytest.raises(FloatingPointError, match="overflow"):
        pruned.step(centers)


def test_few_distances_are_computed(monkeypatch):
    """What it is for: once the centres settle, hardly any row needs more than its own centre."""
    _, pruned, centers = both(BLOBS, 60)
    compared = []
    whole = PrunedLloyd._compare_with_all
    monkeypatch.setattr(
        PrunedLloyd,
        "_compare_with_all",
        lambda self, rows: (compared.append(len(rows)), whole(self, rows)),
    )
    for _, _ in zip(range(15), lloyd_steps(pruned, centers, 0.0), strict=False):
        pass
    assert compared[0] == len(BLOBS)
    assert sum(compared[5:]) < 0.05 * len(BLOBS)


def test_the_number_of_threads_changes_nothing(set_threads):
    results = []
    for n_threads in (1, 2):
        set_threads(n_threads)
        _, pruned, centers = both(DIGITS, 40)
        steps = lloyd_steps(pruned, centers, 0.0)
        labels, moved, _ = [next(steps) for _ in range(20)][-1]
        results.append((labels, moved, *pruned.measure(moved, pruned._weights)))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_estimator_uses_it_where_it_pays(monkeypatch):
    monkeypatch.setattr(pruned_lloyd, "_LEAST_WORK", 1)
    init = DIGITS[:50]
    ours = EnergyKMeans(50, init=init, tol=0.0).fit(DIGITS)
    theirs = KMeans(50, init=init, tol=0.0, n_init=1, algorithm="lloyd").fit(DIGITS)
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, rtol=1e-9)
    assert ours.n_iter_ <= theirs.n_iter_ + 1
    monkeypatch.undo()
    plain = EnergyKMeans(50, init=init, tol=0.0).fit(DIGITS)
    assert ours.log_partition_ == pytest.approx(plain.log_partition_, rel=1e-10)
    x = torch.zeros(10, 5)
    assert isinstance(start_lloyd(x, x[:, 0], x[:2], []), Lloyd)


def test_a_read_only_installation_compiles_in_memory(tmp_path):
    (tmp_path / "file").write_text("no folder")
    answer = run_python(f"""
import os
os.environ["NUMBA_CACHE_DIR"] = {str(tmp_path / "file" / "below")!r}
from sklebm.inference._distances import down
print(float(down(1.0)) < 1.0)
""")
    assert answer.split() == ["True"]
