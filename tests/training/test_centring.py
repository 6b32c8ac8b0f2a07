"""Centred gradients against the change of variables that they stand for, and flipped data."""

import numpy as np
import pytest
import torch

from sklebm import BernoulliRBM
from sklebm.energies import Bernoulli, BilinearEnergy
from sklebm.energies.gradients import dense
from sklebm.objectives import Batch, MaximumLikelihood
from sklebm.training.centring import Centring
from sklebm.training.loop import EnergyTraining, run_batches
from tests.machines import balanced_machine, exact_rows, make_machine, naive_gradient

TRUTH = balanced_machine(9, 8, scale=2.5)
ROWS = exact_rows(TRUTH, 3000)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def train(machine, rows, offsets, n_steps=3):
    """Exact gradient steps on all rows."""
    transforms = () if offsets is None else (Centring(machine, *offsets),)
    training = EnergyTraining(
        machine, MaximumLikelihood(), {}, torch.Generator(), transforms=transforms
    )
    run_batches(training, torch.optim.SGD(training.parameters(), lr=0.7), [rows] * n_steps, 1)
    return machine


def test_a_step_is_one_of_the_centred_parameters():
    """Gradient descent on (W, b_c, c_c) by autograd, then back to the plain parameters."""
    machine, rows = make_machine(5, 4), torch.tensor(exact_rows(make_machine(5, 4, seed=1), 30))
    m, offset = draw(5), draw(4, seed=1)
    plain = [p.detach().clone() for p in machine.parameters()]  # visible, hidden, weights
    weights = machine.weights.detach().clone().requires_grad_()
    centred = {"visible": plain[1] + offset @ plain[0], "hidden": plain[2] + plain[0] @ m}
    names = [name for name, _ in machine.named_parameters()]
    assert names == ["weights", "visible.bias", "hidden.bias"]
    for value in centred.values():
        value.requires_grad_()
    values = {
        "weights": weights,
        "visible.bias": centred["visible"] - offset @ weights,
        "hidden.bias": centred["hidden"] - weights @ m,
    }
    free = -(rows @ values["visible.bias"]) - torch.nn.functional.softplus(
        values["hidden.bias"] + rows @ weights.T
    ).sum(dim=1)
    states = torch.tensor([[i >> k & 1 for k in range(5)] for i in range(32)]).double()
    all_free = -(states @ values["visible.bias"]) - torch.nn.functional.softplus(
        values["hidden.bias"] + states @ weights.T
    ).sum(dim=1)
    (free.mean() + torch.logsumexp(-all_free, dim=0)).backward()
    new_weights = weights.detach() - 0.7 * weights.grad
    new_visible = (centred["visible"] - 0.7 * centred["visible"].grad) - offset @ new_weights
    new_hidden = (centred["hidden"] - 0.7 * centred["hidden"].grad) - new_weights @ m
    train(machine, rows, (m, offset), n_steps=1)
    for ours, truth in zip(
        machine.parameters(), (new_weights, new_visible, new_hidden), strict=True
    ):
        torch.testing.assert_close(ours.detach(), truth.detach(), rtol=0, atol=1e-12)


def test_factors_of_gradients_are_centred_alike():
    """In closed form or written out, for any signs that sum to zero."""
    machine, v, signs = make_machine(5, 4), draw(7, 5), draw(7, seed=1)
    signs -= signs.mean()
    with torch.no_grad():
        field = machine.hidden_field(v)
        _, plain = machine.free_energy_gradients(v, signs, field, torch.sigmoid(field))
    centring = Centring(machine, draw(5), draw(4, seed=1))
    written = [(parameter, dense(gradient).clone()) for parameter, gradient in plain]
    with torch.no_grad():
        expected, state = centring.update(written, Batch(v), centring.init(), 1.0)
        ours, other = centring.update(plain, Batch(v), centring.init(), 1.0)
    assert len(ours) == 3
    truth = {id(parameter): gradient for parameter, gradient in expected}
    for parameter, gradient in ours:
        torch.testing.assert_close(dense(gradient), truth[id(parameter)], rtol=0, atol=1e-13)
    torch.testing.assert_close(state, other)  # both follow the same hidden means


def test_centred_gradients_point_downhill():
    machine, rows = make_machine(5, 4), exact_rows(make_machine(5, 4, seed=1), 30)
    gradients = [torch.tensor(g) for g in naive_gradient(machine, rows)]
    tensors = (machine.weights, machine.hidden.bias, machine.visible.bias)
    plain = [(t, g.clone()) for t, g in zip(tensors, gradients, strict=True)]
    centring = Centring(machine, draw(5), draw(4))
    with torch.no_grad():
        steps, _ = centring.update(plain, Batch(torch.tensor(rows)), centring.init(), 1.0)
    centred = {id(parameter): step for parameter, step in steps}
    product = sum((centred[id(t)] * g).sum() for t, g in zip(tensors, gradients, strict=True))
    assert product > 0


@pytest.mark.parametrize("layer", ["visible", "hidden"])
def test_flipped_units_learn_the_flipped_parameters(layer):
    """The machine that calls 0 what the other calls 1 stays its mirror image, step by step."""
    machine, rows = make_machine(5, 4), torch.tensor(exact_rows(make_machine(5, 4, seed=1), 30))
    flip = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0][: 5 if layer == "visible" else 4]).double()

    def mirror(weights, visible, hidden):
        if layer == "visible":
            sign = 1 - 2 * flip
            return weights * sign, visible * sign, hidden + weights @ flip
        sign = 1 - 2 * flip
        return weights * sign[:, None], visible + flip @ weights, hidden * sign

    def flipped(values):
        return values + flip - 2 * flip * values

    weights, visible, hidden = mirror(*(p.detach().clone() for p in machine.parameters()))
    twin = BilinearEnergy(Bernoulli(visible), Bernoulli(hidden), weights)
    m, offset = rows.mean(dim=0), draw(4)
    twin_rows, twin_m = (flipped(rows), flipped(m)) if layer == "visible" else (rows, m)
    twin_offset = flipped(offset) if layer == "hidden" else offset
    train(machine, rows, (m, offset), n_steps=20)
    train(twin, twin_rows, (twin_m, twin_offset), n_steps=20)
    expected = mirror(*(p.detach() for p in machine.parameters()))
    for ours, truth in zip(twin.parameters(), expected, strict=True):
        torch.testing.assert_close(ours.detach(), truth, rtol=0, atol=1e-10)


def test_without_centring_they_do_not():
    """The gradient itself depends on what is called 1; this is what centring is for."""
    machine, rows = make_machine(5, 4), torch.tensor(exact_rows(make_machine(5, 4, seed=1), 30))
    sign = -1.0
    weights, visible, hidden = (p.detach().clone() for p in machine.parameters())
    twin = BilinearEnergy(
        Bernoulli(sign * visible), Bernoulli(hidden + weights.sum(dim=1)), sign * weights
    )
    train(machine, rows, None, n_steps=20)
    train(twin, 1 - rows, None, n_steps=20)
    assert (twin.weights + machine.weights).abs().max() > 0.05


def test_flipped_data_train_to_the_same_likelihood():
    """Through the estimator, on rows that are mostly ones or mostly zeros."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(2, size=(2000, 1))
    rows = ((kinds ^ (rng.random((2000, 8)) < 0.1)) & (rng.random((2000, 8)) < 0.4)).astype(float)
    scores = []
    for X in (rows, 1 - rows):
        model = BernoulliRBM(4, learning_rate=0.2, batch_size=20, max_epochs=40, random_state=0)
        scores.append(model.fit(X).score(X))
    assert abs(scores[0] - scores[1]) < 0.01
    start = BernoulliRBM(4, max_epochs=1, learning_rate=1e-9).fit(rows)
    assert min(scores) > start.score(rows) + 0.2


def test_hidden_means_follow_the_batches_and_are_kept():
    model = BernoulliRBM(4, learning_rate=0.3, batch_size=20, random_state=0).fit(ROWS)
    assert np.abs(model.hidden_means_ - model.transform(ROWS).mean(axis=0)).max() < 0.1
    before = model.hidden_means_.copy()
    kept = model.hidden_means_
    model.partial_fit(ROWS[:40])
    np.testing.assert_array_equal(kept, before)  # what was fitted is not written to
    assert not np.array_equal(model.hidden_means_, before)
    assert BernoulliRBM(4, centering=False, max_epochs=1).fit(ROWS).hidden_means_ is None
