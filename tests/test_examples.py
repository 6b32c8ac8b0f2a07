"""Every example of the gallery runs to its end and draws a figure, here on small sizes.

Examples are written for their readers, so the fast run asks nothing of them: it parses each one
and caps the whole numbers that an argument, a dictionary or an assignment gives under the names of
``CAPS``. Claims about results (``assert``) belong to the sizes that are printed, so that they are
left out where a size was capped; ``make docs`` checks them, and so does ``SKLEBM_TEST_FULL=1``.
"""

import ast
import bisect
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
    """The code of each block of an example, and how many of its sizes were capped."""
    tree = ast.parse(source, filename)
    capped = _Capped()
    if not full:
        tree = capped.visit(tree)
    starts = [n for n, line in enumerate(source.splitlines(), 1) if line.startswith("# %%")]
    blocks = [ast.Module([], []) for _ in range(len(starts) + 1)]
    for statement in tree.body:
        blocks[bisect.bisect(starts, statement.lineno)].body.append(statement)
    # optimize=1 leaves out the asserts of this code only, not those of what it imports
    optimize = 1 if capped.changed else 0
    return [compile(b, filename, "exec", optimize=optimize) for b in blocks], capped.changed


def run(blocks, **names):
    """Run the blocks as the gallery does: what a block has drawn is kept and closed at its end.

    Gives the names that the blocks have made, and the number of figures.
    """
    n_figures = 0
    for block in blocks:
        exec(block, names)  # noqa: S102
        for number in plt.get_fignums():
            figure = plt.figure(number)
            figure.canvas.draw()  # raises what drawing raises
            empty = [a for a in figure.axes if a.axison and not a.has_data() and not a.texts]
            assert not empty, f"{len(empty)} of {len(figure.axes)} panels are empty"
            n_figures += bool(figure.axes)
        plt.close("all")
    return names, n_figures


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


@pytest.mark.table(10)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_draws(path):
    blocks, _ = compiled(path.read_text(encoding="utf-8"), str(path), FULL)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)  # two epochs are two epochs
        _, n_figures = run(blocks, __name__="__main__", __file__=str(path))
    assert n_figures, f"{path.name} draws nothing"


def test_a_figure_that_a_later_block_completes_is_found():
    source = "import matplotlib.pyplot as plt\n_, (a, b) = plt.subplots(1, 2)\na.plot([1, 2])\n"
    _, n_figures = run(compiled(source + "b.plot([1, 2])", "example", False)[0])
    assert n_figures == 1
    with pytest.raises(AssertionError, match="1 of 2 panels are empty"):
        run(compiled(source + "# %%\nb.plot([1, 2])", "example", False)[0])


def test_the_gallery_is_found():
    assert len(EXAMPLES) > 20


def test_file_names_differ_between_folders():
    """The gallery links by the name alone."""
    names = [path.name for path in EXAMPLES]
    assert sorted(names) == sorted(set(names))


def test_titles_are_those_of_restructured_text():
    for path in EXAMPLES:
        lines = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).splitlines()[:3]
        around = [line for line in lines if set(line) == {"="}]
        title = next(line for line in lines if line not in around)
        assert around, f"{path.name}: no line below the title"
        assert len(min(around, key=len)) >= len(title), f"{path.name}: shorter than {title!r}"


def test_sizes_are_capped_and_claims_about_them_left_out():
    source = (
        "def f(max_epochs=70): return max_epochs\n"
        "small = dict(max_epochs=1, n_clusters=400)\n"
        "large = {'max_epochs': 40} | dict(max_patches=10_000, n_init='auto')\n"
        "default = f()\n"
        "n_steps = 500\n"
        "assert False"
    )
    blocks, changed = compiled(source, "example", full=False)
    values, _ = run(blocks)
    assert changed == 4
    assert values["small"] == {"max_epochs": 1, "n_clusters": 400}
    assert values["large"] == {"max_epochs": 2, "max_patches": 2500, "n_init": "auto"}
    assert values["default"] == 2
    assert values["n_steps"] == 10


@pytest.mark.parametrize(("source", "full"), [("assert False", False), ("f(n_init=9)", True)])
def test_nothing_is_left_out_where_nothing_is_capped(source, full):
    blocks, changed = compiled(f"f = dict\n{source}\nassert False", "example", full)
    assert not changed
    with pytest.raises(AssertionError):
        run(blocks)


@pytest.mark.parametrize("source", ["1 / 0", "from sklebm import NoSuchModel"])
def test_an_example_that_fails_is_noticed(source):
    blocks, _ = compiled(source, "example", full=False)
    with pytest.raises((ZeroDivisionError, ImportError)):
        run(blocks)


def test_an_example_that_draws_nothing_is_noticed():
    source = "import matplotlib.pyplot as plt\nfigure = plt.figure()\n"
    assert run(compiled(source, "example", False)[0])[1] == 0
    with pytest.raises(AssertionError, match="1 of 1 panels are empty"):
        run(compiled(source + "figure.add_subplot()", "example", False)[0])
