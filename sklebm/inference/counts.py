"""Sums over the non-zeros of a table of counts: x_dw beside theta_d and phi_w, never all (d, w, k).

Every step of EM or of variational inference in a topic model is made of three sums:

.. code-block:: text

    r_dw = sum_k theta_dk phi_wk            one number for each non-zero
    g_dk = sum_w x_dw / r_dw phi_wk         one row for each document
    h_wk = sum_d x_dw / r_dw theta_dk       one row for each word
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# Non-zeros whose topics are looked at together, times topics: what stays in a CPU's cache.
_PART = 1 << 17
# Documents times words times topics of a group: a CPU reads them from its cache in every step.
_GROUP = 1 << 18
_GROUP_ELSEWHERE = 1 << 26
# Documents that have settled are left out when they are this share of a group.
_SETTLED = 0.25


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

    def starts(self) -> Tensor:
        """Where the entries of each document begin, and the end of the last one: (n + 1,)."""
        lengths = torch.bincount(self.documents, minlength=self.shape[0])
        return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])

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
        chosen = self.where(kept[self.documents])
        n_kept = int(kept.sum())
        return chosen._replace(documents=number[chosen.documents], shape=(n_kept, self.shape[1]))

    def between(self, start: int, stop: int) -> Counts:
        """The documents from ``start`` to before ``stop``, renumbered."""
        ends = torch.tensor([start, stop], device=self.documents.device)
        first, last = torch.searchsorted(self.documents, ends).tolist()
        entries = slice(first, last)
        shape = (min(stop, self.shape[0]) - start, self.shape[1])
        return Counts(
            self.documents[entries] - start, self.words[entries], self.values[entries], shape
        )

    def of_known_words(self) -> tuple[Counts, Tensor]:
        """The same table without the words that no document has, and the numbers of the others."""
        known, numbers = torch.unique(self.words, return_inverse=True)
        return self._replace(words=numbers, shape=(self.shape[0], len(known))), known


class PaddedDocuments(NamedTuple):
    """Some documents of about the same length, beside what the topics say of their words.

    Attributes
    ----------
    values : Tensor of shape (n, length)
        Counts of the distinct words of each document, zeros at the end.
    phi : Tensor of shape (n, length, n_topics)
        The rows of the topics at these words.
    """

    values: Tensor
    phi: Tensor

    def sums(self, theta: Tensor) -> Tensor:
        """sum_w x_dw phi_wk / sum_j theta_dj phi_wj of shape (n, n_topics)."""
        ratios = self.values / torch.bmm(self.phi, theta[:, :, None])[:, :, 0]
        return torch.bmm(ratios[:, None, :], self.phi)[:, 0]

    def where(self, kept: Tensor) -> PaddedDocuments:
        """The documents at a mask."""
        return PaddedDocuments(self.values[kept], self.phi[kept])


# What a step takes documents to, and whether they have arrived.
Step = Callable[[Tensor, PaddedDocuments], tuple[Tensor, Tensor]]


def settle(counts: Counts, start: Tensor, phi: Tensor, step: Step, max_iter: int) -> Tensor:
    """Repeat a step of every document until it has settled.

    Parameters
    ----------
    counts : Counts
        Documents.
    start : Tensor of shape (n_documents, n_topics)
        Where they begin.
    phi : Tensor of shape (n_words, n_topics)
        A row for each word.
    step : callable
        ``step(state, documents) -> (state, settled)`` for some of the documents.
    max_iter : int
        Most steps.

    Returns
    -------
    state : Tensor of shape (n_documents, n_topics)
        Each row by itself: what else is in ``counts`` does not matter.
    """
    answer = start.clone()
    for where in _groups(counts, phi):
        part, state = _padded(counts, where, phi), start[where]
        settled = torch.zeros(len(where), dtype=torch.bool, device=start.device)
        for _ in range(max_iter):
            moved, arrived = step(state, part)
            state = torch.where(settled[:, None], state, moved)
            settled = settled | arrived
            share = float(settled.double().mean())
            if share == 1:
                break
            if share >= _SETTLED:
                answer[where[settled]] = state[settled]
                rest = ~settled
                where, part, state = where[rest], part.where(rest), state[rest]
                settled = settled[rest]
        answer[where] = state
    return answer


def _groups(counts: Counts, phi: Tensor) -> list[Tensor]:
    """Documents of like lengths that are looked at together."""
    lengths = torch.bincount(counts.documents, minlength=counts.shape[0])
    order = torch.argsort(lengths, stable=True)
    room = (_GROUP if phi.device.type == "cpu" else _GROUP_ELSEWHERE) // phi.shape[1]
    sizes, size = [], 0
    for length in lengths[order].tolist():
        if size and (size + 1) * length > room:
            sizes.append(size)
            size = 0
        size += 1
    return list(torch.split(order, [*sizes, size]))


def _padded(counts: Counts, where: Tensor, phi: Tensor) -> PaddedDocuments:
    lengths = torch.bincount(counts.documents, minlength=counts.shape[0])
    first = (lengths.cumsum(0) - lengths)[where]
    place = torch.arange(max(int(lengths[where].max()), 1), device=phi.device)
    inside = place < lengths[where, None]
    if not len(counts.values):  # phi may have no rows either
        return PaddedDocuments(inside.double(), phi.new_ones(*inside.shape, phi.shape[1]))
    entries = (first[:, None] + place).clamp(max=len(counts.values) - 1)
    return PaddedDocuments(counts.values[entries] * inside, phi[counts.words[entries]])


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
