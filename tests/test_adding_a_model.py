"""The model of the tutorial is a model: the common checks, its equation, the rest of the shell."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklebm import EnergyOutlierDetector, PCAWhitener
from tests.subprocesses import ROOT

SOURCE = ROOT / "docs" / "laplace_energy.py"
sys.path.append(str(SOURCE.parent))

from laplace_energy import LaplaceEnergy  # noqa: E402


@pytest.fixture
def X():
    return np.random.default_rng(0).laplace([0.0, 5.0, -1.0], [1.0, 3.0, 0.2], (800, 3))


def test_the_density_is_that_of_laplace_variables(X):
    model = LaplaceEnergy().fit(X[:400])
    truth = scipy.stats.laplace.logpdf(X, model.location_, model.scale_).sum(axis=1)
    np.testing.assert_allclose(model.score_samples(X), truth, rtol=1e-12)


def test_no_other_parameters_are_more_likely(X):
    model = LaplaceEnergy().fit(X)
    best = model.score(X)
    for attribute in ("location_", "scale_"):
        for factor in (0.99, 1.01):
            moved = LaplaceEnergy().fit(X)
            setattr(moved, attribute, factor * getattr(model, attribute))
            assert moved.score(X) < best


def test_the_shell_gives_the_rest(X):
    search = GridSearchCV(LaplaceEnergy(), {"min_scale": [1e-6, 10.0]}).fit(X)
    assert search.best_params_ == {"min_scale": 1e-6}
    detector = EnergyOutlierDetector(make_pipeline(PCAWhitener(), LaplaceEnergy())).fit(X)
    assert detector.predict([[0.0, 5.0, -1.0], [0.0, 500.0, -1.0]]).tolist() == [1, -1]
    with pytest.raises(ValueError, match="min_scale"):
        LaplaceEnergy(min_scale=0.0).fit(X)


def test_the_page_shows_this_code_and_keeps_its_promise():
    page = (ROOT / "docs" / "adding_a_model.rst").read_text()
    assert f".. literalinclude:: {SOURCE.name}" in page
    assert len(SOURCE.read_text().splitlines()) <= 90


# ---------------------------------------------------------------- what a new model touches

COPIED = ("sklebm", "tests", "docs", "examples", "benchmarks")
FILES = (
    "README.md",
    "CITATION.cff",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Makefile",
    "pyproject.toml",
    "setup.cfg",
)

ENTRY = """
    "LaplaceEnergy": Entry(
        independent=True,
        free_energy=lambda model, X: (
            np.abs((np.asarray(X, np.float64) - model.location_) / model.scale_).sum(axis=1)
        ),
    ),
"""
TEST = '''"""The density of the tutorial's model."""

import numpy as np
import scipy.stats

from sklebm import LaplaceEnergy


def test_density():
    X = np.random.default_rng(0).laplace(size=(50, 3))
    model = LaplaceEnergy().fit(X)
    truth = scipy.stats.laplace.logpdf(X, model.location_, model.scale_).sum(axis=1)
    np.testing.assert_allclose(model.score_samples(X), truth, rtol=1e-12)
'''
PAGE = """==============
Laplace energy
==============

:class:`~sklebm.LaplaceEnergy` takes features to be independent, with heavy tails.
"""
EXAMPLE = '''"""
Heavy tails
===========

The density of ``LaplaceEnergy`` along one feature.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklebm import LaplaceEnergy

X = np.random.default_rng(0).laplace(size=(500, 1))
grid = np.linspace(-5, 5, 101)[:, None]
plt.plot(grid, LaplaceEnergy().fit(X).score_samples(grid))
plt.show()
'''


def add_the_model(root):
    """Touch the six things, and no other; their paths."""
    source = SOURCE.read_text().replace(
        "from sklearn.utils._param_validation import Interval",
        "from sklebm._shell.private import Interval",
    )
    written = {
        "sklebm/linear/laplace_energy.py": source,
        "tests/linear/test_laplace_energy.py": TEST,
        "docs/estimators/laplace_energy.rst": PAGE,
        "examples/linear/plot_laplace_energy.py": EXAMPLE,
    }
    for name, text in written.items():
        (root / name).write_text(text, encoding="utf-8")
    table, registry = root / "sklebm" / "__init__.py", root / "tests" / "entries" / "linear.py"
    line, entries = '    "LikelihoodRatioScorer": "sklebm', "ENTRIES: dict[str, Entry] = {\n"
    new = '    "LaplaceEnergy": "sklebm.linear",\n'
    for path, mark, added in ((table, line, new + line), (registry, entries, entries + ENTRY)):
        text = path.read_text(encoding="utf-8")
        assert text.count(mark) == 1
        path.write_text(text.replace(mark, added), encoding="utf-8")
    return {*written, "sklebm/__init__.py", "tests/entries/linear.py"}


def snapshot(root):
    """The text of every file that an author could touch."""
    paths = [path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def test_a_model_is_added_by_touching_six_things(tmp_path):
    """The rest follows from them: ``make generated`` writes it, and all checks agree."""
    for name in COPIED:
        ignore = shutil.ignore_patterns("__pycache__", "_build", "auto_examples", "generated")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path / name)
    before = snapshot(tmp_path)
    touched = add_the_model(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]

    run("-c", "from tests import generated; generated.write_imports_and_readme()")
    after = snapshot(tmp_path)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed - {"README.md", "sklebm/linear/__init__.py"} == touched
    checks = ("test_layout", "test_sklearn", "test_contract", "test_static")
    files = [f"tests/{name}.py" for name in checks]
    # What is asked of all modules at once, and of this model.
    asked = [
        "LaplaceEnergy",
        "laplace",
        "nothing_forbidden",
        "every_draw",
        "modules_can",
        "modules_say",
    ]
    asked += ["imports_upwards", "private_parts"]
    chosen = " or ".join(asked)
    quick = ("-p", "no:cacheprovider", "-p", "no:xdist", "-q", "-k", chosen)
    run("-m", "pytest", *quick, *files, "tests/linear/test_laplace_energy.py", "sklebm/linear")
