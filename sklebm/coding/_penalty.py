"""From the parameter ``penalty`` to a penalty, and to a record that a fitted model can store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sklebm.energies import Penalty
from sklebm.energies.penalties import PENALTIES


def resolve_penalty(penalty: str | Penalty, n_components: int) -> Penalty:
    """Turn a name into a penalty with its default settings; check that it suits the codes."""
    chosen = PENALTIES[penalty]() if isinstance(penalty, str) else penalty
    chosen.check_width(n_components)
    return chosen


def record_penalty(penalty: Penalty) -> dict[str, Any]:
    """The penalty as strings and numbers."""
    settings: dict[str, Any] = {"name": type(penalty).__name__}
    for field in fields(penalty):
        value = getattr(penalty, field.name)
        if isinstance(value, tuple):
            settings |= {f"{field.name}.{i}": item for i, item in enumerate(value)}
        else:
            settings[field.name] = value
    return settings


def recall_penalty(record: Mapping[str, Any]) -> Penalty:
    """The penalty that was recorded."""
    kinds = {kind.__name__: kind for kind in PENALTIES.values()}
    settings: dict[str, Any] = {}
    for key, value in record.items():
        name, _, place = key.partition(".")
        if place:
            settings[name] = (*settings.get(name, ()), value)
        elif name != "name":
            settings[name] = value
    if record.get("name") not in kinds:
        raise ValueError(f"penalty_ names {record.get('name')!r}, which is not a penalty.")
    return kinds[record["name"]](**settings)
