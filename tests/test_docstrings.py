"""Docstrings: numpydoc's rules, and agreement with signatures and fitted attributes."""

import ast
import functools
import inspect

import pandas as pd
import pytest
from numpydoc.docscrape import ClassDoc, FunctionDoc
from numpydoc.validate import validate

import sklebm
from tests.public import methods, objects
from tests.registry import ALL_NAMES, fitted_state, learn, make_rows, make_variants

OBJECTS = objects()
CLASSES = [path for path, value in OBJECTS.items() if inspect.isclass(value)]


@functools.cache
def methods_first_seen():
    """The methods of each class, without those that a class before it has: each is read once.

    An inherited method is the same function under the name of another class.
    """
    seen, found = set(), {}
    for path in CLASSES:
        found[path] = []
        for name in methods(OBJECTS[path]):
            member = inspect.getattr_static(OBJECTS[path], name)
            key = path.startswith(MATHEMATICS), id(member)  # which has rules of its own
            if key not in seen:
                seen.add(key)
                found[path].append(name)
    return found


each_class = pytest.mark.parametrize("path", CLASSES)

# Rules of numpydoc that are not ours, and why.
IGNORED = {
    "ES01": "a summary that says it all needs no second paragraph",
    "RT02": "return values are named, as in scikit-learn",
    "RT04": "the description of a return value may open with a formula",
}
IGNORED_FOR_PARTS = {
    "EX01": "the example of a class shows its methods",
    "SA01": "the class says what belongs together",
}
# Mathematics in torch: one line with the formula and the shape is the whole documentation.
IGNORED_FOR_MATHEMATICS = {
    "PR01": "tensors named as in the formula",
    "RT01": "the summary is what is returned",
    "SS02": "a summary may open with a formula",
    "SS05": "a summary that is a noun is no verb in the third person",
}
MATHEMATICS = ("sklebm.energies.", "sklebm.inference.", "sklebm.objectives.")


def violations(path, *ignored):
    codes = {code for rules in ignored for code in rules}
    return [error for error in validate(path)["errors"] if error[0] not in codes]


@pytest.mark.parametrize("name", ALL_NAMES)
def test_estimators_follow_numpydoc(name):
    """Summary, parameters, attributes, see also, notes, references where due, examples."""
    assert violations(f"sklebm.{name}", IGNORED) == []


@pytest.mark.parametrize("path", [path for path in OBJECTS if path[7:] not in ALL_NAMES])
def test_public_objects_follow_numpydoc(path):
    ignored = IGNORED_FOR_MATHEMATICS if path.startswith(MATHEMATICS) else {}
    assert violations(path, IGNORED, IGNORED_FOR_PARTS, ignored) == []


@each_class
def test_public_methods_follow_numpydoc(path):
    ignored = IGNORED_FOR_MATHEMATICS if path.startswith(MATHEMATICS) else {}
    rules = IGNORED, IGNORED_FOR_PARTS, ignored
    own = methods_first_seen()[path]
    found = {method: violations(f"{path}.{method}", *rules) for method in own}
    assert not any(found.values()), found


# ---------------------------------------------------------------- agreement


def documented_parameters(doc):
    """Names and types of the section Parameters; one line may document several."""
    return [
        (name.strip(), parameter.type)
        for parameter in doc["Parameters"]
        for name in parameter.name.split(",")
    ]


@pytest.mark.parametrize("name", ALL_NAMES)
def test_documented_parameters_are_the_signature(name):
    """The same names in the same order, and the default that is said is the default that is."""
    estimator = getattr(sklebm, name)
    documented = documented_parameters(ClassDoc(estimator))
    signature = inspect.signature(estimator).parameters
    assert [parameter for parameter, _ in documented] == list(signature)
    for parameter, kind in documented:
        said = kind.partition("default=")[2]
        default = signature[parameter].default
        if default is inspect.Parameter.empty:
            assert not said, parameter
        else:
            assert ast.literal_eval(said) == default, parameter


def check_arguments(cls, method):
    function, owned = getattr(cls, method), inspect.getattr_static(cls, method)
    parameters = documented_parameters(FunctionDoc(function))
    for name, kind in parameters:
        default = inspect.signature(function).parameters[name.lstrip("*")].default
        if "default=" in kind:
            assert ast.literal_eval(kind.partition("default=")[2]) == default, name
        else:
            # What an argument of scikit-learn that is never None means without one, needs no word.
            assert default in (inspect.Parameter.empty, None), name
    bound = "cls" if isinstance(owned, (staticmethod, classmethod)) else "self"
    signature = [name for name in inspect.signature(function).parameters if name != bound]
    assert [name.lstrip("*") for name, _ in parameters] == signature, method


@pytest.mark.parametrize("path", [path for path in CLASSES if not path.startswith(MATHEMATICS)])
def test_documented_arguments_are_those_of_the_methods(path):
    """And their defaults."""
    for method in methods_first_seen()[path]:
        check_arguments(OBJECTS[path], method)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_documented_attributes_are_the_fitted_ones(name):
    attributes = ClassDoc(getattr(sklebm, name))["Attributes"]
    documented = {part for attribute in attributes for part in attribute.name.split(", ")}
    frame = pd.DataFrame(make_rows(), columns=list("abcdef"))
    seen = set()
    for model in make_variants(name):
        seen |= fitted_state(learn(model, frame)).keys()
        seen |= {attribute for attribute in documented if hasattr(model, attribute)}
    assert documented - seen == set(), "documented, but never there"
    assert seen - documented == set(), "there, but not documented"


@pytest.mark.parametrize("name", ALL_NAMES)
def test_docstring_opens_with_the_equation(name):
    """The class, or the first line of its module, shows the energy."""
    estimator = getattr(sklebm, name)
    text = (inspect.getdoc(estimator) or "") + (inspect.getmodule(estimator).__doc__ or "")
    assert "=" in (inspect.getmodule(estimator).__doc__ or "") or ".. math::" in text


@pytest.mark.parametrize("name", ALL_NAMES)
def test_notes_state_the_cost(name):
    notes = "\n".join(ClassDoc(getattr(sklebm, name))["Notes"])
    assert "O(" in notes


@pytest.mark.parametrize("name", ALL_NAMES)
def test_repr_is_the_call_that_makes_it(name):
    assert repr(getattr(sklebm, name)()) == f"{name}()"
    for model in make_variants(name):
        assert repr(model).startswith(f"{name}(")
