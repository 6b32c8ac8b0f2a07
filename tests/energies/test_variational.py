"""Bounds of the evidence against models whose evidence is known."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm
from torch import nn

from sklebm.energies import (
    BernoulliLatentEnergy,
    BernoulliLikelihood,
    DiagonalGaussian,
    FullGaussian,
    GaussianLatentEnergy,
    GaussianLikelihood,
)

DIM, LATENTS = 4, 2


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(n_inputs, n_outputs, seed, scale=0.7):
    layer = nn.Linear(n_inputs, n_outputs, dtype=torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=seeded(seed)).mul_(scale)
    return layer


def linear_gaussian(family=DiagonalGaussian, sigma=0.5):
    """z ~ N(0, I), x = W z + b + sigma e, with an encoder that knows nothing of it."""
    energy = GaussianLatentEnergy(
        linear(DIM, family.n_outputs(LATENTS), 0, 0.2),
        linear(LATENTS, DIM, 1),
        GaussianLikelihood("fixed", sigma),
        LATENTS,
        family,
    )
    energy = energy.double()
    energy.likelihood.log_scale.fill_(np.log(sigma))
    return energy


def evidence(energy, x, sigma=0.5):
    """log p(x) in closed form."""
    weight, bias = energy.decoder.weight.detach().numpy(), energy.decoder.bias.detach().numpy()
    covariance = weight @ weight.T + sigma**2 * np.eye(DIM)
    return multivariate_normal(bias, covariance).logpdf(x.numpy())


def rows(n_rows=6, seed=2):
    return torch.randn(n_rows, DIM, generator=seeded(seed), dtype=torch.float64)


# ---------------------------------------------------------------- Gaussian latents


@pytest.mark.parametrize("family", [DiagonalGaussian, FullGaussian])
def test_weighted_bound_rises_with_the_draws_and_meets_the_evidence(family):
    energy, x = linear_gaussian(family), rows()
    truth = evidence(energy, x)
    noise = torch.randn(400_000, LATENTS, generator=seeded(3), dtype=torch.float64)
    with torch.no_grad():
        q = energy.posterior(x)
        weights = energy.log_weights(x, q, q.draw(noise[:, None]))
        bounds = {1: energy.lower_bound(x, noise)}
        for n_draws in (5, 50, 500, 5000):
            groups = weights.reshape(-1, n_draws, len(x))
            bounds[n_draws] = (torch.logsumexp(groups, dim=1) - np.log(n_draws)).mean(dim=0)
        first = energy.log_marginal(x, noise[:5000], 700)
    torch.testing.assert_close(first, torch.logsumexp(weights[:5000], dim=0) - np.log(5000))
    ordered = np.stack([*(bound.numpy() for bound in bounds.values()), truth])
    gaps = np.diff(ordered, axis=0)
    assert (gaps[:-1] > 0).all()
    assert gaps[-1].min() > -0.02
    np.testing.assert_allclose(ordered[-2], truth, atol=0.1)
    assert (truth - ordered[0] > 1).all()


def set_exact_posterior(energy, sigma=0.5):
    """Give the encoder (full covariance) the parameters of p(z | x)."""
    weight, bias = energy.decoder.weight.detach(), energy.decoder.bias.detach()
    precision = torch.eye(LATENTS, dtype=torch.float64) + weight.T @ weight / sigma**2
    factor = torch.linalg.cholesky(torch.linalg.inv(precision))
    gain = torch.linalg.solve(precision, weight.T) / sigma**2
    with torch.no_grad():
        energy.encoder.weight.zero_()
        energy.encoder.weight[:LATENTS] = gain
        energy.encoder.bias[:LATENTS] = -gain @ bias
        energy.encoder.bias[LATENTS : 2 * LATENTS] = factor.diagonal().log()
        energy.encoder.bias[2 * LATENTS :] = factor[1, 0]


def test_the_exact_posterior_closes_the_gap():
    energy, x = linear_gaussian(FullGaussian), rows()
    set_exact_posterior(energy)
    truth = evidence(energy, x)
    # Draws on a cross have the mean and the covariance of the normal distribution.
    cross = 2**0.5 * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]).double()
    with torch.no_grad():
        noise = energy.draw_noise(3, generator=seeded(), like=x)
        np.testing.assert_allclose(energy.log_marginal(x, noise, 2), truth, rtol=1e-9)
        np.testing.assert_allclose(energy.lower_bound(x, cross), truth, rtol=1e-9)


def test_weights_do_not_depend_on_blocks():
    energy, x = linear_gaussian(), rows()
    noise = energy.draw_noise(17, generator=seeded(), like=x)
    whole = energy.log_marginal(x, noise, 17)
    for block in (1, 4, 16):
        torch.testing.assert_close(energy.log_marginal(x, noise, block), whole)


def test_energy_is_minus_the_joint_density():
    energy, x = linear_gaussian(), rows()
    z = torch.randn(6, LATENTS, generator=seeded(), dtype=torch.float64)
    mean = energy.decoder(z).detach().numpy()
    truth = norm.logpdf(x, mean, 0.5).sum(axis=1) + norm.logpdf(z).sum(axis=1)
    np.testing.assert_allclose(-energy.energy(x, z).detach(), truth, rtol=1e-12)


# ---------------------------------------------------------------- likelihoods


def test_likelihoods_are_those_of_scipy():
    decoded = torch.randn(3, 5, 2 * DIM, generator=seeded(), dtype=torch.float64)
    x = rows(5)
    learned = GaussianLikelihood("learned").double()
    learned.start_at(0.8)
    mean, log_scale = decoded.chunk(2, dim=-1)
    deviation = np.sqrt(0.0008**2 + (0.8 * np.exp(log_scale.numpy())) ** 2)
    truth = norm.logpdf(x, mean, deviation).sum(axis=-1)
    np.testing.assert_allclose(learned.log_density(x, decoded).detach(), truth, rtol=1e-6)
    shared = GaussianLikelihood("shared", 0.8).double()
    truth = norm.logpdf(x, mean, 0.8).sum(axis=-1)
    np.testing.assert_allclose(shared.log_density(x, mean).detach(), truth, rtol=1e-6)
    bits = (x > 0).double()
    p = torch.sigmoid(mean)
    truth = (bits * p.log() + (1 - bits) * (1 - p).log()).sum(dim=-1)
    torch.testing.assert_close(BernoulliLikelihood().log_density(bits, mean), truth)


def test_tables_are_all_pairs():
    x = rows(5).sigmoid()
    for likelihood in (
        BernoulliLikelihood(),
        GaussianLikelihood("shared", 0.8).double(),
        GaussianLikelihood("learned", 0.8).double(),
    ):
        width = likelihood.n_per_feature * DIM
        decoded = torch.randn(3, width, generator=seeded(), dtype=torch.float64)
        table = likelihood.log_density_table(x, decoded)
        for s in range(3):
            torch.testing.assert_close(
                table[s], likelihood.log_density(x, decoded[s].expand(5, width))
            )


def test_draws_have_the_moments_of_the_likelihood():
    decoded = torch.randn(1, 2 * DIM, generator=seeded(), dtype=torch.float64)
    many = decoded.expand(200_000, -1)
    learned = GaussianLikelihood("learned", 0.8).double()
    draws = learned.draw(many, seeded(1))
    mean, variance = learned.split(decoded)
    torch.testing.assert_close(draws.mean(dim=0), mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(draws.var(dim=0), variance[0], atol=0.0, rtol=0.05)
    bits = BernoulliLikelihood().draw(many[:, :DIM], seeded(1))
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(bits.mean(dim=0), torch.sigmoid(decoded[0, :DIM]), atol=0.01, rtol=0)


# ---------------------------------------------------------------- binary latents


def binary_energy(n_latents, seed=0):
    energy = BernoulliLatentEnergy(
        linear(DIM, n_latents, seed),
        linear(n_latents, DIM, seed + 1),
        BernoulliLikelihood(),
        n_latents,
    ).double()
    with torch.no_grad():
        energy.prior_logits.normal_(generator=seeded(seed + 2))
    return energy


@pytest.mark.parametrize("n_latents", [1, 5, 12])
def test_exact_evidence_is_the_sum_over_states(n_latents):
    energy = binary_energy(n_latents)
    x = (rows() > 0).double()
    states = np.array([[i >> j & 1 for j in range(n_latents)] for i in range(2**n_latents)])
    weight, bias = energy.decoder.weight.detach().numpy(), energy.decoder.bias.detach().numpy()
    prior = energy.prior_logits.detach().numpy()
    logits = states @ weight.T + bias
    log_joint = x.numpy() @ logits.T - np.logaddexp(0, logits).sum(axis=1)
    log_joint = log_joint + states @ prior - np.logaddexp(0, prior).sum()
    truth = logsumexp(log_joint, axis=1)
    with torch.no_grad():
        for block in (3, 4096):
            np.testing.assert_allclose(energy.exact_log_marginal(x, block), truth, rtol=1e-10)
        # Importance weights have the mean p(x) under q: over all states, without any draws.
        q, z = energy.posterior(x), torch.tensor(states).double()
        every = z[:, None].expand(-1, len(x), -1)
        log_q = log_joint.T - energy.log_weights(x, q, every).numpy()
        np.testing.assert_allclose(logsumexp(log_q, axis=0), 0.0, atol=1e-10)
        noise = energy.draw_noise(20_000, generator=seeded(), like=x)
        bound = energy.lower_bound(x, noise)
        weighted = energy.log_marginal(x, noise, 5000)
    # The divergence from the prior is summed over; only the reconstruction is drawn.
    q = np.exp(log_q)
    expected = (q * (log_joint.T - log_q)).sum(axis=0)
    fit = log_joint.T - (states @ prior)[:, None]
    variance = (q * np.square(fit - (q * fit).sum(axis=0))).sum(axis=0)
    assert (np.abs(bound.numpy() - expected) < 5 * np.sqrt(variance / 20_000) + 1e-9).all()
    # The relative variance of a weight; for many latents these proposals are far off.
    relative = np.exp(logsumexp(2 * log_joint.T - log_q, axis=0) - 2 * truth) - 1
    error = 5 * np.sqrt(relative / 20_000)
    assert (np.abs(np.expm1(weighted.numpy() - truth)) < error + 1e-9)[relative < 200].all()
    assert (relative < 200).any()


def test_probabilities_of_all_binary_rows_sum_to_one():
    energy = binary_energy(3)
    x = torch.tensor([[i >> j & 1 for j in range(DIM)] for i in range(2**DIM)]).double()
    with torch.no_grad():
        total = torch.logsumexp(energy.exact_log_marginal(x, 8), dim=0)
    assert float(total) == pytest.approx(0.0, abs=1e-12)
