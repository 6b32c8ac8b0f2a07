"""Losses of predicted codes, against their definitions in NumPy."""

import numpy as np
import pytest
import torch

from sklebm.energies import L1, EncodedSparseCodingEnergy
from sklebm.inference.unfolded import Unfolding
from sklebm.objectives import Batch, CodePrediction


@pytest.fixture
def energy_and_rows():
    generator = torch.Generator().manual_seed(0)
    atoms, x, codes = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((7, 5), (20, 5), (20, 7))
    )
    encoder = Unfolding("lista", 2).start(atoms, 0.3)
    return EncodedSparseCodingEnergy(encoder, atoms, L1(), 0.3), x, codes


def loss(objective, energy, x, codes):
    value, state = objective.loss(energy, Batch(x, codes), {}, torch.Generator())
    assert state == {}
    return float(value.detach())


def test_the_last_layer(energy_and_rows):
    energy, x, codes = energy_and_rows
    error = ((energy.encode(x) - codes).detach().numpy() ** 2).sum(axis=1)
    assert loss(CodePrediction(), energy, x, codes) == pytest.approx(0.5 * error.mean())


def test_all_layers(energy_and_rows):
    energy, x, codes = energy_and_rows
    layers = [z.detach().numpy() for z in energy.encoder.layers(x)]
    assert len(layers) == 3
    scale = (codes.numpy() ** 2).sum()
    errors = [((z - codes.numpy()) ** 2).sum() / scale for z in layers]
    found = loss(CodePrediction("all"), energy, x, codes)
    assert found == pytest.approx(np.log(errors).mean())


def test_codes_that_are_all_zero_or_predicted_exactly_have_a_finite_loss(energy_and_rows):
    energy, x, codes = energy_and_rows
    assert np.isfinite(loss(CodePrediction("all"), energy, x, torch.zeros_like(codes)))
    exact = energy.encode(x).detach()
    assert np.isfinite(loss(CodePrediction("all"), energy, x, exact))
