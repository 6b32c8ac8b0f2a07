"""Figures in the pages have a source: a benchmark, a doctest, a test, or a citation.

A paragraph of README.md, the changelog or a page that says how fast, how large or how good
something is names where the figure comes from.
"""

import json
import re

import pytest

from tests.subprocesses import ROOT

NUMBER = r"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
UNITS = (
    r"(?:%|times\b|nats?\b|seconds?\b|ms\b|milliseconds?\b|minutes?\b|[KMG]i?B\b|dB\b|AUROC\b"
    r"|points?\b|per cent\b)"
)
WORDS = r"(?:one|two|three|four|five|six|seven|eight|nine|ten|hundred|thousand)"
FIGURE = re.compile(
    "|".join(
        (
            rf"(?<![\w.`]){NUMBER}\s?{UNITS}",
            rf"(?<![\w.`]){NUMBER}(?:[x×](?!\w)|-?fold\b)",
            r"\b(?:accuracy|AUROC)\s(?:[\w']+\s){0,8}?(?:of|from|to|is|reaches|by)\s0?\.\d+",
            rf"\b{WORDS} (?:points|per cent)\b",
            rf"\b{WORDS} times (?:as (?:long|fast|slow)|longer|faster|slower)\b",
            r"\b(?:half|a third of|a quarter of) the time\b|\btwice as (?:long|fast|slow)\b",
        )
    ),
    re.IGNORECASE,
)
BENCHMARK = re.compile(r"\bbench_\w+")
ANY_NUMBER = re.compile(rf"{NUMBER}(?:e[-+]?\d+)?")
#: What a figure may be of a number in a table: itself, a percentage, minutes of seconds.
UNITS_OF_TABLES = (1.0, 100.0, 1.0 / 60.0)
TEST = re.compile(r"\btest_\w+")
#: What else counts as a source: an example that runs, the page of all results, a reference.
SOURCE = re.compile(r">>>|:doc:`(?:[^`]*<)?/benchmarks|\]_|doi\.org|arxiv", re.IGNORECASE)
#: Benchmarks of which a result is recorded.
RESULTS = [
    json.loads(path.read_text(encoding="utf-8"))
    for path in (ROOT / "benchmarks" / "results").glob("*.json")
]
RECORDED = {name for result in RESULTS for name in BENCHMARK.findall(result["command"])}
#: Numbers of the tables and notes of each benchmark.
MEASURED = {
    benchmark: {
        float(number.replace(",", ""))
        for result in RESULTS
        if benchmark in BENCHMARK.findall(result["command"])
        for number in ANY_NUMBER.findall(json.dumps([result["rows"], result["notes"]]))
    }
    for benchmark in RECORDED
}
#: Figures that follow from two numbers of a table.
DERIVED = {"mean_covariance_rbm.rst": {"24 nats"}}  # between the ends of an interval
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in [path.stem, *re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))]
}
#: Numbers that are no results: settings of the library, definitions, arithmetic.
DEFINITIONS = {
    "design.rst": {"64 MiB"},  # a setting
    "CHANGELOG.md": {"64 MiB"},
    "adversarial.rst": {"0.01 %"},  # when a search has settled
    "energy_regressor.rst": {"513 points"},  # of a grid
    "latent_variable_regressor.rst": {"10,000 points", "36 points"},  # limits of a grid
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


def has_source(line):
    """Whether every benchmark and test that a paragraph names exists with a result, or a reference.

    A benchmark without a record is no source of a figure, whatever else the paragraph names.
    """
    benchmarks, tests = set(BENCHMARK.findall(line)), set(TEST.findall(line))
    if benchmarks - RECORDED or tests - TESTS:
        return False
    return bool(benchmarks or tests or SOURCE.search(line))


def paragraphs(text):
    """Paragraphs and entries of lists, each as one line."""
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n|\n(?=- )", text)]


def unsourced(text, allowed=frozenset()):
    """Figures of paragraphs, or entries of lists, that name no source."""
    found = []
    for line in paragraphs(text):
        figures = [figure for figure in FIGURE.findall(line) if figure not in allowed]
        if figures and not has_source(line):
            found += figures
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_figures_name_their_source(path):
    text = path.read_text(encoding="utf-8")
    assert unsourced(text, DEFINITIONS.get(path.name, frozenset())) == []


def strange(text, allowed=frozenset()):
    """Figures that no table has of a benchmark which their paragraph names."""
    found = []
    for line in paragraphs(text):
        benchmarks = set(BENCHMARK.findall(line)) & RECORDED
        if not benchmarks:
            continue
        known = set().union(*(MEASURED[name] for name in benchmarks))
        figures = FIGURE.findall(line) + re.findall(r"(?<![\w.])-?0?\.\d{2,}", line)
        found += [f for f in figures if f not in allowed and not is_among(f, known)]
    return found


def is_among(figure, known):
    """Whether a number of the tables, rounded as the figure is, or none is in digits."""
    digits = ANY_NUMBER.search(figure)
    if not digits:
        return True
    value = abs(float(digits[0].replace(",", "")))
    half = 0.5001 * 10.0 ** -len(digits[0].partition(".")[2])
    return any(abs(abs(n) * unit - value) <= half for n in known for unit in UNITS_OF_TABLES)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_figures_are_those_of_the_tables(path):
    text = path.read_text(encoding="utf-8")
    assert strange(text, DERIVED.get(path.name, frozenset())) == []


def test_a_figure_that_is_in_no_table_is_found():
    (row, *_) = next(r for r in RESULTS if "bench_ood_speed" in r["command"])["rows"]
    assert strange(f"In {row[1]} seconds (``bench_ood_speed.py``).") == []
    text = "In 123.4 seconds, with .9876 (``bench_ood_speed.py``)."
    assert strange(text) == ["123.4 seconds", ".9876"]


def test_a_figure_without_a_source_is_found():
    assert unsourced("It is fast.\n\nIt takes 3 seconds, 40 % less.") == ["3 seconds", "40 %"]
    assert unsourced("It takes 3 seconds (``bench_pca.py``).") == []
    assert unsourced("- loses -0.5 nats\n- and 2 nats [1]_") == ["-0.5 nats"]


def test_a_source_that_does_not_exist_is_none():
    assert "bench_pca" in RECORDED
    line = "It takes 3 seconds (``bench_no_record.py``, ``bench_pca.py``) [1]_."
    assert unsourced(line) == ["3 seconds"]
    assert unsourced("It takes 3 seconds (``test_of_nothing``).") == ["3 seconds"]
    assert unsourced("3 seconds (``test_a_source_that_does_not_exist_is_none``)") == []


@pytest.mark.parametrize(
    "figure",
    [
        ".39 nats",
        "-183.7 nats",
        "accuracy of .944",
        "AUROC of 0.706",
        "accuracy of the codes rises from .881",
        "3.5 points",
        "four points",
        "28.1 dB",
        "nine times as long",
        "half the time",
        "40x",
        "1.5×",
        "40-fold",
        "5 per cent",
        "one per cent",
    ],
)
def test_figures_of_each_kind_are_seen(figure):
    assert unsourced(f"It has an {figure} on digits.") == [figure]


def test_no_definition_is_left_over():
    """An allowed number that its page no longer has."""
    for path in PAGES:
        for figure in DEFINITIONS.get(path.name, ()):
            assert figure in FIGURE.findall(" ".join(path.read_text().split())), (path, figure)
