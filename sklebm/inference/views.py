r"""Views: which rows belong together, drawn anew for every batch.

A view is another look at the same thing: a corrupted or transformed copy of the row, a neighbour, a
row of the same class, or a step nearby in the same sequence. Metric learning pulls a row and its
view together. Rows are flat, in the units of the encoder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sklebm._checks import check_counts, check_share

_BLOCK = 2**24  # distances at a time


@dataclass(frozen=True)
class Source:
    """What views are drawn from.

    Parameters
    ----------
    rows : Tensor of shape (n_rows, n_features) or None
        All rows that the fit learns from; None if they stay on disk, or the views look at none.
    kinds : Tensor of shape (n_rows,) or None
        The class, or the sequence, of each row.
    shape : tuple of int
        (channels, height, width) of a row that is an image, otherwise (n_features,).
    """

    rows: Tensor | None
    kinds: Tensor | None
    shape: tuple[int, ...]


@dataclass(frozen=True)
class View(ABC):
    """A way to draw views, as a frozen dataclass of scalars with pure functions."""

    #: "target" or "groups" if the views need what ``fit`` takes under this name.
    takes: ClassVar[str | None] = None
    #: Whether views are other rows, so that all of them must be in memory.
    needs_rows: ClassVar[bool] = False
    #: Whether ``draw`` or ``prepare`` look at ``source.rows``, where these are in memory.
    reads_rows: ClassVar[bool] = True
    #: Whether both sides of a pair are drawn; otherwise the first is the row itself.
    draws_both: ClassVar[bool] = False
    #: Whether rows have to be images.
    needs_images: ClassVar[bool] = False

    def prepare(self, source: Source) -> dict[str, Tensor]:
        """What is computed once for a fit, such as the neighbours of each row."""
        return {}

    @abstractmethod
    def draw(
        self,
        x: Tensor,
        index: Tensor,
        source: Source,
        prepared: dict[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """A view of each row, (n_rows, n_features); ``index`` are the places of the rows."""

    def related(self, index: Tensor, others: Tensor, prepared: dict[str, Tensor]) -> Tensor | None:
        """Whether the row at each place (n,) belongs to that at each other place (m,), (n, m).

        None: no row belongs to another.
        """
        return None


@dataclass(frozen=True)
class OtherRows(View):
    """Views that are other rows of the fit: a subclass says which."""

    needs_rows: ClassVar[bool] = True

    @abstractmethod
    def places(
        self, index: Tensor, prepared: dict[str, Tensor], generator: torch.Generator
    ) -> Tensor:
        """The place of a view of each row, (n_rows,); ``index`` are the places of the rows."""

    def draw(
        self,
        x: Tensor,
        index: Tensor,
        source: Source,
        prepared: dict[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """The rows at ``places``."""
        return rows_of(source)[self.places(index, prepared, generator)]


@dataclass(frozen=True)
class FeatureCorruption(View):
    """Some features of a row are replaced by those of other rows: views of tables.

    Each replacement is a draw from the feature's marginal, so that only what features say of each
    other tells views of one row from those of another.

    Parameters
    ----------
    fraction : float, default=0.3
        Probability that a feature is replaced, between 0 and 1.

    References
    ----------
    .. [1] D. Bahri, H. Jiang, Y. Tay and D. Metzler, "SCARF: self-supervised contrastive learning
       using random feature corruption", ICLR 2022.
    """

    fraction: float = 0.3

    draws_both: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_share(self.fraction, "fraction", self)
        if self.fraction == 1.0:
            raise ValueError(
                f"FeatureCorruption: fraction={self.fraction!r} must be below 1: nothing of the "
                "row would be left."
            )

    def draw(
        self,
        x: Tensor,
        index: Tensor,
        source: Source,
        prepared: dict[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """Corrupted copies of the rows."""
        rows = x if source.rows is None else source.rows
        places = torch.randint(len(rows), x.shape, generator=generator, device=x.device)
        others = rows.gather(0, places)
        replaced = torch.rand(x.shape, generator=generator, device=x.device) < self.fraction
        return torch.where(replaced, others, x)


@dataclass(frozen=True)
class Neighbours(OtherRows):
    """A view of a row is one of its nearest neighbours in the input.

    Parameters
    ----------
    n_neighbors : int, default=5
        Number of neighbours; rows that have fewer take all others.
    """

    n_neighbors: int = 5

    def __post_init__(self) -> None:
        check_counts(self, "n_neighbors")

    def prepare(self, source: Source) -> dict[str, Tensor]:
        """Places of the neighbours of each row. O(n^2 d)."""
        rows = source.rows
        if rows is None:
            raise ValueError("Neighbours are found among rows in memory.")
        n_rows = len(rows)
        if n_rows == 1:
            return {"neighbours": torch.zeros(1, 1, dtype=torch.long, device=rows.device)}
        n_found = min(self.n_neighbors, n_rows - 1)
        found = []
        for part in torch.split(torch.arange(n_rows, device=rows.device), _BLOCK // n_rows + 1):
            away = torch.cdist(rows[part], rows)
            away[torch.arange(len(part), device=rows.device), part] = torch.inf
            found.append(away.topk(n_found, dim=1, largest=False).indices)
        return {"neighbours": torch.cat(found)}

    def places(
        self, index: Tensor, prepared: dict[str, Tensor], generator: torch.Generator
    ) -> Tensor:
        """One of the neighbours of each row."""
        neighbours = prepared["neighbours"]
        which = torch.randint(
            neighbours.shape[1], (len(index), 1), generator=generator, device=index.device
        )
        return neighbours[index].gather(1, which)[:, 0]

    def related(self, index: Tensor, others: Tensor, prepared: dict[str, Tensor]) -> Tensor | None:
        """Rows of which one is a neighbour of the other."""
        neighbours = prepared["neighbours"]
        own = (neighbours[index][:, :, None] == others).any(dim=1)
        return own | (neighbours[others][:, :, None] == index).any(dim=1).T


@dataclass(frozen=True)
class Labels(OtherRows):
    """A view of a row is another row of the same class, given by ``y``."""

    takes: ClassVar[str | None] = "target"

    def prepare(self, source: Source) -> dict[str, Tensor]:
        """Rows ordered by class."""
        return _ordered(source)

    def places(
        self, index: Tensor, prepared: dict[str, Tensor], generator: torch.Generator
    ) -> Tensor:
        """Another row of the class of each row, or the row itself if it is alone."""
        begin, count, place = (prepared[k][index] for k in ("begin", "count", "place"))
        u = torch.rand(len(index), generator=generator, device=index.device)
        step = 1 + (u * (count - 1)).long().clamp(max=(count - 2).clamp(min=0))
        chosen = begin + (place - begin + step) % count
        return prepared["order"][chosen]

    def related(self, index: Tensor, others: Tensor, prepared: dict[str, Tensor]) -> Tensor | None:
        """Rows of the same class."""
        kinds = prepared["kinds"]
        return kinds[index][:, None] == kinds[others]


@dataclass(frozen=True)
class Groups(OtherRows):
    """A view of a step of a sequence is a step close in time; ``groups`` names the sequences.

    Parameters
    ----------
    max_distance : int, default=1
        Most steps between the two.
    """

    max_distance: int = 1

    takes: ClassVar[str | None] = "groups"

    def __post_init__(self) -> None:
        check_counts(self, "max_distance")

    def prepare(self, source: Source) -> dict[str, Tensor]:
        """Rows ordered by sequence, in each of them by time."""
        return _ordered(source)

    def places(
        self, index: Tensor, prepared: dict[str, Tensor], generator: torch.Generator
    ) -> Tensor:
        """A step before or after each row, within its sequence; of one step, the row itself."""
        begin, count, place = (prepared[k][index] for k in ("begin", "count", "place"))
        back = (place - begin).clamp(max=self.max_distance)
        front = (begin + count - 1 - place).clamp(max=self.max_distance)
        share = torch.rand(len(index), generator=generator, device=index.device)
        number = (share * (back + front)).long()  # of the steps that there are on both sides
        chosen = place - back + number + (number >= back).long()
        # A sequence of a single step has no other.
        chosen = torch.where(back + front > 0, chosen, place)
        return prepared["order"][chosen]

    def related(self, index: Tensor, others: Tensor, prepared: dict[str, Tensor]) -> Tensor | None:
        """Steps of one sequence that are close in time."""
        kinds, place = prepared["kinds"], prepared["place"]
        close = (place[index][:, None] - place[others]).abs() <= self.max_distance
        return close & (kinds[index][:, None] == kinds[others])


def rows_of(source: Source) -> Tensor:
    """All rows, which views that are other rows need."""
    assert source.rows is not None  # noqa: S101
    return source.rows


def _ordered(source: Source) -> dict[str, Tensor]:
    """Rows ordered by kind: the place of each row, where its kind begins and how many there are."""
    kinds = source.kinds
    if kinds is None:
        raise ValueError("The classes or sequences of the rows are not known.")
    _, kinds, counts = torch.unique(kinds, return_inverse=True, return_counts=True)
    order = torch.argsort(kinds, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    begin = counts.cumsum(0) - counts
    return {
        "order": order,
        "place": place,
        "begin": begin[kinds],
        "count": counts[kinds],
        "kinds": kinds,
    }
