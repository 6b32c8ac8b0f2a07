"""The benchmarks page follows from the result files."""

import argparse
import ast
import importlib
import json
import re
import shlex
import sys

import numpy as np
import pytest

from tests.subprocesses import ROOT

EXTENSIONS = ROOT / "docs" / "_ext"


@pytest.fixture(scope="module")
def headlines():
    pytest.importorskip("sphinx", reason="the pages are built with sphinx")
    sys.path.append(str(EXTENSIONS))
    try:
        yield importlib.import_module("benchmark_headlines")
    finally:
        sys.path.remove(str(EXTENSIONS))


RESULT = {
    "date": "2026-01-01",
    "command": "python bench.py",
    "columns": ["data", "who", "s", "error"],
    "rows": [
        ["a", "ours", 2.0, 0.1],
        ["a", "fast", 4.0, 0.3],
        ["a", "good", 8.0, 0.2],
        ["b", "ours", 1.0, 9.0],
    ],
}


def test_the_fastest_peer_is_what_times_are_compared_with(headlines):
    headline = headlines.Headline(
        "F", "t", "x", "who", "ours", ("good", "fast"), "s", "error", where={"data": "a"}
    )
    cells, share = headlines.compare(headline, RESULT)
    assert share == 0.5
    assert cells == ["F: t", "0.50", "0.1", "0.3", "fast", "2026-01-01: python bench.py"]


@pytest.mark.parametrize(("best", "peer"), [("lowest", "good"), ("highest", "fast")])
def test_without_times_the_best_peer_is_that_of_best_quality(headlines, best, peer):
    headline = headlines.Headline(
        "F", "t", "x", "who", "ours", ("good", "fast"), None, "error", best, {"data": "a"}
    )
    cells, share = headlines.compare(headline, RESULT)
    assert share is None
    assert cells[4] == peer


def test_a_missing_peer_is_named(headlines):
    headline = headlines.Headline("F", "t", "x", "who", "ours", ("fast",), "s", where={"data": "b"})
    with pytest.raises(ValueError, match=r"x\.json has no rows of \['fast'\]"):
        headlines.compare(headline, RESULT)


def test_every_headline_has_its_result(headlines, tmp_path):
    bars = []
    for headline in headlines.HEADLINES:
        result = headlines.read_result(headlines.RESULTS / f"{headline.file}.json")
        cells, share = headlines.compare(headline, result)
        assert len(cells) == len(headlines.COLUMNS)
        if share is not None:
            assert share > 0.0
            bars.append((headline.family, headline.task, share))
    headlines.draw_bars(bars, tmp_path / "bars.svg")
    drawn = (tmp_path / "bars.svg").read_text()
    for family, task, _ in bars:
        assert f"<!-- {family} -->" in drawn
        assert f"<!-- {task} -->" in drawn


# ---------------------------------------------------------------- what is recorded


@pytest.fixture(scope="module")
def common():
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("_common")
    finally:
        sys.path.remove(folder)


def test_the_command_is_that_of_the_process_with_its_options(common, monkeypatch):
    script = str(ROOT / "benchmarks" / "bench_kmeans.py")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(sys, "argv", [script, "--few", "--repeats", "5"])
    expected = "SKLEBM_DATA=... python benchmarks/bench_kmeans.py --few --repeats 5"
    assert common.command_line() == expected
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert "OMP_NUM_THREADS=2 python" in common.command_line()


def test_other_programs_record_nothing(common, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bench_kmeans.py"])
    with pytest.raises(RuntimeError, match="only, not by"):
        common.save_results("x", "x", ["a"], [[1]])
    monkeypatch.undo()
    assert not (ROOT / "benchmarks" / "results" / "x.json").exists()


def test_a_quick_run_does_not_overwrite_a_full_one(common, monkeypatch, tmp_path):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "bench_kmeans.py"), "--quick"])
    with pytest.raises(RuntimeError, match="--quick records nothing"):
        common.save_results("x", "x", ["a"], [[1]])
    assert not list(tmp_path.iterdir())


def test_only_the_results_of_contestants_that_took_turns_say_so(common, monkeypatch, tmp_path):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(common, "_took_turns", [])
    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "bench_kmeans.py")])

    def saved(**settings):
        return json.loads(common.save_results("x", "x", ["a"], [[1]], **settings).read_text())

    common.timed_ratio({"a": int, "b": float}, reference="a", repeats=2)
    assert saved()["turns"] is True
    assert saved()["turns"] is False  # another table of the same process
    assert saved(turns=True)["turns"] is True
    assert saved(turns="Two took turns.")["turns"] == "Two took turns."


@pytest.mark.usefixtures("headlines")
@pytest.mark.parametrize(
    ("recorded", "sentence"),
    [
        ({}, "Whether contestants took turns was not recorded. "),
        ({"turns": True}, "Contestants took turns. "),
        ({"turns": False}, "One contestant after the other. "),
        ({"turns": "Two took turns."}, "Two took turns. "),
    ],
)
def test_the_page_says_who_took_turns(recorded, sentence):
    assert importlib.import_module("benchmark_results").turns(recorded) == sentence


@pytest.mark.parametrize("n_infinite", [0, 3, 20])
def test_infinite_scores_keep_their_order(common, n_infinite):
    """Against the definition: the share of pairs in which the positive row scores higher."""
    random = np.random.default_rng(n_infinite)
    scores = random.normal(size=60).round(1)
    scores[:n_infinite] = np.inf
    scores[30 : 30 + n_infinite] = -np.inf
    scores[-1] = 1e301  # finite, and below infinity
    positive = random.random(60) < 0.4
    high, low = scores[positive][:, None], scores[~positive][None, :]
    expected = np.mean(np.where(high == low, 0.5, high > low))
    assert common.area_under_roc(positive, scores) == pytest.approx(expected, abs=1e-12)


def test_a_score_that_is_no_number_is_a_wrong_answer(common):
    area = common.area_under_roc
    assert area([1, 0, 0], [np.nan, -np.inf, 1.0]) == 0.0
    assert area([1, 1, 0], [np.inf, 1.0, np.nan]) == 0.0
    assert area([1, 1, 0, 0], [5.0, np.nan, 1.0, 2.0]) == 0.5


def test_planted_outliers_take_models_that_fit_rows_of_a_table_alone(common):
    names = importlib.import_module("bench_planted_outliers").contestants()
    assert "BernoulliRBM" in names
    # Targets, counts and images.
    assert not {"EnergyClassifier", "EnergyRegressor", "ReplicatedSoftmax"} & set(names)
    assert not [name for name in names if name.startswith("Conv")]


RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


def recorded(path):
    """The result of a file, the script of its command, and what follows the script's name."""
    result = json.loads(path.read_text(encoding="utf-8"))
    script = re.search(r"benchmarks/(bench_\w+)\.py(.*)", result["command"])
    assert script, result["command"]
    return result, ROOT / "benchmarks" / f"{script[1]}.py", shlex.split(script[2])


def texts(script):
    """Patterns of the strings in a script; what an f-string fills in may be anything."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [isinstance(part, ast.Constant) and part.value for part in node.values]
            if any(parts):
                yield "".join(re.escape(part) if part else ".+" for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.escape(node.value)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_have_the_name_title_and_columns_that_their_script_gives(path):
    result, script, _ = recorded(path)
    known = re.compile("|".join(f"(?:{text})" for text in texts(script)), re.DOTALL)
    for text in (path.stem, result["title"], *result["columns"]):
        assert known.fullmatch(text), text


class Parsed(Exception):
    """The options were understood: nothing is measured."""


WITH_OPTIONS = [path for path in RESULTS if recorded(path)[2]]


@pytest.mark.usefixtures("common")
@pytest.mark.parametrize("path", WITH_OPTIONS, ids=lambda path: path.stem)
def test_recorded_options_are_understood_by_their_script(path, monkeypatch):
    _, script, words = recorded(path)
    assert "parse_args" in script.read_text(encoding="utf-8")
    monkeypatch.setenv("SKLEBM_DATA", "/nowhere")
    monkeypatch.setattr(sys, "argv", [str(script), *words])
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser):
        raise Parsed(parse(parser))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    try:
        module = importlib.import_module(script.stem)
    except ModuleNotFoundError as error:
        pytest.skip(f"{script.stem} needs {error.name}")
    with pytest.raises(Parsed):  # SystemExit if an option, or its value, is unknown
        module.main()
