"""Every example of the gallery runs to its end and draws a figure, here on small sizes.

Examples are written for their readers, so the fast run asks nothing of them: it parses each one
and caps the whole numbers that an argument, a dictionary or an assignment gives under the names of
``CAPS``. Claims about results (``assert``) belong to the sizes that are printed, so that they are
left out where a size was capped; ``make docs`` checks them, and so does ``SKLEBM_TEST_FULL=1``.
"""

import ast
import warnings

import matplotlib.pyplot as plt
import pytest
from sklearn.exceptions import ConvergenceWarning

from tests.sampling import FULL
from tests.subprocesses import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*/plot_*.py"))

CAPS = {
    "CROP": 64,
    "max_epochs": 2,
    "max_iter": 3,
    "max_patches": 2500,
    "n_importance_samples": 2,
    "n_init": 1,
    "n_samples": 500,
    "n_steps": 10,
    "passes": 1,
}


class _Capped(ast.NodeTransformer):
    """Caps sizes, and counts how many it changed."""

    def __init__(self):
        self.changed = 0

    def _cap(self, name, value):
        cap = CAPS.get(name)
        size = value.value if isinstance(value, ast.Constant) else None
        if cap is None or type(size) is not int or size <= cap:
            return value
        self.changed += 1
        return ast.copy_location(ast.Constant(cap), value)

    def visit_Assign(self, node):
        self.generic_visit(node)
        if isinstance(node.targets[0], ast.Name):
            node.value = self._cap(node.targets[0].id, node.value)
        return node

    def visit_keyword(self, node):
        self.generic_visit(node)
        node.value = self._cap(node.arg, node.value)
        return node

    def visit_Dict(self, node):
        self.generic_visit(node)
        for i, (key, value) in enumerate(zip(node.keys, node.values, strict=True)):
            if isinstance(key, ast.Constant):
                node.values[i] = self._cap(key.value, value)
        return node

    def visit_arguments(self, node):
        """Defaults of the example's own functions."""
        self.generic_visit(node)
        names = [argument.arg for argument in [*node.posonlyargs, *node.args]]
        for i, name in enumerate(names[len(names) - len(node.defaults) :]):
            node.defaults[i] = self._cap(name, node.defaults[i])
        return node


def compiled(source, filename, full):
    """The code of an example, and whether its sizes were capped."""
    tree = ast.parse(source, filename)
    capped = _Capped()
    if not full:
        tree = capped.visit(tree)
    # optimize=1 leaves out the asserts of this code only, not those of what it imports
    return compile(tree, filename, "exec", optimize=1 if capped.changed else 0), capped.changed


def drawn():
    """Whether there is a figure with data in it; raises what drawing raises."""
    figures = [plt.figure(number) for number in plt.get_fignums()]
    for figure in figures:
        figure.canvas.draw()
    return any(axes.has_data() for figure in figures for axes in figure.axes)


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


@pytest.mark.table(16)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_draws(path):
    code, _ = compiled(path.read_text(encoding="utf-8"), str(path), FULL)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)  # two epochs are two epochs
        exec(code, {"__name__": "__main__", "__file__": str(path)})  # noqa: S102
    assert drawn(), f"{path.name} draws nothing"


def test_the_gallery_is_found():
    assert len(EXAMPLES) > 20


def test_sizes_are_capped_and_claims_about_them_left_out():
    source = (
        "def f(max_epochs=70): return max_epochs\n"
        "small = dict(max_epochs=1, n_clusters=400)\n"
        "large = {'max_epochs': 40} | dict(max_patches=10_000, n_init='auto')\n"
        "default = f()\n"
        "n_steps = 500\n"
        "assert False"
    )
    code, changed = compiled(source, "example", full=False)
    values = {}
    exec(code, values)  # noqa: S102
    assert changed == 4
    assert values["small"] == {"max_epochs": 1, "n_clusters": 400}
    assert values["large"] == {"max_epochs": 2, "max_patches": 2500, "n_init": "auto"}
    assert values["default"] == 2
    assert values["n_steps"] == 10


@pytest.mark.parametrize(("source", "full"), [("assert False", False), ("f(n_init=9)", True)])
def test_nothing_is_left_out_where_nothing_is_capped(source, full):
    code, changed = compiled(f"f = dict\n{source}\nassert False", "example", full)
    assert not changed
    with pytest.raises(AssertionError):
        exec(code, {})  # noqa: S102


@pytest.mark.parametrize("source", ["1 / 0", "from sklebm import NoSuchModel"])
def test_an_example_that_fails_is_noticed(source):
    code, _ = compiled(source, "example", full=False)
    with pytest.raises((ZeroDivisionError, ImportError)):
        exec(code, {})  # noqa: S102


def test_an_example_that_draws_nothing_is_noticed():
    assert not drawn()
    _, axis = plt.subplots()
    assert not drawn()
    axis.plot([1, 2])
    assert drawn()
