"""Training rows in batches: slices of a tensor already on the device, or reads from disk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from sklebm._shell.random import make_generator
from sklebm._shell.ranks import Ranks
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import Scaling
from sklebm.objectives import Batch
from sklebm.training.streamed_rows import StreamedRows


class TrainingRows(torch.utils.data.Dataset[Any]):
    """Rows and their accompanying columns, in the form that skorch and torch's DataLoader expect.

    Parameters
    ----------
    X : Tensor, csr matrix or StreamedRows of shape (n_rows, n_features)
        The rows.
    y : Ignored
        Passed by skorch.
    columns : mapping from str to Tensor
        Columns that accompany the rows, keyed by their name in ``Batch``, one entry per row.
    origin : ndarray of shape (n_features,) or None
        Subtracted from the rows of a csr matrix when they are made dense.
    scaling : Scaling or None
        Standardises the rows of a csr matrix when they are made dense.
    """

    def __init__(
        self,
        X: Any,
        y: Any = None,
        *,
        columns: Mapping[str, Tensor] | None = None,
        origin: Any = None,
        scaling: Scaling | None = None,
    ) -> None:
        self.X = X
        self.columns = dict(columns or {})
        self.origin = origin
        self.scaling = scaling

    @property
    def batches(self) -> type[TensorBatches]:
        """The iterator that makes batches of them."""
        return TensorBatches

    def split(self, fraction: float, generator: torch.Generator) -> tuple[Any, Any]:
        """Two random sets of indices for ``take``, the second one a fraction of the rows."""
        order = torch.randperm(len(self), generator=generator)
        n_second = math.ceil(fraction * len(self))
        return order[n_second:], order[:n_second]

    def dense(self, part: Any) -> Tensor:
        """Some rows of a csr matrix or array as a tensor, minus the origin and standardised."""
        x = np.atleast_2d(part.toarray())  # one row of an array has a single dimension
        rows = torch.from_numpy(x if self.origin is None else x - self.origin)
        return rows if self.scaling is None else self.scaling.apply(rows)

    def __len__(self) -> int:
        return int(self.X.shape[0])

    def __getitem__(self, index: int) -> Any:
        """One row as a dense float32 tensor; with columns, a dictionary of ``Batch`` fields."""
        # SciPy 1.14 does not take single rows out of sparse arrays.
        row: Any = self.X[[index]] if scipy.sparse.issparse(self.X) else self.X[index]
        if scipy.sparse.issparse(row):
            row = self.dense(row)[0].float()
        row = torch.as_tensor(row)
        if not self.columns:
            return row
        return {"x": row, **{name: column[index] for name, column in self.columns.items()}}

    def take(self, index: Tensor) -> TrainingRows:
        """The rows at ``index``; rows of a matrix are copied, rows of a file stay on disk."""
        if isinstance(self.X, StreamedRows):
            index = index.sort().values  # a file is read from its beginning to its end
        columns = {name: column[index.to(column.device)] for name, column in self.columns.items()}
        if isinstance(self.X, StreamedRows):
            return TrainingRows(self.X.keep(index.numpy()), columns=columns)
        if scipy.sparse.issparse(self.X):
            picked = self.X[index.numpy()]
            return TrainingRows(picked, columns=columns, origin=self.origin, scaling=self.scaling)
        return TrainingRows(self.X[index.to(self.X.device)], columns=columns)

    def batch(self, device: torch.device) -> Batch:
        """All rows as one dense float32 batch."""
        x = self.X
        if isinstance(x, StreamedRows):
            x = torch.cat([part for part, _ in x.batches(x.shape[0], None)])
        elif scipy.sparse.issparse(x):
            x = self.dense(x)
        columns = {name: column.to(device) for name, column in self.columns.items()}
        return Batch(x.to(device, torch.float32), **columns)


def training_rows(rows: Rows) -> TrainingRows:
    """All rows as float32 on the device; a csr matrix stays csr, and large files stay on disk."""
    # Labels and groups remain integers.
    columns = {
        name: column.float() if column.is_floating_point() else column
        for name, column in rows.columns.items()
    }
    x: Any = None
    origin = None
    if rows.is_lazy:
        x = StreamedRows(rows)
    elif scipy.sparse.issparse(rows.source):
        x = rows.source
        if rows.limits is not None:
            x = x.copy()
            x.data = x.data.clip(*rows.limits)
        origin = None if rows.origin is None else rows.origin.numpy()
    else:
        x = rows.around_origin(rows.all()).float()
    scaling = rows.scaling if scipy.sparse.issparse(x) else None  # others are scaled already
    return TrainingRows(x, columns=columns, origin=origin, scaling=scaling)


def feature_means(rows: Rows) -> torch.Tensor:
    """Mean of each feature in float64, on the CPU."""
    # Blocks stay in the cache; converting all rows to float64 at once takes ten times as long.
    block = max(1, 2**18 // rows.shape[1]) if rows.device.type == "cpu" else len(rows)
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    for part in rows.chunks(floats_per_row=2 * rows.shape[1]):
        for x in torch.split(rows[part], block):
            total += x.double().sum(dim=0)
    return rows.ranks.sum(total).cpu() / rows.total()


def hold_out(
    rows: TrainingRows, fraction: float, seed: int, device: torch.device
) -> tuple[TrainingRows, Batch]:
    """The training rows, and a random fraction of the rows that is held out."""
    kept, held_out = rows.split(fraction, make_generator(seed, "validation"))
    if not len(kept):
        raise ValueError(
            f"validation_fraction={fraction} leaves no training row of n_samples={len(rows)}: "
            "lower it or pass more rows."
        )
    return rows.take(kept), rows.take(held_out).batch(device)


def as_batch(item: Any) -> Batch:
    """Convert a batch from a user's iterator: bare rows, or the fields of ``Batch`` by name."""
    if isinstance(item, Batch):
        return item
    return Batch(**item) if isinstance(item, Mapping) else Batch(item)


class TensorBatches:
    """Batches as slices of a tensor that is already on the device, or of a csr matrix.

    torch's DataLoader fetches row by row and collates, at several times the cost of a small
    model's step; one gather per batch is all that is needed.

    Parameters
    ----------
    dataset : TrainingRows
        The rows and their accompanying columns.
    batch_size : int
        Rows per batch; the last batch may have fewer.
    generator : torch.Generator or None
        Draws a new order for every pass; None keeps the order of the rows.
    device : torch.device
        Destination of batches from a csr matrix.
    """

    def __init__(
        self,
        dataset: TrainingRows,
        batch_size: int,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.rows = dataset.X
        self.dataset = dataset
        self.columns = {name: column.to(device) for name, column in dataset.columns.items()}
        self.batch_size = batch_size
        self.generator = generator
        self.device = device

    def __len__(self) -> int:
        return -(-int(self.rows.shape[0]) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        if isinstance(self.rows, StreamedRows):
            for x, numbers in self.rows.batches(self.batch_size, self.generator):
                yield self._with_columns(x, numbers)
            return
        n_rows = int(self.rows.shape[0])
        if self.generator is None:
            for start in range(0, n_rows, self.batch_size):
                places = slice(start, start + self.batch_size)
                yield self._with_columns(self.take(places), places)
            return
        order = self.order()
        if isinstance(self.rows, Tensor):
            order = order.to(self.rows.device)
        for part in torch.split(order, self.batch_size):
            yield self._with_columns(self.take(part), part)

    @property
    def in_memory(self) -> bool:
        """Whether rows can be taken in any order without reading a file."""
        return not isinstance(self.rows, StreamedRows)

    def order(self) -> Tensor:
        """Places of the rows in the next pass."""
        n_rows = int(self.rows.shape[0])
        if self.generator is None:
            return torch.arange(n_rows)
        return torch.randperm(n_rows, generator=self.generator)

    def with_sizes(self) -> Iterator[tuple[Batch, int]]:
        """The batches, each with the number of rows that count in its step."""
        for batch in self:
            yield batch, len(batch)

    def _with_columns(self, x: Tensor, index: slice | Tensor) -> Batch:
        if not self.columns:
            return Batch(x)
        if isinstance(index, Tensor):
            index = index.to(self.device)
        return Batch(x, **{name: column[index] for name, column in self.columns.items()})

    def take(self, index: slice | Tensor) -> Tensor:
        """Rows at these places, dense."""
        if scipy.sparse.issparse(self.rows):
            picked = self.rows[index if isinstance(index, slice) else index.numpy()]
            return self.dataset.dense(picked).to(self.device, torch.float32)
        rows: Tensor = self.rows[index]
        return rows


class RankBatches(TensorBatches):
    """Batches of one rank: the same number on every rank, however many rows each holds.

    Parameters
    ----------
    dataset : TrainingRows
        The rows of this rank.
    batch_size : int
        Rows of all ranks in a step; each rank's part is rounded up.
    ranks : Ranks
        The processes.
    generator, device
        See ``TensorBatches``.
    """

    def __init__(
        self,
        dataset: TrainingRows,
        batch_size: int,
        ranks: Ranks,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._n_rows: list[int] = ranks.concat(torch.tensor([len(dataset)])).tolist()
        # The same fraction of each rank's rows in every step, so that all ranks finish together.
        n_steps = -(-sum(self._n_rows) // batch_size)
        self._sizes = [-(-n // n_steps) for n in self._n_rows]
        pairs = zip(self._n_rows, self._sizes, strict=True)
        self._n_steps = max(-(-n // size) for n, size in pairs)
        super().__init__(dataset, self._sizes[ranks.rank], generator, device)

    def __len__(self) -> int:
        return self._n_steps

    def __iter__(self) -> Iterator[Batch]:
        """The batches, with empty ones once this rank has no rows left."""
        step, batch = 0, None
        for batch in super().__iter__():
            yield batch
            step += 1
        empty = Batch(torch.empty(0, self.rows.shape[1], device=self.device))
        if batch is not None:
            parts = {name: getattr(batch, name) for name in self.columns}
            empty = replace(empty, **{name: part[:0] for name, part in parts.items()})
        for _ in range(step, self._n_steps):
            yield empty

    def with_sizes(self) -> Iterator[tuple[Batch, int]]:
        """The batches, each with the total number of rows on all ranks in the step."""
        for step, batch in enumerate(self):
            taken = zip(self._n_rows, self._sizes, strict=True)
            yield batch, sum(min(max(n - step * size, 0), size) for n, size in taken)
