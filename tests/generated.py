"""Parts of files that follow from the code: written by ``make generated``, held to it by tests.

The imports of each family, and those that type checkers read in ``sklebm/__init__.py``, follow from
the table of names there. The table of estimators in README.md is made of the first lines of their
docstrings, and ``expected_messages.txt`` of what they say. Nothing here names an estimator.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import warnings
from typing import Any

import sklebm
from tests.subprocesses import ROOT

README = ROOT / "README.md"
BEGIN, END = "<!-- written by `make generated` -->\n", "<!-- end -->\n"
HEAD = "\n| estimator | is | `transform` gives | `score_samples` gives |\n|---|---|---|---|\n"


def first_line(thing: Any) -> str:
    """The summary of a docstring, for Markdown, without its full stop and "Return"."""
    text = (inspect.getdoc(thing) or "").partition("\n\n")[0]
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text.replace("``", "`"))
    text = re.sub(r":math:`(.*?)`", r"$\1$", " ".join(text.split()))
    return text.removesuffix(".").removeprefix("Return ").replace("|", "\\|")


def estimator_table() -> str:
    """A table for each family, in the order of names, under the first line of its module."""
    tables = []
    for family in sorted(dict.fromkeys(sklebm.ESTIMATORS.values()), key=family_line):
        tables.append(f"\n**{family_line(family).replace(':', '**:', 1)}\n{HEAD}")
        for name in sorted(n for n, home in sklebm.ESTIMATORS.items() if home == family):
            kind = getattr(sklebm, name)
            cells = [first_line(kind)]
            for method in ("transform", "score_samples"):
                cells.append(first_line(getattr(kind, method)) if hasattr(kind, method) else "–")
            tables.append(f"| `{name}` | {' | '.join(cells)} |\n")
    return "".join(tables)


def family_line(family: str) -> str:
    """What the module of a family says of itself."""
    return (importlib.import_module(family).__doc__ or "").partition("\n")[0]


def readme() -> str:
    """README.md with the table as it should be."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    return before + BEGIN + estimator_table() + END + rest.partition(END)[2]


def home(name: str, family: str) -> str:
    """The module that defines an estimator of a family."""
    folder = ROOT / family.replace(".", "/")
    found = [
        path.stem
        for path in sorted(folder.glob("*.py"))
        if re.search(rf"^class {name}\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    if len(found) != 1:
        raise ValueError(f"{name} must be a class of one module in {family}, not of {found}.")
    return f"{family}.{found[0]}"


def family_init(family: str) -> str:
    """``__init__.py`` of a family: its docstring, and its estimators."""
    path = ROOT / family.replace(".", "/") / "__init__.py"
    docstring = path.read_text(encoding="utf-8").partition('"""\n')[0]
    names = [name for name, own in sklebm.ESTIMATORS.items() if own == family]
    modules = {name: home(name, family) for name in names}
    imports = "".join(
        f"from {modules[name]} import {name}\n" for name in sorted(names, key=modules.__getitem__)
    )
    # Constants before classes, as linters sort exported names.
    listed = ", ".join(f'"{name}"' for name in sorted(names, key=lambda n: (not n.isupper(), n)))
    text = f"__all__ = [{listed}]\n"
    if len(text) > 101:
        text = f"__all__ = [\n    {listed.replace(', ', f',{chr(10)}    ')},\n]\n"
    return f'{docstring}"""\n\n{imports}\n{text}'


def package_init() -> str:
    """``sklebm/__init__.py`` with the imports that type checkers see."""
    path = ROOT / "sklebm" / "__init__.py"
    before, _, rest = path.read_text(encoding="utf-8").partition("if TYPE_CHECKING:\n")
    homes = {**sklebm.ESTIMATORS, **sklebm.FUNCTIONS}
    order = sorted(homes, key=lambda name: (homes[name], not name.isupper(), name))
    lines = "".join(f"    from {homes[name]} import {name} as {name}\n" for name in order)
    return f"{before}if TYPE_CHECKING:\n{lines}\n\ndef {rest.partition(chr(10) + 'def ')[2]}"


def inits() -> dict[Any, str]:
    """The files that import what the table of names lists, with what they should hold."""
    families = dict.fromkeys(sklebm.ESTIMATORS.values())
    files: dict[Any, str] = {
        ROOT / family.replace(".", "/") / "__init__.py": family_init(family) for family in families
    }
    return {ROOT / "sklebm" / "__init__.py": package_init(), **files}


def write_imports_and_readme() -> None:
    """What follows from names and docstrings, in a moment."""
    for path, text in inits().items():
        path.write_text(text, encoding="utf-8")
    README.write_text(readme(), encoding="utf-8")


def main() -> None:
    """Write all of them; the messages take minutes, since every estimator has to say them."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    write_imports_and_readme()
    from tests import test_messages

    warnings.simplefilter("ignore")
    test_messages.FILE.write_text(test_messages.render())


if __name__ == "__main__":
    main()
