"""Faults around the library: worker processes that die, packages that are missing."""

import os
import signal

import numpy as np
import pytest
from joblib.externals.loky.process_executor import TerminatedWorkerError
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV

from sklebm import PCAWhitener
from tests.registry import fitted_state, make_rows
from tests.subprocesses import run_python


class Mortal(PCAWhitener):
    """Its process is killed when it fits with one value of a parameter, as by a lack of memory."""

    def _fit(self, rows, progress, **data):
        if self.ridge == 1.0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._fit(rows, progress, **data)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.filterwarnings("ignore:A worker stopped while some jobs:UserWarning")
def test_a_killed_worker_ends_the_search_and_not_the_next_one():
    """No search can tell what a dead worker would have found: it is an error, not a score."""
    model = Mortal()
    search = GridSearchCV(model, {"ridge": [0.1, 1.0]}, cv=2, n_jobs=2, error_score=np.nan)
    with pytest.raises(TerminatedWorkerError):
        search.fit(make_rows())
    assert not hasattr(search, "best_estimator_")
    assert not fitted_state(model)
    search.set_params(param_grid={"ridge": [0.1, 0.2]}).fit(make_rows())
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.filterwarnings("ignore:One or more of the test scores:UserWarning")
def test_a_failed_fit_in_a_search_is_an_error_score():
    search = GridSearchCV(PCAWhitener(), {"ridge": [0.1, -1.0]}, cv=2)
    with pytest.warns(FitFailedWarning, match="2 fits failed"):
        search.fit(make_rows())
    assert np.isfinite(search.cv_results_["mean_test_score"]).tolist() == [True, False]
    assert search.best_params_ == {"ridge": 0.1}


WITHOUT = """
import importlib.abc, sys

missing = ("matplotlib", "rich")

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import numpy as np
import sklearn.callback
import sklebm.plotting

model, rows = sklebm.PCAWhitener().fit(np.eye(4)), np.eye(4)
calls = [
    lambda: sklebm.plotting.ComponentsDisplay.from_estimator(model, image_shape=(2, 2)),
    lambda: sklebm.plotting.EnergyHistogramDisplay.from_estimator(model, {"rows": rows}),
    lambda: model.set_callbacks(sklearn.callback.ProgressBar()).fit(rows),
]
for call in calls:
    try:
        call()
    except ImportError as error:
        print(str(error).replace(chr(10), " "))
sklebm.BernoulliRBM(2, max_epochs=3, validation_fraction=0.5, verbose=1).fit(rows)
"""


def test_missing_packages_are_named_with_the_command_that_installs_them():
    components, histogram, progress, header, _, *epochs = run_python(WITHOUT).splitlines()
    for text in (components, histogram):
        assert "pip install sklebm[plot]" in text
    assert "rich" in progress
    # Progress in plain text needs none of them: monitors, objective, held-out score, seconds.
    assert header.split() == ["epoch", "free_energy_gap", "train_loss", "valid_score", "dur"]
    assert [line.split()[0] for line in epochs if line] == ["1", "2", "3"]
