"""The directive ``markdown-page FILE``: show one of the repository's Markdown files as a page.

The changelog and the policies are read on the repository's front page too, so they are Markdown.
Their headings become sections here; their first heading is the page's own title.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from markdown_it import MarkdownIt
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]


def to_html(markdown: str) -> nodes.raw:
    """Convert Markdown; links to pages of this documentation point at what was built."""
    markdown = re.sub(r"\]\(docs/([\w/]+)\.rst\)", r"](\1.html)", markdown)
    return nodes.raw("", MarkdownIt("commonmark").enable("table").render(markdown), format="html")


class MarkdownPage(SphinxDirective):
    """Insert a Markdown file, named relative to the repository's root."""

    required_arguments = 1
    has_content = False
    option_spec: ClassVar[dict[str, object]] = {}

    def run(self) -> list[nodes.Node]:
        """Return the text before the first section, then one section a heading."""
        path = ROOT / self.arguments[0]
        self.env.note_dependency(str(path))
        text = re.sub(r"\A# .*\n", "", path.read_text(encoding="utf-8"))
        lead, *parts = re.split(r"^## ", text, flags=re.MULTILINE)
        result: list[nodes.Node] = [to_html(lead)]
        for part in parts:
            title, _, body = part.partition("\n")
            title = re.sub(r"[\[\]]", "", title).strip()  # versions are links in the file
            section = nodes.section(ids=[nodes.make_id(title)])
            section += [nodes.title(text=title), to_html(body)]
            result.append(section)
        return result


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("markdown-page", MarkdownPage)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
