"""Do layers of sparse codes help a linear classifier? MNIST, against one layer of equal size.

Test error of logistic regression on codes of one, two and three layers with equally many numbers in
the code, for each inference. The classifier's penalty is chosen on rows held out of training.
Needs SKLEBM_DATA. ``--quick`` runs a small version and saves nothing.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
from _common import save_results, set_threads
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sklebm import DeepSparseCoder

QUICK = "--quick" in sys.argv
N_TRAIN, N_HELD, N_TEST = (600, 200, 300) if QUICK else (10_000, 2_000, 10_000)
WIDTH, PASSES = (60, 2) if QUICK else (600, 10)
SHAPES = {1: (1.0,), 2: (2 / 3, 1 / 3), 3: (1 / 2, 1 / 3, 1 / 6)}
ALPHAS = (0.1, 0.05, 0.03)


def test_error(train, held, test, labels):
    """Error in percent, with the penalty that is best on the held-out rows."""
    scaler = StandardScaler().fit(train)
    train, held, test = (scaler.transform(part) for part in (train, held, test))
    best = None
    for weight in (1e-3, 1e-2, 1e-1):
        model = LogisticRegression(C=weight, max_iter=50 if QUICK else 300).fit(train, labels[0])
        score = model.score(held, labels[1])
        if best is None or score > best[0]:
            best = score, model
    return 100 * (1 - best[1].score(test, labels[2]))


def main() -> None:
    """Measure and record."""
    set_threads(1)
    data = np.load(Path(os.environ["SKLEBM_DATA"]) / "mnist.npz")
    images = data["x_train"].reshape(-1, 784)[: N_TRAIN + N_HELD].astype(np.float32)
    test = data["x_test"].reshape(-1, 784)[:N_TEST].astype(np.float32)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    test /= np.linalg.norm(test, axis=1, keepdims=True)
    parts = images[:N_TRAIN], images[N_TRAIN:], test
    targets = data["y_train"][: N_TRAIN + N_HELD]
    labels = targets[:N_TRAIN], targets[N_TRAIN:], data["y_test"][:N_TEST]
    rows = [["pixels", "-", "-", f"{test_error(*parts, labels):.2f}", "-", "-"]]
    cases = [(1, "layered_fista", "layerwise"), (1, "layered_thresholding", "layerwise")]
    for n_layers in (2, 3):
        cases += [
            (n_layers, "layered_fista", "layerwise"),
            (n_layers, "layered_thresholding", "layerwise"),
            (n_layers, "multilayer_fista", "layerwise"),
            (n_layers, "multilayer_fista", "joint"),
        ]
    for n_layers, inference, learning in cases:
        sizes = tuple(round(WIDTH * share) for share in SHAPES[n_layers])
        start = time.perf_counter()
        coder = DeepSparseCoder(
            sizes,
            ALPHAS[:n_layers],
            penalty="nonnegative",
            inference=inference,
            learning=learning,
            max_iter=PASSES,
            batch_size=100 if QUICK else 512,
            code_tol=1e-4,
            random_state=0,
        ).fit(parts[0])
        codes = [coder.transform(part) for part in parts]
        last = [code[:, -sizes[-1] :] for code in codes]
        row = [
            " + ".join(map(str, sizes)),
            inference,
            learning,
            f"{test_error(*codes, labels):.2f}",
            f"{test_error(*last, labels):.2f}",
            f"{time.perf_counter() - start:.0f}",
        ]
        print(*row, sep="\t", flush=True)
        rows.append(row)
    if not QUICK:
        save_results(
            "deep_sparse_coder",
            "Linear classification of MNIST by layers of sparse codes",
            [
                "atoms",
                "inference",
                "learning",
                "test error, all layers (%)",
                "test error, last layer (%)",
                "seconds",
            ],
            rows,
            notes=f"{N_TRAIN:,} digits of length one to train, {N_HELD:,} to choose the penalty, "
            f"{N_TEST:,} to test. Non-negative codes, alpha = {ALPHAS}, {PASSES} passes.",
        )


if __name__ == "__main__":
    main()
