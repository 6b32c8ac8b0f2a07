"""Every number that a part takes: which values it refuses, and that it names them."""

import dataclasses
import importlib
import math

import pytest

import sklebm

# Whole numbers are at least 1, if nothing else is said here.
LEAST = {"n_temperatures": 2, "beta_warmup": 0}
# Other numbers are positive, if they are not among these.
FROM_ZERO = {
    *("free_bits", "fraction", "shift", "crop", "flip", "rotate", "blur"),
    *("brightness", "contrast", "erase", "colour", "momentum", "view_weight", "restart", "jump"),
    *("r1", "penalty", "reset_above"),
}
UP_TO_ONE = {
    *("shift", "flip", "contrast", "erase", "colour", "view_weight"),
    *("restart", "jump"),
}
BELOW_ONE = {"fraction", "crop", "momentum", "q", "target_acceptance"}
ABOVE_ONE = {"divisor"}


def settings(*kinds):
    """Class and field of every setting of a part that has one of these types."""
    found = []
    for name, module in sorted(sklebm.PARTS.items()):
        kind = getattr(importlib.import_module(module), name)
        found += [
            pytest.param(kind, field.name, id=f"{name}-{field.name}")
            for field in dataclasses.fields(kind)
            if field.init and str(field.type).removesuffix(" | None") in kinds
        ]
    return found


def refuses(kind, field, value):
    with pytest.raises(ValueError, match=rf"\b{field}\b"):
        kind(**{field: value})


@pytest.mark.parametrize(("kind", "field"), settings("int", "float"))
def test_no_number_is_refused(kind, field):
    for value in (math.nan, math.inf, -math.inf, "many", -7):
        refuses(kind, field, value)


@pytest.mark.parametrize(("kind", "field"), settings("int"))
def test_whole_numbers_from_the_least_on(kind, field):
    least = LEAST.get(field, 1)
    for value in (least - 1, least + 0.5, float(least)):
        refuses(kind, field, value)
    for value in (least, least + 1, least + 2):
        assert getattr(kind(**{field: value}), field) == value


@pytest.mark.parametrize(("kind", "field"), settings("float"))
def test_numbers_within_their_limits(kind, field):
    zero, one = field in FROM_ZERO, field not in BELOW_ONE | ABOVE_ONE
    above = field not in UP_TO_ONE | BELOW_ONE
    small = field not in ABOVE_ONE
    for value, allowed in ((0.0, zero), (1e-3, small), (0.999, small), (1.0, one), (1.001, above)):
        if allowed:
            assert getattr(kind(**{field: value}), field) == value
        else:
            refuses(kind, field, value)


@pytest.mark.parametrize(("kind", "field"), settings("str", "Noise", "InnerSum"))
def test_words_that_are_no_choice_are_refused(kind, field):
    refuses(kind, field, "anything")
    refuses(kind, field, None)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, id=name)
        for name, module in sorted(sklebm.PARTS.items())
        if vars(kind := getattr(importlib.import_module(module), name)).get("aliases")
    ],
)
def test_another_name_of_a_setting_means_the_same(kind):
    for alias, name in kind.aliases.items():
        default = getattr(kind(), name)
        assert kind(**{alias: default}) == kind(**{name: default}) == kind()
        with pytest.raises(TypeError, match=rf"{alias} is another name of {name}"):
            kind(**{alias: default, name: default})
        # Errors speak of the name that was given.
        refuses(kind, alias, -7)
