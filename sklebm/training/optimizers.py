"""Optimisers by their usual names, as torch classes with their usual settings."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class OptimizerChoice:
    """A torch optimiser, its settings, and whether it uses all rows in each step."""

    factory: type[torch.optim.Optimizer]
    settings: dict[str, Any] = field(default_factory=dict)
    full_batch: bool = False
    uses_closure: bool = False


OPTIMIZERS: dict[str, OptimizerChoice] = {
    "gradient_descent": OptimizerChoice(torch.optim.SGD, full_batch=True),
    "sgd": OptimizerChoice(torch.optim.SGD),
    # Heavy-ball momentum (Polyak, 1964): the velocity decays by 10 % per step.
    "momentum": OptimizerChoice(torch.optim.SGD, {"momentum": 0.9}),
    "rmsprop": OptimizerChoice(torch.optim.RMSprop),
    # Fused: one kernel per parameter and step instead of a dozen passes.
    "adam": OptimizerChoice(torch.optim.Adam, {"fused": True}),
    "adamw": OptimizerChoice(torch.optim.AdamW, {"fused": True}),
    "lbfgs": OptimizerChoice(
        torch.optim.LBFGS, {"line_search_fn": "strong_wolfe"}, full_batch=True, uses_closure=True
    ),
}


def keep_levels(optimizer: torch.optim.Optimizer) -> None:
    """Exempt single numbers from the decay of weights: levels and scales, such as log Z.

    Decay would pull them to zero, which is no simpler a model but another density.
    """
    _ORDER[optimizer] = [p for group in optimizer.param_groups for p in group["params"]]
    for group in list(optimizer.param_groups):
        single = [p for p in group["params"] if p.numel() == 1 and p.ndim <= 1]
        if not group.get("weight_decay") or not single:
            continue
        if len(single) == len(group["params"]):
            group["weight_decay"] = 0.0
            continue
        chosen = {id(p) for p in single}
        group["params"] = [p for p in group["params"] if id(p) not in chosen]
        rest = {name: value for name, value in group.items() if name not in _LISTS}
        optimizer.add_param_group({**rest, "params": single, "weight_decay": 0.0})


def in_order(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    """Parameters in the order in which the optimiser got them, whatever groups they are in."""
    found = _ORDER.get(optimizer)
    if found is None:
        found = [p for group in optimizer.param_groups for p in group["params"]]
    return found


_LISTS = ("params", "param_names")
_ORDER: weakref.WeakKeyDictionary[torch.optim.Optimizer, list[torch.nn.Parameter]] = (
    weakref.WeakKeyDictionary()
)
