"""The directive ``literature-map``: what the literature names, and where it is in the library.

Reads ``docs/literature_map.toml``. A name that does not exist, a page, example or test that is
missing, and an example that does not show what its row names, stop the build.
"""

from __future__ import annotations

import functools
import importlib
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import sklebm

DOCS = Path(__file__).parents[1]
TABLE = DOCS / "literature_map.toml"
KEYS = {"section", "idea", "equation", "names", "page", "test"}
OPTIONAL = {"example", "shows"}
#: Former names, which readers of the map need not learn.
FORMER = {
    "ReferenceNoiseContrastive",
    "SampledContrastiveDivergence",
    "SampledPersistentContrastiveDivergence",
    "VariationalReferenceNoiseContrastive",
}
#: Where the files of a row are, and how their names end.
PLACES = {
    "page": (DOCS, ".rst"),
    "example": (DOCS.parent / "examples", ".py"),
    "test": (DOCS.parent / "tests", ""),
}


def read_map(path: Path = TABLE) -> list[dict[str, Any]]:
    """Read the rows and check each of them.

    Raises
    ------
    ValueError
        If a row lacks an entry, names something that does not exist, or has an example that does
        not show it, or if an estimator or a part has no row.
    """
    rows: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["row"]
    for row in rows:
        check_row(row)
    public = sklebm.ESTIMATORS.keys() | sklebm.PARTS.keys()
    missing = public - FORMER - {name for row in rows for name in row["names"]}
    if missing:
        raise ValueError(f"no row names {', '.join(sorted(missing))}")
    return rows


def check_row(row: dict[str, Any]) -> None:
    """Raise ValueError if something that the row names does not exist, or nothing shows it."""
    if not KEYS <= row.keys() <= KEYS | OPTIONAL:
        raise ValueError(
            f"the row {row.get('idea')!r} must have {sorted(KEYS)}, and may have {sorted(OPTIONAL)}"
        )
    for name in row["names"]:
        where = sklebm.ESTIMATORS.get(name) or sklebm.PARTS.get(name)
        if where is None or not hasattr(importlib.import_module(where), name):
            raise ValueError(f"the row {row['idea']!r} names {name}, which sklebm does not have")
    for kind, (folder, ending) in PLACES.items():
        if kind in row and not (folder / f"{row[kind]}{ending}").is_file():
            raise ValueError(f"the row {row['idea']!r} names {kind} {row[kind]}, which is missing")
    link_to_example(row)


def link_to_example(row: dict[str, Any]) -> str:
    """The link to the code that shows what the row is about."""
    if "example" in row:
        if shows(row, text_of(row, "example")):
            return f":ref:`example <sphx_glr_auto_examples_{row['example'].replace('/', '_')}.py>`"
        raise ValueError(
            f"the row {row['idea']!r} leads to the example {row['example']}, which does not show "
            f"{row.get('shows') or ' or '.join(row['names'])}"
        )
    if shows(row, doctests(text_of(row, "page"))):
        return f":doc:`example </{row['page']}>`"
    for name in row["names"]:
        if shows(row, doctests(getattr(importlib.import_module(home(name)), name).__doc__)):
            return f":class:`example <{home(name)}.{name}>`"
    raise ValueError(
        f"the row {row['idea']!r} has no example, and no doctest of the page {row['page']} or of "
        f"the docstrings shows {row.get('shows') or ' or '.join(row['names'])}"
    )


def text_of(row: dict[str, Any], kind: str) -> str:
    """The text of a file of the row."""
    folder, ending = PLACES[kind]
    return (folder / f"{row[kind]}{ending}").read_text(encoding="utf-8")


def doctests(text: str) -> str:
    """The lines of code in a page or a docstring."""
    return "\n".join(re.findall(r"^ *(?:>>>|\.\.\.) (.*)", text, re.MULTILINE))


def shows(row: dict[str, Any], code: str) -> bool:
    """Whether code has what the row is about: ``shows``, or one of its names."""
    if "shows" in row:
        return row["shows"] in code
    called = {alias for name in row["names"] for alias in aliases().get(name, ())}
    strings = [f"[\"']{re.escape(alias)}[\"']" for alias in called]
    return (
        re.search("|".join([*(rf"\b{name}\b" for name in row["names"]), *strings]), code)
        is not None
    )


@functools.cache
def aliases() -> dict[str, set[str]]:
    """The strings that parameters take for parts, from the tables in which estimators find them."""
    for module in {*sklebm.ESTIMATORS.values(), *sklebm.PARTS.values()}:
        importlib.import_module(module)
    found: dict[str, set[str]] = {}
    for module in [value for key, value in sys.modules.items() if key.startswith("sklebm.")]:
        for table in [value for value in vars(module).values() if isinstance(value, dict)]:
            for key, part in table.items():
                if isinstance(key, str) and isinstance(part, type):
                    found.setdefault(part.__name__, set()).add(key)
    return {name: found[name] for name in sklebm.PARTS.keys() & found.keys()}


def as_rst(rows: list[dict[str, Any]]) -> str:
    """One section with a table for each section of the map."""
    text = ""
    for section in dict.fromkeys(row["section"] for row in rows):
        text += f".. rubric:: {section}\n\n"
        text += ".. list-table::\n   :header-rows: 1\n   :widths: 62 38\n\n"
        text += "   * - idea\n     - here\n"
        for row in rows:
            if row["section"] != section:
                continue
            links = ", ".join(f":class:`~{home(name)}.{name}`" for name in row["names"])
            page = f":doc:`page </{row['page']}>`"
            text += (
                f"   * - {row['idea']}\n\n       :math:`{row['equation']}`\n"
                f"     - {links}; {page}, {link_to_example(row)}, ``tests/{row['test']}``\n"
            )
        text += "\n"
    return text


def home(name: str) -> str:
    """The module under which the API pages list a name."""
    return "sklebm" if name in sklebm.ESTIMATORS else sklebm.PARTS[name]


class LiteratureMap(SphinxDirective):
    """Insert the map."""

    def run(self) -> list[nodes.Node]:
        """Return a rubric and a table per section."""
        self.env.note_dependency(str(TABLE))
        return self.parse_text_to_nodes(as_rst(read_map()))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("literature-map", LiteratureMap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
