"""How many passes over the rows a fit takes: enough updates for few rows, bounded time for many."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """What ``max_epochs="auto"`` stands for.

    Epochs are counted so that there are ``n_updates`` updates, but they are at least
    ``least_epochs`` and at most ``most_epochs``. The time of a fit is therefore at most that of
    ``n_updates`` steps or of ``least_epochs`` passes, whichever is longer.

    Parameters
    ----------
    n_updates : int
        Updates that training needs, however few the rows.
    least_epochs : int
        Passes over many rows.
    most_epochs : int
        Passes over few rows.
    """

    n_updates: int
    least_epochs: int = 20
    most_epochs: int = 1000

    def epochs(self, n_rows: int, batch_size: int) -> int:
        """Passes over ``n_rows`` rows in batches of ``batch_size``."""
        per_epoch = -(-n_rows // batch_size)
        wanted = math.ceil(self.n_updates / per_epoch)
        return min(max(wanted, self.least_epochs), self.most_epochs)
