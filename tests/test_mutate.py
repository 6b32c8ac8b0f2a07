"""The script that plants faults: what it plants, that a seed repeats it, which tests it runs."""

import ast

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
    assert sorted(map(str, everything)) == sorted(map(str, mutate.faults(file)))


def test_the_closest_tests_come_first():
    path = ROOT / "sklebm" / "inference" / "hamiltonian.py"
    first = mutate.commands(path)[0]
    assert "tests/inference/test_samplers.py" in first
    assert all(name.startswith("tests/inference/") for name in first)
    contract = mutate.commands(ROOT / "sklebm" / "linear" / "pca_whitener.py")[-1]
    assert contract == [*mutate.CONTRACT, "-k", "PCAWhitener"]
