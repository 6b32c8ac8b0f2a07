"""Sums over the non-zeros of a table of counts: x_dw beside theta_d and phi_w, never all (d, w, k).

Every step of EM or of variational inference in a topic model is made of three sums:

.. code-block:: text

    r_dw = sum_k theta_dk phi_wk            one number for each non-zero
    g_dk = sum_w x_dw / r_dw phi_wk         one row for each document
    h_wk = sum_d x_dw / r_dw theta_dk       one row for each word
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Non-zeros whose topics are looked at together, times topics: what stays in a CPU's cache.
_PART = 1 << 17


class Counts(NamedTuple):
    """The non-zeros of a table of documents and words.

    Attributes
    ----------
    documents, words : Tensor of shape (n_entries,)
        Where they are; ordered by document.
    values : Tensor of shape (n_entries,)
        Positive counts or weights, float64.
    shape : tuple of two int
        Number of documents, size of the vocabulary.
    """

    documents: Tensor
    words: Tensor
    values: Tensor
    shape: tuple[int, int]

    def reconstruct(self, theta: Tensor, phi: Tensor) -> Tensor:
        """sum_k theta_dk phi_wk of each non-zero, for rows of (n, K) and of (W, K). O(nnz K)."""
        step = max(1, _PART // theta.shape[1])
        parts = [slice(i, i + step) for i in range(0, max(len(self.values), 1), step)]
        products = (theta[self.documents[part]] * phi[self.words[part]] for part in parts)
        return torch.cat([product.sum(dim=1) for product in products])

    def sum_by_document(self, values: Tensor, phi: Tensor) -> Tensor:
        """sum_w values_dw phi_w of shape (n, K). O(nnz K)."""
        return _product(self.documents, self.words, values, self.shape, phi)

    def sum_by_word(self, values: Tensor, theta: Tensor) -> Tensor:
        """sum_d values_dw theta_d of shape (W, K). O(nnz K)."""
        return _product(self.words, self.documents, values, self.shape[::-1], theta)

    def tokens(self) -> Tensor:
        """Sum of the counts of each document, (n,)."""
        zeros = self.values.new_zeros(self.shape[0])
        return zeros.index_add_(0, self.documents, self.values)

    def where(self, kept: Tensor) -> Counts:
        """The non-zeros at a mask of shape (n_entries,)."""
        return Counts(self.documents[kept], self.words[kept], self.values[kept], self.shape)

    def of_documents(self, kept: Tensor) -> Counts:
        """The documents at a mask of shape (n,), renumbered."""
        number = kept.cumsum(0) - 1
        entries = kept[self.documents]
        chosen = self.where(entries)
        n_kept = int(kept.sum())
        return chosen._replace(documents=number[chosen.documents], shape=(n_kept, self.shape[1]))


def count_table(x: Tensor) -> Counts:
    """The non-zeros of a dense table (n, W)."""
    documents, words = torch.nonzero(x, as_tuple=True)
    return Counts(documents, words, x[documents, words].double(), (x.shape[0], x.shape[1]))


def _product(
    rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int], other: Tensor
) -> Tensor:
    if not len(values):
        return other.new_zeros(shape[0], other.shape[1])
    # Rows may be in any order: on the CPU they are added up as they come, elsewhere sorted first.
    table = torch.sparse_coo_tensor(
        torch.stack([rows, columns]), values, shape, check_invariants=False
    )
    product: Tensor = torch.sparse.mm(table, other)
    return product
