"""Compiled kernel of online k-means: rows move centres one after the other (MacQueen, 1967)."""

from __future__ import annotations

from typing import Any

import numpy as np

from sklebm.inference._compiled import compiled
from sklebm.inference._distances import exact_distance


@compiled()
def follow_rows(
    x: Any, weights: Any, centers: Any, counts: Any, error: float, revive: bool, labels: Any
) -> Any:
    """Move ``centers`` and raise ``counts`` in place; returns the sum of squared errors.

    ``error`` is that of the rows before. With ``revive``, a centre that has won no row moves onto
    the next row that lies farther from its centre than the rows have done on average.
    """
    total = counts.sum()
    for i in range(len(x)):
        row, weight = x[i], weights[i]
        label, square = 0, np.inf
        for k in range(len(centers)):
            distance = exact_distance(row, centers[k])
            if distance < square:
                label, square = k, distance
        if weight > 0.0:
            if revive and square * total > error:
                for k in range(len(centers)):
                    if counts[k] == 0.0:
                        label, square = k, 0.0
                        centers[k] = row
                        break
            counts[label] += weight
            total += weight
            share = weight / counts[label]
            for j in range(len(row)):
                centers[label, j] += share * (row[j] - centers[label, j])
            # Welford's update: as if the row had come ``weight`` times.
            error += weight * (1.0 - share) * square
        labels[i] = label
    return error
