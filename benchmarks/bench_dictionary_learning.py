"""How fast does a dictionary get good? MiniBatchDictionaryLearning, and trainDL of SPAMS.

50,000 whitened 12 x 12 patches of natural photographs, 256 atoms, two threads: mean energy of 5,000
held-out patches, with exact codes for everybody, after given seconds of training. Needs spams-bin
and SKLEBM_DATA.
"""

from __future__ import annotations

import time
import warnings

import numpy as np
from _common import save_results, set_threads
from _patches import whitened_patches
from sklearn.decomposition import MiniBatchDictionaryLearning

from sklebm import SparseCoder

ALPHA, N_ATOMS = 0.1, 256
MARKS = (1.0, 2.0, 4.0, 8.0)


def course_of_sklebm(x):
    """Seconds and dictionaries."""
    coder = SparseCoder(N_ATOMS, alpha=ALPHA, code_tol=1e-6, random_state=0)
    order = np.random.default_rng(0)
    clock, course = 0.0, []
    while clock < MARKS[-1]:
        part = x[order.permutation(len(x))[: 512 * 8]]
        start = time.perf_counter()
        coder.partial_fit(part)
        clock += time.perf_counter() - start
        course.append((clock, coder.components_.copy()))
    return course


def course_of_sklearn(x):
    """Seconds and dictionaries; 512 rows a batch, coordinate descent, as for large data.

    One job: more would start processes anew in every batch, which takes most of the time. The
    products still use both threads.
    """
    peer = MiniBatchDictionaryLearning(
        N_ATOMS, alpha=ALPHA, batch_size=512, fit_algorithm="cd", n_jobs=1, random_state=0
    )
    order = np.random.default_rng(0)
    clock, course = 0.0, []
    while clock < MARKS[-1]:
        part = x[order.permutation(len(x))[:512]]
        start = time.perf_counter()
        peer.partial_fit(part)
        clock += time.perf_counter() - start
        course.append((clock, peer.components_.copy()))
    return course


def course_of_spams(x):
    """One run for each mark: trainDL stops by the clock if asked to."""
    try:
        import spams
    except ImportError as error:
        raise SystemExit("SPAMS is one of the peers: pip install spams-bin") from error
    columns = np.asfortranarray(x.T)
    course = []
    for mark in MARKS:
        start = time.perf_counter()
        atoms = spams.trainDL(
            columns, K=N_ATOMS, lambda1=ALPHA, mode=2, batchsize=512, iter=-int(mark),
            numThreads=2, verbose=False,
        )  # fmt: skip
        course.append((time.perf_counter() - start, np.ascontiguousarray(atoms.T)))
    return course


def main() -> None:
    """Measure and record."""
    warnings.simplefilter("ignore")
    set_threads(2)
    patches = whitened_patches(55_000, 12, seed=1)
    x, held_out = patches[:50_000], patches[50_000:]
    SparseCoder(8, max_iter=1).fit(x[:600])  # compile before the clock starts
    courses = {
        "sklebm": course_of_sklebm(x),
        "scikit-learn": course_of_sklearn(x),
        "SPAMS": course_of_spams(x),
    }
    rows = []
    for name, course in courses.items():
        row = [name]
        for mark in MARKS:
            # SPAMS looks at its clock between batches and may end late.
            known = [atoms for seconds, atoms in course if seconds <= mark * 1.2]
            if not known:
                row.append("-")
                continue
            coder = SparseCoder(dictionary=known[-1], alpha=ALPHA).fit(held_out)
            row.append(f"{-coder.score(held_out):.4f}")
        rows.append(row)
        print(*row, sep="\t", flush=True)
    save_results(
        "dictionary_learning",
        "Held-out energy of a dictionary against the time spent on it",
        ["", *(f"after {mark:.0f} s" for mark in MARKS)],
        rows,
        notes="50,000 whitened 12 x 12 patches of length one, 256 atoms, alpha 0.1, batches of "
        "512, 2 threads; mean energy of 5,000 held-out patches with exact codes. A dictionary "
        "counts for a mark if it was there 20 % after it. Our kernels were compiled before.",
    )


if __name__ == "__main__":
    main()
