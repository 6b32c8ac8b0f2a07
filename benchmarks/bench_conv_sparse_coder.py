"""Convolutional sparse coding beside sporco and alphacsc: time, objective, denoising, inpainting.

Four natural images of 256 x 256 in [0, 1], the smooth part (Tikhonov 5) taken off, 32 kernels of
9 x 9, alpha 0.05, float32. Codes: seconds until the objective is within 1e-3 of the lowest that any
solver found. Kernels: objective against seconds, from the same start. A synthetic one-dimensional
problem: cosines of the atoms that are found. Denoising at sigma 0.1 and inpainting of half of the
pixels, by kernels cut from other photographs: PSNR on four photographs, at the strength that was
best on four others. Time and memory of one image's code against its size and the number of kernels,
and the peak of memory while kernels are learnt from 100 images of 480 x 720. Needs sporco, alphacsc
and SKLEBM_DATA. ``--quick`` runs a small version, and ``--only`` one part; these save nothing and
go without missing peers.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import os
import time
from pathlib import Path

import numpy as np
import torch
from _common import peak_memory, save_results, set_threads

from sklebm import ConvSparseCoder
from sklebm.callbacks import EnergyMonitor
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
        "greedy": (9e-1, 6e-1, 3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3),
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


def planes(rows_of_images):
    """Images or kernels in sporco's order: height, width, number."""
    return np.moveaxis(rows_of_images, 0, 2)


def sporco_curve(sharp, kernels, n_iter, accelerated):
    """Objective after each iteration of sporco's ADMM, or accelerated gradient, and seconds."""
    from sporco.admm import cbpdn as by_multipliers
    from sporco.pgm import cbpdn as by_gradient

    module = by_gradient if accelerated else by_multipliers
    # The step of its gradient method is found by backtracking from its default.
    search = {"Backtrack": _backtracking()} if accelerated else {}

    def solver(limit):
        options = module.ConvBPDN.Options(
            {"Verbose": False, "MaxMainIter": limit, "RelStopTol": 1e-4, "DataType": np.float32,
             **search}
        )  # fmt: skip
        return module.ConvBPDN(planes(kernels), planes(sharp), ALPHA, options, dimK=1)

    solver(1).solve()  # plans its transforms, as ours was compiled
    timed = solver(n_iter)
    timed.solve()
    stats = timed.getitstat()
    return [(float(s), float(value)) for s, value in zip(stats.Time, stats.ObjFun, strict=True)]


def _backtracking():
    from sporco.pgm.backtrack import BacktrackStandard

    return BacktrackStandard()


def seconds_within(curve, best, share=1e-3):
    """Seconds until the objective is within this share of the best."""
    return next((s for s, value in curve if value <= best * (1 + share)), None)


def least_objective(sharp, kernels):
    """Objective of kernels with codes to a gap of 1e-4, summed over the images."""
    n, side = len(sharp), sharp.shape[1]
    coder = ConvSparseCoder(
        dictionary=kernels, kernel_size=KERNEL, image_shape=(side, side), alpha=ALPHA,
        code_tol=1e-4,
    )  # fmt: skip
    X = sharp.reshape(n, -1)
    return -float(coder.fit(X).score(X)) * n


def learning_curve(sharp, kernels, n_passes):
    """Objective of our kernels after each pass of one fit, and seconds."""
    n, side = len(sharp), sharp.shape[1]
    X, found, judging = sharp.reshape(n, -1), [], 0.0
    options = {"kernel_size": KERNEL, "image_shape": (side, side), "alpha": ALPHA, "tol": 0.0,
               "dict_init": kernels.reshape(len(kernels), -1), "algorithm": "batch"}  # fmt: skip

    def note(coder, _):
        nonlocal judging
        begin = time.perf_counter()
        found.append((begin - start - judging, coder.components_.copy()))
        judging += time.perf_counter() - begin
        return 0.0

    ConvSparseCoder(max_iter=1, random_state=0, **options).fit(X)  # compiles
    coder = ConvSparseCoder(max_iter=n_passes, random_state=0, **options)
    coder.set_callbacks(EnergyMonitor(X[:1], scoring=note))
    start = time.perf_counter()
    coder.fit(X)
    return [(seconds, least_objective(sharp, atoms)) for seconds, atoms in found]


def sporco_learning_curve(sharp, kernels, n_iter, every):
    """The same of sporco's kernels, by consensus, from the same start."""
    from sporco.dictlrn import cbpdndl

    found = []

    def note(learner):
        if learner.j % every == every - 1:
            atoms = np.moveaxis(learner.getdict().squeeze(), 2, 0).reshape(len(kernels), -1)
            found.append((learner.timer.elapsed("solve"), atoms.astype(np.float32)))

    options = cbpdndl.ConvBPDNDictLearn.Options(
        {"Verbose": False, "MaxMainIter": n_iter, "Callback": note}, dmethod="cns"
    )
    cbpdndl.ConvBPDNDictLearn(
        planes(kernels), planes(sharp), ALPHA, options, dmethod="cns", dimK=1
    ).solve()
    return [(float(seconds), least_objective(sharp, atoms)) for seconds, atoms in found]


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
        # Of version 0.4.1, learn_d_z and solver_z="lgcd" fail with NumPy 2.4: this learns the same.
        from alphacsc import learn_d_z_multi

        start = time.perf_counter()
        _, _, found, _, _ = learn_d_z_multi(
            X[:, None], 2, 32, reg=0.1, n_iter=50, rank1=False, solver_z="fista", solver_d="fista",
            random_state=0, verbose=0,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        table["alphacsc"] = {"seconds": seconds, "cosines": best_cosines(found[:, 0], atoms)}
    return table


def psnr(found, clean, where):
    """Of values in [0, 1], in decibel."""
    return float(-10 * np.log10(((found - clean)[where] ** 2).mean()))


def ours(images, mask, kernels, alpha, low_pass):
    """Our reconstruction of images, of which only ``mask`` is seen."""
    n, side = len(images), images.shape[1]
    X, seen = images.reshape(n, -1), None if mask is None else mask.reshape(n, -1)
    coder = ConvSparseCoder(
        dictionary=kernels.reshape(len(kernels), -1), kernel_size=KERNEL,
        image_shape=(side, side), alpha=alpha, low_pass=low_pass, code_tol=1e-3,
    ).fit(X)  # fmt: skip
    return coder.reconstruct(X, mask=seen).reshape(images.shape)


def of_sporco(images, mask, kernels, alpha, low_pass, n_iter=200):
    """sporco's: its ADMM, with a mask that for inpainting also covers the smooth part.

    For inpainting its examples take the smooth part off the image with holes at zero; the mean of
    the seen pixels is put into the holes first, which is better.
    """
    from sporco import signal
    from sporco.admm import cbpdn

    filled = images
    if mask is not None:
        filled = np.where(mask, images, images[mask].mean()).astype(np.float32)
    smooth, sharp = signal.tikhonov_filter(planes(filled), low_pass)
    settings = {"Verbose": False, "MaxMainIter": n_iter, "RelStopTol": 1e-4}
    if mask is None:
        options = cbpdn.ConvBPDN.Options(settings)
        solver = cbpdn.ConvBPDN(planes(kernels), sharp, alpha, options, dimK=1)
    else:
        options = cbpdn.ConvBPDNMaskDcpl.Options(settings)
        height, width, n = sharp.shape
        weight = planes(mask).astype(np.float32).reshape(height, width, 1, n, 1)
        solver = cbpdn.ConvBPDNMaskDcpl(
            planes(kernels), sharp * planes(mask), alpha, W=weight, opt=options, dimK=1
        )
    solver.solve()
    return np.moveaxis(smooth + solver.reconstruct().squeeze(), 2, 0)


def restoration(chooser, images, kernels, solvers):
    """PSNR with kernels that come from yet other images, at the alpha that ``chooser`` prefers."""
    generator = np.random.default_rng(0)
    damaged = []
    for clean in (chooser, images):
        noisy = clean + 0.1 * generator.standard_normal(clean.shape).astype(np.float32)
        mask = generator.random(clean.shape) < 0.5
        damaged.append((clean, noisy, np.where(mask, clean, 0.0).astype(np.float32), mask))
    table = {"noisy": psnr(damaged[1][1], images, np.ones(images.shape, bool))}
    for task, alphas, low_pass in (
        ("denoised", (0.1, 0.2, 0.3), LOW_PASS),
        ("inpainted", (0.005, 0.01, 0.02, 0.05), 1.0),
    ):
        for name, solver in solvers.items():
            scores = [{}, {}]
            for place, (clean, noisy, holes, mask) in enumerate(damaged):
                inputs = (noisy, None) if task == "denoised" else (holes, mask)
                judged = np.ones(clean.shape, bool) if task == "denoised" else ~mask
                for alpha in alphas if not place else [max(scores[0], key=scores[0].get)]:
                    found = solver(*inputs, kernels, alpha, low_pass)
                    scores[place][alpha] = psnr(found, clean, judged)
            for alpha, value in scores[1].items():
                table[f"{task}, {name} (alpha {alpha})"] = value
    return table


def one_image(side, n_kernels):
    """A photograph without its smooth part, kernels cut from it, and their sizes."""
    sharp = sharp_parts(photographs(1, side))
    kernels = torch.from_numpy(first_kernels(sharp, n_kernels).reshape(n_kernels, -1))
    grid = ConvolutionGrid(side, side, 1, KERNEL, KERNEL)
    return torch.from_numpy(sharp.reshape(1, -1)), kernels, grid


def code_of(x, kernels, grid):
    """The code of an image, to a gap of a hundredth."""
    return solve_maps(x, kernels, L1(), ALPHA, grid, tol=1e-2).codes


# The small image compiles the solver, whose compiler is not to be measured.
_ONE_IMAGE = """
import sys
sys.path.insert(0, FOLDER)
from bench_conv_sparse_coder import code_of, one_image, set_threads
set_threads(THREADS)
code_of(*one_image(32, 4))
given = one_image(SIDE, KERNELS)
"""


def growth(sides, numbers):
    """Seconds and peak of memory of one image's code against its side and number of kernels."""
    table, folder = [], repr(str(Path(__file__).parent))
    code_of(*one_image(32, 4))  # compiles
    for side in sides:
        for number in numbers:
            given = one_image(side, number)
            start = time.perf_counter()
            code_of(*given)
            seconds = time.perf_counter() - start
            setup = _ONE_IMAGE.replace("FOLDER", folder).replace("SIDE", str(side))
            setup = setup.replace("THREADS", str(torch.get_num_threads()))
            grown = peak_memory("code_of(*given)", setup=setup.replace("KERNELS", str(number)))
            table.append({"side": side, "kernels": number, "seconds": seconds, "MiB": grown})
    return table


# Photographs repeated up to the size that is wanted.
_LARGE = """
import os
import numpy as np
from sklebm import ConvSparseCoder
with np.load(os.environ["SKLEBM_DATA"] + "/natural_images.npz") as images:
    tiles = [np.tile(images[f"img_{i:03d}"] / 255, (2, 2)) for i in range(20)]
X = np.stack([tiles[i % 20][:HEIGHT, :WIDTH].ravel() for i in range(N_IMAGES)]).astype(np.float32)
"""


def memory(n_images, height, width, n_kernels):
    """Peak of memory of one pass over large images, in MiB, beyond the images themselves."""
    setup = _LARGE.replace("HEIGHT", str(height)).replace("WIDTH", str(width))
    learn = (
        f"ConvSparseCoder({n_kernels}, kernel_size=9, image_shape=({height}, {width}), alpha=0.1, "
        "low_pass=5, max_iter=1, random_state=0).fit(X)"
    )
    grown = peak_memory(learn, setup=setup.replace("N_IMAGES", str(n_images)))
    return {"images": n_images, "kernels": n_kernels, "MiB": grown}


def main():
    """Print every table; save them at the full size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two images of 48 x 48, 6 kernels")
    parts = ("codes", "learning", "recovery", "restoration", "growth", "memory")
    parser.add_argument("--only", choices=parts)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    quick = arguments.quick
    set_threads(arguments.threads)
    n, side, n_kernels = (2, 48, 6) if quick else (4, 256, 32)
    images = photographs(n, side)
    sharp = sharp_parts(images)
    kernels = first_kernels(sharp, n_kernels)
    unrelated = first_kernels(sharp_parts(photographs(n, side, first=2 * n)), n_kernels)
    peers = {name: version(name) for name in ("sporco", "alphacsc")}
    whole = not quick and not arguments.only
    if whole and None in peers.values():
        parser.error("the whole comparison needs sporco and alphacsc; --only goes without them")
    for name, found in peers.items():
        print(f"{name}: {found or 'not installed, so that its rows are missing'}")

    def codes():
        curves = code_curves(sharp, kernels)
        if peers["sporco"]:
            for name, accelerated in {"sporco ADMM": False, "sporco PGM": True}.items():
                curves[name] = sporco_curve(sharp, kernels, 20 if quick else 200, accelerated)
        best = min(value for curve in curves.values() for _, value in curve)
        return {
            name: {
                "seconds to 1e-3": seconds_within(curve, best),
                "relative excess at the end": min(value for _, value in curve) / best - 1.0,
                "curve": curve,
            }
            for name, curve in curves.items()
        }

    def learning():
        table = {"sklebm": learning_curve(sharp, kernels, 2 if quick else 10)}
        if peers["sporco"]:
            limits = (4, 2) if quick else (100, 10)
            table["sporco"] = sporco_learning_curve(sharp, kernels, *limits)
        return table

    solvers = {"sklebm": ours}
    if peers["sporco"]:
        solvers["sporco"] = functools.partial(of_sporco, n_iter=20) if quick else of_sporco
    run = {
        "codes": codes,
        "learning": learning,
        "recovery": lambda: recovery(*((10, 128) if quick else (100, 512))),
        "restoration": lambda: restoration(
            photographs(n, side, first=n), images, unrelated, solvers
        ),
        "growth": lambda: growth((32, 48), (4, 8)) if quick else growth((128, 256), (8, 32, 64)),
        "memory": lambda: memory(*((4, 48, 72, 8) if quick else (100, 480, 720, 32))),
    }
    tables = {}
    for name in [arguments.only] if arguments.only else parts:
        tables[name] = run[name]()
        print(name, tables[name], flush=True)
    if whole:
        save_results(
            "conv_sparse_coder",
            "Convolutional codes of four photographs, 32 kernels",
            ["part", "model", "result"],
            list(summary(tables)),
            notes=f"Peers: {peers}. sporco's solvers stop at RelStopTol = 1e-4 or after 200 "
            "iterations. Learning: seconds and least objective of the kernels.",
        )


def summary(tables):
    """One row for each figure."""
    for name, found in tables["codes"].items():
        seconds, excess = found["seconds to 1e-3"], found["relative excess at the end"]
        reached = "not reached" if seconds is None else f"{seconds:.2f} s to 1e-3"
        yield ["codes", name, f"{reached}; {excess:.1e} above the best at the end"]
    for name, curve in tables["learning"].items():
        yield ["learning", name, "; ".join(f"{s:.1f} s: {value:.2f}" for s, value in curve)]
    for name, found in tables["recovery"].items():
        cosines = ", ".join(f"{value:.4f}" for value in found["cosines"])
        yield ["recovery", name, f"cosines {cosines}; {found['seconds']:.1f} s"]
    for name, value in tables["restoration"].items():
        yield ["restoration", name, f"{value:.2f} dB"]
    for row in tables["growth"]:
        what = f"one image of {row['side']} x {row['side']}, {row['kernels']} kernels"
        yield ["growth", what, f"{row['seconds']:.2f} s, {row['MiB']:.0f} MiB"]
    row = tables["memory"]
    what = f"{row['images']} images of 480 x 720, {row['kernels']} kernels"
    yield ["memory", what, f"{row['MiB']:.0f} MiB beyond the images"]


if __name__ == "__main__":
    main()
