"""The directive ``benchmark-results``: a section with a table for each recorded benchmark.

Also a figure, for those that name the columns of one. Reads ``benchmarks/results/*.json`` (the form
is described in ``benchmarks/README.md``) when the pages are built, so that a figure cannot differ
from the run that gave it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from sklebm.plotting._canvas import COLOURS

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
# Older files do not say whether contestants took turns, newer ones which did if not all.
_TURNS = {
    True: "Contestants took turns. ",
    False: "One contestant after the other. ",
    None: "Whether contestants took turns was not recorded. ",
}
KEYS = {"title", "command", "date", "machine", "columns", "rows", "notes"}


def turns(result: dict[str, Any]) -> str:
    """The sentence on whether contestants took turns."""
    said = result.get("turns")
    return f"{said} " if isinstance(said, str) else _TURNS[said]


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
        if "figure" in result:
            path = Path(self.env.srcdir) / "generated" / f"benchmark_{name}.svg"
            draw(result, path)
            described = f"{result['title']}, on logarithmic axes; the table has the numbers."
            section += nodes.image(uri=f"/generated/{path.name}", alt=described)
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
                f". {turns(result)}Recorded {result['date']}: "
                f"{machine['cores']} cores, {machine['device']}, "
                f"Python {machine['python']}, torch {machine['torch']}, "
                f"scikit-learn {machine['sklearn']}."
            ),
        )
        return section


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw rows as lines on logarithmic axes; the legend gives the slope at the right end."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panel, line, x, y = result["figure"]
    names = list(dict.fromkeys(row[panel] for row in result["rows"]))
    labels = list(dict.fromkeys(row[line] for row in result["rows"]))
    figure = Figure(figsize=(3.6 * len(names), 4.8), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for ax, name in zip(axes, names, strict=True):
        rows = [row for row in result["rows"] if row[panel] == name]
        for label, marker, colour in zip(labels, "osD^vP", COLOURS, strict=False):
            points = sorted((row[x], row[y]) for row in rows if row[line] == label)
            if not points:
                continue
            if len(points) > 1:
                (x0, y0), (x1, y1) = points[-2:]
                label = f"{label}: {math.log(y1 / y0) / math.log(x1 / x0):.1f}"
            ax.loglog(*zip(*points, strict=True), marker=marker, color=colour, label=label)
        ax.set(xlabel=name, title="")
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17), "frameon": False}
        ax.legend(title="slope at the end", fontsize="small", title_fontsize="small", **below)
        ax.grid(visible=True, which="major", alpha=0.3)
    axes[0].set_ylabel(result["columns"][y])
    path.parent.mkdir(exist_ok=True)
    # Without a date and with fixed names inside, equal numbers give equal files.
    with mpl.rc_context({"svg.hashsalt": "sklebm"}):
        figure.savefig(path, metadata={"Date": None})


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
