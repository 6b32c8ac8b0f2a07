"""Checks of settings that every layer may use: counts, positive numbers, shares, choices.

A message names the owner (the class of a part, if it is one), the setting and its value, and says
what would do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real


def is_count(value: object, least: int = 1) -> bool:
    """Whether the value is an integer of at least ``least``; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def check_count(value: object, name: str, owner: object = None, *, least: int = 1) -> None:
    """Refuse what is not an integer of at least ``least``.

    Parameters
    ----------
    value : object
        What was given.
    name : str
        Name of the parameter.
    owner : object, optional
        The part that the parameter belongs to, whose class begins the message.
    least : int, default=1
        Smallest allowed integer.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    if not is_count(value, least):
        kind = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise ValueError(f"{_of(owner)}{name}={value!r} must be {kind}.")


def check_counts(part: object, *names: str, optional: tuple[str, ...] = ()) -> None:
    """Refuse a part with a setting that is not a positive integer; ``optional`` may be None."""
    for name in names:
        check_count(getattr(part, name), name, part)
    for name in optional:
        if getattr(part, name) is not None:
            check_count(getattr(part, name), name, part)


def check_number(value: object, name: str, owner: object = None, *, positive: bool = True) -> None:
    """Refuse what is not a finite number above 0, or of at least 0 if not ``positive``."""
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not (math.isfinite(number) and (number > 0.0 or (number == 0.0 and not positive))):
        kind = "a positive number" if positive else "a number of at least 0"
        raise ValueError(f"{_of(owner)}{name}={value!r} must be {kind}.")


def check_share(value: object, name: str, owner: object = None) -> None:
    """Refuse what is not a number from 0 to 1."""
    number = float(value) if isinstance(value, Real) else math.nan
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{_of(owner)}{name}={value!r} must be a fraction from 0 to 1.")


def check_choice(value: object, name: str, choices: Iterable[str], owner: object = None) -> None:
    """Refuse what is none of the choices."""
    choices = tuple(choices)
    if value not in choices:
        listed = ", ".join(map(repr, choices))
        raise ValueError(f"{_of(owner)}{name}={value!r} must be one of {listed}.")


def _of(owner: object) -> str:
    return "" if owner is None else f"{type(owner).__name__}: "


def check_beta(beta: float) -> None:
    """Refuse an inverse temperature that is none."""
    if not (isinstance(beta, Real) and 0.0 < beta < math.inf):
        raise ValueError(f"beta={beta!r} must be a positive number.")
