"""First centres and first means: rows of X, drawn so that weights and repetition are equivalent.

Draws go by inverse cumulative weight over the rows in an order that depends on their content
alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sklebm._shell.ranks import ALONE, Ranks
from sklebm.energies import PrototypeEnergy
from sklebm.inference.lloyd import RowSource, Slices


def content_order(
    x: RowSource, parts: Slices, generator: torch.Generator, ranks: Ranks = ALONE
) -> Tensor:
    """A permutation of all rows that depends on their content alone, equal rows side by side.

    Rows are sorted by their projection on a random direction: O(n d + n log n), where sorting
    by one column after the other would cost O(n d log n).
    """
    return torch.argsort(ranks.concat(content_keys(x, parts, generator)), stable=True)


def content_keys(x: RowSource, parts: Slices, generator: torch.Generator) -> Tensor:
    """A number for each row that depends on its content alone: its projection on a direction."""
    direction = torch.randn(x.shape[1], generator=generator, dtype=torch.float64)
    # Elementwise product and sum: a matrix product may round equal rows differently.
    keys = torch.empty(x.shape[0], dtype=torch.float64, device=x.device)
    for part in parts:  # small results kept apart would leave holes between the chunks in memory
        keys[part] = (x[part] * direction.to(x.device)).sum(dim=1)
    return keys


def seed_centers(
    x: RowSource,
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
    n_trials = 2 + int(math.log(n_clusters))
    chosen = order[_draw(ranks.concat(weights)[order], 1, generator)]
    closest = torch.full_like(weights, torch.inf)
    _, closest = _closest_after(x, weights, ranks.take(x, chosen), closest, parts, ranks)
    for _ in range(1, n_clusters):
        mass = ranks.concat(weights * closest)[order]
        if not mass.sum() > 0:
            mass = ranks.concat(weights)[order]
        candidates = order[_draw(mass, n_trials, generator)]
        best, closest = _closest_after(x, weights, ranks.take(x, candidates), closest, parts, ranks)
        chosen = torch.cat([chosen, candidates[best : best + 1]])
    return ranks.take(x, chosen).clone()


def _closest_after(
    x: RowSource, weights: Tensor, candidates: Tensor, closest: Tensor, parts: Slices, ranks: Ranks
) -> tuple[int, Tensor]:
    """The candidate that lowers the weighted sum of ``closest`` most, and what it becomes.

    ``closest`` are squared distances of this rank's rows to the centres so far, double precision
    for their sums. Distances to all candidates are kept only if the rows are in memory as well:
    rows on disk are read twice.
    """
    energy = PrototypeEnergy(candidates)

    def closer(part: slice) -> Tensor:
        distances = energy.squared_distances(x[part]).double()
        return torch.minimum(distances, closest[part, None])

    in_memory, kept = isinstance(x, Tensor), []
    potentials = weights.new_zeros(len(candidates))
    for part in parts:
        distances = closer(part)
        potentials += weights[part] @ distances
        if in_memory:
            kept.append(distances)
    best = int(ranks.sum(potentials).argmin())
    after = kept if in_memory else (closer(part) for part in parts)
    nearest = torch.empty_like(closest)  # in place, for the same reason as ``content_keys``
    for part, distances in zip(parts, after, strict=True):
        nearest[part] = distances[:, best]
    return best, nearest


def random_rows(
    x: RowSource,
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
