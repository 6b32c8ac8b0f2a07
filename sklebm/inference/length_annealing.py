r"""log Z_D of a replicated softmax for every length D at once: annealing from length to length.

Z_D = sum_h exp(D a(h)) is Z_0 = 2^k for the empty document, and

    Z_{D+1} / Z_D = E_{p_D} exp(a(h)),     p_D(h) ~ exp(D a(h)):

the length is the inverse temperature. Chains that grow by a word at a time, with a Gibbs step of
the words given the bits and of the bits given the words in between, anneal log Z of all lengths on
their way; chains that shrink give the estimates from the other side. Beyond a thousand words a step
adds a thousandth of the length, and log Z, which is convex in D, is interpolated in between.

R. M. Neal, "Annealed importance sampling", Statistics and Computing 11, 2001; R. Salakhutdinov and
G. Hinton, "Replicated softmax: an undirected topic model", NIPS 2009.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklebm.energies.replicated_softmax import ReplicatedSoftmaxEnergy, draw_words
from sklebm.energies.units import draw_bits
from sklebm.inference.partition import agree
from sklebm.inference.ratios import jackknife_error, log_mean, log_ratios

# Gibbs steps of the grown chains before they shrink again.
_SETTLING = 20
# A step adds one word up to this length, and beyond it the length divided by this number.
_UNIT_STEPS = 1000


class LengthTable(NamedTuple):
    """log Z of the lengths 0, 1, ..., and the ends of their intervals, (n_lengths,) each.

    ``apart`` is the greatest length for which growing and shrinking chains disagree, 0 if there is
    none.
    """

    value: Tensor
    low: Tensor
    high: Tensor
    apart: int


def ladder(longest: int) -> list[int]:
    """The lengths from 0 to ``longest`` at which chains pause."""
    lengths = [0]
    while lengths[-1] < longest:
        lengths.append(min(lengths[-1] + max(1, lengths[-1] // _UNIT_STEPS), longest))
    return lengths


def estimate(
    energy: ReplicatedSoftmaxEnergy,
    longest: int,
    generator: torch.Generator,
    n_chains: int = 100,
    n_steps: int = 1,
) -> LengthTable:
    """log Z of all lengths up to ``longest``, by ``n_steps`` Gibbs steps of each chain per length.

    The intervals cover the estimates of growing and of shrinking chains, plus and minus three
    standard errors. O(longest n_steps n_chains (d k + longest)).
    """
    like = energy.visible_bias
    n_hidden = len(energy.hidden_bias)
    lengths = ladder(longest)
    log_z0 = n_hidden * math.log(2.0)
    if longest == 0:
        whole = like.new_full((1,), log_z0)
        return LengthTable(whole, whole, whole, 0)
    h = draw_bits(like.new_full((n_chains, n_hidden), 0.5), generator)
    gains, losses = [], []
    for shorter, length in pairwise(lengths):
        gains.append((length - shorter) * energy.log_weight_of_word(h))
        h = _moved(energy, h, length, n_steps, generator)
    h = _moved(energy, h, longest, _SETTLING, generator)
    for length, shorter in pairwise(reversed(lengths)):
        h = _moved(energy, h, length, n_steps, generator)
        losses.append((length - shorter) * energy.log_weight_of_word(h))
    up = torch.stack(gains).cumsum(dim=0)
    down = torch.stack(losses[::-1]).cumsum(dim=0)  # of a chain from its own length on
    value = log_ratios(up, down)
    lows, highs = [], []
    for weights, sign in ((up, 1.0), (-down, -1.0)):
        found, error = zip(*(_with_error(row) for row in weights), strict=True)
        centre, width = (value.new_tensor(part) for part in (found, error))
        lows.append(sign * centre - 3.0 * width)
        highs.append(sign * centre + 3.0 * width)
    low, high = torch.stack([value, *lows]).amin(dim=0), torch.stack([value, *highs]).amax(dim=0)
    ends = (torch.stack(part, dim=1).tolist() for part in (lows, highs))
    apart = [length for length, *both in zip(lengths[1:], *ends, strict=True) if not agree(*both)]
    places = np.arange(longest + 1)
    parts = (
        np.interp(places, lengths, np.append(0.0, part.cpu().numpy())) + log_z0
        for part in (value, low, high)
    )
    value, low, high = (torch.from_numpy(part).to(like) for part in parts)
    return LengthTable(value, low, high, max(apart, default=0))


def _with_error(log_weights: Tensor) -> tuple[float, float]:
    """The logarithm of the mean weight, and its standard error."""

    def mean_of(kept: Tensor) -> float:
        return log_mean(log_weights[kept])

    return log_mean(log_weights), jackknife_error(mean_of, len(log_weights), log_weights)


def _moved(
    energy: ReplicatedSoftmaxEnergy,
    h: Tensor,
    length: int,
    n_steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Bits after Gibbs steps through documents of this length, which leave p_D invariant."""
    lengths = h.new_full((len(h),), float(length))
    for _ in range(n_steps):
        v = draw_words(energy.word_logits(h), lengths, generator)
        h = draw_bits(energy.hidden_mean(v), generator)
    return h
