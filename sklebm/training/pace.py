"""Number of passes over the rows: enough updates for few rows, bounded time for many rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sklebm.training.optimizers import OptimizerChoice

#: Updates that a step of a line search stands for.
_PER_LINE_SEARCH = 20


@dataclass(frozen=True)
class Pace:
    """Meaning of ``max_epochs="auto"``.

    The number of epochs is chosen to give ``n_updates`` updates, within ``least_epochs`` and
    ``most_epochs``. A fit therefore takes at most the time of ``n_updates`` steps or of
    ``least_epochs`` passes, whichever is longer.

    Parameters
    ----------
    n_updates : int
        Updates that training needs, however few rows there are.
    least_epochs : int
        Minimum number of passes, used for many rows.
    most_epochs : int
        Maximum number of passes, used for few rows.
    """

    n_updates: int
    least_epochs: int = 20
    most_epochs: int = 1000

    def epochs(self, n_rows: int, batch_size: int, choice: OptimizerChoice | None = None) -> int:
        """Number of passes over ``n_rows`` rows in batches of ``batch_size``."""
        per_epoch = -(-n_rows // batch_size)
        if (
            choice is not None and choice.full_batch
        ):  # a step of a line search goes through the rows several times
            per_epoch = _PER_LINE_SEARCH if choice.uses_closure else 1
        wanted = math.ceil(self.n_updates / per_epoch)
        return min(max(wanted, self.least_epochs), self.most_epochs)


def n_learnt(n_rows: int, validation_fraction: float | None) -> int:
    """Number of rows that are not held out."""
    if validation_fraction is None:
        return n_rows
    return max(n_rows - math.ceil(validation_fraction * n_rows), 1)
