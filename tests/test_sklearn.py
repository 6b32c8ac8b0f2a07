"""scikit-learn's common tests over every estimator; sequences may depend on their order."""

import unittest
from functools import partial

import pytest
from sklearn.base import is_classifier, is_regressor
from sklearn.utils.estimator_checks import parametrize_with_checks

import sklebm
from tests.registry import ALL_NAMES, DEPEND_ON_NEIGHBOURS, entry, fit_takes, make
from tests.sampling import FULL

# What breaks for one estimator alone: these run for each of them, in its default settings, always.
CORE = {
    "check_dict_unchanged",
    "check_dont_overwrite_attributes",
    "check_estimators_dtypes",
    "check_estimators_nan_inf",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_fit_check_is_fitted",
    "check_fit_idempotent",
    "check_fit2d_1feature",
    "check_fit2d_1sample",
    "check_methods_sample_order_invariance",
    "check_n_features_in_after_fitting",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_transformer_general",
}


def name_of(check):
    while isinstance(check, partial):
        check = check.func
    return check.__name__


def is_core(case):
    estimator, check = case["estimator"], case["check"]
    return name_of(check) in CORE and repr(estimator) in DEFAULTS


# These two checks are excused for models whose answers depend on neighbours, and nothing else is.
ORDER_CHECKS = ("check_methods_sample_order_invariance", "check_methods_subset_invariance")


def excused(estimator):
    if type(estimator).__name__ not in DEPEND_ON_NEIGHBOURS:
        return {}
    return dict.fromkeys(ORDER_CHECKS, "the answer for a row depends on the rows before it")


#: What "auto" trains for a hundred passes.
INSIDE = {"LikelihoodRegretScorer": sklebm.VAE(max_epochs=5, hidden_sizes=(16,), random_state=0)}


def brief(model):
    """The model, with narrow networks and few passes over the rows, unless checks ask for skill.

    More teach a check nothing, and took most of the time of all common tests. The whole tables
    (SKLEBM_TEST_FULL) keep the defaults.
    """
    if FULL:
        return model
    given = model.get_params(deep=False)
    needs_skill = is_classifier(model) or is_regressor(model)
    n_epochs, most = given.get("max_epochs", 0), 60 if needs_skill else 5
    if n_epochs == "auto" or n_epochs > most:
        model.set_params(max_epochs=most)
    if isinstance(given.get("hidden_sizes"), tuple) and not needs_skill:
        model.set_params(hidden_sizes=tuple(min(size, 16) for size in given["hidden_sizes"]))
    if given.get("estimator") == "auto" and type(model).__name__ in INSIDE:
        model.set_params(estimator=INSIDE[type(model).__name__])
    return model


def variants(name):
    """Every variant of an estimator, on top of its defaults."""
    return [brief(getattr(sklebm, name)(**variant)) for variant in entry(name).variants]


INSTANCES = {name: brief(getattr(sklebm, name)()) for name in ALL_NAMES}
DEFAULTS = {repr(model) for model in INSTANCES.values()}


@pytest.mark.table(250, always=is_core)
@parametrize_with_checks(
    [model for name, first in INSTANCES.items() for model in (first, *variants(name))],
    expected_failed_checks=excused,
    xfail_strict=True,
)
def test_sklearn_check(estimator, check):
    try:
        check(estimator)
    except unittest.SkipTest as skip:
        pytest.fail(f"a check that skips itself checks nothing: {skip}")


@pytest.mark.parametrize("name", ALL_NAMES)
def test_no_tag_silences_a_check(name):
    tags = make(name).__sklearn_tags__()
    assert not tags._skip_test
    assert not tags.no_validation
    assert not tags.non_deterministic
    assert tags.input_tags.two_d_array
    # What may be told of missing values takes NaN for them; ``bad_input_table`` tries the rest.
    assert tags.input_tags.allow_nan == fit_takes(make(name), "mask")
