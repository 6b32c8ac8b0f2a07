"""Optimisers by name: what the field calls them, as torch classes with their usual settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class OptimizerChoice:
    """A torch optimiser, its settings, and whether it takes all rows at once."""

    factory: type[torch.optim.Optimizer]
    settings: dict[str, Any] = field(default_factory=dict)
    full_batch: bool = False
    uses_closure: bool = False


OPTIMIZERS: dict[str, OptimizerChoice] = {
    "gradient_descent": OptimizerChoice(torch.optim.SGD, full_batch=True),
    "sgd": OptimizerChoice(torch.optim.SGD),
    # Heavy-ball momentum (Polyak, 1964): the velocity keeps 90 % of itself.
    "momentum": OptimizerChoice(torch.optim.SGD, {"momentum": 0.9}),
    "rmsprop": OptimizerChoice(torch.optim.RMSprop),
    # Fused: one kernel for all that a step does to a parameter, instead of a dozen passes.
    "adam": OptimizerChoice(torch.optim.Adam, {"fused": True}),
    "adamw": OptimizerChoice(torch.optim.AdamW, {"fused": True}),
    "lbfgs": OptimizerChoice(
        torch.optim.LBFGS, {"line_search_fn": "strong_wolfe"}, full_batch=True, uses_closure=True
    ),
}
