"""Closed forms of approximate posteriors against Monte Carlo, enumeration and scipy."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from sklebm.energies import BernoulliPosterior, DiagonalGaussian, FullGaussian

N_DRAWS = 10**6


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def outputs(n_outputs, n_rows=2, seed=0):
    return 0.7 * torch.randn(n_rows, n_outputs, generator=generator(seed), dtype=torch.float64)


def covariance(q, row):
    if isinstance(q, DiagonalGaussian):
        return torch.diag((2 * q.log_scale[row]).exp()).numpy()
    factor = q.below[row] + torch.diag(q.log_diagonal[row].exp())
    return (factor @ factor.T).numpy()


@pytest.mark.parametrize("family", [DiagonalGaussian, FullGaussian])
@pytest.mark.parametrize("n_components", [1, 2, 4])
def test_divergence_is_that_of_a_million_draws(family, n_components):
    q = family.unpack(outputs(family.n_outputs(n_components)))
    noise = torch.randn(N_DRAWS, 1, n_components, generator=generator(1), dtype=torch.float64)
    z = q.draw(noise)
    log_prior = -0.5 * (z.square() + np.log(2 * np.pi)).sum(dim=-1)
    gaps = q.log_density(z) - log_prior
    error = gaps.std(dim=0) / N_DRAWS**0.5
    distance = (gaps.mean(dim=0) - q.divergence().sum(dim=1)).abs()
    assert (distance <= 4 * error).all()
    assert (error < 0.02).all()


@pytest.mark.parametrize("family", [DiagonalGaussian, FullGaussian])
def test_density_and_draws_are_those_of_the_normal_distribution(family):
    q = family.unpack(outputs(family.n_outputs(3)))
    z = torch.randn(5, 2, 3, generator=generator(1), dtype=torch.float64)
    for row in range(2):
        truth = multivariate_normal(q.mean[row].numpy(), covariance(q, row)).logpdf(z[:, row])
        np.testing.assert_allclose(q.log_density(z)[:, row], truth, rtol=1e-12)
    noise = torch.randn(200_000, 1, 3, generator=generator(2), dtype=torch.float64)
    draws = q.draw(noise)[:, 0].numpy()
    np.testing.assert_allclose(np.cov(draws.T), covariance(q, 0), atol=0.03)
    np.testing.assert_allclose(draws.mean(axis=0), q.mean[0], atol=0.02)


def test_full_covariance_without_the_part_below_is_the_diagonal_one():
    flat = outputs(6)
    diagonal = DiagonalGaussian.unpack(flat)
    full = FullGaussian.unpack(torch.cat([flat, torch.zeros(2, 3, dtype=flat.dtype)], dim=1))
    torch.testing.assert_close(full.divergence(), diagonal.divergence())
    noise = torch.randn(4, 2, 3, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(full.draw(noise), diagonal.draw(noise))
    torch.testing.assert_close(full.log_density(noise), diagonal.log_density(noise))


def test_bernoulli_divergence_is_the_sum_over_states():
    q = BernoulliPosterior(2 * outputs(3), outputs(3, n_rows=1)[0])
    bits = torch.tensor([[i >> j & 1 for j in range(3)] for i in range(8)], dtype=torch.float64)
    log_q = q.log_density(bits[:, None])
    prior = BernoulliPosterior(q.prior_logits[None], q.prior_logits)
    log_p = prior.log_density(bits[:, None])
    torch.testing.assert_close(log_q.exp().sum(dim=0), torch.ones(2, dtype=torch.float64))
    truth = (log_q.exp() * (log_q - log_p)).sum(dim=0)
    torch.testing.assert_close(q.divergence().sum(dim=1), truth)
    noise = torch.rand(100_000, 1, 3, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(q.draw(noise).mean(dim=0), q.mean, atol=0.01, rtol=0)


def test_extreme_outputs_stay_finite():
    for family in (DiagonalGaussian, FullGaussian):
        q = family.unpack(torch.full((1, family.n_outputs(2)), 1e6, dtype=torch.float64))
        assert torch.isfinite(q.divergence()).all()
