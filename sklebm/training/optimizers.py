"""Optimisers by their usual names, as torch classes with their usual settings."""

from __future__ import annotations

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
