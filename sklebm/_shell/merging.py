"""Equal rows with equal targets become one row with the sum of their weights.

What is learnt from the result depends neither on the order of the rows nor on whether a row is
repeated or weighted; rows of weight 0 are left out.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from sklebm._shell.rows import Rows
from sklebm.inference.seeding import content_keys


def merge_repeated(rows: Rows) -> Rows:
    """The distinct rows in an order that depends on their content alone, weighted if repeated.

    Weights have a mean of 1, and are left out if all are equal. Rows that stay on disk are not
    compared: they are returned as they are, with weights of mean 1. O(n d + n log n).
    """
    weight = rows.columns.get("weight")
    if rows.is_lazy:
        return rows if weight is None else _with(rows, {"weight": weight / weight.mean()})
    kept = np.arange(len(rows)) if weight is None else (weight.cpu() > 0).nonzero()[:, 0].numpy()
    keys = content_keys(rows, rows.chunks(3 * rows.shape[1]), torch.Generator().manual_seed(0))
    columns = {name: values.cpu().numpy() for name, values in rows.columns.items()}
    compared = [columns[name].reshape(len(rows), -1) for name in columns if name != "weight"]
    beside = np.concatenate([keys.cpu().numpy()[:, None], *compared], axis=1, dtype=np.float64)
    order = kept[np.lexsort(beside[kept].T[::-1])]
    # Two different rows may have the same projection: those with equal keys are compared in full.
    same = np.flatnonzero((beside[order[1:]] == beside[order[:-1]]).all(axis=1))
    repeats = np.zeros(len(order), dtype=bool)
    for part in np.array_split(same, max(1, len(same) * rows.shape[1] // 2**20)):
        left, right = rows[order[part]], rows[order[part + 1]]
        repeats[part + 1] = (left == right).all(dim=1).cpu().numpy()
    first = np.flatnonzero(~repeats)
    given = np.ones(len(rows)) if weight is None else columns["weight"]
    total = np.add.reduceat(given[order], first)
    merged = rows.some(torch.from_numpy(order[first]))
    merged.columns.pop("weight", None)
    if (total == total[0]).all():
        return merged
    return _with(merged, {"weight": torch.from_numpy(total / total.mean()).to(rows.device)})


def of_positive_weight(rows: Rows) -> Rows:
    """The rows without those of weight 0; rows that stay on disk are returned as they are."""
    weight = rows.columns.get("weight")
    if weight is None or rows.is_lazy or bool((weight > 0).all()):
        return rows
    return rows.some((weight > 0).nonzero()[:, 0])


def _with(rows: Rows, columns: dict[str, Any]) -> Rows:
    found = copy.copy(rows)
    found.columns = {**rows.columns, **columns}
    return found
