"""First centres and first means: rows of X, drawn so that weights and repetition are equivalent.

Draws go by inverse cumulative weight over the rows in an order that depends on their content
alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sklebm._shell.ranks import ALONE, Ranks
from sklebm.energies import PrototypeEnergy

Slices = Sequence[slice]


def content_order(
    x: Tensor, parts: Slices, generator: torch.Generator, ranks: Ranks = ALONE
) -> Tensor:
    """A permutation of all rows that depends on their content alone, equal rows side by side.

    Rows are sorted by their projection on a random direction: O(n d + n log n), where sorting
    by one column after the other would cost O(n d log n).
    """
    direction = torch.randn(x.shape[1], generator=generator, dtype=torch.float64)
    # Elementwise product and sum: a matrix product may round equal rows differently.
    keys = torch.cat([(x[part] * direction.to(x.device)).sum(dim=1) for part in parts])
    return torch.argsort(ranks.concat(keys), stable=True)


def seed_centers(
    x: Tensor,
    weights: Tensor,
    n_clusters: int,
    parts: Slices,
    generator: torch.Generator,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Greedy k-means++ (Arthur & Vassilvitskii, 2007): k rows of x, far from each other.

    Each centre is the best of 2 + log k rows drawn with probability proportional to weight times
    squared distance to the centres so far. O(n d k log k). Where rows are divided among ``ranks``,
    each holds the distances of all rows.
    """
    order = content_order(x, parts, generator, ranks)
    weights = ranks.concat(weights)[order]
    n_trials = 2 + int(math.log(n_clusters))
    chosen = order[_draw(weights, 1, generator)]
    closest = _distances_to(x, ranks.take(x, chosen), parts, ranks)[order, 0]
    for _ in range(1, n_clusters):
        mass = weights * closest
        candidates = order[_draw(mass if mass.sum() > 0 else weights, n_trials, generator)]
        distances = _distances_to(x, ranks.take(x, candidates), parts, ranks)[order]
        closer = torch.minimum(distances, closest[:, None])
        best = int((weights @ closer).argmin())
        closest = closer[:, best]
        chosen = torch.cat([chosen, candidates[best : best + 1]])
    return ranks.take(x, chosen).clone()


def random_rows(
    x: Tensor,
    weights: Tensor,
    n_rows: int,
    parts: Slices,
    generator: torch.Generator,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Rows of x drawn by weight, all different if x has so many different rows. O(n d n_rows)."""
    order = content_order(x, parts, generator, ranks)
    weights = ranks.concat(weights)[order]
    chosen, left = order[:0], weights
    for _ in range(n_rows):
        pick = order[_draw(left if left.sum() > 0 else weights, 1, generator)]
        chosen = torch.cat([chosen, pick])
        row = ranks.take(x, pick)
        different = torch.cat([(x[part] != row).any(dim=1) for part in parts])
        left = left * ranks.concat(different.double())[order]
    return ranks.take(x, chosen).clone()


def _draw(mass: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices drawn with probability proportional to ``mass``, by inverse cumulative sum."""
    cumulative = mass.cumsum(dim=0)
    points = torch.rand(count, generator=generator, dtype=torch.float64).to(mass.device)
    picks = torch.searchsorted(cumulative, points * cumulative[-1], right=True)
    return picks.clamp_(max=len(mass) - 1)


def _distances_to(x: Tensor, points: Tensor, parts: Slices, ranks: Ranks) -> Tensor:
    """Squared distances of all rows to a few points, in double precision for later sums."""
    energy = PrototypeEnergy(points)
    return ranks.concat(torch.cat([energy.squared_distances(x[part]).double() for part in parts]))
