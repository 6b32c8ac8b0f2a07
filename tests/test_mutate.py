"""The script that plants faults: what it plants, that a seed repeats it, which tests it runs."""

import ast
import json
import os
import subprocess
import sys

import pytest

from tests import mutate
from tests.subprocesses import ROOT

SOURCE = '''
"""A docstring with 1 < 2 in it."""

LIMIT = 3


def clip(x: int = 1) -> "str | 2":
    """Another: a + b."""
    if x < 0:
        raise ValueError("x < 0")
    total = min(x, LIMIT) + 2.0
    total += 1
    print(total)
    total *= x * x + (x * x)
    return -total if total else None
'''


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(mutate, "ROOT", tmp_path)
    path = tmp_path / "clip.py"
    path.write_text(SOURCE)
    return path


def test_faults_of_every_kind_are_planted(file):
    texts = {str(fault).partition(": ")[2] for fault in mutate.faults(file)}
    assert texts >= {
        "3  ->  4",
        "x < 0  ->  x <= 0",
        "x < 0  ->  x >= 0",
        "if x < 0:  ->  if not x < 0:",
        "min(x, LIMIT) + 2.0  ->  min(x, LIMIT)",
        "min(x, LIMIT) + 2.0  ->  min(x, LIMIT) - 2.0",
        "min  ->  max",
        "2.0  ->  4.0",
        "total += 1  ->  (removed)",
        "print(total)  ->  (removed)",
        "-total  ->  total",
        "-total if total else None  ->  None",
    }


def test_each_changes_one_place_and_no_text(file):
    unchanged = ast.unparse(ast.parse(SOURCE)).splitlines()
    for fault in mutate.faults(file):
        changed = fault.source.splitlines()
        assert len(changed) == len(unchanged)
        assert sum(a != b for a, b in zip(changed, unchanged, strict=True)) == 1
        assert fault.source.count('"""A docstring with 1 < 2 in it."""') == 1
        assert "raise ValueError('x < 0')" in fault.source
        assert "str | 2" in fault.source


def test_the_seed_draws_the_same_faults(file):
    first, again, other = (list(map(str, mutate.draw(file, 8, seed))) for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == 8
    everything = mutate.draw(file, 10**6, 0)
    keys = {json.dumps(mutate.key(fault)) for fault in everything}
    assert len(keys) == len(everything) == len({fault.source for fault in everything})
    assert sorted(map(str, everything)) == sorted(map(str, mutate.faults(file)))


def test_the_closest_tests_come_first():
    path = ROOT / "sklebm" / "inference" / "hamiltonian.py"
    first = mutate.commands(path)[0]
    assert "tests/inference/test_samplers.py" in first
    assert all(name.startswith("tests/inference/") for name in first)
    contract = [*mutate.CONTRACT, "-k", f"(PCAWhitener) and not {mutate.LONG}"]
    assert contract in mutate.commands(ROOT / "sklebm" / "linear" / "pca_whitener.py")
    # What only one estimator uses, its tests and its contract look at.
    shared = mutate.commands(ROOT / "sklebm" / "training" / "pairwise_centring.py")
    assert "tests/boltzmann/test_boltzmann_machine.py" in shared[0]
    assert [*mutate.CONTRACT, "-k", f"(BoltzmannMachine) and not {mutate.LONG}"] in shared


TESTS = """
from sklebm.ramp import clip, count


def test_clip():
    assert clip(-2) == 0
    assert clip(5) == 5


def test_count():
    assert count(3) == 3
"""
RAMP = """
def clip(x):
    return max(x, 0)


def count(n):
    total = 0
    while total < n:
        total += 1
    return total


def unused():
    return 1
"""
OUTCOMES = """
import json, pathlib, sys, tempfile
from tests import mutate

mutate.ROOT = pathlib.Path.cwd()
mutate.COPIED, mutate.HANGS, mutate.CONTRACT = ("sklebm", "tests"), 3, ()
mutate.commands = lambda path: [["tests/test_ramp.py"]]
found = {}
with tempfile.TemporaryDirectory() as folder:
    copied = mutate.Copy(pathlib.Path(folder))
    for fault in mutate.faults(mutate.ROOT / "sklebm" / "ramp.py"):
        change = f"{fault.before} -> {fault.after}"
        if change in ("max -> min", "total += 1 -> ", "1 -> 2"):
            outcome = copied.try_out(fault, 60)
            found[change] = (outcome.word, outcome.test)
        assert (copied.folder / "sklebm" / "ramp.py").read_text() == fault.path.read_text()
json.dump(found, sys.stdout)
"""


def test_what_becomes_of_faults(tmp_path):
    """Of a package of one file: one is noticed, one hangs, one survives, and each has its test."""
    for name, text in {"sklebm/ramp.py": RAMP, "tests/test_ramp.py": TESTS}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", OUTCOMES],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = {change: tuple(outcome) for change, outcome in json.loads(done.stdout).items()}
    assert found["max -> min"] == ("noticed", "tests/test_ramp.py::test_clip")
    assert found["total += 1 -> "] == ("timed out", "tests/test_ramp.py::test_count")
    assert found["1 -> 2"][0] == "survived"


def test_scores_of_folders():
    results = [
        {"file": f"sklebm/{folder}/a.py", "line": 1, "before": "1", "after": "2", "outcome": word}
        for folder, word in (
            ("linear", "noticed"),
            ("linear", "timed out"),
            ("linear", "equivalent"),
            ("topics", "survived"),
            ("topics", "unfinished"),
            ("topics", "noticed"),
        )
    ]
    lines = mutate.table(results).splitlines()
    assert [" ".join(line.split()) for line in lines[:3]] == [
        "linear 2 of 3 noticed (67 %), 1 equivalent",
        "topics 1 of 3 noticed (33 %), 1 unfinished",
        "all 3 of 6 noticed (50 %), 1 equivalent, 1 unfinished",
    ]
    assert len(lines) == 6
