"""Means of unknown bits given known ones, row by row: summed, by mean field, or by chains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sklebm._checks import check_count
from sklebm._shell.gaps import rows_with_gaps
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.value_range import ROUNDING
from sklebm._shell.warning import warn
from sklebm.energies.pairwise import MAX_UNITS, colour_classes, means
from sklebm.inference.gibbs_sweeps import GibbsSweeps, SweepState
from sklebm.inference.variational_partition import bethe, mean_field, mean_field_means

METHODS = ("auto", "exact", "mean_field", "chains")
#: "auto" sums exactly where it has to list the states of at most this many unknown units.
MOST_LISTED = 20


def conditional_mean(
    model: Any, X: Any, method: str, n_steps: int, random_state: RandomState
) -> Any:
    """The rows with NaN replaced by the mean given what is known, in the type of X."""
    if method not in METHODS:
        names = ", ".join(f'"{name}"' for name in METHODS[:-1])
        raise ValueError(f'method={method!r} must be one of {names} and "{METHODS[-1]}".')
    check_count(n_steps, "n_steps")
    rows = rows_with_gaps(model, X)
    energy = model._energy(rows.device).double()
    generator = make_generator(draw_seed(random_state), "completion", device=rows.device)
    found = _Completion(energy, method, n_steps, generator, model, rows.dtype)
    what = f"{type(model).__name__}.conditional_mean"
    filled = rows.map(found.fill, floats_per_row=8 * len(energy.weights), what=what)
    if found.most_listed > MOST_LISTED:
        warn(
            f"{what}: for some rows, the states of up to {found.most_listed} unknown units would "
            f"have to be listed, more than {MOST_LISTED}. These got the means of mean field, which "
            'assumes that units are independent; method="chains" estimates the exact ones.'
        )
    if not found.settled:
        warn(f"{what}: mean field did not converge.")
    return filled


@dataclass
class _Completion:
    """Fills rows chunk by chunk, and remembers what there is to warn of."""

    energy: Any
    method: str
    n_steps: int
    generator: torch.Generator
    model: Any
    dtype: torch.dtype
    most_listed: int = 0
    settled: bool = True

    def fill(self, chunk: torch.Tensor) -> torch.Tensor:
        """The rows of a chunk with means for NaN."""
        energy = self.energy
        known = self._checked(chunk.double())
        # Hidden units are unknown in every row.
        hidden = known.new_full((len(known), len(energy.hidden.bias)), torch.nan)
        s = torch.cat([known, hidden], dim=1)
        if self.method == "chains":
            found = _averaged(energy, s, self.n_steps, self.generator)
        elif self.method == "mean_field":
            found = self._by_mean_field(s)
        else:
            found = self._by_pattern(s)
        return torch.where(chunk.isnan(), found[:, : known.shape[1]], known)

    def _checked(self, x: torch.Tensor) -> torch.Tensor:
        low, high = self.model._visible_range
        if self.model.value_range == "clip":
            return x.clamp(low, high)  # NaN stays
        slack = ROUNDING * torch.finfo(self.dtype).eps
        if ((x < low - slack) | (x > high + slack)).any():
            raise ValueError(
                f"X must hold values in [{low:g}, {high:g}] or NaN, for features to fill in: scale "
                'it, or set value_range="clip".'
            )
        return x

    def _by_pattern(self, s: torch.Tensor) -> torch.Tensor:
        """Exact means, where they are cheap; rows that lack the same units go together."""
        couplings, biases, found = self.energy.couplings(), self.energy.biases(), s.clone()
        too_many = torch.zeros(len(s), dtype=torch.bool, device=s.device)
        patterns, which = torch.unique(s.isnan(), dim=0, return_inverse=True)
        for index, unknown in enumerate(patterns):
            at = (which == index).nonzero()[:, 0]
            free, known = unknown.nonzero()[:, 0], (~unknown).nonzero()[:, 0]
            if not len(free):
                continue
            inner = couplings[free][:, free]
            classes = colour_classes(inner != 0)
            n_listed = len(free) - max(map(len, classes))
            if self.method == "auto" and n_listed > MOST_LISTED:
                self.most_listed = max(self.most_listed, n_listed)
                too_many[at] = True
                continue
            if n_listed > MAX_UNITS:
                raise ValueError(
                    f'method="exact" would list 2^{n_listed} states of unknown units for a row, '
                    f'more than 2^{MAX_UNITS}: use method="chains" or "mean_field".'
                )
            fields = biases[free] + s[at][:, known] @ couplings[known][:, free]
            found[at[:, None], free] = means(fields, inner, classes)
        if too_many.any():
            found[too_many] = self._by_mean_field(s[too_many])
        return found

    def _by_mean_field(self, s: torch.Tensor) -> torch.Tensor:
        energy, start = self.energy, s.nan_to_num(0.5)
        found, settled = mean_field_means(
            energy.couplings(), energy.biases(), energy.classes, start, ~s.isnan(), tol=1e-8
        )
        self.settled &= settled
        return found


def _averaged(
    energy: Any, s: torch.Tensor, n_steps: int, generator: torch.Generator
) -> torch.Tensor:
    """Means over ``n_steps`` sweeps of one chain a row, after half as many that are not counted.

    What is averaged is the probability of each unit given the others, not its bit, which has less
    variance.
    """
    held, couplings, biases = ~s.isnan(), energy.couplings(), energy.biases()
    start = torch.where(held, s, energy.visible.draw(torch.full_like(s, 0.5), generator))
    sampler = GibbsSweeps()
    state = sampler.moved(generator, SweepState(start), energy, max(1, n_steps // 2), held)
    total = torch.zeros_like(s)
    for _ in range(n_steps):
        state = sampler.moved(generator, state, energy, 1, held)
        total += torch.sigmoid(biases + state.position @ couplings)
    return total / n_steps


def variational_log_partition(model: Any, method: str) -> float:
    """log Z of a fitted machine by mean field or belief propagation, in float64."""
    if method not in ("mean_field", "bethe"):
        raise ValueError(f'method={method!r} must be "mean_field" or "bethe".')
    energy = model._energy(torch.device("cpu")).double()
    with torch.no_grad():
        couplings, biases = energy.couplings(), energy.biases()
        if method == "bethe":
            found = bethe(couplings, biases)
        else:
            found = mean_field(couplings, biases, energy.classes)
    if not found.settled:
        warn(
            f"{type(model).__name__}: the messages of {method} did not converge; its value "
            f"{found.value:.4g} is not that of a fixed point. Use estimate_log_partition()."
        )
    return found.value
