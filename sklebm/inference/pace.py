r"""Spacing of the temperatures along a path: close together where the density changes fast.

Between neighbours t and t + dt, log weights have a standard deviation of about s(t) dt. Annealing
and tempering lose least where these steps are all alike, that is at equal distances in the length

    L(t) = int_0^t s(u) du,

which a pilot run measures (G. E. Crooks, "Measuring thermodynamic length", Physical Review Letters
99, 2007).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sklebm.inference.tempered_path import Path

_STEPS, _CHAINS, _ROUNDS = 60, 50, 2
_FEWEST_STEPS = 8
# Share of the length that is even in t, so that a stretch that the pilot misjudged gets its steps.
_EVEN = 0.2


class PacedPath:
    """A path reparametrised by the length of another.

    Parameters
    ----------
    path : Path
        The path.
    knots : Tensor of shape (n_knots,)
        Its t at equally spaced t of this path, from 0 to 1.
    """

    def __init__(self, path: Path, knots: Tensor) -> None:
        self.path, self.knots, self.like = path, knots, path.like

    def at(self, t: Any) -> Any:
        """The t of the path below: a number for a number, a column for a column."""
        n_pieces = len(self.knots) - 1
        if isinstance(t, Tensor):
            place = (t * n_pieces).clamp(0.0, n_pieces)
            index = place.long().clamp(max=n_pieces - 1)
            return torch.lerp(self.knots[index], self.knots[index + 1], place - index)
        place = min(max(t, 0.0), 1.0) * n_pieces
        piece = min(int(place), n_pieces - 1)
        start, stop = float(self.knots[piece]), float(self.knots[piece + 1])
        return start + (place - piece) * (stop - start)

    def log_z0(self) -> float:
        """log Z at t = 0."""
        return self.path.log_z0()

    def draw_base(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Independent states at t = 0."""
        return self.path.draw_base(n_rows, generator)

    def observe(self, v: Tensor) -> Tensor:
        """Quantities of the states that ``log_weight`` and ``move`` need."""
        return self.path.observe(v)

    def log_weight(self, v: Tensor, seen: Tensor, start: Any, stop: Any) -> Tensor:
        """log p*_stop(v) - log p*_start(v), (n_rows,)."""
        return self.path.log_weight(v, seen, self.at(start), self.at(stop))

    def move(self, v: Tensor, seen: Tensor, t: Any, generator: torch.Generator) -> Tensor:
        """States after a step that leaves p_t invariant."""
        return self.path.move(v, seen, self.at(t), generator)


def paced(
    path: Path, generator: torch.Generator, n_chains: int = _CHAINS, n_temperatures: int = 1000
) -> PacedPath:
    """The path with its pace set by two pilot runs, which cost less than annealing does.

    ``n_chains`` and ``n_temperatures`` are those of the annealing that is to follow.
    """
    n_steps = min(_STEPS, max(_FEWEST_STEPS, n_temperatures // 8))
    even = torch.linspace(0.0, 1.0, n_steps + 1, dtype=path.like.dtype, device=path.like.device)
    result = PacedPath(path, even)
    for _ in range(_ROUNDS):
        knots = _new_knots(result, even, min(n_chains, _CHAINS), generator)
        result = PacedPath(path, knots)
    return result


def _new_knots(path: PacedPath, even: Tensor, n_chains: int, generator: torch.Generator) -> Tensor:
    v = path.draw_base(n_chains, generator)
    lengths = []
    n_steps = len(even) - 1
    for index in range(n_steps):
        start, stop = float(even[index]), float(even[index + 1])
        seen = path.observe(v)
        lengths.append(path.log_weight(v, seen, start, stop).std())
        v = path.move(v, seen, stop, generator)
    steps = torch.stack(lengths).nan_to_num(0.0, 0.0, 0.0)
    total = steps.sum()
    if not bool(total > 0):
        return path.knots
    share = (1.0 - _EVEN) * steps / total + _EVEN * path.knots.diff()
    reached = torch.cat([share.new_zeros(1), share.cumsum(0)])
    # The inverse of the length: t of the old knots as a function of the share reached there.
    wanted = even * reached[-1]
    place = torch.searchsorted(reached, wanted).clamp(1, n_steps)
    low, high = reached[place - 1], reached[place]
    part = ((wanted - low) / (high - low).clamp(min=1e-300)).clamp(0.0, 1.0)
    knots = torch.lerp(path.knots[place - 1], path.knots[place], part)
    knots[0], knots[-1] = 0.0, 1.0
    return knots
