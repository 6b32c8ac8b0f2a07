"""Slow features: Wiskott's toy in closed form, and pools of filters learnt from a film.

Each question is one section, named on the command line:

- `toy`: correlation of the slowest quadratic feature with the slow sine of Wiskott and Sejnowski
  (2002).
- `video`: how much pools of the code change from frame to frame, at unit variance, with and without
  the penalty, on patches of a shot that was not learnt from. Patches follow one place through
  consecutive frames and never cross a cut. The weight of slowness is the largest one of a grid
  whose error on another shot is at most 5 % above that without slowness. `--figure FILE` draws the
  filters of both. Needs the folder of data sets named by SKLEBM_DATA.

    python benchmarks/bench_slow_features.py toy video [--quick]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import save_results, set_threads

from sklebm import SlowFeatureAutoencoder, ZCAWhitener
from sklebm.metrics import slowness

Table = list[list[object]]
SIDE, N_FRAMES = 12, 10
GRID = (1.0, 3.0, 10.0, 30.0)


def measure_toy(options: argparse.Namespace) -> Table:
    """Correlations of affine and quadratic features with the sine, absolute values."""
    t = np.linspace(0.0, 2.0 * np.pi, 500 if options.quick else 5000)
    X = np.column_stack([np.sin(t) + np.cos(11.0 * t) ** 2, np.cos(11.0 * t)])
    table: Table = []
    for degree, name in ((1, "affine"), (2, "quadratic")):
        begun = time.perf_counter()
        model = SlowFeatureAutoencoder(1, method="linear", degree=degree).fit(X)
        seconds = time.perf_counter() - begun
        found = np.corrcoef(model.transform(X)[:, 0], np.sin(t))[0, 1]
        table.append([name, round(abs(float(found)), 6), round(seconds, 3)])
        print(*table[-1], flush=True)
    return table


def load_shots() -> list[Any]:
    """Shots of the film, each (frames, height, width), in units of 1."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("SKLEBM_DATA is not set: this section needs the folder of data sets.")
    with np.load(Path(folder) / "video.npz") as file:
        return np.split(file["frames"] / 255.0, file["shot_start"][1:])


def patches(shots: list[Any], n_sequences: int, seed: int) -> tuple[Any, Any]:
    """Places followed through consecutive frames, each patch without its mean."""
    random = np.random.default_rng(seed)
    shots = [shot for shot in shots if len(shot) >= N_FRAMES]
    found = []
    for _ in range(n_sequences):
        shot = shots[random.integers(len(shots))]
        room = np.array(shot.shape) - (N_FRAMES, SIDE, SIDE) + 1
        frame, top, left = random.integers(room)
        block = shot[frame : frame + N_FRAMES, top : top + SIDE, left : left + SIDE]
        found.append(block.reshape(N_FRAMES, -1))
    X = np.concatenate(found)
    return X - X.mean(axis=1, keepdims=True), np.repeat(np.arange(n_sequences), N_FRAMES)


def measure_video(options: argparse.Namespace) -> Table:
    """Errors and changes on a shot apart, for both models."""
    shots = load_shots()
    by_length = np.argsort([len(shot) for shot in shots])[::-1]
    test, valid, *rest = (shots[index] for index in by_length)
    n, epochs = (40, 1) if options.quick else (options.sequences, options.epochs)
    X, groups = patches(rest, n, 0)
    X_valid, groups_valid = patches([valid], max(n // 4, 4), 1)
    X_test, groups_test = patches([test], max(n // 4, 4), 2)
    whitener = ZCAWhitener().fit(X)
    X, X_valid, X_test = (whitener.transform(part) for part in (X, X_valid, X_test))
    settings: dict[str, Any] = {
        "n_components": options.components,
        "pool_size": 4,
        "code_activation": "identity",
        "alpha": 0.05,
        "learning_rate": 0.01,
        "max_epochs": epochs,
        "random_state": 0,
    }

    def fitted(weight: float) -> tuple[Any, list[float]]:
        model = SlowFeatureAutoencoder(slowness=weight, **settings).fit(X, groups=groups)
        errors = [-model.score(part) / part.var(axis=0).sum() for part in (X_valid, X_test)]
        changes = [
            float(np.nanmean(slowness(model.pool(part), names)))
            for part, names in ((X_valid, groups_valid), (X_test, groups_test))
        ]
        print(f"slowness={weight:g}: error {errors[0]:.3f}, change {changes[0]:.3f} (validation)")
        return model, [errors[0], errors[1], changes[0], changes[1]]

    plain, found = fitted(0.0)
    rows = {0.0: found}
    chosen, best = plain, 0.0
    for weight in GRID[:1] if options.quick else GRID:
        model, rows[weight] = fitted(weight)
        if rows[weight][0] <= 1.05 * rows[0.0][0]:
            chosen, best = model, weight
    if options.figure:
        draw({"without slowness": plain, f"slowness={best:g}": chosen}, options.figure)
    ratio = rows[0.0][3] / rows[best][3]
    table: Table = [
        ["without", 0.0, round(rows[0.0][1], 3), round(rows[0.0][3], 3), 1.0],
        ["with", best, round(rows[best][1], 3), round(rows[best][3], 3), round(ratio, 2)],
    ]
    for row in table:
        print(*row, flush=True)
    return table


def draw(models: dict[str, Any], path: str) -> None:
    """The filters of both models, four to a pool, a pool to a tile."""
    import matplotlib.pyplot as plt

    from sklebm.plotting import ComponentsDisplay

    figure, axes = plt.subplots(1, len(models), figsize=(10, 6), layout="constrained")
    for ax, (name, model) in zip(axes, models.items(), strict=True):
        filters = model.weights_["encoder.0.weight"].reshape(-1, 4, SIDE, SIDE)
        tiles = filters.transpose(0, 2, 1, 3).reshape(len(filters), -1)
        ComponentsDisplay(tiles, (SIDE, 4 * SIDE)).plot(ax, n_columns=3, title=name)
    figure.savefig(path, dpi=80)


SECTIONS = {
    "toy": ("Slow feature analysis of two signals", ["features", "correlation", "seconds"]),
    "video": (
        "Pools of filters of a film",
        ["penalty", "slowness", "error / variance", "change of pools", "times slower"],
    ),
}
MEASURES = {"toy": measure_toy, "video": measure_video}


def main() -> None:
    """Measure the sections that are named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sections", nargs="+", choices=SECTIONS)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--sequences", type=int, default=4000, help="places that are followed")
    parser.add_argument("--components", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--figure", help="file to draw the filters to")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", action="store_true", help="write the results")
    options = parser.parse_args()
    set_threads(options.threads)
    for name in options.sections:
        table = MEASURES[name](options)
        if options.save and not options.quick:
            save_results(f"slow_features_{name}", *SECTIONS[name], table)


if __name__ == "__main__":
    main()
