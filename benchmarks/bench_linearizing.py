"""Straight paths of codes: the next frame of moving digits, and turns that nothing announces.

Each question is one section, named on the command line:

- `motion`: squared error of the next frame of digits that move in straight lines and bounce, beside
  copying the last frame and continuing its pixels; curvature of the codes' paths beside those of a
  plain auto-encoder with as many latents, over all sequences and over those that do not bounce; and
  how well places follow a translation: the largest departure, in pixels, of a group of units from
  the motion of its digit, median and 90 % quantile over sequences that do not bounce. The group is
  the one with the smallest median on other sequences.
- `turns`: digits that go on in a random direction at every step. Errors with a latent of two
  dimensions, beside the mean prediction of the same model, that of a model without latent, and for
  every frame the best of ten random latents, which have the spread of those that were inferred from
  training frames.

The digits themselves are those of scikit-learn, in training and test sequences alike; places,
directions and pairings are new. Rate and number of epochs were not tuned; other settings are
chosen with `--validate`, which scores sequences that no table reports. `--figure FILE` draws
digits half-way between two frames, with and without phase pooling and the cosine, from a world
with and without turns.

    python benchmarks/bench_linearizing.py motion [--quick]
    python benchmarks/bench_linearizing.py turns --curvature 0 --inner-rate 20 --inner-steps 10
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from _common import save_results, set_threads

from sklebm import Autoencoder, LinearizingAutoencoder
from sklebm.datasets import make_bouncing_digits
from sklebm.metrics import curvature

Table = list[list[object]]
SIDE, N_STEPS, SPEED = 16, 12, 0.5


def shown(name: str, *values: Any) -> list[object]:
    """A row of a table, printed as soon as it is known."""
    print(name, *values, flush=True)
    return [name, *values]


def digits(n_sequences: int, seed: int, turn: float = 0.0) -> tuple[Any, Any]:
    """Sequences of frames."""
    return make_bouncing_digits(
        n_sequences, N_STEPS, size=SIDE, speed=SPEED, turn=turn, random_state=seed
    )


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What all models share."""
    if options.quick:
        return {"hidden_sizes": (), "max_epochs": 1, "random_state": 0}
    return {
        "hidden_sizes": (options.channels,),
        "learning_rate": 0.005,
        "curvature": options.curvature,
        "max_epochs": options.epochs,
        "random_state": 0,
    }


def model_of(options: argparse.Namespace, **changes: Any) -> LinearizingAutoencoder:
    """A model of frames."""
    n_components = 4 if options.quick else 16
    frames = {"image_shape": (SIDE, SIDE), "n_components": n_components}
    return LinearizingAutoencoder(**{**frames, **settings_of(options), **changes})


def third_rows(X: Any) -> Any:
    """Frames with two before them."""
    return np.flatnonzero(np.arange(len(X)) % N_STEPS >= 2)


def places_of(model: LinearizingAutoencoder, X: Any) -> Any:
    """Rows and columns of all groups, (n_rows, n_groups, 2)."""
    codes = model.transform(X)
    return codes[:, model.n_components :].reshape(len(X), 2, -1).transpose(0, 2, 1)


def straight_paths(n_sequences: int, seed: int) -> list[tuple[Any, Any]]:
    """Sequences without a bounce: frames and centres of mass, which move evenly."""
    found = []
    while len(found) < n_sequences:
        X, _ = digits(1, seed)
        seed += 1
        mass = X.sum(axis=1, keepdims=True)
        rows, columns = np.divmod(np.arange(SIDE**2), SIDE)
        centre = np.column_stack([(X / mass) @ rows, (X / mass) @ columns])
        if np.abs(np.diff(centre, n=2, axis=0)).max() < 1e-6:
            found.append((X, centre))
    return found


def departures(model: LinearizingAutoencoder, paths: list[tuple[Any, Any]]) -> Any:
    """Largest departure of each group from the digit, (n_sequences, n_groups)."""
    found = []
    for X, centre in paths:
        places = places_of(model, X)
        moved = places - places[:1] - (centre - centre[:1])[:, None]
        found.append(np.linalg.norm(moved, axis=2).max(axis=0))
    return np.array(found)


def measure_motion(options: argparse.Namespace) -> Table:
    """Errors from the third frame on, curvature and places."""
    n_train, n_test = (20, 10) if options.quick else (options.sequences, 200)
    X, groups = digits(n_train, 0)
    X_test, groups_test = digits(n_test, 2 if options.validate else 1)
    begun = time.perf_counter()
    model = model_of(options).fit(X, groups=groups)
    seconds = time.perf_counter() - begun
    rows = third_rows(X_test)
    error = model.free_energy(X_test, groups=groups_test)[rows].mean()
    copied = ((X_test[rows] - X_test[rows - 1]) ** 2).sum(axis=1).mean()
    pixels = X_test[rows] - 2 * X_test[rows - 1] + X_test[rows - 2]
    continued = (pixels**2).sum(axis=1).mean()
    table = [
        shown("squared error of the next frame", round(float(error), 3)),
        shown("of the last frame", round(float(copied), 3)),
        shown("of continued pixels", round(float(continued), 3)),
        shown("below the last frame", f"{1 - error / copied:.0%}"),
        shown("below continued pixels", f"{1 - error / continued:.0%}"),
    ]
    n_paths = 3 if options.quick else 50
    paths = straight_paths(n_paths, 9000 if options.validate else 5000)
    group = int(np.median(departures(model, straight_paths(n_paths, 1000)), axis=0).argmin())
    place = departures(model, paths)[:, group]
    places = [
        shown("place, largest departure in pixels, median", round(float(np.median(place)), 2)),
        shown("90 % quantile", round(float(np.quantile(place, 0.9)), 2)),
    ]
    width = model.transform(X_test[:1]).shape[1]
    plain = Autoencoder(
        width, hidden_sizes=(128,), max_epochs=1 if options.quick else 40, random_state=0
    ).fit(X)
    straight = np.concatenate([frames for frames, _ in paths])
    names = np.repeat(np.arange(n_paths), N_STEPS)
    for title, frames, sequences in (
        ("curvature of paths", X_test, groups_test),
        ("curvature without bounces", straight, names),
    ):
        own, other = (curvature(m.transform(frames), sequences) for m in (model, plain))
        table += [
            shown(title, round(own, 3)),
            shown("of a plain auto-encoder", round(other, 3)),
            shown("times straighter", round(other / own, 1)),
        ]
    return [*table, *places, shown("seconds", round(seconds))]


def measure_turns(options: argparse.Namespace) -> Table:
    """Errors where every step turns."""
    n_train, n_test = (20, 10) if options.quick else (options.sequences, 100)
    X, groups = digits(n_train, 0, 1.0)
    X_test, groups_test = digits(n_test, 2 if options.validate else 1, 1.0)
    rows = third_rows(X_test)
    inner = {"inner_rate": options.inner_rate, "n_inner_steps": options.inner_steps}
    begun = time.perf_counter()
    model = model_of(options, n_deltas=2, unroll=options.unroll, **inner).fit(X, groups=groups)
    seconds = round(time.perf_counter() - begun)
    error = model.free_energy(X_test, groups=groups_test)[rows].mean()

    def errors(deltas: Any = None) -> Any:
        ahead = model.predict(X_test, groups=groups_test, deltas=deltas)
        return ((X_test[rows] - ahead[rows - 1]) ** 2).sum(axis=1)

    def beside(name: str, other: Any) -> list[object]:
        return shown(name, round(float(other), 3), f"{1 - error / other:.0%}")

    table = [
        beside("inferred latent of 2 dimensions", error),
        beside("mean prediction", errors().mean()),
    ]
    alone = model_of(options).fit(X, groups=groups)
    single = alone.free_energy(X_test, groups=groups_test)[rows].mean()
    table.append(beside("model without latent", single))
    random = np.random.default_rng(0)
    spread = model.infer_deltas(X, groups=groups)[third_rows(X)].std(axis=0)
    draws = [errors(spread * random.standard_normal((len(X_test), 2))) for _ in range(10)]
    table.append(beside("best of 10 random latents", np.min(draws, axis=0).mean()))
    return [*table, shown("seconds", seconds, "")]


def draw(options: argparse.Namespace, path: str) -> None:
    """A digit half-way between two frames, by models of both worlds."""
    import matplotlib.pyplot as plt

    n_train = 20 if options.quick else options.sequences
    frames, _ = digits(1, 6)
    first, middle, last = frames[2], frames[6], frames[10]
    tiles = {"the frame between": [middle, middle]}
    kinds = {
        "phase pooling, cosine": {},
        "phase pooling alone": {"curvature": 0.0},
        "cosine alone": {"pooling": "none", "n_components": 48, "hidden_sizes": (32, 64)},
        "neither": {
            "pooling": "none",
            "n_components": 48,
            "hidden_sizes": (32, 64),
            "curvature": 0.0,
        },
    }
    for name, changes in kinds.items():
        tiles[name] = []
        for turn in (0.0, 1.0):
            X, groups = digits(n_train, 0, turn)
            model = model_of(options, **changes).fit(X, groups=groups)
            tiles[name].append(model.interpolate(first, last, n=3)[1])
            print(
                name, f"turn={turn:g}", f"{((tiles[name][-1] - middle) ** 2).sum():.2f}", flush=True
            )
    fading = (first + last) / 2
    tiles["mean of the frames"] = [fading, fading]
    figure, axes = plt.subplots(2, len(tiles), figsize=(11, 4), layout="constrained")
    for column, (name, pair) in zip(axes.T, tiles.items(), strict=True):
        for ax, tile, world in zip(column, pair, ("straight", "turns"), strict=True):
            ax.imshow(tile.reshape(SIDE, SIDE), cmap="gray", vmin=0, vmax=1)
            ax.set_title(f"{name}\n{world}", fontsize="small")
            ax.set_axis_off()
    figure.savefig(path, dpi=80)


SECTIONS = {
    "motion": ("The next frame of moving digits", ["quantity", "value"], measure_motion),
    "turns": (
        "Turns that nothing announces",
        ["prediction", "squared error", "by how much the latent is below"],
        measure_turns,
    ),
}


def main() -> None:
    """Measure the sections that are named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--sequences", type=int, default=1000, help="digits to learn from")
    parser.add_argument("--channels", type=int, default=32, help="of the hidden layer")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--curvature", type=float, default=30.0, help="weight of the cosine")
    parser.add_argument("--inner-rate", type=float, default=5.0, help="size of inner steps")
    parser.add_argument("--inner-steps", type=int, default=5, help="their number")
    parser.add_argument("--unroll", action="store_true", help="differentiate through them")
    parser.add_argument("--figure", help="file to draw interpolated digits to")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--validate", action="store_true", help="score other sequences; no record")
    parser.add_argument("--save", action="store_true", help="write the results")
    options = parser.parse_args()
    set_threads(options.threads)
    for name in options.sections:
        title, columns, measure = SECTIONS[name]
        table = measure(options)
        if options.save and not (options.quick or options.validate):
            save_results(f"linearizing_{name}", title, columns, table)
    if options.figure:
        draw(options, options.figure)


if __name__ == "__main__":
    main()
