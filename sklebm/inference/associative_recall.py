"""Recall in associative memories: units turn to the state of lower energy until none does.

One after the other (asynchronous), the energy never rises, and a fixed point is reached after
finitely many changes. All at once (synchronous), states may end in a cycle of two. Continuous
states follow steps of softmax attention, along which the energy never rises either.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rounded(s: Tensor) -> Tensor:
    """The nearer of -1 and +1; 0 is unknown and stays."""
    return s.sign()


def _turned(pull: Tensor, s: Tensor) -> Tensor:
    """The states of lower energy; where there is no difference, a known state stays."""
    kept = torch.where(s == 0.0, 1.0, s)
    return torch.where(pull == 0.0, kept, pull.sign())


def asynchronous(
    memory: Any, s: Tensor, order: Tensor, held: Tensor | None = None, max_iter: int = 100
) -> tuple[Tensor, bool]:
    """States after sweeps over the units in ``order``, and whether all are fixed points.

    Parameters
    ----------
    memory : PairwiseMemory or DenseMemory
        The energy.
    s : Tensor of shape (n_rows, n_units)
        States of -1 and +1, or 0 for unknown units.
    order : Tensor of shape (n_units,)
        The order of the units in every sweep.
    held : Tensor of bool, (n_rows, n_units), or None, default=None
        Units that keep their states.
    max_iter : int, default=100
        Maximum number of sweeps.
    """
    s = s.clone()
    for _ in range(max_iter):
        before, seen = s.clone(), memory.observe(s)
        for unit in order.tolist():
            old = s[:, unit].clone()
            new = _turned(memory.pull(s, seen, unit), old)
            if held is not None:
                new = torch.where(held[:, unit], old, new)
            change = new - old
            if bool(change.any()):
                s[:, unit] = new
                seen = memory.moved(seen, unit, change)
        if torch.equal(s, before):
            return s, True
    return s, False


def synchronous(
    memory: Any, s: Tensor, held: Tensor | None = None, max_iter: int = 100
) -> tuple[Tensor, bool]:
    """States after steps of all units at once, and whether all are fixed points.

    A row stops where it returns to the state of two steps before.
    """
    earlier, moving = s, torch.ones(len(s), dtype=torch.bool, device=s.device)
    fixed = torch.zeros_like(moving)
    for _ in range(max_iter):
        new = _turned(memory.pulls(s, memory.observe(s)), s)
        if held is not None:
            new = torch.where(held, s, new)
        new = torch.where(moving[:, None], new, s)
        fixed = (new == s).all(dim=1)
        cycles = (new == earlier).all(dim=1)
        earlier, s = s, new
        moving = moving & ~fixed & ~cycles
        if not bool(moving.any()):
            break
    pulled = _turned(memory.pulls(s, memory.observe(s)), s)
    if held is not None:
        pulled = torch.where(held, s, pulled)
    return s, torch.equal(pulled, s)


def attention(
    memory: Any, s: Tensor, held: Tensor | None = None, max_iter: int = 100, tol: float = 1e-10
) -> tuple[Tensor, bool]:
    """Continuous states after steps of softmax attention, and whether they have settled.

    A row stops where no entry changes by more than ``tol`` of its largest.
    """
    moving = torch.ones(len(s), dtype=torch.bool, device=s.device)
    for _ in range(max_iter):
        new = memory.attend(s)
        if held is not None:
            new = torch.where(held, s, new)
        new = torch.where(moving[:, None], new, s)
        gap = (new - s).abs().amax(dim=1)
        moving = moving & (gap > tol * new.abs().amax(dim=1))
        s = new
        if not bool(moving.any()):
            return s, True
    return s, False
