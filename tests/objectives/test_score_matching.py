"""Score matching against quadrature, finite differences and closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from sklebm.energies.reference import ReferenceGaussian
from sklebm.objectives import Batch, DenoisingScoreMatching, ScoreMatching, SlicedScoreMatching
from sklebm.objectives.score_matching import gradient_and_laplacian, projected_curvature
from tests.deep.models import make_energy, make_points


class Quadratic(nn.Module):
    """F(x) = (x - m)' P (x - m) / 2 with a free matrix P."""

    def __init__(self, n_features):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(n_features, dtype=torch.float64))
        self.precision = nn.Parameter(torch.eye(n_features, dtype=torch.float64))
        self.reference = ReferenceGaussian(
            torch.zeros(n_features).double(), torch.eye(n_features).double()
        )

    def free_energy(self, x):
        centred = x - self.mean
        symmetric = 0.5 * (self.precision + self.precision.T)
        return 0.5 * ((centred @ symmetric) * centred).sum(dim=1)


def correlated_rows(n_rows, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(
        rng.standard_normal((n_rows, 3)) @ [[1, 0.5, 0], [0, 1, 0.4], [0, 0, 2]]
    )


def minimise(loss, parameters):
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=1000,
        tolerance_grad=1e-13,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


def exact_loss(energy, x):
    return ScoreMatching().loss(energy, Batch(x), {}, torch.Generator())[0]


def test_gaussian_gets_the_inverse_sample_covariance():
    x, energy = correlated_rows(300), Quadratic(3)
    minimise(lambda: exact_loss(energy, x), energy.parameters())
    inverse = np.linalg.inv(np.cov(x.numpy().T, ddof=0))
    found = energy.precision.detach().numpy()
    found = 0.5 * (found + found.T)
    assert np.linalg.norm(found - inverse) < 1e-8 * np.linalg.norm(inverse)
    np.testing.assert_allclose(energy.mean.detach(), x.mean(dim=0), atol=1e-8)


def test_loss_is_the_divergence_of_scores_up_to_a_constant():
    """E_p |s_model - s_p|^2 / 2 = J + E_p |s_p|^2 / 2, all by quadrature in one dimension."""
    grid = torch.linspace(-9, 9, 40_001, dtype=torch.float64)[:, None]
    data = make_energy(1, (3,), 2, seed=5)
    p = torch.softmax(-data.free_energy(grid).detach(), dim=0)
    truth = -data.gradient_and_laplacian(grid)[0].detach()[:, 0]
    for seed in range(3):
        model = make_energy(1, (4,), 3, seed=seed)
        slope, laplacian = (part.detach() for part in model.gradient_and_laplacian(grid))
        divergence = 0.5 * (p * (slope[:, 0] + truth) ** 2).sum()
        loss = (p * (0.5 * slope[:, 0] ** 2 - laplacian)).sum()
        constant = 0.5 * (p * truth**2).sum()
        assert float(divergence) == pytest.approx(float(loss + constant), rel=1e-9)
        # The objective is that loss, as a mean over rows.
        x = make_points(9, 1)
        slope, laplacian = gradient_and_laplacian(model, x)
        expected = (0.5 * slope.square().sum(dim=1) - laplacian).mean()
        torch.testing.assert_close(exact_loss(model, x), expected)


@pytest.mark.parametrize(
    "objective", [ScoreMatching(), SlicedScoreMatching(2), DenoisingScoreMatching(0.5)]
)
@pytest.mark.parametrize("has_closed_form", [True, False])
def test_gradients_are_finite_differences(objective, has_closed_form, monkeypatch):
    energy, x = make_energy(2, (3,), 2), make_points(5, 2)
    if not has_closed_form:
        monkeypatch.setattr(type(energy), "has_closed_derivatives", False)

    def loss():
        return objective.loss(energy, Batch(x), {}, torch.Generator().manual_seed(0))[0]

    energy.log_partition.requires_grad_(False)
    parameters = [p for p in energy.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss(), parameters, materialize_grads=True)
    h = 1e-5
    for parameter, gradient in zip(parameters, gradients, strict=True):
        flat = parameter.data.view(-1)
        for index in range(len(flat)):
            start = flat[index].item()
            flat[index] = start + h
            up = loss().item()
            flat[index] = start - h
            down = loss().item()
            flat[index] = start
            expected = (up - down) / (2 * h)
            assert gradient.reshape(-1)[index].item() == pytest.approx(expected, abs=2e-8, rel=1e-6)


def test_sliced_is_unbiased():
    """The mean over all vectors of signs is the exact loss."""
    energy, x = make_energy(), make_points()
    losses = []
    for signs in itertools.product((-1.0, 1.0), repeat=3):
        v = torch.tensor(signs, dtype=torch.float64).expand(len(x), -1)
        slope, curvature = projected_curvature(energy, x, v)
        losses.append((0.5 * slope.square().sum(dim=1) - curvature).mean())
    torch.testing.assert_close(torch.stack(losses).mean(), exact_loss(energy, x))


def test_sliced_draws_signs_of_mean_zero():
    energy, x = make_energy(), make_points()
    generator = torch.Generator().manual_seed(0)
    draws = [
        SlicedScoreMatching().loss(energy, Batch(x), {}, generator)[0].item() for _ in range(2000)
    ]
    error = np.std(draws) / math.sqrt(len(draws))
    assert error > 0
    assert np.mean(draws) == pytest.approx(exact_loss(energy, x).item(), abs=4 * error)
    many = SlicedScoreMatching(2000).loss(energy, Batch(x), {}, generator)[0].item()
    assert many == pytest.approx(exact_loss(energy, x).item(), abs=4 * error)


def test_denoising_learns_the_smoothed_density():
    """On Gaussian rows the optimum has covariance C + s^2 I."""
    x, energy = correlated_rows(200_000), Quadratic(3)
    noise_scale = 0.8  # of a reference whose scale is 1
    objective = DenoisingScoreMatching(noise_scale)

    def loss():
        return objective.loss(energy, Batch(x), {}, torch.Generator().manual_seed(0))[0]

    minimise(loss, energy.parameters())
    smoothed = np.cov(x.numpy().T, ddof=0) + noise_scale**2 * np.eye(3)
    found = np.linalg.inv(energy.precision.detach().numpy())
    np.testing.assert_allclose(found, smoothed, rtol=0.02, atol=0.03)


def test_denoising_tends_to_score_matching():
    """J_denoising / s^2 - d / 2 s^2 -> J as the noise shrinks: slopes of the two agree."""
    x, energy = correlated_rows(200_000, seed=1), Quadratic(3)
    small = DenoisingScoreMatching(0.05)
    generator = torch.Generator().manual_seed(0)
    loss = small.loss(energy, Batch(x), {}, generator)[0]
    (found,) = torch.autograd.grad(loss, [energy.precision])
    (exact,) = torch.autograd.grad(exact_loss(energy, x), [energy.precision])
    np.testing.assert_allclose(found, exact, atol=0.2)


@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_numbers_of_projections_are_checked(value):
    with pytest.raises(ValueError, match="n_projections"):
        SlicedScoreMatching(value)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, "much", True])
def test_noise_is_checked(value):
    with pytest.raises(ValueError, match="noise_scale"):
        DenoisingScoreMatching(value)
