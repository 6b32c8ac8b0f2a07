"""Number of passes over the rows: enough updates for few rows, bounded time for many rows."""

from __future__ import annotations

import math
from dataclasses import dataclass


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

    def epochs(self, n_rows: int, batch_size: int, *, per_step: int = 1) -> int:
        """Number of passes over ``n_rows`` rows in batches of ``batch_size``.

        ``per_step``: updates that a step stands for.
        """
        per_epoch = -(-n_rows // batch_size) * per_step
        wanted = math.ceil(self.n_updates / per_epoch)
        return min(max(wanted, self.least_epochs), self.most_epochs)
