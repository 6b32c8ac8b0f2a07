"""Games of two players: best responses by quadrature, equilibria, and what penalties are."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad, trapezoid
from scipy.stats import norm
from torch import nn

from sklebm.objectives import Batch
from sklebm.objectives.adversarial import (
    CriticLoss,
    GeneratorLoss,
    LeastSquares,
    MarginGame,
    NonSaturating,
    WassersteinPenalty,
    energy_distance,
    pull_away_term,
    squared_slopes,
)

GAMES = (
    NonSaturating(0.7),
    LeastSquares(0.7),
    WassersteinPenalty(3.0),
    MarginGame(1.5),
    MarginGame(0.4, pull_away=1.0),
    MarginGame(pull_away=0.0),
    MarginGame(1.5, r1=0.7),
)


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

    def judge(self, x, codes=None):
        return torch.tanh(x if codes is None else codes) @ self.slope

    def encode(self, x):
        return x


def naive(game, energy, x, generator):
    """Both players' losses, row by row."""
    z = torch.randn(len(x), 2, generator=generator, dtype=torch.float64)
    forged, w = (z @ energy.maps.T).detach().numpy(), energy.slope.detach().numpy()
    share = torch.empty(len(x), 1, dtype=torch.float64).uniform_(generator=generator).numpy()

    def judged(row):
        return float(np.tanh(row) @ w)

    def slope(row):
        return float((((1 - np.tanh(row) ** 2) * w) ** 2).sum())

    rows = x.numpy()
    critic = own = 0.0
    for i, (row, fake) in enumerate(zip(rows, forged, strict=True)):
        d, e = judged(row), judged(fake)
        if isinstance(game, NonSaturating):
            critic += math.log1p(math.exp(-d)) + math.log1p(math.exp(e))
            critic += 0.5 * game.r1 * slope(row)
            own += math.log1p(math.exp(-e))
        elif isinstance(game, LeastSquares):
            critic += 0.5 * (d - 1) ** 2 + 0.5 * e**2 + 0.5 * game.r1 * slope(row)
            own += 0.5 * (e - 1) ** 2
        elif isinstance(game, WassersteinPenalty):
            between = row + share[i] * (fake - row)
            critic += e - d + game.penalty * (math.sqrt(slope(between)) - 1) ** 2
            own += -e
        else:
            critic += d + max(0.0, game.margin - e) + 0.5 * game.r1 * slope(row)
            own += e
    critic, own = critic / len(rows), own / len(rows)
    if isinstance(game, MarginGame):
        unit = forged / np.linalg.norm(forged, axis=1, keepdims=True)
        n = len(rows)
        pairs = [(unit[i] @ unit[j]) ** 2 for i in range(n) for j in range(n) if i != j]
        own += game.pull_away * np.mean(pairs)
    return critic, own


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


@pytest.mark.parametrize("game", [NonSaturating(0.0), LeastSquares(0.0)], ids=repr)
def test_the_best_critic_of_a_fixed_generator_is_the_share_of_the_data(game):
    """By quadrature: S(D(x)) = p / (p + q) for p = N(0, 1) and q = N(1, 1.5^2)."""
    points = np.linspace(-6.0, 8.0, 401)
    p, q = torch.tensor(norm.pdf(points)), torch.tensor(norm.pdf(points, 1.0, 1.5))
    # A critic that is free at every point pays the least where its slope in D vanishes: halved.
    low, high = torch.full_like(p, -40.0), torch.full_like(p, 40.0)
    for _ in range(70):
        judged = (0.5 * (low + high)).requires_grad_()
        costs = game.critic_costs(judged, judged)
        rises = torch.autograd.grad((p * costs[0] + q * costs[1]).sum(), judged)[0] > 0.0
        middle = judged.detach()
        low, high = torch.where(rises, low, middle), torch.where(rises, middle, high)
    share = torch.sigmoid(low) if isinstance(game, NonSaturating) else low
    np.testing.assert_allclose(share, p / (p + q), rtol=1e-9, atol=1e-12)
    # What is left to pay: log 4 - 2 JS(p, q), or the mean of p q / (p + q), by another quadrature.
    costs = game.critic_costs(low, low)
    paid = trapezoid((p * costs[0] + q * costs[1]).numpy(), points)

    def least(x):
        a, b = norm.pdf(x), norm.pdf(x, 1.0, 1.5)
        if isinstance(game, LeastSquares):
            return 0.5 * a * b / (a + b)
        return -a * math.log(a / (a + b)) - b * math.log(b / (a + b))

    # The trapezoidal rule is exact for smooth functions that vanish at the ends: here below 1e-5.
    assert paid == pytest.approx(quad(least, -6.0, 8.0)[0], abs=1e-5)


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

        def judge(self, x, codes=None):
            return super().judge(x)

    forged = torch.randn(4, 3, dtype=torch.float64)
    plain, pulled = MarginGame(pull_away=0.0), MarginGame(pull_away=1.0)
    for energy, is_pulled in ((Toy(), True), (OneCode(), False)):
        with torch.no_grad():
            more = pulled.generator_loss(energy, forged) - plain.generator_loss(energy, forged)
        assert (float(more) > 0.0) == is_pulled


def test_a_generator_is_encoded_once():
    class Counted(Toy):
        n_encoded = 0

        def encode(self, x):
            self.n_encoded += 1
            return x

        def judge(self, x, codes=None):
            return super().judge(x, self.encode(x) if codes is None else codes)

    energy = Counted()
    MarginGame().generator_loss(energy, torch.randn(4, 3, dtype=torch.float64))
    assert energy.n_encoded == 1


def test_what_is_given_reaches_the_generator_and_the_critic():
    class Given(Toy):
        seen = ()

        def given(self, target):
            return (10.0 * target,)

        def generate(self, n_rows, generator, given):
            self.seen += (given,)
            return super().generate(n_rows, generator)

        def judge(self, x, given):
            self.seen += (given,)
            return super().judge(x)

    energy = Given()
    batch = Batch(torch.randn(4, 3, dtype=torch.float64), target=torch.arange(4.0)[:, None])
    truth = 10.0 * batch.target
    state, generator = {"n_steps": torch.tensor(0)}, torch.Generator().manual_seed(0)
    CriticLoss(NonSaturating()).loss(energy, batch, state, generator)
    forged, both, slopes = energy.seen
    assert torch.equal(forged, truth)
    assert torch.equal(both, torch.cat([truth, truth]))  # of the rows, then of their forgeries
    assert torch.equal(slopes, truth)
    energy.seen = ()
    GeneratorLoss(NonSaturating()).loss(energy, batch, {}, generator)
    assert all(torch.equal(part, truth) for part in energy.seen)
    assert len(energy.seen) == 2


def test_the_margin_decays_by_its_factor_in_a_thousand_steps():
    game, forged = MarginGame(2.0, margin_decay=0.25), torch.zeros(1)
    costs = [float(game.critic_costs(forged, forged, step)[1]) for step in (0, 500, 1000, 2000)]
    np.testing.assert_allclose(costs, [2.0, 1.0, 0.5, 0.125])


def test_slopes_are_those_of_the_formula():
    energy = Toy()
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = ((1 - torch.tanh(x).square()) * energy.slope).square().sum(dim=1)
    torch.testing.assert_close(squared_slopes(energy, x), expected)


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
        (lambda: NonSaturating(-1.0), "r1"),
        (lambda: LeastSquares(float("nan")), "r1"),
        (lambda: WassersteinPenalty(-1.0), "penalty"),
        (lambda: MarginGame(0.0), "margin"),
        (lambda: MarginGame(margin_decay=1.5), "at most 1"),
        (lambda: MarginGame(pull_away=-0.1), "pull_away"),
        (lambda: MarginGame(r1=-0.1), "r1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
