"""Do layers of sparse codes help a linear classifier? MNIST, against one layer of equal size.

Test error of logistic regression on codes of one, two and three layers with equally many numbers in
the code, for each inference. Alpha of each is chosen from one grid, by fewer rows, and so is the
classifier's penalty, on rows held out of training: otherwise depth and sparsity would change
together. Needs SKLEBM_DATA. ``--quick`` runs a small version and saves nothing.
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
WIDTH, PASSES = (60, 2) if QUICK else (600, 6)
# Alpha is chosen by models of the same size, from fewer rows and passes.
N_CHOOSE, PASSES_CHOOSE = (300, 1) if QUICK else (3_000, 3)
SHAPES = {1: (1.0,), 2: (2 / 3, 1 / 3), 3: (1 / 2, 1 / 3, 1 / 6)}
# Of the three layers, and what all of them are multiplied by.
ALPHAS, FACTORS = (0.1, 0.05, 0.03), (0.4, 1.0, 2.5)


def classify(train, held, labels):
    """Scaler and classifier with the penalty that is best on the held-out rows, and its error."""
    scaler = StandardScaler().fit(train)
    train, held = scaler.transform(train), scaler.transform(held)
    best = None
    for weight in (1e-3, 1e-2, 1e-1):
        model = LogisticRegression(C=weight, max_iter=50 if QUICK else 300).fit(train, labels[0])
        score = model.score(held, labels[1])
        if best is None or score > best[0]:
            best = score, model
    return scaler, best[1], 100 * (1 - best[0])


def test_error(train, held, test, labels):
    """Error in percent, with the penalty that is best on the held-out rows."""
    scaler, model, _ = classify(train, held, labels)
    return 100 * (1 - model.score(scaler.transform(test), labels[2]))


def learn(rows, sizes, alphas, inference, learning, passes):
    """A fitted coder."""
    return DeepSparseCoder(
        sizes,
        alphas,
        penalty="nonnegative",
        inference=inference,
        learning=learning,
        max_iter=passes,
        batch_size=100 if QUICK else 512,
        code_tol=1e-4,
        random_state=0,
    ).fit(rows)


def chosen_factor(parts, labels, sizes, inference, learning):
    """The factor of all alphas that is best on the held-out rows."""
    train, errors = parts[0][:N_CHOOSE], {}
    for factor in FACTORS:
        alphas = tuple(factor * alpha for alpha in ALPHAS[: len(sizes)])
        coder = learn(train, sizes, alphas, inference, learning, PASSES_CHOOSE)
        codes = [coder.transform(part) for part in (train, parts[1])]
        if not codes[0].any():
            continue  # all codes are zero
        errors[factor] = classify(*codes, (labels[0][:N_CHOOSE], labels[1]))[2]
    return min(errors, key=errors.get)


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
    rows = [["pixels", "-", "-", "-", f"{test_error(*parts, labels):.2f}", "-", "-", "-"]]
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
        factor = chosen_factor(parts, labels, sizes, inference, learning)
        chosen, start = time.perf_counter() - start, time.perf_counter()
        alphas = tuple(factor * alpha for alpha in ALPHAS[:n_layers])
        coder = learn(parts[0], sizes, alphas, inference, learning, PASSES)
        codes = [coder.transform(part) for part in parts]
        last = [code[:, -sizes[-1] :] for code in codes]
        row = [
            " + ".join(map(str, sizes)),
            inference,
            learning,
            ", ".join(f"{alpha:.3g}" for alpha in alphas),
            f"{test_error(*codes, labels):.2f}",
            f"{test_error(*last, labels):.2f}",
            f"{np.count_nonzero(codes[2], axis=1).mean():.0f}",
            f"{chosen:.0f} + {time.perf_counter() - start:.0f}",
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
                "alpha",
                "test error, all layers (%)",
                "test error, last layer (%)",
                "non-zeros of a code",
                "seconds to choose + to learn, encode and classify",
            ],
            rows,
            notes=f"{N_TRAIN:,} digits of length one to train, {N_HELD:,} to choose the penalty, "
            f"{N_TEST:,} to test. Non-negative codes, {PASSES} passes. Alpha: "
            f"{ALPHAS} times one of {FACTORS}, the best for the held-out digits after "
            f"{PASSES_CHOOSE} passes over {N_CHOOSE:,} of the training digits. Non-zeros: of all "
            "layers, mean over the test digits. One seed, one thread.",
        )


if __name__ == "__main__":
    main()
