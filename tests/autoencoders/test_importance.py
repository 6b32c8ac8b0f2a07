"""Importance-weighted scores: draws of a row's own, and what they are worth."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from sklebm import VAE
from sklebm.autoencoders import _importance as importance
from sklebm.energies import FullGaussian
from sklebm.inference.quasi_monte_carlo import row_keys, row_points, uniform_points
from tests.energies.test_variational import (
    evidence,
    linear_gaussian,
    rows,
    set_exact_posterior,
)
from tests.registry import make_rows
from tests.subprocesses import global_states

FLOATS = 64

# ---------------------------------------------------------------- draws of a row


def test_keys_follow_the_content_of_rows():
    before = global_states()
    x = rows(500)
    keys = row_keys(x)
    assert len(keys.unique()) == 500
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    assert torch.equal(row_keys(x[order]), keys[order])
    assert torch.equal(row_keys(x.float()), keys)
    assert torch.equal(row_keys(x.float().double()), keys)
    zero = torch.zeros(1, 3)
    assert torch.equal(row_keys(-zero), row_keys(zero))
    assert not torch.equal(row_keys(x.flip(1)), keys)  # places count
    assert global_states() == before


def test_a_bit_of_a_row_changes_half_of_the_bits_of_its_key():
    x = rows(2000).float()
    nudged = x.clone()
    nudged[:, 2] = torch.nextafter(nudged[:, 2], torch.tensor(9.0))
    differ = (row_keys(x) ^ row_keys(nudged))[:, None] >> torch.arange(64) & 1
    # 2,000 fair coins for each of 64 bits: five standard errors.
    assert (differ.double().mean(dim=0) - 0.5).abs().max() < 5 * 0.5 / np.sqrt(2000)


def test_points_of_a_row_fill_the_cube_as_evenly_as_those_of_all():
    points = uniform_points(64, 5)
    own = row_points(points, row_keys(rows(50)))
    assert own.shape == (64, 50, 5)
    assert ((own > 0) & (own < 1)).all()
    for row in range(50):
        for column in own[:, row].T:
            assert set(np.histogram(column, bins=64, range=(0, 1))[0]) == {1}


def test_points_of_different_rows_are_independent():
    """A single point: one uniform number for each row and dimension."""
    own = row_points(uniform_points(1, 2), row_keys(rows(20_000)))[0]
    assert np.abs(np.corrcoef(own.T)[0, 1]) < 5 / np.sqrt(20_000)
    counts = np.histogram2d(*own.T.numpy(), bins=8, range=[[0, 1], [0, 1]])[0]
    chi_square = ((counts - 20_000 / 64) ** 2 / (20_000 / 64)).sum()
    assert chi_square < 63 + 5 * np.sqrt(2 * 63)


# ---------------------------------------------------------------- scores


def test_the_mean_over_rows_rises_with_the_draws_and_stays_below_the_truth():
    """Shared draws have an error that no number of rows averages out: theirs may fall."""
    energy, x = linear_gaussian(), rows(4000, seed=5)
    truth = evidence(energy, x)
    with torch.no_grad():
        scores = [
            importance.log_marginal(energy, x, n, FLOATS).numpy() for n in (1, 2, 4, 16, 64, 256)
        ]
    for before, after in zip(scores, [*scores[1:], truth], strict=True):
        gap = after - before
        assert gap.mean() > -3 * gap.std() / np.sqrt(len(x))
    assert (truth - scores[0]).mean() > 1.0 > (truth - scores[-1]).mean()


def test_scores_are_the_weighted_mean_of_the_draws_of_the_row():
    energy, x = linear_gaussian(), rows(5)
    noise = energy.shape_noise(row_points(uniform_points(9, 2), row_keys(x)))
    with torch.no_grad():
        q = energy.posterior(x)
        weights = energy.log_weights(x, q, q.draw(noise))
        expected = weights.exp().mean(dim=0).log()
        size = weights.exp().sum(dim=0) ** 2 / weights.exp().square().sum(dim=0)
        for floats in (1, 10**6):  # one block, and one draw at a time
            found = importance.log_marginal(energy, x, 9, floats)
            torch.testing.assert_close(found, expected)
            found = importance.effective_sample_size(energy, x, 9, floats)
            torch.testing.assert_close(found, size)


def test_effective_sample_size_is_all_draws_of_the_exact_posterior():
    energy, x = linear_gaussian(FullGaussian), rows(20)
    poor = importance.effective_sample_size(energy, x, 64, FLOATS)
    set_exact_posterior(energy)
    sizes = importance.effective_sample_size(energy, x, 64, FLOATS)
    np.testing.assert_allclose(sizes.detach(), 64.0, rtol=1e-9)
    assert (poor < 32).all()
    assert (poor >= 1).all()


def test_the_estimator_reports_it():
    model = VAE(2, hidden_sizes=(8,), max_epochs=20, learning_rate=0.01, random_state=0)
    sizes = model.fit(make_rows()).effective_sample_size(make_rows(30, 1))
    assert sizes.shape == (30,)
    assert (sizes >= 1.0).all()
    assert (sizes <= model.n_importance_samples).all()
    few = model.set_params(n_importance_samples=4).effective_sample_size(make_rows(30, 1))
    assert few.max() <= 4.0
    assert 0.0 < model.effective_sample_size_ <= 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        exact = VAE(2, posterior="bernoulli", max_epochs=1).fit(make_rows())
    assert exact.effective_sample_size_ is None


class TooWide(nn.Module):
    """Proposes latents from N(0, e^4), whatever the row."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(n_outputs // 2))

    def forward(self, x):
        wide = torch.full_like(self.offset, 2.0)
        return torch.cat([0.0 * self.offset, wide]).to(x).expand(len(x), -1) + 1e-3 * x[:, :1]


def test_an_encoder_that_misses_the_posterior_is_named():
    model = VAE(8, encoder=TooWide, max_epochs=5, random_state=0)
    with pytest.warns(UserWarning, match="encoder of VAE proposes poor latents"):
        model.fit(make_rows())
    assert model.effective_sample_size_ < importance.LEAST_SHARE


def test_a_good_encoder_is_not(recwarn):
    VAE(2, hidden_sizes=(16,), max_epochs=40, learning_rate=0.01, random_state=0).fit(make_rows())
    assert not [w for w in recwarn if "proposes poor latents" in str(w.message)]
