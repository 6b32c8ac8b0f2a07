"""The sample of the tables: bounded, fair to every estimator, repeatable, whole on request."""

import collections
from types import SimpleNamespace

import hypothesis
import pytest
from hypothesis import strategies as st

from tests import sampling

NAMES = [f"Model{number}" for number in range(50)]


class Item:
    """What a sample needs to know of a test."""

    def __init__(self, table, name, case="", marker=None, folder=sampling.ROOT):
        label = "-".join(filter(None, [name, case]))
        self.nodeid, self.path = f"{table}[{label}]", folder / "test_table.py"
        self.callspec = SimpleNamespace(params={"name": name, "case": case}, id=label)
        self.marker = marker

    def get_closest_marker(self, name):
        return self.marker


def table(title, n_names=50, cases=("",), **settings):
    return [Item(title, name, case, **settings) for name in NAMES[:n_names] for case in cases]


def marker(*args, **kwargs):
    return SimpleNamespace(args=args, kwargs=kwargs)


@pytest.fixture(autouse=True)
def _not_full(monkeypatch):
    monkeypatch.setattr(sampling, "FULL", False)
    monkeypatch.setattr(sampling, "SEED", 3)


def names_of(items):
    return collections.Counter(item.callspec.params["name"] for item in items)


@pytest.mark.parametrize("n_names", [24, 50])
def test_twice_as_many_estimators_take_no_longer(n_names):
    items = [item for number in range(20) for item in table(f"test_{number}", n_names)]
    kept, dropped = sampling.thin(items, NAMES)
    assert len(kept) == 20 * sampling.CASES
    assert len(kept) + len(dropped) == len(items)
    assert kept == [item for item in items if item in set(kept)]  # in order
    counts = names_of(kept)
    # Fair: no estimator is in more than one table more than another.
    assert set(counts) == set(NAMES[:n_names])
    assert max(counts.values()) - min(counts.values()) <= 1


def test_large_tables_show_every_estimator_and_every_case():
    items = table("test_inputs", 24, [f"input {i}" for i in range(60)], marker=marker(120))
    kept, _ = sampling.thin(items, NAMES)
    assert len(kept) == 120
    assert set(names_of(kept).values()) == {5}
    assert len({item.callspec.params["case"] for item in kept}) == 60


def test_some_cases_always_run():
    always = marker(10, always=lambda case: case["case"] == "core")
    items = table("test_checks", 24, ["core", "other"], marker=always)
    kept, _ = sampling.thin(items, NAMES)
    cases = collections.Counter(item.callspec.params["case"] for item in kept)
    assert cases == {"core": 24, "other": 10}


def test_the_seed_decides(monkeypatch):
    def draw():
        return {item.nodeid for item in sampling.thin(table("test_a"), NAMES)[0]}

    first = draw()
    assert draw() == first
    monkeypatch.setattr(sampling, "SEED", 4)
    assert draw() != first


def test_small_tables_mathematics_and_full_runs_are_whole(monkeypatch):
    small = table("test_small", 5)
    mathematics = table("test_formula", folder=sampling.ROOT / "energies")
    assert sampling.thin(small + mathematics, NAMES) == (small + mathematics, [])
    monkeypatch.setattr(sampling, "FULL", True)
    large = table("test_large")
    assert sampling.thin(large, NAMES) == (large, [])


def test_lists_within_tests_are_sampled_by_the_same_seed(monkeypatch):
    first = sampling.sample(NAMES, 7, "memory")
    assert sampling.sample(NAMES, 7, "memory") == first == sorted(first, key=NAMES.index)
    assert len(first) == 7
    assert sampling.sample(NAMES, 7, "something else") != first
    monkeypatch.setattr(sampling, "FULL", True)
    assert sampling.sample(NAMES, 7, "memory") == NAMES


@pytest.mark.parametrize("full", [False, True])
def test_the_run_says_how_to_repeat_it(full, monkeypatch):
    monkeypatch.setattr(sampling, "FULL", full)
    assert "SKLEBM_TEST_SEED=3" in sampling.describe()


def examples():
    """What hypothesis draws for a test."""
    drawn = []

    @hypothesis.given(st.integers())
    def look(number):
        drawn.append(number)

    look()
    return drawn


def test_examples_of_hypothesis_follow_the_seed(monkeypatch, pytestconfig):
    core = hypothesis.core
    assert str(core.global_force_seed) == pytestconfig.getoption("--hypothesis-seed")
    first = examples()
    assert examples() == first
    monkeypatch.setattr(core, "global_force_seed", core.global_force_seed + 1)
    assert examples() != first
