"""The directive ``benchmark-results``: a section with a table for each recorded benchmark.

Reads ``benchmarks/results/*.json`` (the form is described in ``benchmarks/README.md``) when the
pages are built, so that a figure cannot differ from the run that gave it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
KEYS = {"title", "command", "date", "machine", "columns", "rows", "notes"}


def read_result(path: Path) -> dict[str, Any]:
    """Read one result file and check its form."""
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if missing := KEYS - result.keys():
        raise ValueError(f"{path.name} lacks {sorted(missing)} (see benchmarks/README.md)")
    return result


class BenchmarkResults(SphinxDirective):
    """Insert every recorded result, in the order of the file names."""

    def run(self) -> list[nodes.Node]:
        """Return one section a file."""
        self.env.note_dependency(str(RESULTS))
        paths = sorted(RESULTS.glob("*.json"))
        for path in paths:
            self.env.note_dependency(str(path))
        if not paths:
            return [nodes.paragraph(text="No results are recorded yet.")]
        return [self.section(path.stem, read_result(path)) for path in paths]

    def section(self, name: str, result: dict[str, Any]) -> nodes.section:
        """Heading, table, notes, and how to repeat it."""
        section = nodes.section(ids=[nodes.make_id(f"benchmark-{name}")])
        section += nodes.title(text=result["title"])
        section += table(result["columns"], result["rows"])
        if result["notes"]:
            section += self.parse_text_to_nodes(result["notes"])
        machine = result["machine"]
        section += nodes.paragraph(
            "",
            "",
            nodes.Text("Repeat with "),
            nodes.literal(text=result["command"]),
            nodes.Text(
                f". Recorded {result['date']}: {machine['cores']} cores, {machine['device']}, "
                f"Python {machine['python']}, torch {machine['torch']}, "
                f"scikit-learn {machine['sklearn']}."
            ),
        )
        return section


def table(columns: list[str], rows: list[list[Any]]) -> nodes.table:
    """Return a docutils table; columns of numbers get the class ``number``."""
    numeric = [all(isinstance(row[k], int | float) for row in rows) for k in range(len(columns))]
    group = nodes.tgroup(cols=len(columns))
    group += [nodes.colspec(colwidth=1) for _ in columns]
    group += nodes.thead("", table_row(columns, numeric))
    group += nodes.tbody("", *[table_row(row, numeric) for row in rows])
    return nodes.table("", group, classes=["benchmark"])


def table_row(cells: list[Any], numeric: list[bool]) -> nodes.row:
    """Return one row."""
    row = nodes.row()
    for cell, is_number in zip(cells, numeric, strict=True):
        classes = ["number"] if is_number else []
        row += nodes.entry("", nodes.paragraph(text=f"{cell}"), classes=classes)
    return row


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("benchmark-results", BenchmarkResults)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
