"""Passes over the rows in which several layers learn: when they end, and which one is kept."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sklebm.coding._learning import hardly_falls

# So many passes without a new lowest energy end a fit.
_PATIENCE = 5


def has_settled(before: Sequence[float], now: Sequence[float], tol: float) -> bool:
    """Whether a pass has changed no mean energy by more than a fraction ``tol`` of it.

    The last one, which ``fit`` lowers, must not have risen: what has just been made worse, for
    example by atoms that replace others, is learnt on. The others may rise a little. Never with
    ``tol=0``, nor after the first pass, before which there is nothing.
    """
    if not (before and tol):
        return False
    falls = [old - new for old, new in zip(before, now, strict=True)]
    small = (abs(f) <= tol * abs(old) for f, old in zip(falls, before, strict=True))
    return falls[-1] >= 0 and all(small)


@dataclass(frozen=True)
class LayersPass:
    """Where a fit stands after some passes over the rows; its learner is updated in place.

    Learning one layer changes what those above it describe, so that the energy may rise for a pass
    or for good. What is kept is ``best``. A single layer ends as a coder of one layer does.
    """

    learner: Any
    order: torch.Generator
    curve: tuple[float, ...] = ()
    energies: tuple[float, ...] = ()  # that of the last pass, after others that must settle too
    n_nonzero: tuple[float, ...] = ()
    settled: bool = False
    least: LayersPass | None = None  # an earlier pass, if its energy was lower

    def best(self) -> LayersPass:
        """The pass of the lowest energy."""
        return self.least or self

    def go_on(self, x: Tensor, tol: float) -> LayersPass:
        """One more pass over the rows."""
        held = self.best()
        if held is self and len(self.n_nonzero) > 1:
            held = replace(self, learner=copy.deepcopy(self.learner))
        self.learner.search.forget()
        order = torch.randperm(len(x), generator=self.order).to(x.device)
        energies, counts = self.learner.pass_over(x, order)
        curve = (*self.curve, energies[-1])
        last, used = tuple(energies), tuple(counts)
        if len(counts) == 1:
            settled = hardly_falls(self.curve, last[-1], tol)
            return replace(self, curve=curve, energies=last, n_nonzero=used, settled=settled)
        is_least = not held.curve or curve[-1] <= held.curve[-1]
        waited = 0 if is_least else len(curve) - len(held.curve)
        return LayersPass(
            self.learner,
            self.order,
            curve,
            last,
            used,
            has_settled(self.energies, energies, tol) or (tol > 0 and waited >= _PATIENCE),
            None if is_least else held,
        )
