"""Bad parameters and odd sequences of calls over every estimator."""

import inspect
import math
import re

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV

import sklebm
from tests.bad_parameter_table import ELSEWHERE, STARTS, TOO_LARGE, bad_values, names_it
from tests.registry import (
    NAMES,
    entry,
    fitted_state,
    freeze,
    make,
    make_brief,
    make_rows,
    make_variants,
    names_with,
    row_methods,
    takes,
)
from tests.sampling import FULL

every = pytest.mark.parametrize("name", NAMES)


def attempt(call):
    """Return the error that a call raises, or None."""
    try:
        call()
    except Exception as error:
        return error
    return None


def parameter_cases():
    for name in NAMES:
        model = make(name)
        for parameter in model.get_params(deep=False):
            for value in bad_values(model, parameter):
                yield name, parameter, value


@pytest.mark.table(250)
@pytest.mark.parametrize(("name", "parameter", "value"), list(parameter_cases()))
@pytest.mark.parametrize("was_fitted", [False, True])
def test_bad_value_is_named_shown_and_refused(name, parameter, value, was_fitted):
    model = make_brief(name)
    if was_fitted:
        model.fit(make_rows())
    model.set_params(**{parameter: value})
    before = freeze(vars(model))
    for method in ("fit", "partial_fit"):
        if not hasattr(model, method):
            continue
        if method == "partial_fit" and was_fitted and parameter in STARTS:
            continue
        with pytest.raises((ValueError, TypeError)) as caught:
            getattr(model, method)(make_rows())
        assert names_it(parameter, caught.value)
        assert freeze(vars(model)) == before
        if isinstance(value, (str, int, float)):
            assert str(value) in str(caught.value)


@every
def test_unknown_choices_list_the_known_ones(name):
    model = make_brief(name)
    for parameter, constraints in model._parameter_constraints.items():
        options = set().union(*(getattr(item, "options", ()) for item in constraints))
        if not options:
            continue
        with pytest.raises(ValueError, match=parameter) as caught:
            clone(model).set_params(**{parameter: "no such choice"}).fit(make_rows())
        for option in options:
            assert repr(option) in str(caught.value)


@every
def test_every_parameter_has_bad_values(name):
    """Its constraints exclude some; where they cannot, tests/bad_parameter_table.py has to."""
    model = make(name)
    without = {p for p in model.get_params(deep=False) if not bad_values(model, p)}
    assert without <= ELSEWHERE.keys()


@every
def test_sizes_that_no_machine_holds_are_refused(name):
    for parameter, value in TOO_LARGE.items():
        if not takes(make(name), parameter):
            continue
        model = make_brief(name, **{parameter: value})
        with pytest.raises((ValueError, MemoryError), match=rf"{parameter}|smaller model"):
            model.fit(make_rows())
        assert not fitted_state(model)


@pytest.mark.parametrize("name", [n for n in NAMES if takes(make(n), "learning_rate")])
def test_learning_rates_beyond_reason_diverge_loudly_or_not_at_all(name):
    for rate in (1e4, 1e12, 1e38):
        model = make_brief(name, learning_rate=rate)
        error = attempt(lambda model=model: model.fit(make_rows()))
        if error is None:
            assert np.isfinite(model.score_samples(make_rows())).all()
        else:
            assert isinstance(error, FloatingPointError)
            assert "learning_rate" in str(error)
            assert not fitted_state(model)


@every
def test_parameters_changed_after_fit_change_no_score(name):
    """What was learnt is read from the fitted state, so it stays what it was.

    How codes are searched may be chosen anew: another solver finds the same ones, to ``code_tol``.
    """
    expected = make(name).fit(make_rows()).score_samples(make_rows())
    for variant in entry(name).variants:
        model = make(name).fit(make_rows()).set_params(**variant)
        rounding = 1e-10 if "solver" in variant else 0.0
        np.testing.assert_allclose(model.score_samples(make_rows()), expected, rtol=rounding)


@every
def test_parameters_are_never_written(name):
    for model in make_variants(name):
        before = freeze(model.get_params())
        model.fit(make_rows())
        for method in row_methods(model):
            getattr(model, method)(make_rows())
        assert freeze(model.get_params()) == before


@every
def test_unknown_parameters_are_refused(name):
    with pytest.raises(TypeError, match="unexpected keyword argument 'no_such_parameter'"):
        getattr(sklebm, name)(no_such_parameter=1)
    with pytest.raises(ValueError, match="Invalid parameter 'no_such_parameter'"):
        make(name).set_params(no_such_parameter=1)


@every
@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_failing_candidates_do_not_spoil_a_search(name):
    """A search over a bad and a good value scores the bad one NaN and fits the good one."""
    model = make_brief(name)
    parameter = next(p for p in model.get_params(deep=False) if bad_values(model, p))
    good = model.get_params(deep=False)[parameter]
    grid = {parameter: [bad_values(model, parameter)[0], good]}
    search = GridSearchCV(make_brief(name), grid, cv=2, error_score=np.nan)
    with pytest.warns(FitFailedWarning, match="2 fits failed"):
        search.fit(make_rows())
    assert np.isnan(search.cv_results_["mean_test_score"][0])
    assert np.isfinite(search.cv_results_["mean_test_score"][1])


@pytest.mark.parametrize("name", names_with("partial_fit"))
def test_one_row_at_a_time(name):
    """However few the rows: learn, or say how many are needed, and stay as it was."""
    model = make_brief(name)
    for row in make_rows(10):
        before = freeze(vars(model))
        error = attempt(lambda row=row: model.partial_fit([row]))
        if error is not None:
            assert isinstance(error, ValueError)
            assert re.search(r"n_samples=1|1 sample|at least", str(error))
            assert freeze(vars(model)) == before
    if hasattr(model, "n_features_in_"):
        assert np.isfinite(model.score_samples(make_rows())).all()


@pytest.mark.parametrize("name", [n for n in NAMES if takes(make(n), "warm_start")])
def test_warm_start_goes_on_and_refuses_another_shape(name):
    X = make_rows()
    model = make_brief(name, warm_start=True).fit(X)
    first = model.score_samples(X)
    assert not np.array_equal(model.fit(X).score_samples(X), first)
    shape = {"hidden_sizes": (3,)}
    if takes(model, "n_components"):
        shape = {"n_components": 5 if model.n_components == 3 else 3}
    before = freeze(vars(model.set_params(**shape)))
    with pytest.raises(ValueError, match=re.escape("{}={!r}".format(*next(iter(shape.items()))))):
        model.fit(X)
    assert freeze(vars(model)) == before
    with pytest.raises(ValueError, match="features"):
        make_brief(name, warm_start=True).fit(X).fit(X[:, :4])


@pytest.mark.parametrize("name", names_with("sample"))
@pytest.mark.parametrize("n_samples", [0, -1, 2.5, "many", None])
def test_numbers_of_samples_that_are_none(name, n_samples):
    with pytest.raises(ValueError, match=r"n_samples=.*(positive integer|integer of at least 1)"):
        make_brief(name).fit(make_rows()).sample(n_samples)


@pytest.mark.skipif(not FULL, reason="large: runs with SKLEBM_TEST_FULL=1")
@pytest.mark.parametrize("name", names_with("sample"))
def test_a_million_samples(name):
    model = make_brief(name).fit(make_rows())
    short = {"n_steps": 5} if "n_steps" in inspect.signature(model.sample).parameters else {}
    drawn = model.sample(10**6, random_state=0, **short)
    # scikit-learn's mixtures return the labels as well
    assert (drawn[0] if isinstance(drawn, tuple) else drawn).shape == (10**6, 6)


WITH_BETA = [
    name
    for name in names_with("free_energy")
    if "beta" in inspect.signature(make(name).free_energy).parameters
]


def test_some_free_energies_have_a_temperature():
    assert {"BernoulliRBM", "EnergyKMeans", "GaussianRBM"} <= set(WITH_BETA)


@pytest.mark.parametrize("name", WITH_BETA)
@pytest.mark.parametrize("beta", [0, -1.0, math.nan, "cold"])
def test_temperatures_that_are_none(name, beta):
    model = make_brief(name).fit(make_rows())
    with pytest.raises((ValueError, TypeError), match="beta"):
        model.free_energy(make_rows(), beta=beta)
