r"""Annealed importance sampling of log Z along any path, forwards and backwards.

From the base of a path, whose Z_0 is known, to the model at t = 1. The mean of the weights
w = prod p*_{t+1}(v_t) / p*_t(v_t) estimates Z / Z_0 without bias; backwards, from rows of the
model, the mean weight estimates Z_0 / Z. Of all estimates from both, that of Bennett (1976) has the
least variance.

R. Salakhutdinov and I. Murray, "On the quantitative analysis of deep belief networks", ICML 2008;
R. M. Neal, "Annealed importance sampling", Statistics and Computing 11, 2001; Y. Burda, R. Grosse
and R. Salakhutdinov, "Accurate and conservative estimates of MRF log-likelihood using reverse
annealing", AISTATS 2015; G. E. Crooks, "Entropy production fluctuation theorem and the
nonequilibrium work relation for free energy differences", Physical Review E 60, 1999.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sklebm.energies.units import base_rate_bias as base_rate_bias
from sklebm.inference.ratios import jackknife_error, log_mean
from sklebm.inference.tempered_path import Path


class PartitionEstimate(NamedTuple):
    """log Z in nats with an interval of three standard errors, and the chains' final states."""

    value: float
    low: float
    high: float
    log_weights: Tensor
    rows: Tensor


def forward(
    path: Path, generator: torch.Generator, *, n_chains: int = 100, n_temperatures: int = 1000
) -> PartitionEstimate:
    """Estimate log Z from the base to the model, in ``n_temperatures`` steps of all chains.

    The estimate of Z is unbiased, so that of log Z is too low on average, by about half the
    variance of the log weights over the number of chains: a model that mixes badly looks better
    than it is.
    """
    v = path.draw_base(n_chains, generator)
    log_weights = v.new_zeros(n_chains)
    for index in range(n_temperatures):
        start, stop = index / n_temperatures, (index + 1) / n_temperatures
        seen = path.observe(v)
        log_weights += path.log_weight(v, seen, start, stop)
        v = path.move(v, seen, stop, generator)
    return summarise(log_weights, path.log_z0(), v)


def reverse(
    path: Path, rows: Tensor, generator: torch.Generator, *, n_temperatures: int = 1000
) -> PartitionEstimate:
    """Estimate log Z from rows of the model to the base, in ``n_temperatures`` steps.

    If ``rows`` are exact draws of the model, the mean weight is unbiased for Z_0 / Z, and the
    estimate of log Z too high on average: with the forward one it brackets the truth. Rows of
    chains that have not seen every mode give no such bound, and the bracket is a diagnostic.
    """
    v = rows.to(path.like)
    log_weights = v.new_zeros(len(v))
    for index in range(n_temperatures, 0, -1):
        start, stop = index / n_temperatures, (index - 1) / n_temperatures
        v = path.move(v, path.observe(v), start, generator)
        log_weights += path.log_weight(v, path.observe(v), start, stop)
    inverse = summarise(log_weights, -path.log_z0(), v)
    return PartitionEstimate(-inverse.value, -inverse.high, -inverse.low, log_weights, v)


def summarise(log_weights: Tensor, log_z0: float, rows: Tensor) -> PartitionEstimate:
    """Log of the mean weight, and three standard errors of that logarithm on either side."""
    value = log_z0 + log_mean(log_weights)
    n_chains = len(log_weights)
    error = jackknife_error(lambda kept: log_mean(log_weights[kept]), n_chains, log_weights)
    return PartitionEstimate(value, value - 3.0 * error, value + 3.0 * error, log_weights, rows)
