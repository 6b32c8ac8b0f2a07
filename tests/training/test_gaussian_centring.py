"""Steps of machines with Gaussian visible units against the coordinates that they stand for."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler

from sklebm import GaussianRBM
from sklebm.energies import Bernoulli, Gaussian, GaussianBilinearEnergy
from sklebm.energies.gradients import dense
from sklebm.objectives import Batch, MaximumLikelihood
from sklebm.training.gaussian_centring import GaussianCentring
from sklebm.training.loop import EnergyTraining, run_batches
from tests.machines import make_gaussian_machine


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shared", [False, True])
def test_a_gaussian_step_is_one_without_units(shared):
    """Descent on (W / s, b_c / s, c_b, log s^2) by autograd; W and b stay as the variance moves."""
    machine, rows = make_gaussian_machine(4, 3, shared=shared, scale=0.5), 6 * draw(30, 4) + 1
    m, offset = draw(4) + 2, draw(3, seed=1)
    weights, visible, hidden, log_variance = (
        p.detach().clone()
        for p in (
            machine.weights,
            machine.visible.bias,
            machine.hidden.bias,
            machine.visible.log_variance,
        )
    )
    scale = torch.exp(0.5 * log_variance)
    white = (weights / scale).requires_grad_()
    of_visible = ((visible + offset @ weights) / scale).requires_grad_()
    of_hidden = (hidden + weights @ (m / scale**2)).requires_grad_()
    moved = log_variance.clone().requires_grad_()
    # Half way between the means of the rows that a hidden unit is off and on for.
    border = (weights * ((0.5 - offset)[:, None] * weights)).detach()

    def back(white, of_visible, of_hidden, log_variance):
        """The plain parameters: hidden biases keep their borders, weights and means themselves."""
        weights = white * scale
        visible = of_visible * scale - offset @ weights
        kept = (border * (torch.exp(-log_variance) - scale**-2)).sum(dim=1)
        return weights, visible, of_hidden - weights @ (m * torch.exp(-log_variance)) - kept

    plain = back(white, of_visible, of_hidden, moved)
    twin = GaussianBilinearEnergy(Gaussian(visible, log_variance, True), Bernoulli(hidden), weights)
    names = ("weights", "visible.bias", "hidden.bias", "visible.log_variance")

    def loss(weights, visible, hidden, log_variance):
        replaced = dict(zip(names, (weights, visible, hidden, log_variance), strict=True))
        return torch.func.functional_call(
            Loss(twin, rows), {f"energy.{n}": replaced[n] for n in names}
        )

    loss(*plain, moved).backward()
    with torch.no_grad():
        sharpness = ((rows - m) / scale).square().mean()
        assert sharpness > 1.5
        rate = 0.1 / (1 + machine.hidden_mean(rows).sum(dim=1).mean()) / sharpness
    steps = [-rate * p.grad for p in (white, of_visible, of_hidden)]
    steps.append(-0.1 / sharpness * moved.grad / (4 if shared else 1))
    here = tuple(p.detach() for p in (white, of_visible, of_hidden, moved))
    # Hidden biases are a product of the others: the step is the one to first order.
    _, along = torch.func.jvp(back, here, tuple(steps))
    expected = [p.detach() + step for p, step in zip(plain, along, strict=True)]
    expected.append(here[3] + steps[3])
    transforms = (GaussianCentring(machine, m, offset),)
    training = EnergyTraining(
        machine, MaximumLikelihood(), {}, torch.Generator(), transforms=transforms
    )
    run_batches(training, torch.optim.SGD(training.parameters(), lr=0.1), [rows], 1)
    for name, truth in zip(names, expected, strict=True):
        ours = machine.get_parameter(name).detach()
        torch.testing.assert_close(ours, truth.detach(), rtol=0, atol=1e-12)


class Loss(torch.nn.Module):
    """The exact objective of a machine."""

    def __init__(self, energy, rows):
        super().__init__()
        self.energy, self.rows = energy, rows

    def forward(self):
        return MaximumLikelihood().loss(self.energy, Batch(self.rows), {}, None)[0]


@pytest.mark.parametrize("shared", [False, True])
def test_factors_of_gaussian_gradients_are_centred_alike(shared):
    machine, v, signs = make_gaussian_machine(5, 4, shared=shared), draw(7, 5), draw(7, seed=1)
    signs -= signs.mean()
    with torch.no_grad():
        field = machine.hidden_field(v)
        _, plain = machine.free_energy_gradients(v, signs, field, torch.sigmoid(field))
    centring = GaussianCentring(machine, draw(5), draw(4, seed=1))
    written = [(parameter, dense(gradient).clone()) for parameter, gradient in plain]
    with torch.no_grad():
        expected, _ = centring.update(written, Batch(v), centring.init(), 1.0)
        ours, _ = centring.update(plain, Batch(v), centring.init(), 1.0)
    assert len(ours) == 4
    truth = {id(parameter): gradient for parameter, gradient in expected}
    for parameter, gradient in ours:
        torch.testing.assert_close(dense(gradient), truth[id(parameter)], rtol=0, atol=1e-13)


SETTINGS = [
    {"objective": "pcd"},
    {"objective": "cd"},
    {"objective": "pcd", "optimizer": "momentum", "learning_rate": 0.02},
]


def fit_twins(scale, shift, **settings):
    """The same rows here, and there in other units or measured from elsewhere."""
    rng = np.random.default_rng(0)
    X = rng.laplace(size=(500, 3)) @ rng.normal(size=(3, 3))
    model = GaussianRBM(4, max_epochs=5, random_state=0, **settings)
    Y = X * scale + shift
    return X, Y, clone(model).fit(X), model.fit(Y)


@pytest.mark.parametrize("settings", SETTINGS)
def test_units_of_the_rows_do_not_change_what_is_learnt(settings):
    scale = np.array([0.01, 3.0, 40.0])
    X, Y, here, there = fit_twins(scale, 0.0, variance="diagonal", **settings)
    np.testing.assert_allclose(there.components_ / scale, here.components_, atol=1e-3)
    assert there.score(Y) + np.log(scale).sum() == pytest.approx(here.score(X), abs=1e-3)
    np.testing.assert_allclose(there.transform(Y), here.transform(X), atol=1e-3)


@pytest.mark.parametrize("settings", SETTINGS)
def test_zero_of_the_rows_does_not_change_what_is_learnt(settings):
    X, Y, here, there = fit_twins(1.0, np.array([3.0, -2.0, 0.0]), variance=0.5, **settings)
    np.testing.assert_allclose(there.components_, here.components_, atol=1e-3)
    assert there.score(Y) == pytest.approx(here.score(X), abs=1e-3)
    np.testing.assert_allclose(there.transform(Y), here.transform(X), atol=1e-3)


@pytest.mark.parametrize("n_components", [8, 512])
def test_one_rate_suits_machines_of_any_size(n_components):
    """At ten times as many hidden units as features the default neither diverges nor stalls."""
    X = StandardScaler().fit_transform(load_digits().data)[:600]
    settings = {"batch_size": 20, "max_epochs": 5, "log_partition": None, "random_state": 0}
    effort = {"method": "ais", "n_chains": 20, "n_temperatures": 100, "random_state": 0}
    start = GaussianRBM(n_components, learning_rate=1e-12, **settings).fit(X)
    model = GaussianRBM(n_components, **settings).fit(X)
    before, after = (m.estimate_log_partition(**effort).score(X) for m in (start, model))
    assert after > before + 3
