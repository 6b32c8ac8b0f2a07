"""EnergyMonitor: a held-out score per step without labels, and early stopping by it."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklebm import (
    BernoulliRBM,
    ContrastiveEmbedding,
    EnergyKMeans,
    LinearizingAutoencoder,
    SequenceEnergy,
    SlowFeatureAutoencoder,
)
from sklebm.callbacks import EnergyMonitor
from sklebm.datasets import AutoregressiveProcess
from tests.machines import balanced_machine, exact_rows
from tests.registry import fitted_state, freeze

MACHINE = balanced_machine(8, 5)
ROWS, HELD_OUT = exact_rows(MACHINE, 300), exact_rows(MACHINE, 300, seed=1)


def make(**settings):
    defaults = {"n_components": 5, "batch_size": 20, "max_epochs": 6, "random_state": 0}
    return BernoulliRBM(**{**defaults, **settings})


class Prescribed:
    """A scoring function with prescribed results."""

    def __init__(self, *scores):
        self.scores = scores
        self.n_calls = 0

    def __call__(self, model, X):
        self.n_calls += 1
        return self.scores[self.n_calls - 1]


def scores_of(monitor):
    return [row["score"] for row in monitor.get_logs().data]


def test_one_score_per_epoch_in_order():
    monitor = EnergyMonitor(HELD_OUT)
    make().set_callbacks(monitor).fit(ROWS)
    rows = monitor.get_logs().data
    assert len(rows) == 6
    assert [row["task_name"] for row in rows] == ["epoch"] * 6
    assert [row["task_id"] for row in rows] == list(range(6))
    assert monitor.get_logs().estimator_name == "BernoulliRBM"


def test_scores_are_those_of_the_model_at_that_epoch():
    """The last is what the fitted model itself gives, the first what one epoch gives."""
    monitor = EnergyMonitor(HELD_OUT)
    model = make(learning_rate_schedule="constant").set_callbacks(monitor).fit(ROWS)
    scores = scores_of(monitor)
    assert scores[-1] == model._monitor_score(HELD_OUT)
    short = make(max_epochs=1, learning_rate_schedule="constant").fit(ROWS)
    assert scores[0] == short._monitor_score(HELD_OUT)


def test_the_default_score_follows_the_exact_likelihood():
    pseudo, exact = EnergyMonitor(HELD_OUT), EnergyMonitor(HELD_OUT, scoring=exact_score)
    make(max_epochs=40, learning_rate=0.3).set_callbacks(pseudo, exact).fit(ROWS)
    assert np.corrcoef(scores_of(pseudo), scores_of(exact))[0, 1] > 0.9
    assert scores_of(exact)[-1] > scores_of(exact)[0] + 0.3


def exact_score(model, X):
    """Exact mean log-likelihood: models in mid-training have no normaliser of their own."""
    return copy.deepcopy(model).estimate_log_partition("exact").score(X)


def test_scoring_gets_a_fitted_model_and_the_rows():
    seen = []

    def scoring(model, X):
        assert X is HELD_OUT
        seen.append((model.n_iter_, model.transform(X).shape, model.sample(2, n_steps=1).shape))
        return 0.0

    make(max_epochs=3).set_callbacks(EnergyMonitor(HELD_OUT, scoring=scoring)).fit(ROWS)
    assert seen == [(n, (300, 5), (2, 8)) for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("scores", "patience", "tol", "n_epochs"),
    [
        ([-5, -4, -3, -2, -1, 0], 1, 0.0, 6),
        ([-5, -4, -4.5, -4.2, -3, -2], 2, 0.0, 4),
        ([-5, -4, -4.5, -3, -3.5, -3.2], 2, 0.0, 6),
        ([1, 1, 1, 1, 1, 1], 3, 0.0, 4),  # equal is no rise
        ([-5, -4.95, -4.9, -4.85, -4.8, -4.75], 3, 0.1, 6),  # slow rises add up
        ([-5, -6, -7, -8, -9, -10], None, 0.0, 6),
        ([-5, -6, -7, -8, -9, -10], 1, 0.0, 2),
    ],
)
def test_stops_at_the_right_epoch(scores, patience, tol, n_epochs):
    scoring = Prescribed(*scores)
    monitor = EnergyMonitor(HELD_OUT, scoring=scoring, patience=patience, tol=tol)
    model = make().set_callbacks(monitor).fit(ROWS)
    assert model.n_iter_ == n_epochs == scoring.n_calls
    assert scores_of(monitor) == scores[:n_epochs]
    # A model that was stopped is a whole one, normaliser included.
    assert np.isfinite(model.score(HELD_OUT))


def test_every_fit_begins_anew():
    """The best score of one fit must not stop the next."""
    monitor = EnergyMonitor(HELD_OUT, scoring=Prescribed(9, 8, 1, 2, 3, 4, 5, 6), patience=1)
    model = make().set_callbacks(monitor)
    assert model.fit(ROWS).n_iter_ == 2
    assert model.fit(ROWS).n_iter_ == 6
    assert scores_of(monitor) == [1, 2, 3, 4, 5, 6]
    assert len(monitor.get_logs(select="all")) == 2


def test_watching_changes_no_number():
    watched = make().set_callbacks(EnergyMonitor(HELD_OUT)).fit(ROWS)
    assert freeze(fitted_state(watched)) == freeze(fitted_state(make().fit(ROWS)))


def test_two_monitors_keep_their_own_counts():
    first = EnergyMonitor(HELD_OUT, scoring=Prescribed(1, 2, 3, 4, 5, 6))
    second = EnergyMonitor(HELD_OUT, scoring=Prescribed(1, 0, 0, 0, 0, 0), patience=3)
    assert make().set_callbacks(first, second).fit(ROWS).n_iter_ == 4
    assert scores_of(first) == [1, 2, 3, 4]


def test_iterations_of_other_models_count_as_well():
    monitor = EnergyMonitor(HELD_OUT)
    model = EnergyKMeans(4, random_state=0, tol=0.0).set_callbacks(monitor).fit(ROWS)
    scores = scores_of(monitor)
    assert len(scores) == model.n_iter_
    assert scores[-1] > scores[0]


# ---------------------------------------------------------------- rows of sequences

SHORT = {"max_epochs": 2, "random_state": 0, "learning_rate_schedule": "constant"}
SEQUENCES, NAMES = AutoregressiveProcess(0.99).sample(30, 2, random_state=0)


@pytest.mark.parametrize(
    "model",
    [
        SequenceEnergy(2, cell="linear", **SHORT),
        LinearizingAutoencoder(1, hidden_sizes=(), **SHORT),
    ],
)
@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_held_out_sequences_are_scored_as_the_model_scores_them(model, offset):
    X = SEQUENCES + offset
    monitor, joined = EnergyMonitor(X, groups=NAMES), EnergyMonitor(X)
    model = clone(model).set_callbacks(monitor, joined).fit(X, groups=NAMES)
    # float32 does not hold rows about 1e8, whose scores would be of a grid of 8.
    assert scores_of(monitor)[-1] == pytest.approx(model.score(X, groups=NAMES), rel=1e-12)
    assert scores_of(joined)[-1] == pytest.approx(model.score(X), rel=1e-12)
    assert scores_of(monitor)[-1] != pytest.approx(scores_of(joined)[-1], rel=1e-6)


def test_views_are_drawn_from_the_held_out_sequences():
    X = np.random.default_rng(0).normal(size=(10, 3)).repeat(4, axis=0)
    own, mixed = np.arange(10).repeat(4), np.tile(np.arange(10), 4)
    monitors = EnergyMonitor(X, groups=own), EnergyMonitor(X, groups=mixed)
    model = ContrastiveEmbedding(2, views="groups", hidden_sizes=(), **SHORT)
    model.set_callbacks(*monitors).fit(X, groups=own)
    alike, different = map(scores_of, monitors)  # the rows of a sequence are equal, or all differ
    assert alike[-1] > different[-1] + 0.1


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (EnergyKMeans(2), "records of EnergyKMeans does not depend on them: leave groups out"),
        (SlowFeatureAutoencoder(1, **SHORT), "SlowFeatureAutoencoder does not depend on them"),
        (ContrastiveEmbedding(1, hidden_sizes=(), **SHORT), 'set views="groups"'),
    ],
)
def test_groups_that_no_score_uses_are_refused(model, message):
    X = np.random.default_rng(0).normal(size=(60, 3))
    model = clone(model).set_callbacks(EnergyMonitor(X, groups=NAMES))
    with pytest.raises(ValueError, match=message):
        model.fit(X)
    assert not hasattr(model, "n_features_in_")


def test_a_function_uses_groups_itself():
    with pytest.raises(ValueError, match="let scoring use the groups itself"):
        EnergyMonitor(SEQUENCES, groups=NAMES, scoring=exact_score)


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_works_under_grid_search(n_jobs):
    """Every candidate on every split stops by its own scores; logs come from the workers too."""
    monitor = EnergyMonitor(HELD_OUT, scoring=falling, patience=2)
    search = GridSearchCV(
        make().set_callbacks(monitor), {"learning_rate": [0.01, 0.1]}, cv=2, n_jobs=n_jobs
    ).fit(ROWS)
    assert search.best_estimator_.n_iter_ == 3
    rows = [row for log in monitor.get_logs(select="all") for row in log.data]
    # Two candidates on two splits and the refit, three epochs each.
    assert len(rows) == 5 * 3


def falling(model, X):
    return -float(model.n_iter_)


def test_works_in_a_pipeline():
    monitor = EnergyMonitor(HELD_OUT, patience=2, scoring=falling)
    pipeline = make_pipeline(FunctionTransformer(), make().set_callbacks(monitor))
    pipeline.fit(ROWS)
    assert pipeline[-1].n_iter_ == 3
    assert scores_of(monitor) == [-1.0, -2.0, -3.0]


def test_clones_share_the_monitor_and_fit_stays_picklable():
    monitor = EnergyMonitor(HELD_OUT)
    model = make().set_callbacks(monitor)
    assert clone(model)._skl_callbacks[0] is monitor
    twin = pickle.loads(pickle.dumps(model.fit(ROWS)))
    np.testing.assert_array_equal(twin.score_samples(ROWS), model.score_samples(ROWS))


def test_a_fault_in_scoring_leaves_the_model_as_it_was():
    def fault(model, X):
        raise RuntimeError("fault in scoring")

    model = make().set_callbacks(EnergyMonitor(HELD_OUT, scoring=fault))
    with pytest.raises(RuntimeError, match="fault in scoring"):
        model.fit(ROWS)
    assert not fitted_state(model)
    model.set_callbacks(EnergyMonitor(HELD_OUT)).fit(ROWS)


@pytest.mark.parametrize("patience", [0, -1])
def test_patience_must_be_positive(patience):
    with pytest.raises(ValueError, match=f"patience={patience} must be at least 1, or None"):
        EnergyMonitor(HELD_OUT, patience=patience)
