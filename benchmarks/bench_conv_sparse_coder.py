"""Convolutional sparse coding beside sporco and alphacsc: time, objective, denoising, inpainting.

Four natural images of 256 x 256 in [0, 1], the smooth part (Tikhonov 5) taken off, 32 kernels of
9 x 9, alpha 0.05, float32. Codes: seconds until the objective is within 1e-3 of the lowest that any
solver found. Kernels: objective against seconds, from the same start. A synthetic one-dimensional
problem: cosines of the atoms that are found. Denoising at sigma 0.1 and inpainting of half of the
pixels, by kernels cut from other photographs: PSNR. Time, and the size of the temporary arrays by
their formula, against image size and number of kernels. sporco and alphacsc are
optional: without them the table says so, and holds our own rows alone. Needs SKLEBM_DATA.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import time
from pathlib import Path

import numpy as np
import torch
from _common import save_results, set_threads

from sklebm import ConvSparseCoder
from sklebm.energies import L1
from sklebm.energies.convolution import (
    ConvolutionalCodingEnergy,
    ConvolutionGrid,
    smooth_part,
)
from sklebm.inference.convolutional import solve_maps

ALPHA, LOW_PASS, KERNEL = 0.05, 5.0, 9


def version(package):
    """The installed version of an optional peer, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def photographs(n, side, first=0):
    """Rows in [0, 1] from the centres of natural images, ``first`` and those after it."""
    path = Path(os.environ["SKLEBM_DATA"]) / "natural_images.npz"
    with np.load(path) as images:
        parts = [
            images[f"img_{i:03d}"][20 : 20 + side, 20 : 20 + side] / 255
            for i in range(first, first + n)
        ]
    return np.stack(parts).astype(np.float32)


def first_kernels(images, n, seed=0):
    """The longest of ten times as many random patches, scaled to length one."""
    generator = np.random.default_rng(seed)
    patches = []
    for _ in range(10 * n):
        image = images[generator.integers(len(images))]
        i, j = generator.integers(0, image.shape[0] - KERNEL, 2)
        patches.append(image[i : i + KERNEL, j : j + KERNEL])
    lengths = np.linalg.norm(patches, axis=(1, 2))
    longest = np.argsort(-lengths)[:n]
    return (np.stack(patches)[longest] / lengths[longest, None, None]).astype(np.float32)


def sharp_parts(images):
    """Images without their smooth part."""
    planes = torch.from_numpy(images)[:, None]
    return (planes - smooth_part(planes, LOW_PASS))[:, 0].numpy()


def code_curves(sharp, kernels):
    """Objective and seconds of our solvers at a series of duality gaps."""
    n, side = len(sharp), sharp.shape[1]
    grid = ConvolutionGrid(side, side, 1, KERNEL, KERNEL)
    x = torch.from_numpy(sharp.reshape(n, -1))
    atoms = torch.from_numpy(kernels.reshape(len(kernels), -1))
    energy = ConvolutionalCodingEnergy(atoms, L1(), ALPHA, grid)
    solve_maps(x, atoms, L1(), ALPHA, grid, tol=1e-3)  # compiles
    curves = {}
    for method, gaps in {
        "greedy": (3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3),
        "fista": (3e-1, 1e-1, 3e-2),
        "admm": (3e-1, 1e-1, 3e-2, 1e-2),
    }.items():
        curves[method] = []
        for gap in gaps:
            start = time.perf_counter()
            found = solve_maps(x, atoms, L1(), ALPHA, grid, method=method, tol=gap)
            seconds = time.perf_counter() - start
            curves[method].append((seconds, float(energy.energy(x, found.codes).sum())))
    return curves


def sporco_curve(sharp, kernels, n_iter):
    """sporco's ADMM with its own options: objective after each iteration, at equal seconds."""
    from sporco.admm import cbpdn

    options = cbpdn.ConvBPDN.Options(
        {"Verbose": False, "MaxMainIter": n_iter, "RelStopTol": 1e-4, "DataType": np.float32}
    )
    signal = np.moveaxis(sharp, 0, 2)
    solver = cbpdn.ConvBPDN(np.moveaxis(kernels, 0, 2), signal, ALPHA, options, dimK=1)
    solver.solve()
    stats = solver.getitstat()
    return list(
        zip(np.asarray(stats.Time).tolist(), np.asarray(stats.ObjFun).tolist(), strict=True)
    )


def seconds_within(curve, best, share=1e-3):
    """Seconds until the objective is within this share of the best."""
    return next((s for s, value in curve if value <= best * (1 + share)), None)


def learning_curve(sharp, kernels, n_passes):
    """Objective of our kernels after each pass, with codes to a gap of 1e-4, and seconds."""
    n, side = len(sharp), sharp.shape[1]
    X, points, seconds = sharp.reshape(n, -1), [], 0.0
    start_kernels = kernels.reshape(len(kernels), -1)
    options = {"kernel_size": KERNEL, "image_shape": (side, side), "alpha": ALPHA}
    for _ in range(n_passes):
        begin = time.perf_counter()
        coder = ConvSparseCoder(
            dict_init=start_kernels, max_iter=1, algorithm="batch", random_state=0, **options
        ).fit(X)
        seconds += time.perf_counter() - begin
        start_kernels = coder.components_
        value = -coder.set_params(code_tol=1e-4).score(X) * n
        points.append((seconds, float(value)))
    return points


def planted_signals(n_signals, length, seed=0):
    """Sparse sums of two waveforms with noise: alphacsc's kind of problem."""
    generator = np.random.default_rng(seed)
    t = np.linspace(0, 1, 32)
    atoms = np.stack([np.sin(6 * np.pi * t) * np.hanning(32), np.sign(t - 0.5) * np.hanning(32)])
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    X = 0.02 * generator.standard_normal((n_signals, length))
    for row in X:
        for place in generator.integers(0, length - 32, 4):
            row[place : place + 32] += generator.uniform(1, 2) * atoms[generator.integers(2)]
    return X, atoms


def best_cosines(found, atoms):
    """For each true atom, the largest normalised cross-correlation with one that was found."""
    return [
        max(
            float(np.abs(np.correlate(one / np.linalg.norm(one), atom, "full")).max())
            for one in found
        )
        for atom in atoms
    ]


def recovery(n_signals, length):
    """Cosines and seconds of ours, and of alphacsc if it can be imported."""
    X, atoms = planted_signals(n_signals, length)
    start = time.perf_counter()
    coder = ConvSparseCoder(
        2, kernel_size=32, boundary="zero", alpha=0.1, penalty="nonnegative", max_iter=50,
        random_state=0,
    ).fit(X)  # fmt: skip
    seconds = time.perf_counter() - start
    table = {"sklebm": {"seconds": seconds, "cosines": best_cosines(coder.components_, atoms)}}
    if version("alphacsc"):
        from alphacsc import learn_d_z

        start = time.perf_counter()
        _, _, found, _, _ = learn_d_z(X, 2, 32, reg=0.1, n_iter=50, random_state=0, verbose=0)
        seconds = time.perf_counter() - start
        table["alphacsc"] = {"seconds": seconds, "cosines": best_cosines(found, atoms)}
    return table


def restoration(images, kernels):
    """PSNR of denoising and inpainting with kernels that come from other images."""
    n, side = len(images), images.shape[1]
    clean = images.reshape(n, -1)
    generator = np.random.default_rng(0)
    options = {"dictionary": kernels.reshape(len(kernels), -1), "kernel_size": KERNEL,
               "image_shape": (side, side), "low_pass": LOW_PASS, "code_tol": 1e-3}  # fmt: skip

    def psnr(rows, where):
        return float(-10 * np.log10(((rows - clean)[where] ** 2).mean()))

    noisy = clean + 0.1 * generator.standard_normal(clean.shape).astype(np.float32)
    everywhere = np.ones(clean.shape, bool)
    table = {"noisy": psnr(noisy, everywhere)}
    for alpha in (0.1, 0.2, 0.3):
        coder = ConvSparseCoder(alpha=alpha, **options).fit(noisy)
        table[f"denoised, alpha {alpha}"] = psnr(coder.reconstruct(noisy), everywhere)
    mask = generator.random(clean.shape) < 0.5
    holes = np.where(mask, clean, 0.0).astype(np.float32)
    coder = ConvSparseCoder(alpha=0.02, **{**options, "low_pass": 1.0}).fit(holes)
    table["inpainted"] = psnr(coder.reconstruct(holes, mask=mask), ~mask)
    return table


def growth(sides, numbers):
    """Seconds of one image's code against its side and the number of kernels."""
    table = []
    for side in sides:
        for number in numbers:
            sharp = sharp_parts(photographs(1, side))
            kernels = first_kernels(sharp, number)
            grid = ConvolutionGrid(side, side, 1, KERNEL, KERNEL)
            x = torch.from_numpy(sharp.reshape(1, -1))
            atoms = torch.from_numpy(kernels.reshape(number, -1))
            start = time.perf_counter()
            solve_maps(x, atoms, L1(), ALPHA, grid, tol=1e-2)
            seconds = time.perf_counter() - start
            megabytes = 12 * 4 * number * side * side / 2**20
            table.append({"side": side, "kernels": number, "seconds": seconds, "MiB": megabytes})
    return table


def main():
    """Print every table; save them at the full size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two images of 48 x 48, 6 kernels")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    n, side, n_kernels = (2, 48, 6) if arguments.quick else (4, 256, 32)
    images = photographs(n, side)
    sharp = sharp_parts(images)
    kernels = first_kernels(sharp, n_kernels)
    unrelated = first_kernels(sharp_parts(photographs(n, side, first=n)), n_kernels)
    peers = {name: version(name) for name in ("sporco", "alphacsc")}
    for name, found in peers.items():
        print(f"{name}: {found or 'not installed, so that its rows are missing'}")
    curves = code_curves(sharp, kernels)
    if peers["sporco"]:
        curves["sporco"] = sporco_curve(sharp, kernels, 20 if arguments.quick else 200)
    best = min(value for curve in curves.values() for _, value in curve)
    for name, curve in curves.items():
        print(name, "seconds to 1e-3:", seconds_within(curve, best), "curve:", curve)
    tables = {
        "peers": peers,
        "codes": curves,
        "learning": learning_curve(sharp, kernels, 2 if arguments.quick else 10),
        "recovery": recovery(*((10, 128) if arguments.quick else (100, 512))),
        "restoration": restoration(images, unrelated),
        "growth": growth((32, 48), (4, 8)) if arguments.quick else growth((128, 256), (8, 32, 64)),
    }
    for name in ("learning", "recovery", "restoration", "growth"):
        print(name, tables[name])
    if not arguments.quick:
        rows = [
            [name, seconds_within(curve, best), min(value for _, value in curve) / best - 1.0]
            for name, curve in curves.items()
        ]
        save_results(
            "conv_sparse_coder",
            "Convolutional codes of four photographs, 32 kernels",
            ["solver", "seconds to 1e-3", "relative excess at the end"],
            rows,
            notes=f"Peers: {tables['peers']}. Restoration (dB): {tables['restoration']}.",
        )


if __name__ == "__main__":
    main()
