"""K-means on compacted rows against all distances: the same labels, centres and sums.

What is meant for GPUs runs on every device: all of it is tested on the CPU, and what the estimator
makes of it on the device of ``--device``.
"""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_blobs

from sklebm import EnergyKMeans
from sklebm.energies import PrototypeEnergy
from sklebm.inference import compacted_lloyd, pruned_lloyd
from sklebm.inference.compacted_lloyd import CompactedLloyd
from sklebm.inference.fixed_point_sums import FixedPointSums
from sklebm.inference.lloyd import Lloyd, lloyd_steps
from sklebm.inference.pruned_lloyd import start_lloyd

GENERATOR = np.random.default_rng(0)
DIGITS = load_digits().data + GENERATOR.uniform(0, 1e-3, (1797, 64))
NOISE = GENERATOR.standard_normal((2000, 7))
BLOBS = make_blobs(2000, n_features=3, centers=60, cluster_std=0.2, random_state=0)[0]
FLAT = np.where(np.arange(64) % 3 == 0, 7.0, DIGITS)  # constant columns
DATA = {"digits": DIGITS, "noise": NOISE, "blobs": BLOBS, "constant columns": FLAT}


@pytest.fixture(autouse=True)
def several_groups(monkeypatch):
    monkeypatch.setattr(compacted_lloyd, "_GROUP_SIZE", 16)


def both(X, n_clusters, *, weights=None, dtype=torch.float64):
    """Lloyd's algorithm with all distances in double precision, and the one under test."""
    x = torch.from_numpy(np.array(X)).to(dtype)
    weights = torch.ones(len(x)) if weights is None else torch.from_numpy(np.array(weights))
    parts = [slice(start, start + 700) for start in range(0, len(x), 700)]
    centers = x[np.random.default_rng(1).choice(len(x), n_clusters, replace=False)]
    weights = weights.double()
    return Lloyd(x.double(), weights, parts), CompactedLloyd(x, weights, centers, parts), centers


def by_differences(x, centers):
    """The closest centre by differences in double precision, ties to the lowest index."""
    x, centers = x.double(), centers.double()
    return torch.cat(
        [((row[:, None] - centers) ** 2).sum(dim=2).argmin(dim=1) for row in x.split(100)]
    )


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_clusters", [1, 33, 150])
def test_every_step_is_lloyds(name, dtype, n_clusters):
    weights = np.random.default_rng(2).uniform(0.5, 2.0, len(DATA[name]))
    reference, search, centers = both(DATA[name], n_clusters, weights=weights, dtype=dtype)
    rounding = torch.finfo(dtype).eps * float(reference._x.abs().max())
    for _, (labels, moved, settled) in zip(  # noqa: B007
        range(15), lloyd_steps(search, centers, 0.0), strict=False
    ):
        expected, means = reference.step(centers.double())
        assert torch.equal(labels, expected)
        torch.testing.assert_close(moved.double(), means, rtol=0.0, atol=10 * rounding)
        centers = moved
    assert settled or n_clusters > 1
    copies = reference._weights
    ours, theirs = search.measure(centers, copies), reference.measure(centers.double(), copies)
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_allclose(ours.counts, theirs.counts, rtol=1e-13)
    assert ours.inertia == pytest.approx(theirs.inertia, rel=1e-12)
    assert ours.leave_one_out == pytest.approx(theirs.leave_one_out, rel=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bounds_hold(dtype):
    """What is skipped is skipped for a reason, after every step and every kind of move."""
    _, search, centers = both(NOISE, 80, dtype=dtype)
    x = search._x.double()
    for step in range(12):
        labels, moved = search.step(centers)
        distances = torch.cdist(x, centers.double(), compute_mode="donot_use_mm_for_euclid_dist")
        own = distances.gather(1, labels[:, None])
        assert (search._upper >= own[:, 0]).all()
        others = distances.scatter(1, labels[:, None], torch.inf)
        for group, members in enumerate(search._members):
            assert (search._lower[:, group] <= others[:, members].amin(dim=1)).all()
        centers = moved
        if step == 5:
            centers = centers.flip(0)  # every centre jumps far away
        if step == 8:
            centers = centers + 1e-3 * torch.arange(80, dtype=dtype)[:, None] / 80


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_distances_go_to_the_lowest_index(dtype):
    grid = np.stack(np.meshgrid(np.arange(30.0), np.arange(30.0)), axis=-1).reshape(-1, 2)
    x = torch.from_numpy(grid).to(dtype)
    centers = x[np.random.default_rng(0).permutation(900)[:64]]
    search = CompactedLloyd(x, torch.ones(900).double(), centers, [slice(0, 400), slice(400, 900)])
    # also when centres move by whole steps, so that the bounds meet the ties as well
    for shift in ([0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.5, 0.5]):
        moved = centers + torch.tensor(shift, dtype=dtype)
        assert torch.equal(search.assign(moved), by_differences(x, moved))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_repeated_rows_and_equal_centers(dtype):
    X = np.repeat(NOISE[:40], 25, axis=0)
    reference, search, centers = both(X, 64, dtype=dtype)  # more centres than different rows
    for _ in range(4):
        labels, moved = search.step(centers)
        assert torch.equal(labels, by_differences(search._x, centers))
        centers = moved
    assert (search.measure(centers, reference._weights).counts > 0).sum() == 40


def test_constant_rows_and_as_many_clusters_as_rows():
    for X in (np.ones((50, 3)), NOISE[:50]):
        reference, search, centers = both(X, 50)
        labels, moved = search.step(centers)
        assert torch.equal(labels, by_differences(reference._x, centers))
        torch.testing.assert_close(moved, reference.step(centers)[1])
        assert search.measure(moved, reference._weights).inertia == pytest.approx(0.0, abs=1e-25)


def test_weights_are_repetitions_and_zero_weights_nothing():
    weights = np.random.default_rng(2).integers(0, 4, len(NOISE))
    _, weighted, centers = both(NOISE, 40, weights=weights)
    total = int(weights.sum())
    rows = torch.from_numpy(np.repeat(NOISE, weights, axis=0))
    repeated = CompactedLloyd(rows, torch.ones(total).double(), centers, [slice(0, total)])
    here = there = centers
    for _ in range(10):
        (labels, here), (others, there) = weighted.step(here), repeated.step(there)
        np.testing.assert_array_equal(np.repeat(labels, weights), others)
    np.testing.assert_allclose(here, there, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("n_large", [1, 5])
def test_rows_that_leave_a_cluster_leave_nothing_behind(n_large):
    """Huge rows in a sum take the digits of the others; they are back when those have gone."""
    x = torch.from_numpy(np.concatenate([NOISE, np.full((n_large, 7), 1e9)]))
    centers = x[:20].clone()
    search = CompactedLloyd(x, torch.ones(len(x)).double(), centers, [slice(0, len(x))])
    labels, _ = search.step(centers)
    host = int(labels[-1])
    centers[(host + 1) % 20] = x[-1]
    labels, means = search.step(centers)
    assert labels[-1] != host
    torch.testing.assert_close(means[host], x[labels == host].mean(dim=0), rtol=0, atol=1e-14)


def test_sums_do_not_depend_on_the_order():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(5000, 4, generator=generator, dtype=torch.float64)
    rows = rows * torch.tensor([1e-300, 1.0, 1e12, 0.0]).double()
    groups = torch.randint(3, (5000,), generator=generator)
    values = []
    for order in (torch.arange(5000), torch.randperm(5000, generator=generator)):
        sums = FixedPointSums(3, rows.abs().sum(dim=0), len(rows))
        for some in torch.split(order, 1234):
            sums.add(groups[some], rows[some])
        values.append(sums.value())
    assert torch.equal(*values)
    exact = torch.stack([rows[groups == g].sum(dim=0) for g in range(3)])
    # Only what lies next to the smallest number that there is loses digits.
    torch.testing.assert_close(values[0], exact, rtol=1e-12, atol=1e-280)
    sums.add(groups[:7], rows[:7], sign=-1)
    sums.add(groups[:7], rows[:7])
    assert torch.equal(sums.value(), values[0])


def test_empty_clusters_move_where_they_do_without_pruning():
    reference, search, centers = both(BLOBS, 70)
    centers[::7] = 50.0 + torch.arange(10)[:, None]  # no row is near
    for _ in range(3):
        (ours, moved), (theirs, means) = search.step(centers), reference.step(centers)
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(moved, means, rtol=1e-12, atol=1e-12)
        centers = moved


def test_far_from_zero_in_single_precision():
    _, search, centers = both(NOISE + 1e4, 50, dtype=torch.float32)
    for _ in range(10):
        labels, moved = search.step(centers)
        assert torch.equal(labels, by_differences(search._x, centers))
        centers = moved


def test_products_of_reduced_precision_widen_the_bounds():
    """A program may let products round more (TF32): then more rows are decided exactly."""
    before = torch.get_float32_matmul_precision()
    counts = {}
    for precision in ("highest", "high", "medium"):
        torch.set_float32_matmul_precision(precision)
        try:
            _, search, centers = both(NOISE, 50, dtype=torch.float32)
            assert torch.equal(search.assign(centers), by_differences(search._x, centers))
        finally:
            torch.set_float32_matmul_precision(before)
        counts[precision] = search.n_distances
    assert counts["highest"] < counts["high"] < counts["medium"]


@pytest.mark.parametrize("largest", [1e38, 3e19, 1e19])
def test_overflow_is_an_error(largest):
    X = np.linspace(0, largest, 100, dtype=np.float32)[:, None] * np.ones(3, np.float32)
    _, search, centers = both(X, 20, dtype=torch.float32)
    with pytest.raises(FloatingPointError, match="overflow"):
        search.step(centers)
    _, search, centers = both(X[:1], 1, dtype=torch.float32)
    with pytest.raises(FloatingPointError, match="overflow"):
        search.step(centers + largest)  # far from all rows


@pytest.mark.parametrize(("name", "share"), [("blobs", 0.2), ("digits", 0.5)])
def test_few_distances_are_computed(name, share):
    """What it is for: fewer distances than Lloyd's algorithm computes, to the same end."""
    _, search, centers = both(DATA[name], 60, dtype=torch.float32)
    whole, after_five = len(DATA[name]) * 60, 0
    for step, (_, _, settled) in enumerate(lloyd_steps(search, centers, 0.0), start=1):
        if step == 5:
            after_five = search.n_distances
        if settled:
            break
    assert step > 7
    assert search.n_distances < share * step * whole
    assert search.n_distances - after_five < 0.5 * share * (step - 5) * whole


def test_the_density_needs_few_distances_too(monkeypatch):
    """Leaving a row out of its own centre: most others are known to be too far to take it."""
    _, search, centers = both(BLOBS, 60)
    compared = []
    whole = PrototypeEnergy.squared_distances
    monkeypatch.setattr(
        PrototypeEnergy,
        "squared_distances",
        lambda energy, x: (compared.append(len(x)), whole(energy, x))[1],
    )
    steps = lloyd_steps(search, centers, 0.0)
    _, centers, _ = [next(steps) for _ in range(15)][-1]
    compared.clear()
    search.measure(centers, search._weights)
    assert 0 < sum(compared) < 0.2 * len(BLOBS)


def test_where_it_is_used(monkeypatch):
    x = torch.zeros(10, 5, device="meta")
    monkeypatch.setattr(pruned_lloyd, "CompactedLloyd", lambda *arguments: "compacted")
    assert isinstance(start_lloyd(x, x[:, 0], x[:2], []), Lloyd)
    x = torch.zeros(1 << 20, 512, device="meta")
    assert start_lloyd(x, x[:, 0], x[:1024], []) == "compacted"
    assert isinstance(start_lloyd(x, x[:, 0], x[:100], []), Lloyd)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_the_estimator_on_the_device(device, precision, monkeypatch):
    """The same clusters with and without compacted rows, and as on the CPU."""
    X = DIGITS.astype(precision)
    settings = {"n_clusters": 50, "init": X[:50], "tol": 0.0}
    plain = EnergyKMeans(device="cpu", **settings).fit(X)
    monkeypatch.setattr(pruned_lloyd, "start_lloyd", None)

    def compacted(x, weights, centers, parts, ranks):
        return CompactedLloyd(x, weights, centers, parts)

    monkeypatch.setattr("sklebm.mixture._clusters.start_lloyd", compacted)
    here = EnergyKMeans(device=device, **settings).fit(X)
    again = EnergyKMeans(device=device, **settings).fit(X)
    np.testing.assert_array_equal(here.labels_, again.labels_)
    np.testing.assert_array_equal(here.cluster_centers_, again.cluster_centers_)
    np.testing.assert_array_equal(here.labels_, plain.labels_)
    assert here.inertia_ == pytest.approx(plain.inertia_, rel=1e-6)
    assert here.log_partition_ == pytest.approx(plain.log_partition_, rel=1e-6)
