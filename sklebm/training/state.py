"""What ``partial_fit`` and ``warm_start`` continue from, as a flat dictionary of NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sklebm.objectives.base import Objective, ObjectiveState


def export_state(
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    objective_state: ObjectiveState,
    *,
    seed: int,
    n_calls: int,
) -> dict[str, Any]:
    """Copy the optimiser's statistics and the objective's chains to the host.

    Keys are ``optimizer.<parameter index>.<name>`` and ``objective.<name>``; beside them stand
    the optimiser and the objective that they belong to.
    """
    flat: dict[str, Any] = {
        "seed": seed,
        "n_calls": n_calls,
        "optimizer_kind": type(optimizer).__name__,
        "objective_kind": repr(objective),
    }
    for index, entries in optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            if isinstance(value, torch.Tensor):
                flat[f"optimizer.{index}.{name}"] = value.detach().cpu().numpy().copy()
    for name, value in objective_state.items():
        flat[f"objective.{name}"] = value.detach().cpu().numpy().copy()
    return flat


def import_optimizer(optimizer: torch.optim.Optimizer, flat: dict[str, Any]) -> None:
    """Give ``optimizer`` the statistics in ``flat``, if they are those of its kind."""
    if flat.get("optimizer_kind") != type(optimizer).__name__:
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    fused = any(group.get("fused") for group in optimizer.param_groups)
    for key, value in flat.items():
        kind, _, rest = key.partition(".")
        if kind != "optimizer":
            continue
        index, _, name = rest.partition(".")
        parameter = parameters[int(index)]
        tensor = torch.from_numpy(np.array(value))
        # Step counters are scalars that torch keeps on the host, unless one kernel does it all.
        device = parameter.device if tensor.ndim or fused else "cpu"
        optimizer.state[parameter][name] = tensor.to(device)


def import_objective(
    objective: Objective, flat: dict[str, Any], device: torch.device
) -> ObjectiveState:
    """The objective's tensors in ``flat``, copied to ``device``; none if another objective's."""
    if not objective.continues(str(flat.get("objective_kind"))):
        return {}
    return {
        key.removeprefix("objective."): torch.from_numpy(np.array(value)).to(device)
        for key, value in flat.items()
        if key.startswith("objective.")
    }
