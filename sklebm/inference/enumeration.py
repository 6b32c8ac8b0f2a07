r"""Exact sums over all states of a layer of Bernoulli units.

log Z = log sum_v exp(-F(v)) = log sum_h exp(c' h + sum_i Gamma_i(b_i + (W' h)_i)),
summed over whichever layer is smaller. O(2^min(d, k) d k).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

#: Most units that ``log_partition`` sums over: 2^25 states.
MAX_UNITS = 25
_CHUNK_BITS = 14


def binary_states(n_units: int, like: Tensor) -> Iterator[Tensor]:
    """All 2^n_units states as rows of 0 and 1, in chunks of at most 2^14."""
    bits = min(n_units, _CHUNK_BITS)
    shifts = torch.arange(n_units, device=like.device)
    for start in range(0, 2**n_units, 2**bits):
        numbers = torch.arange(start, start + 2**bits, device=like.device)
        yield ((numbers[:, None] >> shifts) & 1).to(like.dtype)


def log_partition(energy: Any) -> Tensor:
    """Exact log Z of a bilinear energy with Bernoulli units, as a scalar with a graph.

    Raises
    ------
    ValueError
        If both layers have more than ``MAX_UNITS`` units.
    """
    n_hidden, n_visible = energy.weights.shape
    n_units = min(n_hidden, n_visible)
    if n_units > MAX_UNITS:
        raise ValueError(
            f"The exact log partition function sums over 2^{n_units} states (the smaller of "
            f"{n_visible} visible and {n_hidden} hidden units), more than 2^{MAX_UNITS}: use "
            'annealed importance sampling, method="ais".'
        )
    if n_visible <= n_hidden:
        chunks = (-energy.free_energy(v) for v in binary_states(n_visible, energy.weights))
    else:
        chunks = (_minus_hidden_energy(energy, h) for h in binary_states(n_hidden, energy.weights))
    parts = [torch.logsumexp(part, dim=0) for part in chunks]
    total: Tensor = torch.logsumexp(torch.stack(parts), dim=0)
    return total


def _minus_hidden_energy(energy: Any, h: Tensor) -> Tensor:
    """log sum_v exp(-E(v, h)), shape (n_rows,)."""
    total: Tensor = energy.visible.cumulant(energy.visible_field(h)).sum(dim=1)
    total = total - energy.hidden.energy(h)
    return total
