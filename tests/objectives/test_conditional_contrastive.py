"""Noise-contrastive estimation: exact at noise = model, and its limits."""

import math

import numpy as np
import pytest
import torch

from sklebm.energies.reference import ReferenceGaussian
from sklebm.objectives import (
    Batch,
    ConditionalNoiseContrastive,
    ReferenceNoiseContrastive,
    ScoreMatching,
)
from sklebm.objectives.conditional_contrastive import conditional_loss
from tests.deep.models import make_energy, make_points
from tests.objectives.test_score_matching import Quadratic, correlated_rows, minimise


class Scaled(torch.nn.Module):
    """The reference's own energy plus a constant, so that its log Z is minus that constant."""

    def __init__(self, reference, constant):
        super().__init__()
        self.reference = reference
        self.constant = constant
        self.log_partition = torch.nn.Parameter(torch.tensor(0.0, dtype=torch.float64))

    def free_energy(self, x):
        return self.reference.free_energy(x) + self.constant


@pytest.mark.parametrize("n_noise", [1, 5])
def test_noise_equal_to_the_model_gives_log_z_exactly(n_noise):
    """Whatever the rows: all odds are alike, and their constant has one optimum."""
    model = Scaled(make_energy().reference, -3.7)
    x, objective = make_points(40), ReferenceNoiseContrastive(n_noise)

    def loss():
        return objective.loss(model, Batch(x), {}, torch.Generator().manual_seed(0))[0]

    minimise(loss, [model.log_partition])
    assert float(model.log_partition) == pytest.approx(3.7, abs=1e-8)
    least = math.log1p(n_noise) + n_noise * math.log1p(1 / n_noise)
    assert loss().item() == pytest.approx(least, rel=1e-12)


def test_loss_is_the_equation():
    energy, x = make_energy(), make_points(6)
    found = ReferenceNoiseContrastive(3).loss(
        energy, Batch(x), {}, torch.Generator().manual_seed(4)
    )[0]
    noise = energy.reference.draw(18, torch.Generator().manual_seed(4))

    def odds(u):
        log_q = energy.reference.log_density(u)
        log_model = -energy.free_energy(u) - energy.log_partition
        return (log_model - log_q - math.log(3)).detach().numpy()

    right = -np.log(1 / (1 + np.exp(-odds(x)))).mean()
    wrong = -3 * np.log(1 - 1 / (1 + np.exp(-odds(noise)))).mean()
    assert found.item() == pytest.approx(right + wrong, rel=1e-12)


def test_learns_precision_and_normaliser_of_a_gaussian():
    x, model = correlated_rows(100_000), Quadratic(3)
    model.log_partition = torch.nn.Parameter(torch.tensor(0.0, dtype=torch.float64))
    model.reference = ReferenceGaussian(torch.zeros(3).double(), 2.0 * torch.eye(3).double())

    def loss():
        return ReferenceNoiseContrastive(2).loss(
            model, Batch(x), {}, torch.Generator().manual_seed(0)
        )[0]

    minimise(loss, list(model.parameters()))
    covariance = np.cov(x.numpy().T)
    np.testing.assert_allclose(model.precision.detach(), np.linalg.inv(covariance), atol=0.05)
    truth = 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    assert float(model.log_partition) == pytest.approx(truth, abs=0.02)


def test_conditional_tends_to_score_matching_with_slope_two():
    """4 (J - log 2) / s^2 = score matching + O(s^2), with the noise +-s in one dimension."""
    energy, x = make_energy(1, (3,), 2), make_points(50, 1)
    truth = ScoreMatching().loss(energy, Batch(x), {}, torch.Generator())[0].item()
    scales = np.array([0.2, 0.1, 0.05, 0.025])
    gaps = []
    for scale in scales:
        moved = torch.cat([x + scale, x - scale])
        loss = conditional_loss(energy, x, moved).item()
        gaps.append(abs(4 * (loss - math.log(2)) / scale**2 - truth))
    slopes = np.diff(np.log(gaps)) / np.diff(np.log(scales))
    np.testing.assert_allclose(slopes[-2:], 2.0, atol=0.05)
    assert gaps[-1] < 1e-2 * abs(truth)


def test_conditional_learns_the_precision_of_a_gaussian():
    x, model = correlated_rows(100_000), Quadratic(3)
    objective = ConditionalNoiseContrastive(2, 0.7)

    def loss():
        return objective.loss(model, Batch(x), {}, torch.Generator().manual_seed(0))[0]

    minimise(loss, list(model.parameters()))
    covariance = np.cov(x.numpy().T)
    np.testing.assert_allclose(model.precision.detach(), np.linalg.inv(covariance), atol=0.05)


@pytest.mark.parametrize("kind", [ReferenceNoiseContrastive, ConditionalNoiseContrastive])
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "4"])
def test_numbers_of_noise_points_are_checked(kind, value):
    with pytest.raises(ValueError, match="n_noise"):
        kind(n_noise=value)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, "much"])
def test_scales_are_checked(value):
    with pytest.raises(ValueError, match="noise_scale"):
        ConditionalNoiseContrastive(noise_scale=value)
