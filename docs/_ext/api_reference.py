"""The API reference, generated from the package's own table of public names.

Writes ``api.rst`` before autosummary looks for its pages, so that no public name can be missing
from the documentation. Names that a public subpackage exports beside the estimators get a
section of their own.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

import sklebm

HEADER = """\
.. This page is written by docs/_ext/api_reference.py.

=============
API reference
=============

Estimators and functions are imported from the top level, ``from sklebm import NAME``, and equally
from their families. Methods that scikit-learn defines for every estimator (``fit_transform``,
``get_params``, ``set_params``, ``set_output``, ``set_callbacks``, metadata routing) are not
repeated on each page.
"""

SECTION = """
{home}
{underline}

.. automodule:: {home}
   :no-members:

.. currentmodule:: sklebm

.. autosummary::
   :toctree: generated/
   :nosignatures:

   {names}
"""


def render() -> str:
    """Return the source of the page: families of estimators first, then what they are made of."""
    flat = {**sklebm.FUNCTIONS, **sklebm.ESTIMATORS}
    modules = {
        f"sklebm.{name}" for name in sklebm.__all__ if isinstance(getattr(sklebm, name), ModuleType)
    }
    homes = modules.union(flat.values(), sklebm.PARTS.values())
    families = set(sklebm.ESTIMATORS.values())
    sections = [
        SECTION.format(home=home, underline="=" * len(home), names="\n   ".join(names))
        for home in sorted(homes, key=lambda home: (home not in families, home))
        if (names := names_in(home, flat))
    ]
    return "".join([HEADER, *sections])


def names_in(home: str, flat: dict[str, str]) -> list[str]:
    """Public names of a module, relative to ``sklebm``; those in ``flat`` are at its top level."""
    exported = set(getattr(importlib.import_module(home), "__all__", []))
    parts = {name for name, module in sklebm.PARTS.items() if module == home}
    own = sorted((exported | parts) - set(flat))
    top = sorted(name for name, module in flat.items() if module == home)
    return top + [f"{home}.{name}".removeprefix("sklebm.") for name in own]


def write_page(app: Sphinx, config: Config) -> None:
    """Write the page, if it changed, so that an unchanged one is not read again."""
    page, text = Path(app.confdir, "api.rst"), render()
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")


def skip_foreign(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool:
    """Leave methods that scikit-learn defines to scikit-learn's documentation."""
    home = getattr(obj, "__module__", None) or getattr(
        getattr(obj, "fget", None), "__module__", None
    )
    return skip or (what == "class" and isinstance(home, str) and not home.startswith("sklebm"))


def skip_unavailable(
    app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out methods that a class never has; those that its parameters decide about stay."""
    home = getattr(sklebm, app.env.docname.rpartition(".")[2], None)
    condition = getattr(inspect.getattr_static(home, name, None), "check", None)
    if what != "class" or not isinstance(home, type) or condition is None:
        return None
    try:
        return None if condition(home) else True
    except (AttributeError, TypeError):  # it asks for a parameter, or calls a method
        return None


def escape_fitted_names(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Show ``beta_`` in prose and shapes as it is written: reStructuredText sees a reference."""
    for number, paragraph in enumerate("\n".join(lines).split("\n\n")):
        if number == 0:
            lines.clear()
        if not paragraph.lstrip().startswith(">>>"):
            parts = re.split(r"(`+[^`]+`+)", paragraph)  # literals and roles stand at odd places
            parts[::2] = [re.sub(r"(\w)_(?=[\s,.;:)]|$)", r"\1\_", text) for text in parts[::2]]
            paragraph = "".join(parts)
        lines += [*paragraph.split("\n"), ""]


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the generator and the filters."""
    app.setup_extension("numpydoc")  # writes the docstrings that the last filter sees
    app.connect("config-inited", write_page)
    app.connect("autodoc-skip-member", skip_unavailable, priority=400)  # the first answer counts
    app.connect("autodoc-skip-member", skip_foreign)
    app.connect("autodoc-process-docstring", escape_fitted_names, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
