r"""Annealed importance sampling of log Z for Bernoulli machines.

From the base rate p_0(v) prop. exp(b_0' v), whose Z_0 = 2^k prod_i (1 + exp(b_0i)) is known,
through p_t(v) prop. exp(((1 - t) b_0 + t b)' v) prod_k (1 + exp(t (c_k + w_k' v))) to the model at
t = 1. The mean of the weights w = prod p*_{t+1}(v_t) / p*_t(v_t) estimates Z / Z_0 without bias.

R. Salakhutdinov and I. Murray, "On the quantitative analysis of deep belief networks", ICML 2008;
R. M. Neal, "Annealed importance sampling", Statistics and Computing 11, 2001.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor


class PartitionEstimate(NamedTuple):
    """log Z in nats with an interval of three standard errors of the mean weight."""

    value: float
    low: float
    high: float
    log_weights: Tensor


def base_rate_bias(mean: Tensor, n_rows: int = 1000) -> Tensor:
    """Log odds of each visible unit over ``n_rows`` rows, drawn towards 1/2 by one row more.

    More than 1000 rows count as 1000: a unit that never changed is then at odds of 2001 to 1.
    """
    rows = min(n_rows, 1000)
    mean = mean.clamp(0.0, 1.0)
    return torch.logit((mean * rows + 0.5) / (rows + 1.0))


def log_partition(
    energy: Any,
    base_bias: Tensor,
    generator: torch.Generator,
    *,
    n_chains: int = 100,
    n_temperatures: int = 1000,
) -> PartitionEstimate:
    """Estimate log Z of a bilinear energy with Bernoulli units. O(n_temperatures n_chains d k).

    The estimate of Z is unbiased, so that of log Z is too low on average, by about half the
    variance of the log weights over the number of chains: a model that mixes badly looks better
    than it is. All numbers are float64; pass the energy in that precision.
    """
    bias, weights, hidden_bias = energy.visible.bias, energy.weights, energy.hidden.bias
    base = base_bias.to(bias)
    n_hidden = len(hidden_bias)
    log_z0 = float(energy.visible.cumulant(base).sum()) + n_hidden * math.log(2.0)
    start = torch.sigmoid(base).expand(n_chains, -1)
    v = energy.visible.draw(start.contiguous(), generator)
    log_weights = torch.zeros(n_chains, dtype=bias.dtype, device=bias.device)
    slope = bias - base
    previous = 0.0
    for index in range(1, n_temperatures + 1):
        t = index / n_temperatures
        field = torch.addmm(hidden_bias, v, weights.T)
        gain = energy.hidden.cumulant(t * field) - energy.hidden.cumulant(previous * field)
        log_weights += (t - previous) * (v @ slope) + gain.sum(dim=1)
        h = energy.hidden.draw(torch.sigmoid(t * field), generator)
        v_field = torch.addmm(base + t * slope, h, weights, alpha=t)
        v = energy.visible.draw(torch.sigmoid(v_field), generator)
        previous = t
    return summarise(log_weights, log_z0)


def summarise(log_weights: Tensor, log_z0: float) -> PartitionEstimate:
    """Log of the mean weight, and three standard errors of that mean on either side."""
    n = len(log_weights)
    value = log_z0 + float(torch.logsumexp(log_weights, dim=0)) - math.log(n)
    relative = torch.exp(log_weights - log_weights.max())
    error = 3.0 * float(relative.std() / relative.mean()) / math.sqrt(n)
    # Beyond a relative error of one the lower end would be minus infinity.
    low = value + math.log1p(-min(error, 0.999))
    return PartitionEstimate(value, low, value + math.log1p(error), log_weights)
