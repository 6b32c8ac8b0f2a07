r"""Annealed importance sampling of log Z(x), the normaliser of p(y, z | x), for every row x.

    p_t(y, z) prop. to exp(-V(y) + t (d'z + sum_k z_k w_k'y)),      w_k = W_k'x,      0 <= t <= 1.

At t = 0 the units of y are without input and those of z on half of the time. The chains of all
rows use the same random numbers, so that the estimate is a function of the row alone: it depends
neither on the other rows of a call nor on their order. As in any annealing from the base, log Z is
too low on average, by about half the variance of the log weights over the number of chains.

R. Salakhutdinov and I. Murray, "On the quantitative analysis of deep belief networks", ICML 2008.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


def log_normaliser(
    energy: Any, x: Tensor, generator: torch.Generator, *, n_chains: int, n_temperatures: int
) -> Tensor:
    """Estimate log Z(x) of a gated energy for each row of x, (n_rows,).

    ``generator`` must be in the same state for every call that is to give the same answers.
    O(n_rows n_chains n_temperatures k d_y).
    """
    weights, hidden, right = energy.coupling.given_left(x), energy.hidden, energy.right
    is_real = right.domain == "real"
    n_hidden, n_right = weights.shape[1:]

    def noise(n_units: int, real: bool) -> Tensor:
        # In double precision, so that single precision gets the same numbers.
        empty = torch.empty(n_chains, n_units, dtype=torch.float64, device=x.device)
        draw = empty.normal_ if real else empty.uniform_
        return draw(generator=generator).to(x.dtype)

    def drawn(field: Tensor) -> Tensor:
        mean, random = right.mean(field), noise(n_right, is_real)
        return mean + random * right.variance(field).sqrt() if is_real else _bits(mean, random)

    y = drawn(right.bias.expand(len(x), n_chains, -1))
    log_weights = y.new_zeros(len(x), n_chains)
    steps = torch.linspace(0.0, 1.0, n_temperatures + 1, dtype=torch.float64).tolist()
    for start, stop in pairwise(steps):
        field = hidden.bias + y @ weights.transpose(1, 2)
        gain = hidden.cumulant(stop * field) - hidden.cumulant(start * field)
        log_weights = log_weights + gain.sum(dim=2)
        z = _bits(hidden.mean(stop * field), noise(n_hidden, False))
        y = drawn(right.bias + stop * (z @ weights))
    base = right.log_partition(right.bias).sum() + n_hidden * math.log(2.0)
    log_z: Tensor = base + torch.logsumexp(log_weights, dim=1) - math.log(n_chains)
    return log_z


def _bits(mean: Tensor, uniform: Tensor) -> Tensor:
    """States that are 1 with these probabilities, given uniform numbers."""
    return (uniform < mean).to(mean.dtype)
