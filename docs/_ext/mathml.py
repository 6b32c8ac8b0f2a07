"""Equations as MathML, written when the pages are built: no script, no network, no LaTeX.

docutils converts the TeX; browsers draw MathML themselves. TeX that docutils does not know is a
build warning at the place where it stands, and so an error under ``sphinx-build -W``.
"""

from __future__ import annotations

import html
import re

from docutils import nodes
from docutils.utils.math import MathError, unichar2tex
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.locale import _
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)


# Where the converter reads TeX otherwise than TeX does: an argument without braces is one digit
# (\frac12, x^10), and a starred operator is an operator.
TEX = [
    (r"(\\[dt]?frac)\s*(\d)", r"\1{\2}"),
    (r"(\\[dt]?frac\{[^{}]*\})\s*(\d)", r"\1{\2}"),
    (r"([_^])(\d)(?=\d)", r"\1{\2}"),
    (r"\\operatorname\*", r"\\operatorname"),
    (r"\\dots(?![a-z])", r"\\ldots"),
]

# Where browsers set MathML otherwise than TeX: a thin space around the names of functions
# ("b log p", but "log(p)"), none around ".", "/" and "|", and norm bars and braces of one size
# although the closing one carries an exponent; those of \left and \right, alone in a row, do
# stretch.
APPLY = "<mo>&ApplyFunction;</mo>"
MATHML = [
    (
        rf"(</(?:mi|mn|mfrac|msu[bp]|msubsup)>|[)\]]</mo>)(?=\s*<mi[^>]*>\w+</mi>\s*{APPLY})",
        r'\1<mspace width="0.167em"/>',
    ),
    (rf"{APPLY}(?!\s*(?:<mo[^>]*>[(\[{{]|</))", '<mo rspace="0.167em">&ApplyFunction;</mo>'),
    (r"<mo>(\w{2,})</mo>(?=\s*<mo[^>]*>[(\[{])", r'<mo lspace="0" rspace="0">\1</mo>'),
    (r'<mo movablelimits="true">(\w+)</mo>', r'<mo movablelimits="true" lspace="0">\1</mo>'),
    (r"<mo[^>]*>([‖{}])</mo>", r'<mo stretchy="false">\1</mo>'),
    (r'(<mrow>\s*<mo) stretchy="false"(>[‖{])', r"\1\2"),
    (r'<mo stretchy="false">([‖}]</mo>\s*</mrow>)', r"<mo>\1"),
    (r"<mo[^>]*>([./])</mo>", r'<mo lspace="0" rspace="0">\1</mo>'),
    (r'<mo stretchy="false">\|</mo>', '<mo stretchy="false" lspace="0" rspace="0">|</mo>'),
]


#: About how many signs fit into a line of a page beside its two columns of navigation.
LINE = 55


def n_signs(tex: str) -> int:
    """About how many signs of the size of a letter an equation takes."""
    tex = re.sub(
        r"\\(?:begin|end)\{\w+\}|\\(?:left|right|mathbb|mathcal|mathrm|text)(?![a-z])", "", tex
    )
    tex = re.sub(r"\\[dt]?frac", "", tex)
    tex = re.sub(r"\\(?=log|exp|min|max|cos)", "", tex)
    tex = re.sub(r"\\[A-Za-z]+|\\.", "m", tex)
    return len(re.sub(r"[{}_^&\s]", "", tex))


def broken(tex: str) -> list[str]:
    """The lines of a displayed equation: one that is too long ends where a wide space is."""
    if n_signs(tex) <= LINE or r"\\" in tex or "&" in tex:
        return [tex]
    lines: list[str] = []
    for part in re.split(r"\s*\\qquad\s*", tex):
        joined = rf"{lines[-1]} \qquad {part}" if lines else part
        if lines and n_signs(joined) <= LINE:
            lines[-1] = joined
        else:
            lines.append(part)
    # A wide space inside of braces or between paired delimiters is no place to end a line.
    pairs = (("{", "}"), (r"\left", r"\right"))
    whole = all(line.count(a) == line.count(b) for line in lines for a, b in pairs)
    return lines if whole else [tex]


def to_mathml(node: nodes.math | nodes.math_block, *, as_block: bool) -> str:
    """Convert the TeX of a node; blank lines separate the lines of a displayed equation."""
    lines = [line.strip() for line in re.split(r"\n\s*\n", node.astext()) if line.strip()]
    if as_block:
        lines = [part for line in lines for part in broken(line)]
    source = tex = r" \\ ".join(lines)
    for pattern, replacement in TEX:
        tex = re.sub(pattern, replacement, tex)
    try:
        mathml = tex2mathml(tex.translate(unichar2tex.uni2tex_table), as_block=as_block)
    except MathError as error:
        logger.warning("TeX not understood: %s\n%s", error, source, location=node, type="mathml")
        return f"<code>{html.escape(source)}</code>"
    for pattern, replacement in MATHML:
        mathml = re.sub(pattern, replacement, mathml)
    return mathml.replace("<math", f'<math alttext="{html.escape(source)}"', 1)


def visit_inline(writer: HTML5Translator, node: nodes.math) -> None:
    """Write an equation within a line."""
    writer.body.append(to_mathml(node, as_block=False))
    raise nodes.SkipNode


def visit_block(writer: HTML5Translator, node: nodes.math_block) -> None:
    """Write a displayed equation, with its number if it has one."""
    writer.body.append(writer.starttag(node, "div", CLASS="math notranslate nohighlight"))
    if node["number"]:
        writer.body.append(f'<span class="eqno">({get_node_equation_number(writer, node)})')
        writer.add_permalink_ref(node, _("Link to this equation"))
        writer.body.append("</span>")
    writer.body.append(to_mathml(node, as_block=True))
    writer.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer; ``html_math_renderer = "mathml"`` selects it."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
