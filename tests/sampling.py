"""Tables of tests, of which ``make test`` runs a sample, and ``make test-full`` everything.

A table is a test that runs over all estimators. Whole, the tables would take twice as long with
twice as many estimators. So each has a number of cases: ``CASES``, or that of its marker,

    @pytest.mark.table(300)                           # as many of them
    @pytest.mark.table(300, always=lambda case: ...)  # and those for which this is true

Which cases, a seed decides, another one every time. The header and the last lines of the run name
it, and ``SKLEBM_TEST_SEED=...`` repeats it; hypothesis draws its examples by the same seed. Within
a table as many estimators as can be take part, and those come first that other tables have left
out, so that every run sees every estimator often.

``-k`` and names of tests choose first: what they leave of a table, if it is small, runs whole.
Tests of mathematics (the folders of ``tests/``, but those of ``SHARED``) are not thinned.
"""

from __future__ import annotations

import collections
import os
import random
from pathlib import Path
from typing import Any

FULL = os.environ.get("SKLEBM_TEST_FULL", "") not in ("", "0")
# In the environment, where the worker processes of this run find it.
SEED = int(os.environ.setdefault("SKLEBM_TEST_SEED", str(random.SystemRandom().randrange(10**6))))
CASES = 8
ROOT = Path(__file__).parent
SHARED = (ROOT, ROOT / "scale", ROOT / "faults")


def describe() -> str:
    """What is run, in one line."""
    if FULL:
        return f"sklebm: all cases of all tables (SKLEBM_TEST_FULL), SKLEBM_TEST_SEED={SEED}"
    return (
        f"sklebm: a sample of the tables over all estimators, SKLEBM_TEST_SEED={SEED} "
        "(SKLEBM_TEST_FULL=1: all cases)"
    )


def sample(cases: Any, limit: int, what: str = "") -> list[Any]:
    """At most ``limit`` of the cases, in order, for loops within a test; all of them if FULL."""
    cases = list(cases)
    if FULL or len(cases) <= limit:
        return cases
    chosen = random.Random(f"{SEED} {what}").sample(range(len(cases)), limit)
    return [cases[index] for index in sorted(chosen)]


def generator(what: str) -> random.Random:
    """Random numbers of this run, for ``what``."""
    return random.Random(f"{SEED} {what}")


# ---------------------------------------------------------------- tables


def estimator_of(item: Any, names: Any) -> str | None:
    """Name of the estimator that a case is about."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    for value in (parameters.get("name"), type(parameters.get("estimator")).__name__):
        if isinstance(value, str) and value in names:
            return value
    return None


def thin(items: list[Any], names: Any) -> tuple[list[Any], list[Any]]:
    """What is kept of the collected items, in order, and what is left out."""
    if FULL:
        return items, []
    tables: dict[str, list[Any]] = collections.defaultdict(list)
    for item in items:
        marked = item.get_closest_marker("table") is not None
        if marked or (item.path.parent in SHARED and estimator_of(item, names)):
            tables[item.nodeid.partition("[")[0]].append(item)
    shown: collections.Counter[str] = collections.Counter()
    dropped: set[str] = set()
    for table, cases in tables.items():
        marker = cases[0].get_closest_marker("table")
        limit = marker.args[0] if marker and marker.args else CASES
        always = marker.kwargs.get("always") if marker else None
        whole = {case.nodeid for case in cases if always and always(case.callspec.params)}
        rest = [case for case in cases if case.nodeid not in whole]
        kept = whole | choose(rest, limit, table, shown, names)
        dropped |= {case.nodeid for case in cases} - kept
    return (
        [item for item in items if item.nodeid not in dropped],
        [item for item in items if item.nodeid in dropped],
    )


def choose(
    cases: list[Any], limit: int, table: str, shown: collections.Counter[str], names: Any
) -> set[str]:
    """Names of ``limit`` cases: estimators take turns, each with what has been seen the least."""
    if len(cases) <= limit:
        return {case.nodeid for case in cases}
    order = random.Random(f"{SEED} {table}")
    waiting: dict[str, list[Any]] = collections.defaultdict(list)
    for case in order.sample(cases, len(cases)):
        waiting[estimator_of(case, names) or ""].append(case)
    seen: collections.Counter[str] = collections.Counter()
    turns = sorted(waiting, key=lambda name: (shown[name], order.random()))
    chosen: set[str] = set()
    # Two cases may bear one name, so that fewer are chosen than there are.
    while len(chosen) < limit and any(waiting.values()):
        for name in turns:
            if len(chosen) == limit or not waiting[name]:
                continue
            case = min(waiting[name], key=lambda case: seen[_rest(case, name)])
            waiting[name].remove(case)
            chosen.add(case.nodeid)
            seen[_rest(case, name)] += 1
            shown[name] += 1
    return chosen


def _rest(case: Any, name: str) -> str:
    """The case without its estimator: another input, parameter or fault."""
    identifier = case.callspec.id if hasattr(case, "callspec") else ""
    return str(identifier).replace(name, "", 1)
