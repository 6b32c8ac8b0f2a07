"""The loop of models that iterate until they settle, on a model of one number."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from sklebm.iterative import IterativeEstimator

X = np.array([[1.0], [3.0]])


class Walk(NamedTuple):
    place: float
    settled: bool = False


class Problem(NamedTuple):
    mean: float

    def state(self, run, n_iter):
        return {"location_": run.place, "cost_": (run.place - self.mean) ** 2, "n_iter_": n_iter}

    def report(self, run):
        return {"distance": abs(run.place - self.mean)}


class HalfWay(IterativeEstimator):
    """Goes half of the way to the mean of the rows in each step, from a random place."""

    _n_features_out = 1

    def __init__(self, n_init=1, max_iter=100, tol=1e-3, random_state=None, verbose=0):
        self.n_init, self.max_iter, self.tol = n_init, max_iter, tol
        self.random_state, self.verbose = random_state, verbose

    device = "cpu"

    def _validate_params(self):
        pass

    def _prepare(self, rows, **data):
        return Problem(float(rows.all().mean()))

    def _start(self, problem, draw):
        return Walk(problem.mean + 8.0 * float(torch.rand((), generator=draw("place"))))

    def _step(self, problem, run):
        place = 0.5 * (run.place + problem.mean)
        return Walk(place, abs(place - run.place) < self.tol)

    def _cost(self, state):
        return state["cost_"]

    def score_samples(self, X):
        return -((X[:, 0] - self.location_) ** 2)


def test_a_run_ends_when_it_settles():
    model = HalfWay(random_state=0).fit(X)
    assert model.location_ == pytest.approx(2.0, abs=1e-3)
    assert 1 < model.n_iter_ < 20


def test_the_best_of_several_starts_is_kept_and_each_has_a_seed_of_its_own():
    with pytest.warns(
        ConvergenceWarning, match="HalfWay did not converge in max_iter=1 iterations"
    ):
        costs = [HalfWay(n, max_iter=1, random_state=0).fit(X).cost_ for n in (1, 2, 8, 8)]
    assert costs[2] == costs[3] <= costs[1] <= costs[0]
    assert costs[2] < costs[0]


def test_every_step_is_reported(capsys):
    model = HalfWay(n_init=2, random_state=0, verbose=1).fit(X)
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["iteration", "distance", "dur"]
    assert len(table) - 2 >= model.n_iter_ + 1


def test_a_failing_step_leaves_the_model_as_it_was():
    model = HalfWay(random_state=0).fit(X)
    before = dict(vars(model))
    model._step = None
    with pytest.raises(TypeError):
        model.fit(X + 1.0)
    del model._step
    assert vars(model) == before
