"""Row-wise methods stream: many rows need no more memory than the answer and the chunks."""

import json
import sys

import pytest

from tests.registry import NAMES
from tests.sampling import FULL, sample
from tests.subprocesses import ALLOCATOR, run_python

N_ROWS, WORKING_MEMORY = 160_000, 8  # MiB
# What one chunk may take beyond its budget: its own float32 rows, and the previous chunk's answer.
OVERHEAD = 24  # MiB

MEASURE = """
import json, re, sys, warnings
import numpy as np, sklearn, torch
from sklebm.inference import deconvolution
from tests.registry import N_FEATURES, make_brief, make_rows, row_methods

sklearn.set_config(working_memory=int(sys.argv[2]))
torch.set_num_threads(1)
deconvolution._DENSE = 0  # the matrix of each row takes as little memory, and a millisecond
names = sys.argv[3:]

def status(field):
    return int(re.search(rf"{field}:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024

def peak_of(function, X):
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts again at what is in use now
    before = status("VmRSS")
    answer = function(X)
    return status("VmHWM") - before, answer.nbytes / 2**20

X = np.empty((int(sys.argv[1]), 64), dtype=np.float32)
generator = np.random.default_rng(0)
for part in np.array_split(X, 50):
    generator.random(out=part, dtype=np.float32)

report = {}
for name in names:
    model = make_brief(name)
    if "fold_in_iter" in model.get_params():  # a chunk takes the same memory in every iteration
        model.set_params(fold_in_iter=5)
    if "max_inference_steps" in model.get_params():
        model.set_params(max_inference_steps=1)
    model.fit(X[:2000])
    for method in row_methods(model):
        function = getattr(model, method)
        function(X[:2000])  # lazy imports, and buffers that libraries keep
        report[f"{name}.{method}"] = peak_of(function, X)
print(json.dumps(report))
"""


# Minutes, which only the full tables have: descents, hundreds of draws, several models or layers.
SLOW = {"DeconvolutionalNetwork", "EnergyOutlierDetector", "GAN", "LikelihoodRegretScorer", "VAE"}
SLOW = set() if FULL else SLOW
QUICK = [name for name in NAMES if name not in SLOW]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self")
@pytest.mark.parametrize("names", [[name] for name in QUICK] if FULL else [None])
def test_many_rows_stay_within_working_memory(names):
    names = names or sample(QUICK, 3, "memory")
    report = json.loads(run_python(MEASURE, N_ROWS, WORKING_MEMORY, *names, **ALLOCATOR))
    assert report
    for what, (grown, answer) in report.items():
        # X itself, 39 MiB, was there before: a copy of it would show.
        assert grown <= answer + WORKING_MEMORY + OVERHEAD, f"{what}: {grown:.0f} MiB"
