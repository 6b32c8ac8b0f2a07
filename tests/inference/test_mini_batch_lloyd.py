"""Mini-batch k-means against a Lloyd step, MacQueen's rule and brute force."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sklebm import EnergyKMeans
from sklebm._shell.rows import row_slices
from sklebm.inference.lloyd import lloyd_step
from sklebm.inference.mini_batch_lloyd import RandomBatches, mini_batch_steps

ROWS = np.random.default_rng(0).normal(size=(300, 4)) + 5.0 * np.arange(300)[:, None] % 3
DIGITS = load_digits().data


def passes(x, centers, batch_size, weights=None, tol=0.0, seed=0):
    x = torch.from_numpy(x)
    weights = torch.ones(len(x), dtype=torch.float64) if weights is None else weights
    batches = batches_of(x, weights, seed)
    return mini_batch_steps(x, weights, torch.from_numpy(centers), batches, batch_size, tol)


def batches_of(x, weights, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return RandomBatches(x, weights, row_slices(len(x), 10**6), generator)


def test_one_batch_of_all_rows_is_a_lloyd_step():
    weights = torch.from_numpy(np.random.default_rng(1).uniform(0, 3, 300))
    _, centers, _ = next(passes(ROWS, ROWS[:5], 10**6, weights))
    x = torch.from_numpy(ROWS)
    _, expected, _ = lloyd_step(x, weights, x[:5], [slice(0, 300)])
    np.testing.assert_allclose(centers, expected, rtol=1e-12)


def test_batches_of_one_row_are_macqueens_rule():
    labels, centers, _ = next(passes(ROWS, ROWS[:5], 1))
    expected, counts = ROWS[:5].copy(), np.zeros(5)
    rows = torch.from_numpy(ROWS)
    for index in torch.cat(batches_of(rows, torch.ones(300).double()).draw(1)):
        label = ((expected - ROWS[index]) ** 2).sum(axis=1).argmin()
        counts[label] += 1
        expected[label] += (ROWS[index] - expected[label]) / counts[label]
        assert labels[index] == label
    np.testing.assert_allclose(centers, expected, rtol=1e-10)


def test_centres_are_means_of_all_rows_that_they_won():
    steps = passes(ROWS, ROWS[:5], 64)
    won = np.zeros((2, 300), dtype=int)
    for one_pass in range(2):
        labels, centers, _ = next(steps)
        won[one_pass] = labels
    for k in range(5):
        members = np.concatenate([ROWS[won[0] == k], ROWS[won[1] == k]])
        np.testing.assert_allclose(centers[k], members.mean(axis=0), rtol=1e-10)


def test_a_centre_that_wins_nothing_moves_onto_a_row():
    start = np.vstack([ROWS[:2], np.full((1, 4), 1e3)])
    steps = passes(ROWS, start, 50)
    _, centers, settled = next(steps)
    assert not settled
    assert (np.abs(ROWS - centers[2].numpy()).sum(axis=1) < 1e-12).any()
    labels, _, _ = next(steps)
    assert set(labels.tolist()) == {0, 1, 2}


def test_rows_without_weight_have_no_influence():
    far = np.vstack([ROWS, np.full((20, 4), 1e4)])
    weights = torch.ones(320, dtype=torch.float64)
    weights[300:] = 0.0
    steps = passes(far, ROWS[:5], 32, weights)
    _, centers, _ = next(steps)
    assert float(centers.abs().max()) < 100.0
    drawn = torch.cat(batches_of(torch.from_numpy(far), weights).draw(7))
    np.testing.assert_array_equal(drawn.sort().values, np.arange(300))


def test_batches_are_random_and_of_the_weight_asked_for():
    batches = batches_of(torch.from_numpy(ROWS), torch.ones(300).double())
    first, second = batches.draw(70), batches.draw(70)
    assert [len(rows) for rows in first] == [70, 70, 70, 70, 20]
    assert not torch.equal(torch.cat(first), torch.cat(second))
    assert torch.equal(torch.cat(second).sort().values, torch.arange(300))


def test_weights_are_copies_and_copies_share_a_batch():
    copies = np.random.default_rng(2).integers(0, 4, 300)
    repeated = torch.from_numpy(np.repeat(ROWS, copies, axis=0))
    rows, weights = torch.from_numpy(ROWS), torch.from_numpy(copies).double()
    one = batches_of(repeated, torch.ones(len(repeated)).double()).draw(40)
    other = batches_of(rows, weights).draw(40)
    for some, weighted in zip(one, other, strict=True):
        expected = weights[weighted].long()
        assert torch.equal(repeated[some], rows[weighted].repeat_interleave(expected, dim=0))
    # weights that only sum to one count as one copy each
    scaled = batches_of(rows, torch.full((300,), 1 / 300).double()).draw(40)
    assert [len(part) for part in scaled] == [40] * 7 + [20]


@pytest.mark.parametrize("batch_size", [100, 10_000])
def test_fit_comes_close_to_lloyd(batch_size):
    lloyd = EnergyKMeans(20, random_state=0).fit(DIGITS)
    seeded = EnergyKMeans(20, random_state=0, max_iter=1).fit(DIGITS)
    model = EnergyKMeans(20, random_state=0, batch_size=batch_size).fit(DIGITS)
    assert model.inertia_ < 1.05 * lloyd.inertia_
    assert model.inertia_ < seeded.inertia_
    assert 1 < model.n_iter_ < 100
    np.testing.assert_array_equal(model.labels_, model.predict(DIGITS))
    again = EnergyKMeans(20, random_state=0, batch_size=batch_size).fit(DIGITS)
    np.testing.assert_array_equal(again.cluster_centers_, model.cluster_centers_)
