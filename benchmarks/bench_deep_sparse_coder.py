"""Do layers of sparse codes help a linear classifier? MNIST, against one layer of equal size.

Test error of logistic regression on codes of one, two and three layers with equally many numbers in
the code, for each inference. Alpha of each is chosen from one grid, by fewer rows, and so is the
classifier's penalty, on rows held out of training: otherwise depth and sparsity would change
together. The codes of the last layer alone have an alpha of their own. Needs SKLEBM_DATA.
``--quick`` runs a small version and saves nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
from _common import save_results, set_threads
from _probes import Chosen, choose_penalty, of_penalties

from sklebm import DeepSparseCoder

QUICK = "--quick" in sys.argv
N_TRAIN, N_HELD, N_TEST = (600, 200, 300) if QUICK else (10_000, 2_000, 10_000)
WIDTH, PASSES = (60, 2) if QUICK else (600, 6)
# Alpha is chosen by models of the same size, from fewer rows and passes.
N_CHOOSE, PASSES_CHOOSE = (300, 1) if QUICK else (3_000, 3)
SHAPES = {1: (1.0,), 2: (2 / 3, 1 / 3), 3: (1 / 2, 1 / 3, 1 / 6)}
# Of the three layers, and what all of them are multiplied by.
ALPHAS, FACTORS = (0.1, 0.05, 0.03), (0.16, 0.4, 1.0, 2.5, 6.25)


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
        tol=0.0,  # as many passes for all
        code_tol=1e-4,
        random_state=0,
    ).fit(rows)


def chosen_factor(parts, labels, sizes, inference, learning):
    """The factor of all alphas that is best on the held-out rows, for all codes and for the last.

    Searched from the middle of the grid as far as the error falls.
    """
    train, found = parts[0][:N_CHOOSE], {}

    def look(place):
        alphas = tuple(FACTORS[place] * alpha for alpha in ALPHAS[: len(sizes)])
        coder = learn(train, sizes, alphas, inference, learning, PASSES_CHOOSE)
        codes = [coder.transform(part) for part in (train, parts[1])]
        if not codes[0].any():
            return -1.0, -1.0  # all codes are zero
        kinds = codes, [code[:, -sizes[-1] :] for code in codes]
        targets = labels[0][:N_CHOOSE], labels[1]
        return tuple(choose_penalty(*kind, *targets).held_out for kind in kinds)

    middle = len(FACTORS) // 2
    for place in (middle - 1, middle, middle + 1):
        found[place] = look(place)
    for kind in (0, 1):
        while True:
            best = max(found, key=lambda place: found[place][kind])
            missing = [
                p for p in (best - 1, best + 1) if p in range(len(FACTORS)) and p not in found
            ]
            if not missing:
                break
            found[missing[0]] = look(missing[0])
    return [max(found, key=lambda place: found[place][kind]) for kind in (0, 1)]


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small version; saves nothing")
    parser.parse_args()
    set_threads(1)
    data = np.load(Path(os.environ["SKLEBM_DATA"]) / "mnist.npz")
    images = data["x_train"].reshape(-1, 784)[: N_TRAIN + N_HELD].astype(np.float32)
    test = data["x_test"].reshape(-1, 784)[:N_TEST].astype(np.float32)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    test /= np.linalg.norm(test, axis=1, keepdims=True)
    parts = images[:N_TRAIN], images[N_TRAIN:], test
    targets = data["y_train"][: N_TRAIN + N_HELD]
    labels = targets[:N_TRAIN], targets[N_TRAIN:], data["y_test"][:N_TEST]
    found: list[Chosen] = []

    def test_error(train, held, test):
        found.append(choose_penalty(train, held, *labels[:2]))
        return f"{100 - found[-1].accuracy(test, labels[2]):.2f}"

    rows = [["pixels", "-", "-", "-", test_error(*parts), "-", "-", "-", "-"]]
    at_ends = 0
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
        places = chosen_factor(parts, labels, sizes, inference, learning)
        chosen, start = time.perf_counter() - start, time.perf_counter()
        at_ends += sum(place in (0, len(FACTORS) - 1) for place in places)
        models = {}
        for place in set(places):
            alphas = tuple(FACTORS[place] * alpha for alpha in ALPHAS[:n_layers])
            coder = learn(parts[0], sizes, alphas, inference, learning, PASSES)
            models[place] = alphas, [coder.transform(part) for part in parts]
        (of_all, codes), (of_last, last) = (models[place] for place in places)
        row = [
            " + ".join(map(str, sizes)),
            inference,
            learning,
            ", ".join(f"{alpha:.3g}" for alpha in of_all),
            test_error(*codes),
            ", ".join(f"{alpha:.3g}" for alpha in of_last),
            test_error(*(code[:, -sizes[-1] :] for code in last)),
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
                "alpha for the last layer",
                "test error, last layer (%)",
                "non-zeros of a code",
                "seconds to choose + to learn, encode and classify",
            ],
            rows,
            notes=f"{N_TRAIN:,} digits of length one to train, {N_HELD:,} to choose the penalty, "
            f"{N_TEST:,} to test. Non-negative codes, {PASSES} passes. Alpha: {ALPHAS} times one "
            f"of {FACTORS}, the best for the held-out digits after {PASSES_CHOOSE} passes over "
            f"{N_CHOOSE:,} of the training digits, for the codes of all layers and for those of "
            f"the last alone; at an end of these in {at_ends} of {2 * len(cases)}. Non-zeros: of "
            "all layers, mean over the test digits. "
            f"{of_penalties(found)} One seed, one thread.",
        )


if __name__ == "__main__":
    main()
