"""scikit-learn's callbacks over every estimator: progress, stopping, faults."""

import copy
import io

import numpy as np
import pandas as pd
import pytest
import rich.console
import rich.progress
from sklearn.base import clone
from sklearn.callback import ProgressBar
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from tests.registry import (
    NAMES,
    draw_rows,
    fitted_state,
    freeze,
    make,
    make_rows,
    row_methods,
    takes,
)

every = pytest.mark.parametrize("name", NAMES)
# Models that announce their steps, one at a time.
stepwise = pytest.mark.parametrize(
    "name", [n for n in NAMES if takes(make(n), "max_iter") or takes(make(n), "max_epochs")]
)


class Recorder:
    """Keeps what it is told; acts at one step."""

    def __init__(self, at_step=None, action=None):
        self.at_step, self.action = at_step, action
        self.events, self.snapshots = [], []

    def __deepcopy__(self, memo):
        return self  # a copied estimator keeps its callbacks: not with every earlier copy inside

    def setup(self, estimator, context):
        self.events.append("setup")

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.events.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X, fitted_estimator):
        self.events.append(f"end {context.task_name}")
        if fitted_estimator is not None:
            # copies made in mid-fit must be whole and stand alone
            self.snapshots.append(
                (fitted_estimator.score_samples(X), copy.deepcopy(fitted_estimator))
            )
        if context.task_name != "fit" and self.steps() == self.at_step:
            return self.action()
        return None

    def steps(self):
        return sum(event.startswith("end") and event != "end fit" for event in self.events)


def stop():
    return True


def interrupt():
    raise KeyboardInterrupt


def fail():
    raise RuntimeError("fault in a callback")


@every
def test_events_are_balanced_and_end_with_teardown(name):
    recorder = Recorder()
    make(name).set_callbacks(recorder).fit(make_rows())
    events = recorder.events
    assert events[:2] == ["setup", "begin fit"]
    assert events[-2:] == ["end fit", "teardown"]
    begins = [event.removeprefix("begin ") for event in events if event.startswith("begin")]
    ends = [event.removeprefix("end ") for event in events if event.startswith("end")]
    assert sorted(begins) == sorted(ends)


@every
def test_callbacks_change_no_number(name):
    model = make(name).set_callbacks(Recorder())
    assert freeze(fitted_state(model.fit(make_rows()))) == freeze(
        fitted_state(make(name).fit(make_rows()))
    )


@every
def test_callbacks_get_whole_fitted_estimators(name):
    recorder = Recorder()
    X = make_rows()
    model = make(name).set_callbacks(recorder).fit(X)
    assert recorder.snapshots
    for scores, snapshot in recorder.snapshots:
        np.testing.assert_array_equal(snapshot.score_samples(X), scores)
    for _, snapshot in recorder.snapshots[:: max(1, len(recorder.snapshots) - 1)]:
        for method in row_methods(model):
            assert np.isfinite(getattr(snapshot, method)(X)).all()
        if hasattr(model, "sample"):
            assert draw_rows(snapshot, 3, 0).shape == (3, X.shape[1])
    np.testing.assert_array_equal(recorder.snapshots[-1][0], model.score_samples(X))


@every
def test_snapshots_keep_nothing_of_an_earlier_fit(name):
    recorder = Recorder()
    model = make(name).fit(pd.DataFrame(make_rows(), columns=list("abcdef")))
    model.set_callbacks(recorder).fit(make_rows())
    assert not any(hasattr(snapshot, "feature_names_in_") for _, snapshot in recorder.snapshots)


@stepwise
def test_a_callback_stops_the_fit_at_its_step(name):
    recorder = Recorder(at_step=1, action=stop)
    model = make(name).set_callbacks(recorder).fit(make_rows(noise=0.3))
    assert model.n_iter_ == 1
    assert recorder.steps() == 1
    assert recorder.events[-2:] == ["end fit", "teardown"]
    for method in row_methods(model):
        assert np.isfinite(getattr(model, method)(make_rows())).all()


@stepwise
@pytest.mark.parametrize("was_fitted", [False, True])
@pytest.mark.parametrize(
    ("action", "error"), [(interrupt, KeyboardInterrupt), (fail, RuntimeError)]
)
def test_a_fault_in_a_callback_leaves_the_estimator_as_it_was(name, was_fitted, action, error):
    model = make(name)
    if was_fitted:
        model.fit(make_rows(seed=1))
    before = freeze(vars(model))
    recorder = Recorder(at_step=1, action=action)
    with pytest.raises(error):
        model.set_callbacks(recorder).fit(make_rows()[:, :4])
    assert recorder.events[-1] == "teardown"
    assert freeze(vars(model.set_callbacks())) == before


@stepwise
def test_an_interrupt_ends_a_whole_search(name):
    recorder = Recorder(at_step=1, action=interrupt)
    search = GridSearchCV(make(name).set_callbacks(recorder), {}, cv=3)
    with pytest.raises(KeyboardInterrupt):
        search.fit(make_rows())
    assert recorder.events.count("setup") == 1


@every
def test_clone_keeps_callbacks(name):
    model = make(name).set_callbacks(Recorder())
    assert isinstance(clone(model)._skl_callbacks[0], Recorder)


@every
def test_progress_bars_nest_through_search_and_pipeline(name, monkeypatch):
    """Two worker processes report into one tree of bars: search, split, pipeline step."""
    screen = io.StringIO()
    monkeypatch.setattr(
        rich.progress, "get_console", lambda: rich.console.Console(file=screen, width=120)
    )
    pipeline = make_pipeline(MinMaxScaler(), make(name))
    search = GridSearchCV(pipeline, {"minmaxscaler__clip": [False, True]}, cv=2, n_jobs=2)
    search.set_callbacks(ProgressBar(max_propagation_depth=None))
    search.fit(make_rows())
    text = screen.getvalue()
    for word in ("GridSearchCV", "Pipeline", name):
        assert word in text, text
