"""How fast are exact sparse codes? Beside lasso_cd and lasso_lars of scikit-learn, and SPAMS.

20,000 whitened 12 x 12 patches of natural photographs, 256 learnt atoms, one and two threads, from
some 30 non-zeros a row to less than one. SPAMS and the compiled solver take turns; the ratio is the
median over the rounds. Largest relative duality gap over the rows beside the time. Needs spams-bin
and SKLEBM_DATA.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import torch
from _common import save_results, set_threads, timed_ratio
from _patches import whitened_patches
from sklearn.decomposition import sparse_encode

from sklebm import SparseCoder
from sklebm.energies import L1
from sklebm.inference.sparse import solve_codes
from sklebm.inference.sparse_problem import make_problem


def largest_gap(x: np.ndarray, atoms: np.ndarray, codes: np.ndarray, alpha: float) -> float:
    """Largest relative duality gap over the rows, in float64."""
    tensors = [torch.from_numpy(np.ascontiguousarray(a, np.float64)) for a in (x, atoms, codes)]
    problem = make_problem(tensors[0], tensors[1], L1(), alpha)
    return float(problem.certificate(tensors[2], tensors[2] @ problem.gram).max())


def timed(call):
    """The seconds of one run, and the answer."""
    start = time.perf_counter()
    answer = call()
    return time.perf_counter() - start, answer


def in_turns(x: np.ndarray, atoms: np.ndarray, alpha: float, n_threads: int):
    """Rows of the table for the compiled solver and SPAMS, in both precisions."""
    try:
        import spams
    except ImportError as error:
        raise SystemExit("SPAMS is the peer: pip install spams-bin") from error
    for name, kind in (("float64", np.float64), ("float32", np.float32)):
        rows, dictionary = (torch.from_numpy(np.ascontiguousarray(a, kind)) for a in (x, atoms))
        columns = [np.asfortranarray(a.T, dtype=kind) for a in (x, atoms)]
        calls = {
            "sklebm, compiled": lambda r=rows, d=dictionary: solve_codes(
                r, d, L1(), alpha, tol=1e-6
            ).codes.numpy(),
            "SPAMS lars": lambda c=columns: spams.lasso(
                c[0], D=c[1], lambda1=alpha, mode=2, numThreads=n_threads
            ),
        }
        timings = timed_ratio(calls, reference="SPAMS lars", repeats=7)
        for solver, timing in timings.items():
            codes = calls[solver]()
            codes = np.asarray(codes.todense()).T if hasattr(codes, "todense") else codes
            used, gap = (codes != 0).sum(axis=1).mean(), largest_gap(x, atoms, codes, alpha)
            seconds, share = round(timing.median, 3), round(timing.ratio, 2)
            yield [f"{used:.2f}", f"{solver}, {name}", n_threads, seconds, share, f"{gap:.1e}"]


def one_by_one(x: np.ndarray, atoms: np.ndarray, alpha: float):
    """Name and call of the slower solvers, each run once with two threads."""
    single = [torch.from_numpy(a.astype(np.float32)) for a in (x, atoms)]

    def batched():
        parts = [
            solve_codes(part, single[1], L1(), alpha, method="fista", tol=1e-6).codes
            for part in torch.split(single[0], 1024)
        ]
        return torch.cat(parts).numpy()

    yield "sklebm, batched FISTA, float32", batched
    for algorithm in ("lasso_cd", "lasso_lars"):
        yield (
            f"scikit-learn {algorithm}",
            lambda a=algorithm: sparse_encode(
                x, atoms, algorithm=a, alpha=alpha, n_jobs=2, max_iter=1000
            ),
        )


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    set_threads(2)
    x = whitened_patches(arguments.rows, 12)
    atoms = SparseCoder(256, alpha=0.1, max_iter=2, unit_norm=True, random_state=0).fit(x)
    atoms = atoms.components_
    rows = []
    for n_threads in (1, 2):
        set_threads(n_threads)
        for alpha in (0.1, 0.115, 0.25, 0.28, 0.33, 0.42):
            for row in in_turns(x, atoms, alpha, n_threads):
                rows.append(row)
                print(*row, sep="\t", flush=True)
    for alpha in (0.115, 0.25):
        for name, call in one_by_one(x, atoms, alpha):
            seconds, codes = timed(call)
            used, gap = (codes != 0).sum(axis=1).mean(), largest_gap(x, atoms, codes, alpha)
            rows.append([f"{used:.2f}", name, 2, round(seconds, 3), "", f"{gap:.1e}"])
            print(*rows[-1], sep="\t", flush=True)
    save_results(
        "sparse_coding",
        "Time to sparse codes of 20,000 patches",
        ["non-zeros a row", "solver", "threads", "seconds", "share of SPAMS's", "largest gap"],
        rows,
        notes=f"{arguments.rows:,} whitened 12 x 12 patches of length one, 256 atoms of length "
        "one. Medians of 7 rounds for the compiled solver and SPAMS 2.6; the others ran once. "
        "Compiled code was compiled before.",
        turns="The compiled solver and SPAMS took turns, the others ran once, one after the other.",
    )


if __name__ == "__main__":
    main()
