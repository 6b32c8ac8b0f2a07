"""The closest latent: closed forms of linear generators, and rows that do not mix."""

import numpy as np
import pytest
import torch

from sklebm.inference.latents import closest_latents


def test_a_linear_generator_is_ridge_regression():
    rng = np.random.default_rng(0)
    W, x = rng.normal(size=(5, 3)), rng.normal(size=(20, 5))
    maps = torch.tensor(W)
    starts = torch.zeros(1, 3)
    z, cost = closest_latents(lambda z: z @ maps.T, torch.tensor(x), starts, n_steps=30, weight=0.1)
    expected = np.linalg.solve(W.T @ W / 5 + 0.1 * np.eye(3), W.T @ x.T / 5).T
    np.testing.assert_allclose(z, expected, atol=1e-9)
    energy = ((x - expected @ W.T) ** 2).mean(axis=1) + 0.1 * (expected**2).sum(axis=1)
    np.testing.assert_allclose(cost, energy, rtol=1e-12)


def test_several_starts_find_the_better_of_two_basins():
    """x = z^2 - 1 with a tilt: from z = -1 one basin, from z = 2 the lower one."""

    def decode(z):
        return torch.cat([z.square() - 1.0, 0.3 * z], dim=1)

    x = torch.tensor([[0.0, 0.3]], dtype=torch.float64)
    alone = closest_latents(decode, x, torch.tensor([[-1.5]]), n_steps=40)
    both = closest_latents(decode, x, torch.tensor([[-1.5], [2.0]]), n_steps=40)
    assert float(alone[0]) < 0.0
    assert abs(float(both[0]) - 1.0) < 0.01
    assert float(both[1]) < float(alone[1])


def test_rows_do_not_depend_on_their_company():
    network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4))
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(len(p))))
    network = network.double()
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    starts = torch.zeros(1, 2)
    whole = closest_latents(network, x, starts, n_steps=40)[0]
    single = torch.cat([closest_latents(network, row[None], starts, n_steps=40)[0] for row in x])
    np.testing.assert_allclose(single.detach(), whole.detach(), rtol=1e-9, atol=1e-9)


def relu_network():
    make = torch.Generator().manual_seed(1)
    network = torch.nn.Sequential(
        torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 32), torch.nn.ReLU()
    ).append(torch.nn.Linear(32, 12))
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=make) / p.shape[-1] ** 0.5)
    return network.requires_grad_(requires_grad=False)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-3), (torch.float64, 1e-9)])
def test_rows_at_kinks_settle_and_do_not_depend_on_their_company(dtype, close, monkeypatch):
    network, make = relu_network().to(dtype), torch.Generator().manual_seed(0)
    x = torch.randn(8, 12, generator=make).to(dtype)
    starts = torch.cat([torch.zeros(1, 4), torch.randn(2, 4, generator=make)])
    passed = []

    def decode(z):
        passed.append(len(z))
        return network(z)

    whole, cost = closest_latents(decode, x, starts, n_steps=100)
    # A pass for every step and one for its derivatives: those of all rows would be 200.
    assert sum(passed) < 0.6 * 200 * 3 * len(x)
    single = torch.cat([closest_latents(network, row[None], starts, n_steps=100)[0] for row in x])
    np.testing.assert_allclose(single, whole, atol=close)
    monkeypatch.setattr("sklebm.inference.latents._PATIENCE", 10**6)
    least = closest_latents(network, x, starts, n_steps=100)[1]
    assert float((cost / least).max()) < 1.003


def test_a_row_at_a_kink_ends_there():
    """(1 + |z|)^2 + (|z| - z / 2)^2 is least at its kink, from either side."""

    def decode(z):
        return torch.cat([1.0 + z.abs(), z.abs() - 0.5 * z], dim=1)

    x, passed = torch.zeros(1, 2, dtype=torch.float64), []
    for start in (-2.0, 1.5):
        passed.clear()
        z, cost = closest_latents(
            lambda z: passed.append(len(z)) or decode(z), x, torch.tensor([[start]]), n_steps=1000
        )
        assert float(cost[0]) == pytest.approx(0.5, rel=1e-2)
        assert abs(float(z[0, 0])) < 0.02
        assert len(passed) < 300


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_whose_energy_overflows_has_no_latent(dtype):
    x = torch.ones(3, 2, dtype=dtype)
    x[1] = torch.finfo(dtype).max ** 0.75
    z, cost = closest_latents(lambda z: z.repeat(1, 2), x, torch.ones(2, 1), n_steps=20)
    assert z.isnan()[:, 0].tolist() == [False, True, False]
    assert cost.isinf().tolist() == [False, True, False]


def test_a_start_that_overflows_does_not_hide_the_others():
    """z = 0 gives inf - inf, which is NaN; from z = 1 the row is met."""

    def decode(z):
        return z + torch.where(z == 0.0, torch.inf, 0.0) - torch.where(z == 0.0, torch.inf, 0.0)

    x = torch.full((2, 1), 0.5, dtype=torch.float64)
    z, cost = closest_latents(decode, x, torch.tensor([[0.0], [1.0]]), n_steps=40)
    torch.testing.assert_close(z, torch.full_like(z, 0.5 / 1.001))
    assert bool(cost.isfinite().all())
