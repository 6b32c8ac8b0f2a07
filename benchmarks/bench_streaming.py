"""What an epoch from a memory-mapped file costs over one of the same rows in memory.

A small part of the file fits into ``working_memory``. The file is in the operating system's cache:
this measures the library's blocks and pools, not the disk.

    python benchmarks/bench_streaming.py [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from _common import save_results, set_threads, timed_ratio

from sklebm import Autoencoder, BernoulliRBM, PCAWhitener

EPOCH = {"batch_size": 200, "max_epochs": 1, "random_state": 0}
MODELS = {
    "PCAWhitener": lambda: PCAWhitener(16),
    "BernoulliRBM, 1 epoch": lambda: BernoulliRBM(64, log_partition=None, **EPOCH),
    "Autoencoder, 1 epoch": lambda: Autoencoder(64, hidden_sizes=(), **EPOCH),
}


def make_rows(n_rows: int, n_features: int) -> np.ndarray[Any, Any]:
    """Rows in [0, 1] with a little structure."""
    rng = np.random.default_rng(0)
    hidden = (rng.random((n_rows, 8), dtype=np.float32) < 0.3).astype(np.float32)
    mixing = (rng.random((8, n_features), dtype=np.float32) < 0.3).astype(np.float32)
    return np.where(hidden @ mixing > 0, np.float32(0.9), np.float32(0.1))


def stream(n_rows: int, n_features: int, repeats: int) -> list[list[object]]:
    """Seconds of an epoch over rows in memory and in a file."""
    X = make_rows(n_rows, n_features)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.bin"
        X.tofile(path)
        mapped = np.memmap(path, dtype=X.dtype, mode="r", shape=X.shape)

        def fit(model: Any, rows: Any, memory: float) -> None:
            with sklearn.config_context(working_memory=memory):
                model.fit(rows)

        table: list[list[object]] = []
        for name, make in MODELS.items():
            timings = timed_ratio(
                {
                    "memory": lambda make=make: fit(make(), X, 1024),
                    "file": lambda make=make: fit(make(), mapped, 16),
                },
                reference="memory",
                repeats=repeats,
            )
            seconds = [round(timings[key].median, 3) for key in ("memory", "file")]
            table.append([name, *seconds, round(timings["file"].ratio, 2)])
    return table


def main() -> None:
    """Measure and record the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing saved")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    set_threads(options.threads)
    n_rows, n_features = (20_000, 64) if options.quick else (100_000, 128)
    rows = stream(n_rows, n_features, 2 if options.quick else 5)
    columns = ["fit", "in memory (s)", "from a file (s)", "ratio"]
    for row in [columns, *rows]:
        print("  ".join(f"{cell!s:>22}" for cell in row))
    if not options.quick:
        save_results(
            "streaming",
            "An epoch from a file larger than working memory",
            columns,
            rows,
            notes=(
                f"{n_rows} rows of {n_features} float32 features, "
                f"{4 * n_rows * n_features // 2**20} MiB, memory-mapped, with working_memory at 16 "
                "MiB; the file is in the operating system's cache, so that the disk is not "
                f"measured. {options.threads} threads."
            ),
        )


if __name__ == "__main__":
    main()
