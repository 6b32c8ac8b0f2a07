r"""Exact sums over all states of a layer of Bernoulli units.

log Z = log sum_v exp(-F(v)) = log sum_h exp(c' h + sum_i Gamma_i(b_i + (W' h)_i)),
summed over whichever layer is smaller, or over the hidden one if the visible units are real-valued.
O(2^min(d, k) d k).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sklebm.energies.base import TwoLayerEnergy
from sklebm.energies.binary_states import chunk_of_states

#: Maximum number of units that ``log_partition`` sums over: 2^25 states.
MAX_UNITS = 25
_CHUNK_BITS = 14


def n_summed_units(energy: TwoLayerEnergy) -> int:
    """Number of units that the sum runs over: the smaller layer, or the only binary one."""
    n_hidden, n_visible = energy.weights.shape
    return int(min(n_hidden, n_visible) if energy.visible.is_discrete else n_hidden)


def log_partition(energy: TwoLayerEnergy) -> Tensor:
    """Exact log Z of a bilinear energy with Bernoulli hidden units, as a scalar with a graph.

    Raises
    ------
    ValueError
        If the sum would run over more than ``MAX_UNITS`` units.
    """
    n_hidden, n_visible = energy.weights.shape
    n_units = n_summed_units(energy)
    if n_units > MAX_UNITS:
        which = (
            f"all {n_hidden} hidden units"
            if not energy.visible.is_discrete
            else f"the smaller of {n_visible} visible and {n_hidden} hidden units"
        )
        raise ValueError(
            f"The exact log partition function sums over 2^{n_units} states ({which}), more than "
            f'2^{MAX_UNITS}: use annealed importance sampling, method="ais".'
        )
    sums_visible = energy.visible.is_discrete and n_visible <= n_hidden
    minus_energy = _minus_free_energy if sums_visible else _minus_hidden_energy

    def part(start: int) -> Tensor:
        states = chunk_of_states(start, n_units, energy.weights, 2**_CHUNK_BITS)
        return torch.logsumexp(minus_energy(energy, states), dim=0)

    starts = range(0, 2**n_units, 2**_CHUNK_BITS)
    if len(starts) == 1:
        return part(0)
    # The graph of all chunks would need gigabytes: the backward pass recomputes each one.
    parts = [
        checkpoint(part, start, use_reentrant=False, preserve_rng_state=False) for start in starts
    ]
    total: Tensor = torch.logsumexp(torch.stack(parts), dim=0)
    return total


def _minus_free_energy(energy: TwoLayerEnergy, v: Tensor) -> Tensor:
    """log sum_h exp(-E(v, h)), shape (n_rows,)."""
    total: Tensor = -energy.free_energy(v)
    return total


def _minus_hidden_energy(energy: TwoLayerEnergy, h: Tensor) -> Tensor:
    """log sum_v exp(-E(v, h)), shape (n_rows,)."""
    total: Tensor = energy.visible.cumulant(energy.visible_field(h)).sum(dim=1)
    total = total - energy.hidden.energy(h)
    return total
