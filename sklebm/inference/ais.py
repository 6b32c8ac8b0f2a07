r"""Annealed importance sampling of log Z of restricted Boltzmann machines, forwards and backwards.

From the base of a tempered path, whose Z_0 is known, to the machine at t = 1. The mean of the
weights w = prod p*_{t+1}(v_t) / p*_t(v_t) estimates Z / Z_0 without bias; backwards, from rows of
the machine, the mean weight estimates Z_0 / Z.

R. Salakhutdinov and I. Murray, "On the quantitative analysis of deep belief networks", ICML 2008;
R. M. Neal, "Annealed importance sampling", Statistics and Computing 11, 2001; Y. Burda, R. Grosse
and R. Salakhutdinov, "Accurate and conservative estimates of MRF log-likelihood using reverse
annealing", AISTATS 2015.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sklebm.inference.tempered_path import TemperedPath


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
    """Estimate log Z of a bilinear energy forwards. O(n_temperatures n_chains d k).

    The estimate of Z is unbiased, so that of log Z is too low on average, by about half the
    variance of the log weights over the number of chains: a model that mixes badly looks better
    than it is. All numbers are float64; pass the energy in that precision.
    """
    path = TemperedPath(energy, base_bias)
    v = path.draw_base(n_chains, generator)
    log_weights = v.new_zeros(n_chains)
    for index in range(n_temperatures):
        start, stop = index / n_temperatures, (index + 1) / n_temperatures
        field = energy.hidden_field(v)
        log_weights += path.log_weight(v, field, start, stop)
        v = path.draw_visible(path.draw_hidden(field, stop, generator), stop, generator)
    return summarise(log_weights, path.log_z0())


def reverse_log_partition(
    energy: Any,
    base_bias: Tensor,
    rows: Tensor,
    generator: torch.Generator,
    *,
    n_temperatures: int = 1000,
) -> PartitionEstimate:
    """Estimate log Z backwards, from rows of the model to the base. O(n_temperatures n d k).

    If ``rows`` are exact draws of the model, the mean weight is unbiased for Z_0 / Z, and the
    estimate of log Z too high on average: with the forward one it brackets the truth. Rows of
    chains that have not seen every mode give no such bound, and the bracket is a diagnostic.
    """
    path = TemperedPath(energy, base_bias)
    v = rows.to(path.base)
    log_weights = v.new_zeros(len(v))
    for index in range(n_temperatures, 0, -1):
        start, stop = index / n_temperatures, (index - 1) / n_temperatures
        field = energy.hidden_field(v)
        v = path.draw_visible(path.draw_hidden(field, start, generator), start, generator)
        log_weights += path.log_weight(v, energy.hidden_field(v), start, stop)
    inverse = summarise(log_weights, -path.log_z0())
    return PartitionEstimate(-inverse.value, -inverse.high, -inverse.low, log_weights)


def summarise(log_weights: Tensor, log_z0: float) -> PartitionEstimate:
    """Log of the mean weight, and three standard errors of that mean on either side."""
    n = len(log_weights)
    value = log_z0 + float(torch.logsumexp(log_weights, dim=0)) - math.log(n)
    relative = torch.exp(log_weights - log_weights.max())
    error = 3.0 * float(relative.std() / relative.mean()) / math.sqrt(n)
    # Beyond a relative error of one the lower end would be minus infinity.
    low = value + math.log1p(-min(error, 0.999))
    return PartitionEstimate(value, low, value + math.log1p(error), log_weights)
