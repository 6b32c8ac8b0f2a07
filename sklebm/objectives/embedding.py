r"""Metric learning: pairs of views of one thing get low energy, views of different things high.

The energy of a pair is the distance or minus the similarity of two embeddings. An energy offers

- ``pairs(batch, generator, keep_first)``: two views of each row, and which other pairs are related;
- ``project(x, head)``: the embeddings that the loss compares, one row each.

R. Hadsell, S. Chopra and Y. LeCun, "Dimensionality reduction by learning an invariant mapping",
CVPR 2006 (margin); F. Schroff, D. Kalenichenko and J. Philbin, "FaceNet: a unified embedding for
face recognition and clustering", CVPR 2015 (triplets); A. van den Oord, Y. Li and O. Vinyals,
"Representation learning with contrastive predictive coding", arXiv:1807.03748, 2018, and T. Chen,
S. Kornblith, M. Norouzi and G. Hinton, "A simple framework for contrastive learning of visual
representations", ICML 2020 (InfoNCE).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from sklebm._checks import check_choice, check_number
from sklebm.energies.embedding import to_unit_length
from sklebm.inference.views import OtherRows, Source, View, rows_of
from sklebm.objectives.base import Batch, Objective, ObjectiveState


@dataclass(frozen=True)
class Pairs:
    """Two views of each row of a batch, (n_rows, ...), and the pairs that are no negatives.

    Parameters
    ----------
    first, second : Tensor of shape (n_rows, ...)
        The views.
    index, places : Tensor of shape (n_rows,)
        Places of the rows among all rows, and of those that second views show, which may be others.
    near : callable
        Maps places (n,) and (m,) to a boolean (n, m): whether one could be a view of the other.
    related : Tensor of shape (n_rows, n_rows) or None, default=None
        True where view j is not to be pushed away from view i, apart from j = i. None: nowhere.
    """

    first: Tensor
    second: Tensor
    index: Tensor
    places: Tensor
    near: Callable[[Tensor, Tensor], Tensor]
    related: Tensor | None = None


class PairedEnergy(Protocol):
    """What these objectives need of an energy."""

    n_rows: int  # of the fit, which ``Pairs.index`` counts
    n_projected: int  # columns of what ``project`` returns

    def pairs(self, batch: Batch, generator: torch.Generator, *, keep_first: bool = False) -> Pairs:
        """Two views of each row; with ``keep_first`` the first is the row itself."""

    def project(self, x: Tensor, head: int = 0) -> Tensor:
        """The embeddings that are compared, (n_rows, n_outputs)."""


class PairedViews:
    """Views of the rows of a fit, for objectives that ask the energy for pairs.

    Parameters
    ----------
    view : View
        How views are drawn.
    source : Source
        What they are drawn from.
    """

    def __init__(self, view: View, source: Source) -> None:
        self.view = view
        self.source = source
        self.prepared = view.prepare(source)

    def pairs(self, batch: Batch, generator: torch.Generator, *, keep_first: bool = False) -> Pairs:
        """Two views of each row; ``batch.target`` holds the places of the rows."""
        x, index = batch.x, batch.target
        if index is None:
            index = torch.arange(len(x), device=x.device)
        first, related = x, None
        if self.view.draws_both and not keep_first:
            first = self._draw(x, index, generator)
        if isinstance(self.view, OtherRows):
            places = self.view.places(index, self.prepared, generator)
            second, related = rows_of(self.source)[places], self._related(index, places)
        else:
            places, second = index, self._draw(x, index, generator)
            related = self.view.related(index, index, self.prepared)
        return Pairs(first, second, index, places, self.near, related)

    def near(self, index: Tensor, others: Tensor) -> Tensor:
        """Whether the rows at two sets of places are the same or could be views of one another."""
        same = index[:, None] == others
        related = self.view.related(index, others, self.prepared)
        return same if related is None else same | related

    def _related(self, index: Tensor, places: Tensor) -> Tensor:
        """Whether row i or its view is related to row j or its view: both are compared."""
        both, n_rows = torch.cat([index, places]), len(index)
        related = self.near(both, both)
        return related.reshape(2, n_rows, 2, n_rows).any(dim=2).any(dim=0)

    def _draw(self, x: Tensor, index: Tensor, generator: torch.Generator) -> Tensor:
        return self.view.draw(x, index, self.source, self.prepared, generator)


# ---------------------------------------------------------------------- the losses as functions


def margin_energies(distances: Tensor, similar: Tensor, margin: float) -> Tensor:
    """D^2 / 2 of similar pairs, max(0, m - D)^2 / 2 of the others; the shape of ``distances``."""
    apart = 0.5 * (margin - distances).clamp(min=0.0).square()
    return torch.where(similar, 0.5 * distances.square(), apart)


def info_nce(scores: Tensor, related: Tensor | None = None) -> Tensor:
    """Mean of log sum_j exp(s_ij) - s_ii over the rows of (n, m) scores, m >= n.

    Entries where ``related`` is true, off the diagonal, are no negatives and are left out.
    """
    positives = scores.diagonal()
    if related is not None:
        eye = torch.eye(*scores.shape, dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(related & ~eye, -torch.inf)
    return (torch.logsumexp(scores, dim=1) - positives).mean()


def information_bound(scores: Tensor) -> Tensor:
    """log n - InfoNCE: on average at most the mutual information of pairs, and at most log n."""
    return math.log(scores.shape[1]) - info_nce(scores)


# ---------------------------------------------------------------------- objectives


@dataclass(frozen=True)
class MarginContrast(Objective):
    """Siamese margin loss: similar pairs at distance 0, others at least a margin apart.

    The mean of D^2 / 2 over similar pairs, plus the mean of max(0, margin - D)^2 / 2 over the pairs
    of different rows of a batch. D is the Euclidean distance, at most 2 between unit vectors.

    Parameters
    ----------
    margin : float, default=1.0
        Distance from which on dissimilar pairs cost nothing.
    """

    margin: float = 1.0

    needs: ClassVar[tuple[str, ...]] = ("pairs", "project")
    weighs_rows: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_number(self.margin, "margin", self)

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean cost of similar pairs plus that of dissimilar ones."""
        pairs = energy.pairs(batch, generator)
        u, v = project_both(energy, pairs)
        similar = 0.5 * (u - v).square().sum(dim=1).mean()
        dissimilar = unrelated(pairs)
        costs = margin_energies(distances(u, v), ~dissimilar, self.margin)
        return similar + mean_where(costs, dissimilar), state


@dataclass(frozen=True)
class TripletMargin(Objective):
    """Triplet loss: a row is nearer to its other view than to any other row, by a margin.

    The mean of max(0, D(a, p)^2 - D(a, n)^2 + margin) over anchors a, their other views p and
    negatives n, the second views of other rows of the batch.

    Parameters
    ----------
    margin : float, default=0.2
        In squared distances.
    mining : {"semi_hard", "hard", "all"}, default="semi_hard"
        Which negatives count: "hard", the nearest one; "semi_hard", the nearest of those farther
        away than the positive, or the farthest one if none is; "all", the mean over all of them.
    """

    margin: float = 0.2
    mining: str = "semi_hard"

    needs: ClassVar[tuple[str, ...]] = ("pairs", "project")
    weighs_rows: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_number(self.margin, "margin", self)
        check_choice(self.mining, "mining", ("semi_hard", "hard", "all"), self)

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean violation over the anchors that have a negative."""
        pairs = energy.pairs(batch, generator)
        u, v = project_both(energy, pairs)
        near = (u - v).square().sum(dim=1)
        far = distances(u, v).square()
        allowed = unrelated(pairs)
        if self.mining == "all":
            costs = (near[:, None] - far + self.margin).clamp(min=0.0)
            return mean_where(costs, allowed), state
        mined = self._mined(near, far, allowed)
        costs = (near - far.gather(1, mined[:, None])[:, 0] + self.margin).clamp(min=0.0)
        return mean_where(costs, allowed.any(dim=1)), state

    def _mined(self, near: Tensor, far: Tensor, allowed: Tensor) -> Tensor:
        """Index of the negative of each anchor."""
        far, near = far.detach(), near.detach()
        nearest = far.masked_fill(~allowed, torch.inf)
        if self.mining == "hard":
            return nearest.argmin(dim=1)
        beyond = allowed & (far > near[:, None])
        farthest = far.masked_fill(~allowed, -torch.inf).argmax(dim=1)
        semi_hard = far.masked_fill(~beyond, torch.inf).argmin(dim=1)
        return torch.where(beyond.any(dim=1), semi_hard, farthest)


@dataclass(frozen=True)
class InfoNCE(Objective):
    """Classify the other view of a row among the views of the batch, by their cosines.

    With N rows a batch and "other" negatives, log N minus the loss is on average a lower bound of
    the mutual information of the two views, in nats; it cannot exceed log N.

    Parameters
    ----------
    temperature : float, default=0.2
        Cosines are divided by it.
    negatives : {"both", "other"}, default="both"
        Views that the positive competes with: "both" kinds of views of the other rows, 2 N - 1
        candidates, as in SimCLR; "other": only the views opposite to the anchor, N candidates.
    """

    temperature: float = 0.2
    negatives: str = "both"

    needs: ClassVar[tuple[str, ...]] = ("pairs", "project")
    weighs_rows: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_number(self.temperature, "temperature", self)
        check_choice(self.negatives, "negatives", ("both", "other"), self)

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean cross-entropy over both views of all rows, in nats."""
        pairs = energy.pairs(batch, generator)
        u, v = project_both(energy, pairs, unit_length=True)
        return self.of_views(u, v, pairs.related), state

    def of_views(self, u: Tensor, v: Tensor, related: Tensor | None = None) -> Tensor:
        """The loss of embeddings of unit length, (n_rows, n_outputs) each, in nats."""
        across = u @ v.T / self.temperature
        sides = [(across, u), (across.T, v)]
        if self.negatives == "both":
            eye = torch.eye(len(u), dtype=torch.bool, device=u.device)
            within = [(x @ x.T / self.temperature).masked_fill(eye, -torch.inf) for _, x in sides]
            sides = [(torch.cat([s, w], dim=1), x) for (s, x), w in zip(sides, within, strict=True)]
        masks: list[Tensor | None] = [None, None]
        if related is not None:
            masks = [related, related.T]
            if self.negatives == "both":
                masks = [torch.cat([m, m], dim=1) for m in (related, related.T)]
        losses = [info_nce(s, m) for (s, _), m in zip(sides, masks, strict=True)]
        return 0.5 * (losses[0] + losses[1])


# ---------------------------------------------------------------------- pieces


def project_both(energy: Any, pairs: Pairs, *, unit_length: bool = False) -> tuple[Tensor, Tensor]:
    """Embeddings of both views, in one pass."""
    both = energy.project(torch.cat([pairs.first, pairs.second]))
    if unit_length:
        both = to_unit_length(both)
    return both[: len(pairs.first)], both[len(pairs.first) :]


def unrelated(pairs: Pairs) -> Tensor:
    """Which second views are negatives of which first ones, (n_rows, n_rows)."""
    n_rows = len(pairs.first)
    dissimilar = ~torch.eye(n_rows, dtype=torch.bool, device=pairs.first.device)
    return dissimilar if pairs.related is None else dissimilar & ~pairs.related


def distances(u: Tensor, v: Tensor) -> Tensor:
    """Euclidean distances, (len(u), len(v)), by differences: an expansion loses small ones."""
    return torch.cdist(u, v, compute_mode="donot_use_mm_for_euclid_dist")


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the chosen values; 0 if there are none."""
    return values.masked_fill(~chosen, 0.0).sum() / chosen.sum().clamp(min=1)
