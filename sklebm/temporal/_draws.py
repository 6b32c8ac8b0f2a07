"""Sequences drawn from ``SequenceEnergy``, and gradients through its past."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.columns import add_columns
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm.energies.next_step import NextStepEnergy, lengths_of
from sklebm.temporal._base import need_contiguous


def drawn(model: Any, n_samples: int, start: Any, random_state: RandomState) -> Any:
    """The next ``n_samples`` steps after those of ``start``, in its dtype; float32 without one."""
    if not isinstance(n_samples, Integral) or isinstance(n_samples, bool) or n_samples < 1:
        raise ValueError(f"n_samples={n_samples!r} must be a positive integer: the steps to draw.")
    begun = None if start is None else model._open(start, model, reset=False)
    device = torch.device("cpu") if begun is None else begun.device
    dtype = torch.float32 if begun is None else begun.dtype
    energy: NextStepEnergy = model._energy(device).float()
    generator = make_generator(draw_seed(random_state), "sample", device=device)
    steps = []
    with torch.no_grad():
        state = energy.cell.initial(1)
        for part in () if begun is None else begun.chunks(model._floats_per_row()):
            # Single precision would lose rows far from zero, so they are standardised before.
            y = energy.standardized(begun[part].double()).float()
            state = energy.walk(y, [len(y)], state, keep=True).state
        for _ in range(int(n_samples)):
            parameters = energy.readout(energy.cell.features_of(state))
            y = energy.output.draw(parameters, generator)
            state = energy.cell(y[None], state)[1]
            steps.append(energy.restored(y.double()).to(dtype))
    return torch.cat(steps).cpu().numpy()


def gradient_norms(model: Any, X: Any, groups: Any) -> Any:
    """|d loss_T / d state_t| of each row t, with the loss of the last step T of its sequence."""
    rows = model._open(X, model, reset=False)
    add_columns(rows, type(model).__name__, groups=groups)
    need_contiguous(rows)
    energy: NextStepEnergy = model._energy(rows.device).to(rows.dtype)
    if not energy.cell.has_state:
        raise ValueError(
            f"cell={model.cell!r} has no state that gradients flow through: gradient_flow is for "
            '"lstm", "gru", "rnn" and "linear".'
        )
    groups = rows.columns.get("groups")
    norms = []
    start = 0
    for length in lengths_of(groups, len(rows)):
        norms.append(_norms(energy, energy.standardized(rows[start : start + length])))
        start += length
    return np.concatenate(norms)


def _norms(energy: NextStepEnergy, y: Tensor) -> Any:
    """Of one sequence, step by step: a fused network hides its states."""
    with torch.enable_grad():
        state, states = energy.cell.initial(1), []
        for step in y[:-1]:
            state = energy.cell(step[None, None], state)[1]
            states.append(state)
        loss = -energy.log_density_given(y[-1:], energy.cell.features_of(state)).sum()
        parts = [part for state in states for part in state]
        gradients = torch.autograd.grad(loss, parts, allow_unused=True) if parts else ()
    found = np.zeros(len(y))  # nothing depends on the state after the last step
    width = len(states[0]) if states else 1
    for index in range(len(states)):
        own = [g for g in gradients[width * index : width * (index + 1)] if g is not None]
        found[index] = float(torch.cat([g.flatten() for g in own]).norm()) if own else 0.0
    return found
