"""Embeddings: distances to prototypes, from stored weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.entries import Entry
from tests.entries.autoencoders import run_network


def prototype_distance(model: Any, X: Any) -> Any:
    """min_k |f(x) - w_k|^2 / s^2 with embeddings of unit length."""
    Y = (np.asarray(X, np.float64) - model.offset_) / model.scale_
    z = run_network(model, "encoder", Y)
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    squares = ((z[:, None] - model.prototypes_) ** 2).sum(axis=2)
    return squares.min(axis=1) / model.embedding_spread_


ENTRIES = {
    "ContrastiveEmbedding": Entry(
        quick={
            "n_components": 4,
            "hidden_sizes": (16,),
            "head_sizes": (),
            "n_prototypes": 4,
            "learning_rate": 0.02,
            "batch_size": 40,
            "max_epochs": 12,
            "random_state": 0,
        },
        untrained={"learning_rate": 1e-12, "max_epochs": 1},
        variants=(
            {"objective": "margin", "views": "neighbours", "unit_length": False},
            {"objective": "nce_memory_bank", "head_sizes": (8, 4), "keep_head": True},
            {"objective": "momentum_queue", "n_prototypes": 9},
        ),
        free_energy=prototype_distance,
    ),
}
