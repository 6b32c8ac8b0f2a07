"""Training rows that stay on disk: each epoch reads them in shuffled blocks."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.rows import Rows, chunk_size

# Rows that stand together in the file are shuffled with those of so many other places.
_BLOCKS_PER_POOL = 16


class StreamedRows:
    """Rows of a table larger than memory, as float32 batches.

    An epoch reads blocks of neighbouring rows in random order, gathers some of them in a pool, and
    draws batches from the shuffled pool. Memory holds one pool and one block.

    Parameters
    ----------
    rows : Rows
        Whose source is a ``LazyTable``.
    kept : ndarray of shape (n_rows,) or None
        Which rows to train on; None takes all.
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

    def hold_out(self, indices: Any) -> tuple[StreamedRows, Tensor]:
        """The rows without those at ``indices``, and the latter in memory."""
        held = np.zeros(len(self.rows), dtype=bool)
        held[indices] = True
        parts = [self._read(block, held) for block in self._blocks(self._pool_size())]
        return StreamedRows(self.rows, ~held), torch.cat(parts)

    def batches(self, batch_size: int, generator: torch.Generator | None) -> Iterator[Tensor]:
        """Batches of one pass, shuffled by ``generator``; without one, in the order of the file."""
        pool_size = max(batch_size, self._pool_size())
        blocks = self._blocks(pool_size)
        order = list(range(len(blocks)))
        if generator is not None:
            order = torch.randperm(len(blocks), generator=generator).tolist()
        pool: list[Tensor] = []
        for number in order:
            pool.append(self._read(blocks[number], self.kept))
            if sum(map(len, pool)) >= pool_size:
                left = yield from _draw(pool, batch_size, generator)
                pool = [left]
        left = yield from _draw(pool, batch_size, generator)
        if len(left):
            yield left

    def _pool_size(self) -> int:
        return chunk_size(len(self.rows), self.shape[1])

    def _blocks(self, pool_size: int) -> list[slice]:
        blocks: list[slice] = self.rows.source.blocks(max(1, pool_size // _BLOCKS_PER_POOL))
        return blocks

    def _read(self, block: slice, kept: Any) -> Tensor:
        x = self.rows[block].float()
        return x if kept is None else x[torch.from_numpy(kept[block]).to(x.device)]


def _draw(
    pool: list[Tensor], batch_size: int, generator: torch.Generator | None
) -> Generator[Tensor, None, Tensor]:
    """Yield the full batches of a pool; return what is left."""
    x = torch.cat(pool)
    pool.clear()
    order = torch.arange(len(x))
    if generator is not None:
        order = torch.randperm(len(x), generator=generator)
    order = order.to(x.device)
    n_drawn = len(x) // batch_size * batch_size
    for part in torch.split(order[:n_drawn], batch_size):
        if len(part):
            yield x[part]
    return x[order[n_drawn:]]
