"""Which log Z can be summed, and what is kept of one that was computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklebm._shell.state import first_broken
from sklebm.inference import enumeration


def keep(model: Any, found: Mapping[str, Any]) -> None:
    """Give a fitted model the estimate as attributes; numbers that are not finite are refused."""
    broken = first_broken(found)
    if broken is not None:
        raise FloatingPointError(
            f"{type(model).__name__}: the estimate of log Z is not finite, so that {broken} was "
            "left as it was. Raise n_chains or n_temperatures; if that does not help, the model "
            "is no density."
        )
    model.__dict__.update(found)


def need_summable(model: Any, energy: Any) -> None:
    """Refuse ``log_partition="exact"`` before training, if log Z cannot be summed after it."""
    if model.log_partition == "exact":
        need_few(model, n_summed_units(energy))


def need_few(model: Any, n_units: int | None) -> None:
    """Refuse an exact log Z over the states of so many units, or over none that can be listed."""
    if model.log_partition == "exact" and (n_units is None or n_units > enumeration.MAX_UNITS):
        count = "too many" if n_units is None else f"2^{n_units}"
        raise ValueError(
            f'{type(model).__name__}: log_partition="exact" would sum over {count} states: use '
            '"ais", or "auto".'
        )


def alternates(energy: Any) -> bool:
    """Whether the tempered path alternates between visible and hidden units."""
    return any(hasattr(energy, name) for name in ("tempered_path", "visible_field", "classes"))


def n_summed_units(energy: Any) -> int | None:
    """Number of units that an exact log Z sums over; None if it cannot be summed."""
    if hasattr(energy, "summed_units"):
        return int(energy.summed_units)
    return enumeration.n_summed_units(energy) if hasattr(energy, "visible_field") else None
