"""The inner loop: batches, the objective inside forward, transfers, short batches."""

import numpy as np
import pytest
import scipy.sparse
import torch

from sklebm import BernoulliRBM
from sklebm.boltzmann._compiled_pass import CompiledPass
from sklebm.objectives import (
    Batch,
    ContrastiveDivergence,
    MaximumLikelihood,
    PersistentContrastiveDivergence,
)
from sklebm.training.batches import TensorBatches, TrainingRows
from sklebm.training.loop import EnergyTraining, run_batches
from tests.machines import exact_rows, make_machine

ROWS = torch.arange(46.0).reshape(23, 2)


def batches(rows=ROWS, size=5, seed=0):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return TensorBatches(TrainingRows(rows), size, generator)


def rows_of(passed):
    """The rows of a pass, one under the other."""
    return torch.cat([batch.x for batch in passed])


def make_training(machine=None, objective=None, n_chains=10):
    machine = machine or make_machine(4, 3, dtype=torch.float32)
    objective = objective or PersistentContrastiveDivergence()
    generator = torch.Generator().manual_seed(0)
    state = objective.init_state(machine, n_chains, generator)
    return EnergyTraining(machine, objective, state, generator)


# ---------------------------------------------------------------- batches


def test_a_pass_holds_every_row_once():
    parts = list(batches())
    assert [len(part) for part in parts] == [5, 5, 5, 5, 3]
    assert len(batches()) == 5
    assert sorted(torch.cat([part.x for part in parts])[:, 0].tolist()) == ROWS[:, 0].tolist()


def test_passes_differ_and_seeds_repeat_them():
    one, other = batches(), batches()
    first, second = rows_of(one), rows_of(one)
    assert not torch.equal(first, second)
    assert torch.equal(rows_of(other), first)
    assert torch.equal(rows_of(other), second)
    assert not torch.equal(rows_of(batches(seed=1)), first)


def test_without_a_generator_the_order_is_kept():
    assert torch.equal(rows_of(batches(seed=None)), ROWS)


@pytest.mark.parametrize("seed", [None, 0])
def test_csr_rows_come_in_the_same_batches(seed):
    dense, sparse = batches(seed=seed), batches(scipy.sparse.csr_matrix(ROWS.numpy()), seed=seed)
    for ours, theirs in zip(sparse, dense, strict=True):
        assert ours.x.dtype == torch.float32
        assert torch.equal(ours.x, theirs.x)


def test_single_rows_are_dense_tensors():
    kinds = (scipy.sparse.csr_matrix, scipy.sparse.csr_array)
    for rows in (ROWS, *(kind(ROWS.numpy()) for kind in kinds)):
        dataset = TrainingRows(rows)
        assert len(dataset) == 23
        assert torch.equal(dataset[3], ROWS[3])


# ---------------------------------------------------------------- steps


def test_forward_is_the_loss_and_advances_the_chains():
    training = make_training()
    before = training.objective_state["hidden"]
    loss = training(Batch(torch.ones(5, 4)))
    assert loss.ndim == 0
    assert loss.requires_grad
    assert training.objective_state["hidden"] is not before


def test_the_loop_calls_the_module_once_per_batch():
    """Distributed wrappers hook into the call of the module: a loss made elsewhere escapes them."""
    training, seen = make_training(), []
    training.register_forward_hook(lambda module, args, output: seen.append((args[0].x, output)))
    optimizer = torch.optim.SGD(training.parameters(), lr=0.1)
    total, n_rows = run_batches(training, optimizer, batches(torch.rand(23, 4)), 5)
    assert [len(x) for x, _ in seen] == [5, 5, 5, 5, 3]
    assert n_rows == 23
    truth = sum(len(x) * output.item() for x, output in seen)
    assert total.item() == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_every_parameter_gets_a_gradient_and_moves(momentum):
    training = make_training()
    before = {name: p.detach().clone() for name, p in training.named_parameters()}
    assert set(before) == {"energy.weights", "energy.visible.bias", "energy.hidden.bias"}
    optimizer = torch.optim.SGD(training.parameters(), lr=0.1, momentum=momentum)
    run_batches(training, optimizer, batches(torch.rand(23, 4)), 5)
    for name, parameter in training.named_parameters():
        # Plain descent adds gradients to the parameters without writing them out.
        assert (parameter.grad is not None) == (momentum > 0)
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("objective", [ContrastiveDivergence(2), PersistentContrastiveDivergence()])
def test_descent_in_place_takes_the_steps_of_autograd(objective):
    """A hook or a wrapper sends the loop through the module's call and autograd."""
    rows = torch.rand(23, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    results = []
    for called in (False, True):
        training = make_training(make_machine(4, 3), objective)
        if called:
            training.register_forward_hook(lambda *args: None)
        rates = [
            {"params": [p], "lr": lr}
            for p, lr in zip(training.parameters(), (0.1, 0.2, 0.3), strict=True)
        ]
        total, _ = run_batches(training, torch.optim.SGD(rates), batches(rows), 5)
        assert (training.energy.weights.grad is not None) == called
        results.append([total, *training.parameters(), *training.objective_state.values()])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("setting", ["momentum", "weight_decay", "maximize"])
def test_no_setting_of_the_optimiser_is_passed_by(setting):
    """Against torch's own optimiser on the same gradients."""
    training, twin = (make_training(make_machine(4, 3)) for _ in range(2))
    rows = torch.rand(20, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    settings = {"lr": 0.1, setting: True if setting == "maximize" else 0.5}
    run_batches(training, torch.optim.SGD(training.parameters(), **settings), batches(rows), 5)
    optimizer = torch.optim.SGD(twin.parameters(), **settings)
    for batch in batches(rows):
        optimizer.zero_grad()
        twin(batch).backward()
        optimizer.step()
    for ours, theirs in zip(training.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_short_batch_takes_its_share_of_a_step():
    """m rows of batch_size move the parameters by m / batch_size, and the rate is restored."""
    moves = []
    for size in (10, 5, 1):
        machine = make_machine(4, 3)
        training = make_training(machine, MaximumLikelihood())
        optimizer = torch.optim.SGD(training.parameters(), lr=0.2)
        before = machine.weights.detach().clone()
        run_batches(training, optimizer, [torch.ones(size, 4, dtype=torch.float64)], 10)
        moves.append(machine.weights.detach() - before)
        assert optimizer.param_groups[0]["lr"] == 0.2
    torch.testing.assert_close(moves[1], 0.5 * moves[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(moves[2], 0.1 * moves[0], rtol=1e-12, atol=0)


def test_one_step_of_gradient_descent_is_the_equation():
    machine = make_machine(4, 3)
    rows = torch.tensor(exact_rows(make_machine(4, 3, seed=1), 50))
    training = make_training(machine, MaximumLikelihood())
    tensors = list(training.parameters())
    gradients = torch.autograd.grad(training(Batch(rows)), tensors)
    truth = [p.detach() - 0.3 * g for p, g in zip(tensors, gradients, strict=True)]
    run_batches(training, torch.optim.SGD(tensors, lr=0.3), [rows], 50)
    for parameter, expected in zip(tensors, truth, strict=True):
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-12)


def test_no_rows_are_an_error():
    training = make_training()
    with pytest.raises(ValueError, match="no rows"):
        run_batches(training, torch.optim.SGD(training.parameters(), lr=0.1), [], 5)


def count_reads(monkeypatch, function):
    """How often ``function`` moves a number from a tensor to Python or NumPy."""
    reads = []

    def watch(patch, name):
        method = getattr(torch.Tensor, name)
        patch.setattr(torch.Tensor, name, lambda *args: reads.append(name) or method(*args))

    with monkeypatch.context() as patch:
        for name in ("item", "__float__", "__bool__", "__int__", "tolist", "cpu", "numpy"):
            watch(patch, name)
        function()
    return len(reads)


@pytest.mark.parametrize("validation_fraction", [None, 0.2])
def test_the_loss_is_read_from_the_device_once_per_epoch(monkeypatch, validation_fraction):
    """A transfer per step would make a GPU wait for the host at every one of them."""
    monkeypatch.setattr(CompiledPass, "suits", lambda *arguments: False)  # it serves the CPU
    rows = np.random.default_rng(0).integers(2, size=(400, 6)).astype(np.float32)
    reads = {}
    for n_epochs, batch_size in [(2, 100), (6, 100), (2, 5), (6, 5)]:
        model = BernoulliRBM(
            4,
            max_epochs=n_epochs,
            batch_size=batch_size,
            log_partition=None,
            validation_fraction=validation_fraction,
            random_state=0,
        )
        reads[n_epochs, batch_size] = count_reads(monkeypatch, lambda model=model: model.fit(rows))
    # Twenty times as many steps cost no more reads; an epoch costs one, and with validation one for
    # the score and one for the free-energy gap.
    assert reads[2, 100] == reads[2, 5]
    assert reads[6, 100] == reads[6, 5]
    per_epoch = 1 if validation_fraction is None else 3
    assert reads[6, 100] - reads[2, 100] == 4 * per_epoch
