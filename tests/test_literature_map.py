"""The map from the literature to the library names only what exists."""

import importlib
import sys

import pytest

from tests.subprocesses import ROOT


@pytest.fixture(scope="module")
def extension():
    pytest.importorskip("sphinx", reason="the pages are built with sphinx")
    folder = str(ROOT / "docs" / "_ext")
    sys.path.append(folder)
    try:
        yield importlib.import_module("literature_map")
    finally:
        sys.path.remove(folder)


def test_every_row_leads_somewhere(extension):
    rows = extension.read_map()
    text = extension.as_rst(rows)
    for row in rows:
        for name in row["names"]:
            assert f".{name}`" in text
        assert f":doc:`page </{row['page']}>`" in text


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("names", ["NoSuchModel"], "names NoSuchModel"),
        ("page", "estimators/none", "names page estimators/none"),
        ("example", "linear/plot_none", "names example"),
        ("test", "linear/test_none.py", "names test"),
        (
            "example",
            "linear/plot_energy_pca",
            "does not show EnergyKMeans or EnergyGaussianMixture",
        ),
        ("shows", "beta=17.5", "does not show beta=17.5"),
    ],
)
def test_what_does_not_exist_is_refused(extension, key, value, message):
    row = {**extension.read_map()[0], key: value}
    with pytest.raises(ValueError, match=message):
        extension.check_row(row)


@pytest.mark.parametrize(("name", "other"), [("SubspaceICA", "EnergyPCA"), ("MALA", "HMC")])
def test_an_estimator_or_a_part_without_a_row_is_refused(extension, tmp_path, name, other):
    path = tmp_path / "map.toml"
    text = extension.TABLE.read_text(encoding="utf-8").replace(f'"{name}"', f'"{other}"')
    if name == "SubspaceICA":  # whose row needs an example of the other then
        text = text.replace("linear/plot_subspace_ica", "linear/plot_energy_pca")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"no row names {name}"):
        extension.read_map(path)


def test_an_example_may_call_a_part_by_the_string_of_its_parameter(extension):
    row = {"names": ["PersistentContrastiveDivergence"]}
    assert extension.shows(row, "BernoulliRBM(objective='pcd')")
    assert extension.shows(row, "PersistentContrastiveDivergence()")
    assert not extension.shows(row, "pcd = BernoulliRBM()")


def test_without_an_example_a_doctest_shows_the_names(extension):
    row = next(row for row in extension.read_map() if "shows" in row and "example" not in row)
    with pytest.raises(ValueError, match="no doctest of the page"):
        extension.check_row(row | {"page": "index"})
    part = next(row for row in extension.read_map() if row["names"] == ["ParallelTempering"])
    assert ":class:`example <" in extension.link_to_example(part)


def test_a_row_without_a_test_is_refused(extension):
    row = extension.read_map()[0]
    del row["test"]
    with pytest.raises(ValueError, match="must have"):
        extension.check_row(row)
