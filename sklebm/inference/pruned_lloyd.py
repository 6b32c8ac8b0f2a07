r"""Minimise sum_i w_i min_k \|x_i - c_k\|^2 by Lloyd steps that skip what cannot change.

The same labels as Lloyd's algorithm in double precision, for any number of threads, from a fraction
of the distances. On the CPU, with compiled kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sklebm._shell.ranks import ALONE, Ranks
from sklebm.energies.prototypes import overflow
from sklebm.inference.compacted_lloyd import CompactedLloyd
from sklebm.inference.hamerly_lloyd import HamerlyLloyd
from sklebm.inference.lloyd import Fit, Lloyd, RowSource, Search, Slices, group_centers, relocate

Floats = NDArray[np.float64]

_BLOCK = 2048  # rows of one task of a thread
_GROUP_SIZE = 10  # centres that share a bound
_SUMS = 1 << 15  # entries of one block of cluster sums: they stay in the cache
# Below this many numbers in all distances of a step, they take less time than loading the kernels.
_LEAST_COMPILED_WORK = 1 << 24
# Bounds for groups of centres pay from here on; below, one bound for all of them.
_LEAST_CLUSTERS, _LEAST_WORK = 64, 1 << 30
# On a GPU compacting costs a step some hundred launches and four waits, a few milliseconds; the two
# products with all centres that it saves, 4 n d k operations, are to take several times as long.
# Reasoned for cards of 20 to 60 Tflop/s, not measured.
_LEAST_CLUSTERS_OF_DEVICE, _LEAST_WORK_OF_DEVICE = 128, 1 << 36


def start_lloyd(
    x: RowSource, weights: Tensor, centers: Tensor, parts: Slices, ranks: Ranks = ALONE
) -> Search:
    """Choose the way of computing Lloyd's steps that should be fastest for these rows."""
    k, work = len(centers), x.shape[0] * x.shape[1] * len(centers)
    compiled: PrunedLloyd | CompactedLloyd | HamerlyLloyd | None = None
    if x.device.type == "cpu":
        if isinstance(x, Tensor) and k >= _LEAST_CLUSTERS and work >= _LEAST_WORK:
            compiled = PrunedLloyd(x, weights, centers, parts)
        elif work >= _LEAST_COMPILED_WORK:
            compiled = HamerlyLloyd(x, weights, centers, parts)
    elif k >= _LEAST_CLUSTERS_OF_DEVICE and work >= _LEAST_WORK_OF_DEVICE:
        compiled = CompactedLloyd(x, weights, centers, parts) if isinstance(x, Tensor) else None
    if compiled is None or ranks.size > 1:
        return Lloyd(x, weights, parts, ranks, compiled.assign if compiled else None)
    return compiled


class PrunedLloyd:
    """Lloyd's algorithm on the rows ``x``, starting from ``centers``.

    Parameters
    ----------
    x : Tensor of shape (n_rows, n_features)
        Rows on the CPU, single or double precision.
    weights : Tensor of shape (n_rows,)
        Their weights, double precision.
    centers : Tensor of shape (n_clusters, n_features)
        The first centres.
    parts : sequence of slices
        Chunks of rows for what is not compiled.
    """

    def __init__(self, x: Tensor, weights: Tensor, centers: Tensor, parts: Slices) -> None:
        from sklebm.inference import _distances, _yinyang

        self._kernels, self._adders = _yinyang, _distances
        self._x, self._weights, self._parts = x, weights, parts
        self._rows: NDArray[Any] = x.contiguous().numpy()
        n_rows, n_features = self._rows.shape
        # Threads of our own: those of torch and BLAS spin for a while after every call, and would
        # take the processor from the kernels.
        self._pool = ThreadPoolExecutor(torch.get_num_threads())
        # Rounding: of sums of n_features squares of differences, all of one sign.
        self._margin = (n_features + 4) * float(np.finfo(self._rows.dtype).eps)
        self._set_groups(centers)
        n_groups = len(self._starts) - 1
        self._bounds = _yinyang.Bounds(
            labels=np.full(n_rows, -1, dtype=np.int32),
            upper=np.empty(n_rows),
            nearest=np.empty(n_rows),
            touched=np.zeros(n_rows, dtype=np.int32),
            lower=np.empty((n_rows, n_groups), dtype=np.float32),
            pending=np.zeros(n_rows, dtype=np.bool_),
        )
        self._paths = np.zeros((1, n_groups))
        self._centers: Any = None
        # Sums of the rows of every cluster, as labelled in ``_summed``; in the order of groups.
        self._summed = self._bounds.labels.copy()
        self._origin: Floats = centers.double().mean(dim=0).numpy()
        self._sums = np.zeros(centers.shape)
        self._residues = np.zeros(centers.shape)

    def _set_groups(self, centers: Tensor) -> None:
        """Order the centres by groups."""
        groups = group_centers(centers, -(-len(centers) // _GROUP_SIZE)).numpy()
        self._order = np.argsort(groups, kind="stable")
        sizes = np.bincount(groups)
        sizes = sizes[sizes > 0]
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._group_of = np.repeat(np.arange(len(sizes)), sizes)

    def _run(self, kernel: Callable[..., None], tasks: Iterable[tuple[Any, ...]]) -> None:
        futures = [self._pool.submit(kernel, *task) for task in tasks]
        for future in futures:
            future.result()

    def _run_rows(self, kernel: Callable[..., None], *arguments: Any) -> None:
        n_rows = len(self._rows)
        blocks = ((start, min(start + _BLOCK, n_rows)) for start in range(0, n_rows, _BLOCK))
        self._run(kernel, ((*block, *arguments) for block in blocks))

    # ------------------------------------------------------------ assignment

    def assign(self, centers: Tensor) -> Tensor:
        """Index of the closest of ``centers`` for every row, shape (n_rows,)."""
        points = np.ascontiguousarray(centers.numpy()[self._order])
        if self._centers is None:
            self._centers = self._place(points, np.zeros(len(points)))
            self._compare_with_all(np.arange(len(self._rows)))
        elif not np.array_equal(points, self._centers.points):
            step = points.astype(np.float64) - self._centers.points
            self._centers = self._place(points, np.sqrt(np.square(step).sum(axis=1)))
            self._bounds.pending[:] = False
            self._run_rows(
                self._kernels.prune,
                # Many distances of one row are cheaper all together.
                len(points) // 3,
                self._margin,
                self._rows,
                self._centers,
                self._bounds,
            )
            self._compare_with_all(np.flatnonzero(self._bounds.pending))
        return torch.from_numpy(self._order[self._bounds.labels])

    def _place(self, points: NDArray[Any], drift: Floats) -> Any:
        """The centres with what the kernels need to know of them. O(k^2 d)."""
        drift = drift * (1 + 1e-12)
        moved = np.maximum.reduceat(drift, self._starts[:-1]) * (1 + 1e-9)
        self._paths = np.vstack([self._paths, self._paths[-1:] + moved])
        between = np.empty((len(points), len(moved)))
        self._run(
            self._kernels.measure_centers,
            (
                (start, min(start + 64, len(points)), self._margin, points, self._starts, between)
                for start in range(0, len(points), 64)
            ),
        )
        return self._kernels.Centers(
            points=points,
            starts=self._starts,
            group_of=self._group_of,
            rank=self._order,
            between=between,
            half=0.5 * between.min(axis=1),
            drift=drift,
            paths=self._paths,
        )

    def _compare_with_all(self, rows: NDArray[np.int64]) -> None:
        """Label the given rows by their distances to all centres. O(n d k)."""
        arguments = (self._margin, self._rows, self._centers, self._bounds)
        self._run(
            self._kernels.compare_with_all,
            (
                (rows[start : start + _BLOCK // 8], *arguments)
                for start in range(0, len(rows), _BLOCK // 8)
            ),
        )
        if not np.isfinite(self._bounds.nearest[rows]).all() and len(self._order) > 1:
            raise overflow(self._x)

    # ------------------------------------------------------------ steps

    def step(self, centers: Tensor) -> tuple[Tensor, Tensor]:
        """Labels under ``centers``, and the centres that they lead to."""
        labels = self.assign(centers)
        self._update_sums()
        weights = self._weights.numpy()
        counts = np.bincount(labels.numpy(), weights, minlength=len(centers))
        order = torch.from_numpy(self._order)
        means = torch.empty(centers.shape, dtype=torch.float64)
        means[order] = torch.from_numpy(self._sums + self._residues)
        means /= torch.from_numpy(counts).clamp(min=torch.finfo(torch.float64).tiny)[:, None]
        moved = (means + torch.from_numpy(self._origin)).to(centers.dtype)
        empty = torch.from_numpy(np.flatnonzero(counts <= 0))
        if len(empty):
            moved = self._relocate(moved, empty)
        return labels, moved

    def _relocate(self, centers: Tensor, empty: Tensor) -> Tensor:
        """Move empty centres onto the rows that are farthest from all centres."""
        # No row is farther from all centres than from its own one: few can be the farthest.
        reach = np.empty(len(self._rows))
        points = centers.numpy()[self._order]
        self._run_rows(self._kernels.own_distances, self._rows, points, self._bounds.labels, reach)
        reach[self._weights.numpy() <= 0] = -1.0
        most = 32 * len(empty) + 1024
        while most < len(reach):
            rows = torch.from_numpy(np.sort(np.argpartition(-reach, most)[:most]))
            chosen, weights = self._x[rows], self._weights[rows]
            moved, last = relocate(chosen, weights, centers, empty, [slice(0, most)])
            if last * (1.0 - self._margin) > reach[np.setdiff1d(np.arange(len(reach)), rows)].max():
                return moved
            most *= 8
        return relocate(self._x, self._weights, centers, empty, self._parts)[0]

    def _update_sums(self) -> None:
        """Move the rows whose label changed from one sum to another."""
        labels, n_features = self._bounds.labels, self._rows.shape[1]
        rows = np.flatnonzero(labels != self._summed)
        width = max(_SUMS // len(self._sums), 16)
        self._run(
            self._adders.add_moved,
            (
                (
                    rows,
                    start,
                    min(start + width, n_features),
                    self._rows,
                    self._weights.numpy(),
                    self._origin,
                    self._summed,
                    labels,
                    self._sums,
                    self._residues,
                )
                for start in range(0, n_features, width)
            ),
        )
        self._summed = labels.copy()

    # ------------------------------------------------------------ measures

    def measure(self, centers: Tensor, copies: Tensor) -> Fit:
        """Evaluate the rows under these centres; ``copies`` are weights for leaving one out."""
        labels = self.assign(centers)
        sizes = np.bincount(labels.numpy(), copies.numpy(), minlength=len(centers))
        with np.errstate(divide="ignore"):
            stretch = np.where(sizes > 1, (sizes / (sizes - 1.0)) ** 2, np.inf)
        own = np.empty(len(self._rows))
        others = np.full(len(self._rows), np.inf)
        bounds, points = self._bounds, self._centers.points
        self._run_rows(self._kernels.own_distances, self._rows, points, bounds.labels, own)
        self._run_rows(
            self._kernels.other_distances,
            self._margin,
            self._rows,
            stretch[self._order],
            self._centers,
            bounds,
            own,
            others,
        )
        # 0 * inf: a row alone in its cluster has no cluster left without itself.
        factor = stretch[labels.numpy()]
        alone = np.where(np.isfinite(factor), own, 1.0) * factor
        left_out = np.where(copies.numpy() > 0, np.minimum(alone, others), 0.0)
        weights = self._weights.numpy()
        return Fit(
            labels,
            torch.from_numpy(np.bincount(labels.numpy(), weights, minlength=len(centers))),
            float((weights * own).sum()),
            float((copies.numpy() * left_out).sum()),
        )

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Weighted mean and variance of each feature, double precision."""
        n_rows, n_features = self._rows.shape
        weights = self._weights.numpy()
        origin = self._rows[:: max(n_rows // 1024, 1)].mean(axis=0, dtype=np.float64)
        starts = range(0, n_rows, _BLOCK)
        sums = np.zeros((len(starts), 2, n_features))
        self._run(
            self._adders.add_moments,
            (
                (start, min(start + _BLOCK, n_rows), self._rows, weights, origin, sums[block])
                for block, start in enumerate(starts)
            ),
        )
        mean, square = sums.sum(axis=0) / weights.sum()
        variance = np.maximum(square - mean**2, 0.0)
        return torch.from_numpy(mean + origin), torch.from_numpy(variance)
