"""Processes that fit together: an error on one ends all, and uneven parts of the rows are fine."""

import os

import numpy as np
import pytest

from tests.ranks import World, needs_gloo
from tests.registry import fitted_state, freeze, make, make_brief, make_rows

pytestmark = needs_gloo

ROWS = make_rows(200)
SHORT = {"BernoulliRBM": {"batch_size": 50}, "SparseCoder": {"max_iter": 2}}
MODELS = ["BernoulliRBM", "EnergyKMeans", "EnergyGaussianMixture", "SparseCoder", "PCAWhitener"]


def fit_with_a_bad_row(rank, name):
    """A fit that fails on rank 1, and what it left of an earlier one; then a fit that succeeds."""
    X = np.array_split(ROWS, 2)[rank].copy()
    model = make_brief(name, strategy="ddp", **SHORT.get(name, {})).fit(X)
    before = freeze(vars(model))
    bad = X.copy()
    if rank == 1:
        bad[7, 3] = np.nan
    message = ""
    try:
        model.fit(bad)
    except (RuntimeError, ValueError) as error:
        message = f"{type(error).__name__}: {error}"
    unchanged = freeze(vars(model)) == before
    return message, unchanged, freeze(vars(model.fit(X))) == before


@pytest.mark.parametrize("name", MODELS)
def test_an_error_on_one_rank_ends_all_with_its_message(name, world):
    (first, *state), (second, *other) = world.run(fit_with_a_bad_row, name)
    assert second.startswith("ValueError: Input X contains NaN")
    assert first.startswith("RuntimeError: Another process")
    assert "rank 1: ValueError: Input X contains NaN" in first
    assert state == other == [True, True]


class Fails:
    """A callback that raises, after the second step or at the end of the fit."""

    def __init__(self, error):
        self.error, self.n_steps = error, 0

    def __deepcopy__(self, memo):
        return self

    def setup(self, estimator, context): ...

    def teardown(self, estimator, context): ...

    def on_fit_task_begin(self, estimator, context): ...

    def on_fit_task_end(self, estimator, context):
        self.n_steps += 1
        if self.n_steps == 2 if self.error != "at the end" else context.parent is None:
            if self.error == "kill":
                os._exit(1)
            raise ZeroDivisionError(self.error)


def fit_with_a_failing_callback(rank, name, error):
    model = make(name, strategy="ddp")
    if rank == 1:
        model.set_callbacks(Fails(error))
    model.fit(np.array_split(ROWS, 3)[rank])


@pytest.mark.parametrize("name", ["BernoulliRBM", "EnergyKMeans"])
@pytest.mark.parametrize("when", ["in the middle", "at the end"])
def test_an_error_in_the_middle_of_a_fit_ends_all(name, when, world):
    (_, first), (_, second) = world.outcomes(fit_with_a_failing_callback, name, when)
    assert second == f"ZeroDivisionError: {when}"
    assert f"rank 1: ZeroDivisionError: {when}. The estimator was left unchanged" in first


KEPT = []


def keep_the_error(rank):
    """A fit that fails on rank 1, by an error that every rank keeps, and its frames with it."""
    X = np.array_split(ROWS, 3)[rank].copy()
    X[0] = np.nan if rank == 1 else X[0]
    try:
        make("BernoulliRBM", strategy="ddp").fit(X)
    except (RuntimeError, ValueError) as error:
        KEPT.append(error)
    return type(KEPT[-1]).__name__


def test_a_killed_rank_does_not_leave_the_others_waiting():
    """Three, because one that has ended must let go of the next, who does not hear of the first."""
    world = World(3)
    try:
        assert world.run(keep_the_error) == ["RuntimeError", "ValueError", "RuntimeError"]
        outcomes = world.outcomes(fit_with_a_failing_callback, "BernoulliRBM", "kill")
        first, second, third = (error for _, error in outcomes)
        assert second == "killed"
        assert "it was killed, or could not be reached" in first
        assert third.startswith("RuntimeError: Another process")
    finally:
        world.close()


def fit_uneven(rank, name, cut):
    model = make_brief(name, strategy="ddp", **SHORT.get(name, {}))
    model.fit(np.split(ROWS, [cut])[rank])
    common = {k: v for k, v in fitted_state(model).items() if k not in model._own_to_each_rank}
    return freeze(common), getattr(model, "n_samples_seen_", len(ROWS))


@pytest.mark.parametrize(
    ("name", "cut"), [(name, 3) for name in MODELS] + [("BernoulliRBM", 197), ("Autoencoder", 101)]
)
def test_uneven_parts_of_the_rows_are_all_learnt_from(name, cut, world):
    first, second = world.run(fit_uneven, name, cut)
    assert first == second
    assert first[1] == len(ROWS)


def count_rows(rank, cut):
    """Rows of every step of one pass, on this rank and on all."""
    import torch

    from sklebm._shell.ranks import joined_ranks
    from sklebm.training.batches import RankBatches, TrainingRows

    rows = torch.arange(len(ROWS))[:, None][slice(cut) if rank == 0 else slice(cut, None)]
    with joined_ranks("ddp") as ranks:
        batches = RankBatches(TrainingRows(rows), 20, ranks, torch.Generator().manual_seed(rank))
        steps = [(batch.x[:, 0].tolist(), size) for batch, size in batches.with_sizes()]
    assert len(steps) == len(batches)
    return steps


@pytest.mark.parametrize("cut", [1, 70, 100, 199])
def test_every_rank_takes_the_same_steps_and_every_row_comes_once(cut, world):
    first, second = world.run(count_rows, cut)
    assert [size for _, size in first] == [size for _, size in second]
    assert [len(a) + len(b) for (a, _), (b, _) in zip(first, second, strict=True)] == [
        size for _, size in first
    ]
    assert sorted(row for steps in (first, second) for x, _ in steps for row in x) == list(
        range(len(ROWS))
    )
    assert all(size > 0 for _, size in first)


@pytest.mark.parametrize("cut", [70, 101])
def test_an_epoch_has_as_many_steps_as_that_of_one_process(cut, world):
    first, _ = world.run(count_rows, cut)
    assert len(first) == len(ROWS) // 20
    assert all(abs(size - 20) <= 1 for _, size in first[:-1])  # what is left comes last
