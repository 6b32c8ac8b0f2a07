"""Many fits at once: a search over worker processes finds what one process finds."""

import contextlib
import io
import os
import socket
import subprocess
import sys

import joblib
import numpy as np
import pytest
import rich.console
import rich.progress
from sklearn.callback import ProgressBar
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from sklebm.callbacks import EnergyMonitor
from tests.registry import fitted_state, freeze, make, make_rows
from tests.sampling import FULL
from tests.subprocesses import ROOT

N_EPOCHS = 3
N_FITS = 2 * 2 + 1  # two candidates on two splits, and the refit
GRID = {"bernoullirbm__learning_rate": [0.01, 0.1]}


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes of dask on the loopback interface."""
    distributed = pytest.importorskip(
        "distributed", reason="needs dask's scheduler: pip install sklebm[dask]"
    )
    settings = {"n_workers": 2, "threads_per_worker": 1, "processes": True}
    with (
        distributed.LocalCluster(**settings, host="127.0.0.1", dashboard_address=None) as workers,
        distributed.Client(workers) as client,
    ):
        yield client


def search(n_jobs=None, callbacks=(), monitor=None):
    machine = make("BernoulliRBM", max_epochs=N_EPOCHS)
    if monitor is not None:
        machine.set_callbacks(monitor)
    found = GridSearchCV(make_pipeline(MinMaxScaler(), machine), GRID, cv=2, n_jobs=n_jobs)
    return found.set_callbacks(*callbacks) if callbacks else found


def check_equal(found, expected):
    for key in ("mean_test_score", "split0_test_score", "split1_test_score"):
        np.testing.assert_allclose(found.cv_results_[key], expected.cv_results_[key], rtol=1e-6)
    assert found.best_params_ == expected.best_params_
    ours, theirs = (fitted_state(s.best_estimator_[-1]) for s in (found, expected))
    assert freeze(ours) == freeze(theirs)


def test_workers_of_dask_find_what_one_process_finds(cluster, monkeypatch):
    """The bars of the caller hear of every fit in the two other processes."""
    pids = set(cluster.run(os.getpid).values())
    assert len(pids | {os.getpid()}) == 3
    screen = io.StringIO()
    monkeypatch.setattr(
        rich.progress, "get_console", lambda: rich.console.Console(file=screen, width=120)
    )
    found = search(callbacks=[ProgressBar(max_propagation_depth=None)])
    with joblib.parallel_config("dask", wait_for_workers_timeout=60):
        found.fit(make_rows())
    check_equal(found, search().fit(make_rows()))
    assert screen.getvalue().count("BernoulliRBM") >= N_FITS


def test_workers_score_a_dask_array(cluster):
    array = pytest.importorskip("dask.array", reason="needs dask: pip install sklebm[dask]")
    X = make_rows(400)
    model = make("BernoulliRBM").fit(X)
    scores = model.score_samples(array.from_array(X, chunks=(100, -1)))
    np.testing.assert_allclose(scores.compute(), model.score_samples(X), rtol=1e-10)


def check_reports(monitor):
    rows = [row for log in monitor.get_logs(select="all") for row in log.data]
    assert len(rows) == N_EPOCHS * N_FITS
    assert np.isfinite([row["score"] for row in rows]).all()


def test_workers_of_loky_report_to_a_monitor():
    monitor = EnergyMonitor(make_rows(50, seed=1))
    found = search(n_jobs=2, monitor=monitor).fit(make_rows())
    check_equal(found, search().fit(make_rows()))
    check_reports(monitor)


@pytest.fixture
def scheduler():
    """Address of a scheduler with two workers, all in processes of their own."""
    pytest.importorskip("distributed", reason="needs dask's scheduler: pip install sklebm[dask]")
    address = f"tcp://127.0.0.1:{free_port()}"
    options = {
        "scheduler": ["--host", address, "--no-dashboard"],
        "worker": [address, "--nworkers", "2", "--nthreads", "1", "--no-dashboard"],
    }
    with contextlib.ExitStack() as stack:
        for part, arguments in options.items():
            command = [sys.executable, "-m", f"distributed.cli.dask_{part}", *arguments]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            process = stack.enter_context(subprocess.Popen(command, **quiet, cwd=ROOT))
            stack.callback(process.terminate)
        yield address


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.skipif(not FULL, reason="starts three processes: set SKLEBM_TEST_FULL=1")
def test_workers_of_a_separate_scheduler_report_to_a_monitor(scheduler):
    from distributed import Client

    monitor = EnergyMonitor(make_rows(50, seed=1))
    with Client(scheduler, timeout=60) as client:
        client.wait_for_workers(2, timeout=60)
        with joblib.parallel_config("dask"):
            search(monitor=monitor).fit(make_rows())
    check_reports(monitor)
