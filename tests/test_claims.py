"""Figures in the pages have a source: a benchmark, a doctest, a test, or a citation.

A paragraph of README.md, the changelog or a page that says how fast, how large or how good
something is names where the figure comes from.
"""

import re

import pytest

from tests.subprocesses import ROOT

UNITS = r"(?:%|times\b|nats?\b|seconds?\b|ms\b|milliseconds?\b|minutes?\b|[KMG]i?B\b|AUROC\b)"
FIGURE = re.compile(rf"(?<![\w.`])-?\d[\d,]*(?:\.\d+)?\s?{UNITS}")
#: What counts as a source: a benchmark, an example that runs, a test, a reference.
SOURCE = re.compile(r"bench_\w+|benchmarks|>>>|\btest_\w+|\]_|doi\.org|arxiv", re.IGNORECASE)
#: Numbers that are no results: settings of the library, definitions, arithmetic.
DEFINITIONS = {
    "design.rst": {"64 MiB"},  # a setting
    "CHANGELOG.md": {"64 MiB"},
    "convolutional_sparse_coding.rst": {"32 times"},  # numbers in a code
    "gaussian_energy.rst": {"2 times"},  # powers of two
    "outliers.rst": {"95 %"},  # the definition of a metric
    "energies.rst": {"95 %"},  # what a contour encloses
    "persistence.rst": {"16 MiB"},  # a limit
    "likelihoods.rst": {"0.8 nats"},  # when effort stops growing
    "scale.rst": {"64 MiB", "1024 MiB", "800 MB"},  # settings; eight bytes squared
    "scores.rst": {"2.3 nats"},  # log 10
}
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted(
        path
        for path in (ROOT / "docs").rglob("*.rst")
        if not {"generated", "auto_examples", "_build"} & set(path.relative_to(ROOT).parts)
    ),
]


def unsourced(text, allowed=frozenset()):
    """Figures of paragraphs, or entries of lists, that name no source."""
    found = []
    for part in re.split(r"\n\s*\n|\n(?=- )", text):
        line = " ".join(part.split())
        if not SOURCE.search(line):
            found += [figure for figure in FIGURE.findall(line) if figure not in allowed]
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_figures_name_their_source(path):
    text = path.read_text(encoding="utf-8")
    assert unsourced(text, DEFINITIONS.get(path.name, frozenset())) == []


def test_a_figure_without_a_source_is_found():
    assert unsourced("It is fast.\n\nIt takes 3 seconds, 40 % less.") == ["3 seconds", "40 %"]
    assert unsourced("It takes 3 seconds (``bench_speed.py``).") == []
    assert unsourced("- loses -0.5 nats\n- and 2 nats [1]_") == ["-0.5 nats"]


def test_no_definition_is_left_over():
    """An allowed number that its page no longer has."""
    for path in PAGES:
        for figure in DEFINITIONS.get(path.name, ()):
            assert figure in FIGURE.findall(" ".join(path.read_text().split())), (path, figure)
