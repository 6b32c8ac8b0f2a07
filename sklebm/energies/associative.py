r"""Energies of associative memories, over states s in {-1, +1} or continuous ones.

    pairwise:  E(s) = -1/2 s' W s                                          (Hopfield)
    dense:     E(s) = -sum_m (p_m's)^n / d^(n-1)                           (polynomial)
               E(s) = -1/b log sum_m exp(b p_m's)                          (exponential)
               E(s) = -1/b log mean_m exp(b p_m's) + |s|^2 / 2             (the same, continuous)

for the stored patterns p_m. Rows x are mapped to states by s = 2 (x - low) / (high - low) - 1,
where ``low`` and ``high`` are what X calls the two states.

J. J. Hopfield, "Neural networks and physical systems with emergent collective computational
abilities", PNAS 79, 1982; D. Krotov and J. J. Hopfield, "Dense associative memory for pattern
recognition", NIPS 2016; M. Demircigil et al., "On a model of associative memory with huge storage
capacity", Journal of Statistical Physics 168, 2017; H. Ramsauer et al., "Hopfield networks is all
you need", ICLR 2021.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# A pull below this many of its terms is rounding.
_ROUNDING = 1e-12


class AssociativeMemory(nn.Module):
    """States, and their names in X."""

    state_values: Tensor

    def __init__(self, state_values: Tensor) -> None:
        super().__init__()
        self.register_buffer("state_values", state_values)

    def encode(self, x: Tensor) -> Tensor:
        """States of rows; linear, so that rows between the two states are between -1 and 1."""
        low, high = self.state_values
        states: Tensor = 2.0 * (x - low) / (high - low) - 1.0
        return states

    def decode(self, s: Tensor) -> Tensor:
        """Rows of states."""
        low, high = self.state_values
        rows: Tensor = low + 0.5 * (s + 1.0) * (high - low)
        return rows

    def state_energy(self, s: Tensor) -> Tensor:
        """E(s), (n_rows,)."""
        raise NotImplementedError

    def free_energy(self, x: Tensor) -> Tensor:
        """E of each row's state, (n_rows,)."""
        return self.state_energy(self.encode(x))


class PairwiseMemory(AssociativeMemory):
    """E(s) = -1/2 s' W s.

    Parameters
    ----------
    couplings : Tensor of shape (n_units, n_units)
        W, symmetric with a zero diagonal.
    state_values : Tensor of shape (2,)
        What X calls the states -1 and +1.
    """

    couplings: Tensor

    def __init__(self, couplings: Tensor, state_values: Tensor) -> None:
        super().__init__(state_values)
        self.register_buffer("couplings", couplings)
        # Once, as it costs as much as a whole sweep of one row.
        self._least_pull = _ROUNDING * float(couplings.abs().sum(dim=0).max())

    def state_energy(self, s: Tensor) -> Tensor:
        """E(s), (n_rows,). O(n d^2)."""
        return -0.5 * ((s @ self.couplings) * s).sum(dim=1)

    def observe(self, s: Tensor) -> Tensor:
        """What every unit receives, (n_rows, n_units)."""
        return s @ self.couplings

    def pull(self, s: Tensor, seen: Tensor, unit: int) -> Tensor:
        """E with the unit at -1, minus E with it at +1, (n_rows,)."""
        return self._settled(2.0 * seen[:, unit])

    def pulls(self, s: Tensor, seen: Tensor) -> Tensor:
        """``pull`` of every unit, (n_rows, n_units)."""
        return self._settled(2.0 * seen)

    def moved(self, seen: Tensor, unit: int, change: Tensor) -> Tensor:
        """``observe`` after a unit changed."""
        return seen.addr_(change, self.couplings[unit])

    def _settled(self, pull: Tensor) -> Tensor:
        return torch.where(pull.abs() <= self._least_pull, 0.0, pull)


class DenseMemory(AssociativeMemory):
    """A sum of steep functions of the overlaps with all stored patterns.

    Parameters
    ----------
    patterns : Tensor of shape (n_patterns, n_units)
        The stored patterns as states.
    state_values : Tensor of shape (2,)
        What X calls the states -1 and +1.
    power : int or None
        n of the polynomial; None is the exponential.
    beta : float
        b of the exponential.
    continuous : bool, default=False
        Whether states are real vectors, held back by |s|^2 / 2.
    """

    patterns: Tensor

    def __init__(
        self,
        patterns: Tensor,
        state_values: Tensor,
        power: int | None,
        beta: float,
        continuous: bool = False,
    ) -> None:
        super().__init__(state_values)
        self.register_buffer("patterns", patterns)
        self.power, self.beta, self.continuous = power, beta, continuous

    def encode(self, x: Tensor) -> Tensor:
        """States of rows; the rows themselves if states are continuous."""
        return x if self.continuous else super().encode(x)

    def decode(self, s: Tensor) -> Tensor:
        """Rows of states."""
        return s if self.continuous else super().decode(s)

    def state_energy(self, s: Tensor) -> Tensor:
        """E(s), (n_rows,). O(n m d) for m patterns."""
        value = self._of_overlaps(s @ self.patterns.T)
        if self.continuous:
            value = value + math.log(len(self.patterns)) / self.beta
            value = value + 0.5 * s.square().sum(dim=1)
        return value

    def _of_overlaps(self, overlaps: Tensor, dim: int = 1) -> Tensor:
        if self.power is None:
            return -torch.logsumexp(self.beta * overlaps, dim=dim) / self.beta
        n_units = float(self.patterns.shape[1])
        return -((overlaps / n_units) ** self.power).sum(dim=dim) * n_units

    def attend(self, s: Tensor) -> Tensor:
        """The pattern mean weighted by softmax(b p_m's): a step of attention, (n_rows, d)."""
        return torch.softmax(self.beta * (s @ self.patterns.T), dim=1) @ self.patterns

    def observe(self, s: Tensor) -> Tensor:
        """Overlaps with all patterns, (n_rows, n_patterns)."""
        return s @ self.patterns.T

    def pull(self, s: Tensor, seen: Tensor, unit: int) -> Tensor:
        """E with the unit at -1, minus E with it at +1, (n_rows,)."""
        pattern = self.patterns[:, unit]
        rest = seen - s[:, unit : unit + 1] * pattern
        off, on = self._of_overlaps(rest - pattern), self._of_overlaps(rest + pattern)
        return torch.where((off - on).abs() <= _ROUNDING * (off.abs() + on.abs()), 0.0, off - on)

    def pulls(self, s: Tensor, seen: Tensor) -> Tensor:
        """``pull`` of every unit, (n_rows, n_units)."""
        return torch.stack([self.pull(s, seen, unit) for unit in range(s.shape[1])], dim=1)

    def moved(self, seen: Tensor, unit: int, change: Tensor) -> Tensor:
        """``observe`` after a unit changed."""
        return seen.addr_(change, self.patterns[:, unit])
