"""Bars in docstrings are absolute values and norms, where docutils would look for substitutions."""

from __future__ import annotations

from typing import Any

_RAW = (":math:", ">>>", "\\|")


def escape_bars(lines: list[str]) -> None:
    """Escape the bars of running text, in place; directives and literals keep theirs."""
    inside: int | None = None  # the indentation of a directive, while its body lasts
    for index, line in enumerate(lines):
        text = line.lstrip()
        indent = len(line) - len(text)
        if inside is not None and text and indent <= inside:
            inside = None
        if inside is None and text.startswith(".. ") and "::" in text:
            inside = indent
        parts = line.split("``")  # every other one is a literal, if all end in this line
        if inside is None and len(parts) % 2 and not any(mark in line for mark in _RAW):
            parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
            lines[index] = "``".join(parts)


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    escape_bars(lines)


def setup(app: Any) -> dict[str, bool]:
    """Connect to autodoc, before numpydoc rearranges the text."""
    app.connect("autodoc-process-docstring", _process, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
