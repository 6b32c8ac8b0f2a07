"""How well an embedding does on held-out rows: minus the objective of their pairs."""

from __future__ import annotations

from typing import Any

import torch

from sklebm._shell.random import make_generator
from sklebm.objectives import Batch, Objective
from sklebm.objectives.embedding import InfoNCE, MarginContrast, TripletMargin


def contrast(energy: Any, batch: Batch, objective: Objective, batch_size: int, seed: int) -> float:
    """Minus the mean objective of the rows, by ``energy.held_out_views``, the same every time."""
    if not isinstance(objective, (MarginContrast, TripletMargin, InfoNCE)):
        # A memory holds other rows, and what an objective of the user needs is not known; the same
        # contrast within the held-out rows needs none.
        objective = InfoNCE(temperature=getattr(objective, "temperature", 0.2))
    generator = make_generator(seed, "validation", device=batch.x.device)
    total, n_rows, learning_views = 0.0, 0, energy.views
    energy.eval()
    energy.views = energy.held_out_views
    for part in torch.split(torch.arange(len(batch)), batch_size):
        chosen = part.to(batch.x.device)
        target = chosen if batch.target is None else batch.target[chosen]
        some = Batch(batch.x[chosen], target=target)
        total += float(objective.loss(energy, some, {}, generator)[0]) * len(part)
        n_rows += len(part)
    energy.views = learning_views
    energy.train()
    return -total / n_rows
