"""Do layers of a deconvolutional network help a linear classifier? MNIST.

Test error of logistic regression on pixels, on the pooled codes of one convolutional layer, and on
those of two layers (alone, and beside the first), adaptive and plain; seconds to learn and to
encode. The penalty of the classifier is chosen on rows held out of training. Needs SKLEBM_DATA.
``--quick`` runs a small version; ``--images`` and ``--passes`` set the size; these save nothing.
``--limit`` prints instead how far codes are from the minimum of the energy at several limits of
steps, for 12 kernels learnt on top of 6 from scikit-learn's digits at twice their size.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
from _common import save_results, set_threads
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sklebm import DeconvolutionalNetwork


def test_error(train, held, test, labels):
    """Error in percent, with the penalty that is best on the held-out rows."""
    scaler = StandardScaler().fit(train)
    train, held, test = (scaler.transform(part) for part in (train, held, test))
    best = None
    for weight in (1e-4, 1e-3, 1e-2, 1e-1):
        model = LogisticRegression(C=weight, max_iter=200).fit(train, labels[0])
        score = model.score(held, labels[1])
        if best is None or score > best[0]:
            best = score, model
    return 100 * (1 - best[1].score(test, labels[2]))


def learn(parts, n_learn, n_passes, *, n_layers, adaptive):
    """Pooled codes of each part, and seconds to learn and to encode."""
    model = DeconvolutionalNetwork(
        (16, 48)[:n_layers],
        (7, 5)[:n_layers],
        image_shape=(28, 28),
        alpha=(0.1, 0.02)[:n_layers],
        penalty="nonnegative",
        adaptive=adaptive,
        max_iter=n_passes,
        max_inference_steps=30,
        code_tol=1e-2,
        random_state=0,
    )
    start = time.perf_counter()
    model.fit(parts[0][:n_learn])
    learnt = time.perf_counter() - start
    codes = [model.transform(part) for part in parts]
    return codes, learnt, time.perf_counter() - start - learnt


def print_limits():
    """Mean energy of 20 images above its minimum, in percent, by the limit of steps."""
    digits = load_digits().images.astype(np.float32) / 16
    X = digits.repeat(2, axis=1).repeat(2, axis=2).reshape(len(digits), -1)
    model = DeconvolutionalNetwork(
        (6, 12), (5, 3), image_shape=(16, 16), max_iter=5, random_state=0
    ).fit(X[:200])
    limits = (100, 300, 1_000, 10_000)
    energies = [
        model.set_params(max_inference_steps=limit).free_energy(X[-20:]) for limit in limits
    ]
    for limit, found in zip(limits, energies, strict=True):
        excess = 100 * (found.mean() / energies[-1].mean() - 1)
        print(limit, f"{excess:.2f}", sep="\t", flush=True)


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--images", type=int)
    parser.add_argument("--passes", type=int)
    parser.add_argument("--limit", action="store_true")
    arguments = parser.parse_args()
    if arguments.limit:
        return print_limits()
    full = not (arguments.quick or arguments.images or arguments.passes)
    n_train = arguments.images or (60 if arguments.quick else 10_000)
    n_passes = arguments.passes or (1 if arguments.quick else 5)
    n_held, n_test, n_learn = n_train // 5, min(n_train, 10_000), min(n_train, 1_000)
    set_threads(1)
    with np.load(Path(os.environ["SKLEBM_DATA"]) / "mnist.npz") as data:
        images = data["x_train"].reshape(-1, 784)[: n_train + n_held].astype(np.float32)
        targets = data["y_train"][: n_train + n_held]
        test = data["x_test"].reshape(-1, 784)[:n_test].astype(np.float32)
        answers = data["y_test"][:n_test]
    top = float(images.max())
    parts = images[:n_train] / top, images[n_train:] / top, test / top
    labels = targets[:n_train], targets[n_train:], answers
    rows = [["pixels", "784", f"{test_error(*parts, labels):.2f}", "-", "-"]]
    print(*rows[-1], sep="\t", flush=True)
    first = None
    for name, size, adaptive in (
        ("one layer", 1, True),
        ("two layers, adaptive", 2, True),
        ("two layers, plain", 2, False),
    ):
        codes, learnt, encoded = learn(parts, n_learn, n_passes, n_layers=size, adaptive=adaptive)
        first = codes if first is None else first
        cases = {name: codes}
        if size > 1:
            both = [np.hstack(pair) for pair in zip(first, codes, strict=True)]
            cases[f"{name}, and the first"] = both
        for case, features in cases.items():
            error = test_error(*features, labels)
            rows.append(
                [case, str(features[0].shape[1]), f"{error:.2f}", f"{learnt:.0f}", f"{encoded:.0f}"]
            )
            print(*rows[-1], sep="\t", flush=True)
    if full:
        save_results(
            "deconvolutional",
            "Linear classification of MNIST by layers of a deconvolutional network",
            ["features", "numbers", "test error (%)", "seconds to learn", "seconds to encode"],
            rows,
            notes=f"{n_train:,} digits to train the classifier, {n_held:,} to choose its penalty, "
            f"{n_test:,} to test; kernels of 7 x 7 and 5 x 5 from {n_learn:,} of them, {n_passes} "
            "passes; blocks of 2 x 2 x 2.",
        )


if __name__ == "__main__":
    main()
