"""Gradients of the bounds: exact where they can be, unbiased where they are estimated."""

import math

import pytest
import torch

from sklebm.energies import DiagonalGaussian, FullGaussian
from sklebm.objectives import (
    Batch,
    DiscreteEvidenceLowerBound,
    DoublyReparametrizedBound,
    EvidenceLowerBound,
    ImportanceWeightedBound,
)
from tests.energies.test_variational import (
    binary_energy,
    linear_gaussian,
    rows,
    seeded,
    set_exact_posterior,
)


def gradients(objective, energy, x, generator, state=None):
    """Gradient of one loss with respect to all parameters, as one vector."""
    energy.zero_grad()
    loss, _ = objective.loss(energy, Batch(x), state or {}, generator)
    loss.backward()
    parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in energy.parameters()]
    return torch.cat([part.flatten() for part in parts]), float(loss.detach())


def repeated(objective, energy, x, n_repeats, seed=0):
    """Mean gradient over many draws, its standard error, and the mean loss.

    Draws are rows: repeating every row gives independent draws in one pass, whose gradients come
    from a per-chunk sum.
    """
    generator = seeded(seed)
    found = [gradients(objective, energy, x, generator) for _ in range(n_repeats)]
    stacked = torch.stack([gradient for gradient, _ in found])
    error = stacked.std(dim=0) / math.sqrt(n_repeats)
    return stacked.mean(dim=0), error, sum(loss for _, loss in found) / n_repeats


def z_scores(mean, error, truth):
    return ((mean - truth).abs() / (error + 1e-12)).max()


# ---------------------------------------------------------------- binary latents


def binary_case(n_latents=4, copies=250):
    energy = binary_energy(n_latents)
    x = (rows(4) > 0).double()
    return energy, x, x.repeat(copies, 1)


def test_enumerated_bound_is_the_sum_over_states():
    energy, x, _ = binary_case()
    objective = DiscreteEvidenceLowerBound(discrete_gradient="enumeration")
    loss, _ = objective.loss(energy, Batch(x), {}, None)
    q = energy.posterior(x)
    states = energy.states(x)
    total = 0.0
    for state in states:
        z = state.expand(len(x), -1)
        log_joint = energy.log_likelihood(x, z) + energy.log_prior(z)
        total = total + (q.log_density(z).exp() * (log_joint - q.log_density(z))).mean()
    assert float(loss.detach()) == pytest.approx(-float(total.detach()), rel=1e-12)


@pytest.mark.parametrize("n_samples", [1, 3])
def test_score_function_gradient_is_unbiased(n_samples):
    """400 means over 1000 draws each: 4 x 10^5 draws against the enumerated gradient."""
    energy, x, many = binary_case()
    truth, value = gradients(
        DiscreteEvidenceLowerBound(discrete_gradient="enumeration"), energy, x, None
    )
    objective = DiscreteEvidenceLowerBound(discrete_gradient="score_function", n_samples=n_samples)
    mean, error, loss = repeated(objective, energy, many, 400)
    assert z_scores(mean, error, truth) < 4.5
    assert loss == pytest.approx(value, abs=0.02)
    assert truth.abs().max() > 0.05


def test_relaxed_gradient_is_biased_and_close():
    energy, x, many = binary_case()
    truth, _ = gradients(
        DiscreteEvidenceLowerBound(discrete_gradient="enumeration"), energy, x, None
    )
    objective = DiscreteEvidenceLowerBound(discrete_gradient="relaxed", temperature=0.3)
    mean, error, _ = repeated(objective, energy, many, 200)
    assert z_scores(mean, error, truth) > 6
    cosine = torch.nn.functional.cosine_similarity(mean, truth, dim=0)
    assert cosine > 0.95


def test_auto_enumerates_few_latents():
    for n_latents, how in ((8, "enumeration"), (9, "score_function")):
        energy, x, _ = binary_case(n_latents)
        auto, _ = DiscreteEvidenceLowerBound().loss(energy, Batch(x), {}, seeded())
        objective = DiscreteEvidenceLowerBound(discrete_gradient=how)
        expected, _ = objective.loss(energy, Batch(x), {}, seeded())
        assert float(auto.detach()) == float(expected.detach())
    energy, x, _ = binary_case(13)
    with pytest.raises(ValueError, match=r"n_components=13 .* 2\^13 states"):
        DiscreteEvidenceLowerBound(discrete_gradient="enumeration").loss(energy, Batch(x), {}, None)


# ---------------------------------------------------------------- Gaussian latents


@pytest.mark.parametrize("family", [DiagonalGaussian, FullGaussian])
@pytest.mark.parametrize("n_samples", [1, 4])
def test_doubly_reparametrised_gradient_has_the_mean_of_the_plain_one(family, n_samples):
    energy, x = linear_gaussian(family), rows(3).repeat(200, 1)
    plain, plain_error, value = repeated(ImportanceWeightedBound(n_samples), energy, x, 300, seed=0)
    double, double_error, same = repeated(
        DoublyReparametrizedBound(n_samples), energy, x, 300, seed=1
    )
    error = (plain_error.square() + double_error.square()).sqrt()
    assert z_scores(double, error, plain) < 4.5
    assert same == pytest.approx(value, abs=0.02)


def test_one_draw_of_the_weighted_bound_is_the_evidence_lower_bound():
    energy, x = linear_gaussian(), rows(3).repeat(200, 1)
    elbo, error, value = repeated(EvidenceLowerBound(), energy, x, 300, seed=0)
    weighted, other, same = repeated(ImportanceWeightedBound(1), energy, x, 300, seed=1)
    assert z_scores(weighted, (error.square() + other.square()).sqrt(), elbo) < 4.5
    assert same == pytest.approx(value, abs=0.1)


@pytest.mark.parametrize("n_samples", [1, 16])
def test_at_the_exact_posterior_only_the_plain_gradient_is_noisy(n_samples):
    """All weights are equal there: the doubly reparametrised gradient of the encoder is 0."""
    energy, x = linear_gaussian(FullGaussian), rows(3)
    set_exact_posterior(energy)
    encoder = sum(p.numel() for p in energy.encoder.parameters())
    plain, _ = gradients(ImportanceWeightedBound(n_samples), energy, x, seeded())
    double, _ = gradients(DoublyReparametrizedBound(n_samples), energy, x, seeded())
    assert double[:encoder].abs().max() < 1e-10
    assert plain[:encoder].abs().max() > 1e-3


def test_more_samples_estimate_the_same_bound():
    energy, x = linear_gaussian(), rows(3).repeat(100, 1)
    one, error, value = repeated(EvidenceLowerBound(1), energy, x, 200, seed=0)
    four, other, same = repeated(EvidenceLowerBound(4), energy, x, 200, seed=1)
    assert z_scores(four, (error.square() + other.square()).sqrt(), one) < 4.5
    assert same == pytest.approx(value, abs=0.1)
    assert other.norm() < 0.7 * error.norm()


# ---------------------------------------------------------------- weights of the divergence


def parts(objective, energy, x, state=None):
    """The loss, and the loss without its divergence, on the same noise."""
    loss, new = objective.loss(energy, Batch(x), state or {}, seeded())
    q = energy.posterior(x)
    z = q.draw(energy.draw_noise(len(x), generator=seeded(), like=x))
    return float(loss.detach()), -float(energy.log_likelihood(x, z).detach().mean()), new


def test_beta_weighs_the_divergence():
    energy, x = linear_gaussian(), rows()
    divergence = float(energy.posterior(x).divergence().sum(dim=1).mean())
    for beta in (0.5, 1.0, 4.0):
        loss, reconstruction, _ = parts(EvidenceLowerBound(beta=beta), energy, x)
        assert loss - reconstruction == pytest.approx(beta * divergence, rel=1e-9)


def test_the_weight_rises_over_the_updates_of_the_warm_up():
    energy, x = linear_gaussian(), rows()
    objective = EvidenceLowerBound(beta=2.0, beta_warmup=4)
    divergence = float(energy.posterior(x).divergence().sum(dim=1).mean())
    state = objective.init_state(energy, 10, seeded())
    weights = []
    for _ in range(6):
        loss, reconstruction, state = parts(objective, energy, x, state)
        weights.append((loss - reconstruction) / divergence)
    assert weights == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0], rel=1e-6)


def test_free_bits_leave_small_divergences_alone():
    energy, x = linear_gaussian(), rows()
    each = energy.posterior(x).divergence().mean(dim=0)
    limit = float(each.mean())
    assert each.min() < limit < each.max()
    loss, reconstruction, _ = parts(EvidenceLowerBound(free_bits=limit), energy, x)
    assert loss - reconstruction == pytest.approx(float(each.clamp(min=limit).sum()), rel=1e-9)


def test_binary_rows_are_drawn_anew():
    energy = binary_energy(3)
    x = torch.full((2000, 4), 0.3, dtype=torch.float64)
    objective = DiscreteEvidenceLowerBound(discrete_gradient="enumeration", binarize=True)
    generator = seeded()
    first, second = (float(objective.loss(energy, Batch(x), {}, generator)[0]) for _ in range(2))
    assert first != second
    plain = DiscreteEvidenceLowerBound(discrete_gradient="enumeration")
    bits = (torch.rand(200_000, 4, generator=seeded(1), dtype=torch.float64) < 0.3).double()
    expected = float(plain.loss(energy, Batch(bits), {}, None)[0])
    assert first == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EvidenceLowerBound(n_samples=0), "n_samples=0"),
        (lambda: EvidenceLowerBound(beta=0.0), "beta=0.0 must be a positive"),
        (lambda: EvidenceLowerBound(beta=math.nan), "beta=nan"),
        (lambda: EvidenceLowerBound(beta_warmup=-1), "beta_warmup=-1"),
        (lambda: EvidenceLowerBound(free_bits=-0.1), "free_bits=-0.1"),
        (lambda: ImportanceWeightedBound(2.5), "n_samples=2.5"),
        (lambda: DiscreteEvidenceLowerBound(temperature=0.0), "temperature"),
        (
            lambda: DiscreteEvidenceLowerBound(discrete_gradient="exact"),
            "discrete_gradient='exact'",
        ),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
