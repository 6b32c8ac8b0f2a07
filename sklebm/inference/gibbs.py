r"""Block Gibbs sampling: h ~ p(h | v), then v ~ p(v | h); leaves exp(-E(v, h)) / Z invariant."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class GibbsState(NamedTuple):
    """One state of every chain: visible (n_chains, d) and hidden (n_chains, k)."""

    visible: Tensor
    hidden: Tensor


def init(generator: torch.Generator, visible: Tensor, energy: Any) -> GibbsState:
    """Start chains at the given visible states."""
    return GibbsState(visible, energy.draw_hidden(visible, generator))


def step(generator: torch.Generator, state: GibbsState, energy: Any) -> GibbsState:
    """Renew the visible states given the hidden ones, then the hidden. O(n_chains d k)."""
    visible = energy.draw_visible(state.hidden, generator)
    return GibbsState(visible, energy.draw_hidden(visible, generator))
