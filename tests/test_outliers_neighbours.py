"""NeighbourEnergy against all distances, and the density it estimates."""

import numpy as np
import pytest
from scipy.stats import norm

import sklebm
from sklebm import NeighbourEnergy
from tests.registry import make_rows


def all_distances(X, rows, k):
    gaps = X[:, None].astype(np.float64) - rows
    return np.sort(np.sqrt((gaps**2).sum(axis=2)), axis=1)[:, :k]


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_distances_are_those_of_all_pairs(offset):
    rows, X = make_rows(300) + offset, make_rows(40, seed=1) + offset
    model = NeighbourEnergy(7).fit(rows)
    # Coordinates of 1e6 are known to 1e-10, and the squared gaps of an expansion to more.
    np.testing.assert_allclose(
        model.transform(X), all_distances(X, rows, 7), rtol=1e-9 if offset else 1e-12
    )


def test_small_distances_keep_their_digits():
    """|x|^2 + |w|^2 - 2 x'w would be zero, or negative, for rows this close."""
    rows = np.vstack([np.full((1, 3), 1000.0), np.full((5, 3), -1000.0)])
    x = rows[:1].copy()
    x[0, 0] += 1e-9
    found = NeighbourEnergy(1).fit(rows).transform(x)
    # Coordinates of 1,000 and their mean are rounded to 2e-13.
    assert found[0, 0] == pytest.approx(1e-9, abs=1e-12)


def test_the_score_estimates_the_log_density():
    """The share k / n of a ball of radius r, on a line where the density is known."""
    generator = np.random.default_rng(0)
    rows, x = generator.normal(size=(20_000, 1)), np.linspace(-1.5, 1.5, 7)[:, None]
    scores = NeighbourEnergy(400).fit(rows).score_samples(x)
    # k counts have a relative deviation of 1 / sqrt(k) = 0.05; four of them.
    np.testing.assert_allclose(scores, norm.logpdf(x[:, 0]), atol=0.2)


def test_rows_in_one_place_have_a_finite_energy():
    rows = np.repeat(make_rows(4), 10, axis=0)
    model = NeighbourEnergy(3).fit(rows)
    assert np.isfinite(model.score_samples(rows)).all()
    assert model.score_samples(rows[:1]) > model.score_samples(rows[:1] + 0.1)
    constant = NeighbourEnergy(2).fit(np.ones((5, 2)))
    assert np.isfinite(constant.score_samples(np.ones((1, 2)))).all()


def test_at_most_so_many_rows_are_stored(tmp_path):
    X = make_rows(200)
    some = NeighbourEnergy(max_samples=50, random_state=0).fit(X)
    assert some.samples_.shape == (50, 6)
    assert all((row == X).all(axis=1).any() for row in some.samples_)
    assert NeighbourEnergy(max_samples=500).fit(X).samples_.shape == (200, 6)
    sklebm.save(some, tmp_path / "model.safetensors")
    loaded = sklebm.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.score_samples(X), some.score_samples(X))


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="n_samples=4 rows to store should be >= n_neighbors=5"):
        NeighbourEnergy().fit(make_rows(4))
    with pytest.raises(ValueError, match="n_samples=3 rows"):
        NeighbourEnergy(max_samples=3).fit(make_rows())


def test_a_group_smaller_than_k_stays_atypical():
    generator = np.random.default_rng(0)
    X = np.vstack([generator.normal(size=(300, 3)), 6 + 0.01 * generator.normal(size=(8, 3))])
    scores = {k: NeighbourEnergy(k).fit(X).score_samples(X) for k in (5, 10)}
    assert scores[5][300:].mean() > np.median(scores[5][:300])
    assert scores[10][300:].max() < np.quantile(scores[10][:300], 0.1)


@pytest.mark.parametrize(("scale", "offset"), [(1e-15, 0.0), (1e5, 1.7e18)])
def test_small_units_and_far_offsets_keep_the_order_of_scores(scale, offset):
    """The lower limit of distances follows the distances, not the size of the coordinates."""
    generator = np.random.default_rng(0)
    rows, x = generator.normal(size=(200, 2)), 3 * generator.normal(size=(20, 2))
    expected = NeighbourEnergy(5).fit(rows).score_samples(x)
    model = NeighbourEnergy(5).fit(offset + scale * rows)
    found = model.score_samples(offset + scale * x)
    # Nanoseconds since 1970 are known to 256 of 100,000.
    np.testing.assert_allclose(found - found.mean(), expected - expected.mean(), atol=0.1)
