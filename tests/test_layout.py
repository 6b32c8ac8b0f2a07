"""The house holds together: registry = public interface = documentation = examples."""

import importlib.util
import re

import pytest

import sklebm
from tests import generated
from tests.public import objects
from tests.registry import ALL_NAMES, ENTRIES, check_imports
from tests.subprocesses import ROOT

every = pytest.mark.parametrize("name", ALL_NAMES)
PAGES = sorted((ROOT / "docs" / "estimators").glob("*.rst"))
EXAMPLES = sorted((ROOT / "examples").glob("*/plot_*.py"))


def mentions(path, name):
    return re.search(rf"\b{name}\b", path.read_text(encoding="utf-8")) is not None


def api_page():
    """The source of the API reference, written by the extension that the documentation uses."""
    path = ROOT / "docs" / "_ext" / "api_reference.py"
    spec = importlib.util.spec_from_file_location("api_reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.render()


def test_the_tests_know_every_estimator_and_no_other():
    assert ENTRIES.keys() == sklebm.ESTIMATORS.keys()


def test_the_registry_is_the_public_interface():
    assert set(ALL_NAMES) <= set(sklebm.__all__)
    for family in set(sklebm.ESTIMATORS.values()):
        exported = set(importlib.import_module(family).__all__)
        in_family = {name for name, home in sklebm.ESTIMATORS.items() if home == family}
        # what a family exports beside its estimators is no estimator in hiding
        hidden = {
            name
            for name in exported - in_family
            if hasattr(getattr(importlib.import_module(family), name), "fit")
        }
        assert in_family <= exported
        assert not hidden


def test_an_estimator_that_its_family_does_not_import_is_named(monkeypatch):
    monkeypatch.setitem(sklebm.ESTIMATORS, "NewEnergy", "sklebm.linear")
    said = r"NewEnergy .* not imported by sklebm/linear/__init__\.py: run `make generated`"
    with pytest.raises(pytest.UsageError, match=said):
        check_imports()


def test_type_checkers_see_what_the_registry_holds():
    source = (ROOT / "sklebm" / "__init__.py").read_text()
    block = source.partition("if TYPE_CHECKING:")[2].partition("\ndef ")[0]
    for name in [*ALL_NAMES, *sklebm.FUNCTIONS]:
        assert re.search(rf"import .*\b{name}\b", block), name


def test_the_api_reference_lists_every_public_object():
    listed, module = set(), ""
    for line in api_page().splitlines():
        if line.startswith(".. currentmodule:: "):
            module = line.split()[-1]
        elif re.fullmatch(r" +[\w.]+", line):
            listed.add(f"{module}.{line.strip()}")
    assert set(objects()) <= listed


@every
def test_a_page_explains_the_estimator(name):
    assert [page for page in PAGES if page.stem != "index" and mentions(page, name)]


@every
def test_an_example_shows_the_estimator(name):
    assert [path for path in EXAMPLES if mentions(path, name)]


@every
def test_readme_names_the_estimator(name):
    assert re.search(rf"^\| `{name}` \|", (ROOT / "README.md").read_text(), re.MULTILINE)


def test_imports_follow_from_the_table_of_names():
    for path, text in generated.inits().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run make generated"


def test_the_table_of_the_readme_is_that_of_the_docstrings():
    assert generated.readme() == generated.README.read_text(encoding="utf-8"), (
        "run `make generated`"
    )


def test_readme_promises_no_estimator_that_is_not_there():
    table = (ROOT / "README.md").read_text().partition("## Estimators")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(ALL_NAMES)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_need_no_download_and_no_data_folder(path):
    text = path.read_text()
    for forbidden in ("fetch_", "urlopen", "requests", "SKLEBM_DATA", "http://"):
        assert forbidden not in text


def test_version_is_the_same_everywhere():
    project = (ROOT / "pyproject.toml").read_text()
    assert re.search(r'^version = "(.*)"', project, re.MULTILINE)[1] == sklebm.__version__
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)", citation, re.MULTILINE)[1] == sklebm.__version__


def test_what_runs_before_a_commit_is_what_lint_runs():
    hooks = re.findall(r"python -m (.*)", (ROOT / ".pre-commit-config.yaml").read_text())
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    assert hooks == re.findall(r"-m (\S+(?: (?!\.)\S+)*)", lint)


def test_tests_mirror_the_package():
    """Mathematics is tested beside the contract: every family of estimators has its folder."""
    for family in set(sklebm.ESTIMATORS.values()):
        part = family.removeprefix("sklebm.")
        has_tests = [
            *(ROOT / "tests").glob(f"{part}/test_*.py"),
            *(ROOT / "tests").glob(f"test_{part}*.py"),
        ]
        assert has_tests, part


# ---------------------------------------------------------------- a reader who opens one file

FIT_HOOKS = (
    "fit",
    "_fit",
    "_learn",
    "_fitted",
    "_objective",
    "_start",
    "_starts",
    "_initial_energy",
)


@every
def test_few_ancestors_stand_between_an_estimator_and_scikit_learn(name):
    ancestors = [
        cls.__name__
        for cls in getattr(sklebm, name).__mro__[1:]
        if cls.__module__.startswith("sklebm")
    ]
    assert len(ancestors) <= 3, ancestors


@every
def test_the_file_of_an_estimator_names_what_it_does(name):
    """What fit shapes and what the methods answer is found by name where the class is."""
    cls = getattr(sklebm, name)
    for method in ("transform", "score_samples", "sample", "predict"):
        if hasattr(cls, method):
            assert method in vars(cls), f"{name}.{method} is defined elsewhere"
    assert any(hook in vars(cls) for hook in FIT_HOOKS), (
        f"{name}: what fit does is defined elsewhere"
    )
