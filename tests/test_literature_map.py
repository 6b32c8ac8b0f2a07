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
    ],
)
def test_what_does_not_exist_is_refused(extension, key, value, message):
    row = {**extension.read_map()[0], key: value}
    with pytest.raises(ValueError, match=message):
        extension.check_row(row)


def test_an_estimator_without_a_row_is_refused(extension, tmp_path):
    path = tmp_path / "map.toml"
    text = extension.TABLE.read_text(encoding="utf-8")
    path.write_text(text.replace('"SubspaceICA"', '"EnergyPCA"'), encoding="utf-8")
    with pytest.raises(ValueError, match="no row names SubspaceICA"):
        extension.read_map(path)


def test_a_row_without_a_test_is_refused(extension):
    row = extension.read_map()[0]
    del row["test"]
    with pytest.raises(ValueError, match="must have"):
        extension.check_row(row)
