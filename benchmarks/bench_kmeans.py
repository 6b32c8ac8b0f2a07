"""Time of k-means to convergence, against scikit-learn (Lloyd, Elkan) and faiss.

MNIST (60,000 x 784, K = 256) and blobs (100,000 x 64, K = 1000), single precision, the same initial
centres and tolerance; faiss, which knows no tolerance, is given Lloyd's number of iterations. The
quality is the inertia of the final centres, recomputed in double precision. Needs the folder of
``SKLEBM_DATA`` with ``mnist.npz``, and faiss (``pip install faiss-cpu``).

    python benchmarks/bench_kmeans.py [--threads 2] [--repeats 2] [--batches]

With ``--few`` 8 and 16 clusters of many rows, against scikit-learn's Lloyd alone. With ``--device``
only ours, with and without pruning, on that device and problems that grow:

    python benchmarks/bench_kmeans.py --device cuda [--largest 1000000]
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _common import save_results, set_threads, timed_ratio
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning

from sklebm import EnergyKMeans
from sklebm._shell.rows import row_slices
from sklebm.inference.compacted_lloyd import CompactedLloyd
from sklebm.inference.lloyd import Lloyd, lloyd_steps


def load_digits():
    """MNIST's training images, pixels in [0, 1]."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("SKLEBM_DATA is not set: this benchmark needs the folder that holds mnist.npz.")
    images = np.load(Path(folder) / "mnist.npz")["x_train"]
    return (images.reshape(len(images), -1) / 255.0).astype(np.float32)


def blobs(cluster_std):
    """Balls around 1000 centres drawn uniformly from a cube of side 20."""
    X, _ = make_blobs(100_000, n_features=64, centers=1000, cluster_std=cluster_std, random_state=0)
    return X.astype(np.float32)


def inertia(X, centers):
    """Sum of squared distances to the closest centre, in double precision."""
    centers = np.asarray(centers, np.float64)
    norms = np.square(centers).sum(axis=1)
    total = 0.0
    for start in range(0, len(X), 5000):
        rows = X[start : start + 5000].astype(np.float64)
        closest = (norms - 2.0 * rows @ centers.T).argmin(axis=1)
        total += np.square(rows - centers[closest]).sum()
    return total


def contestants(X, init, n_threads):
    """Callables that fit; each leaves its centres and iterations in ``found``."""
    import faiss

    faiss.omp_set_num_threads(n_threads)
    found = {}
    k = len(init)

    def of_sklearn(algorithm):
        model = KMeans(k, init=init, n_init=1, algorithm=algorithm).fit(X)
        found[f"scikit-learn {algorithm}"] = model.cluster_centers_, model.n_iter_

    def of_faiss():
        n_iter = found["scikit-learn lloyd"][1]
        model = faiss.Kmeans(X.shape[1], k, niter=n_iter, max_points_per_centroid=len(X))
        model.train(X, init_centroids=init)
        found["faiss"] = model.centroids, n_iter

    def of_sklebm():
        model = EnergyKMeans(k, init=init).fit(X)
        found["sklebm"] = model.cluster_centers_, model.n_iter_

    calls = {
        "scikit-learn lloyd": lambda: of_sklearn("lloyd"),
        "scikit-learn elkan": lambda: of_sklearn("elkan"),
        "faiss": of_faiss,
        "sklebm": of_sklebm,
    }
    return calls, found


def compare(title, X, k, options):
    """The rows of the table of one problem."""
    init = X[np.random.default_rng(0).choice(len(X), k, replace=False)]
    calls, found = contestants(X, init, options.threads)
    EnergyKMeans(k, init=init, max_iter=2).fit(X)  # compiles
    timings = timed_ratio(calls, reference="sklebm", repeats=options.repeats, warmups=0)
    reference = inertia(X, found["scikit-learn elkan"][0])
    fastest = min(t.median for name, t in timings.items() if name != "sklebm")
    rows = []
    for name, timing in timings.items():
        centers, n_iter = found[name]
        excess = inertia(X, centers) / reference - 1.0
        share = round(timing.median / fastest, 3)
        rows.append([title, name, int(n_iter), round(timing.median, 2), share, f"{excess:+.1e}"])
        print(*rows[-1], sep="\t", flush=True)
    return rows


def compare_batches(options):
    """Mini-batches of both libraries, from seeds of their own, beside all rows at once."""
    X = load_digits()
    settings = {"n_clusters": 256, "random_state": 0}
    models = {"sklebm, all rows": EnergyKMeans(**settings)}
    for size in (1024, 4096):
        models[f"scikit-learn, {size}"] = MiniBatchKMeans(batch_size=size, n_init=1, **settings)
        models[f"sklebm, {size}"] = EnergyKMeans(batch_size=size, **settings)
        models[f"sklebm, {size}, tol 1e-3"] = EnergyKMeans(batch_size=size, tol=1e-3, **settings)
    EnergyKMeans(256, max_iter=2).fit(X)  # compiles
    calls = {name: (lambda model=model: model.fit(X)) for name, model in models.items()}
    timings = timed_ratio(calls, reference="sklebm, all rows", repeats=options.repeats, warmups=0)
    least = inertia(X, models["sklebm, all rows"].cluster_centers_)
    rows = []
    for name, timing in timings.items():
        excess = inertia(X, models[name].cluster_centers_) / least - 1.0
        passes = int(models[name].n_iter_)
        row = [name, passes, round(timing.median, 2), round(timing.ratio, 2), f"{excess:+.1e}"]
        print(*row, sep="\t", flush=True)
        rows.append(row)
    save_results(
        "kmeans_mini_batch",
        "Mini-batch k-means on MNIST",
        ["library, batch", "passes", "seconds", "ratio to all rows", "inertia"],
        rows,
        notes="60,000 x 784 float32, K = 256, seeding included, each with its own k-means++. "
        "Inertia: relative to all rows at once, recomputed in float64. Both libraries with their "
        f"own stopping rules. {options.threads} threads, median of {options.repeats} rounds.",
    )


def converge(start, x, weights, init):
    """Lloyd's algorithm by one of two searches: inertia, iterations, and the search."""
    parts = row_slices(len(x), 3 * x.shape[1] + 2 * len(init), x.device)
    search = start(x, weights, init, parts)
    for n_iter, (_, centers, settled) in enumerate(lloyd_steps(search, init, 1e-4), start=1):
        if settled or n_iter == 50:
            return search.measure(centers, weights).inertia, n_iter, search
    raise AssertionError("unreachable: the loop has no end of its own")


def time_pruning(n_rows, k, options):
    """One row of the table of pruning on a device."""
    X, _ = make_blobs(n_rows, n_features=128, centers=k, cluster_std=5.0, random_state=0)
    x = torch.from_numpy(X.astype(np.float32)).to(options.device)
    weights = torch.ones(n_rows, dtype=torch.float64, device=x.device)
    chosen = np.random.default_rng(0).choice(n_rows, k, replace=False)
    init = x[torch.from_numpy(chosen).to(x.device)]
    starts = {
        "all": lambda x, weights, init, parts: Lloyd(x, weights, parts),
        "compacted": CompactedLloyd,
    }
    found = {}
    calls = {
        name: lambda name=name: found.update({name: converge(starts[name], x, weights, init)})
        for name in starts
    }
    timings = timed_ratio(calls, reference="all", repeats=options.repeats)
    (inertia_of_all, _, _), (ours, n_iter, search) = found.values()
    seconds = [round(timings[name].median, 3) for name in starts]
    # One more assignment measures the fit.
    share = search.n_distances / (n_rows * k * (n_iter + 1))
    excess = f"{ours / inertia_of_all - 1.0:+.1e}"
    return [
        n_rows,
        k,
        n_iter,
        *seconds,
        round(timings["compacted"].ratio, 2),
        round(share, 3),
        excess,
    ]


def compare_pruning(options):
    """All distances against compacted rows on a device, on problems that grow."""
    rows = []
    for n_rows in (10_000, 100_000, 1_000_000):
        for k in (128, 512, 2048):
            if n_rows <= options.largest:
                rows.append(time_pruning(n_rows, k, options))
                print(*rows[-1], sep="\t", flush=True)
    columns = ["rows", "K", "iterations", "all distances (s)", "compacted (s)", "ratio"]
    save_results(
        "kmeans_device",
        "K-means on a device, with and without pruning",
        [*columns, "share of distances", "inertia"],
        rows,
        notes="Blobs of 128 features, float32, initial centres are rows, at most 50 iterations to "
        "a tolerance of 1e-4, one measure of the fit included. Inertia: of compacted rows relative "
        "to all distances in single precision.",
    )


def compare_few(options):
    """Few clusters and many rows: scikit-learn's Lloyd from the same start."""
    X, _ = make_blobs(1_000_000, n_features=10, centers=16, random_state=0)
    problems = {"noise, 300,000 x 20": np.random.default_rng(0).normal(size=(300_000, 20))}
    problems["blobs, 1,000,000 x 10"] = X
    rows = []
    for title, X in problems.items():
        for k in (8, 16):
            init = X[np.random.default_rng(1).choice(len(X), k, replace=False)]
            models = {
                "scikit-learn": KMeans(k, init=init, n_init=1, algorithm="lloyd"),
                "sklebm": EnergyKMeans(k, init=init),
            }
            calls = {name: partial(model.fit, X) for name, model in models.items()}
            timings = timed_ratio(calls, reference="scikit-learn", repeats=options.repeats)
            excess = models["sklebm"].inertia_ / models["scikit-learn"].inertia_ - 1.0
            for name, model in models.items():
                seconds, ratio = timings[name].median, timings[name].ratio
                row = [title, k, name, int(model.n_iter_), round(seconds, 2), round(ratio, 2)]
                rows.append([*row, f"{excess:+.1e}"])
                print(*rows[-1], sep="\t", flush=True)
    save_results(
        "kmeans_few",
        "K-means with few clusters and many rows",
        ["data", "K", "library", "iterations", "seconds", "ratio to scikit-learn", "inertia"],
        rows,
        notes=f"float64, tol 1e-4, initial centres are rows, {options.threads} threads, median of "
        f"{options.repeats} rounds. Inertia: of sklebm relative to scikit-learn. The time of "
        "sklebm includes the variance that its density needs.",
    )


def main():
    """Time all, compare what they reach, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", action="store_true", help="mini-batches only")
    parser.add_argument("--few", action="store_true", help="few clusters, many rows only")
    parser.add_argument("--device", help="with and without pruning on this device only")
    parser.add_argument("--largest", type=int, default=1_000_000, help="rows, with --device")
    options = parser.parse_args()
    set_threads(options.threads)
    if options.device:
        compare_pruning(options)
        return
    warnings.simplefilter("ignore", ConvergenceWarning)
    if options.few:
        compare_few(options)
        return
    if options.batches:
        compare_batches(options)
        return
    rows = compare("blobs, std 1", blobs(1.0), 1000, options)
    rows += compare("blobs, std 5", blobs(5.0), 1000, options)
    rows += compare("MNIST", load_digits(), 256, options)
    save_results(
        "kmeans",
        "K-means to convergence",
        ["data", "library", "iterations", "seconds", "ratio to the fastest peer", "inertia"],
        rows,
        notes="Blobs: 100,000 x 64, K = 1000, centres uniform in a cube of side 20. MNIST: 60,000 "
        f"x 784, K = 256. float32, tol 1e-4, initial centres are rows, {options.threads} threads, "
        f"median of {options.repeats} rounds. Inertia: relative to scikit-learn's Elkan, both "
        "recomputed in float64. scikit-learn's Lloyd and faiss compare rounded single-precision "
        "products and may end in another local minimum; Elkan and sklebm take the steps of exact "
        "distances. Empty clusters are moved in different ways (blobs, std 1). "
        "The time of sklebm includes the variance that its density needs.",
    )


if __name__ == "__main__":
    main()
