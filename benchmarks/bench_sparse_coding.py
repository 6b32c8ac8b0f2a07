"""How fast are exact sparse codes? Beside lasso_cd and lasso_lars of scikit-learn, and SPAMS.

20,000 whitened 12 x 12 patches of natural photographs, 256 learnt atoms, two threads, at some 25
and some 2 non-zeros a row. Largest relative duality gap over the rows beside the time. Needs
spams-bin and SKLEBM_DATA.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import torch
from _common import save_results, set_threads
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


def timed(call, repeats: int):
    """The best of ``repeats`` runs, and the answer."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        answer = call()
        seconds.append(time.perf_counter() - start)
    return min(seconds), answer


def contestants(x: np.ndarray, atoms: np.ndarray, alpha: float):
    """Name, repeats and call of each solver."""
    for name, kind in (("float64", np.float64), ("float32", np.float32)):
        rows, dictionary = (torch.from_numpy(a.astype(kind)) for a in (x, atoms))
        yield (
            f"sklebm, compiled, {name}",
            3,
            lambda r=rows, d=dictionary: solve_codes(r, d, L1(), alpha, tol=1e-6).codes.numpy(),
        )
    single = [torch.from_numpy(a.astype(np.float32)) for a in (x, atoms)]

    def batched():
        parts = [
            solve_codes(part, single[1], L1(), alpha, method="fista", tol=1e-6).codes
            for part in torch.split(single[0], 1024)
        ]
        return torch.cat(parts).numpy()

    yield "sklebm, batched FISTA, float32", 1, batched
    for algorithm, repeats in (("lasso_cd", 2), ("lasso_lars", 1)):
        yield (
            f"scikit-learn {algorithm}",
            repeats,
            lambda a=algorithm: sparse_encode(
                x, atoms, algorithm=a, alpha=alpha, n_jobs=2, max_iter=1000
            ),
        )
    try:
        import spams
    except ImportError as error:
        raise SystemExit("SPAMS is one of the peers: pip install spams-bin") from error
    for name, kind in (("float64", np.float64), ("float32", np.float32)):
        columns = [np.asfortranarray(a.T, dtype=kind) for a in (x, atoms)]
        yield (
            f"SPAMS lars, {name}",
            3,
            lambda c=columns: spams.lasso(c[0], D=c[1], lambda1=alpha, mode=2, numThreads=2),
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
    for alpha in (0.115, 0.25):
        for name, repeats, call in contestants(x, atoms, alpha):
            seconds, codes = timed(call, repeats)
            codes = np.asarray(codes.todense()).T if hasattr(codes, "todense") else codes
            non_zeros = (codes != 0).sum(axis=1).mean()
            gap = largest_gap(x, atoms, codes, alpha)
            rows.append([f"{non_zeros:.1f}", name, round(seconds, 3), f"{gap:.1e}"])
            print(*rows[-1], sep="\t", flush=True)
    save_results(
        "sparse_coding",
        "Time to sparse codes of 20,000 patches",
        ["non-zeros a row", "solver", "seconds", "largest relative gap"],
        rows,
        command="make bench BENCHMARKS=benchmarks/bench_sparse_coding.py",
        notes=f"{arguments.rows:,} whitened 12 x 12 patches of length one, 256 atoms of length "
        "one, 2 threads, best of the runs (3 for sklebm and SPAMS, 2 for lasso_cd, 1 for the "
        "others). Compiled code was compiled before. SPAMS 2.6.",
    )


if __name__ == "__main__":
    main()
