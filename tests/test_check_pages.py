"""``make check-docs`` finds what is wrong with pages, and nothing where nothing is wrong."""

import importlib.util

import pytest

from tests.subprocesses import ROOT

RIGHT = {
    "index.html": '<p id="top">home</p><a href="whiteners.html#top">there</a>'
    '<img src="dot.svg" loading="lazy"><img src="ink.svg" style="background: white">',
    "whiteners.html": '<p id="top"></p><a href="./">home</a><a href="dot.svg">picture</a>',
    "search.html": '<div id="search-results"><ul><li><a href="whiteners.html">one</a>'
    '<li><a href="EnergyKMeans.html">two</a></ul></div>',
    "EnergyKMeans.html": "",
    "dot.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">'
    '<rect width="9" height="9" fill="white"/></svg>',
    "ink.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect/></svg>',
}
WRONG = {
    "index.html": '<a href="nowhere.html">1</a><a href="whiteners.html#nowhere">2</a>'
    '<img src="missing.png"><img src="broken.png"><script>undefinedName()</script>'
    '<img src="ink.svg">'
    '<script src="http://localhost:9/elsewhere.js"></script>'
    '<div class="math" style="overflow:auto; width:9em"><math alttext="x^2">'
    '<mspace width="20em"/></math></div>'
    '<table style="table-layout:fixed; width:9em"><tr><td><math alttext="y^2">'
    '<mspace width="20em"/></math></td></tr></table><p style="width:900px">wide</p>',
    "broken.png": "no picture",
    "search.html": '<div id="search-results"><a href="whiteners.html">outside the list</a></div>',
}


def pages():
    spec = importlib.util.spec_from_file_location("check_pages", ROOT / "docs" / "check_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(files, folder, profile):
    module = pages()
    module.SEARCH_SECONDS = 1
    browser = module.find_browser()
    if browser is None:
        pytest.skip(f"needs a browser: one of {', '.join(module.BROWSERS)}")
    for name, text in files.items():
        head = "<!doctype html>" if name.endswith(".html") else ""
        (folder / name).write_text(head + text)
    return module.check(browser, str(profile), folder)


@pytest.fixture
def folders(tmp_path):
    site, profile = tmp_path / "site", tmp_path / "profile"
    site.mkdir()
    return site, profile


def test_right_pages_are_right(folders):
    assert check(RIGHT, *folders) == (4, [])


def test_wrong_pages_are_noticed(folders):
    _, found = check(RIGHT | WRONG, *folders)
    for expected in (
        "index.html: link to nowhere.html, which is not there",
        "index.html: link to whiteners.html#nowhere, which is not there",
        "not there: /missing.png",
        "/broken.png is broken",
        "/ink.svg is transparent",
        "undefinedName is not defined",
        "index.html: loads http://localhost:9/elsewhere.js",
        "index.html: cut off on the right: x^2",
        "index.html: cut off on the right: y^2",
        "pixels wide on a screen of 400",
        "search for 'whitening' does not find whiteners.html",
    ):
        assert [line for line in found if expected in line], (expected, found)
