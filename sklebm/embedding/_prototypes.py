"""Prototypes of embeddings: found by k-means after a fit, moved by running means in a stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sklebm._shell.rows import Rows, row_slices
from sklebm._shell.warning import silenced
from sklebm.mixture import EnergyKMeans

#: At most this many rows are embedded to find prototypes; they are evenly spaced.
MAX_ROWS = 20_000

Floats = NDArray[np.float64]


def embedded(energy: Any, rows: Rows, floats_per_row: int) -> Floats:
    """Embeddings of a subset of the rows, in double precision."""
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), MAX_ROWS)).astype(np.intp)
    was_training = energy.training
    energy.eval()
    with torch.no_grad():
        parts = [
            energy.embed(rows[chosen[part]].float()).double().cpu()
            for part in row_slices(len(chosen), floats_per_row)
        ]
    energy.train(was_training)
    found = torch.cat(parts)
    if not bool(torch.isfinite(found).all()):
        raise FloatingPointError(
            "The embeddings of the rows are not finite: values of X overflow, or training "
            "diverged. Scale X, for example with StandardScaler, or lower learning_rate."
        )
    return found.numpy()


def find(embeddings: Floats, n_prototypes: int, seed: int) -> dict[str, Any]:
    """Prototypes, their numbers of rows, and the moments of the embeddings."""
    distinct = len(np.unique(embeddings, axis=0))
    n_clusters = min(n_prototypes, distinct)
    with silenced():  # what k-means says of embeddings says little of X
        model = EnergyKMeans(n_clusters, random_state=seed % 2**32, device="cpu").fit(embeddings)
    counts = np.bincount(model.predict(embeddings), minlength=n_clusters)
    mean = embeddings.mean(axis=0)
    return {
        "prototypes_": model.cluster_centers_,
        "prototype_counts_": counts.astype(np.float64),
        "embedding_mean_": mean,
        "embedding_spread_": float(np.square(embeddings - mean).sum(axis=1).mean()),
    }


def moved(embeddings: Floats, n_prototypes: int, before: dict[str, Any]) -> dict[str, Any]:
    """The same after further rows: means go on as running means of the rows next to them."""
    centres, counts = before["prototypes_"].copy(), before["prototype_counts_"].copy()
    n_new, n_before = len(embeddings), float(counts.sum())
    for z in embeddings:
        away = np.square(centres - z).sum(axis=1)
        nearest = int(away.argmin())
        if len(centres) < n_prototypes and away[nearest] > 0.0:
            centres, counts = np.vstack([centres, z]), np.append(counts, 1.0)
            continue
        counts[nearest] += 1.0
        centres[nearest] += (z - centres[nearest]) / counts[nearest]
    mean = embeddings.mean(axis=0)
    spread = float(np.square(embeddings - mean).sum(axis=1).mean())
    share, step = n_new / (n_before + n_new), mean - before["embedding_mean_"]
    within = (1.0 - share) * before["embedding_spread_"] + share * spread
    return {
        "prototypes_": centres,
        "prototype_counts_": counts,
        "embedding_mean_": before["embedding_mean_"] + share * step,
        "embedding_spread_": within + share * (1.0 - share) * float(np.square(step).sum()),
    }
