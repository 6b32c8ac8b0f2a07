"""The model of the tutorial is a model: the common checks, its equation, the rest of the shell."""

import sys

import numpy as np
import pytest
import scipy.stats
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklebm import EnergyOutlierDetector, PCAWhitener
from tests.subprocesses import ROOT

SOURCE = ROOT / "docs" / "laplace_energy.py"
sys.path.append(str(SOURCE.parent))  # the checks pickle, and pickles name a module

from laplace_energy import LaplaceEnergy  # noqa: E402


@pytest.fixture
def X():
    return np.random.default_rng(0).laplace([0.0, 5.0, -1.0], [1.0, 3.0, 0.2], (800, 3))


@parametrize_with_checks([LaplaceEnergy()])
def test_sklearn_check(estimator, check):
    check(estimator)


def test_the_density_is_that_of_laplace_variables(X):
    model = LaplaceEnergy().fit(X[:400])
    truth = scipy.stats.laplace.logpdf(X, model.location_, model.scale_).sum(axis=1)
    np.testing.assert_allclose(model.score_samples(X), truth, rtol=1e-12)


def test_no_other_parameters_are_more_likely(X):
    model = LaplaceEnergy().fit(X)
    best = model.score(X)
    for attribute in ("location_", "scale_"):
        for factor in (0.99, 1.01):
            moved = LaplaceEnergy().fit(X)
            setattr(moved, attribute, factor * getattr(model, attribute))
            assert moved.score(X) < best


def test_the_shell_gives_the_rest(X):
    search = GridSearchCV(LaplaceEnergy(), {"min_scale": [1e-6, 10.0]}).fit(X)
    assert search.best_params_ == {"min_scale": 1e-6}
    detector = EnergyOutlierDetector(make_pipeline(PCAWhitener(), LaplaceEnergy())).fit(X)
    assert detector.predict([[0.0, 5.0, -1.0], [0.0, 500.0, -1.0]]).tolist() == [1, -1]
    with pytest.raises(ValueError, match="min_scale"):
        LaplaceEnergy(min_scale=0.0).fit(X)


def test_the_page_shows_this_code_and_keeps_its_promise():
    page = (ROOT / "docs" / "adding_a_model.rst").read_text()
    assert f".. literalinclude:: {SOURCE.name}" in page
    assert len(SOURCE.read_text().splitlines()) <= 90
