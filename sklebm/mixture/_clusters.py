"""How prototypes are fitted: initial centres, Lloyd's steps or mini-batches, and the result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array
from torch import Tensor

from sklebm._shell.arrays import to_numpy
from sklebm._shell.random import draw_seed, make_generator
from sklebm._shell.ranks import ALONE, Ranks
from sklebm._shell.rows import Rows, row_slices
from sklebm._shell.scaling import column_deviations, warn_of_unequal_scales
from sklebm._shell.state import Array, Record, Scalar, Spec
from sklebm._shell.warning import warn
from sklebm.inference.lloyd import (
    Lloyd,
    OnlineClusters,
    RowSource,
    Search,
    Slices,
    inertia,
    lloyd_steps,
    online_pass,
)
from sklebm.inference.mini_batch_lloyd import RandomBatches, mini_batch_steps
from sklebm.inference.pruned_lloyd import start_lloyd
from sklebm.inference.seeding import random_rows, seed_centers
from sklebm.iterative import Draw


class ClusterRun(NamedTuple):
    """A run of k-means: the search, its steps, and its present state."""

    search: Search
    steps: Iterator[tuple[Tensor, Tensor, bool]]
    labels: Tensor
    centers: Tensor
    settled: bool = False

    def next(self) -> ClusterRun:
        """The run after one more step."""
        labels, centers, settled = next(self.steps)
        return self._replace(labels=labels, centers=centers, settled=settled)


class ClusterProblem(NamedTuple):
    """Rows and their weights, shared by all runs."""

    x: RowSource
    weights: Tensor
    parts: Slices
    ranks: Ranks
    n_clusters: int
    init: Any
    names: Any = None  # of the columns, for warnings

    def start(self, tol: float, draw: Draw) -> ClusterRun:
        """Lloyd's algorithm on all rows."""
        x, weights, parts, ranks = self.x, self.weights, self.parts, self.ranks
        centers = self.first_centers(x, weights, parts, draw("seeding"), ranks)
        search = start_lloyd(x, weights, centers, parts, ranks)
        return ClusterRun(search, lloyd_steps(search, centers, tol, ranks), weights[:0], centers)

    def start_batches(self, batch_size: int, tol: float, draw: Draw) -> ClusterRun:
        """Mini-batches in random order."""
        x, weights, generator = self.x, self.weights, draw("seeding")
        batches = RandomBatches(x, weights, self.parts, generator)
        # Seeding on all rows would take longer than the passes.
        some = batches.first(max(3 * batch_size, 10 * self.n_clusters), 10 * self.n_clusters)
        few = row_slices(len(some), floats_per_row(x.shape[1], self.n_clusters))
        centers = self.first_centers(x[some], weights[some], few, generator)
        steps = mini_batch_steps(x, weights, centers, batches, batch_size, tol)
        return ClusterRun(Lloyd(x, weights, self.parts), steps, weights[:0], centers)

    def first_centers(
        self,
        x: RowSource,
        weights: Tensor,
        parts: Slices,
        generator: torch.Generator,
        ranks: Ranks = ALONE,
    ) -> Tensor:
        """Centres chosen by ``init``, in the precision of the rows."""
        k, init = self.n_clusters, self.init
        if isinstance(init, str):
            choose = seed_centers if init == "k-means++" else random_rows
            return choose(x, weights, k, parts, generator, ranks)
        if callable(init):
            ranks.need_same({"init": init})
            seed = int(torch.randint(2**31 - 1, (), generator=generator))
            rows = np.concatenate([to_numpy(x[part]) for part in parts])
            init = init(rows, k, random_state=np.random.RandomState(seed))
        init = check_array(init, dtype=np.float64, input_name="init")
        if init.shape != (k, x.shape[1]):
            raise ValueError(
                f"init has shape {init.shape}, but n_clusters={k} prototypes of {x.shape[1]} "
                f"features need shape {(k, x.shape[1])}."
            )
        return torch.from_numpy(init.copy()).to(x.device, x.dtype)

    def report(self, run: ClusterRun) -> dict[str, float]:
        """The objective after the last step."""
        total = inertia(self.x, self.weights, run.labels, run.centers, self.parts)
        return {"inertia": self.ranks.total(total)}

    def state(self, run: ClusterRun, n_iter: int) -> dict[str, Any]:
        """Every fitted attribute for the centres of a run; labels agree with ``predict``."""
        weights, ranks, centers = self.weights, self.ranks, run.centers
        # Weights count as copies of a row; weights that average less than one are scaled up to one.
        n_rows, total = ranks.sum((weights > 0).sum()), ranks.sum(weights.sum())
        factor = max(1.0, float(n_rows / total))
        copies = weights if factor == 1.0 else weights * factor
        fit = run.search.measure(centers, copies)
        # A single row has nothing else to be compared with.
        expected = fit.leave_one_out if math.isfinite(fit.leave_one_out) else 0.0
        variance = expected / float(ranks.sum(copies.sum())) / centers.shape[1]
        mean, spread = run.search.moments
        square = float((mean.square() + spread).mean())
        return {
            "cluster_centers_": centers.cpu().numpy(),
            "labels_": fit.labels.to(torch.int32).cpu().numpy(),
            "cluster_counts_": fit.counts.cpu().numpy(),
            "inertia_": fit.inertia,
            "n_iter_": n_iter,
            "training_state_": {},
            **density(variance, square, centers.cpu().numpy()),
        }


def floats_per_row(n_features: int, n_clusters: int) -> int:
    """Temporary numbers per row of a step."""
    return 3 * n_features + 2 * n_clusters


def source(rows: Rows) -> RowSource:
    """Rows in memory as one tensor; rows on disk or in a sparse matrix are read in parts."""
    in_memory = isinstance(rows.source, (np.ndarray, Tensor))
    return rows.all() if in_memory else rows


def density(variance: float, mean_square: float, centers: NDArray[Any]) -> dict[str, Any]:
    """The spherical mixture with this variance, or with the least that rounding can resolve."""
    k, n_features = centers.shape
    rounding = 4.0 * float(np.finfo(centers.dtype).eps)
    # Rows that are all zero have no scale to compare with.
    variance = max(variance, rounding**2 * mean_square) or 1e-12
    log_z = math.log(k) + 0.5 * n_features * math.log(2 * math.pi * variance)
    return {"noise_variance_": variance, "beta_": 0.5 / variance, "log_partition_": log_z}


def warn_of_clusters(estimator: Any, run: ClusterRun, state: dict[str, Any], names: Any) -> None:
    """Warn of columns that hardly count and of prototypes without rows."""
    deviations = column_deviations(*run.search.moments)
    warn_of_unequal_scales(type(estimator).__name__, deviations, "standard deviation", names)
    distinct = int(np.count_nonzero(state["cluster_counts_"]))
    if distinct < estimator.n_clusters:
        warn(
            f"Only {distinct} of n_clusters={estimator.n_clusters} prototypes own a row: X has "
            "fewer distinct rows than n_clusters. Lower n_clusters.",
            ConvergenceWarning,
        )


def learn_online(estimator: Any, rows: Rows, **data: Any) -> dict[str, Any]:
    """Every fitted attribute after MacQueen's rule on rows that are not kept."""
    k, fitted = estimator.n_clusters, estimator._is_fitted()
    if fitted and len(estimator.cluster_centers_) != k:
        raise ValueError(
            f"n_clusters={k} differs from the {len(estimator.cluster_centers_)} fitted prototypes: "
            "set it back, or call fit to start again."
        )
    weights = estimator._weights(rows, 0 if fitted else k, "n_clusters").cpu()
    x = rows.to_numpy().astype(np.float64, copy=False)
    if fitted:
        clusters, n_iter = _resume(estimator), estimator.n_iter_
    else:
        problem: ClusterProblem = estimator._prepare(rows, **data)
        first = torch.from_numpy(np.require(x, requirements=["C", "W"]))
        generator = make_generator(draw_seed(estimator.random_state), "seeding")
        centers = problem.first_centers(first, weights, problem.parts, generator)
        clusters, n_iter = OnlineClusters(centers.numpy(), np.zeros(k), 0.0), 0
    clusters, labels = online_pass(x, weights.numpy(), clusters, revive=fitted)
    dtype = np.float32 if rows.dtype == torch.float32 else np.float64
    return _online_state(clusters, labels, n_iter + 1, dtype)


def _online_state(
    clusters: OnlineClusters, labels: NDArray[Any], n_iter: int, dtype: Any
) -> dict[str, Any]:
    """Every fitted attribute when the rows are no longer available."""
    k, n_features = clusters.centers.shape
    n_rows = float(clusters.counts.sum())
    centers = clusters.centers.astype(dtype)
    # Rows that were not kept cannot be left out one by one: divide by the degrees of freedom.
    # At least one row, or all the weight that there is, if that is less.
    freedom = max(n_rows - k, min(n_rows, 1.0)) * n_features
    square = float(np.square(clusters.centers).mean()) + clusters.error / n_rows
    return {
        "cluster_centers_": centers,
        "labels_": labels,
        "cluster_counts_": clusters.counts,
        "inertia_": clusters.error,
        "n_iter_": n_iter,
        "training_state_": {} if centers.dtype == np.float64 else {"centers": clusters.centers},
        **density(clusters.error / freedom, square, centers),
    }


def _resume(estimator: Any) -> OnlineClusters:
    """The state a fitted estimator continues from, with unrounded centres if they are known."""
    centers = estimator.cluster_centers_
    exact = getattr(estimator, "training_state_", {}).get("centers")
    if exact is None or not np.array_equal(np.asarray(exact).astype(centers.dtype), centers):
        exact = centers
    counts = np.asarray(estimator.cluster_counts_, np.float64)
    return OnlineClusters(np.array(exact, np.float64), counts, float(estimator.inertia_))


def cluster_spec() -> Spec:
    """Kind and shape of every fitted attribute."""
    return {
        "cluster_centers_": Array("f", ("n_clusters", "n_features_in_"), of="centers"),
        "labels_": Array("i", (None,)),
        "cluster_counts_": Array("f", ("n_clusters",)),
        "n_iter_": Scalar(int, 0),
        "inertia_": Scalar(float, 0.0),
        "noise_variance_": Scalar(float, 0.0),
        "beta_": Scalar(float, 0.0),
        "log_partition_": Scalar(float),
        "training_state_": Record(optional=True),
    }


def untrained(given: dict[str, Any]) -> dict[str, Any]:
    """Fitted attributes for given prototypes, each of which counts as one row.

    Without ``noise_variance``, the variance is one.
    """
    centers = np.asarray(given["cluster_centers_"])
    variance = float(given.get("noise_variance_", 1.0))
    if not variance > 0:
        raise ValueError(f"noise_variance={variance!r} must be positive.")
    return {
        "labels_": np.empty(0, dtype=np.int32),
        "cluster_counts_": np.ones(len(centers)),
        "inertia_": 0.0,
        "n_iter_": 0,
        "training_state_": {},
        **density(variance, 0.0, centers),
    }
