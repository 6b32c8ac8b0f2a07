r"""Ratios of normalisers from draws of both densities, and standard errors of such estimates.

With n_a draws of p_a, n_b of p_b and l(x) = log p*_b - log p*_a, the ratio r = Z_b / Z_a solves

    sum_{x ~ p_a} s(l(x) - log r + m) = sum_{x ~ p_b} s(log r - l(x) - m),   m = log n_b / n_a,

with the logistic function s; this has the least variance of all estimates from such draws.

C. H. Bennett, "Efficient estimation of free energy differences from Monte Carlo data", Journal of
Computational Physics 22, 1976; X.-L. Meng and W. H. Wong, "Simulating ratios of normalizing
constants via a simple identity", Statistica Sinica 6, 1996.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_GROUPS = 10
_BISECTIONS = 60


def log_ratios(upwards: Tensor, downwards: Tensor) -> Tensor:
    """Bennett's estimate of log Z_b - log Z_a for every row, by bisection.

    ``upwards`` holds l(x) of the draws of p_a, ``downwards`` that of the draws of p_b; the first
    axis numbers the pairs of densities.
    """
    up, down = upwards.flatten(1), downwards.flatten(1)
    excess_of_draws = math.log(down.shape[1] / up.shape[1])
    low = torch.minimum(up.amin(1), down.amin(1)).unsqueeze(1) - abs(excess_of_draws)
    high = torch.maximum(up.amax(1), down.amax(1)).unsqueeze(1) + abs(excess_of_draws)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        shifted = middle - excess_of_draws
        # Falls as the ratio grows: the root is to the right where it is positive.
        excess = torch.sigmoid(up - shifted).sum(1) - torch.sigmoid(shifted - down).sum(1)
        right = (excess > 0).unsqueeze(1)
        low, high = torch.where(right, middle, low), torch.where(right, high, middle)
    return (0.5 * (low + high)).squeeze(1)


def log_ratio_error(upwards: Tensor, downwards: Tensor, ratios: Tensor) -> float:
    """Standard error of the sum of ``log_ratios`` over all pairs, by leaving out groups of chains.

    The second axis indexes independent chains. For each group left out, one step of Newton's method
    from the full solution replaces solving again.
    """
    excess_of_draws = math.log(downwards[0].numel() / upwards[0].numel())
    shifted = (ratios - excess_of_draws)[:, None, None]
    up, down = torch.sigmoid(upwards - shifted), torch.sigmoid(shifted - downwards)
    excess = up.sum(2) - down.sum(2)
    slope = (up * (1.0 - up)).sum(2) + (down * (1.0 - down)).sum(2)
    tiny = torch.finfo(excess.dtype).tiny

    def moved(kept: Tensor) -> float:
        return float((excess[:, kept].sum(1) / slope[:, kept].sum(1).clamp(min=tiny)).sum())

    return jackknife_error(moved, excess.shape[1], excess)


def log_mean(log_weights: Tensor) -> float:
    """Logarithm of the mean of exp(log_weights)."""
    return float(torch.logsumexp(log_weights, dim=0)) - math.log(len(log_weights))


def jackknife_error(estimate: Callable[[Tensor], float], n_units: int, like: Tensor) -> float:
    """Standard error of ``estimate(kept)``, which takes a mask of the units that it may use.

    Units are independent chains. One group of a tenth is left out at a time,
    which costs ten estimates and needs no formula for their variance.
    """
    n_groups = min(_GROUPS, n_units)
    if n_groups < 2:
        return math.inf
    group = torch.arange(n_units, device=like.device) % n_groups
    left_out = [estimate(group != g) for g in range(n_groups)]
    mean = math.fsum(left_out) / n_groups
    spread = math.fsum((value - mean) ** 2 for value in left_out)
    return math.sqrt(spread * (n_groups - 1) / n_groups)
