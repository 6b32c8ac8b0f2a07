"""Batches for processes that step together: as many on every rank, whatever rows it holds."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sklebm._shell.ranks import Ranks
from sklebm.training.loop import RowDataset, TensorBatches


class RankBatches(TensorBatches):
    """Batches of one rank, as many as all others have.

    Parameters
    ----------
    dataset : RowDataset
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
        dataset: RowDataset,
        batch_size: int,
        ranks: Ranks,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._n_rows: list[int] = ranks.concat(torch.tensor([len(dataset)])).tolist()
        # The same share of every rank's rows in a step, so that all come to their end together.
        n_steps = -(-sum(self._n_rows) // batch_size)
        self._sizes = [-(-n // n_steps) for n in self._n_rows]
        pairs = zip(self._n_rows, self._sizes, strict=True)
        self._n_steps = max(-(-n // size) for n, size in pairs)
        super().__init__(dataset, self._sizes[ranks.rank], generator, device)

    def __len__(self) -> int:
        return self._n_steps

    def __iter__(self) -> Iterator[Tensor]:
        """The batches, and empty ones where this rank has no rows left."""
        step = 0
        for x in super().__iter__():
            yield x
            step += 1
        for _ in range(step, self._n_steps):
            yield torch.empty(0, self.rows.shape[1], device=self.device)

    def with_sizes(self) -> Iterator[tuple[Tensor, int]]:
        """The batches, each with the number of rows that all ranks have in the step."""
        for step, x in enumerate(self):
            taken = zip(self._n_rows, self._sizes, strict=True)
            yield x, sum(min(max(n - step * size, 0), size) for n, size in taken)
