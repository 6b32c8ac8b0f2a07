r"""Minimise sum_i w_i min_k \|x_i - c_k\|^2 by Lloyd steps, for few centres or rows on disk.

The same labels as Lloyd's algorithm in double precision, for any number of threads, from compiled
kernels on the CPU. One number a row, by how much every other centre is farther than the own one,
tells which rows the last step may have changed; those are measured against all centres
(G. Hamerly, "Making k-means even faster", SDM 2010).
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

from sklebm.energies.prototypes import overflow
from sklebm.inference.lloyd import Fit, RowSource, Slices, relocate

Floats = NDArray[np.float64]

_BLOCK = 8192  # rows of one task of a thread
_SUMS = 1 << 15  # entries of one block of cluster sums: they stay in the cache


class HamerlyLloyd:
    """Lloyd's algorithm on the rows ``x``, which are asked for part by part.

    Parameters
    ----------
    x : Tensor of shape (n_rows, n_features), or rows that are read when asked for
        Rows on the CPU, single or double precision.
    weights : Tensor of shape (n_rows,)
        Their weights, double precision.
    centers : Tensor of shape (n_clusters, n_features)
        The first centres.
    parts : sequence of slices
        Chunks of rows that fit in memory.

    Notes
    -----
    Memory beside the rows: twenty-four bytes a row. A part of which no row may have changed is not
    read again.
    """

    def __init__(self, x: RowSource, weights: Tensor, centers: Tensor, parts: Slices) -> None:
        from sklebm.inference import _distances, _hamerly

        self._kernels, self._adders = _hamerly, _distances
        self._x, self._weights, self._parts = x, weights, parts
        n_rows, n_features = x.shape
        # Threads of our own: those of torch and BLAS spin for a while after every call, and would
        # take the processor from the kernels.
        n_threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(n_threads) if n_threads > 1 else None
        # Rounding: of sums of n_features squares of differences, all of one sign.
        self._margin = (n_features + 4) * float(np.finfo(np.float64).eps)
        self._labels = np.zeros(n_rows, dtype=np.int32)
        self._slack = np.full(n_rows, -1.0)
        self._centers: Floats | None = None
        # Sums of the rows of every cluster, as labelled in ``_summed``.
        self._summed = np.full(n_rows, -1, dtype=np.int32)
        self._origin: Floats = centers.double().mean(dim=0).numpy()
        self._sums = np.zeros(centers.shape)
        self._residues = np.zeros(centers.shape)

    def _run(self, kernel: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> list[Any]:
        if self._pool is None:
            return [kernel(*task) for task in tasks]
        futures = [self._pool.submit(kernel, *task) for task in tasks]
        return [future.result() for future in futures]

    def _run_rows(self, kernel: Callable[..., Any], part: slice, x: Any, *rest: Any) -> list[Any]:
        """Call ``kernel(first, rows, ...)`` on blocks of the rows ``x`` of a part."""
        starts = range(0, len(x), _BLOCK)
        return self._run(kernel, ((part.start + s, x[s : s + _BLOCK], *rest) for s in starts))

    def _rows(self, part: slice) -> NDArray[Any]:
        return self._x[part].contiguous().numpy()

    # ------------------------------------------------------------ assignment

    def assign(self, centers: Tensor) -> Tensor:
        """Index of the closest of ``centers`` for every row, shape (n_rows,)."""
        for _ in self._relabel(centers):
            pass
        return torch.from_numpy(self._labels.astype(np.int64))

    def _relabel(self, centers: Tensor) -> Iterable[tuple[slice, Any]]:
        """Label part by part; yields the parts of which rows were read, with these rows."""
        points = np.ascontiguousarray(centers.double().numpy())
        fall = np.zeros(len(points))
        if self._centers is not None:
            drift = np.sqrt(np.square(points - self._centers).sum(axis=1)) * (1 + 1e-9)
            if not drift.any():
                return
            fall = drift + _largest_other(drift)
        if not np.isfinite(fall).all():
            raise overflow(centers)
        self._centers = points
        for part in self._parts:
            if not isinstance(self._x, Tensor):
                left = self._slack[part] - fall[self._labels[part]]
                if left.min() > 0.0:
                    self._slack[part] = left
                    continue
            x = self._rows(part)
            arguments = points, self._margin, fall, self._labels, self._slack
            if any(self._run_rows(self._kernels.relabel, part, x, *arguments)):
                raise overflow(torch.from_numpy(x))
            yield part, x

    # ------------------------------------------------------------ steps

    def step(self, centers: Tensor) -> tuple[Tensor, Tensor]:
        """Labels under ``centers``, and the centres that they lead to."""
        for part, x in self._relabel(centers):
            self._move(part, x)
        for part in self._parts:  # labelled by others than ``step``: by a look at the fit
            if (self._summed[part] != self._labels[part]).any():
                self._move(part, self._rows(part))
        counts = self._added(self._weights.numpy(), len(centers))
        means = torch.from_numpy(self._sums + self._residues)
        means /= torch.from_numpy(counts).clamp(min=torch.finfo(torch.float64).tiny)[:, None]
        moved = (means + torch.from_numpy(self._origin)).to(centers.dtype)
        empty = torch.from_numpy(np.flatnonzero(counts <= 0))
        if len(empty):
            moved, _ = relocate(self._x, self._weights, moved, empty, self._parts)
        return torch.from_numpy(self._labels.copy()), moved

    def _added(self, values: Floats, n_clusters: int) -> Floats:
        """Sums of the values of every cluster's rows, part by part: labels are copied for it."""
        sums = np.zeros(n_clusters)
        for part in self._parts:
            sums += np.bincount(self._labels[part], values[part], minlength=n_clusters)
        return sums

    def _move(self, part: slice, x: NDArray[Any]) -> None:
        """Move the rows of a part whose label changed from one sum to another."""
        before, after = self._summed[part], self._labels[part]
        rows = np.flatnonzero(before != after)
        width = max(_SUMS // len(self._sums), 16)
        weights = self._weights[part].numpy()
        arguments = x, weights, self._origin, before, after, self._sums, self._residues
        starts = range(0, x.shape[1], width)
        stops = (min(start + width, x.shape[1]) for start in starts)
        tasks = ((rows, *ends, *arguments) for ends in zip(starts, stops, strict=True))
        self._run(self._adders.add_moved, tasks)
        before[rows] = after[rows]

    # ------------------------------------------------------------ measures

    def measure(self, centers: Tensor, copies: Tensor) -> Fit:
        """Evaluate the rows under these centres; ``copies`` are weights for leaving one out."""
        for _ in self._relabel(centers):
            pass
        mass, weights, n_clusters = copies.numpy(), self._weights.numpy(), len(centers)
        sizes = self._added(mass, n_clusters)
        with np.errstate(divide="ignore"):
            stretch = np.where(sizes > 1, (sizes / (sizes - 1.0)) ** 2, np.inf)
        points = np.ascontiguousarray(centers.double().numpy())
        inertia = left_out = 0.0
        for part in self._parts:
            x = self._rows(part)
            labels, own, others = np.empty(len(x), np.int32), np.empty(len(x)), np.empty(len(x))
            whole = slice(0, len(x))
            self._run_rows(self._kernels.nearest_two, whole, x, points, labels, own, others)
            inertia += float(weights[part] @ own)
            factor = stretch[labels]
            # 0 * inf: a row alone in its cluster has no cluster left without itself.
            own = np.where(np.isfinite(factor), own, 1.0) * factor
            own = np.where(mass[part] > 0, np.minimum(own, others), 0.0)
            left_out += float((mass[part] * own).sum())
        return Fit(
            torch.from_numpy(self._labels.copy()),
            torch.from_numpy(self._added(weights, n_clusters)),
            inertia,
            left_out,
        )

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Weighted mean and variance of each feature, double precision."""
        sums = np.zeros((2, self._x.shape[1]))
        for part in self._parts:
            x = self._rows(part)
            weights = self._weights[part].numpy()
            starts = range(0, len(x), _BLOCK)
            blocks = np.zeros((len(starts), *sums.shape))
            self._run(
                self._adders.add_moments,
                (
                    (s, min(s + _BLOCK, len(x)), x, weights, self._origin, block)
                    for s, block in zip(starts, blocks, strict=True)
                ),
            )
            sums += blocks.sum(axis=0)
        mean, square = sums / self._weights.numpy().sum()
        variance = np.maximum(square - mean**2, 0.0)
        return torch.from_numpy(mean + self._origin), torch.from_numpy(variance)


def _largest_other(values: Floats) -> Floats:
    """For each value the largest of all others; zero if there are none."""
    if len(values) == 1:
        return np.zeros(1)
    order = np.argsort(values)
    largest = np.full(len(values), values[order[-1]])
    largest[order[-1]] = values[order[-2]]
    return largest
