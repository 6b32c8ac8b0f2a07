"""Training rows that stay on disk: each epoch reads them in shuffled blocks."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.rows import Rows, chunk_size

# Neighbouring rows in the file are shuffled with rows from this many other places.
_BLOCKS_PER_POOL = 16

#: Rows, and their indices among the training rows.
Part = tuple[Tensor, Tensor]


class StreamedRows:
    """Rows of a table larger than memory, as float32 batches.

    An epoch reads blocks of neighbouring rows in random order, gathers some of them in a pool, and
    draws batches from the shuffled pool. Memory holds one pool and one block.

    Parameters
    ----------
    rows : Rows
        Rows whose source is a ``LazyTable``.
    kept : ndarray of shape (n_rows,) or None
        Rows to train on; None uses all.
    """

    def __init__(self, rows: Rows, kept: Any = None) -> None:
        self.rows = rows
        self.kept = kept
        self.shape = (len(rows) if kept is None else int(kept.sum()), rows.shape[1])

    def __getitem__(self, index: int) -> Tensor:
        """A single row, for torch's DataLoader."""
        place = index if self.kept is None else int(self._places[index])
        return self.rows[slice(place, place + 1)][0].float()

    @cached_property
    def _places(self) -> Any:
        return np.flatnonzero(self.kept)

    def keep(self, indices: Any) -> StreamedRows:
        """Only the rows at ``indices``, in the order of the file."""
        kept = np.zeros(len(self.rows), dtype=bool)
        kept[indices if self.kept is None else self._places[indices]] = True
        return StreamedRows(self.rows, kept)

    def batches(self, batch_size: int, generator: torch.Generator | None) -> Iterator[Part]:
        """Batches of one pass, shuffled by ``generator``; without one, in the order of the file.

        Each batch comes with the indices of its rows among those that are kept.
        """
        pool_size = max(batch_size, self._pool_size())
        blocks = self._blocks(pool_size)
        order = list(range(len(blocks)))
        if generator is not None:
            order = torch.randperm(len(blocks), generator=generator).tolist()
        pool: list[Part] = []
        for number in order:
            pool.append(self._read(blocks[number]))
            if sum(len(x) for x, _ in pool) >= pool_size:
                left = yield from _draw(pool, batch_size, generator)
                pool = [left]
        left = yield from _draw(pool, batch_size, generator)
        if len(left[0]):
            yield left

    def _pool_size(self) -> int:
        return chunk_size(len(self.rows), self.shape[1])

    def _blocks(self, pool_size: int) -> list[slice]:
        blocks: list[slice] = self.rows.source.blocks(max(1, pool_size // _BLOCKS_PER_POOL))
        return blocks

    def _read(self, block: slice) -> Part:
        x = self.rows.around_origin(self.rows[block]).float()
        if self.kept is None:
            return x, torch.arange(block.start, block.start + len(x))
        kept = torch.from_numpy(self.kept[block])
        first = int(np.searchsorted(self._places, block.start))
        return x[kept.to(x.device)], torch.arange(first, first + int(kept.sum()))


def _draw(
    pool: list[Part], batch_size: int, generator: torch.Generator | None
) -> Generator[Part, None, Part]:
    """Yield the full batches of a pool; return the remaining rows."""
    x, places = torch.cat([x for x, _ in pool]), torch.cat([places for _, places in pool])
    pool.clear()
    order = torch.arange(len(x))
    if generator is not None:
        order = torch.randperm(len(x), generator=generator)
    n_drawn = len(x) // batch_size * batch_size
    for part in torch.split(order[:n_drawn], batch_size):
        if len(part):
            yield x[part.to(x.device)], places[part]
    rest = order[n_drawn:]
    return x[rest.to(x.device)], places[rest]
