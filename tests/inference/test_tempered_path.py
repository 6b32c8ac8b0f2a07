"""Large machines of bits sum what units receive in single precision; their log Z stays exact."""

import numpy as np
import pytest
import torch

from sklebm.energies import Bernoulli, BilinearEnergy, Gaussian
from sklebm.energies.gaussian_bilinear import GaussianBilinearEnergy
from sklebm.inference import ais, enumeration
from sklebm.inference.tempered_path import TemperedPath


def machine(n_visible, n_hidden, seed=0):
    random = torch.Generator().manual_seed(seed)
    weights, b, c = (
        scale * torch.randn(*shape, generator=random, dtype=torch.float64)
        for scale, shape in ((0.1, (n_hidden, n_visible)), (1.0, (n_visible,)), (1.0, (n_hidden,)))
    )
    return BilinearEnergy(Bernoulli(b), Bernoulli(c), weights)


def test_what_units_receive_has_the_rounding_error_of_single_precision():
    energy, generator = machine(400, 200), torch.Generator().manual_seed(0)
    path = TemperedPath(energy, torch.zeros(400))
    v = path.draw_base(50, generator)
    seen, exact = path.observe(v), energy.hidden_field(v)
    assert path.rounded is not None
    assert 0.0 < (seen - exact).abs().max() < 1e-5
    weight, plain = (path.log_weight(v, field, 0.25, 0.75) for field in (seen, exact))
    np.testing.assert_allclose(weight.detach(), plain.detach(), atol=1e-4)
    # The same uniform numbers decide all but the closest calls.
    field = path.base + 0.5 * (path.slope + v[:, :200] @ energy.weights)
    expected = Bernoulli.draw(
        energy.visible, torch.sigmoid(field), torch.Generator().manual_seed(1)
    )
    drawn = path.draw_visible(v[:, :200], 0.5, torch.Generator().manual_seed(1))
    assert drawn.dtype == torch.float64
    assert (drawn == expected).double().mean() > 0.999
    # Both directions use the rounded weights: without them, biases are left.
    path.rounded = torch.zeros_like(path.rounded)
    np.testing.assert_allclose(path.observe(v).detach(), energy.hidden.bias.detach().expand(50, -1))
    drawn = path.draw_visible(v[:, :200], 0.5, torch.Generator().manual_seed(1))
    expected = torch.sigmoid(0.5 * energy.visible.bias.detach()).expand(50, -1)
    expected = Bernoulli.draw(energy.visible, expected, torch.Generator().manual_seed(1))
    np.testing.assert_array_equal(drawn.detach(), expected)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_a_program_that_lowers_precision_gets_double(precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        assert TemperedPath(machine(400, 200), torch.zeros(400)).rounded is None
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("kind", ["small", "single", "real-valued"])
def test_others_keep_their_precision(kind):
    energy = machine(40, 20) if kind == "small" else machine(400, 200)
    if kind == "single":
        energy = energy.float()
    if kind == "real-valued":
        units = Gaussian(energy.visible.bias.detach(), torch.zeros(1, dtype=torch.float64), True)
        energy = GaussianBilinearEnergy(units, energy.hidden, energy.weights.detach())
    path = TemperedPath(energy, torch.zeros(len(energy.visible.bias)))
    v = path.draw_base(5, torch.Generator().manual_seed(0))
    assert path.rounded is None
    np.testing.assert_array_equal(path.observe(v).detach(), energy.hidden_field(v).detach())


def test_log_z_of_a_large_machine_is_the_sum_over_its_hidden_states():
    """Dense: every visible unit receives 12 terms, every hidden one 5,600."""
    energy = machine(5600, 12)
    exact = float(enumeration.log_partition(energy).detach())
    path = TemperedPath(energy, torch.zeros(5600))
    assert path.rounded is not None
    with torch.no_grad():
        found = ais.forward(
            path, torch.Generator().manual_seed(0), n_chains=100, n_temperatures=300
        )
    assert found.low <= exact <= found.high
    assert found.value == pytest.approx(exact, abs=0.3)
