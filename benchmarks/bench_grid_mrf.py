"""GridMRF: a restored noisy binary image, snakes, and the time of a cut.

The images are generated. ``snakes.npz`` is read from ``SKLEBM_DATA``; without it that part is
skipped. Choices for the snakes are made on the last 40 training images.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import save_results, set_threads
from scipy.ndimage import gaussian_filter

from sklebm import GridMRF

NOISE = 1.2
CHOICES: list[dict[str, Any]] = [
    {"learning": learning, "C": C}
    for learning in ("pseudo_likelihood", "likelihood")
    for C in (0.3, 3.0)
]


def draw(n_images: int, size: int, seed: int) -> tuple[Any, Any, dict[str, Any]]:
    """Noisy colours of two kinds of ground, their labels, images and positions."""
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.normal(size=(size, size)), 4) for _ in range(n_images)]
    y = (np.stack(fields) > 0).astype(int).ravel()
    X = y[:, None] * [1.0, -1.0] + rng.normal(scale=NOISE, size=(len(y), 2))
    where = {
        "groups": np.repeat(np.arange(n_images), size**2),
        "positions": np.tile(np.argwhere(np.ones((size, size))), (n_images, 1)),
    }
    return X, y, where


def restored(size: int) -> list[list[Any]]:
    """Share of wrong pixels of a new image, and seconds, for each inference."""
    X, y, where = draw(2, 64, seed=0)
    X_new, y_new, where_new = draw(1, size, seed=1)
    alone = GridMRF().fit(X, y)
    model = GridMRF().fit(X, y, **where)
    wrong = float(np.mean(alone.predict(X_new) != y_new))
    rows: list[list[Any]] = [["pixels alone", round(wrong, 4), ""]]
    for inference in (
        "icm",
        "cut",
        "reweighted_trees",
        "belief_propagation",
        "mean_field",
        "gibbs",
    ):
        model.set_params(inference=inference)
        model.predict(X[: 64**2], positions=where["positions"][: 64**2])  # compiles
        start = time.perf_counter()
        wrong = float(np.mean(model.predict(X_new, **where_new) != y_new))
        rows.append([inference, round(wrong, 4), round(time.perf_counter() - start, 3)])
        print(rows[-1], flush=True)
    return rows


def read_snakes(part: str, n_images: int | None) -> tuple[Any, Any, Any, Any]:
    """Colours in windows of 3 x 3 as ones among zeros, labels, images and positions."""
    data = np.load(Path(os.environ["SKLEBM_DATA"]) / "snakes.npz")
    shapes = data[f"X_{part}_shapes"]
    images = np.split(data[f"X_{part}"], shapes.prod(axis=1).cumsum()[:-1])
    X, groups, positions = [], [], []
    for number, (height, width, _) in enumerate(shapes[:n_images]):
        kinds = np.pad((images[number].reshape(height, width, 3) > 0) @ [1, 2, 4], 1)
        window = np.lib.stride_tricks.sliding_window_view(kinds, (3, 3))
        X.append(np.eye(7)[window.reshape(-1, 9)].reshape(height * width, -1))
        groups.append(np.full(height * width, number))
        positions.append(np.argwhere(np.ones((height, width))))
    y = data[f"Y_{part}"][: sum(map(len, X))]
    return np.concatenate(X), y, np.concatenate(groups), np.concatenate(positions)


def snakes(quick: bool) -> list[list[Any]]:
    """Test accuracy of pixels alone and with neighbours."""
    X, y, groups, positions = read_snakes("train", 60 if quick else None)
    X_new, y_new, groups_new, positions_new = read_snakes("test", 20 if quick else None)
    where_new = {"groups": groups_new, "positions": positions_new}
    kept = groups < groups.max() - (19 if quick else 39)
    rest = ~kept
    scores = []
    setting = {"pairwise_features": "features", "directed": True, "tol": 1e-4}
    choices = CHOICES[:2] if quick else CHOICES
    for choice in choices:
        model = GridMRF(**setting, **choice).fit(X[kept], y[kept], groups[kept], positions[kept])
        where = {"groups": groups[rest], "positions": positions[rest]}
        scores.append(model.score(X[rest], y[rest], **where))
        print("snakes, validation", choice, round(scores[-1], 4), flush=True)
    best = choices[int(np.argmax(scores))]
    rows: list[list[Any]] = []
    alone = GridMRF(C=best["C"]).fit(X, y)
    rows.append(["pixels alone", round(alone.score(X_new, y_new), 4), ""])
    plain = GridMRF(learning="pseudo_likelihood", C=best["C"]).fit(X, y, groups, positions)
    score = plain.score(X_new, y_new, **where_new)
    rows.append(["one T for all pairs", round(score, 4), ""])
    start = time.perf_counter()
    model = GridMRF(**setting, **best).fit(X, y, groups, positions)
    seconds = time.perf_counter() - start
    label = f"features of pairs, directed, {best['learning'].replace('_', ' ')}, C = {best['C']:g}"
    score = model.score(X_new, y_new, **where_new)
    rows.append([label, round(score, 4), round(seconds, 1)])
    for row in rows:
        print("snakes, test", row, flush=True)
    return rows


def cut_seconds(size: int) -> float:
    """Median of five times of the cut of one image, with T given."""
    X, y, where = draw(1, size, seed=2)
    model = GridMRF(interaction=1.0, inference="cut", learning="piecewise").fit(X, y, **where)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        model.predict(X, **where)
        seconds.append(time.perf_counter() - start)
    median = round(statistics.median(seconds), 3)
    print(f"cut of {size} x {size} pixels: {median:.3f} s", flush=True)
    return median


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small images, few snakes")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    size = 64 if arguments.quick else 256
    images = restored(size)
    seconds = cut_seconds(size)
    lines = snakes(arguments.quick) if os.environ.get("SKLEBM_DATA") else []
    if not arguments.quick:
        save_results(
            "grid_mrf",
            "GridMRF: a noisy image of 256 x 256 pixels, and snakes",
            ["what", "wrong, or accuracy (snakes)", "seconds"],
            [
                *images,
                ["cut, T given", "", seconds],
                *([f"snakes: {a}", b, c] for a, b, c in lines),
            ],
            notes="Share of wrong pixels of a new image; test accuracy of the snakes. The cut "
            "with T given: median of five.",
        )


if __name__ == "__main__":
    main()
