"""Settings that change what an objective does, not how well: steps, shares, scales."""

import math

import numpy as np
import pytest
import torch

from sklebm.energies.reference import ReferenceGaussian
from sklebm.inference.langevin import Langevin
from sklebm.objectives import (
    Batch,
    DenoisingScoreMatching,
    FastPersistentContrastiveDivergence,
    PersistentContrastiveDivergence,
    SampledPersistentContrastiveDivergence,
)
from tests.inference.test_gibbs import bernoulli_table
from tests.machines import all_states, balanced_machine, parameters
from tests.objectives.test_score_matching import Quadratic

DOUBLE = torch.float64


def hidden_kernel(machine):
    """p(h' | h) = sum_v p(h' | v) p(v | h), from the equations."""
    weights, hidden_bias, visible_bias = parameters(machine)
    v, h = all_states(len(visible_bias)), all_states(len(hidden_bias))
    to_visible = bernoulli_table(visible_bias + h @ weights, v)
    return to_visible @ bernoulli_table(hidden_bias + v @ weights.T, h)


@pytest.mark.parametrize(
    "kind", [PersistentContrastiveDivergence, FastPersistentContrastiveDivergence]
)
@pytest.mark.parametrize("n_steps", [1, 2, 6])
def test_persistent_chains_take_the_steps_that_were_asked_for(kind, n_steps):
    """From one state, the hidden units after k steps follow the k-th power of the kernel."""
    machine, n_chains = balanced_machine(4, 2, scale=3.0), 20_000
    objective = kind(n_gibbs_steps=n_steps, n_chains=n_chains)
    generator = torch.Generator().manual_seed(0)
    state = objective.init_state(machine, 10, generator)
    state = {**state, "hidden": torch.zeros_like(state["hidden"])}
    rows = torch.tensor(all_states(4))
    with torch.no_grad():
        after = objective.gradients(machine, Batch(rows), state, generator)[2]["hidden"].numpy()
    found = np.bincount(after.astype(int) @ [2, 1], minlength=4) / n_chains
    powers = [np.linalg.matrix_power(hidden_kernel(machine), k)[0] for k in range(10)]
    error = 4.5 * 0.5 / math.sqrt(n_chains)
    np.testing.assert_allclose(found, powers[n_steps], atol=error)
    # Another number of steps would be seen.
    others = [powers[k] for k in {0, 1, 2, 6} - {n_steps}]
    assert all(np.abs(found - p).max() > 2 * error for p in others)


class Normal:
    """F(x) = |x|^2 / 2 in many dimensions, with its own density as the reference."""

    def __init__(self, n_features):
        self.weight = torch.ones((), dtype=DOUBLE, requires_grad=True)
        self.reference = ReferenceGaussian(
            torch.zeros(n_features, dtype=DOUBLE), torch.eye(n_features, dtype=DOUBLE)
        )

    def free_energy(self, x):
        return self.weight * 0.5 * x.square().sum(dim=1)


@pytest.mark.parametrize(
    ("n_features", "jump", "share"),
    [(2, None, 0.25), (16, None, 0.25), (40, None, 0.1), (200, None, 0.02), (200, 0.5, 0.5)],
)
def test_jumps_are_proposed_to_fewer_chains_the_more_features(n_features, jump, share):
    """The reference is the model, so that every proposal is taken: the share can be counted."""
    energy, n_chains = Normal(n_features), 1000
    objective = SampledPersistentContrastiveDivergence(Langevin(1e-9), jump=jump)
    state = objective.init_state(energy, n_chains, torch.Generator().manual_seed(0))
    before = state["position"]
    _, state = objective.loss(energy, Batch(before[:5]), state, torch.Generator().manual_seed(1))
    jumped = (state["position"] - before).norm(dim=1) > 1e-3
    assert int(jumped.sum()) == round(share * n_chains)


@pytest.mark.parametrize("scale", [0.2, 1.0, 3.0])
def test_denoising_learns_the_density_of_rows_plus_noise_of_that_scale(scale):
    """The best quadratic F has the inverse of (covariance + s^2) as its matrix."""
    n_rows = 40_000
    deviations = torch.tensor([0.5, 1.0, 2.0], dtype=DOUBLE)
    x = deviations * torch.randn(
        n_rows, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)
    )
    energy, objective = Quadratic(3), DenoisingScoreMatching(scale)
    truth = 1.0 / (deviations.square() + scale**2)
    slopes = []
    for factor in (0.8, 1.0, 1.25):
        energy.precision.data = torch.diag(factor * truth)
        loss, _ = objective.loss(energy, Batch(x), {}, torch.Generator().manual_seed(1))
        (gradient,) = torch.autograd.grad(loss, energy.precision)
        slopes.append(gradient.diagonal().numpy())
    # d/dP of E |P y - e / s|^2 / 2 is P (v + s^2) - 1; e^2 has variance 2, x e / s v / s^2.
    error = 4.5 * math.sqrt((4 + 4 / scale**2) / n_rows)
    np.testing.assert_allclose(slopes, [[-0.2] * 3, [0.0] * 3, [0.25] * 3], atol=error)
