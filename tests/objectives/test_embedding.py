"""Losses of metric learning: naive loops, finite differences, and what is known exactly."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sklebm.energies.embedding import to_unit_length
from sklebm.inference.views import Groups, Labels, Neighbours, Source
from sklebm.objectives import Batch
from sklebm.objectives.embedding import (
    InfoNCE,
    MarginContrast,
    PairedViews,
    Pairs,
    TripletMargin,
    info_nce,
    information_bound,
    margin_energies,
)
from sklebm.objectives.embedding_memory import MemoryBank, MomentumQueue, push

N_ROWS, N_FEATURES, WIDTH = 7, 5, 3
KINDS = np.array([0, 1, 0, 2, 1, 3, 4])
RELATED = (KINDS[:, None] == KINDS) & ~np.eye(N_ROWS, dtype=bool)
INDEX = np.array([9, 2, 4, 0, 7, 1, 5])
N_ALL = 11
# Views are rows at most two steps away; what is near a view need not be near its row.
PLACES = np.array([10, 0, 6, 1, 6, 3, 5])
NEAR = np.abs(np.arange(N_ALL)[:, None] - np.arange(N_ALL)) <= 2
ALONE = np.eye(N_ALL, dtype=bool)


class Linear(nn.Module):
    """Embeddings W x, with another W for the second head, of given pairs."""

    def __init__(self, weights, related=None, near=ALONE, places=PLACES):
        super().__init__()
        self.weights = nn.Parameter(torch.as_tensor(weights))
        self.related, self.near, self.places = related, torch.as_tensor(near), places
        self.n_rows, self.n_projected = N_ALL, WIDTH

    def forward(self, x):
        return self.project(x)

    def project(self, x, head=0):
        return x @ self.weights[head].T

    def pairs(self, batch, generator, *, keep_first=False):
        related = None if self.related is None else torch.as_tensor(self.related)
        first, second = batch.x.chunk(2)
        index, places = torch.as_tensor(INDEX), torch.as_tensor(self.places)
        return Pairs(first, second, index, places, lambda i, j: self.near[i][:, j], related)


def setting(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, WIDTH, N_FEATURES)), rng.normal(size=(2 * N_ROWS, N_FEATURES))


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def views(weights, x, head=0):
    return x[:N_ROWS] @ weights[0].T, x[N_ROWS:] @ weights[head].T


def naive_margin(weights, x, related, margin):
    u, v = views(weights, x)
    near = [0.5 * ((a - b) ** 2).sum() for a, b in zip(u, v, strict=True)]
    far = [
        0.5 * max(0.0, margin - math.dist(u[i], v[j])) ** 2
        for i in range(N_ROWS)
        for j in range(N_ROWS)
        if i != j and not related[i, j]
    ]
    return np.mean(near) + np.mean(far)


def naive_triplet(weights, x, related, margin, mining):
    u, v = views(weights, x)
    costs = []
    for i in range(N_ROWS):
        near = math.dist(u[i], v[i]) ** 2
        far = [math.dist(u[i], v[j]) ** 2 for j in range(N_ROWS) if j != i and not related[i, j]]
        if mining == "hard":
            far = [min(far)]
        elif mining == "semi_hard":
            beyond = [d for d in far if d > near]
            far = [min(beyond)] if beyond else [max(far)]
        costs += [max(0.0, near - d + margin) for d in far]
    return np.mean(costs)


def naive_info_nce(weights, x, related, temperature, negatives):
    u, v = (unit(part) for part in views(weights, x))
    losses = []
    for own, other in ((u, v), (v, u)):
        for i in range(N_ROWS):
            scores = [own[i] @ other[i]]
            for j in range(N_ROWS):
                if j != i and not related[i, j]:
                    scores.append(own[i] @ other[j])
                    scores += [own[i] @ own[j]] if negatives == "both" else []
            terms = [math.exp(s / temperature) for s in scores]
            losses.append(-math.log(terms[0] / math.fsum(terms)))
    return np.mean(losses)


def naive_bank(weights, x, entries, bank, near, drawn, part):
    f = unit(views(weights, x)[0])
    g = unit(views(weights, x, 1)[1])
    total = 0.0
    for view, share in ((g, part.view_weight), (f, 1.0 - part.view_weight)):
        for i in range(N_ROWS):
            own = near[INDEX[i]] | near[PLACES[i]]
            usable = [k for k in drawn if not own[k] and (bank[k] ** 2).sum() > 0]
            s = [math.exp(view[i] @ bank[k] / part.temperature) for k in usable]
            own = math.exp(view[i] @ entries[i] / part.temperature)
            cost = -math.log(own / (own + math.fsum(s)))
            cost -= math.fsum(math.log(1.0 - e / (e + math.fsum(s))) for e in s)
            total += share * cost / N_ROWS
    return total


def naive_queue(weights, x, keys, queue, queue_rows, near, temperature):
    q = unit(views(weights, x)[0])
    losses = []
    for i in range(N_ROWS):
        scores = [q[i] @ keys[i]]
        for key, row in zip(queue, queue_rows, strict=True):
            if row < 0 or not near[INDEX[i], row]:
                scores.append(q[i] @ key)
        terms = [math.exp(s / temperature) for s in scores]
        losses.append(-math.log(terms[0] / math.fsum(terms)))
    return np.mean(losses)


def random_state(seed=5):
    """A bank of which some entries were not seen yet."""
    rng = np.random.default_rng(seed)
    bank = unit(rng.normal(size=(N_ALL, WIDTH)))
    bank[[3, 10]] = 0.0
    bank[INDEX[2]] = 0.0  # a row that is seen for the first time
    return bank


def cases():
    """Objective, energy, state, and the naive loss as a function of the weights alone."""
    weights, x = setting()
    for margin in (1.0, 4.0):
        for related in (np.zeros_like(RELATED), RELATED):
            yield (
                MarginContrast(margin),
                Linear(weights, related),
                {},
                lambda w, m=margin, r=related: naive_margin(w, x, r, m),
            )
    for mining in ("semi_hard", "hard", "all"):
        yield (
            TripletMargin(0.7, mining),
            Linear(weights, RELATED),
            {},
            lambda w, m=mining: naive_triplet(w, x, RELATED, 0.7, m),
        )
    for negatives in ("both", "other"):
        for related in (np.zeros_like(RELATED), RELATED):
            yield (
                InfoNCE(0.3, negatives),
                Linear(weights, related),
                {},
                lambda w, n=negatives, r=related: naive_info_nce(w, x, r, 0.3, n),
            )
    for near in (ALONE, NEAR):
        bank = random_state()
        part = MemoryBank(0.4, n_negatives=9, momentum=0.3, view_weight=0.7)
        f = unit(views(weights, x)[0])
        seen = (bank[INDEX] ** 2).sum(axis=1, keepdims=True) > 0
        entries = np.where(seen, bank[INDEX], f)
        after = bank.copy()
        after[INDEX] = unit(0.3 * entries + 0.7 * f)
        drawn = torch.randint(N_ALL, (9,), generator=torch.Generator().manual_seed(0)).tolist()
        yield (
            part,
            Linear(weights, near=near),
            {"bank": torch.tensor(bank)},
            lambda w, e=entries, a=after, n=near, d=drawn, p=part: naive_bank(w, x, e, a, n, d, p),
        )
    rng = np.random.default_rng(1)
    queue = unit(rng.normal(size=(6, WIDTH)))
    queue_rows = np.array([-1, 9, 4, 5, 4, 1])  # some of them earlier keys of rows of the batch
    slow = rng.normal(size=weights.shape)
    keys = unit(views(0.8 * slow + 0.2 * weights, x)[1])
    state = {
        "slow.weights": torch.tensor(slow),
        "queue": torch.tensor(queue),
        "queue_rows": torch.tensor(queue_rows),
    }
    for near in (ALONE, NEAR):
        yield (
            MomentumQueue(0.4, n_keys=6, momentum=0.8),
            Linear(weights, near=near),
            state,
            lambda w, n=near: naive_queue(w, x, keys, queue, queue_rows, n, 0.4),
        )


CASES = list(cases())
each = pytest.mark.parametrize("case", CASES, ids=[repr(case[0]) for case in CASES])


def evaluate(objective, energy, state):
    batch = Batch(torch.tensor(setting()[1]))
    own = {name: value.clone() for name, value in state.items()}  # a bank is changed in place
    return objective.loss(energy, batch, own, torch.Generator().manual_seed(0))


@each
def test_losses_are_those_of_naive_loops(case):
    objective, energy, state, naive = case
    loss, _ = evaluate(objective, energy, state)
    assert loss.item() == pytest.approx(naive(setting()[0]), rel=1e-12)


@each
def test_gradients_are_finite_differences(case):
    """What a memory holds, and the slow copy, get no gradient: the naive loss keeps them fixed."""
    objective, energy, state, naive = case
    energy.zero_grad()
    evaluate(objective, energy, state)[0].backward()
    found, weights = energy.weights.grad.numpy(), setting()[0]
    step = 1e-5
    expected = np.zeros_like(weights)
    for place in np.ndindex(weights.shape):
        moved = [weights.copy(), weights.copy()]
        for sign, w in zip((1, -1), moved, strict=True):
            w[place] += sign * step
        expected[place] = (naive(moved[0]) - naive(moved[1])) / (2 * step)
    # Central differences are wrong by step^2 times a third derivative, of order 1 / temperature^3.
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_three_points_by_hand():
    """x1 ~ x2 ~ x3 but x1 not ~ x3: d^2 / 4 + (m - d)^2 / 2 is least at d = 2 m / 3."""
    points = torch.tensor([[0.3, 0.1], [-0.2, 0.4], [0.1, -0.5]], dtype=torch.float64)
    points.requires_grad_()
    first, second = torch.tensor([0, 1, 0]), torch.tensor([1, 2, 2])
    similar, margin = torch.tensor([True, True, False]), 1.5
    optimizer = torch.optim.LBFGS([points], max_iter=200, line_search_fn="strong_wolfe")

    def cost():
        optimizer.zero_grad()
        between = (points[first] - points[second]).norm(dim=1)
        loss = margin_energies(between, similar, margin).sum()
        loss.backward()
        return loss

    optimizer.step(cost)
    between = (points[first] - points[second]).norm(dim=1).detach().numpy()
    np.testing.assert_allclose(between, [margin / 3, margin / 3, 2 * margin / 3], atol=1e-5)
    assert float(cost()) == pytest.approx(margin**2 / 6, abs=1e-9)


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_the_bound_never_exceeds_log_n(scale):
    scores = scale * torch.randn(50, 50, generator=torch.Generator().manual_seed(0)).double()
    assert float(info_nce(scores)) >= 0.0
    assert float(information_bound(scores)) <= math.log(50)
    certain = torch.diag(torch.full((50,), 1e3, dtype=torch.float64))
    assert float(information_bound(certain)) == pytest.approx(math.log(50))


def test_the_bound_is_below_the_mutual_information_and_tight_for_many_rows():
    """A discrete joint with known information and its best critic, log p(b | a) / p(b)."""
    joint = np.array([[0.2, 0.05, 0.0], [0.05, 0.2, 0.1], [0.02, 0.08, 0.3]])
    product = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    with np.errstate(divide="ignore"):
        critic = np.log(joint / product)
    information = float(np.nansum(joint * np.where(joint > 0, critic, 0.0)))
    rng, gaps = np.random.default_rng(0), {}
    for n_rows, n_batches in ((2, 4000), (8, 1000), (2000, 20)):
        bounds = []
        for _ in range(n_batches):
            a, b = np.unravel_index(rng.choice(9, size=n_rows, p=joint.ravel()), (3, 3))
            bounds.append(float(information_bound(torch.tensor(critic[a][:, b]))))
        error = np.std(bounds) / math.sqrt(n_batches)
        gaps[n_rows] = information - np.mean(bounds), error
        assert gaps[n_rows][0] >= -4 * error
    assert gaps[2][0] > gaps[8][0] + 4 * math.hypot(gaps[2][1], gaps[8][1])
    # The bias of log of a mean over N terms is O(1 / N).
    assert abs(gaps[2000][0]) <= 4 * gaps[2000][1] + 5 / 2000


def test_the_queue_is_first_in_first_out_and_keeps_its_length():
    queue = torch.arange(5)
    queue = push(queue, torch.tensor([10, 11]))
    assert queue.tolist() == [2, 3, 4, 10, 11]
    assert push(queue, torch.arange(100, 108)).tolist() == [103, 104, 105, 106, 107]
    weights, _ = setting()
    objective = MomentumQueue(n_keys=10, momentum=0.5)
    energy = Linear(weights)
    state = objective.init_state(energy, 4, torch.Generator().manual_seed(0))
    assert state["queue"].shape == (10, WIDTH)
    seen = []
    for seed in range(3):
        rows = torch.tensor(setting(seed)[1])
        slow = 0.5 * state["slow.weights"] + 0.5 * energy.weights.detach()
        seen.append(unit((rows[N_ROWS:] @ slow[0].T).numpy()))
        _, state = objective.loss(energy, Batch(rows), state, torch.Generator().manual_seed(0))
        assert state["queue"].shape == (10, WIDTH)
        torch.testing.assert_close(state["slow.weights"], slow)
    np.testing.assert_allclose(state["queue"], np.concatenate(seen)[-10:], rtol=1e-12)


def test_a_queue_longer_than_the_rows_gives_no_row_its_own_keys():
    """The second loss is that of a row against the keys of all others, and none of its own."""
    weights, x = setting()
    objective = MomentumQueue(0.5, n_keys=N_ROWS, momentum=0.0)
    energy = Linear(weights, places=INDEX)
    state = objective.init_state(energy, N_ROWS, torch.Generator().manual_seed(0))
    for _ in range(2):
        loss, state = objective.loss(energy, Batch(torch.tensor(x)), state, torch.Generator())
    q, k = (unit(part) for part in views(weights, x))
    scores = q @ k.T / 0.5
    expected = np.mean(np.log(np.exp(scores).sum(axis=1)) - np.diag(scores))
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert state["queue_rows"].tolist() == INDEX.tolist()


def test_the_slow_copy_leaves_the_statistics_of_the_encoder_alone():
    _, x = setting()

    class Normalised(nn.Module):
        """A batch is counted for each pass that changes the running statistics."""

        n_rows, n_projected = N_ALL, WIDTH

        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(N_FEATURES, WIDTH), nn.BatchNorm1d(WIDTH)).double()

        def forward(self, x):
            return self.net(x)

        project = forward

        def pairs(self, batch, generator, *, keep_first=False):
            index = torch.as_tensor(INDEX)
            return Pairs(*batch.x.chunk(2), index, index, lambda i, j: i[:, None] == j)

    energy = Normalised()
    twin = Normalised()
    twin.load_state_dict(energy.state_dict())
    objective, batch = MomentumQueue(n_keys=5), Batch(torch.tensor(x))
    state = objective.init_state(energy, N_ROWS, torch.Generator().manual_seed(0))
    objective.loss(energy, batch, state, torch.Generator())
    twin(batch.x[:N_ROWS])
    assert int(energy.net[1].num_batches_tracked) == 1
    torch.testing.assert_close(energy.net[1].running_mean, twin.net[1].running_mean)


@pytest.mark.parametrize("view", [Neighbours(3), Groups(2), Labels()], ids=str)
def test_no_negative_is_a_row_that_could_have_been_the_view(view):
    rows = torch.randn(60, 1, generator=torch.Generator().manual_seed(0))
    kinds = torch.arange(60) % 5
    source = Source(rows, kinds, (1,))
    every = torch.arange(60)
    near = view.related(every, every, view.prepare(source)) | torch.eye(60).bool()
    index = torch.randperm(60, generator=torch.Generator().manual_seed(1))[:40]
    views = PairedViews(view, source)
    pairs = views.pairs(Batch(rows[index], target=index), torch.Generator().manual_seed(2))
    places = [int((rows[:, 0] == value).nonzero()) for value in pairs.second[:, 0]]
    for i, of_i in enumerate(zip(index.tolist(), places, strict=True)):
        for j, of_j in enumerate(zip(index.tolist(), places, strict=True)):
            expected = any(bool(near[a, b]) for a in of_i for b in of_j)
            assert bool(pairs.related[i, j]) == expected
    assert bool((~pairs.related).any())
    assert pairs.places.tolist() == places
    # What a memory asks: rows of the batch against any rows.
    few = torch.tensor([7, 59, 0])
    assert bool((pairs.near(index, few) == near[index][:, few]).all())


def test_a_lone_row_has_no_negatives_and_costs_nothing_but_its_own_pair():
    weights, x = setting()
    rows = torch.tensor(x[:2])

    class Lone(Linear):
        def pairs(self, batch, generator, *, keep_first=False):
            index = torch.tensor([0])
            return Pairs(batch.x[:1], batch.x[1:], index, index, lambda i, j: i[:, None] == j)

    energy = Lone(weights)
    for objective in (InfoNCE(), TripletMargin(), MemoryBank()):
        state = objective.init_state(energy, 1, torch.Generator().manual_seed(0))
        loss, _ = objective.loss(energy, Batch(rows), state, torch.Generator().manual_seed(0))
        assert float(loss) == pytest.approx(0.0, abs=1e-12)
    loss, _ = MarginContrast().loss(energy, Batch(rows), {}, torch.Generator())
    u, v = rows @ torch.tensor(weights[0]).T
    assert float(loss) == pytest.approx(0.5 * float((u - v).square().sum()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MarginContrast(0.0), "margin"),
        (lambda: TripletMargin(mining="easy"), "mining"),
        (lambda: InfoNCE(-1.0), "temperature"),
        (lambda: InfoNCE(negatives="none"), "negatives"),
        (lambda: MemoryBank(n_negatives=0), "n_negatives"),
        (lambda: MemoryBank(view_weight=2.0), "view_weight"),
        (lambda: MomentumQueue(momentum=1.0), "nothing is ever learnt"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_long_rows_have_a_direction_too():
    """Their squares overflow, at 1e20 in float32 and 1e200 in float64."""
    for dtype, length in ((torch.float32, 1e20), (torch.float64, 1e200)):
        z = torch.tensor([[3.0, -4.0], [0.3, 0.4]], dtype=dtype)
        z[0] *= length
        expected = torch.tensor([[0.6, -0.8], [0.6, 0.8]], dtype=dtype)
        torch.testing.assert_close(to_unit_length(z), expected)


def test_a_bank_is_not_copied_for_every_batch():
    bank = torch.tensor(random_state())
    weights, x = setting()
    state = {"bank": bank}
    generator = torch.Generator().manual_seed(0)
    before = bank[INDEX].clone()
    _, after = MemoryBank(n_negatives=9).loss(
        Linear(weights), Batch(torch.tensor(x)), state, generator
    )
    assert after["bank"] is bank
    assert bool((bank[INDEX] != before).any(dim=1).all())
