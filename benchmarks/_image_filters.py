"""Orientation and position of filters that are small images, and how smooth a map of them is."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import rotate

MARGIN = 3  # some photographs have a dark frame


def windows(n_rows: int, size: int, held_out: bool, seed: int = 0) -> Any:
    """Square windows of every fifth photograph (``held_out``), or of the others; in [0, 1]."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("This benchmark needs natural_images.npz in the folder named by SKLEBM_DATA.")
    archive = np.load(Path(folder) / "natural_images.npz")
    names = sorted(name for name in archive.files if name.startswith("img_"))
    images = [archive[name] for i, name in enumerate(names) if (i % 5 == 0) == held_out]
    generator = np.random.default_rng([seed, held_out])
    rows = np.empty((n_rows, size, size))
    for row in range(n_rows):
        image = images[row % len(images)]
        top, left = (generator.integers(MARGIN, side - MARGIN - size) for side in image.shape)
        rows[row] = image[top : top + size, left : left + size]
    return (rows + generator.uniform(size=rows.shape)) / 256  # noise of one grey level


def orientations(images: Any) -> Any:
    """Angle modulo 180 degrees of the strongest gratings, in degrees, (n_images,).

    The mean of (x + iy)^2 over frequencies (x, y), weighted by power: twice the angle.
    """
    n_rows, n_columns = images.shape[1:]
    power = np.abs(np.fft.fft2(images)) ** 2
    frequency = np.fft.fftfreq(n_columns) + 1j * np.fft.fftfreq(n_rows)[:, None]
    return np.degrees(np.angle((power * frequency**2).sum(axis=(1, 2)))) / 2


def centres(images: Any) -> Any:
    """Centres of gravity of the squared pixels, row and column, (n_images, 2)."""
    energy = np.square(images)
    energy /= energy.sum(axis=(1, 2), keepdims=True)
    rows, columns = np.indices(images.shape[1:])
    return np.stack([(energy * rows).sum(axis=(1, 2)), (energy * columns).sum(axis=(1, 2))], axis=1)


def neighbour_differences(angles: Any, places: Any, shape: tuple[int, int]) -> Any:
    """Mean over neighbours on a torus: degrees between orientations, pixels between centres."""
    angles, places = angles.reshape(shape), places.reshape(*shape, 2)
    turned, moved = [], []
    for axis in (0, 1):
        gap = np.abs(angles - np.roll(angles, 1, axis)) % 180
        turned.append(np.minimum(gap, 180 - gap))
        moved.append(np.linalg.norm(places - np.roll(places, 1, axis), axis=2))
    return np.array([np.mean(turned), np.mean(moved)])


def smoothness(images: Any, shape: tuple[int, int], n_shuffles: int = 1000) -> dict[str, Any]:
    """Differences between neighbours of the map, and of ``n_shuffles`` shuffled maps.

    Arrays of two numbers, for orientations and centres: ``map``, ``shuffled`` (mean of the
    shuffled maps), ``z`` (how many of their deviations the map lies below), and ``p`` (share of
    maps, it among them, that are at least as smooth).
    """
    angles, places = orientations(images), centres(images)
    rng = np.random.default_rng(0)
    own = neighbour_differences(angles, places, shape)
    orders = (rng.permutation(len(images)) for _ in range(n_shuffles))
    others = np.array([neighbour_differences(angles[o], places[o], shape) for o in orders])
    mean, deviation = others.mean(axis=0), others.std(axis=0)
    p = (1 + (others <= own).sum(axis=0)) / (1 + n_shuffles)
    return {"map": own, "shuffled": mean, "z": (mean - own) / deviation, "p": p}


def moved_patches(windows: Any, size: int, shift: int, degrees: float = 0.0) -> Any:
    """Patches from the middle of larger windows, turned and then moved to the right, flattened."""
    turned = windows
    if degrees:
        turned = rotate(windows, degrees, axes=(1, 2), reshape=False, order=1)
    top = (windows.shape[1] - size) // 2
    left = (windows.shape[2] - size) // 2 - shift
    return turned[:, top : top + size, left : left + size].reshape(len(windows), -1)


def change(before: Any, after: Any) -> float:
    """Mean squared distance of answers of length one, as a share of that to another patch's."""
    before, after = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (before, after))
    others = np.roll(before, 1, axis=0)
    return float(np.square(after - before).sum() / np.square(others - before).sum())
