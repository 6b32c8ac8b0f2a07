"""New persistent chains of a machine that is already trained are samples of it.

Machines of two modes, with half of the rows in each, that no single step leads between; independent
units with the biases of the machine know of one only.
"""

import numpy as np
import pytest
import torch

from sklebm import (
    BernoulliRBM,
    BoltzmannMachine,
    DeepBoltzmannMachine,
    DeepEnergyModel,
    EnergyClassifier,
    GaussianRBM,
)
from sklebm.objectives import PersistentContrastiveDivergence

N_FEATURES, N_CHAINS = 8, 200
# One unit decides for all of the others: on, they are on with log odds of 6; off, with -6.
PULL = np.full((1, N_FEATURES), 12.0)
OFF = np.full(N_FEATURES, -6.0)
EVEN = np.full(1, -6.0 * N_FEATURES)  # both modes have the same probability
STILL = {"batch_size": N_CHAINS, "learning_rate": 1e-12, "random_state": 0}


def make_bits():
    sides = np.repeat([[0.0], [1.0]], N_CHAINS // 2, axis=0)
    return np.tile(sides, N_FEATURES).astype(np.float32)


def restricted(objective):
    model = BernoulliRBM.from_parameters(
        components=PULL, intercept_hidden=EVEN, intercept_visible=OFF
    )
    return model.set_params(objective=objective)


def on_a_graph():
    couplings = np.zeros((N_FEATURES + 1, N_FEATURES + 1))
    couplings[-1, :-1] = couplings[:-1, -1] = PULL
    model = BoltzmannMachine.from_parameters(
        couplings=couplings, intercept_visible=OFF, intercept_hidden=EVEN
    )
    return model.set_params(objective="pcd")


def deep():
    weights = {"layer1": PULL, "layer2": np.zeros((1, 1))}
    intercepts = {"layer0": OFF, "layer1": EVEN, "layer2": np.zeros(1)}
    return DeepBoltzmannMachine.from_parameters(weights=weights, intercepts=intercepts)


def real_valued():
    """Two Gaussians of variance 1 at 3 and -3 in every feature."""
    model = GaussianRBM.from_parameters(
        components=np.full((1, N_FEATURES), 6.0),
        intercept_hidden=np.zeros(1),
        intercept_visible=np.full(N_FEATURES, -3.0),
        log_variance=np.zeros(1),
    )
    return model.set_params(objective="pcd")


MACHINES = {
    "pcd": lambda: restricted("pcd"),
    "fast_pcd": lambda: restricted("fast_pcd"),
    "tempered_pcd": lambda: restricted("tempered_pcd"),
    "graph": on_a_graph,
    "deep": deep,
    "real": real_valued,
}


def share_in_the_upper_mode(model):
    state = {
        key.removeprefix("objective."): torch.from_numpy(np.array(value))
        for key, value in model.training_state_.items()
        if key.startswith("objective.")
    }
    chains = model._objective(model._energy(torch.device("cpu"))).chains(state)
    assert len(chains) == N_CHAINS
    # Modes are at 0 and 1, or at -3 and 3; hidden units and deeper layers follow the visible ones.
    return (chains[:, :N_FEATURES].mean(dim=1) > 0.5).double().mean().item()


# Half of N_CHAINS independent chains, within four standard deviations.
HALF = pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(N_CHAINS))


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("rows", [slice(None), slice(1), slice(N_CHAINS // 2)])
def test_chains_of_given_machines_are_in_both_modes(name, rows):
    """Whatever the first chunk is: all rows, one, or those of one mode."""
    model = MACHINES[name]().set_params(**STILL).partial_fit(make_bits()[rows])
    assert share_in_the_upper_mode(model) == HALF


def test_chains_of_another_objective_are_in_both_modes():
    model = restricted("cd").set_params(**STILL).partial_fit(make_bits())
    model.set_params(objective="pcd").partial_fit(make_bits()[:1])
    assert share_in_the_upper_mode(model) == HALF


def test_chains_after_the_greedy_start_know_of_both_modes():
    """Independent units with the biases that the layers have learnt would all be in one."""
    model = DeepBoltzmannMachine(
        (4, 2), max_epochs=1, pretraining_epochs=200, log_partition=None, batch_size=50,
        learning_rate_schedule="constant", random_state=0,
    ).fit(make_bits())  # fmt: skip
    chains = model.training_state_["objective.visible"][:, :N_FEATURES].mean(axis=1)
    assert 0.0 < (chains > 0.5).mean() < 1.0


@pytest.mark.parametrize("n_chains", [20, 50])
def test_chains_that_follow_gradients_keep_their_step_sizes(n_chains):
    """Two clusters at +-4000 in units of 1000, learnt without chains."""
    rng = np.random.default_rng(0)
    X = 1000.0 * (rng.choice([-4.0, 4.0], size=(400, 1)) + rng.standard_normal((400, 2)))
    objective = PersistentContrastiveDivergence(n_chains=n_chains)
    model = DeepEnergyModel(8, hidden_sizes=(16,), max_epochs=30, random_state=0)
    model.fit(X)
    model.set_params(objective=objective, batch_size=20, learning_rate=1e-9).partial_fit(X)
    state = model.training_state_
    assert state["objective.log_step"].shape == (n_chains,)
    assert state["objective.log_step"].min() > 0.0  # a step in units of the rows, not of 1
    assert len(state["objective.position"]) == n_chains
    scores = model.score_samples(state["objective.position"] + model.offset_)
    assert np.median(scores) > np.quantile(model.score_samples(X), 0.05)


def test_a_classifier_that_goes_on_with_densities_has_settled_chains():
    """Their free energy is that of samples, and not that of the reference density."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    X = np.where(y, 3.0, -3.0)[:, None] + 0.3 * rng.standard_normal((400, 2))
    model = EnergyClassifier(hidden_sizes=(16,), joint=True, max_epochs=60, random_state=0)
    model.fit(X, y).set_params(joint="pcd", learning_rate=1e-12).partial_fit(X, y)
    energy = model._energy(torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        new = energy.reference.draw(1000, generator)
        settled = torch.from_numpy(model.training_state_["objective.position"]).to(new)
        gap = energy.free_energy(new).mean() - energy.free_energy(settled).mean()
    # The steps of these few updates alone lower it by 0.27; standard errors are 0.03.
    assert gap > 0.5
