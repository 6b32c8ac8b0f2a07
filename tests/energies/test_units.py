"""Units: the cumulant is the log partition, its derivatives the moments."""

import numpy as np
import pytest
import torch

from sklebm.energies import Bernoulli, Gaussian

FIELDS = torch.tensor([-800.0, -30.0, -2.5, 0.0, 0.3, 4.0, 20.5, 25.0, 800.0], dtype=torch.float64)


def test_cumulant_is_the_log_of_the_sum_over_both_states():
    unit = Bernoulli(torch.zeros(1))
    naive = np.logaddexp(0.0, FIELDS.numpy())
    np.testing.assert_allclose(unit.cumulant(FIELDS).numpy(), naive, rtol=1e-12)


def test_mean_and_variance_are_the_derivatives_of_the_cumulant():
    unit = Bernoulli(torch.zeros(1))
    field = FIELDS.clone().requires_grad_()
    (mean,) = torch.autograd.grad(unit.cumulant(field).sum(), field, create_graph=True)
    torch.testing.assert_close(mean, unit.mean(FIELDS), rtol=1e-12, atol=1e-14)
    (variance,) = torch.autograd.grad(mean.sum(), field)
    p = unit.mean(FIELDS)
    torch.testing.assert_close(variance, p * (1 - p), rtol=1e-12, atol=1e-14)


def test_energy_is_minus_the_bias_of_the_units_that_are_on():
    unit = Bernoulli(torch.tensor([1.0, -2.0, 0.5]))
    states = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    torch.testing.assert_close(unit.energy(states), torch.tensor([0.0, -1.5, 0.5]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_are_states_with_the_given_means(dtype):
    unit = Bernoulli(torch.zeros(4))
    means = torch.tensor([0.0, 0.2, 0.75, 1.0], dtype=dtype)
    n = 40_000
    draws = unit.draw(means.expand(n, -1).contiguous(), torch.Generator().manual_seed(0))
    assert draws.dtype == dtype
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    # Certain units never err; the others stay within four standard errors.
    assert draws[:, 0].sum() == 0
    assert draws[:, 3].sum() == n
    for column in (1, 2):
        p = float(means[column])
        assert abs(float(draws[:, column].double().mean()) - p) < 4 * (p * (1 - p) / n) ** 0.5


def test_draws_of_undefined_means_are_zero():
    """torch.bernoulli raises on the CPU and poisons the context on CUDA."""
    means = torch.tensor([[float("nan"), 1.0, float("nan")]])
    draws = Bernoulli(torch.zeros(3)).draw(means, torch.Generator().manual_seed(0))
    assert draws.tolist() == [[0.0, 1.0, 0.0]]
    assert means.isnan().sum() == 2


def test_draws_depend_on_their_generator_alone():
    unit, means = Bernoulli(torch.zeros(1)), torch.full((100,), 0.5)
    torch.manual_seed(1)
    first = unit.draw(means, torch.Generator().manual_seed(7))
    before = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(unit.draw(means, torch.Generator().manual_seed(7)), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(unit.draw(means, torch.Generator().manual_seed(8)), first)


def test_what_the_mean_of_rows_says():
    """Bits know their variance and their odds from it; real-valued units only where they are."""
    rows = (torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) < 0.2).double()
    mean = rows.mean(dim=0)
    bits, real = Bernoulli(torch.zeros(3)), Gaussian(torch.zeros(3), torch.zeros(1))
    torch.testing.assert_close(bits.implied_variance(mean), rows.var(dim=0, correction=0))
    # One more row, on half of the time, among a thousand.
    torch.testing.assert_close(bits.mean(bits.bias_for(mean)), (1000 * mean + 0.5) / 1001)
    assert real.implied_variance(mean) is None
    assert torch.equal(real.bias_for(mean), mean)
