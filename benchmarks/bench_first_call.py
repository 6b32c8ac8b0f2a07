"""Seconds of import and of the first fit of a process, with and without compiled kernels at hand.

Every row is a fresh interpreter: the seconds to import the class, of the first fit, and of a second
one of the same rows. Without a cache numba compiles in the first fit; the process after it loads
the machine code that was kept. Processes with and without a cache take turns.

    python benchmarks/bench_first_call.py [--repeats 5]

Fewer than five repeats save nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from _common import save_results

MODELS = {
    "SparseCoder": "SparseCoder(16, max_iter=2, random_state=0)",
    "EnergyKMeans": "EnergyKMeans(64, random_state=0)",
    "BernoulliRBM": "BernoulliRBM(16, max_epochs=2, log_partition=None, random_state=0)",
    "LatentDirichletAllocation": "LatentDirichletAllocation(4, max_iter=2, random_state=0)",
}
PROGRAM = """
import json, time, warnings
import numpy as np
import sklearn.base
warnings.simplefilter("ignore")
X = np.random.default_rng(0).integers(0, 2, (5000, 32)).astype(np.float32)
times = [time.perf_counter()]
from sklebm import {name}
times.append(time.perf_counter())
{model}.fit(X)
times.append(time.perf_counter())
{model}.fit(X)
times.append(time.perf_counter())
print(json.dumps([b - a for a, b in zip(times, times[1:])]))
"""


def seconds(name: str, model: str, cache: str) -> list[float]:
    """Seconds of import, first and second fit in a process with this folder of machine code."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(name=name, model=model)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure every model, empty folder and full one in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for name, model in MODELS.items():
        found: dict[str, list[list[float]]] = {"compiled": [], "kept": []}
        for _ in range(options.repeats):
            with tempfile.TemporaryDirectory() as folder:
                cache = str(Path(folder) / "kernels")
                found["compiled"].append(seconds(name, model, cache))
                found["kept"].append(seconds(name, model, cache))
        for kernels, runs in found.items():
            medians = [round(statistics.median(column), 3) for column in zip(*runs, strict=True)]
            rows.append([name, kernels, *medians])
            print(*rows[-1], sep="\t", flush=True)
    if options.repeats >= 5:
        save_results(
            "first_call",
            "The first fit of a process",
            ["estimator", "kernels", "import (s)", "first fit (s)", "second fit (s)"],
            rows,
            notes=f"5,000 x 32 bits, one thread, medians of {options.repeats} processes; NumPy and "
            "scikit-learn are imported before the clock starts.",
            turns=True,
        )


if __name__ == "__main__":
    main()
