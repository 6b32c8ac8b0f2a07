r"""Minimise sum_i w_i min_k \|x_i - c_k\|^2 over the centres: seeding, Lloyd steps, online steps.

Weights and repetition are equivalent everywhere, in seeding too: draws go by inverse
cumulative weight over the rows in an order that depends on their content alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sklebm.energies import PrototypeEnergy

Slices = Sequence[slice]


def content_order(x: Tensor, parts: Slices, generator: torch.Generator) -> Tensor:
    """A permutation of the rows that depends on their content alone, equal rows side by side.

    Rows are sorted by their projection on a random direction: O(n d + n log n), where sorting
    by one column after the other would cost O(n d log n).
    """
    direction = torch.randn(x.shape[1], generator=generator, dtype=torch.float64)
    # Elementwise product and sum: a matrix product may round equal rows differently.
    keys = torch.cat([(x[part] * direction.to(x.device)).sum(dim=1) for part in parts])
    return torch.argsort(keys, stable=True)


def seed_centers(
    x: Tensor, weights: Tensor, n_clusters: int, parts: Slices, generator: torch.Generator
) -> Tensor:
    """Greedy k-means++ (Arthur & Vassilvitskii, 2007): k rows of x, far from each other.

    Each centre is the best of 2 + log k rows drawn with probability proportional to weight times
    squared distance to the centres so far. O(n d k log k).
    """
    order = content_order(x, parts, generator)
    weights = weights[order]
    n_trials = 2 + int(math.log(n_clusters))

    def draw(mass: Tensor, count: int) -> Tensor:
        cumulative = mass.cumsum(dim=0)
        points = torch.rand(count, generator=generator, dtype=torch.float64).to(x.device)
        picks = torch.searchsorted(cumulative, points * cumulative[-1], right=True)
        return order[picks.clamp_(max=len(order) - 1)]

    chosen = draw(weights, 1)
    closest = _distances_to(x, x[chosen], parts)[order, 0]
    for _ in range(1, n_clusters):
        mass = weights * closest
        candidates = draw(mass if mass.sum() > 0 else weights, n_trials)
        distances = _distances_to(x, x[candidates], parts)[order]
        closer = torch.minimum(distances, closest[:, None])
        best = int((weights @ closer).argmin())
        closest = closer[:, best]
        chosen = torch.cat([chosen, candidates[best : best + 1]])
    return x[chosen].clone()


def _distances_to(x: Tensor, points: Tensor, parts: Slices) -> Tensor:
    """Squared distances of all rows to a few points, in double precision for later sums."""
    energy = PrototypeEnergy(points)
    return torch.cat([energy.squared_distances(x[part]).double() for part in parts])


def lloyd_step(
    x: Tensor, weights: Tensor, centers: Tensor, parts: Slices
) -> tuple[Tensor, Tensor, Tensor]:
    """Assign every row, then move every centre to the weighted mean of its rows. O(n d k).

    Returns the labels under ``centers``, the new centres and the clusters' weights. A cluster
    without rows moves onto the row that is farthest from its centre.
    """
    energy = PrototypeEnergy(centers)
    n_clusters = len(centers)
    labels = torch.empty(len(x), dtype=torch.int64, device=x.device)
    sums = torch.zeros(centers.shape, dtype=torch.float64, device=x.device)
    counts = torch.zeros(n_clusters, dtype=torch.float64, device=x.device)
    for part in parts:
        chunk = x[part]
        label = energy.assign(chunk)
        labels[part] = label
        counts.index_add_(0, label, weights[part])
        sums += _grouped_sums(chunk, label, weights[part], n_clusters)
    new = (sums / counts.clamp(min=torch.finfo(torch.float64).tiny)[:, None]).to(centers.dtype)
    empty = (counts <= 0).nonzero().flatten()
    if len(empty):
        new = _relocate(x, weights, new, empty, parts)
    return labels, new, counts


def _grouped_sums(x: Tensor, labels: Tensor, weights: Tensor, n_groups: int) -> Tensor:
    """Weighted sums of the rows of each group, float64."""
    weighted = x * weights[:, None].to(x.dtype)
    if x.device.type == "cpu":
        return torch.zeros(n_groups, x.shape[1], dtype=x.dtype).index_add_(0, labels, weighted)
    # index_add_ adds in no fixed order on a GPU; a product with the one-hot codes does.
    codes = torch.nn.functional.one_hot(labels, n_groups).to(x.dtype)
    return (codes.T @ weighted).double()


def _relocate(x: Tensor, weights: Tensor, centers: Tensor, empty: Tensor, parts: Slices) -> Tensor:
    """Move each empty centre onto the row farthest from all centres; the inertia never rises."""
    centers = centers.clone()
    occupied = torch.ones(len(centers), dtype=torch.bool, device=x.device)
    occupied[empty] = False
    energy = PrototypeEnergy(centers[occupied])
    distance = torch.cat([energy.free_energy(x[part]) for part in parts])
    distance = torch.where(weights > 0, distance, -1.0)
    for index in empty.tolist():
        row = x[int(distance.argmax())]
        centers[index] = row
        for part in parts:
            distance[part] = torch.minimum(distance[part], (x[part] - row).square().sum(dim=1))
    return centers


def inertia(x: Tensor, weights: Tensor, labels: Tensor, centers: Tensor, parts: Slices) -> float:
    """Weighted sum of squared distances to the own centre, without cancellation, in float64."""
    centers = centers.double()
    total = sum(
        (weights[part] * (x[part].double() - centers[labels[part]]).square().sum(dim=1)).sum()
        for part in parts
    )
    return float(total)


def online_pass(
    x: NDArray[np.floating], centers: NDArray[np.float64], counts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32], float]:
    """One pass of MacQueen's rule: each row moves its centre by 1 / count towards itself.

    Rows act one after the other, so the result does not depend on how they are cut into
    chunks. Returns new centres, new counts, the labels and the sum of squared errors added
    (Welford's update). O(n d k).
    """
    # The comparison |c|^2 - 2 x'c cancels far from zero: work around the mean of the centres.
    origin = centers.mean(axis=0)
    centers, counts = centers - origin, counts.copy()
    norms = np.einsum("kd,kd->k", centers, centers)
    labels = np.empty(len(x), dtype=np.int32)
    error = 0.0
    for index, row in enumerate(x):
        shifted = row - origin
        label = int(np.argmin(norms - 2.0 * (centers @ shifted)))
        counts[label] += 1.0
        before = shifted - centers[label]
        centers[label] += before / counts[label]
        error += float(before @ (shifted - centers[label]))
        norms[label] = centers[label] @ centers[label]
        labels[index] = label
    return centers + origin, counts, labels, error
