"""Options, fixtures and profiles for the whole suite.

``--device`` and ``--dtype`` choose where and in what precision the device tests run.
``SKLEBM_TEST_FULL=1`` runs every case of the tables over all estimators, of which other runs take
a sample; see ``tests.sampling``.
"""

import os
import sys

# SciPy reads this once, when it is imported: without it scikit-learn skips its array API checks.
if "scipy" in sys.modules and not os.environ.get("SCIPY_ARRAY_API"):
    raise RuntimeError(
        "SCIPY_ARRAY_API=1 must be set before SciPy is imported: run `make test`, or "
        "`SCIPY_ARRAY_API=1 python -m pytest`."
    )
os.environ.setdefault("SCIPY_ARRAY_API", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from tests import sampling
from tests.sampling import FULL

# Rounding depends on the number of threads: with one, a failure here is a failure there. The rows
# of the tests are few, and more threads would only wait for each other.
torch.set_num_threads(1)

# Examples follow the seed of the run (pytest_configure, below), not the text of the test, for which
# every run would repeat the same few, nor files of earlier runs. How long one takes is no fault.
hypothesis.settings.register_profile(
    "sklebm",
    max_examples=60 if FULL else 12,
    derandomize=False,
    database=None,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("sklebm")


def pytest_addoption(parser):
    group = parser.getgroup("sklebm")
    group.addoption("--device", default="cpu", help="torch device of the device tests")
    group.addoption(
        "--dtype", default="float64", choices=["float64", "float32"], help="precision of their data"
    )


def pytest_report_header():
    return sampling.describe()


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(sampling.describe())


def pytest_collection_modifyitems(items):
    """Whatever asks for a device is a device test, which `make test-gpu` selects."""
    for item in items:
        if "device" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.gpu)


class Thinning:
    """Comes after the choice by ``-k`` and ``-m``."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config, items):
        from tests.registry import ALL_NAMES

        items[:], left_out = sampling.thin(items, ALL_NAMES)
        if left_out:
            config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(tryfirst=True)  # before hypothesis reads its option
def pytest_configure(config):
    config.pluginmanager.register(Thinning())
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(sampling.SEED)


@pytest.fixture(autouse=True)
def _anneal_briefly(request, monkeypatch):
    """Spend less on log Z of models of few rows, which took most of the time of tables.

    Tests of mathematics, and the whole tables (SKLEBM_TEST_FULL), anneal as a user does; so do
    tests that compare with fits in other processes, which this does not reach.
    """
    elsewhere = request.node.get_closest_marker("other_processes")
    if not FULL and request.path.parent in sampling.SHARED and not elsewhere:
        monkeypatch.setattr("sklebm.likelihood._SMALL_WORK", 1e6)


@pytest.fixture
def device(request):
    """The torch device chosen on the command line; skips where it does not exist."""
    chosen = torch.device(request.config.getoption("--device"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device: torch.cuda.is_available() is False")
    return chosen


@pytest.fixture
def dtype(request):
    """The floating-point dtype chosen on the command line."""
    return np.dtype(request.config.getoption("--dtype"))


@pytest.fixture
def set_threads():
    """``torch.set_num_threads``, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def data_dir():
    """The folder of external data sets; skips where it is not configured."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        pytest.skip("needs external data: SKLEBM_DATA is not set")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"SKLEBM_DATA={folder!r} is not a folder")
    return path


@pytest.fixture(scope="session")
def world():
    """Two processes that fit together; see ``tests.ranks``."""
    from tests.ranks import World

    processes = World()
    yield processes
    processes.close()
