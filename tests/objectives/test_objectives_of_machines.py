"""Every objective against its definition by enumeration, and what machines learn by it."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_expit

from sklebm import BernoulliRBM
from sklebm.energies.gradients import dense
from sklebm.objectives import (
    Batch,
    DenoisingScoreMatching,
    FastPersistentContrastiveDivergence,
    MinimumProbabilityFlow,
    NoiseContrastive,
    PseudoLikelihood,
    RatioMatching,
    ScoreMatching,
    TemperedPersistentContrastiveDivergence,
)
from tests.energies.test_gaussian_bilinear import make_gaussian_machine
from tests.machines import (
    all_states,
    balanced_machine,
    exact_rows,
    make_machine,
    naive_gradient,
    naive_log_partition,
    naive_visible_probabilities,
)

TRUTH = balanced_machine(9, 8, scale=2.5)
ROWS, TEST_ROWS = exact_rows(TRUTH, 10_000), exact_rows(TRUTH, 10_000, seed=1)
ENTROPY = naive_visible_probabilities(TRUTH) @ np.log(naive_visible_probabilities(TRUTH))
FLIPS = [PseudoLikelihood(), RatioMatching(), MinimumProbabilityFlow()]


def log_ratios(machine):
    """log p(v) - log p(v with bit i flipped) of every state, from the joint probabilities."""
    p = np.log(naive_visible_probabilities(machine))
    n = int(np.log2(len(p)))
    flipped = np.arange(len(p))[:, None] ^ (1 << np.arange(n)[::-1])
    return p[:, None] - p[flipped]


DEFINITIONS = {
    "PseudoLikelihood": lambda r: -log_expit(r).sum(axis=1),
    "RatioMatching": lambda r: (expit(-r) ** 2).sum(axis=1),
    "MinimumProbabilityFlow": lambda r: np.exp(-r / 2).sum(axis=1),
}


def loss_of(objective, machine, rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    state = objective.init_state(machine, len(rows), generator)
    return objective.loss(machine, Batch(torch.as_tensor(rows)), state, generator)


@pytest.mark.parametrize("objective", FLIPS)
def test_losses_of_flips_are_their_definitions(objective):
    machine, states = make_machine(5, 4), all_states(5)
    truth = DEFINITIONS[type(objective).__name__](log_ratios(machine))
    for index in (0, 7, 31):
        loss, _ = loss_of(objective, machine, states[index : index + 1])
        assert loss.item() == pytest.approx(truth[index], rel=1e-11)
    assert loss_of(objective, machine, states)[0].item() == pytest.approx(truth.mean(), rel=1e-11)


@pytest.mark.parametrize("objective", FLIPS)
def test_gradients_of_flips_vanish_at_the_truth(objective):
    """Weighted by p, the states of the model have no gradient left: the minimum is the truth."""
    machine = make_machine(5, 4)
    weights = torch.tensor(naive_visible_probabilities(machine))
    total = sum(
        w * loss_of(objective, machine, row[None])[0]
        for w, row in zip(weights, all_states(5), strict=True)
    )
    for gradient in torch.autograd.grad(total, machine.parameters()):
        assert gradient.abs().max() < 1e-10


def test_flip_differences_are_the_same_in_blocks(monkeypatch):
    machine, states = make_machine(5, 4), torch.tensor(all_states(5))
    whole = machine.flip_differences(states)
    gradient = torch.autograd.grad(whole.square().sum(), machine.weights)[0]
    monkeypatch.setattr("sklebm.energies.bilinear._MAX_PAIRS", 60)
    parts = machine.flip_differences(states)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(
        torch.autograd.grad(parts.square().sum(), machine.weights)[0], gradient
    )


def test_score_matching_is_its_definition():
    """By autograd through the free energy, at random rows."""
    machine = make_gaussian_machine(4, 3)
    x = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = x.clone().requires_grad_()
    (psi,) = torch.autograd.grad(-machine.free_energy(y).sum(), y, create_graph=True)
    divergence = sum(
        torch.autograd.grad(psi[:, i].sum(), y, retain_graph=True)[0][:, i] for i in range(4)
    )
    truth = (0.5 * psi.square().sum(dim=1) + divergence).mean()
    torch.testing.assert_close(loss_of(ScoreMatching(), machine, x)[0], truth)
    noise = torch.empty_like(x).normal_(generator=torch.Generator().manual_seed(0))
    first, _ = machine.score(x + 0.2 * noise)
    truth = 0.5 * (first + noise / 0.2).square().sum(dim=1).mean()
    torch.testing.assert_close(loss_of(DenoisingScoreMatching(0.2), machine, x)[0], truth)


def test_tempered_gradient_in_expectation():
    """Ladders that are at their distributions give the gradient of -log p."""
    machine = make_machine(4, 3)
    rows = torch.tensor(exact_rows(make_machine(4, 3, seed=1), 50))
    objective = TemperedPersistentContrastiveDivergence(4, n_chains=4000)
    generator = torch.Generator().manual_seed(0)
    state = objective.init_state(machine, 10, generator)
    draws = []
    with torch.no_grad():
        for step in range(140):
            _, gradients, state = objective.gradients(machine, Batch(rows), state, generator)
            if step >= 40:
                known = {id(p): dense(g).numpy() for p, g in gradients}
                draws.append(
                    [
                        known[id(p)]
                        for p in (machine.weights, machine.hidden.bias, machine.visible.bias)
                    ]
                )
    for parts, truth in zip(zip(*draws, strict=True), naive_gradient(machine, rows), strict=True):
        assert np.abs(np.mean(parts, axis=0) - truth).max() < 0.004


def test_fast_weights_follow_their_equation():
    """The slow gradient, the decay, and negatives drawn with the sum of both."""
    machine = make_machine(4, 3)
    rows = torch.tensor(exact_rows(machine, 20))
    objective = FastPersistentContrastiveDivergence(n_chains=6, fast_learning_rate=0.5)
    generator = torch.Generator().manual_seed(0)
    state = objective.init_state(machine, 10, generator)
    with torch.no_grad():
        _, _, state = objective.gradients(machine, Batch(rows), state, generator)
        before, replay = dict(state), generator.get_state()
        _, gradients, after = objective.gradients(machine, Batch(rows), state, generator)
        twin = torch.Generator()
        twin.set_state(replay)
        names = ("fast_weights", "fast_visible_bias", "fast_hidden_bias")
        tensors = (machine.weights, machine.visible.bias, machine.hidden.bias)
        fast = machine.with_parameters(
            *(t.detach() + before[n] for t, n in zip(tensors, names, strict=True))
        )
        v = fast.draw_visible(before["hidden"], twin)
        assert torch.equal(after["hidden"], fast.draw_hidden(v, twin))
        known = {id(p): dense(g) for p, g in gradients}
        for name, tensor in zip(names, tensors, strict=True):
            expected = 0.95 * before[name] - 0.5 * known[id(tensor)]
            torch.testing.assert_close(after[name], expected)
    truth = -(machine.hidden_mean(rows).mean(0) - machine.hidden_mean(v).mean(0))
    torch.testing.assert_close(known[id(machine.hidden.bias)], truth.detach())


def test_noise_contrast_finds_the_normaliser():
    """At the truth, log Z is what the objective settles on, and the gradient is noise."""
    machine, objective = make_machine(5, 4), NoiseContrastive(5)
    rows = torch.tensor(exact_rows(machine, 40_000))
    generator = torch.Generator().manual_seed(0)
    state = objective.init_state(machine, 100, generator)
    for _ in range(60):
        loss, state = objective.loss(machine, Batch(rows), state, generator)
    assert float(state["log_partition"]) == pytest.approx(naive_log_partition(machine), abs=0.03)
    gradients = torch.autograd.grad(loss, machine.parameters())
    assert max(float(g.abs().max()) for g in gradients) < 0.02
    other = make_machine(5, 4, seed=1)
    loss, _ = objective.loss(other, Batch(rows), state, generator)
    gradients = torch.autograd.grad(loss, other.parameters())
    assert max(float(g.abs().max()) for g in gradients) > 0.1


LEARNERS = [
    {"objective": "fast_pcd", "batch_size": 50, "learning_rate": 0.2, "max_epochs": 40},
    {"objective": "tempered_pcd", "batch_size": 50, "learning_rate": 0.2, "max_epochs": 20},
    {"objective": "pseudo_likelihood", "optimizer": "lbfgs"},
    {"objective": "ratio_matching", "optimizer": "lbfgs"},
    {"objective": "minimum_probability_flow", "optimizer": "lbfgs"},
    {"objective": "noise_contrastive", "learning_rate": 0.5},
]


@pytest.mark.table(3)
@pytest.mark.parametrize("settings", LEARNERS, ids=lambda s: s["objective"])
def test_every_learner_comes_close_to_the_truth(settings):
    """From 10,000 rows of a 9 x 8 machine, on held-out rows, in nats of exact likelihood."""
    if settings.get("optimizer") == "lbfgs":
        settings = {
            **settings,
            "learning_rate": 1.0,
            "learning_rate_schedule": "constant",
            "max_epochs": 15,
        }
    fitted = BernoulliRBM(8, random_state=0, **settings).fit(ROWS)
    assert fitted.score(TEST_ROWS) > ENTROPY - 0.15
    independent = -9 * np.log(2)
    assert independent < ENTROPY - 0.5


@pytest.mark.parametrize("objective", ["score_matching", "denoising_score_matching"])
def test_binary_rows_have_no_score_to_match(objective):
    message = r"needs real rows, because it differentiates log p.*are binary.*ContrastiveDivergence"
    with pytest.raises(ValueError, match=message):
        BernoulliRBM(3, objective=objective).fit(ROWS[:50])


def test_settings_are_checked():
    with pytest.raises(ValueError, match="n_temperatures=1 must be at least 2"):
        TemperedPersistentContrastiveDivergence(1)
    for bad in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="fast_learning_rate"):
            FastPersistentContrastiveDivergence(fast_learning_rate=bad)
        with pytest.raises(ValueError, match="noise_scale"):
            DenoisingScoreMatching(bad)
    with pytest.raises(ValueError, match="n_noise"):
        NoiseContrastive(0)
