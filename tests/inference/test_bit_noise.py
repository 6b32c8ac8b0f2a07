"""Noise for bits: densities that add up, draws that follow them, and the choice among them."""

import itertools

import numpy as np
import pytest
import torch

from sklebm import BernoulliRBM
from sklebm.energies.bit_densities import BitTree, best_tree
from sklebm.inference import bit_noise
from sklebm.objectives import NoiseContrastive

STATES = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9)), dtype=torch.float64)


def bars(n_rows, seed=0):
    """3 x 3 pictures of which all rows, or all columns, are on or off: 14 different ones."""
    rng = np.random.default_rng(seed)
    lines = rng.integers(0, 2, size=(n_rows, 3)).astype(float)
    pictures = np.repeat(lines[:, :, None], 3, axis=2)
    turned = rng.random(n_rows) < 0.5
    pictures[turned] = pictures[turned].transpose(0, 2, 1)
    return pictures.reshape(n_rows, 9)


def independent_rows(n_rows, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((n_rows, 9)) < np.linspace(0.1, 0.8, 9)).astype(float)


def learnt(rows, batch_size=100):
    rows = torch.tensor(rows)
    state = bit_noise.init(rows[0])
    for x in torch.split(rows, batch_size):
        state = bit_noise.learn(state, x, x.new_full((len(x),), 1.0 / len(x)))
    return state


@pytest.mark.parametrize("kind", bit_noise.KINDS)
@pytest.mark.parametrize("blended", [False, True])
def test_draws_follow_a_density_that_sums_to_one(kind, blended):
    make = bit_noise.density if blended else bit_noise.estimate
    noise, n = make(learnt(bars(2000)), kind), 20_000
    p = noise.log_density(STATES).exp()
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-12)
    v = noise.draw(n, torch.Generator().manual_seed(0))
    numbers = (v @ (2.0 ** torch.arange(8, -1, -1)).double()).long()
    found = torch.bincount(numbers, minlength=512) / n
    # Half the expected sum of absolute deviations of n exact draws.
    floor = 0.5 * (2 / np.pi * p * (1 - p) / n).sqrt().sum()
    assert 0.5 * float((found - p).abs().sum()) < 1.3 * float(floor)


def test_dependent_noise_is_chosen_where_rows_depend_on_each_other():
    held_out = torch.tensor(bars(5000, seed=1))
    state = learnt(bars(5000))
    scores = {
        kind: float(bit_noise.estimate(state, kind).log_density(held_out).mean())
        for kind in bit_noise.KINDS
    }
    assert bit_noise.best(state) == max(scores, key=scores.get) == "mixture"
    entropy = -(14 - 2) / 16 * np.log(1 / 16) - 2 / 8 * np.log(1 / 8)
    assert -scores["mixture"] < entropy + 0.8
    assert -scores["independent"] > entropy + 3.0
    assert scores["tree"] > scores["independent"] + 0.9


def test_a_chain_of_bits_is_a_tree_and_independent_bits_gain_nothing():
    rng = np.random.default_rng(0)
    flips = rng.random((5000, 9)) < 0.1
    rows = np.cumsum(flips, axis=1) % 2 != (rng.random((5000, 1)) < 0.5)
    state = learnt(rows.astype(float))
    parents, depths = state["parents"].tolist(), state["depths"].tolist()
    assert all(abs(parents[i] - i) == 1 for i in range(1, 9))
    assert max(depths) == 8
    truth = -(np.log(2) + 8 * -(0.1 * np.log(0.1) + 0.9 * np.log(0.9)))
    found = float(bit_noise.estimate(state, "tree").log_density(torch.tensor(rows).double()).mean())
    assert found == pytest.approx(truth, abs=0.1)
    assert bit_noise.best(state) == "tree"
    alone = learnt(independent_rows(5000))
    scores = [
        float(
            bit_noise.estimate(alone, kind)
            .log_density(torch.tensor(independent_rows(5000, 1)))
            .mean()
        )
        for kind in bit_noise.KINDS
    ]
    assert scores[0] > max(scores) - 0.02


def test_the_best_tree_has_the_largest_mutual_information():
    """Against all spanning trees of four bits, by the likelihood of the table itself."""
    rng = np.random.default_rng(3)
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).double()
    p = torch.tensor(rng.dirichlet(np.full(16, 0.5)))
    mean, pairs = p @ states, states.T @ (p[:, None] * states)

    def likelihood(parents, depths):
        pair = pairs[torch.arange(4), parents]
        odds = torch.stack([(mean - pair) / (1 - mean[parents]), pair / mean[parents]])
        odds = torch.where(depths == 0, mean, odds)
        return float(p @ BitTree(parents, depths, odds).log_density(states))

    def depth(i, parents):
        seen = 0
        while i and seen < 5:
            i, seen = parents[i], seen + 1
        return seen

    found = likelihood(*best_tree(mean, pairs))
    others = []
    for choice in itertools.product(range(4), repeat=3):
        parents = (0, *choice)
        depths = [depth(i, parents) for i in range(4)]
        if max(depths) < 4:
            others.append(likelihood(torch.tensor(parents), torch.tensor(depths)))
    assert len(others) == 16  # Cayley: 4^2 trees
    assert found == pytest.approx(max(others), abs=1e-12)


def test_machines_learn_structure_that_independent_noise_misses():
    """Bars of 3 x 3 bits, in exact nats per held-out row."""
    rows, held_out = bars(2000), bars(4000, seed=1)
    settings = {"n_components": 12, "learning_rate": 0.3, "max_epochs": 30, "random_state": 0}
    scores = {
        noise: BernoulliRBM(objective=NoiseContrastive(noise=noise), **settings)
        .fit(rows)
        .score(held_out)
        for noise in ("independent", "auto")
    }
    independent = -9 * np.log(2)
    assert scores["independent"] > independent + 2.0
    assert scores["auto"] > scores["independent"] + 0.15
    assert NoiseContrastive().noise == "auto"
