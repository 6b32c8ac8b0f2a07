"""The directive ``gallery-figure EXAMPLE``: a figure that an example of the gallery draws.

``.. gallery-figure:: deep/plot_seven_ways`` shows the example's first figure (``:number: 2`` its
second) and links to the example. Builds that do not run the examples show the link alone, so that
pages can be proof-read in seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class GalleryFigure(SphinxDirective):
    """A figure of an example; the content is its caption and its alternative text."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar[dict[str, object]] = {"number": directives.positive_int}

    def run(self) -> list[nodes.Node]:
        """Return the figure, with a link to the example in its caption."""
        family, _, name = self.arguments[0].rpartition("/")
        number = self.options.get("number", 1)
        image = f"auto_examples/{family}/images/sphx_glr_{name}_{number:03d}.png"
        caption = " ".join(self.content)
        text = f"{caption} (:ref:`code <sphx_glr_auto_examples_{family}_{name}.py>`)"
        inline, messages = self.state.inline_text(text, self.lineno)
        figure = nodes.figure(align="center")
        if (Path(self.env.srcdir) / image).is_file():
            figure += nodes.image(uri=f"/{image}", alt=caption)
        figure += nodes.caption("", "", *inline)
        return [figure, *messages]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("gallery-figure", GalleryFigure)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
