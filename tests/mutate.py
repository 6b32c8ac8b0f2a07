"""Small faults, drawn at random and planted one at a time: which of them do the tests notice?

    python -m tests.mutate --count 3 --seed 0 --results faults.json
    python -m tests.mutate sklebm/objectives sklebm/linear --count 20
    python -m tests.mutate sklebm/objectives --count 20 --again survived --results faults.json
    python -m tests.mutate sklebm/linear/gaussian_energy.py --list

A fault changes one place of the syntax tree: another comparison, a term or a factor left out, a
number changed, min for max, a statement or a keyword removed, a condition negated, which swaps the
branches. Docstrings, type hints and the words of errors stay. Every folder that is named (without
any, all that hold mathematics and the families) gets ``--count`` faults; the seed draws a file, and
a place in it, equally often. Each fault is planted in a private copy of the repository, where the
tests run that have to do with the file: those of its folder, those that name something that it
defines, those of the families that use it, and the contract of their estimators. The first test
that fails ends them, and counts only if it passes without the fault. ``--seconds`` limits the
processor time of a fault: what no test has noticed by then is unfinished, and counts as a survivor.
A single test that hangs is noticed, as a time-out. That too is measured in processor time, so that
nothing depends on what else the machine has to do.

What survives is listed; some faults change nothing that can be seen (a hint of memory, a faster
path), the others ask for a test. ``--results`` keeps what became of each fault, and goes on from
there when it is called again; ``--again survived`` repeats those that survived. Whoever has found
out that a fault changes nothing writes "equivalent" as its outcome into this file: it is counted
apart, and not listed again.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("sklebm", "tests", "docs", "examples", "setup.cfg", "pyproject.toml", "README.md")
CONTRACT = (
    "tests/test_contract.py",
    "tests/test_from_parameters.py",
    "tests/test_persistence.py",
    "tests/test_what_goes_on.py",
    "tests/test_docstrings.py",
    "tests/test_bad_parameters.py",
)
# Folders that are drawn from unless others are named: mathematics first, then the families.
MATHEMATICS = ("energies", "inference", "objectives", "training")
PRELOADED = (
    *("torch", "skorch", "sklearn.utils.estimator_checks", "scipy.stats", "numba", "pandas"),
    *("pytest", "hypothesis", "matplotlib.pyplot"),
)
OUTCOMES = ("noticed", "timed out", "survived", "unfinished", "equivalent")
OUT_OF_TIME = ("", False)
GIVEN_UP = "given up: the test hangs"
HANGS = 60  # seconds of processor time until a test is given up; none takes a third as long
# Takes minutes, and what it sees of a single model shows elsewhere: several processes fit it.
LONG = "two_jobs"

OTHER_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
SWAPPED = {
    "min": "max",
    "amin": "amax",
    "minimum": "maximum",
    "argmin": "argmax",
    "fmin": "fmax",
    "any": "all",
    "sum": "mean",
    "log": "exp",
    "floor": "ceil",
    "softplus": "sigmoid",
}
SWAPPED |= {new: old for old, new in SWAPPED.items() if old not in ("sum", "softplus")}


@dataclass(frozen=True)
class Fault:
    """A place in a file, and what stands there instead."""

    path: Path
    line: int
    column: int
    before: str
    after: str
    source: str  # of the whole file

    def __str__(self) -> str:
        before, after = (" ".join(text.split())[:90] for text in (self.before, self.after))
        place = f"{self.path.relative_to(ROOT)}:{self.line}:{self.column}"
        return f"{place}: {before}  ->  {after or '(removed)'}"


# ---------------------------------------------------------------- places


def alternatives(node: ast.AST) -> Iterator[ast.AST]:
    """What could stand in the place of a node."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for kind in OTHER_COMPARISONS[type(node.ops[0])]:
            yield ast.Compare(node.left, [kind()], node.comparators)
    elif isinstance(node, ast.BinOp):
        if isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)):
            yield node.left
        if isinstance(node.op, (ast.Add, ast.Mult)):
            yield node.right
        if isinstance(node.op, (ast.Add, ast.Sub)):
            other = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
            yield ast.BinOp(node.left, other, node.right)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not, ast.Invert)):
        yield node.operand
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
        yield node.values[0]
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value)
        elif isinstance(node.value, int):
            yield ast.Constant(node.value + 1)
        elif isinstance(node.value, float):
            yield ast.Constant(2.0 * node.value if node.value else 1.0)
    elif isinstance(node, (ast.Name, ast.Attribute)):
        name = node.id if isinstance(node, ast.Name) else node.attr
        if name in SWAPPED and isinstance(node.ctx, ast.Load):
            new = copy.copy(node)
            setattr(new, "id" if isinstance(node, ast.Name) else "attr", SWAPPED[name])
            yield new
    elif isinstance(node, (ast.If, ast.While)):
        new_if = copy.copy(node)
        new_if.test = ast.UnaryOp(ast.Not(), node.test)
        yield new_if
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.Call) and node.keywords:
        for number in range(len(node.keywords)):
            rest = node.keywords[:number] + node.keywords[number + 1 :]
            yield ast.Call(node.func, node.args, rest)
    elif isinstance(node, ast.AugAssign) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield ast.Pass()


def places(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Parent, field and index of all nodes that do something."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(node, ast.AST) or isinstance(node, (ast.Raise, ast.JoinedStr)):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            if isinstance(node, ast.FunctionDef) and "floats_per_row" in node.name:
                continue  # a hint of memory, which changes no answer
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("TypeVar", "cast"):
                continue
            yield tree, name, index, node
            yield from places(node)


class Places:
    """The places of a file, and what could stand there instead."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.seen = {ast.unparse(self.tree)}
        self.left = [
            (place, new) for place in list(places(self.tree)) for new in alternatives(place[-1])
        ]

    def take(self, number: int) -> Fault | None:
        """The fault of this number, which is then gone; None if it is none, or that of another."""
        (parent, name, index, node), new = self.left.pop(number)
        before, after = ast.unparse(node), "" if isinstance(new, ast.Pass) else ast.unparse(new)
        if isinstance(node, (ast.If, ast.While)):  # the condition says it
            before, after = (text.partition("\n")[0] for text in (before, after))
        _put(parent, name, index, new)
        source = ast.unparse(ast.fix_missing_locations(self.tree))
        _put(parent, name, index, node)
        if source in self.seen:
            return None
        self.seen.add(source)
        line, column = getattr(node, "lineno", 0), getattr(node, "col_offset", 0)
        return Fault(self.path, line, column, before, after, source)


def faults(path: Path) -> list[Fault]:
    """Every fault that can be planted in a file."""
    rest = Places(path)
    taken = [rest.take(0) for _ in range(len(rest.left))]
    return [fault for fault in taken if fault is not None]


def _put(parent: ast.AST, name: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[index] = node


def draw(folder: Path, count: int, seed: int) -> list[Fault]:
    """Different faults; each file of the folder has the same chance."""
    rng = random.Random(seed)
    files = [folder] if folder.is_file() else sorted(folder.rglob("*.py"))
    places_of: dict[Path, Places] = {}
    drawn: list[Fault] = []
    while files and len(drawn) < count:
        path = rng.choice(files)
        if path not in places_of:
            places_of[path] = Places(path)
        rest = places_of[path]
        if not rest.left:
            files.remove(path)
            continue
        fault = rest.take(rng.randrange(len(rest.left)))
        drawn += [] if fault is None else [fault]
    return drawn


def default_folders() -> list[Path]:
    """Mathematics, and the families of the table of names."""
    import sklebm

    families = {home.partition(".")[2] for home in sklebm.ESTIMATORS.values()}
    return [ROOT / "sklebm" / name for name in (*MATHEMATICS, *sorted(families - {""}))]


# ---------------------------------------------------------------- tests


def commands(path: Path) -> list[list[str]]:
    """Arguments of pytest for the tests that have to do with a file, the closest first."""
    import sklebm

    part = path.relative_to(ROOT / "sklebm").parts[0]
    homes = {name: home.partition(".")[2] for name, home in sklebm.ESTIMATORS.items()}
    users = _users(path, homes)
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    own = [t for t in tests if part in t.parts or t.stem.startswith(f"test_{part.strip('_')}")]
    naming = _most_first({test: _mentions(test, _imported_from(test, path)) for test in tests})
    of_families = [test for test in tests if test.parent.name in homes.values()]
    of_users = _most_first({test: _mentions(test, frozenset(users)) for test in of_families})
    shared = {ROOT / name for name in CONTRACT}
    groups = (
        [*(t for t in naming if t in own), *([path] if ">>>" in _text(path) else [])],
        [t for t in naming if t not in own and t not in shared][:8],
        [t for t in of_users if t not in naming][:8],
        [t for t in own if t not in naming and t not in of_users[:8]],
    )
    found = [[str(t.relative_to(ROOT)) for t in group] for group in groups if group]
    family = [name for name, home in homes.items() if home == part]
    chosen = users[:4] or family or ["BernoulliRBM", "EnergyKMeans"]
    # The contract of those that use it stands for the tests of their folder that do not name them.
    contract = [*CONTRACT, "-k", f"({' or '.join(chosen)}) and not {LONG}"]
    return [*found[:-1], contract, found[-1]] if groups[-1] else [*found, contract]


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _imports(path: Path) -> frozenset[str]:
    """Dotted names of what a file imports from the package."""
    found = set()
    for node in ast.walk(ast.parse(_text(path))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sklebm"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("sklebm.")}
    return frozenset(found)


@cache
def _definitions(path: Path) -> frozenset[str]:
    """The names that a module defines."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return frozenset(node.name for node in ast.parse(_text(path)).body if isinstance(node, kinds))


def _imported_from(path: Path, module: Path) -> frozenset[str]:
    """What a file imports of a module, from it or from a package that it is in."""
    dotted = ".".join(module.relative_to(ROOT).with_suffix("").parts)
    packages = [dotted.rsplit(".", number)[0] for number in range(1, dotted.count(".") + 1)]
    found = {name.rpartition(".")[2] for name in _imports(path) if name.startswith(f"{dotted}.")}
    found |= {dotted.rpartition(".")[2]} & {n.rpartition(".")[2] for n in _imports(path)}
    found |= {n for n in _definitions(module) for p in packages if f"{p}.{n}" in _imports(path)}
    return frozenset(found)


def _mentions(path: Path, names: frozenset[str]) -> int:
    pattern = rf"\b({'|'.join(map(re.escape, sorted(names)))})\b"
    return len(re.findall(pattern, _text(path))) if names else 0


def _most_first(mentions: dict[Path, int]) -> list[Path]:
    return sorted((path for path in mentions if mentions[path]), key=lambda path: -mentions[path])


def _users(path: Path, homes: dict[str, str]) -> list[str]:
    """The estimators that a file defines, else those next to it among the modules that use it."""
    modules = [module for module in (ROOT / "sklebm").rglob("*.py") if module.stem != "__init__"]
    wave, seen = {path}, {path}
    while wave:
        found = [
            name
            for module in sorted(wave)
            for name in sorted(_definitions(module))
            if homes.get(name) == module.parent.name
        ]
        if found:
            return found
        wave = {m for m in modules if any(_imported_from(m, used) for used in wave)} - seen
        seen |= wave
    return []


def preload() -> None:
    """Import what every test needs and no fault is planted in; its children then have it."""
    os.environ.update(
        SCIPY_ARRAY_API="1",
        OMP_NUM_THREADS="1",
        OMP_WAIT_POLICY="PASSIVE",
        MPLBACKEND="Agg",
        SKLEBM_TEST_SEED="0",
    )
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


@dataclass(frozen=True)
class Outcome:
    """What became of a fault.

    Attributes
    ----------
    word : {"noticed", "timed out", "survived", "unfinished"}
        Whether a test failed, hung, or none did; the last if time ran out before all had run.
    test : str
        The test that failed; empty for a survivor.
    seconds : float
        Processor time that the tests took.
    """

    word: str
    test: str
    seconds: float


def _used() -> float:
    """Seconds of processor time that the children of this process have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Copy:
    """A private copy of the repository, in which faults are planted and tests run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sound: set[str] = set()
        self._n_planted = 0
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "_build", "auto_examples")
                shutil.copytree(source, folder / name, ignore=ignored)
            elif source.exists():
                shutil.copy(source, folder / name)

    def try_out(self, fault: Fault, seconds: float) -> Outcome:
        """Plant a fault, run the tests, take it out again."""
        target = self.folder / fault.path.relative_to(ROOT)
        before, stamps = target.read_text(encoding="utf-8"), target.stat()
        # Machine code of a planted kernel goes where it cannot meet that of the sound one.
        cache = self.folder / "cache" if "_compiled" in before else None
        start = _used()
        target.write_text(fault.source, encoding="utf-8")
        # Python goes by the time of a file, in seconds, to see whether it has its bytecode.
        self._n_planted += 2
        os.utime(target, (stamps.st_atime, stamps.st_mtime + self._n_planted))
        failed = None
        try:
            for tests in commands(fault.path):
                left = seconds - (_used() - start)
                failed = self._first_failure(tests, left, cache) if left > 0 else OUT_OF_TIME
                if failed is not None:
                    break
        finally:
            target.write_text(before, encoding="utf-8")
            os.utime(target, (stamps.st_atime, stamps.st_mtime))
            if cache is not None:
                shutil.rmtree(cache, ignore_errors=True)
        took = _used() - start
        if failed in (None, OUT_OF_TIME):
            return Outcome("survived" if failed is None else "unfinished", "", took)
        test, hung = failed
        if test not in self._sound:
            arguments = [test] if "::" in test else [*tests, "--collect-only"]
            if self._first_failure(arguments, None, None) is not None:
                raise SystemExit(f"{test or tests} fails without any fault: mend it first.")
            self._sound.add(test)
        return Outcome("timed out" if hung else "noticed", test, took)

    def _first_failure(
        self, tests: list[str], seconds: float | None, cache: Path | None
    ) -> tuple[str, bool] | None:
        """The first test that fails, and whether it hung; None if all pass."""
        options = ["-q", "-x", "-p", "no:cacheprovider", "--tb=line"]
        code, printed = self._pytest([*options, *tests], seconds, cache)
        if code is None:
            return OUT_OF_TIME
        if code in (0, 5):  # 5: nothing was selected
            return None
        named = re.search(r"^(?:FAILED|ERROR) (\S+?(?:\[.*\])?)(?: - |$)", printed, re.M)
        # Without a name, the run itself came down: nothing can be imported any more.
        return named.group(1) if named else "import", GIVEN_UP in printed

    def _pytest(
        self, arguments: list[str], seconds: float | None, cache: Path | None
    ) -> tuple[int | None, str]:
        """The exit status of pytest, None if its time ran out, and what it printed.

        It runs in a fork of this process, which has imported what takes long to import.
        """
        with tempfile.TemporaryFile("w+") as printed:
            child = os.fork()
            if child == 0:
                code = 3
                try:
                    os.dup2(printed.fileno(), 1)
                    os.dup2(printed.fileno(), 2)
                    code = self._in_child(arguments, seconds, cache)
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
            _, status = os.waitpid(child, 0)
            printed.seek(0)
            text = printed.read()
        if os.WIFSIGNALED(status):
            out_of_time = os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
            return None if out_of_time else 3, text
        return os.WEXITSTATUS(status), text

    def _in_child(self, arguments: list[str], seconds: float | None, cache: Path | None) -> int:
        if seconds is not None:
            limit = max(1, round(seconds))
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
        os.chdir(self.folder)
        os.environ["PYTHONPATH"] = str(self.folder)
        if cache is not None:
            os.environ["XDG_CACHE_HOME"] = str(cache)
        sys.path[:] = [str(self.folder), *(p for p in sys.path if Path(p or ".").resolve() != ROOT)]
        for name in list(sys.modules):
            if name.partition(".")[0] in ("sklebm", "tests"):
                del sys.modules[name]
        import pytest

        return int(pytest.main(arguments, plugins=[GivesUp()]))


class GivesUp:
    """Ends a test that has taken ``HANGS`` seconds of processor time."""

    def pytest_runtest_setup(self) -> None:
        """Called before a test."""
        signal.signal(signal.SIGPROF, self._give_up)
        signal.setitimer(signal.ITIMER_PROF, HANGS)

    def pytest_runtest_teardown(self) -> None:
        """Called after it."""
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _give_up(self, *_: object) -> None:
        import pytest

        pytest.fail(GIVEN_UP, pytrace=False)


# ---------------------------------------------------------------- results


def key(fault: Fault) -> dict[str, Any]:
    """What a fault is known by in a file of results."""
    return {
        "file": str(fault.path.relative_to(ROOT)),
        "line": fault.line,
        "column": fault.column,
        "before": " ".join(fault.before.split()),
        "after": " ".join(fault.after.split()),
    }


def table(results: list[dict[str, Any]]) -> str:
    """The score of each folder and of all, and what survived."""
    folders = sorted({result["file"].split("/")[1] for result in results})
    lines = []
    for folder in (*folders, ""):
        some = [r for r in results if not folder or r["file"].split("/")[1] == folder]
        noticed = sum(result["outcome"] in ("noticed", "timed out") for result in some)
        others = {w: sum(r["outcome"] == w for r in some) for w in ("equivalent", "unfinished")}
        share = 100 * noticed / max(len(some), 1)
        line = f"{folder or 'all':14} {noticed:4} of {len(some):4} noticed ({share:.0f} %)"
        lines.append(line + "".join(f", {n} {word}" for word, n in others.items() if n))
    survivors = [r for r in results if r["outcome"] in ("survived", "unfinished")]
    if survivors:
        lines += ["Survivors:"]
    lines += [
        f"{r['outcome']:10} {r['file']}:{r['line']}: {r['before']}  ->  {r['after']}"
        for r in survivors
    ]
    return "\n".join(lines)


def main() -> int:
    """Plant faults, one at a time; print which survive and how many were noticed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="*", help="folders or files of the package")
    parser.add_argument("--count", type=int, default=20, help="how many faults of each folder")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--seconds", type=float, default=600, help="processor time for a fault")
    parser.add_argument("--results", type=Path, help="JSON file of what became of them")
    parser.add_argument("--again", choices=OUTCOMES, help="which to repeat")
    parser.add_argument("--list", action="store_true", help="show them and run nothing")
    options = parser.parse_args()
    folders = [(ROOT / folder).resolve() for folder in options.folders] or default_folders()
    by_folder = [draw(folder, options.count, options.seed) for folder in folders]
    # In turns, so that a run that is cut short has seen every folder.
    turns = itertools.zip_longest(*by_folder)
    drawn = [fault for turn in turns for fault in turn if fault is not None]
    if options.list:
        print(*drawn, sep="\n")
        return 0
    preload()
    known: list[dict[str, Any]] = []
    if options.results and options.results.exists():
        known = json.loads(options.results.read_text(encoding="utf-8"))
    results = []
    with tempfile.TemporaryDirectory() as folder:
        copied = Copy(Path(folder))
        for number, fault in enumerate(drawn, start=1):
            name = key(fault)
            stored = [r for r in known if {k: r[k] for k in name} == name]
            if stored and stored[0]["outcome"] != options.again:
                results.append(stored[0])
                continue
            outcome = copied.try_out(fault, options.seconds)
            found = {"outcome": outcome.word, "test": outcome.test}
            results.append({**name, **found, "seconds": round(outcome.seconds, 1)})
            print(f"{number:3} {outcome.word:10} {outcome.seconds:4.0f} s {fault}", flush=True)
            if options.results:
                rest = [r for r in known if r not in stored]
                known = [*rest, results[-1]]
                options.results.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    print("", table(results), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
