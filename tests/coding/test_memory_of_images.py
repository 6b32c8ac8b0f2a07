"""Learning from many images takes no more memory than from few."""

import json
import sys

import numpy as np
import pytest

import sklebm.coding._kernel_learner as kernel_learner
import sklebm.coding._kernels as kernels
from sklebm import ConvSparseCoder
from tests.coding.test_conv_sparse_coder import make_planted
from tests.subprocesses import ALLOCATOR, run_python

SIDE, FEW, MANY = 48, 3, 19

MEASURE = """
import json, re, sys
import numpy as np, sklearn, torch
from sklebm import (
    ConvPredictiveSparseDecomposition, ConvSparseCoder, DeconvolutionalNetwork, DeepSparseCoder)

sklearn.set_config(working_memory=1)  # one image at a time
torch.set_num_threads(1)
side, *numbers = map(int, sys.argv[1:])
shared = {"image_shape": (side, side), "alpha": 2.0, "random_state": 0}
options = {"max_iter": 1, "code_tol": 0.5, "batch_size": 2, **shared}
models = {
    "one layer": ConvSparseCoder(16, kernel_size=5, low_pass=5.0, **options),
    "two layers": DeconvolutionalNetwork((16, 4), (5, 3), adaptive=False, **options),
    "two layers with switches": DeconvolutionalNetwork(
        (16, 4), (5, 3), max_inference_steps=3, **options),
    "two layers at once": DeepSparseCoder(
        (16, 4), kernel_sizes=(5, 3), n_inference_steps=3, inference="multilayer_fista",
        learning="joint", **options),
    "an encoder and one batch": ConvPredictiveSparseDecomposition(
        16, kernel_size=5, low_pass=5.0, batch_size=max(numbers), max_epochs=1, **shared),
}
X = np.random.default_rng(0).standard_normal((max(numbers), side**2)).astype(np.float32)

def status(field):
    return int(re.search(rf"{field}:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024

report = {}
for name, model in models.items():
    model.fit(X[:1])  # compiles
    report[name] = []
    for number in numbers:
        open("/proc/self/clear_refs", "w").write("5")  # the peak starts again at what is in use
        before = status("VmRSS")
        model.fit(X[:number])
        report[name].append(status("VmHWM") - before)
print(json.dumps(report))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self")
def test_the_peak_does_not_grow_with_the_number_of_images():
    """Codes in full of the images by which the fits differ would take 2.3 MiB in float32."""
    report = json.loads(run_python(MEASURE, SIDE, *[FEW, MANY] * 3, **ALLOCATOR))
    for name, peaks in report.items():
        # The images themselves were there before; what differs is up to the allocator, by up to
        # a MiB from fit to fit: the middle one of three.
        few, many = np.median(peaks[::2]), np.median(peaks[1::2])
        assert many <= few + 1.0, f"{name}: {few:.1f} and {many:.1f} MiB"


def test_codes_that_are_not_kept_change_nothing_but_the_search(monkeypatch):
    """Without room, every pass starts from zero, and ends at the same codes to their precision."""
    X, _ = make_planted(20)
    options = {"kernel_size": 4, "image_shape": (12, 12), "alpha": 0.15, "batch_size": 10,
               "max_iter": 4, "solver": "greedy", "code_tol": 1e-10, "random_state": 0}  # fmt: skip
    monkeypatch.setattr(kernels, "_LEARNING_GAP", 1e-10)
    monkeypatch.setattr(kernels, "_FIRST_GAP", 0.0)
    kept = ConvSparseCoder(4, **options).fit(X)
    for room in (0, 2000):
        monkeypatch.setattr(kernel_learner, "_KEPT_BYTES", room)
        bare = ConvSparseCoder(4, **options).fit(X)
        np.testing.assert_allclose(bare.energy_curve_, kept.energy_curve_, rtol=1e-6)
        np.testing.assert_allclose(bare.components_, kept.components_, atol=1e-4)
