"""Slow features: Wiskott's toy in closed form, and pools of filters learnt from a film.

Each question is one section, named on the command line:

- `toy`: correlation of the slowest quadratic feature with the slow sine of Wiskott and Sejnowski
  (2002).
- `video`: how much the code, which `transform` returns, and its pools, which are penalised, change
  from frame to frame, at unit variance, for every weight of slowness, on patches of a shot that was
  not learnt from. Patches follow one place through consecutive frames and never cross a cut. The
  weight that is chosen is the largest one of a grid whose error on another shot is at most 5 %
  above that without slowness. `--pool-size 1` makes the code itself slow. `--figure FILE` draws the
  filters without slowness and with the weight that is chosen; name one section with it. Needs the
  folder of data sets named by SKLEBM_DATA.
- `pans`: the same for photographs of which a window sees a part, and moves in a straight line at .5
  to 1.5 pixels a step. Validation and test sequences come from other photographs.

    python benchmarks/bench_slow_features.py toy video [--quick]
    python benchmarks/bench_slow_features.py video pans --pool-size 1 --penalty squared
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
GRID = (0.3, 1.0, 3.0, 10.0, 30.0)


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


def data_folder() -> Path:
    """The folder of data sets."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("SKLEBM_DATA is not set: this section needs the folder of data sets.")
    return Path(folder)


def load_shots() -> list[Any]:
    """Shots of the film, each (frames, height, width), in units of 1."""
    with np.load(data_folder() / "video.npz") as file:
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


def pans(photographs: list[Any], n_sequences: int, seed: int) -> tuple[Any, Any]:
    """Windows that move over photographs, each patch without its mean."""
    random = np.random.default_rng(seed)
    steps = np.arange(N_FRAMES)[:, None] - (N_FRAMES - 1) / 2
    found = []
    for _ in range(n_sequences):
        photograph = photographs[random.integers(len(photographs))]
        angle, speed = random.uniform(0.0, 2.0 * np.pi), random.uniform(0.5, 1.5)
        way = speed * steps * [np.sin(angle), np.cos(angle)]
        reach = np.abs(way).max(axis=0)
        corners = way + random.uniform(reach, np.array(photograph.shape) - SIDE - 1 - reach)
        found += [window(photograph, *corner).ravel() for corner in corners]
    X = np.array(found)
    return X - X.mean(axis=1, keepdims=True), np.repeat(np.arange(n_sequences), N_FRAMES)


def window(photograph: Any, top: float, left: float) -> Any:
    """What lies between pixels is interpolated."""
    row, column = int(top), int(left)
    block = photograph[row : row + SIDE + 1, column : column + SIDE + 1]
    block = block[:-1] + (top - row) * np.diff(block, axis=0)
    return block[:, :-1] + (left - column) * np.diff(block, axis=1)


def sizes(options: argparse.Namespace) -> tuple[int, int]:
    """Sequences to learn from, and for each of validation and test."""
    n = 40 if options.quick else options.sequences
    return n, max(n // 4, 4)


def measure_video(options: argparse.Namespace) -> Table:
    """Validation and test shots are the longest two."""
    shots = load_shots()
    by_length = np.argsort([len(shot) for shot in shots])[::-1]
    test, valid, *rest = (shots[index] for index in by_length)
    n, n_other = sizes(options)
    return compare(
        patches(rest, n, 0), patches([valid], n_other, 1), patches([test], n_other, 2), options
    )


def measure_pans(options: argparse.Namespace) -> Table:
    """Half of the photographs are learnt from."""
    with np.load(data_folder() / "natural_images.npz") as file:
        photographs = [file[name] / 255.0 for name in file if name.startswith("img_")]
    half, n_valid = len(photographs) // 2, len(photographs) // 4
    n, n_other = sizes(options)
    return compare(
        pans(photographs[:half], n, 0),
        pans(photographs[half : half + n_valid], n_other, 1),
        pans(photographs[half + n_valid :], n_other, 2),
        options,
    )


def compare(
    train: tuple[Any, Any], valid: tuple[Any, Any], test: tuple[Any, Any], options: Any
) -> Table:
    """Errors and changes on test sequences, for every weight."""
    (X, groups), (X_valid, _), (X_test, groups_test) = train, valid, test
    whitener = ZCAWhitener().fit(X)
    X, X_valid, X_test = (whitener.transform(part) for part in (X, X_valid, X_test))
    settings: dict[str, Any] = {
        "n_components": options.components,
        "pool_size": options.pool_size,
        "penalty": options.penalty,
        "code_activation": "identity",
        "alpha": 0.05,
        "learning_rate": 0.01,
        "max_epochs": 1 if options.quick else options.epochs,
        "random_state": 0,
    }
    models: dict[float, Any] = {}
    numbers: dict[float, list[float]] = {}
    for weight in (0.0, *(GRID[:1] if options.quick else GRID)):
        models[weight] = SlowFeatureAutoencoder(slowness=weight, **settings)
        models[weight].fit(X, groups=groups)
        numbers[weight] = [
            *(relative_error(models[weight], part) for part in (X_valid, X_test)),
            *(
                float(np.nanmean(slowness(answer(X_test), groups_test)))
                for answer in (models[weight].transform, models[weight].pool)
            ),
        ]
        print(f"slowness={weight:g}", *(f"{number:.3f}" for number in numbers[weight]), flush=True)
    best = max(weight for weight, found in numbers.items() if found[0] <= 1.05 * numbers[0.0][0])
    if options.figure:
        chosen = {"without slowness": models[0.0], f"slowness={best:g}": models[best]}
        draw(chosen, options.pool_size, options.figure)
    table: Table = []
    for weight, found in numbers.items():
        slower = (before / now for before, now in zip(numbers[0.0][2:], found[2:], strict=True))
        table.append(
            [
                f"{weight:g}" + (" (chosen)" if weight == best else ""),
                *(round(number, 3) for number in found),
                *(round(ratio, 2) for ratio in slower),
            ]
        )
        print(*table[-1], flush=True)
    return table


def relative_error(model: Any, X: Any) -> float:
    """Squared error as a share of the variance."""
    return float(-model.score(X) / X.var(axis=0).sum())


def draw(models: dict[str, Any], pool_size: int, path: str) -> None:
    """The filters of both models, a pool to a tile."""
    import matplotlib.pyplot as plt

    from sklebm.plotting import ComponentsDisplay

    figure, axes = plt.subplots(1, len(models), figsize=(10, 6), layout="constrained")
    for ax, (name, model) in zip(axes, models.items(), strict=True):
        filters = model.weights_["encoder.0.weight"].reshape(-1, pool_size, SIDE, SIDE)
        tiles = filters.transpose(0, 2, 1, 3).reshape(len(filters), -1)
        ComponentsDisplay(tiles, (SIDE, pool_size * SIDE)).plot(ax, n_columns=3, title=name)
    figure.savefig(path, dpi=80)


COLUMNS = [
    "slowness",
    "error / variance, validation",
    "error / variance, test",
    "change of codes",
    "change of pools",
    "codes: times slower",
    "pools: times slower",
]
SECTIONS = {
    "toy": ("Slow feature analysis of two signals", ["features", "correlation", "seconds"]),
    "video": ("Slow codes and pools of a film", COLUMNS),
    "pans": ("Slow codes and pools of photographs seen through a moving window", COLUMNS),
}
MEASURES = {"toy": measure_toy, "video": measure_video, "pans": measure_pans}


def main() -> None:
    """Measure the sections that are named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sections", nargs="+", choices=SECTIONS)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--sequences", type=int, default=4000, help="places that are followed")
    parser.add_argument("--components", type=int, default=128)
    parser.add_argument("--pool-size", type=int, default=4, help="latents to a pool")
    parser.add_argument("--penalty", choices=("l1", "squared"), default="l1")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--figure", help="file to draw the filters to")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", action="store_true", help="write the results")
    options = parser.parse_args()
    set_threads(options.threads)
    for name in options.sections:
        table = MEASURES[name](options)
        if options.save and not options.quick:
            # Slow codes and slow pools are two measurements.
            own = "_codes" if name != "toy" and options.pool_size == 1 else ""
            save_results(f"slow_features_{name}{own}", *SECTIONS[name], table)


if __name__ == "__main__":
    main()
