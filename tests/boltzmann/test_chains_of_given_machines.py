"""New persistent chains of a machine that is already trained are samples of it.

Machines of two modes, with half of the rows in each, that no single step leads between; independent
units with the biases of the machine know of one only.
"""

import numpy as np
import pytest
import torch

from sklebm import BernoulliRBM, BoltzmannMachine, DeepBoltzmannMachine

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


MACHINES = {
    "pcd": lambda: restricted("pcd"),
    "fast_pcd": lambda: restricted("fast_pcd"),
    "tempered_pcd": lambda: restricted("tempered_pcd"),
    "graph": on_a_graph,
    "deep": deep,
}


@pytest.mark.parametrize("name", MACHINES)
def test_chains_of_given_machines_are_in_both_modes(name):
    model = MACHINES[name]().set_params(**STILL)
    model.partial_fit(make_bits())
    state = {
        key.removeprefix("objective."): torch.from_numpy(np.array(value))
        for key, value in model.training_state_.items()
        if key.startswith("objective.")
    }
    chains = model._objective(model._energy(torch.device("cpu"))).chains(state)
    share = (chains[:, :N_FEATURES].mean(dim=1) > 0.5).double().mean().item()
    # Half of N_CHAINS independent chains, within four standard deviations.
    assert share == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(N_CHAINS))
