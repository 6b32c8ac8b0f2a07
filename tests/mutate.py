"""Small faults, drawn at random and planted one at a time: which of them do the tests notice?

    python -m tests.mutate sklebm/objectives --count 20 --seed 0
    python -m tests.mutate sklebm/linear/gaussian_energy.py --list

A fault changes one place of the syntax tree: another comparison, a term or a factor left out, a
number changed, min for max, a statement removed, a condition negated. The seed draws a file, and a
place in it, equally often. Each fault is planted in a copy of the repository, where the tests run
that have to do with the file: those of its folder, those that name something that it defines, and
for a family the contract of its estimators. The first test that fails ends them. What survives is
listed; some faults change nothing that can be seen (a hint of memory, a faster path), the others
ask for a test.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("sklebm", "tests", "docs", "examples", "setup.cfg", "pyproject.toml", "README.md")
CONTRACT = ("tests/test_contract.py", "tests/test_persistence.py", "tests/test_what_goes_on.py")
SLOWEST = 10  # times the time of the unchanged tests: a fault that hangs is noticed

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
    before: str
    after: str
    source: str  # of the whole file

    def __str__(self) -> str:
        before, after = (" ".join(text.split())[:90] for text in (self.before, self.after))
        return f"{self.path.relative_to(ROOT)}:{self.line}: {before}  ->  {after or '(removed)'}"


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
            yield tree, name, index, node
            yield from places(node)


def faults(path: Path) -> list[Fault]:
    """Every fault that can be planted in a file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    unchanged = ast.unparse(tree)
    found = []
    for parent, name, index, node in list(places(tree)):
        for new in alternatives(node):
            before, after = ast.unparse(node), "" if isinstance(new, ast.Pass) else ast.unparse(new)
            if isinstance(node, (ast.If, ast.While)):  # the condition says it
                before, after = (t.partition("\n")[0] for t in (before, after))
            _put(parent, name, index, new)
            source = ast.unparse(ast.fix_missing_locations(tree))
            _put(parent, name, index, node)
            if source != unchanged:
                found.append(Fault(path, getattr(node, "lineno", 0), before, after, source))
    return found


def _put(parent: ast.AST, name: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[index] = node


def draw(folder: Path, count: int, seed: int) -> list[Fault]:
    """Different faults; each file of the folder has the same chance."""
    rng = random.Random(seed)
    files = [folder] if folder.is_file() else sorted(folder.rglob("*.py"))
    by_file = {path: faults(path) for path in files}
    by_file = {path: found for path, found in by_file.items() if found}
    drawn: list[Fault] = []
    while by_file and len(drawn) < count:
        path = rng.choice(sorted(by_file))
        drawn.append(by_file[path].pop(rng.randrange(len(by_file[path]))))
        if not by_file[path]:
            del by_file[path]
    return drawn


# ---------------------------------------------------------------- tests


def commands(path: Path) -> list[list[str]]:
    """Arguments of pytest for the tests that have to do with a file, the closest first."""
    import sklebm

    parts = path.relative_to(ROOT / "sklebm").with_suffix("").parts
    part = parts[0]
    names = {
        node.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    }
    dotted = re.escape(".".join(("sklebm", *parts)))
    words = re.compile(rf"\b({'|'.join([dotted, *sorted(names)])})\b")
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    naming = [t for t in tests if words.search(t.read_text(encoding="utf-8"))]
    own = [t for t in tests if part in t.parts or t.stem.startswith(f"test_{part.strip('_')}")]
    shared = {ROOT / name for name in CONTRACT}
    groups = (
        [t for t in own if t in naming],
        [t for t in naming if t not in own and t not in shared][:8],
        [t for t in own if t not in naming],
    )
    found = [[str(t.relative_to(ROOT)) for t in group] for group in groups if group]
    family = [n for n, home in sklebm.ESTIMATORS.items() if home == f"sklebm.{part}"]
    if family or not own:
        chosen = [n for n in family if n in names] or family or ["BernoulliRBM", "EnergyKMeans"]
        found.append([*CONTRACT, "-k", " or ".join(chosen)])
    return found


def run(copied: Path, arguments: list[list[str]], limit: float | None) -> tuple[bool, float]:
    """Whether all tests pass in the copy, and the seconds that they take."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(copied),
        "SCIPY_ARRAY_API": "1",
        "OMP_NUM_THREADS": "1",
        "SKLEBM_TEST_SEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    start = time.monotonic()
    for tests in arguments:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
        try:
            done = subprocess.run(
                command, cwd=copied, env=environment, capture_output=True, timeout=limit
            )
        except subprocess.TimeoutExpired:
            return False, time.monotonic() - start
        if done.returncode not in (0, 5):  # 5: nothing was selected
            return False, time.monotonic() - start
    return True, time.monotonic() - start


def main() -> int:
    """Plant faults, one at a time; print which survive and how many were noticed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a folder or a file of the package")
    parser.add_argument("--count", type=int, default=20, help="how many faults")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--list", action="store_true", help="show them and run nothing")
    options = parser.parse_args()
    drawn = draw((ROOT / options.folder).resolve(), options.count, options.seed)
    if options.list:
        print(*drawn, sep="\n")
        return 0
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "_build", "auto_examples")
                shutil.copytree(source, copied / name, ignore=ignored)
            elif source.exists():
                shutil.copy(source, copied / name)
        unchanged: dict[Path, float] = {}
        for number, fault in enumerate(drawn, start=1):
            tests = commands(fault.path)
            if fault.path not in unchanged:
                passed, unchanged[fault.path] = run(copied, tests, None)
                if not passed:
                    raise SystemExit(f"The tests of {fault.path} fail without any fault: {tests}")
            target = copied / fault.path.relative_to(ROOT)
            before = target.read_text(encoding="utf-8")
            target.write_text(fault.source, encoding="utf-8")
            survived, _ = run(copied, tests, SLOWEST * (10 + unchanged[fault.path]))
            target.write_text(before, encoding="utf-8")
            survivors += [fault] if survived else []
            print(f"{number:3} {'SURVIVED' if survived else 'noticed '} {fault}", flush=True)
    noticed = len(drawn) - len(survivors)
    print(f"\n{noticed} of {len(drawn)} noticed ({100 * noticed / max(len(drawn), 1):.0f} %).")
    print(*(["Survivors:", *map(str, survivors)] if survivors else []), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
