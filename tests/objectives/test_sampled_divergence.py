"""Contrastive divergence with samplers: its gradient, its buffer, its step size."""

import math

import numpy as np
import pytest
import torch

from sklebm.inference.hamiltonian import HMC
from sklebm.inference.langevin import MALA, Langevin
from sklebm.objectives import (
    Batch,
    SampledContrastiveDivergence,
    SampledPersistentContrastiveDivergence,
)
from tests.deep.models import make_energy, make_points
from tests.inference.test_samplers import exact_draws

KINDS = [SampledContrastiveDivergence, SampledPersistentContrastiveDivergence]


def likelihood_gradient(energy, x, limit=8.0, n_cells=600):
    """Gradient of the mean of -log p over rows, by quadrature in two dimensions."""
    middles = torch.linspace(-limit, limit, n_cells, dtype=torch.float64)
    grid = torch.cartesian_prod(middles, middles)
    loss = energy.free_energy(x).mean() + torch.logsumexp(-energy.free_energy(grid), dim=0)
    return torch.autograd.grad(loss, parameters(energy))


def parameters(energy):
    return [p for name, p in energy.named_parameters() if name != "log_partition"]


@pytest.mark.parametrize("sampler", [HMC(0.3, 5), MALA(0.3)], ids=repr)
def test_chains_in_equilibrium_give_the_gradient_of_the_likelihood(sampler):
    energy, x = make_energy(2, (3,), 3), make_points(10, 2)
    chains = exact_draws(energy_without_graph(energy), 2, 40_000, limit=8.0)
    objective = SampledPersistentContrastiveDivergence(sampler, 2, restart=0.0)
    state = objective.init_state(energy, 40_000, torch.Generator().manual_seed(0))
    assert state["position"].shape == chains.shape
    state = {**state, "position": chains, "log_step": torch.full((40_000,), math.log(0.3)).double()}
    loss, state = objective.loss(energy, Batch(x), state, torch.Generator().manual_seed(0))
    assert (state["position"] != chains).any(dim=1).double().mean() > 0.5
    expected = likelihood_gradient(energy, x)
    found = torch.autograd.grad(loss, parameters(energy))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=0.05, rtol=0.03)


def energy_without_graph(energy):
    class Detached:
        def free_energy(self, x):
            with torch.no_grad():
                return energy.free_energy(x)

    return Detached()


def test_gradient_vanishes_at_the_truth():
    """Rows drawn from the model: steps from them lead to rows alike."""
    energy = make_energy(2, (3,), 3)
    x = exact_draws(energy_without_graph(energy), 2, 40_000, limit=8.0)
    objective = SampledContrastiveDivergence(HMC(0.3, 5), 2)
    state = objective.init_state(energy, 100, torch.Generator())
    loss, _ = objective.loss(energy, Batch(x), state, torch.Generator().manual_seed(0))
    away = likelihood_gradient(energy, x + 0.5)
    for one, other in zip(torch.autograd.grad(loss, parameters(energy)), away, strict=True):
        assert float(one.abs().max()) < 0.05
        assert float(other.abs().max()) > float(one.abs().max())


@pytest.mark.parametrize("sampler", [HMC(), MALA(), Langevin()], ids=repr)
@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_a_difference_of_energies_at_points_without_a_graph(kind, sampler):
    energy, x = make_energy(2, (3,), 3), make_points(10, 2)
    objective = kind(sampler)
    state = objective.init_state(energy, 10, torch.Generator().manual_seed(0))
    loss, after = objective.loss(energy, Batch(x), state, torch.Generator().manual_seed(0))
    assert all(not tensor.requires_grad for tensor in after.values())
    if "position" in after:
        gap = energy.free_energy(x).mean() - energy.free_energy(after["position"]).mean()
        torch.testing.assert_close(loss, gap)
    adapted = bool((after["log_step"] != state["log_step"]).any())
    assert adapted == (sampler.target_acceptance is not None)


def test_only_the_chains_that_are_drawn_move():
    energy, x = make_energy(2, (3,), 3), make_points(4, 2)
    objective = SampledPersistentContrastiveDivergence(Langevin(), n_chains=50, restart=0.0)
    generator = torch.Generator().manual_seed(0)
    state = objective.init_state(energy, 10, generator)
    assert len(state["position"]) == 50
    moved_ever = torch.zeros(50, dtype=torch.bool)
    for _ in range(60):
        before = state["position"]
        _, state = objective.loss(energy, Batch(x), state, generator)
        moved = (state["position"] != before).any(dim=1)
        assert int(moved.sum()) == 10
        moved_ever |= moved
    assert moved_ever.all()


def test_chains_begin_anew_at_the_reference():
    energy, x = make_energy(2, (3,), 3), make_points(4, 2)
    far = torch.full((1000, 2), 50.0, dtype=torch.float64)
    shares = {}
    for restart in (0.0, 0.25, 1.0):
        settings = {"restart": restart, "jump": 0.0}
        objective = SampledPersistentContrastiveDivergence(Langevin(1e-6), **settings)
        state = objective.init_state(energy, 1000, torch.Generator().manual_seed(0))
        state = {**state, "position": far, "log_step": torch.full((1000,), math.log(1e-6)).double()}
        _, state = objective.loss(energy, Batch(x), state, torch.Generator().manual_seed(0))
        shares[restart] = float((state["position"][:, 0] < 40).double().mean())
    assert shares[0.0] == 0.0
    assert shares[0.25] == pytest.approx(0.25, abs=0.05)
    assert shares[1.0] == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_checked(kind):
    for settings, name in (({"sampler": "hmc"}, "sampler"), ({"n_steps": 0}, "n_steps")):
        with pytest.raises(ValueError, match=name):
            kind(**settings)
    if kind is SampledPersistentContrastiveDivergence:
        wrong = ({"n_chains": 0}, {"restart": 1.5}, {"jump": -0.1}, {"jump": "all"})
        for settings, name in ((w, next(iter(w))) for w in wrong):
            with pytest.raises(ValueError, match=name):
                kind(**settings)


@pytest.mark.parametrize("kind", KINDS)
def test_former_names_have_no_second_names_of_settings(kind):
    """The constructor takes none, so that a file that has one is refused as such."""
    assert kind.aliases == {}
    with pytest.raises(TypeError, match="n_gibbs_steps"):
        kind(n_gibbs_steps=2)
