"""Learning-rate schedules: the factor on the learning rate in each epoch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real


@dataclass(frozen=True)
class Schedule(ABC):
    """A pure function from the training history to a factor on the learning rate."""

    needs_validation = False

    @abstractmethod
    def factor(self, epoch: int, max_epochs: int, losses: Sequence[float]) -> float:
        """Return the factor for ``epoch`` (from 0), given the validation losses so far."""


@dataclass(frozen=True)
class ConstantRate(Schedule):
    """Keep the learning rate constant."""

    def factor(self, epoch: int, max_epochs: int, losses: Sequence[float]) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class LinearDecay(Schedule):
    """Lower the rate in equal steps, to 1 / max_epochs of its initial value in the last epoch."""

    def factor(self, epoch: int, max_epochs: int, losses: Sequence[float]) -> float:
        """Return the fraction of epochs that remain."""
        return max(max_epochs - epoch, 1) / max_epochs


@dataclass(frozen=True)
class CosineDecay(Schedule):
    """Follow half a cosine (Loshchilov & Hutter, 2017), without restarts."""

    def factor(self, epoch: int, max_epochs: int, losses: Sequence[float]) -> float:
        """Return (1 + cos(pi t)) / 2 at the middle of the epoch."""
        return 0.5 * (1.0 + math.cos(math.pi * min((epoch + 0.5) / max_epochs, 1.0)))


@dataclass(frozen=True)
class NonMonotoneDecay(Schedule):
    """Divide the rate whenever the validation loss exceeds the best of all but the latest epochs.

    A single bad epoch is tolerated; a loss that has not fallen for ``patience`` epochs is not.
    Needs ``validation_fraction``.

    Parameters
    ----------
    divisor : float, default=2.0
        Factor by which the rate is divided each time.
    patience : int, default=5
        Number of latest epochs that are ignored when finding the best loss.
    """

    divisor: float = 2.0
    patience: int = 5

    needs_validation = True

    def __post_init__(self) -> None:
        if not isinstance(self.divisor, Real) or not 1.0 < self.divisor < math.inf:
            raise ValueError(f"NonMonotoneDecay: divisor={self.divisor!r} must be above 1.")
        if not isinstance(self.patience, Integral) or self.patience < 1:
            raise ValueError(
                f"NonMonotoneDecay: patience={self.patience!r} must be a positive integer."
            )

    def factor(self, epoch: int, max_epochs: int, losses: Sequence[float]) -> float:
        """Return ``divisor`` to the power of minus the number of times the loss was too high."""
        best, count = math.inf, 0
        for index in range(self.patience, len(losses)):
            best = min(best, losses[index - self.patience])
            count += losses[index] > best
        return float(self.divisor**-count)


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": ConstantRate,
    "linear": LinearDecay,
    "cosine": CosineDecay,
    "non_monotone": NonMonotoneDecay,
}


def as_schedule(schedule: str | Schedule) -> Schedule:
    """The schedule of this name, or the object itself."""
    return SCHEDULES[schedule]() if isinstance(schedule, str) else schedule
