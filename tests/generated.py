"""Parts of files that follow from the code: written by ``make generated``, held to it by tests.

The table of estimators in README.md is made of the first lines of their docstrings, and
``expected_messages.txt`` of what they say. Nothing here names an estimator.
"""

from __future__ import annotations

import inspect
import re
import warnings
from typing import Any

import sklebm
from tests.subprocesses import ROOT

README = ROOT / "README.md"
BEGIN, END = "<!-- written by `make generated` -->\n", "<!-- end -->\n"
HEAD = "| estimator | is | `transform` gives | `score_samples` gives |\n|---|---|---|---|\n"


def first_line(thing: Any) -> str:
    """The summary of a docstring, for Markdown, without its full stop and "Return"."""
    text = (inspect.getdoc(thing) or "").partition("\n\n")[0]
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text.replace("``", "`"))
    text = re.sub(r":math:`(.*?)`", r"$\1$", " ".join(text.split()))
    return text.removesuffix(".").removeprefix("Return ").replace("|", "\\|")


def estimator_table() -> str:
    """Families in their order, estimators in that of their family's module."""
    rows = []
    for family in dict.fromkeys(sklebm.ESTIMATORS.values()):
        for name in sorted(n for n, home in sklebm.ESTIMATORS.items() if home == family):
            kind = getattr(sklebm, name)
            cells = [first_line(kind)]
            for method in ("transform", "score_samples"):
                cells.append(first_line(getattr(kind, method)) if hasattr(kind, method) else "–")
            rows.append(f"| `{name}` | {' | '.join(cells)} |\n")
    return HEAD + "".join(rows)


def readme() -> str:
    """README.md with the table as it should be."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    return before + BEGIN + estimator_table() + END + rest.partition(END)[2]


def main() -> None:
    """Write all of them."""
    from tests import test_messages

    README.write_text(readme(), encoding="utf-8")
    warnings.simplefilter("ignore")
    test_messages.FILE.write_text(test_messages.render())


if __name__ == "__main__":
    main()
