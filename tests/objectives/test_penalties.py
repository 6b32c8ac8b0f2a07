"""Penalties against Jacobians by automatic differentiation and brute force."""

import numpy as np
import pytest
import torch
from torch import nn

from sklebm.energies import ReconstructionEnergy
from sklebm.energies.networks import initialize, make_decoder, make_encoder
from sklebm.objectives import (
    Batch,
    ContractiveReconstruction,
    ReconstructionError,
    SaturatingReconstruction,
    SparseReconstruction,
)
from sklebm.objectives.penalties import (
    COMPLEMENTS,
    jacobian_norm,
    kl_penalty,
    l1_penalty,
    saturation_penalty,
    single_layer_jacobian_norm,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_energy(n_components=5, hidden_sizes=(), last="sigmoid", tied=False, seed=0):
    encoder = make_encoder((4,), hidden_sizes, n_components, "tanh", last)
    decoder = make_decoder(
        n_components, hidden_sizes, (4,), "tanh", "identity", tied_to=encoder if tied else None
    )
    for network in (encoder, decoder):
        initialize(network, seeded(seed))
    energy = ReconstructionEnergy(encoder, decoder).double()
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter += 0.3 * torch.randn(
                parameter.shape, generator=seeded(seed + 1), dtype=torch.float64
            )
    return energy


def rows(n_rows=7, seed=2):
    return torch.randn(n_rows, 4, generator=seeded(seed), dtype=torch.float64)


def full_jacobian_norm(energy, x):
    jacobians = [torch.autograd.functional.jacobian(energy.encode, row[None]) for row in x]
    return torch.stack([jacobian.square().sum() for jacobian in jacobians])


# ---------------------------------------------------------------- contractive


@pytest.mark.parametrize("last", ["sigmoid", "tanh", "softplus", "relu", "identity"])
def test_closed_form_is_the_norm_of_the_jacobian(last):
    energy, x = make_energy(last=last), rows()
    z, norm = single_layer_jacobian_norm(energy.encoder, x)
    torch.testing.assert_close(z, energy.encode(x))
    torch.testing.assert_close(norm, full_jacobian_norm(energy, x))


@pytest.mark.parametrize("hidden_sizes", [(), (6,), (6, 3)])
def test_backward_passes_give_the_norm_of_the_jacobian(hidden_sizes):
    energy, x = make_energy(hidden_sizes=hidden_sizes), rows()
    with torch.no_grad():
        z, norm = jacobian_norm(energy.encode, x, None)
    torch.testing.assert_close(z, energy.encode(x))
    torch.testing.assert_close(norm.detach(), full_jacobian_norm(energy, x))


def test_hutchinson_estimate_is_unbiased():
    energy, x = make_energy(n_components=12, hidden_sizes=(6,)), rows(2)
    many = x.repeat(40_000, 1)
    _, norm = jacobian_norm(energy.encode, many, seeded())
    estimates = norm.detach().reshape(40_000, 2)
    error = estimates.std(dim=0) / 200
    distance = (estimates.mean(dim=0) - full_jacobian_norm(energy, x)).abs()
    assert (error > 0).all()
    assert (distance < 4 * error).all()


@pytest.mark.parametrize("hidden_sizes", [(), (6,)])
def test_gradient_of_the_contractive_loss_is_that_of_finite_differences(hidden_sizes):
    energy, x = make_energy(n_components=3, hidden_sizes=hidden_sizes), rows()
    weight = energy.encoder[0].weight
    objective = ContractiveReconstruction(alpha=0.7)

    def loss():
        return objective.loss(energy, Batch(x), {}, seeded())[0]

    loss().backward()
    for index in [(0, 0), (1, 2)]:
        step = torch.zeros_like(weight)
        step[index] = 1e-6
        with torch.no_grad():
            weight += step
            above = loss()
            weight -= 2 * step
            below = loss()
            weight += step
        assert float(weight.grad[index]) == pytest.approx(
            float((above - below).detach()) / 2e-6, rel=1e-5
        )


def test_softmax_codes_are_not_taken_for_functions_of_each_unit():
    encoder = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1)).double()
    energy = ReconstructionEnergy(encoder, nn.Linear(3, 4).double())
    x = rows()
    loss, _ = ContractiveReconstruction(alpha=1.0).loss(energy, Batch(x), {}, seeded())
    expected = energy.free_energy(x).mean() + full_jacobian_norm(energy, x).mean()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-10)


def test_tied_sigmoid_model_is_regularised_score_matching():
    """Vincent (2011); Swersky et al. (2011): for the free energy

        F(x) = |x|^2 / 2 - b'x - sum_k S(w_k'x + c_k)

    x minus its reconstruction is the gradient of F, and the score-matching objective
    |dF|^2 / 2 - trace d2F is half the squared error plus the curvature sum_k s'(a_k) |w_k|^2 - d.
    """
    energy, x = make_energy(tied=True), rows(5)
    weight, bias = energy.encoder[0].weight, energy.encoder[0].bias
    offset = energy.decoder[0].bias

    def free_energy(v):
        units = torch.nn.functional.softplus(v @ weight.T + bias, threshold=40.0).sum()
        return 0.5 * (v @ v) - v @ offset - units

    for v in x:
        v = v.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(free_energy(v), v)
        torch.testing.assert_close(gradient, v - energy.reconstruct(v[None])[0])
        hessian = torch.autograd.functional.hessian(free_energy, v)
        score_matching = 0.5 * gradient.square().sum() - hessian.trace()
        slope = torch.sigmoid(v @ weight.T + bias)
        curvature = (slope * (1 - slope)) @ weight.square().sum(dim=1)
        half_error = 0.5 * energy.free_energy(v[None])[0]
        torch.testing.assert_close(score_matching, half_error + curvature - 4)


# ---------------------------------------------------------------- sparse and saturating


def test_sparse_penalties_are_their_formulas():
    energy, x = make_energy(), rows()
    z = energy.encode(x).detach().numpy()
    error = float(energy.free_energy(x).mean().detach())
    for objective, price in (
        (SparseReconstruction("l1", 0.3), np.abs(z).sum(axis=1).mean()),
        (
            SparseReconstruction("kl", 0.3, 0.1),
            (0.1 * np.log(0.1 / z.mean(axis=0)) + 0.9 * np.log(0.9 / (1 - z.mean(axis=0)))).sum(),
        ),
    ):
        loss, _ = objective.loss(energy, Batch(x), {}, None)
        assert float(loss.detach()) == pytest.approx(error + 0.3 * price, rel=1e-10)
    assert float(kl_penalty(torch.full((4, 3), 0.1), 0.1)) == pytest.approx(0.0, abs=1e-6)
    torch.testing.assert_close(l1_penalty(torch.tensor([[1.0, -2.0]])), torch.tensor([3.0]))


@pytest.mark.parametrize("function", COMPLEMENTS)
def test_complement_is_the_distance_to_where_the_function_is_flat(function):
    units = make_encoder((1,), (), 1, "relu", function)[-1]
    grid = torch.linspace(-3, 3, 60_001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(units(grid).sum(), grid)
    flat = grid.detach()[slope == 0]
    a = torch.linspace(-2, 2, 81, dtype=torch.float64)[:, None]
    truth = (a - flat).abs().min(dim=1).values
    torch.testing.assert_close(saturation_penalty(a, function), truth, atol=2e-4, rtol=0)


def test_saturating_loss_is_its_formula():
    energy, x = make_energy(last="saturated_linear"), rows()
    loss, _ = SaturatingReconstruction("saturated_linear", 0.5).loss(energy, Batch(x), {}, None)
    a = energy.encoder[0](x).detach().numpy()
    price = np.maximum(0.5 - np.abs(a - 0.5), 0).sum(axis=1).mean()
    error = float(energy.free_energy(x).mean().detach())
    assert float(loss.detach()) == pytest.approx(error + 0.5 * price, rel=1e-10)


def test_without_weight_every_penalty_is_plain_reconstruction():
    x = rows()
    for objective, last in (
        (SparseReconstruction(alpha=0.0), "sigmoid"),
        (ContractiveReconstruction(alpha=0.0), "sigmoid"),
        (SaturatingReconstruction(alpha=0.0), "saturated_linear"),
    ):
        energy = make_energy(last=last)
        plain, _ = ReconstructionError().loss(energy, Batch(x), {}, None)
        loss, _ = objective.loss(energy, Batch(x), {}, None)
        assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-12)
