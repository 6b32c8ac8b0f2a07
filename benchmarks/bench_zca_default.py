"""How much held-out log density each way to limit amplification loses to the best: the ZCA default.

Every data set is split twice, with 80 % and 25 % of the rows for training and the same held-out
fifth. A Gaussian with the covariance of the training rows gets relative ridges from 0 to 10, or the
shrinkage of Ledoit and Wolf or of Chen et al. (OAS). The regret of a choice is what it loses, per
feature, to the best of all on these rows. MNIST takes no part in the choice and is reported apart:
the largest variance of a whitened test pixel.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _common import save_results, set_threads
from sklearn.datasets import load_digits

from sklebm import ZCAWhitener

RIDGES = [0.0, *10.0 ** np.arange(-5, 1.01, 0.5)]
CHOICES: dict[str, dict[str, Any]] = {
    **{f"ridge={ridge:.3g}": {"ridge": float(ridge)} for ridge in RIDGES},
    "ledoit_wolf": {"ridge": 0.0, "shrinkage": "ledoit_wolf"},
    "oas (the default)": {},
}


def data_sets(folder: Path) -> Iterator[tuple[str, Any]]:
    """Images, frames and the normal rows of tables; no MNIST."""
    generator = np.random.default_rng(0)
    yield "digits", load_digits().data
    clothes = np.load(folder / "fashion_mnist_test.npz")["x_train"][:6000]
    yield "fashion", clothes.reshape(6000, -1) / 255.0
    photographs = np.load(folder / "cifar10_small.npz")["x_train"][:6000].mean(axis=3)
    yield "cifar, 16 x 16", photographs[:, ::2, ::2].reshape(6000, -1) / 255.0
    archive = np.load(folder / "natural_images.npz")
    images = [archive[key] for key in sorted(archive.files) if key.startswith("img_")]
    patches = np.empty((8000, 196))
    for row in range(len(patches)):
        image = images[row * len(images) // len(patches)]
        top, left = (generator.integers(3, side - 17) for side in image.shape)
        patches[row] = image[top : top + 14, left : left + 14].ravel() / 255.0
    yield "patches", patches
    yield "silhouettes", np.load(folder / "silhouettes.npz")["x"][:6000].reshape(6000, -1) * 1.0
    frames = np.load(folder / "video.npz")["frames"][:, ::6, ::6]
    yield "video", frames.reshape(len(frames), -1) / 255.0
    for part in ("adbench_dev", "adbench_more"):
        for path in sorted((folder / part).glob("*.npz")):
            table = np.load(path)
            rows = table["X"].astype(np.float64)[table["y"] == 0]
            yield path.stem, rows[generator.permutation(len(rows))[:4000]]


def regrets(X: Any) -> Iterator[Any]:
    """What each choice loses to the best, for two sizes of the training part."""
    X = X[np.random.default_rng(0).permutation(len(X))]
    test = X[-max(len(X) // 5, 5) :]
    for share in (0.8, 0.25):
        train = X[: int(share * len(X))]
        scores = [ZCAWhitener(**choice).fit(train).score(test) for choice in CHOICES.values()]
        yield (max(scores) - np.array(scores)) / X.shape[1]


def largest_variance(folder: Path, choice: dict[str, Any]) -> float:
    """Of a whitened test pixel of MNIST, with 20,000 training rows."""
    digits = np.load(folder / "mnist.npz")
    train, test = (digits[key].reshape(-1, 784) / 255.0 for key in ("x_train", "x_test"))
    return float(ZCAWhitener(**choice).fit(train[:20_000]).transform(test).var(axis=0).max())


def main() -> None:
    """Measure and record."""
    if not os.environ.get("SKLEBM_DATA"):
        sys.exit("bench_zca_default.py needs data: set SKLEBM_DATA to their folder")
    folder = Path(os.environ["SKLEBM_DATA"])
    set_threads(2)
    warnings.simplefilter("ignore", UserWarning)  # constant pixels, once a fit
    table = np.array([row for _, X in data_sets(folder) for row in regrets(X)])
    rows = []
    for (name, choice), lost in zip(CHOICES.items(), table.T, strict=True):
        row = [name, round(float(lost.mean()), 3), round(float(np.median(lost)), 3)]
        rows.append([*row, round(float(np.quantile(lost, 0.95)), 3)])
        rows[-1].append(f"{largest_variance(folder, choice):.3g}")
        print(*rows[-1], sep="\t", flush=True)
    save_results(
        "zca_default",
        "Held-out log density lost to the best ridge or shrinkage, in nats per feature",
        ["choice", "mean", "median", "95 % quantile", "largest variance of MNIST test pixels"],
        rows,
        notes=f"{len(table)} splits. MNIST took no part in the choice.",
    )


if __name__ == "__main__":
    main()
