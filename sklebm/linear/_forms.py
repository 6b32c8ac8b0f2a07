"""f(u) = h'u - 1/2 u'Qu for many rows u, and its derivatives by the free entries of Q and by h.

With few free entries only these are multiplied: O(n p) for p of them instead of O(n d^2).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm.linear._structure import Entries


class Forms(ABC):
    """Quadratic forms of fixed rows."""

    @abstractmethod
    def values(self, vector: Tensor, linear: Tensor) -> Tensor:
        """f of every row, (n_rows,), for the free entries ``vector`` of Q and h = ``linear``."""

    @abstractmethod
    def derivatives(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The derivatives of the weighted sum of f over the rows, by the entries and by h."""


class DenseForms(Forms):
    """By products of whole matrices."""

    def __init__(self, u: Tensor, entries: Entries) -> None:
        self.u = u
        self.entries = entries

    def values(self, vector: Tensor, linear: Tensor) -> Tensor:
        return ((linear - 0.5 * (self.u @ self.entries.matrix(vector))) * self.u).sum(dim=1)

    def derivatives(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        weighted = self.u * weights[:, None]
        return self.entries.gradient(-0.5 * (weighted.T @ self.u)), weighted.sum(dim=0)


class SparseForms(Forms):
    """At the free entries only, in compiled loops; rows may be of single precision."""

    def __init__(self, u: Tensor, entries: Entries) -> None:
        self.u = u.numpy()
        self.factors = torch.where(entries.is_diagonal, -0.5, -1.0).double()  # of u_i u_j in f
        self.columns = entries.columns.numpy()
        self.starts = np.searchsorted(entries.rows.numpy(), np.arange(entries.n_features + 1))

    def values(self, vector: Tensor, linear: Tensor) -> Tensor:
        from sklebm.inference.entry_products import quadratic_forms

        out, entries = np.empty(len(self.u)), (self.factors * vector).numpy()

        def write(part: slice) -> None:
            quadratic_forms(
                self.u[part], self.starts, self.columns, entries, linear.numpy(), out[part]
            )

        self._map(write)
        return torch.from_numpy(out)

    def derivatives(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        from sklebm.inference.entry_products import weighted_moments

        def add_up(part: slice) -> Any:
            return weighted_moments(self.u[part], weights[part].numpy(), self.starts, self.columns)

        pairs, means = (sum(part) for part in zip(*self._map(add_up), strict=True))
        return self.factors * torch.from_numpy(pairs), torch.from_numpy(means)

    def _map(self, function: Callable[[slice], Any]) -> list[Any]:
        """Apply a function to as many parts of the rows as torch has threads."""
        n_parts = torch.get_num_threads()
        edges = np.linspace(0, len(self.u), n_parts + 1).astype(int).tolist()
        parts = [slice(*pair) for pair in pairwise(edges)]
        if n_parts == 1:
            return [function(parts[0])]
        with ThreadPoolExecutor(n_parts) as pool:
            return list(pool.map(function, parts))


def forms(u: Tensor, entries: Entries) -> Forms:
    """The cheaper of the two."""
    return SparseForms(u, entries) if entries.is_sparse else DenseForms(u, entries)
