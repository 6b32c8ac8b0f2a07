"""``verbose``: a line for each step, with the objective and the score of held-out rows."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV

from sklebm import Autoencoder, EnergyGaussianMixture, EnergyKMeans, GaussianEnergy, SparseCoder
from sklebm.callbacks import EnergyMonitor

X = load_iris().data
MODELS = {
    "inertia": EnergyKMeans(5, random_state=0),
    "lower_bound": EnergyGaussianMixture(3, random_state=0),
    "energy": SparseCoder(6, max_iter=4, random_state=0),
    "objective": GaussianEnergy(structure="full", objective="noise_contrastive", random_state=0),
}
TRACES = {"lower_bound": "lower_bounds_", "energy": "energy_curve_"}


def table_of(text):
    """Column names, and the numbers of all lines below the rule."""
    names, rule, *lines = text.strip().splitlines()
    assert set(rule) == {"-", " "}
    assert {len(line) for line in lines} == {len(rule)}
    return names.split(), np.array([[float(cell) for cell in line.split()] for line in lines])


@pytest.mark.parametrize("objective", MODELS)
def test_a_line_per_step_if_asked(objective, capsys):
    model = MODELS[objective].set_params(verbose=1).fit(X)
    names, table = table_of(capsys.readouterr().out)
    assert names == ["iteration", objective, "dur"]
    np.testing.assert_array_equal(table[:, 0], 1 + np.arange(model.n_iter_))
    assert (table[:, 2] >= 0).all()
    if objective in TRACES:
        np.testing.assert_allclose(table[:, 1], getattr(model, TRACES[objective]), rtol=1e-5)
    else:
        assert (np.diff(table[:, 1]) <= 0).all()
    silent = model.set_params(verbose=0).fit(X)
    assert capsys.readouterr().out == ""
    assert silent.n_iter_ == model.n_iter_


def test_the_last_line_is_the_result(capsys):
    model = EnergyKMeans(5, tol=0.0, random_state=0, verbose=1).fit(X)
    _, table = table_of(capsys.readouterr().out)
    assert table[-1, 1] == pytest.approx(model.inertia_, rel=1e-5)


def test_held_out_scores_of_a_monitor_are_printed(capsys):
    monitor = EnergyMonitor(X[1::2])
    EnergyGaussianMixture(2, random_state=0, verbose=1).set_callbacks(monitor).fit(X[::2])
    names, table = table_of(capsys.readouterr().out)
    assert names == ["iteration", "lower_bound", "valid_score", "dur"]
    scores = [row["score"] for row in monitor.get_logs().data]
    np.testing.assert_allclose(table[:, 2], scores, rtol=1e-5)


def test_models_trained_by_gradient_print_them_too(capsys):
    monitor = EnergyMonitor(X[1::2])
    model = Autoencoder(2, max_epochs=3, random_state=0, verbose=1).set_callbacks(monitor)
    model.fit(X[::2])
    names, table = table_of(capsys.readouterr().out)
    assert names == ["epoch", "train_loss", "valid_score", "dur"]
    scores = [row["score"] for row in monitor.get_logs().data]
    np.testing.assert_allclose(table[:, 2], scores, atol=1e-4)  # four decimals
    model.set_params(validation_fraction=0.2).fit(X[::2])  # rows of its own come first
    _, table = table_of(capsys.readouterr().out)
    np.testing.assert_allclose(table[:, 2], model.validation_scores_, atol=1e-4)


def test_steps_that_a_monitor_does_not_score_are_printed_without(capsys):
    """To a monitor a fit by Newton's method is one step."""
    model = MODELS["objective"].set_params(verbose=1).set_callbacks(EnergyMonitor(X[1::2]))
    model.fit(X[::2])
    names, table = table_of(capsys.readouterr().out)
    assert names == ["iteration", "objective", "dur"]
    assert len(table) == model.n_iter_
    model.set_callbacks()


def test_every_fit_of_a_search_prints_its_own_table(capsys):
    model = EnergyKMeans(3, max_iter=2, tol=0.0, random_state=0, verbose=1)
    GridSearchCV(model, {"n_clusters": [2, 4]}, cv=2, refit=False).fit(X)
    assert capsys.readouterr().out.count("iteration") == 4


def test_an_objective_is_not_computed_unless_printed(monkeypatch):
    calls = []
    monkeypatch.setattr("sklebm.mixture._clusters.inertia", lambda *fit: calls.append(fit) or 0)
    model = EnergyKMeans(3, max_iter=2, tol=0.0, random_state=0).fit(X)
    assert not calls
    model.set_params(verbose=1).fit(X)
    assert len(calls) == 2
