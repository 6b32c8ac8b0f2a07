"""Training rows that are the steps of sequences: a batch holds whole sequences, or pieces of them.

A sequence longer than ``n_steps`` is cut. A piece comes with up to ``n_before`` rows before it, by
default ``n_steps``, from which the state at its beginning is computed; they have weight 0, so that
every row counts once. A gradient therefore reaches back over at most ``n_steps`` + ``n_before``
rows, and whole sequences are exact.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sklebm._shell.rows import Rows
from sklebm.energies.next_step import lengths_of
from sklebm.objectives import Batch
from sklebm.training.batches import TensorBatches, TrainingRows

#: First row of a sequence and the row after its last.
Span = tuple[int, int]
# A fraction such as 0.28 of 25 rows falls short of 7 by rounding.
_ROUNDING = 1e-9


class Piece(NamedTuple):
    """Rows ``start`` to ``stop``, of which those before ``first`` only prepare the state."""

    start: int
    first: int
    stop: int


def spans_of(groups: Tensor | None, n_rows: int) -> list[Span]:
    """First and last row of each sequence, (start, stop); the rows of a group lie side by side."""
    lengths = lengths_of(groups, n_rows)
    stops = itertools.accumulate(lengths)
    return [(stop - length, stop) for length, stop in zip(lengths, stops, strict=True)]


class SequenceRows(TrainingRows):
    """The steps of sequences, one after the other.

    Parameters
    ----------
    rows : Rows
        The steps; ``rows.columns["groups"]`` tells the sequences apart, without it there is one.
    n_steps : int
        Longest piece.
    spans : list of (int, int) or None
        Sequences to train on; None uses all.
    n_before : int or None
        Most rows before a piece; None: ``n_steps``.
    """

    def __init__(
        self,
        rows: Rows,
        n_steps: int,
        spans: list[Span] | None = None,
        n_before: int | None = None,
    ) -> None:
        columns = {"groups": rows.columns["groups"]} if "groups" in rows.columns else {}
        super().__init__(rows if rows.is_lazy else _floats(rows, slice(None)), columns=columns)
        self.rows = rows
        self.n_steps = n_steps
        self.n_before = n_steps if n_before is None else n_before
        self.spans = spans_of(columns.get("groups"), len(rows)) if spans is None else spans

    @property
    def batches(self) -> type[TensorBatches]:
        """The iterator that makes batches of them."""
        return SequenceBatches

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self.spans)

    def split(self, fraction: float, generator: torch.Generator) -> tuple[Any, Any]:
        """Two sets of spans: random sequences with a fraction of the rows, or the end of one.

        Sequences that would exceed the fraction are passed over, so that a long one is never held
        out; if all would, the shortest is.
        """
        wanted = max(1, math.floor(fraction * len(self) + _ROUNDING))
        if len(self.spans) == 1:
            start, stop = self.spans[0]
            cut = stop - wanted
            return [(start, cut)] if cut > start else [], [(cut, stop)]
        lengths = [stop - start for start, stop in self.spans]
        order = torch.randperm(len(lengths), generator=generator).tolist()
        chosen: set[int] = set()
        for index in order:
            if lengths[index] <= wanted and len(chosen) < len(lengths) - 1:
                chosen.add(index)
                wanted -= lengths[index]
        chosen = chosen or {min(order, key=lengths.__getitem__)}
        kept = [span for index, span in enumerate(self.spans) if index not in chosen]
        return kept, [self.spans[index] for index in sorted(chosen)]

    def take(self, index: Any) -> SequenceRows:
        """The sequences at these spans; nothing is copied."""
        part = SequenceRows.__new__(SequenceRows)
        part.__dict__ = {**self.__dict__, "spans": list(index)}
        return part

    def batch(self, device: torch.device) -> Batch:
        """All rows as one batch of whole sequences."""
        return self.joined([Piece(start, start, stop) for start, stop in self.spans], device)

    def pieces(self) -> list[Piece]:
        """All sequences, those longer than ``n_steps`` cut."""
        return [
            Piece(max(start, first - self.n_before), first, min(first + self.n_steps, stop))
            for start, stop in self.spans
            for first in range(start, stop, self.n_steps)
        ]

    def joined(self, pieces: list[Piece], device: torch.device | str) -> Batch:
        """Pieces one after the other, numbered by ``groups``."""
        read = _floats if isinstance(self.X, Rows) else Tensor.__getitem__
        x = torch.cat([read(self.X, slice(piece.start, piece.stop)) for piece in pieces])
        lengths = torch.tensor([piece.stop - piece.start for piece in pieces])
        groups = torch.arange(len(pieces)).repeat_interleave(lengths).to(device)
        weight = None
        if any(piece.start < piece.first for piece in pieces):
            counts = [torch.arange(p.start, p.stop) >= p.first for p in pieces]
            weight = torch.cat(counts).to(device, torch.float32)
        return Batch(x.to(device), weight=weight, groups=groups)


def _floats(rows: Rows, index: slice) -> Tensor:
    return rows.around_origin(rows[index]).float()


class SequenceBatches(TensorBatches):
    """Batches of at least ``batch_size`` rows: as many pieces as that takes, in random order."""

    def __len__(self) -> int:
        return sum(1 for _ in self._parts())

    def __iter__(self) -> Iterator[Batch]:
        for batch, _ in self.with_sizes():
            yield batch

    def with_sizes(self) -> Iterator[tuple[Batch, int]]:
        """The batches, each with the number of rows that count in its step."""
        for pieces in self._parts(self.generator):
            n_rows = sum(piece.stop - piece.first for piece in pieces)
            yield self.dataset.joined(pieces, self.device), n_rows  # type: ignore[attr-defined]

    def _parts(self, generator: torch.Generator | None = None) -> Iterator[list[Piece]]:
        pieces: list[Piece] = self.dataset.pieces()  # type: ignore[attr-defined]
        if generator is not None:
            order = torch.randperm(len(pieces), generator=generator).tolist()
            pieces = [pieces[index] for index in order]
        part: list[Piece] = []
        n_rows = 0
        for piece in pieces:
            part.append(piece)
            n_rows += piece.stop - piece.first
            if n_rows >= self.batch_size:
                yield part
                part, n_rows = [], 0
        if part:
            yield part
