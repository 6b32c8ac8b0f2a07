"""The directive ``literature-map``: what the literature names, and where it is in the library.

Reads ``docs/literature_map.toml``. A name that does not exist, and a page, example or test that is
missing, stop the build.
"""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import sklebm

DOCS = Path(__file__).parents[1]
TABLE = DOCS / "literature_map.toml"
KEYS = {"section", "idea", "equation", "names", "page", "example", "test"}
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
        If a row lacks an entry or names something that does not exist, or an estimator has no row.
    """
    rows: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["row"]
    for row in rows:
        check_row(row)
    missing = sklebm.ESTIMATORS.keys() - {name for row in rows for name in row["names"]}
    if missing:
        raise ValueError(f"no row names {', '.join(sorted(missing))}")
    return rows


def check_row(row: dict[str, Any]) -> None:
    """Raise ValueError if something that the row names does not exist."""
    if row.keys() != KEYS:
        raise ValueError(f"the row {row.get('idea')!r} must have {sorted(KEYS)}")
    for name in row["names"]:
        where = sklebm.ESTIMATORS.get(name) or sklebm.PARTS.get(name)
        if where is None or not hasattr(importlib.import_module(where), name):
            raise ValueError(f"the row {row['idea']!r} names {name}, which sklebm does not have")
    for kind, (folder, ending) in PLACES.items():
        if not (folder / f"{row[kind]}{ending}").is_file():
            raise ValueError(f"the row {row['idea']!r} names {kind} {row[kind]}, which is missing")


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
            example = row["example"].replace("/", "_")
            text += (
                f"   * - {row['idea']}\n\n       :math:`{row['equation']}`\n"
                f"     - {links}; :doc:`page </{row['page']}>`, "
                f":ref:`example <sphx_glr_auto_examples_{example}.py>`, ``tests/{row['test']}``\n"
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
