"""Weights of rows in all methods that take them: a row of weight zero might as well be absent."""

import inspect

import numpy as np
import pytest
from sklearn.base import is_classifier

import sklebm
from tests.registry import (
    ALL_NAMES,
    DEPEND_ON_NEIGHBOURS,
    fit_takes,
    make_brief,
    make_rows,
    make_targets,
    requires_y,
    row_methods,
)


def weighing(*methods):
    """Every estimator and method with an argument ``sample_weight``."""
    return [
        (name, method)
        for name in ALL_NAMES
        for method in methods
        if "sample_weight"
        in inspect.signature(getattr(getattr(sklebm, name), method, weighing)).parameters
    ]


def answers(model, X):
    numbers = [method for method in row_methods(model) if method != "predict"]
    return {method: np.asarray(getattr(model, method)(X)) for method in numbers}


@pytest.mark.parametrize(("name", "method"), weighing("fit", "partial_fit"))
def test_rows_of_weight_zero_teach_nothing(name, method):
    """Other values in their place change no answer; without the weights they would."""
    X = make_rows(60, noise=0.2)
    weight = np.arange(60) % 4 % 3.0
    others = np.where(weight[:, None] > 0, X, 1.0 - 0.5 * X)
    found = []
    for rows, weights in ((X, weight), (others, weight), (X, None)):
        model = make_brief(name)
        given = {"y": make_targets(name, X)} if requires_y(model) else {}
        if is_classifier(model) and method == "partial_fit":
            given["classes"] = np.unique(given["y"])
        getattr(model, method)(rows, **given, sample_weight=weights)
        found.append(answers(model, X))
    weighted, of_others, plain = found
    for answer, values in weighted.items():
        np.testing.assert_allclose(of_others[answer], values, rtol=1e-6, atol=1e-8, err_msg=answer)
    scores = plain["score_samples"], weighted["score_samples"]
    assert not np.allclose(*scores, rtol=1e-6)


@pytest.mark.parametrize(("name", "method"), weighing("score"))
def test_a_score_is_the_weighted_mean_over_rows(name, method):
    """Of whole sequences, where rows have neighbours."""
    X, groups = make_rows(60, noise=0.3), np.arange(60) // 10
    y, of_sequences = make_targets(name, X), name in DEPEND_ON_NEIGHBOURS
    every, kept = np.arange(60), np.flatnonzero(groups % 2)

    def score(rows, weights=None):
        given = {"groups": groups[rows]} if of_sequences else {}
        given |= {} if weights is None else {"sample_weight": weights}
        return getattr(model, method)(X[rows], np.roll(y, 7)[rows], **given)

    for targets in ([y],) if requires_y(make_brief(name)) else ([y], []):
        model = make_brief(name)
        takes_groups = of_sequences and fit_takes(model, "groups")
        model.fit(X, *targets, **({"groups": groups} if takes_groups else {}))
        expected = score(kept)
        assert score(every, groups % 2) == pytest.approx(expected, rel=1e-6)
        assert score(every, 3.0 * (groups % 2)) == pytest.approx(expected, rel=1e-6)
        assert score(every) != pytest.approx(expected, rel=1e-6)


BAD = {
    "NaN": (np.r_[np.nan, np.ones(59)], "finite sample weights of at least 0"),
    "negative": (np.r_[-1.0, np.ones(59)], "finite sample weights of at least 0"),
    "zero": (np.zeros(60), "not all of them zero"),
    "too few": (np.ones(59), r"sample_weight.shape == \(59,\), expected \(60,\)"),
    "two columns": (np.ones((60, 2)), "must be 1D"),
}


@pytest.mark.parametrize("weights", BAD)
@pytest.mark.parametrize(
    "name", [name for name, _ in weighing("score") if not requires_y(make_brief(name))]
)
def test_scores_refuse_weights_that_are_none(name, weights):
    """scikit-learn's metrics, of models that need y, have checks of their own."""
    X, (given, message) = make_rows(60), BAD[weights]
    model = make_brief(name).fit(X)
    with pytest.raises(ValueError, match=message):
        model.score(X, sample_weight=given)
