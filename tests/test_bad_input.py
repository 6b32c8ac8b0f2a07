"""Every kind of input over every estimator: the table in ``bad_input_table`` says what happens."""

import functools
import re
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.utils import get_tags

from tests.bad_input_table import INPUTS, OUTSIDE, WORKS, Raises
from tests.registry import NAMES, freeze, make_brief, make_rows, row_methods, takes

LEARNING = ("fit", "partial_fit")
#: Models of real-valued rows by default, and what makes them models of bits, which have limits.
OF_BITS = {
    "GatedBM": {"likelihood": "bernoulli"},
    "SemiRestrictedBM": {"visible": "bernoulli"},
    "SequenceEnergy": {"output": "bernoulli"},
}

every_input = pytest.mark.parametrize(
    "case", INPUTS, ids=[f"{case.number} {case.name}" for case in INPUTS]
)
every = pytest.mark.parametrize("name", NAMES)


def image(X):
    """Something that shows whether X was changed."""
    if isinstance(X, torch.Tensor):
        return "meta" if X.device.type == "meta" else freeze(X.to_dense().numpy())
    if scipy.sparse.issparse(X):
        return freeze(X.toarray())
    return freeze(X) if isinstance(X, np.ndarray) else repr(X)


def observe(model, method, X, **arguments):
    """Call a method; return its result, its error, and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            return getattr(model, method)(X, **arguments), None, caught
        except Exception as error:
            return None, error, caught


def call(model, method, X, outcome, **arguments):
    """Call a method and hold what happens against the table; return its result, or None."""
    before, image_before = freeze(vars(model)), image(X)
    result, error, caught = observe(model, method, X, **arguments)
    assert image(X) == image_before
    if error is not None or method not in LEARNING:
        assert freeze(vars(model)) == before
    if error is not None:
        raises = outcome if isinstance(outcome, Raises) else outcome.unless
        assert raises is not None, f"{method}: {error!r}"
        assert isinstance(error, raises.errors), f"{method}: {error!r}"
        for pattern in raises.patterns:
            assert re.search(pattern, str(error)), f"{pattern!r} is not in {error!r}"
        return None
    assert not isinstance(outcome, Raises), f"{method} accepted it"
    texts = [f"{warning.category.__name__}: {warning.message}" for warning in caught]
    # NumPy warns of overflow, division by zero and invalid values: we must have seen to them. (The
    # sum with which scikit-learn looks for NaN overflows for the largest floats.)
    ours = [text for text in texts if "in reduce" not in text]
    assert not [text for text in ours if text.startswith("RuntimeWarning")], texts
    if type(model).__name__ in OF_BITS:  # real-valued as it is here
        assert not any(re.search(OUTSIDE, text, re.DOTALL) for text in texts), texts
    elif outcome.warns and takes(model, outcome.warns[0]):
        assert any(re.search(outcome.warns[1], text, re.DOTALL) for text in texts), texts
    return result


def assert_finite_answers(model, X):
    n_rows = len(X) if hasattr(X, "__len__") and not scipy.sparse.issparse(X) else X.shape[0]
    for method in row_methods(model):
        result = call(model, method, X, WORKS)
        assert len(result) == n_rows
        assert np.isfinite(np.asarray(result)).all(), method


@pytest.mark.table(200)
@every
@every_input
@pytest.mark.parametrize("was_fitted", [False, True])
def test_fit(case, name, was_fitted):
    for method in LEARNING:
        model = make_brief(name)
        if not hasattr(model, method):
            continue
        if was_fitted:
            model.fit(make_rows())
        outcome = case.outcome(
            # a fitted estimator that learns more rows expects as many features as before
            "fit" if method == "fit" or not was_fitted else "partial_fit",
            get_tags(model).input_tags,
        )
        X = case.make(make_rows())
        if call(model, method, X, outcome) is not None:
            assert_finite_answers(model, case.make(make_rows()))


@pytest.mark.table(120)
@every
@every_input
def test_row_methods(case, name):
    model = make_brief(name).fit(make_rows())
    for method in row_methods(model):
        outcome = case.outcome(method, get_tags(model).input_tags)
        result = call(model, method, case.make(make_rows()), outcome)
        if result is not None:
            assert np.isfinite(np.asarray(result)).all()


@pytest.mark.parametrize("name", [n for n in NAMES if takes(make_brief(n), "value_range")])
def test_value_range_raises_or_clips_on_request(name):
    X = 10 * make_rows() - 5
    make = functools.partial(make_brief, name, **OF_BITS.get(name, {}))
    strict = make(value_range="raise")
    with pytest.raises(ValueError, match=OUTSIDE):
        strict.fit(X)
    assert not hasattr(strict, "n_features_in_")
    with pytest.warns(UserWarning, match=OUTSIDE):
        make().fit(X)
    clipping = make(value_range="clip").fit(X)
    inside = X.clip(*getattr(clipping, "state_values_", (0.0, 1.0)))
    expected = make().fit(inside)
    np.testing.assert_array_equal(clipping.score_samples(X), expected.score_samples(inside))
    with pytest.raises(ValueError, match=OUTSIDE):
        clipping.set_params(value_range="raise").score_samples(X)
    # What was fitted counts, whatever the parameters are by now.
    for parameter, value in OF_BITS.get(name, {}).items():
        with pytest.raises(ValueError, match=OUTSIDE):
            clipping.set_params(**{parameter: "gaussian"}).score_samples(X)
        real = make_brief(name).fit(X)
        expected = real.score_samples(X)
        real.set_params(**{parameter: value, "value_range": "clip"})
        np.testing.assert_array_equal(real.score_samples(X), expected)


def test_the_table_has_all_forty():
    # 35 (columns in another order) and the tensors of 36 are in test_containers.py
    assert {case.number for case in INPUTS} == set(range(1, 41)) - {35}
