"""scikit-learn's common tests over every estimator, without a single expected failure."""

import unittest

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import sklebm
from tests.registry import NAMES, entry, make


def checked_instances():
    """Every estimator with default arguments, and every variant of it."""
    for name in NAMES:
        yield getattr(sklebm, name)()
        for variant in entry(name).variants:
            yield getattr(sklebm, name)(**variant)


@parametrize_with_checks(
    list(checked_instances()),
    expected_failed_checks=lambda estimator: {},
    xfail_strict=True,
)
def test_sklearn_check(estimator, check):
    try:
        check(estimator)
    except unittest.SkipTest as skip:
        pytest.fail(f"a check that skips itself checks nothing: {skip}")


@pytest.mark.parametrize("name", NAMES)
def test_no_tag_silences_a_check(name):
    tags = make(name).__sklearn_tags__()
    assert not tags._skip_test
    assert not tags.no_validation
    assert not tags.non_deterministic
    assert tags.input_tags.two_d_array
    assert not tags.input_tags.allow_nan
