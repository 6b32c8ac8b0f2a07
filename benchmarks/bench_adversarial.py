"""Adversarial models: modes covered, digits covered, and what the critics' energies tell apart.

- `modes`: a ring of 8 and a grid of 25 Gaussians in the plane, five seeds: modes that hold at least
  a tenth of their share, samples within 4 standard deviations, the divergence of the shares of the
  modes from the true ones, the standard deviation of samples within a mode over the true one, and
  the energy distance of samples to new rows; fresh data, judged as samples are, are the reference.
  A second table has the energy distance to held-out rows by epoch, of the seed in the middle.
  `--development` counts modes of a ring of 6 and a lattice of 9 with other noise and another seed,
  for choosing settings.
- `games`: the same for the other two objectives of GAN, which take longer, with three seeds.
- `mnist`: samples of convolutional models, sorted by a classifier: the smallest share of a digit.
- `energies`: AUROC of the energies of an EnergyGAN of MNIST against uniform noise and Fashion.
- `algebra`: mean latents of thick threes minus thin threes plus thin sevens, the class of what this
  decodes to, and its thickness: twice the ink over the total variation, which for a stroke with
  sharp edges is its width in pixels; beside it what the mean latent of thick sevens decodes to.
  `--figure FILE` draws what the latents decode to.

The last three need the folder of data sets named by SKLEBM_DATA, and judge the same two models.
These are trained once in a run; `--folder` keeps them, and their minutes, for other runs.

    python benchmarks/bench_adversarial.py modes games [--quick] [--epochs 100] [--development]
    python benchmarks/bench_adversarial.py mnist energies algebra [--folder F] [--device cuda]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import save_results, set_threads
from bench_deep_machines import kept
from scipy.special import rel_entr
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

import sklebm
from sklebm import GAN, EnergyGAN
from sklebm.objectives.adversarial import energy_distance

Rows = list[list[object]]


def load(name: str) -> tuple[Any, ...]:
    """Images of a set as rows in [0, 1], training and test, with labels."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("SKLEBM_DATA is not set: this section needs the folder of data sets.")
    with np.load(Path(folder) / name, allow_pickle=False) as data:
        x = [data[f"x_{part}"].reshape(-1, 784).astype(np.float32) / 255 for part in PARTS]
        return *x, *(data[f"y_{part}"] for part in PARTS)


PARTS = ("train", "test")


def ring(n_modes: int, radius: float) -> Any:
    """Means on a circle."""
    angle = 2 * np.pi * np.arange(n_modes) / n_modes
    return radius * np.c_[np.cos(angle), np.sin(angle)]


def lattice(n_sides: int) -> Any:
    """Means on a square lattice of distance 2."""
    side = 2.0 * np.arange(n_sides) - (n_sides - 1)
    return np.stack([part.ravel() for part in np.meshgrid(side, side)], axis=1)


#: Means and standard deviations.
WORLDS = {"ring": (ring(8, 2.0), 0.05), "grid": (lattice(5), 0.1)}
DEVELOPMENT = {"ring of 6": (ring(6, 3.0), 0.1), "lattice of 9": (lattice(3), 0.08)}


def make(kind: str, seed: int, options: argparse.Namespace) -> Any:
    """The model of the plane; settings chosen with ``--development``."""
    common: dict[str, Any] = {"validation_fraction": 0.1, "random_state": seed, "device": "cpu"}
    if options.quick:
        common["max_epochs"] = 3
    elif options.epochs is not None:
        common["max_epochs"] = options.epochs
    if kind == "EnergyGAN":
        return EnergyGAN(2, **PLANE_ENERGY, **common)
    return GAN(2, **GAMES[kind], **common)


#: Settings that differ from the defaults. A Wasserstein critic must be near its optimum, and the
#: documentation asks for three steps at least.
GAMES: dict[str, dict[str, Any]] = {
    "GAN": {},
    "GAN, least squares": {"objective": "least_squares"},
    "GAN, Wasserstein": {"objective": "wasserstein_gp", "critic_steps": 3},
}
PLANE_ENERGY: dict[str, Any] = {"margin": 0.5, "batch_size": 256}


def judged(samples: Any, centres: Any, noise: float, new: Any, scale: Any) -> list[float]:
    """Modes found, per cent near one, KL of shares, width over the true one, energy distance."""
    away = np.linalg.norm(samples[:, None] - centres, axis=2)
    near, nearest = away.min(axis=1) < 4 * noise, away.argmin(axis=1)
    counts = np.bincount(nearest[near], minlength=len(centres))
    modes = int((counts >= 0.1 * len(samples) / len(centres)).sum())
    # Of the shares of the modes, and of what is near none, from those of the truth.
    outside = np.exp(-8.0)  # of a Gaussian in the plane, beyond four standard deviations
    truth = np.append(np.full(len(centres), (1.0 - outside) / len(centres)), outside)
    shares = np.append(counts, len(samples) - counts.sum()) / len(samples)
    divergence = float(rel_entr(shares, truth).sum())
    squares, freedom = 0.0, 0
    for mode in np.flatnonzero(counts > 1):
        rows = samples[near & (nearest == mode)]
        squares += float(np.square(rows - rows.mean(axis=0)).sum())
        freedom += 2 * (len(rows) - 1)
    width = np.sqrt(squares / freedom) / noise if freedom else float("nan")
    distance = energy_distance(torch.from_numpy(samples[:2000] / scale), new)
    return [modes, 100 * float(near.mean()), divergence, width, distance]


def middle_of(values: Any) -> object:
    """The median, in which what is unknown, as after divergence, is worse than all numbers."""
    middle = np.median([value if np.isfinite(value) else np.inf for value in values])
    return round(float(middle), 4) if np.isfinite(middle) else "-"


def count_modes(options: argparse.Namespace) -> None:
    """Modes of rings and grids, by default."""
    rows, notes, curves, curve_notes = measure(options, ("GAN", "EnergyGAN"), 5)
    show(options, "adversarial_modes", "Modes in the plane", MODE_COLUMNS, rows, notes)
    columns = ["model", "modes of", "epoch", "energy distance to held-out rows"]
    title = "Modes in the plane: energy distance by epoch"
    show(options, "adversarial_curves", title, columns, curves, curve_notes)


def compare_games(options: argparse.Namespace) -> None:
    """Modes that the other objectives of GAN find."""
    rows, notes, _, _ = measure(options, ("GAN, least squares", "GAN, Wasserstein"), 3)
    title = "Modes in the plane: other games"
    show(options, "adversarial_games", title, MODE_COLUMNS, rows, notes)


MODE_COLUMNS = ["model", "modes of", "there are", "found", "near %", "KL (nats)", "width / true"]
MODE_COLUMNS += ["energy distance", "least", "most"]


def measure(
    options: argparse.Namespace, kinds: tuple[str, ...], n_seeds: int
) -> tuple[Rows, str, Rows, str]:
    """Rows and notes of modes, and of learning curves."""
    rows: Rows = []
    curves: Rows = []
    worlds = DEVELOPMENT if options.development else WORLDS
    seeds, diverged = range(1 if options.quick or options.development else n_seeds), 0
    for shape, (centres, noise) in worlds.items():
        rng = np.random.default_rng(100 if options.development else 0)

        def draw(n: int, rng: Any = rng, centres: Any = centres, noise: float = noise) -> Any:
            return centres[rng.integers(len(centres), size=n)] + noise * rng.normal(size=(n, 2))

        X = draw(1000 if options.quick else 10_000)
        scale = X.std(axis=0)
        new = torch.from_numpy(draw(2000) / scale)
        about = (centres, noise, new, scale)
        found = {"data": [judged(draw(10_000), *about) for _ in seeds]}
        for kind in kinds:
            found[kind], models = [], []
            for seed in seeds:
                model = make(kind, 1000 + seed if options.development else seed, options)
                try:
                    samples = model.fit(X).sample(10_000, random_state=0)
                    found[kind].append(judged(samples, *about))
                    models.append(model)
                except FloatingPointError as error:  # counts as nothing found
                    print(error)
                    found[kind].append([0, 0.0, np.nan, np.nan, np.nan])
                    models.append(None)
                print(kind, shape, seed, np.round(found[kind][-1], 4), flush=True)
            order = np.argsort(
                [distance for *_, distance in found[kind]]
            )  # those that diverged last
            order = [place for place in order if models[place] is not None]
            if not order:
                continue
            middle: Any = models[order[len(order) // 2]]
            scores = middle.validation_scores_
            for epoch in np.unique(np.linspace(0, len(scores) - 1, 10).round().astype(int)):
                curves.append([kind, shape, int(epoch) + 1, round(-float(scores[epoch]), 4)])
        for kind, values in found.items():
            medians = [middle_of(column) for column in zip(*values, strict=True)]
            known = [v[-1] for v in values if np.isfinite(v[-1])]
            ends = [round(float(f(known)), 4) if known else "-" for f in (np.min, np.max)]
            rows.append([kind, shape, len(centres), *medians, *ends])
            diverged += len(values) - len(known)
    epochs = (
        "As many epochs as by default" if options.epochs is None else f"{options.epochs} epochs"
    )
    settings = ", ".join(f"{name} {value}" for name, value in PLANE_ENERGY.items())
    others = (
        f"but for, of EnergyGAN, {settings}. Settings were chosen on a ring of 6 and a lattice of 9"
        if "EnergyGAN" in kinds
        else "but for 3 steps of the Wasserstein critic. These games were not tuned"
    )
    notes = (
        f"{epochs}, of 9,000 rows; medians of {len(seeds)} seeds, and the least and most energy "
        f"distance. Two latents, all else as by default, {others}. KL: of the shares of the modes "
        "and of what is near none, from the true shares. Width: standard deviation of "
        "samples near a mode about their mean. Energy distance: 2,000 samples and "
        "2,000 new rows, in standard units, without bias, so that it is 0 on average for equal "
        "distributions and can be below. Data: fresh rows that "
        "take the place of samples. Fits that diverged, and count as none found: "
        f"{diverged or 'none'}. {options.threads} thread(s)."
    )
    curve_notes = (
        f"{epochs}. At most ten epochs of the seed whose final energy distance is the median of "
        f"{len(seeds)}, without those that diverged; 1,000 held-out rows."
    )
    return rows, notes, curves, curve_notes


# ---------------------------------------------------------------------- images

# The passes that 20 minutes of two cores are estimated to allow the slower of the two.
IMAGE_CHANNELS, IMAGE_LATENTS, IMAGE_EPOCHS = (32, 64), 64, 14
IMAGE_NOTES = (
    f"Convolutional networks of {' and '.join(map(str, IMAGE_CHANNELS))} channels, {IMAGE_LATENTS} "
    f"latents, {IMAGE_EPOCHS} epochs of the 60,000 images, one seed, all else as by default."
)
_trained: dict[type, tuple[Any, float]] = {}


def image_model(options: argparse.Namespace, kind: Any = EnergyGAN) -> tuple[Any, float]:
    """Convolutional players of MNIST, and their minutes; trained once in a run."""
    if kind not in _trained:
        X = load("mnist.npz")[0][: 1000 if options.quick else None]
        epochs = 1 if options.quick else IMAGE_EPOCHS

        def train() -> tuple[Any, int, float]:
            model = kind(
                IMAGE_LATENTS,
                image_shape=(28, 28),
                hidden_sizes=IMAGE_CHANNELS,
                max_epochs=epochs,
                random_state=0,
                device=options.device,
            )
            begin = time.perf_counter()
            model.fit(X)
            return model, epochs, time.perf_counter() - begin

        if options.folder:
            channels = " ".join(map(str, IMAGE_CHANNELS))
            name = f"{kind.__name__}, {IMAGE_LATENTS} latents, {channels}, {epochs} of {len(X)}, "
            name += f"{options.threads} threads, {resolved(options.device)}, {state_of(kind)}"
            model, _, seconds = kept(options.folder, name, train, [])
        else:
            model, _, seconds = train()
        _trained[kind] = model, seconds / 60
    return _trained[kind]


def resolved(device: str) -> str:
    """The device that "auto" stands for."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def state_of(kind: Any) -> str:
    """What changes when the library or a default does, so that an older model is not taken."""
    package = Path(sklebm.__file__).parent
    digest = hashlib.sha256(repr(kind().get_params()).encode())
    for path in sorted(package.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:10]


@cache
def digit_judge(quick: bool) -> Any:
    """A classifier of digits, learnt from the training images."""
    X, _, y, _ = load("mnist.npz")
    n, epochs = (1000, 5) if quick else (len(X), 15)
    with warnings.catch_warnings():
        # It is stopped early on purpose; how well it judges test digits stands in the notes.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return MLPClassifier((256,), max_iter=epochs, random_state=0).fit(X[:n], y[:n])


def shares(judge: Any, images: Any) -> list[float]:
    """Digits that a twenty-fifth of the images are, the rarest one's share, and of sure answers."""
    chances = judge.predict_proba(images)
    found = 100 * np.bincount(chances.argmax(axis=1), minlength=10) / len(images)
    sure = 100 * float((chances.max(axis=1) > 0.9).mean())
    return [int((found >= 4).sum()), round(float(found.min()), 2), round(sure, 1)]


def cover_digits(options: argparse.Namespace) -> None:
    """Shares of the digits among samples."""
    _, X_test, _, y_test = load("mnist.npz")
    judge = digit_judge(options.quick)
    rows: Rows = []
    for kind in (GAN, EnergyGAN):
        model, minutes = image_model(options, kind)
        samples = model.sample(5000, random_state=0).clip(0.0, 1.0)
        rows.append([kind.__name__, round(minutes, 1), *shares(judge, samples)])
    rows.append(["test images", "-", *shares(judge, X_test)])
    notes = (
        f"{IMAGE_NOTES} Samples are clipped to [0, 1]. Surely a digit: the classifier gives one of "
        "them more than .9; it knows nothing but digits. Its accuracy on test digits: "
        f"{judge.score(X_test, y_test):.3f}. {options.threads} thread(s)."
    )
    columns = ["model", "minutes", "digits of at least 4 %", "least %", "surely a digit %"]
    show(options, "adversarial_mnist", "Digits among 5,000 samples", columns, rows, notes)


def compare_energies(options: argparse.Namespace) -> None:
    """AUROC of energies."""
    X_test = load("mnist.npz")[1]
    fashion = load("fashion_mnist_test.npz")[1]
    noise = np.random.default_rng(0).uniform(size=(2000, 784)).astype(np.float32)
    model, _ = image_model(options)
    rows: Rows = []
    for name, others in (("uniform noise", noise), ("Fashion", fashion[:2000])):
        scores = model.free_energy(np.vstack([X_test[:2000], others]))
        rows.append([name, round(roc_auc_score(np.repeat([0, 1], 2000), scores), 4)])
    columns = ["MNIST against", "AUROC"]
    notes = f"2,000 test images of each. {IMAGE_NOTES} {options.threads} thread(s)."
    show(options, "adversarial_energies", "Energies of an EnergyGAN", columns, rows, notes)


def thickness(rows: Any) -> Any:
    """Mean width of the strokes of each image, in pixels."""
    images = np.pad(rows.reshape(-1, 28, 28), ((0, 0), (1, 1), (1, 1)))
    down, across = (np.diff(images, axis=axis) for axis in (1, 2))
    edges = np.hypot(down[:, :, :-1], across[:, :-1]).sum(axis=(1, 2))
    return 2.0 * images.sum(axis=(1, 2)) / edges


def add_latents(options: argparse.Namespace) -> None:
    """Thickness of thick threes - thin threes + thin sevens."""
    X, X_test, y, y_test = load("mnist.npz")
    model, _ = image_model(options, GAN)
    judge, width = digit_judge(options.quick), thickness(X)
    n, n_starts = (3, 1) if options.quick else (20, 2)

    def ends(digit: int) -> tuple[Any, Any]:
        rows = np.flatnonzero(y == digit)
        order = rows[np.argsort(width[rows])]
        return X[order[:n]], X[order[-n:]]

    (thin3, thick3), (thin7, thick7) = ends(3), ends(7)
    a, b, c, d = (
        model.invert(rows, n_starts=n_starts).mean(axis=0)
        for rows in (thick3, thin3, thin7, thick7)
    )
    latents = {"thick threes": a, "thin threes": b, "thin sevens": c, "the sum": a - b + c}
    latents["thick sevens"] = d  # what the sum should look like
    decoded = model.generate(np.array(list(latents.values()))).clip(0.0, 1.0)
    rows: Rows = [
        [f"{n} {name}", "-", round(float(thickness(images).mean()), 3)]
        for name, images in (("thin sevens", thin7), ("thick sevens", thick7))
    ]
    for name, image, digit in zip(latents, decoded, judge.predict(decoded), strict=True):
        rows.append([f"decoded: {name}", int(digit), round(float(thickness(image)[0]), 3)])
    columns = ["images", "class", "thickness (pixels)"]
    notes = (
        f"Mean latents of the {n} thinnest and the {n} thickest training images of a digit, "
        f"inverted from {n_starts} starts. A mean latent is shorter than those of single images: "
        "compare the sum with what the mean latent of thick sevens decodes to. Decoded images are "
        "clipped to [0, 1]; their edges are softer than those of the data, whose thickness is not "
        f"comparable. GAN. {IMAGE_NOTES} The classifier's accuracy on test digits: "
        f"{judge.score(X_test, y_test):.3f}. {options.threads} thread(s)."
    )
    show(options, "adversarial_algebra", "Latents that are added", columns, rows, notes)
    if options.figure:
        draw(decoded, list(latents), options.figure)


def draw(images: Any, names: list[str], path: str) -> None:
    """What the latents of the sum decode to, with their signs, and the reference."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(images), figsize=(11, 2.6), layout="constrained")
    signs = ("", "- ", "+ ", "= ", "beside: ")
    for ax, image, name, sign in zip(axes, images, names, signs, strict=True):
        ax.imshow(image.reshape(28, 28), cmap="gray_r", vmin=0, vmax=1)
        ax.set_title(sign + name)
        ax.set_axis_off()
    figure.savefig(path, dpi=80)


SECTIONS = {
    "modes": count_modes,
    "games": compare_games,
    "mnist": cover_digits,
    "energies": compare_energies,
    "algebra": add_latents,
}


def show(
    options: argparse.Namespace,
    name: str,
    title: str,
    columns: list[str],
    rows: Rows,
    notes: str = "",
) -> None:
    """Print a table, and store it unless the run was quick, for development, or to be printed."""
    print(title, columns, *rows, notes, sep="\n", flush=True)
    if not (options.quick or options.development or options.print_only):
        save_results(name, title, columns, rows, notes=notes)


def main() -> None:
    """Run the sections."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sections", nargs="+", choices=sorted(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is stored")
    parser.add_argument("--epochs", type=int, help="of the plane; the models' own if left out")
    parser.add_argument("--development", action="store_true", help="worlds for choosing settings")
    parser.add_argument("--print-only", action="store_true", help="nothing is stored")
    parser.add_argument("--folder", type=Path, help="where models of images are kept")
    parser.add_argument("--figure", help="file for the drawing of `algebra`")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.development and not {"modes", "games"}.issuperset(options.sections):
        parser.error("models of images have nothing to choose: leave --development out")
    set_threads(options.threads)
    for section in options.sections:
        SECTIONS[section](options)


if __name__ == "__main__":
    main()
