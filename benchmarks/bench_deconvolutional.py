"""Do layers of a deconvolutional network help a linear classifier? MNIST.

Test error of logistic regression on pixels, on the pooled codes of one convolutional layer, and on
those of two layers (alone, and beside those of the model of one layer, whose seconds are then
part of the sum), adaptive and plain; seconds to learn, to encode and to classify, and minutes in
all. The penalty of the classifier is chosen on rows held out of training. Needs SKLEBM_DATA.
``--quick`` runs a small version; ``--images`` and ``--passes`` set the size; these save nothing.
``--figure FILE`` draws what units of both layers of the adaptive model stand for in test images.
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
from _probes import choose_penalty, of_penalties
from sklearn.datasets import load_digits

from sklebm import DeconvolutionalNetwork


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
        tol=0.0,  # as many passes for all
        max_inference_steps=30,
        code_tol=1e-2,
        random_state=0,
    )
    start = time.perf_counter()
    model.fit(parts[0][:n_learn])
    learnt = time.perf_counter() - start
    codes = [model.transform(part) for part in parts]
    return model, codes, (learnt, time.perf_counter() - start - learnt)


def draw(model, images, path, n_units=8, n_pictures=6):
    """Units of both layers, a row each: the images in which they are strongest, in pixels."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(13, 8), layout="constrained")
    for layer, panel in enumerate(panels, start=1):
        n_maps = model.hidden_sizes[layer - 1]
        # Units spread over the layer, so that no choice of ours decides what is seen.
        units = np.linspace(0, n_maps - 1, n_units).astype(int)
        rows = []
        for unit in units:
            seen = model.project(images, unit=int(unit), layer=layer)
            strongest = np.argsort(-np.linalg.norm(seen, axis=1))[:n_pictures]
            pairs = [np.vstack([images[i].reshape(28, 28), _scaled(seen[i])]) for i in strongest]
            rows.append(np.hstack(pairs))
        panel.imshow(np.vstack(rows), cmap="gray", vmin=0, vmax=1)
        panel.set_yticks(28 + 56 * np.arange(n_units), [f"unit {unit}" for unit in units])
        panel.set_xticks([])
        panel.set_title(f"layer {layer}: images, and the strongest entry of a unit below each")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _scaled(flat):
    top = np.abs(flat).max()
    return (flat / top if top else flat).reshape(28, 28).clip(0, 1)


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
    parser.add_argument("--figure", help="file to draw units of both layers to")
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
    rows, found, drawn = [], [], None

    def classify(case, features, learnt=0.0, encoded=0.0):
        start = time.perf_counter()
        found.append(choose_penalty(*features[:2], *labels[:2]))
        error = 100 - found[-1].accuracy(features[2], labels[2])
        spent = (learnt, encoded, time.perf_counter() - start)
        size, seconds = str(features[0].shape[1]), [f"{part:.0f}" for part in spent]
        rows.append([case, size, f"{error:.2f}", *seconds, f"{sum(spent) / 60:.1f}"])
        print(*rows[-1], sep="\t", flush=True)

    classify("pixels", parts)
    first = first_spent = None
    for name, size, adaptive in (
        ("one layer", 1, True),
        ("two layers, adaptive", 2, True),
        ("two layers, plain", 2, False),
    ):
        model, codes, spent = learn(parts, n_learn, n_passes, n_layers=size, adaptive=adaptive)
        classify(name, codes, *spent)
        if first is None:
            first, first_spent = codes, spent
            continue
        both = [np.hstack(pair) for pair in zip(first, codes, strict=True)]
        # The codes of the first layer are those of a model of its own, which takes time, too.
        classify(f"{name}, and one layer", both, *np.add(spent, first_spent))
        if adaptive:
            drawn = model
    if full:
        save_results(
            "deconvolutional",
            "Linear classification of MNIST by layers of a deconvolutional network",
            [
                "features",
                "numbers",
                "test error (%)",
                "seconds to learn",
                "to encode",
                "to classify",
                "minutes in all",
            ],
            rows,
            notes=f"{n_train:,} digits to train the classifier, {n_held:,} to choose its penalty, "
            f"{n_test:,} to test; kernels of 7 x 7 and 5 x 5 from {n_learn:,} of them, {n_passes} "
            "passes; blocks of 2 x 2 x 2. Encoding and classifying: all of these digits, "
            "all penalties. One layer: a model of its own; where its codes stand beside, "
            f"its seconds are part of the sums. {of_penalties(found)} Each was run once, on one "
            "thread.",
        )
    if arguments.figure:
        draw(drawn, parts[2][:100], arguments.figure)


if __name__ == "__main__":
    main()
