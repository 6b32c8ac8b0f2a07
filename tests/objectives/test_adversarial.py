"""The game of two players: its losses, its equilibrium, and what the pull-away term is."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from sklebm.objectives import Batch
from sklebm.objectives.adversarial import (
    CriticLoss,
    GeneratorLoss,
    MarginGame,
    energy_distance,
    pull_away_term,
)

GAMES = (MarginGame(1.5), MarginGame(0.4, pull_away=1.0), MarginGame(pull_away=0.0))


class Toy(nn.Module):
    """Rows W z + b, and a critic a'tanh(x) whose code is the row itself."""

    def __init__(self):
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.maps = nn.Parameter(torch.randn(3, 2, generator=rng, dtype=torch.float64))
        self.slope = nn.Parameter(torch.randn(3, generator=rng, dtype=torch.float64))

    def generate(self, n_rows, generator):
        z = torch.randn(n_rows, 2, generator=generator, dtype=torch.float64)
        return z @ self.maps.T

    def judge(self, x):
        return torch.tanh(x) @ self.slope

    def encode(self, x):
        return x


def naive(game, energy, x, generator):
    """Both players' losses, row by row."""
    z = torch.randn(len(x), 2, generator=generator, dtype=torch.float64)
    forged, w = (z @ energy.maps.T).detach().numpy(), energy.slope.detach().numpy()
    n, critic, own = len(x), 0.0, 0.0
    for row, fake in zip(x.numpy(), forged, strict=True):
        critic += float(np.tanh(row) @ w) + max(0.0, game.margin - float(np.tanh(fake) @ w))
        own += float(np.tanh(fake) @ w)
    unit = forged / np.linalg.norm(forged, axis=1, keepdims=True)
    pairs = [(unit[i] @ unit[j]) ** 2 for i in range(n) for j in range(n) if i != j]
    return critic / n, own / n + game.pull_away * np.mean(pairs)


@pytest.mark.parametrize("game", GAMES, ids=repr)
def test_losses_are_those_of_naive_loops(game):
    energy = Toy()
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = naive(game, energy, x, torch.Generator().manual_seed(5))
    state = {"n_steps": torch.tensor(0)}
    found, state = CriticLoss(game).loss(energy, Batch(x), state, torch.Generator().manual_seed(5))
    own, _ = GeneratorLoss(game).loss(energy, Batch(x), {}, torch.Generator().manual_seed(5))
    assert found.item() == pytest.approx(expected[0], rel=1e-12)
    assert own.item() == pytest.approx(expected[1], rel=1e-12)
    assert int(state["n_steps"]) == 1


@pytest.mark.parametrize("game", GAMES, ids=repr)
def test_gradients_are_finite_differences(game):
    energy = Toy()
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for loss, parameter, place in (
        (CriticLoss(game), energy.slope, 0),
        (GeneratorLoss(game), energy.maps, 1),
    ):
        state = {"n_steps": torch.tensor(0)}
        value, _ = loss.loss(energy, Batch(x), state, torch.Generator().manual_seed(5))
        found = torch.autograd.grad(value, parameter)[0].flatten()
        for k in range(parameter.numel()):
            ends = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    parameter.view(-1)[k] += step
                    ends.append(naive(game, energy, x, torch.Generator().manual_seed(5))[place])
                    parameter.view(-1)[k] -= step
            # Wrong by the square of the step times a third derivative of order one.
            assert float(found[k]) == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-7)


def test_the_margin_game_comes_to_rest_where_the_generator_is_the_data():
    """A world of ten states: energies follow their slope, and the mean generator is the data."""
    rng = np.random.default_rng(0)
    p = torch.tensor(rng.dirichlet(np.ones(10)))
    game = MarginGame(1.0, pull_away=0.0)
    energies = torch.zeros(10, dtype=torch.float64, requires_grad=True)
    logits, total = torch.zeros(10, dtype=torch.float64), torch.zeros(10, dtype=torch.float64)
    n_steps = 8_000
    for step in range(n_steps):
        q = torch.softmax(logits, dim=0)
        real, forged = game.critic_costs(energies, energies)
        slope = torch.autograd.grad((p * real + q * forged).sum(), energies)[0]
        # The generator's cost is linear in q: multiplicative weights follow it.
        logits = logits - 0.05 * game.generator_costs(energies.detach())
        with torch.no_grad():
            energies -= 0.5 * slope
            energies.clamp_(min=0.0)
        if step >= n_steps // 2:
            total += q
    mean = total / total.sum()
    assert float(0.5 * (mean - p).abs().sum()) < 0.02
    assert float(0.5 * (torch.full_like(p, 0.1) - p).abs().sum()) > 0.2  # where it started


def test_pull_away_is_zero_for_orthogonal_codes_and_one_for_equal_ones():
    assert float(pull_away_term(3.0 * torch.eye(5, dtype=torch.float64))) == 0.0
    equal = torch.tensor([[1.0, 2.0, -1.0]], dtype=torch.float64).repeat(4, 1)
    assert float(pull_away_term(equal)) == pytest.approx(1.0)
    assert float(pull_away_term(torch.cat([equal, -equal]))) == pytest.approx(1.0)
    assert float(pull_away_term(equal[:1])) == pytest.approx(0.0, abs=1e-15)


def test_codes_of_one_number_are_not_pulled():
    class OneCode(Toy):
        def encode(self, x):
            return x[:, :1]

    forged = torch.randn(4, 3, dtype=torch.float64)
    assert float(MarginGame(pull_away=1.0).generator_penalty(Toy(), forged)) > 0.0
    assert float(MarginGame(pull_away=1.0).generator_penalty(OneCode(), forged)) == 0.0


def test_the_margin_decays_by_its_factor_in_a_thousand_steps():
    game, forged = MarginGame(2.0, margin_decay=0.25), torch.zeros(1)
    costs = [float(game.critic_costs(forged, forged, step)[1]) for step in (0, 500, 1000, 2000)]
    np.testing.assert_allclose(costs, [2.0, 1.0, 0.5, 0.125])


def test_energy_distance_of_shifted_normals():
    """2 E|x - y| - E|x - x'| - E|y - y'| in closed form, for N(0, 1) and N(2, 1)."""
    rng = np.random.default_rng(0)
    x, y = torch.tensor(rng.normal(size=(2000, 1))), torch.tensor(rng.normal(2.0, size=(2000, 1)))
    # |x - y| is a folded N(2, 2), |x - x'| a folded N(0, 2).
    s = math.sqrt(2.0)
    far = s * math.sqrt(2 / math.pi) * math.exp(-1.0) + 2.0 * (1 - 2 * norm.cdf(-2.0 / s))
    truth = 2 * far - 2 * s * math.sqrt(2 / math.pi)
    # The error of each mean is about 1 / sqrt(2000).
    assert energy_distance(x, y) == pytest.approx(truth, abs=0.12)
    assert abs(energy_distance(x, x[torch.randperm(2000)])) < 0.01


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MarginGame(0.0), "margin"),
        (lambda: MarginGame(margin_decay=1.5), "at most 1"),
        (lambda: MarginGame(pull_away=-0.1), "pull_away"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
