"""Patches of natural photographs, as the benchmarks of sparse codes use them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np


def whitened_patches(n_rows: int, size: int, seed: int = 0) -> np.ndarray:
    """Patches without their mean, whitened (ridge 1 % of the mean variance), of length one."""
    patches = _raw_patches(n_rows, size, seed)
    variances, directions = np.linalg.eigh(patches.T @ patches / len(patches))
    kept = variances > 1e-6 * variances.max()
    scale = 1 / np.sqrt(variances[kept] + 0.01 * variances.mean())
    return _of_length_one(patches @ ((directions[:, kept] * scale) @ directions[:, kept].T))


def plain_patches(n_rows: int, size: int, seed: int = 0) -> np.ndarray:
    """Patches without their mean, of length one, not whitened."""
    return _of_length_one(_raw_patches(n_rows, size, seed))


def _of_length_one(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _raw_patches(n_rows: int, size: int, seed: int) -> np.ndarray:
    """Patches without their mean, from random places of all photographs."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("This benchmark needs natural_images.npz in the folder named by SKLEBM_DATA.")
    images = np.load(Path(folder) / "natural_images.npz")
    names = sorted(name for name in images.files if name.startswith("img_"))
    generator = np.random.default_rng(seed)
    rows = []
    for name in names:
        image = images[name].astype(float) / 255
        count = n_rows // len(names) + 1
        tops = generator.integers(3, image.shape[0] - size - 3, count)
        lefts = generator.integers(3, image.shape[1] - size - 3, count)
        rows += [
            image[i : i + size, j : j + size].ravel() for i, j in zip(tops, lefts, strict=True)
        ]
    patches = np.array(rows)[generator.permutation(len(rows))[:n_rows]]
    return patches - patches.mean(axis=1, keepdims=True)
