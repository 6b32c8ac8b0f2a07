"""Optimisers by name: what each does, needs, and carries from call to call."""

import copy

import numpy as np
import pytest
import scipy.sparse
import torch
from skorch.callbacks import Callback

from sklebm import BernoulliRBM
from sklebm.objectives import Batch, MaximumLikelihood, PersistentContrastiveDivergence
from sklebm.training.loop import EnergyTraining
from sklebm.training.optimizers import OPTIMIZERS
from sklebm.training.state import export_state, import_optimizer
from tests.machines import balanced_machine, exact_rows, make_machine
from tests.registry import freeze

STRONG = balanced_machine(8, 5)
INDEPENDENT = -8 * np.log(2)  # mean log-likelihood of the best model without dependence
ROWS, TEST_ROWS = exact_rows(STRONG, 400), exact_rows(STRONG, 1000, seed=1)


def make(**settings):
    return BernoulliRBM(**{"n_components": 5, "random_state": 0, "batch_size": 20, **settings})


def exact_likelihood(**settings):
    return make(objective="maximum_likelihood", **settings)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_learns(name):
    """The exact likelihood ends well above that of independent units."""
    rates = {"sgd": 0.3, "momentum": 0.1, "gradient_descent": 4.0, "lbfgs": 1.0}
    rate = rates.get(name, 0.02)
    model = exact_likelihood(optimizer=name, learning_rate=rate, max_epochs=60).fit(ROWS)
    assert model.score(TEST_ROWS) > INDEPENDENT + 0.5
    assert len(model.loss_curve_) == 60
    assert model.loss_curve_[-1] < model.loss_curve_[0]


def test_gradient_descent_takes_one_step_per_epoch():
    sizes = []

    class Sizes(Callback):
        def on_batch_begin(self, net, batch=None, **kwargs):
            sizes.append(len(batch))

    make(optimizer="gradient_descent", max_epochs=3, net_params={"callbacks": [Sizes()]}).fit(ROWS)
    assert sizes == [400, 400, 400]


def test_gradient_descent_on_the_likelihood_never_rises():
    model = exact_likelihood(
        optimizer="gradient_descent",
        learning_rate=0.5,
        max_epochs=50,
        learning_rate_schedule="constant",
    ).fit(ROWS)
    assert (np.diff(model.loss_curve_) < 0).all()


def test_lbfgs_reaches_a_better_likelihood_than_sgd():
    quick = {"learning_rate": 1.0, "learning_rate_schedule": "constant", "max_epochs": 20}
    quasi_newton = exact_likelihood(optimizer="lbfgs", **quick).fit(ROWS)
    sgd = exact_likelihood(learning_rate=0.2, max_epochs=20).fit(ROWS)
    assert quasi_newton.score(ROWS) > sgd.score(ROWS) + 0.05


def test_lbfgs_refuses_a_loss_that_samples():
    for objective in ("pcd", "cd"):
        with pytest.raises(ValueError, match=r"does not change between calls, but .*Divergence"):
            make(optimizer="lbfgs", objective=objective).fit(ROWS)


@pytest.mark.parametrize(
    "objective", ["pseudo_likelihood", "ratio_matching", "minimum_probability_flow"]
)
@pytest.mark.parametrize("as_matrix", [np.asarray, scipy.sparse.csr_matrix])
def test_lbfgs_refuses_values_that_are_drawn_as_bits(objective, as_matrix):
    model = make(optimizer="lbfgs", objective=objective, max_epochs=1)
    model.fit(as_matrix(ROWS))
    grey = ROWS.copy()
    grey[0, 0] = 0.5
    with pytest.raises(ValueError, match="draws bits for values in \\(0, 1\\)"):
        model.fit(as_matrix(grey))


def test_lbfgs_refuses_chunks():
    model = exact_likelihood(optimizer="lbfgs", max_epochs=2).fit(ROWS)
    before = freeze(vars(model))
    with pytest.raises(ValueError, match="cannot learn from chunks: use fit"):
        model.partial_fit(ROWS)
    assert freeze(vars(model)) == before


def test_momentum_survives_between_chunks():
    """The next chunk goes on with the velocity that the last one left, written out by hand."""
    settings = {"optimizer": "momentum", "objective": "maximum_likelihood", "learning_rate": 0.05}
    model = make(**settings, centering=False).partial_fit(ROWS)
    kept, dropped = copy.deepcopy(model), copy.deepcopy(model).drop_training_state()
    kept.partial_fit(ROWS)
    dropped.partial_fit(ROWS)

    energy = model._energy(torch.device("cpu"))
    tensors = list(energy.parameters())
    velocities = [
        torch.tensor(model.training_state_[f"optimizer.{i}.momentum_buffer"]) for i in range(3)
    ]
    for x in torch.tensor(ROWS, dtype=torch.float32).split(20):
        loss, _ = MaximumLikelihood().loss(energy, Batch(x), {}, torch.Generator())
        gradients = torch.autograd.grad(loss, tensors)
        with torch.no_grad():
            for p, v, g in zip(tensors, velocities, gradients, strict=True):
                v.mul_(0.9).add_(g)
                p.sub_(0.05 * v)
    truth = energy.weights.detach().numpy()
    np.testing.assert_allclose(kept.components_, truth, rtol=0, atol=1e-6)
    assert np.abs(dropped.components_ - truth).max() > 1e-4


def test_another_optimizer_starts_with_its_own_statistics():
    model = make(optimizer="momentum").partial_fit(ROWS)
    for name in ("adam", "sgd", "rmsprop", "adamw", "momentum"):
        model.set_params(optimizer=name).partial_fit(ROWS)
        assert np.isfinite(model.components_).all()


@pytest.mark.parametrize("name", ["momentum", "rmsprop", "adam", "adamw"])
def test_statistics_go_to_arrays_and_back(name):
    choice = OPTIMIZERS[name]
    machine = make_machine(4, 3, dtype=torch.float32)
    player = EnergyTraining(machine, PersistentContrastiveDivergence(), {}, torch.Generator())
    optimizer = choice.factory(machine.parameters(), lr=0.1, **choice.settings)
    for _ in range(3):
        machine.free_energy(torch.ones(2, 4)).sum().backward()
        optimizer.step()
    flat = export_state([player], [optimizer], seed=1, n_calls=2)
    twin_machine = copy.deepcopy(machine)
    twin = choice.factory(twin_machine.parameters(), lr=0.1, **choice.settings)
    import_optimizer([player], [twin], flat)
    for steps, module in ((optimizer, machine), (twin, twin_machine)):
        steps.zero_grad()
        module.free_energy(torch.ones(2, 4)).sum().backward()
        steps.step()
    assert torch.equal(machine.weights, twin_machine.weights)
