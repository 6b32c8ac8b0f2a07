"""Weights of pairs for which real-valued views have a joint density: sum_k z_k W_k below 1."""

from __future__ import annotations

from typing import Any

import torch

from sklebm.energies.binary_states import binary_states
from sklebm.energies.gated import GatedEnergy

# Of so few hidden units all states are looked at one by one.
_FEW_STATES = 10
# Real-valued views have a joint density while sum_k |W_k|_2 < 1.
_LARGEST_NORM = 0.99


def need_normalised(model: Any) -> None:
    """Raise ValueError if joint real-valued views have no density with these weights."""
    energy = model._energy(torch.device("cpu")).double()
    if bool(energy.norm() < 1.0):
        return  # whatever the hidden units are
    n_hidden = energy.coupling.n_hidden
    tensor = energy.coupling.tensor().detach()
    if n_hidden > _FEW_STATES:  # too many states to look at all of them
        states = [torch.cat([torch.eye(n_hidden), torch.ones(1, n_hidden)]).to(tensor)]
    else:
        states = list(binary_states(n_hidden, tensor))
    largest = max(
        float(torch.linalg.matrix_norm(torch.einsum("nk,kij->nij", z, tensor), 2).max())
        for z in states
    )
    if largest < 1.0:
        return
    raise ValueError(
        f"{type(model).__name__} with conditional=False has no density: for some hidden units the "
        "sum of z_k W_k has a singular value of 1 or more. Scale the weights down."
    )


def keep_normalised(energy: GatedEnergy) -> None:
    """Shrink W where real-valued views would have no joint density."""
    norm = energy.norm()
    if bool(norm > _LARGEST_NORM):
        energy.coupling.shrink(_LARGEST_NORM / norm)
