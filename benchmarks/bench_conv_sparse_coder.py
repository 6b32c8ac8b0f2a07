"""Convolutional sparse coding beside sporco and alphacsc: time, objective, denoising, inpainting.

Four natural images of 256 x 256 in [0, 1], the smooth part (Tikhonov 5) taken off, 32 kernels of
9 x 9, alpha 0.05, float32. Parts, each with a result file of its own:

- codes: seconds until the objective is within 1e-3 of the lowest, in five turns;
- learning: objective of the kernels at equal seconds, from the same start, in five turns;
- recovery: seconds until both atoms of alphacsc's own simulated signals are found, for five seeds;
- restoration: PSNR of denoising at sigma 0.1 and inpainting of half of the pixels, by kernels cut
  from other photographs, on four photographs, at the settings that were best on four others, beside
  sporco's own recipes (``_sporco.py``);
- growth: seconds and memory of one image's code against its size and the number of kernels;
- memory: its peak while kernels are learnt from 100 images of 480 x 720.

Needs sporco, alphacsc and SKLEBM_DATA. ``--only`` runs one part; ``--quick`` runs a small version,
saves nothing and goes without missing peers.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from _alphacsc import Enough, learn_atoms, repair
from _common import peak_memory, save_results, set_threads, timed_ratio
from _sporco import (
    LEARNERS,
    denoise,
    flat_codes,
    gradient_solver,
    inpaint,
    inpaint_after,
    inpaint_by_gradients,
    learn_kernels,
    limit_threads,
    multiplier_solver,
    smooth_by_variation,
)

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
# The quality of codes that is timed, above the lowest objective.
EXCESS = 1e-3


@dataclass(frozen=True)
class Table:
    """What a part found, as ``save_results`` takes it."""

    title: str
    columns: list[str]
    rows: list[list[object]]
    notes: str


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


def codes(quick, peers):
    """Seconds to codes within 1e-3 of the lowest objective.

    Each solver first runs off the clock to find what it needs: the loosest of our gaps, or sporco's
    number of iterations, judged at its sparse codes. These runs then take turns.
    """
    n, side, n_kernels = (2, 48, 6) if quick else (4, 256, 32)
    sharp = sharp_parts(photographs(n, side))
    kernels = first_kernels(sharp, n_kernels)
    x, atoms = torch.from_numpy(sharp.reshape(n, -1)), torch.from_numpy(kernels).flatten(1)
    grid = ConvolutionGrid(side, side, 1, KERNEL, KERNEL)
    exact = ConvolutionalCodingEnergy(atoms.double(), L1(), ALPHA, grid)
    reference = solve_maps(x.double(), atoms.double(), L1(), ALPHA, grid, tol=1e-6).codes
    lowest = float(exact.energy(x.double(), reference).sum())

    def excess(found):
        found = torch.as_tensor(found).double()
        return float(exact.energy(x.double(), found).sum()) / lowest - 1.0

    def own(method, gap):
        return solve_maps(x, atoms, L1(), ALPHA, grid, method=method, tol=gap).codes

    turns, reached, untimed = {}, {}, {}
    for method in ("greedy", "fista", "admm"):
        own(method, 9e-1)  # compiles
        for gap in (9e-1, 6e-1, 3e-1, 2e-1, 1e-1, 6e-2, 3e-2, 2e-2, 1e-2, 6e-3, 3e-3, 1e-3, 3e-4):
            begin, name = time.perf_counter(), f"sklebm, {method}"
            found = own(method, gap)
            seconds = time.perf_counter() - begin
            found = excess(found)
            print(name, gap, f"{seconds:.2f} s", f"{found:.1e}", flush=True)
            if found <= EXCESS:
                turns[name] = functools.partial(own, method, gap)
                reached[name], untimed[name] = (f"gap {gap}", found), seconds
                break
        else:
            reached[name] = f"gap {gap}", found
    if peers["sporco"]:
        limit_threads(torch.get_num_threads())
        curvature = grid.largest_eigenvalue(grid.transfer(atoms))
        for name, start in {
            "sporco, ADMM": functools.partial(multiplier_solver, automatic=True),
            "sporco, ADMM with a fixed penalty": functools.partial(
                multiplier_solver, automatic=False
            ),
            "sporco, accelerated gradient": functools.partial(gradient_solver, curvature=curvature),
        }.items():
            start = functools.partial(start, sharp, kernels, ALPHA)
            n_iter, found, seconds = iterations_needed(start, excess, 60 if quick else 200)
            print(name, n_iter, f"{seconds:.1f} s", f"{found:.1e}", flush=True)
            reached[name] = f"{n_iter} iterations", found
            if found <= EXCESS:
                turns[name] = functools.partial(run_solver, start, n_iter)
                untimed[name] = seconds
    # Solvers far behind the best of their library would fill most of the turns.
    for library in ("sklebm", "sporco"):
        own_names = [name for name in turns if name.startswith(library)]
        best = min((untimed[name] for name in own_names), default=0.0)
        turns = {
            name: call
            for name, call in turns.items()
            if name not in own_names or untimed[name] <= 3 * best
        }
    theirs = [name for name in turns if name.startswith("sporco")]
    names = theirs or list(turns)
    timings = timed_ratio(
        turns, reference=min(names, key=untimed.get), repeats=2 if quick else 5, warmups=0
    )
    fastest = min(timings[name].ratio for name in names)
    rows = []
    for name, (budget, found) in reached.items():
        row = [name, budget, f"{found:.1e}"]
        if name in timings:
            timing = timings[name]
            row += [round(timing.median, 3), round(timing.spread, 2)]
            row.append(round(timing.ratio / fastest, 3))
        else:
            once = f"{untimed[name]:.1f} (one run)" if name in untimed else "not reached"
            row += [once, "-", "-"]
        rows.append(row)
    return Table(
        "Seconds to convolutional codes of four photographs, 32 kernels",
        ["solver", "stops at", "above the lowest", "median (s)", "spread", "ratio"],
        rows,
        f"Each stops as soon as its objective is within {EXCESS} of the lowest, that of float64 "
        "codes with a gap of 1e-6; where it stops was found before, off the clock: sporco at the "
        "iteration that gets there, sklebm at the loosest gap of a list that does. Five turns; "
        f"ratios to the fastest solver {'of sporco' if theirs else 'of sklebm: no other got there'}"
        ". Set-up is part of each time. sporco is judged at "
        "its sparse codes; it runs with HighMemSolve, without statistics, and its gradient "
        "method with the largest eigenvalue as L. Solvers that took three times as long as the "
        "best of the same library did not take turns. Solvers of sporco ran for 200 iterations at "
        "most.",
    )


def run_solver(start, n_iter):
    """sporco's solution after so many iterations."""
    solver = start(n_iter=n_iter)
    solver.solve()
    return solver.getcoef()


def iterations_needed(start, excess, limit):
    """Iterations until the objective is close enough, what it then is, and seconds off judging."""
    run_solver(start, 2)  # plans its transforms, as ours were compiled
    found, judging, begin = [], 0.0, time.perf_counter()

    def judge(solver):
        nonlocal judging
        now = time.perf_counter()
        # Of ADMM, the sparse variable, which getcoef returns; X of the gradient method is its own.
        codes = solver.Y if hasattr(solver, "U") else solver.X
        found.append((excess(flat_codes(codes)), now - begin - judging))
        judging += time.perf_counter() - now
        return found[-1][0] <= EXCESS

    start(n_iter=limit, callback=judge).solve()
    return len(found), *found[-1]


def least_objective(sharp, kernels):
    """Objective of kernels with codes to a gap of 1e-4, summed over the images."""
    n, side, kernels = len(sharp), sharp.shape[1], kernels.reshape(len(kernels), -1)
    if not np.isfinite(kernels).all():
        return float("inf")
    kernels = kernels[kernels.any(axis=1)]  # one of zeros changes no objective
    if not len(kernels):
        return 0.5 * float(np.square(sharp, dtype=np.float64).sum())
    coder = ConvSparseCoder(
        dictionary=kernels, kernel_size=KERNEL, image_shape=(side, side), alpha=ALPHA, code_tol=1e-4
    )
    X = sharp.reshape(n, -1)
    return -float(coder.fit(X).score(X)) * n


def own_kernels(sharp, kernels, seconds, *, algorithm="batch", batch_size=32):
    """Our kernels after each pass within so many seconds, and the seconds."""
    n, side = len(sharp), sharp.shape[1]
    found, noting = [], 0.0

    def note(coder, _):
        nonlocal noting
        now = time.perf_counter()
        found.append((now - begin - noting, coder.components_.copy()))
        if found[-1][0] > seconds:
            raise Enough
        noting += time.perf_counter() - now
        return 0.0

    X = sharp.reshape(n, -1)
    coder = ConvSparseCoder(
        kernel_size=KERNEL, image_shape=(side, side), alpha=ALPHA, algorithm=algorithm,
        batch_size=batch_size, tol=0.0,
        dict_init=kernels.reshape(len(kernels), -1), max_iter=10_000, random_state=0,
    ).set_callbacks(EnergyMonitor(X[:1], scoring=note))  # fmt: skip
    begin = time.perf_counter()
    try:
        coder.fit(X)
    except Enough:
        return found
    return found


def learning(quick, peers):
    """Objective of the kernels that each learner has at equal seconds."""
    n, side, n_kernels = (2, 48, 6) if quick else (4, 256, 32)
    sharp, other = (sharp_parts(photographs(n, side, first=first)) for first in (0, n))
    kernels, other_kernels = first_kernels(sharp, n_kernels), first_kernels(other, n_kernels)
    seconds, rounds = (2.0, 2) if quick else (60.0, 5)
    contestants = {
        "sklebm, a step after all images": own_kernels,
        "sklebm, a step after every image": functools.partial(
            own_kernels, algorithm="online", batch_size=1
        ),
    }
    settings = ""
    if peers["sporco"]:
        limit_threads(torch.get_num_threads())
        for name, (_, updating) in LEARNERS.items():
            call = functools.partial(learn_kernels, name)
            if updating == "pgm":

                def score(curvature, call=call):
                    found = call(other, other_kernels, ALPHA, seconds / 4, curvature=curvature)
                    return -least_objective(other, found[-1][1])

                best, _, inner = best_on_a_grid(score, 50.0, factor=10.0, most=1 if quick else 4)
                settings += (
                    f" {name}: L from {best:g}{'' if inner else ', where the search ended'}."
                )
                call = functools.partial(call, curvature=best)
            contestants[name] = functools.partial(_with_alpha, call)
    for call in contestants.values():
        call(sharp, kernels, 0.0)  # compiles and plans
    runs = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            runs[name].append(contestants[name](sharp, kernels, seconds))
    times = [seconds * share for share in (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)]
    at_start, rows = least_objective(sharp, kernels), []
    for name, found in runs.items():
        # Each run goes through the same kernels; only its clock differs. A run ends with the first
        # iteration after the limit, which is left out.
        count = min(len(run) for run in found) - 1
        clocks = [[run[i][0] for run in found] for i in range(count)]
        medians = [statistics.median(clock) for clock in clocks]
        row, known = [name, count, _spread(clocks[-1]) if clocks else "-"], {}
        for limit in times:
            last = sum(median <= limit for median in medians) - 1
            if last not in known:
                atoms = found[0][last][1]
                known[last] = at_start if last < 0 else least_objective(sharp, atoms)
            row.append(round(known[last], 3))
        rows.append(row)
    return Table(
        "Objective of convolutional kernels at equal seconds, four photographs, 32 kernels",
        ["learner", "iterations", "spread of seconds", *(f"after {limit:g} s" for limit in times)],
        rows,
        f"Lower is better; the start: {at_start:.3f}. All start from the same kernels and run for "
        f"{seconds:g} s, {rounds} times in turns; seconds of an iteration are medians, set-up is "
        "part of them. What counts at a time are the kernels of the last iteration that had ended, "
        "their codes computed to a gap of 1e-4 off the clock. An iteration of sklebm is a pass, "
        "one of sporco a step of codes and one of kernels. Settings of "
        "sporco are those of its examples, without statistics, and so are its penalty parameters; "
        f"where L begins in updates of kernels was chosen on other photographs.{settings}",
    )


def _with_alpha(call, sharp, kernels, seconds):
    return call(sharp, kernels, ALPHA, seconds)


def _spread(values):
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return round((upper - lower) / median, 2)


def best_cosines(found, atoms):
    """For each true atom, the largest normalised cross-correlation with one that was found."""
    return [
        max(
            float(np.abs(np.correlate(one / np.linalg.norm(one), atom, "full")).max())
            for one in found
        )
        for atom in atoms
    ]


def own_atoms(X, start, alpha, judge, n_iter=10_000):
    """Our atoms from the start; ``judge(seconds, atoms)`` looks after each pass, off the clock."""
    judging = 0.0

    def note(coder, _):
        nonlocal judging
        now = time.perf_counter()
        if judge(now - begin - judging, coder.components_):
            raise Enough
        judging += time.perf_counter() - now
        return 0.0

    coder = ConvSparseCoder(
        kernel_size=start.shape[1], boundary="zero", alpha=alpha, penalty="nonnegative", tol=0.0,
        dict_init=start, max_iter=n_iter, random_state=0,
    ).set_callbacks(EnergyMonitor(X[:1], scoring=note))  # fmt: skip
    begin = time.perf_counter()
    try:
        coder.fit(X)
    except Enough:
        return


def recovery(quick, peers):
    """Seconds until both atoms are found, in alphacsc's own simulation."""
    if not peers["alphacsc"]:
        return Table("Without alphacsc there is no simulation.", ["-"], [], "")
    from alphacsc.simulate import simulate_data

    n, length, size = (10, 128, 16) if quick else (100, 512, 64)
    alpha, close, limit = 0.1, 0.99, 10.0 if quick else 120.0
    repaired = repair()
    contestants = {
        "sklebm": own_atoms,
        "alphacsc, lgcd": _alphacsc("lgcd"),
        "alphacsc, l-bfgs": _alphacsc("l-bfgs"),
    }
    seconds = {name: [] for name in contestants}
    names, rows = list(contestants), []
    for seed in range(2 if quick else 5):
        X, atoms, _ = simulate_data(n, length, size, 2, random_state=seed)
        generator = np.random.RandomState(seed)
        X = X + 0.01 * generator.standard_normal(X.shape)
        windows = [
            X[generator.randint(n)][place : place + size]
            for place in generator.randint(length - size, size=20)
        ]
        longest = np.argsort([-np.linalg.norm(window) for window in windows])[:2]
        start = np.stack([windows[i] / np.linalg.norm(windows[i]) for i in longest])
        shift = seed % len(names)
        for name in names[shift:] + names[:shift]:
            if not seed:  # compiles, and stops after one pass
                contestants[name](X, start, alpha, lambda passed, found: True)
            last = []

            def judge(passed, found, atoms=atoms, last=last):
                last[:] = [passed, best_cosines(found, atoms)]
                return min(last[1]) >= close or passed > limit

            contestants[name](X, start, alpha, judge)
            done = last[0] if min(last[1]) >= close else None
            seconds[name].append(done)
            cosines = ", ".join(f"{value:.4f}" for value in last[1])
            missed = f"not in {limit:g}" if last[0] > limit else f"ended at {last[0]:.1f} without"
            rows.append([seed, name, missed if done is None else round(done, 2), cosines])
            print(*rows[-1], sep="\t", flush=True)
    rows.sort(key=lambda row: (row[0], names.index(row[1])))
    totals = "; ".join(
        f"{name}: found for {len(found)} of {len(all_found)} seeds"
        + (
            f", then in {statistics.median(found):.2f} s (median), spread {_spread(found)}"
            if found[1:]
            else ""
        )
        for name, all_found in seconds.items()
        for found in [[value for value in all_found if value is not None]]
    )
    return Table(
        "Atoms of simulated signals: seconds until both have a cosine of 0.99",
        ["seed", "model", "seconds", "cosines at the end"],
        rows,
        f"{n} signals of {length} with two atoms of {size} by alphacsc's simulate_data, and noise "
        f"of 0.01; penalty {alpha} on codes, which are not negative; double precision. All start "
        "from the same two windows of the signals; cosines are the largest over shifts, looked at "
        "after each pass, off the clock; compiled before. Of alphacsc, learn_d_z fails with NumPy "
        "from 2.4 on, so this is learn_d_z_multi with rank1=False, told the penalty in units of "
        "the standard deviation by which it divides, in its default mode, batches of all signals; "
        "ours learns by its default, too, from some of them at a time; "
        + ("a line of its solver lgcd that fails too was replaced in memory. " if repaired else "")
        + totals
        + ".",
    )


def _alphacsc(solver):
    def learn(X, start, alpha, judge):
        return learn_atoms(X, start, alpha, solver, judge)

    return learn


def psnr(found, clean, where):
    """Of values in [0, 1], in decibel."""
    return float(-10 * np.log10(((found - clean)[where] ** 2).mean()))


def ours(images, masks, kernels, alpha, low_pass):
    """Our reconstruction of images, of which only ``masks`` are seen."""
    n, side = len(images), images.shape[1]
    X, seen = images.reshape(n, -1), None if masks is None else masks.reshape(n, -1)
    coder = ConvSparseCoder(
        dictionary=kernels.reshape(len(kernels), -1), kernel_size=KERNEL,
        image_shape=(side, side), alpha=alpha, low_pass=low_pass, code_tol=1e-3,
    ).fit(X)  # fmt: skip
    return coder.reconstruct(X, mask=seen).reshape(images.shape)


def one_by_one(restore):
    """The same of sporco, whose recipes are for one image."""

    def restored(images, masks, kernels, alpha, weight):
        if masks is None:
            return np.stack([restore(image, kernels, alpha, weight) for image in images])
        pairs = zip(images, masks, strict=True)
        return np.stack([restore(image, mask, kernels, alpha, weight) for image, mask in pairs])

    return restored


def own_smooth_part(image, mask, weight):
    """Our smooth part of an image with holes."""
    plane, seen = (torch.from_numpy(np.float32(part))[None, None] for part in (image, mask))
    return smooth_part(plane, weight, seen)[0, 0].numpy()


def by_variation(image, mask, kernels, alpha, weight, **options):
    """sporco's recipe for holes, with its own smooth part."""
    smooth = smooth_by_variation(image, mask, weight)
    return inpaint(image, mask, kernels, alpha, smooth, **options)


def best_on_a_grid(score, start, factor=1.6, most=8):
    """The argument of the highest score on a geometric grid, and whether both neighbours are lower.

    Climbs from the start, so that the grid ends where scores fall, on either side.
    """
    scores = {0: score(start)}  # by the power of the factor
    for _ in range(most):
        best = max(scores, key=scores.get)
        missing = [place for place in (best + 1, best - 1) if place not in scores]
        if not missing:
            break
        scores[missing[0]] = score(start * factor ** missing[0])
    best = max(scores, key=scores.get)
    return start * factor**best, scores[best], {best - 1, best + 1} <= set(scores)


def restoration(quick, peers):
    """PSNR with kernels of yet other photographs, at the settings that others prefer."""
    n, side, small, n_kernels = (2, 48, 48, 6) if quick else (4, 256, 128, 32)
    images, chooser = photographs(n, side), photographs(n, small, first=n)
    kernels = first_kernels(sharp_parts(photographs(n, side, first=2 * n)), n_kernels)
    limit = {"n_iter": 20} if quick else {}
    # Name: solver, where the search for alpha begins, and that for the weight of the smooth part.
    tasks = {
        "denoised": {"sklebm": (ours, 0.2, LOW_PASS)},
        "inpainted": {"sklebm": (ours, 0.01, 1.0)},
    }
    if peers["sporco"]:
        limit_threads(torch.get_num_threads())
        tasks["denoised"] |= {
            f"sporco, {kind} penalty": (
                one_by_one(functools.partial(denoise, weighted=weighted, **limit)),
                start,
                LOW_PASS,
            )
            for kind, weighted, start in (("plain", False, 0.2), ("weighted", True, 0.048))
        }
        by_own = functools.partial(inpaint_after, own_smooth_part, **limit)
        tasks["inpainted"] |= {
            "sporco, after total variation": (
                one_by_one(functools.partial(by_variation, **limit)),
                0.02,
                0.05,
            ),
            "sporco, after sklebm's smooth part": (one_by_one(by_own), 0.02, 1.0),
            "sporco, with a smooth map": (
                one_by_one(functools.partial(inpaint_by_gradients, **limit)),
                0.01,
                0.2,
            ),
        }
    generator, damaged = np.random.default_rng(0), []
    for clean in (chooser, images):
        noisy = clean + 0.1 * generator.standard_normal(clean.shape).astype(np.float32)
        mask = generator.random(clean.shape) < 0.5
        holes = np.where(mask, clean, 0.0).astype(np.float32)
        everywhere = np.ones(clean.shape, bool)
        damaged.append(
            {
                "denoised": (noisy, None, clean, everywhere),
                "inpainted": (holes, mask, clean, ~mask),
            }
        )
    noisy, _, clean, everywhere = damaged[1]["denoised"]
    noisy_psnr = round(psnr(noisy.clip(0, 1), clean, everywhere), 2)
    rows = [["denoised", "noisy image", "-", noisy_psnr, "-"]]
    at_ends = []
    for task, solvers in tasks.items():
        for name, (solver, start, weight) in solvers.items():

            @functools.cache
            def judge(alpha, weight, which, solver=solver, task=task):
                seen, mask, clean, judged = damaged[which][task]
                found = solver(seen, mask, kernels, alpha, weight).clip(0, 1)
                if not which:
                    return psnr(found, clean, judged)
                singly = [psnr(*three) for three in zip(found, clean, judged, strict=True)]
                return psnr(found, clean, judged), singly

            def score(alpha, weight, which=0, judge=judge):
                # Rounded, so that grids from two starts share what they have tried.
                return judge(float(f"{alpha:.6g}"), float(f"{weight:.6g}"), which)

            most = {"most": 1} if quick else {}
            alpha, value, inner = best_on_a_grid(
                functools.partial(score, weight=weight), start, **most
            )
            if task == "inpainted":
                first = weight
                weight, value, between = best_on_a_grid(
                    functools.partial(score, alpha), first, factor=3.0, **most
                )
                if weight != first:
                    alpha, value, inner = best_on_a_grid(
                        functools.partial(score, weight=weight), alpha, most=1 if quick else 4
                    )
                inner &= between
            print(task, name, f"{alpha:.4g}", weight, f"{value:.2f} dB", flush=True)
            if not inner:
                at_ends.append(f"{task}, {name}")
            value, singly = score(alpha, weight, which=1)
            rows.append(
                [task, name, f"alpha {alpha:.3g}, smooth part {weight:g}", round(value, 2),
                 ", ".join(f"{one:.2f}" for one in singly)]
            )  # fmt: skip
            print(*rows[-1], sep="\t", flush=True)
    return Table(
        "Denoising and inpainting of four photographs by kernels of others",
        ["task", "model", "settings", "PSNR (dB)", "of each"],
        rows,
        f"{n} photographs of {side} x {side}, noise of 0.1 or half of the pixels missing, which "
        f"alone are judged; values clipped to [0, 1]; {n_kernels} kernels of 9 x 9. Alpha (by "
        "factors of 1.6, until both neighbours are worse) and, for inpainting, the weight of the "
        f"smooth part (by factors of 3; {LOW_PASS:g} for denoising) were chosen on "
        f"{n} other photographs of {small} x {small}. Searches that "
        "ended, after eight steps (four, when alpha was chosen again for another smooth part), "
        "beside a value that was not tried: "
        f"{'; '.join(at_ends) or 'none'}. sporco's recipes for images of its examples: symmetric "
        "extension by 8 pixels; denoising with a penalty that is weighted by the products of image "
        "and kernels, or plain; inpainting by additive mask simulation after its total variation, "
        "after the smooth part of sklebm, or with a smooth map. Iterations and stopping rules are "
        "those of the examples.",
    )


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


def growth(quick, peers):
    """Seconds and peak of memory of one image's code against its side and number of kernels."""
    sides, numbers = ((32, 48), (4, 8)) if quick else ((128, 256), (8, 32, 64))
    rows, folder = [], repr(str(Path(__file__).parent))
    code_of(*one_image(32, 4))  # compiles
    for side in sides:
        for number in numbers:
            given = one_image(side, number)
            clocks = []
            for _ in range(5):
                begin = time.perf_counter()
                code_of(*given)
                clocks.append(time.perf_counter() - begin)
            setup = _ONE_IMAGE.replace("FOLDER", folder).replace("SIDE", str(side))
            setup = setup.replace("THREADS", str(torch.get_num_threads()))
            grown = peak_memory("code_of(*given)", setup=setup.replace("KERNELS", str(number)))
            rows.append([f"{side} x {side}", number, round(statistics.median(clocks), 3),
                         _spread(clocks), round(grown)])  # fmt: skip
            print(*rows[-1], sep="\t", flush=True)
    return Table(
        "Growth of one image's convolutional code with its size and the number of kernels",
        ["image", "kernels", "median (s)", "spread", "memory (MiB)"],
        rows,
        "Codes of sklebm to a gap of 0.01, five runs; peak of memory above the process before.",
    )


# Photographs repeated up to the size that is wanted.
_LARGE = """
import os
import sys
sys.path.insert(0, FOLDER)
import numpy as np
from _common import set_threads
from sklebm import ConvSparseCoder
set_threads(THREADS)
with np.load(os.environ["SKLEBM_DATA"] + "/natural_images.npz") as images:
    tiles = [np.tile(images[f"img_{i:03d}"] / 255, (2, 3)) for i in range(20)]
X = np.stack([tiles[i % 20][:HEIGHT, :WIDTH].ravel() for i in range(N_IMAGES)]).astype(np.float32)
"""


def memory(quick, peers):
    """Peak of memory of one pass over large images, in MiB, beyond the images themselves."""
    n_images, height, width, n_kernels = (4, 48, 72, 8) if quick else (100, 480, 720, 32)
    setup = _LARGE.replace("HEIGHT", str(height)).replace("WIDTH", str(width))
    setup = setup.replace("FOLDER", repr(str(Path(__file__).parent)))
    setup = setup.replace("THREADS", str(torch.get_num_threads()))
    learn = (
        f"ConvSparseCoder({n_kernels}, kernel_size=9, image_shape=({height}, {width}), alpha=0.1, "
        "low_pass=5, max_iter=1, random_state=0).fit(X)"
    )
    begin = time.perf_counter()
    grown = peak_memory(learn, setup=setup.replace("N_IMAGES", str(n_images)))
    size = f"{n_images} of {height} x {width}"
    return Table(
        "Memory to learn convolutional kernels from many large images",
        ["images", "kernels", "memory (MiB)", "seconds, run once"],
        [[size, n_kernels, round(grown), round(time.perf_counter() - begin)]],
        "One pass of sklebm; peak beyond the images themselves.",
    )


# Part: what runs it, the peers it cannot do without, and whether contestants took turns.
PARTS: dict[str, tuple[Callable[[bool, dict], Table], tuple[str, ...], bool | None]] = {
    "codes": (codes, ("sporco",), None),
    "learning": (learning, ("sporco",), True),
    "recovery": (recovery, ("alphacsc",), True),
    "restoration": (restoration, ("sporco",), False),
    "growth": (growth, (), False),
    "memory": (memory, (), False),
}


def main():
    """Print every table; save them at the full size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two images of 48 x 48, 6 kernels")
    parser.add_argument("--only", choices=tuple(PARTS))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    chosen = [arguments.only] if arguments.only else list(PARTS)
    packages = ("sporco", "pyfftw", "numexpr", "alphacsc", "numpy")
    peers = {name: version(name) for name in packages}
    for name in ("sporco", "alphacsc"):
        if any(name in PARTS[part][1] for part in chosen) and not peers[name]:
            if not arguments.quick:
                parser.error(f"{name} is missing: pip install {name}")
            print(f"{name} is not installed, so that its rows are missing")
    for part in chosen:
        call, needed, turns = PARTS[part]
        table = call(arguments.quick, peers)
        print(table.title, table.columns, *table.rows, table.notes, sep="\n", flush=True)
        if arguments.quick:
            continue
        shown = [name for name in packages if needed and (name == needed[0] or name == "numpy")]
        if "sporco" in needed:
            shown += ["pyfftw", "numexpr"]
        versions = ", ".join(f"{name} {peers[name] or 'not installed'}" for name in shown)
        notes = f"{table.notes} {arguments.threads} threads. {versions}".strip()
        save_results(
            f"conv_sparse_coder_{part}", table.title, table.columns, table.rows,
            notes=notes.rstrip(".") + ".", turns=turns,
        )  # fmt: skip


if __name__ == "__main__":
    main()
