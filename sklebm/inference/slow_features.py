r"""Slow features in closed form: min_w w' D w subject to w' C w = 1 and w' C w_j = 0.

C is the covariance of the rows and D the mean outer product of the changes from a row to the next
of its sequence. The solutions are generalised eigenvectors, D w = s C w, with the slowness s as
eigenvalue. All sums are over rows, so that chunks can be added.

L. Wiskott and T. J. Sejnowski, "Slow feature analysis: unsupervised learning of invariances",
Neural Computation 14, 2002.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

_EPS = torch.finfo(torch.float64).eps
#: A column varies if its spread exceeds this multiple of its mean.
_ROUNDING = 8 * _EPS
#: Rows of a partial sum. Rounding of bits or one-hot rows, which take few values, does not cancel:
#: it grows with the number of terms, and a sum of partial sums has fewer.
_BLOCK = 1024
#: A partial sum loses fewer digits than this many equal terms would.
_TERMS = 256


@dataclass(frozen=True)
class SlowMoments:
    """Sums over the rows of sequences, in double precision.

    Parameters
    ----------
    n_rows, n_pairs : int
        Number of rows, and of pairs of successive rows.
    mean : Tensor of shape (n_columns,)
        Mean row.
    scatter : Tensor of shape (n_columns, n_columns)
        Sum of outer products of the rows minus their mean.
    changes : Tensor of shape (n_columns, n_columns)
        Sum of outer products of the changes.
    """

    n_rows: int
    n_pairs: int
    mean: Tensor
    scatter: Tensor
    changes: Tensor

    @classmethod
    def of(cls, rows: Tensor, follows: Tensor, *, n_before: int = 0) -> SlowMoments:
        """Moments of rows; ``follows`` (n_rows - 1,) says which continue the one before them.

        The first ``n_before`` rows only serve as those that others follow.
        """
        own = rows[n_before:]
        mean = own.mean(dim=0)
        changes = (rows[1:] - rows[:-1])[follows]
        centred = own - mean
        return cls(len(own), int(follows.sum()), mean, _squares(centred), _squares(changes))

    def __add__(self, other: SlowMoments) -> SlowMoments:
        n_rows = self.n_rows + other.n_rows
        gap = other.mean - self.mean
        between = torch.outer(gap, gap) * (self.n_rows * other.n_rows / n_rows)
        return SlowMoments(
            n_rows,
            self.n_pairs + other.n_pairs,
            self.mean + gap * (other.n_rows / n_rows),
            self.scatter + other.scatter + between,
            self.changes + other.changes,
        )

    def to(self, device: torch.device | str) -> SlowMoments:
        """The same moments on a device."""
        tensors = {name: getattr(self, name).to(device) for name in ("mean", "scatter", "changes")}
        return replace(self, **tensors)

    def arrays(self) -> dict[str, Any]:
        """Numbers and arrays, to be stored."""
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        return {k: v.cpu().numpy() if isinstance(v, Tensor) else v for k, v in values.items()}

    @classmethod
    def from_arrays(cls, values: dict[str, Any]) -> SlowMoments:
        """Moments from what ``arrays`` returned."""
        mean, scatter, changes = (torch.tensor(values[k]) for k in ("mean", "scatter", "changes"))
        return cls(int(values["n_rows"]), int(values["n_pairs"]), mean, scatter, changes)


def _squares(rows: Tensor) -> Tensor:
    """Sum of outer products of the rows, block by block."""
    total = rows.new_zeros(rows.shape[1], rows.shape[1])
    for block in torch.split(rows, _BLOCK):
        total += block.T @ block  # in place, ``addmm_`` would add term by term
    return total


def slow_directions(moments: SlowMoments) -> tuple[Tensor, Tensor]:
    """All directions of unit variance from slow to fast, (n_directions, n_columns), and slowness.

    Columns are brought to unit variance and whitened first; directions that do not vary, up to
    rounding, are left out. O(n_columns^3).
    """
    covariance = moments.scatter / moments.n_rows
    spread = covariance.diagonal().sqrt()
    # A column is constant if all that varies is the rounding of its mean.
    varies = spread > _ROUNDING * moments.mean.abs()
    units = torch.where(varies & (spread > 0.0), 1.0 / spread, 0.0)
    variances, axes = torch.linalg.eigh(covariance * torch.outer(units, units))
    # Rounding grows with the size of the matrix, and with the number of partial sums.
    n_terms = max(8 * len(variances), _TERMS + moments.n_rows // _BLOCK)
    kept = variances > n_terms * _EPS * variances[-1].clamp(min=0.0)
    white = (axes[:, kept] / variances[kept].sqrt()).T * units
    change = white @ (moments.changes / moments.n_pairs) @ white.T
    slowness, turns = torch.linalg.eigh(0.5 * (change + change.T))
    return turns.T @ white, slowness.clamp(min=0.0)
