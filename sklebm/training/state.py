"""The state that ``partial_fit`` and ``warm_start`` continue from, as a flat dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sklebm.objectives.base import Objective, ObjectiveState
from sklebm.training.optimizers import in_order


def export_state(
    players: Sequence[Any], optimizers: Sequence[torch.optim.Optimizer], *, seed: int, n_calls: int
) -> dict[str, Any]:
    """Copy the optimisers' statistics and the objectives' chains to the CPU.

    Keys are ``optimizer.<parameter index>.<name>`` and ``objective.<name>``; further entries
    identify the optimiser and the objective that they belong to. Keys of a second player begin
    with its name and a slash.
    """
    flat: dict[str, Any] = {"seed": seed, "n_calls": n_calls}
    for player, optimizer, prefix in zip(players, optimizers, _prefixes(players), strict=True):
        flat[f"{prefix}optimizer_kind"] = type(optimizer).__name__
        flat[f"{prefix}objective_kind"] = repr(player.objective)
        for index, parameter in enumerate(in_order(optimizer)):
            for name, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor):
                    array = value.detach().cpu().numpy().copy()
                    flat[f"{prefix}optimizer.{index}.{name}"] = array
        for name, value in player.objective_state.items():
            flat[f"{prefix}objective.{name}"] = value.detach().cpu().numpy().copy()
    return flat


def _prefixes(players: Sequence[Any]) -> list[str]:
    """Prefix of each player's keys; empty for the first."""
    return ["", *(f"{player.name}/" for player in players[1:])]


def import_optimizer(
    players: Sequence[Any],
    optimizers: Sequence[torch.optim.Optimizer],
    flat: Mapping[str, Any],
) -> None:
    """Load the statistics in ``flat`` into each optimiser of the same kind."""
    for optimizer, prefix in zip(optimizers, _prefixes(players), strict=True):
        if flat.get(f"{prefix}optimizer_kind") != type(optimizer).__name__:
            continue
        parameters = in_order(optimizer)
        fused = any(group.get("fused") for group in optimizer.param_groups)
        found: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in flat.items():
            kind, _, rest = key.removeprefix(prefix).partition(".")
            if kind == "optimizer" and key.startswith(prefix):
                index, _, name = rest.partition(".")
                found.setdefault(int(index), {})[name] = torch.from_numpy(np.array(value))
        for place, entries in found.items():
            parameter = parameters[place]
            shapes = {tensor.shape for name, tensor in entries.items() if name != "step"}
            if type(optimizer) is not torch.optim.LBFGS and shapes - {parameter.shape}:
                continue  # another parameter had this place: it starts with new statistics
            for name, tensor in entries.items():
                # Step counters are scalars that torch keeps on the CPU, unless the optimiser is
                # fused.
                device = parameter.device if tensor.ndim or fused else "cpu"
                optimizer.state[parameter][name] = tensor.to(device)


def import_objective(
    objective: Objective, flat: Mapping[str, Any], device: torch.device, prefix: str = ""
) -> ObjectiveState:
    """The objective's tensors in ``flat``, copied to ``device``; none if they are another's.

    Those of the first player have no prefix, whatever its name.
    """
    if f"{prefix}objective_kind" not in flat:
        prefix = ""
    if not objective.continues(str(flat.get(f"{prefix}objective_kind"))):
        return {}
    start = f"{prefix}objective."
    return {
        key.removeprefix(start): torch.from_numpy(np.array(value)).to(device)
        for key, value in flat.items()
        if key.startswith(start)
    }
