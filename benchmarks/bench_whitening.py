"""Speed of whitening 28 x 28 natural patches, and how close to the identity it comes.

50,000 patches of natural photographs (``SKLEBM_DATA``), against ``PCA(whiten=True)`` of
scikit-learn with its solvers "covariance_eigh" and "full". Each fits the same array; the quality is
the largest entry of the covariance of the whitened training rows minus the identity, in double
precision.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from _common import save_results, set_threads, timed_ratio
from sklearn.decomposition import PCA

from sklebm import PCAWhitener, ZCAWhitener

N_PATCHES = 50_000
SIZE = 28
MARGIN = 3  # some photographs have a dark frame


def natural_patches(n_patches: int, size: int, dtype: Any) -> Any:
    """Patches at random places of the photographs, as many from each, values in [0, 1]."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("bench_whitening.py needs natural_images.npz: set SKLEBM_DATA to its folder")
    archive = np.load(Path(folder) / "natural_images.npz")
    images = [archive[key] for key in sorted(archive.files) if key.startswith("img_")]
    generator = np.random.default_rng(0)
    patches = np.empty((n_patches, size * size), dtype)
    for row in range(n_patches):
        image = images[row * len(images) // n_patches]
        top, left = (generator.integers(MARGIN, side - MARGIN - size) for side in image.shape)
        patches[row] = image[top : top + size, left : left + size].ravel() / 255.0
    return patches


def identity_error(codes: Any) -> float:
    """Largest entry of cov(codes) - I."""
    covariance = np.cov(np.asarray(codes, np.float64).T)
    return float(np.abs(covariance - np.eye(len(covariance))).max())


def compare(dtype: Any) -> list[list[Any]]:
    """One row of the table for each contestant."""
    X = natural_patches(N_PATCHES, SIZE, dtype)
    models = {
        "sklearn PCA covariance_eigh": PCA(whiten=True, svd_solver="covariance_eigh"),
        "sklearn PCA full": PCA(whiten=True, svd_solver="full"),
        "sklebm PCAWhitener": PCAWhitener(),
        "sklebm ZCAWhitener": ZCAWhitener(ridge=0),
    }
    full = models.pop("sklearn PCA full")
    reference = "sklearn PCA covariance_eigh"
    timings = timed_ratio(
        {name: (lambda model=model: model.fit(X)) for name, model in models.items()},
        reference=reference,
        repeats=5,
    )
    # The slow one runs in rounds of its own with one fast one, so that it delays no other.
    slow = timed_ratio(
        {"full": lambda: full.fit(X), "ours": lambda: models["sklebm PCAWhitener"].fit(X)},
        reference="full",
        repeats=5,
        warmups=0,
    )
    rows = []
    for name, timing in timings.items():
        model = models[name]
        codes = model.transform(X)
        if isinstance(model, ZCAWhitener):
            codes = codes.astype(np.float64) @ model.components_.T
        row = [np.dtype(dtype).name, name, round(timing.median, 3), round(timing.spread, 2)]
        rows.append([*row, round(timing.ratio, 2), f"{identity_error(codes):.0e}"])
    row = [np.dtype(dtype).name, "sklearn PCA full", round(slow["full"].median, 3)]
    ratio = round(slow["full"].median / timings[reference].median, 2)
    rows.append(
        [*row, round(slow["full"].spread, 2), ratio, f"{identity_error(full.transform(X)):.0e}"]
    )
    print(f"{np.dtype(dtype).name}: PCAWhitener / full = {slow['ours'].ratio:.3f}")
    return rows


def main() -> None:
    """Measure and record."""
    set_threads(2)
    rows = [row for dtype in (np.float64, np.float32) for row in compare(dtype)]
    for row in rows:
        print(*row, sep="\t")
    save_results(
        "whitening",
        "Whitening 50,000 natural patches of 28 x 28",
        ["input", "contestant", "fit, median (s)", "spread", "ratio", "distance to identity"],
        rows,
        notes="Ratios are to PCA(whiten=True, svd_solver='covariance_eigh') on the same input. "
        "With float32 input scikit-learn computes the covariance in float32, which is faster and "
        "loses the directions of small variance; sklebm always accumulates in float64. Both "
        "compute one symmetric product X'X and one eigh, so float64 times can differ little. "
        "Distance to identity: largest entry of cov(whitened rows) - I. 2 threads.",
        turns="Contestants took turns, but 'full' in rounds of its own with PCAWhitener.",
    )


if __name__ == "__main__":
    main()
